//! Failures on demand: software devices hand out memory without end and are never lost.

use super::registry::context;
use crate::error::Result;
use std::cell::Cell;

thread_local! {
    static FAIL_IN: Cell<u8> = const { Cell::new(0) };
}

/// The `n`th allocation of this thread from now on fails, counted from 1. 0: none.
pub fn fail_allocation(n: u8) -> Result<()> {
    FAIL_IN.set(n);
    Ok(())
}

/// The device is lost from now on.
pub fn lose(index: u8) -> Result<()> {
    let context = context(index)?;
    context.health.lose("a test wants it");
    context.close();
    Ok(())
}

/// Whether this allocation is to fail.
pub(super) fn must_fail() -> bool {
    let left = FAIL_IN.get();
    FAIL_IN.set(left.saturating_sub(1));
    left == 1
}

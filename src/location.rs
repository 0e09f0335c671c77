//! The user's line. `python` sets the hook; it is called only when a record-time error is raised, never per op.

use std::sync::OnceLock;

static HOOK: OnceLock<fn() -> Option<String>> = OnceLock::new();

/// Sets the function that finds the user's current `file:line`. The first call wins.
pub fn set_hook(hook: fn() -> Option<String>) {
    let _ = HOOK.set(hook);
}

/// The user's current `file:line`, where a language binding can tell it.
pub fn current() -> Option<String> {
    HOOK.get().and_then(|hook| hook())
}

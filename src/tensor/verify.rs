//! Running a user's step while each of its ops is checked on several devices. Every plan that the step runs is checked
//! before it runs, so nothing has been written over.

use super::lower::Lowered;
use crate::device_id::DeviceId;
use crate::error::Result;
use crate::exec::verify::{self, Report};
use crate::exec::{Inputs, Leaf};
use crate::graph::{Op, Source};
use crate::machine::storage::Storage;
use std::cell::RefCell;
use std::sync::Arc;

struct Session {
    devices: Vec<DeviceId>,
    report: Report,
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

/// Runs `step`, and checks the ops of all plans that this thread runs meanwhile. Gives what `step` gave, and the report.
pub fn verifying<R>(devices: &[DeviceId], step: impl FnOnce() -> R) -> (R, Report) {
    let session = Session { devices: devices.to_vec(), report: Report::default() };
    let before = SESSION.replace(Some(session));
    let result = step();
    let report = SESSION.replace(before).map(|session| session.report).unwrap_or_default();
    (result, report)
}

/// Whether this thread verifies.
pub(super) fn is_on() -> bool {
    SESSION.with_borrow(Option::is_some)
}

/// Checks the ops of a plan on what it is about to read, if this thread verifies.
pub(super) fn check(lowered: &Lowered, inputs: &Inputs) -> Result<()> {
    // Taken out meanwhile: what a signal handler evaluates is not checked, and must not find the session borrowed.
    let Some(mut session) = SESSION.take() else { return Ok(()) };
    let result = session.check(lowered, inputs);
    SESSION.set(Some(session));
    result
}

impl Session {
    fn check(&mut self, lowered: &Lowered, inputs: &Inputs) -> Result<()> {
        let host = inputs.leaves.iter().enumerate().map(|(slot, leaf)| on_host(lowered, slot as u32, leaf));
        let host = host.collect::<Result<Vec<_>>>()?;
        let Lowered { graph, known, strides, .. } = lowered;
        let inputs = Inputs { leaves: &host, ..*inputs };
        verify::verify(graph, known, strides, &inputs, &self.devices, &mut self.report)
    }
}

/// A leaf in memory of the host.
fn on_host(lowered: &Lowered, slot: u32, leaf: &Leaf) -> Result<Leaf> {
    if leaf.buffer.device().is_cpu() {
        return Ok(leaf.clone());
    }
    let is_leaf = |op: &Op| matches!(op, Op::Source(Source::Leaf(of)) if *of == slot);
    let Some(node) = lowered.graph.nodes.iter().find(|node| is_leaf(&node.op)) else { return Ok(leaf.clone()) };
    let dtype = node.outputs[0].dtype;
    let read = leaf.buffer.download(dtype, 0, leaf.buffer.bytes() / dtype.device_size())?;
    Ok(Leaf { buffer: Arc::new(Storage::Host(read)), offset: leaf.offset })
}

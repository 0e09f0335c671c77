//! The identity that misbehaves at evaluation: how tests make a plan fail, wait or panic. It is not in the table of
//! ops. A random fill does it, because that is a kernel of its own: it is never fused into an update.

use super::build::*;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::def::FillFn;
use crate::graph::{CompositeDef, Graph, Op, RandomDef, Reads, TensorType, Val};
use crate::machine::cpu::par;
use smallvec::smallvec;
use std::time::{Duration, Instant};

/// What happens when the value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Fail = 0,
    Sleep = 1,
    Panic = 2,
}

/// Long enough to cost nothing, short against any interruption.
const NAP: Duration = Duration::from_millis(5);

pub(crate) static TESTING_OP: CompositeDef = CompositeDef {
    name: "testing_op",
    doc: "x, after a failure, a sleep or a panic. Inputs: x, 0, microseconds (int64 numbers).",
    attrs: &["0 fail, 1 sleep, 2 panic"],
    infer: |_, inputs| Ok(smallvec![inputs[0].clone()]),
    expand: |g, attrs, inputs| {
        let zero = draw(g, attrs[0], inputs)?;
        // Not a sum: -0 + 0 is 0.
        Ok(smallvec![subtract(g, inputs[0], zero)?])
    },
    // The gradient misbehaves too: a factor of 1 - 0.
    derivative: Some(|g, rule, t| {
        let (Op::Composite(_, attrs), Some(tangent)) = (rule.op, t[0]) else { return Ok(smallvec![None]) };
        let zero = draw(g, attrs[0], rule.inputs)?;
        let one = full_like(g, 1.0, zero);
        let factor = subtract(g, one, zero)?;
        Ok(smallvec![Some(multiply(g, tangent, factor)?)])
    }),
    transpose: None,
    reads: Reads { inputs: !1, outputs: 0 },
    kernel: None,
};

/// The zero that misbehaves, as wide as x.
fn draw(g: &mut Graph, behaviour: i64, inputs: &[Val]) -> Result<Val> {
    let def = match behaviour {
        0 => &FAIL,
        1 => &SLEEP,
        _ => &PANIC,
    };
    let zero = g.add_typed(Op::Random(def), &inputs[1..], TensorType::scalar(DType::F32));
    let zero = cast(g, zero, g.dtype(inputs[0]))?;
    number(g, zero, inputs[0])
}

static FAIL: RandomDef =
    RandomDef { name: "testing_fail", doc: "Fails.", fill: |_| Some(fail as FillFn), wgsl: |_| None };
static SLEEP: RandomDef =
    RandomDef { name: "testing_sleep", doc: "Sleeps.", fill: |_| Some(sleep as FillFn), wgsl: |_| None };
static PANIC: RandomDef =
    RandomDef { name: "testing_panic", doc: "Panics.", fill: |_| Some(panic as FillFn), wgsl: |_| None };

/// # Safety
/// None is needed: nothing is written.
unsafe fn fail(_: u64, _: u64, _: u64, _: usize, _: *mut u8) {
    std::panic::panic_any(Error::value("testing_op: fail"));
}

/// # Safety
/// None is needed: nothing is written.
unsafe fn panic(_: u64, _: u64, _: u64, _: usize, _: *mut u8) {
    std::panic::panic_any("testing_op: panic".to_owned());
}

/// # Safety
/// `out` has room for `n` float32 elements.
unsafe fn sleep(_: u64, microseconds: u64, _: u64, n: usize, out: *mut u8) {
    // SAFETY: zero bytes are zeros.
    unsafe { out.write_bytes(0, 4 * n) };
    let start = Instant::now();
    let asked = Duration::from_micros(microseconds);
    while let Some(left) = asked.checked_sub(start.elapsed()) {
        std::thread::sleep(left.min(NAP));
        if par::poll().is_err() {
            std::panic::panic_any(Error::new(ErrorKind::Interrupted, "interrupted"));
        }
    }
}

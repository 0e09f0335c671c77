//! The trace of a step: while one is open in a thread, whatever runs there runs as usual and is written down, so that
//! it can be run again without the code that recorded it. Owns the log and how an aborted step is undone. It never
//! decides what a plan computes.
//!
//! A number that is to be found anew at each call goes through recording as a NaN that names its entry in the trace's
//! table (`tag`); as its node is recorded, the number itself takes the place of that NaN (`note_record`).

mod compare;
mod draft;
mod end;
mod log;
mod note;

pub(super) use draft::{Draft, draft, keep};
pub(super) use log::{Check, Holder, LastGrad, NameId, Returned, Same, Source, TracedPlan, is_of};
pub use log::{Log, Origin};
pub(super) use note::{
    note_check, note_constant, note_copy, note_grad, note_move, note_question, note_record, note_settled, note_use,
    note_variable,
};

use super::engine::{self, Engine, Slot, Value};
use super::evaluate;
use super::handle::{Place, Tensor};
use super::rng;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::TensorType;
use crate::scalar::Scalar;
use hashbrown::{HashMap, HashSet};
use log::Name;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Trace {
    /// The id that the next record got when this was opened.
    start: u64,
    names: Vec<Name>,
    by_cell: HashMap<usize, NameId>,
    by_record: HashMap<(u64, u32), SmallVec<[NameId; 1]>>,
    /// Handles from before that were rebound: what each named first, held.
    undo: Vec<(Tensor, Place)>,
    /// The addresses of those.
    moved: HashSet<usize>,
    /// Handles from before that became variables or ceased to be: whether they were.
    variables: Vec<(Tensor, bool)>,
    /// What each name was rebound to, in order.
    moves: Vec<(NameId, (u64, u32))>,
    grads: HashMap<NameId, FirstGrad>,
    grad_order: Vec<NameId>,
    tagged: Vec<(Scalar, Origin)>,
    origins: HashMap<(u64, usize), Origin>,
    lines: HashMap<u64, String>,
    plans: Vec<TracedPlan>,
    computed: HashMap<(u64, u32), Source>,
    constants: Vec<(Value, TensorType, String)>,
    by_constant: HashMap<(u64, u32), u32>,
    /// Each with the place that it looks at; its source is known at the end.
    checks: Vec<((u64, u32), Check)>,
    sources: u32,
    generator: (u64, u64),
    refused: Option<Error>,
    /// Another thread recorded or computed a part of the step, so that the log has a gap; or it was one of a kind.
    disturbed: Option<Error>,
}

struct FirstGrad {
    initial: Option<Tensor>,
    exists: Option<bool>,
    plans: u32,
}

thread_local! {
    static OPEN: Cell<bool> = const { Cell::new(false) };
    static TRACE: RefCell<Option<Box<Trace>>> = const { RefCell::new(None) };
}

/// Traces that are open in the process. Hardly ever there is one, and this is found faster than what a thread has.
static TRACES: AtomicUsize = AtomicUsize::new(0);

/// The bits of a NaN that names a number: a quiet NaN with these bits above the index.
const TAG: u64 = 0x7FFC_5747 << 32;

/// Whether a step is traced in this thread.
#[inline]
pub fn is_open() -> bool {
    TRACES.load(Ordering::Relaxed) > 0 && is_open_here()
}

// Apart, or the compiler finds the thread's own first.
#[cold]
fn is_open_here() -> bool {
    OPEN.get()
}

fn set_open(on: bool) {
    if OPEN.replace(on) != on {
        let _ = if on { TRACES.fetch_add(1, Ordering::Relaxed) } else { TRACES.fetch_sub(1, Ordering::Relaxed) };
    }
}

fn with<R>(f: impl FnOnce(&mut Trace) -> R) -> Option<R> {
    TRACE.with_borrow_mut(|trace| trace.as_mut().map(|trace| f(trace)))
}

/// An error that says why a step cannot be compiled, with the user's line.
pub fn refusal(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::Compile, reason)
}

/// In a traced step: refuses this read of a value.
pub fn refuse_read(what: &str) -> Result<()> {
    match is_open() {
        true => refuse_call(&format!(
            "{what}: a compiled step reads no values, it runs without Python; return the tensor and read it outside, or \
             use wg.where instead of if"
        )),
        false => Ok(()),
    }
}

/// In a traced step: refuses what a replay could not do again.
pub fn refuse_call(what: &str) -> Result<()> {
    if !is_open() {
        return Ok(());
    }
    let error = super::record::at_user_line(refusal(what));
    refuse(error.clone());
    Err(error)
}

/// In a traced step: says why this call is no example of later ones. It is done all the same, and a later one is traced.
pub fn disturb(reason: &str) {
    with(|trace| {
        trace.disturbed.get_or_insert_with(|| refusal(reason));
    });
}

/// Remembers why the step cannot be compiled, whatever the user's code does with the error.
pub fn refuse(error: Error) {
    with(|trace| {
        trace.refused.get_or_insert(error);
    });
}

/// The number to record for one that is found anew at each call.
pub fn tag(value: impl Into<Scalar>, origin: Origin) -> Scalar {
    let value = value.into();
    let index = with(|trace| {
        trace.tagged.push((value, origin));
        trace.tagged.len() as u64 - 1
    });
    index.map_or(value, |index| Scalar::F64(f64::from_bits(TAG | index)))
}

/// Whether this number is found anew at each call, so that nothing may be decided by it.
pub fn is_tagged(number: Scalar) -> bool {
    is_open() && tag_index(number).is_some()
}

fn tag_index(number: Scalar) -> Option<usize> {
    match number {
        Scalar::F64(x) if x.to_bits() & !0xFFFF_FFFF == TAG => Some((x.to_bits() & 0xFFFF_FFFF) as usize),
        _ => None,
    }
}

/// Seed and stream of a draw, as numbers to record.
pub(super) fn tag_draw(seed: u64, stream: u64) -> (Scalar, Scalar) {
    let (seed, number) = (Scalar::I64(seed as i64), Scalar::I64(stream as i64));
    match with(|trace| trace.generator.1) {
        Some(first) => (tag(seed, Origin::Seed), tag(number, Origin::Stream(stream.wrapping_sub(first)))),
        None => (seed, number),
    }
}

/// A new index for `Origin::Setting`.
pub fn new_source() -> u32 {
    with(|trace| {
        trace.sources += 1;
        trace.sources - 1
    })
    .unwrap_or(0)
}

/// Indices given so far.
pub fn sources() -> u32 {
    with(|trace| trace.sources).unwrap_or(0)
}

/// Plans run so far.
pub fn plans() -> u32 {
    with(|trace| trace.plans.len() as u32).unwrap_or(0)
}

/// The record that a tensor names.
fn place_of(engine: &Engine, tensor: &Tensor) -> (u64, u32, TensorType) {
    let (slot, output) = tensor.place(engine);
    let (slot, output) = engine.unmarked(slot, output);
    let record = engine.get(slot);
    (record.id, output, record.types[output as usize].clone())
}

impl Trace {
    /// The name of a tensor from outside; None for one that the step made itself.
    fn name(&mut self, engine: &Engine, tensor: &Tensor) -> Option<NameId> {
        if let Some(&name) = self.by_cell.get(&tensor.address()) {
            return Some(name);
        }
        (tensor.0.born < self.start).then(|| self.add(engine, tensor, Holder::Handle))
    }

    fn add(&mut self, engine: &Engine, tensor: &Tensor, holder: Holder) -> NameId {
        let name = self.names.len() as NameId;
        let (id, output, ty) = place_of(engine, tensor);
        let (slot, _) = engine.unmarked(tensor.place(engine).0, output);
        let record = engine.get(slot);
        let device = record.device;
        let strides = record.values[output as usize].as_ref().map(|value| value.strides.clone());
        let variable = tensor.is_variable_in(engine);
        let bound = matches!(holder, Holder::Argument(_)).then(|| Arc::downgrade(&tensor.0));
        self.names.push(Name {
            tensor: Some(tensor.clone()),
            holder,
            bound,
            variable,
            first: (id, output),
            ty,
            strides,
            device,
        });
        self.by_cell.entry(tensor.address()).or_insert(name);
        self.by_record.entry((id, output)).or_default().push(name);
        name
    }

    /// Where the value of a record's output comes from.
    fn source(&mut self, engine: &Engine, slot: Slot, output: u32) -> Result<Source> {
        let (slot, output) = engine.unmarked(slot, output);
        let record = engine.get(slot);
        let place = (record.id, output);
        if let Some(&source) = self.computed.get(&place) {
            return Ok(source);
        }
        if let Some(names) = self.by_record.get(&place).filter(|_| !record.history) {
            return Ok(Source::Name(names[0]));
        }
        if record.id < self.start {
            return Err(refusal(format!(
                "a result of {} from before the step is part of it; call the compiled function with it as an argument, \
                 or compute it inside",
                record.op.name()
            )));
        }
        if !record.is_leaf() {
            let error = refusal(format!(
                "another thread computed the result of {}, so that the step does not know how; read it after the step",
                record.op.name()
            ));
            return Err(self.disturbed.get_or_insert(error).clone());
        }
        let Some(value) = &record.values[output as usize] else {
            return Err(refusal(format!("{}: its value is kept by nothing that a replay could ask", record.op.name())));
        };
        let next = self.constants.len() as u32;
        let constant = *self.by_constant.entry(place).or_insert(next);
        if constant == next {
            let line = self.lines.get(&record.id).cloned().unwrap_or_default();
            self.constants.push((value.clone(), record.types[output as usize].clone(), line));
        }
        Ok(Source::Constant(constant))
    }
}

/// An open trace. Dropped without `finish` or `undo`, it closes and what happened stays.
pub struct Tracing(());

impl Tracing {
    /// Starts to write down what this thread does. Everything pending is evaluated first.
    pub fn open(arguments: &[Tensor]) -> Result<Tracing> {
        evaluate::evaluate_all(&[])?;
        evaluate::evaluate(&arguments.iter().collect::<Vec<_>>())?;
        let generator = rng::seed();
        let mut engine = engine::lock();
        // A handle made before this names no id at or above the start, not even the next one.
        engine.skip_id();
        let mut trace = Box::new(Trace {
            start: engine.next_id(),
            names: Vec::new(),
            by_cell: HashMap::new(),
            by_record: HashMap::new(),
            undo: Vec::new(),
            moved: HashSet::new(),
            variables: Vec::new(),
            moves: Vec::new(),
            grads: HashMap::new(),
            grad_order: Vec::new(),
            tagged: Vec::new(),
            origins: HashMap::new(),
            lines: HashMap::new(),
            plans: Vec::new(),
            computed: HashMap::new(),
            constants: Vec::new(),
            by_constant: HashMap::new(),
            checks: Vec::new(),
            sources: 0,
            generator,
            refused: None,
            disturbed: None,
        });
        for (position, argument) in arguments.iter().enumerate() {
            trace.add(&engine, argument, Holder::Argument(position as u32));
        }
        drop(engine);
        TRACE.set(Some(trace));
        set_open(true);
        Ok(Tracing(()))
    }

    /// The last barrier: evaluates what the step left pending, then says what it did. On an error the trace is still
    /// open, to be undone.
    pub fn finish(&self, returned: &[Tensor]) -> Result<Log> {
        self.refused()?;
        evaluate::evaluate_all(&[])?;
        evaluate::evaluate(&returned.iter().collect::<Vec<_>>())?;
        self.refused()?;
        if let Some(error) = with(|trace| trace.disturbed.clone()).flatten() {
            return Err(error);
        }
        let (_, next) = rng::seed();
        // Declared before the engine is locked: no tensor may be dropped while it is.
        let grads = with(|trace| trace.current_grads(&engine::lock())).unwrap_or_default();
        let engine = engine::lock();
        let log = with(|trace| trace.log(&engine, &grads, returned, next));
        log.unwrap_or_else(|| Err(Error::internal("no trace is open")))
    }

    fn refused(&self) -> Result<()> {
        with(|trace| trace.refused.clone()).flatten().map_or(Ok(()), Err)
    }

    /// Why the step cannot be compiled, if something said so.
    pub fn refusal(&self) -> Option<Error> {
        self.refused().err()
    }

    /// Whether nothing is wrong with the step but that this call of it is no example of others.
    pub fn is_disturbed(&self) -> bool {
        with(|trace| trace.refused.is_none() && trace.disturbed.is_some()).unwrap_or(false)
    }

    /// Puts everything back as it was before the step: handles, gradients, the generator.
    pub fn undo(self) {
        set_open(false);
        let Some(trace) = TRACE.take() else { return };
        for (tensor, place) in trace.undo.iter().rev() {
            engine::lock().retain(place.slot);
            tensor.restore(*place);
        }
        for (tensor, before) in &trace.variables {
            // It was what it was before: that it may be.
            let restored = tensor.set_requires_grad(*before);
            debug_assert!(restored.is_ok());
        }
        for (name, first) in &trace.grads {
            let variable = &trace.names[*name as usize].tensor;
            let replace = |variable: &Tensor| variable.replace_grad(&mut engine::lock(), first.initial.clone());
            drop(variable.as_ref().and_then(replace));
        }
        rng::set_state(trace.generator.0, trace.generator.1);
        close(*trace);
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        set_open(false);
        if let Some(trace) = TRACE.take() {
            close(*trace);
        }
    }
}

/// Lets go of what the trace held.
fn close(trace: Trace) {
    for (_, place) in &trace.undo {
        place.release();
    }
}

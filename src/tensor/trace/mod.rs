//! The trace of a step: while one is open in a thread, whatever runs there runs as usual and is written down, so that
//! it can be run again without the code that recorded it. Owns the log and how an aborted step is undone. It never
//! decides what a plan computes.
//!
//! A number that is to be found anew at each call goes through recording as a NaN that names its entry in the trace's
//! table (`tag`); as its node is recorded, the number itself takes the place of that NaN (`note_record`).

mod compare;
mod log;

pub(super) use log::is_of;

use super::checks::IndexCheck;
use super::engine::{self, Engine, Operand, Record, Slot, Value};
use super::evaluate;
use super::handle::{Cell, Place, Tensor, leaf};
use super::lower::Lowered;
use super::publish::Output;
use super::rng;
use super::walk::{Edge, Node, Role, Walk};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Op, TensorType};
use crate::scalar::Scalar;
use crate::shape::Strides;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;
use std::cell::{Cell as StdCell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// The place of a name in `Log::names`.
pub(super) type NameId = u32;

/// How a tensor that existed before the step is found at each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The argument at this position.
    Argument(u32),
    /// The handle itself: a parameter, a state, a captured tensor.
    Handle,
    /// The gradient of this variable.
    Grad(NameId),
}

/// A tensor that existed before the step and that the step uses.
#[derive(Clone)]
pub(super) struct Name {
    /// The handle; a log keeps those alone that are found by themselves.
    pub tensor: Option<Tensor>,
    pub holder: Holder,
    /// An argument that was this handle whenever the step was traced: what the step did with it may have been done to a
    /// captured tensor, so a replay takes no other one.
    pub bound: Option<Weak<Cell>>,
    /// Whether it is a variable.
    pub variable: bool,
    /// What it named at the start: record id and output, type, and strides if the value existed.
    pub first: (u64, u32),
    pub ty: TensorType,
    pub strides: Option<Strides>,
}

impl Name {
    fn kept(&self) -> Name {
        let tensor = self.tensor.clone().filter(|_| self.holder == Holder::Handle);
        Name { tensor, ..self.clone() }
    }
}

/// Of the names up to one, the first that has its value and the first that is the same handle: itself, mostly.
pub(super) type Same = [NameId; 2];

/// Where a value of the step comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// What a tensor from outside named at the start.
    Name(NameId),
    /// An output of a plan of this step.
    Output(u32, u32),
    /// Data that the step made from the host's.
    Constant(u32),
    /// Another output of a record that is read, kept by something else: a plan's key names it, and nothing reads it.
    Unread,
}

/// How a number of a plan is found at each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is what it was.
    Literal,
    /// The float argument at this position.
    Argument(u32),
    /// The seed of the generator.
    Seed,
    /// The generator's stream, counted from the start of the call.
    Stream(u64),
    /// A number that the source of this index makes from its settings and step count.
    Setting { source: u32, at: u32 },
}

pub(super) struct Number {
    pub value: Scalar,
    pub origin: Origin,
    /// The op and the user's line.
    pub place: String,
}

/// A plan as it ran.
pub(super) struct TracedPlan {
    pub lowered: Lowered,
    /// The source of each leaf, and what it is.
    pub leaves: Vec<(Source, TensorType)>,
    pub numbers: Vec<Number>,
    pub types: Vec<TensorType>,
    /// The user's line of each record, in the order of `Lowered::ends`.
    pub lines: Vec<Option<String>>,
}

/// What becomes of the gradient of a variable.
pub(super) struct GradLog {
    pub variable: NameId,
    /// Whether it existed, if the step asked before it cleared it.
    pub exists: Option<bool>,
    /// Plans that had run when the step first touched it.
    pub plans: u32,
    pub last: LastGrad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastGrad {
    Unchanged,
    None,
    Value(Source),
    /// A tensor from outside, itself.
    Handle(NameId),
}

/// What the step gives back.
#[derive(Clone, Debug)]
pub(super) enum Returned {
    /// A tensor from outside, itself.
    Name(NameId),
    /// The gradient of a variable, itself.
    Grad(NameId),
    Value(Source),
    /// A value whose history was used up by a backward pass.
    Used(Source, Spent),
}

/// What is left of a node whose history was used up: its op, the types of its outputs, and the output that is meant.
#[derive(Clone, Debug)]
pub(super) struct Spent {
    pub op: Op,
    pub types: SmallVec<[TensorType; 1]>,
    pub output: u32,
}

impl Spent {
    /// Such a node, with the value of the output.
    pub fn record(&self, value: Value) -> Record {
        let mut record = leaf(value, self.types[self.output as usize].clone());
        let value = record.values.pop().flatten();
        record.values = SmallVec::from_elem(None, self.types.len());
        record.values[self.output as usize] = value;
        (record.op, record.types) = (self.op.clone(), self.types.clone());
        record.history = true;
        // By a gradient that is not pending: no record has this id.
        record.consumed = Some((0, u64::MAX));
        record
    }
}

/// All of a step that succeeded.
pub struct Log {
    pub(super) names: Vec<Name>,
    /// What each name shares with earlier ones: the same at each call.
    pub(super) same: Vec<Same>,
    pub(super) plans: Vec<TracedPlan>,
    /// The values that each rebound name took, the last one last.
    pub(super) states: Vec<(NameId, Vec<Source>)>,
    pub(super) grads: Vec<GradLog>,
    pub(super) returned: Vec<(Returned, TensorType)>,
    pub(super) constants: Vec<(Value, TensorType, String)>,
    pub(super) checks: Vec<Check>,
    /// Streams drawn from the generator.
    pub(super) draws: u64,
}

/// A check of a tensor's elements.
pub(super) struct Check {
    /// The plan before which it is made.
    pub before: u32,
    pub source: Source,
    pub ty: TensorType,
    pub check: IndexCheck,
}

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
    /// Another thread recorded or computed a part of the step, so that the log has a gap.
    disturbed: Option<Error>,
}

struct FirstGrad {
    initial: Option<Tensor>,
    exists: Option<bool>,
    plans: u32,
}

thread_local! {
    static OPEN: StdCell<bool> = const { StdCell::new(false) };
    static TRACE: RefCell<Option<Box<Trace>>> = const { RefCell::new(None) };
}

/// Traces that are open in the process. Hardly ever there is one, and this is found faster than what a thread has.
static TRACES: AtomicUsize = AtomicUsize::new(0);

/// The bits of a NaN that names a number: a quiet NaN with these bits above the index.
const TAG: u64 = 0x7FFC_5747 << 32;

/// Whether a step is traced in this thread.
#[inline]
pub fn is_open() -> bool {
    TRACES.load(Ordering::Relaxed) > 0 && OPEN.get()
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

/// Notes a node that is about to get this id, and puts numbers in the place of their tags.
pub(super) fn note_record(id: u64, operands: &mut [Operand], line: Option<&String>) {
    with(|trace| {
        for (position, operand) in operands.iter_mut().enumerate() {
            let Operand::Number(number, _) = operand else { continue };
            let tagged = tag_index(*number).and_then(|index| trace.tagged.get(index));
            if let Some(&(value, origin)) = tagged {
                *number = value;
                trace.origins.insert((id, position), origin);
            }
        }
        if let Some(line) = line {
            trace.lines.insert(id, line.clone());
        }
    });
}

/// Notes that a number is about to be recorded again: where it comes from is the same.
pub(super) fn note_copy(from: (u64, usize), to: (u64, usize)) {
    with(|trace| {
        if let Some(origin) = trace.origins.get(&from).copied() {
            trace.origins.insert(to, origin);
        }
    });
}

/// Notes data of the host that became a tensor.
pub(super) fn note_constant(id: u64, line: String) {
    with(|trace| trace.lines.insert(id, line));
}

/// Notes that an operation uses a tensor.
pub(super) fn note_use(engine: &Engine, tensor: &Tensor) {
    with(|trace| trace.name(engine, tensor));
}

/// Notes that a handle is about to name another place.
pub(super) fn note_move(engine: &mut Engine, tensor: &Tensor, to: Place) {
    with(|trace| {
        let Some(name) = trace.name(engine, tensor) else { return };
        if trace.moved.insert(tensor.address()) {
            let (slot, output) = tensor.place();
            let old = Place { slot, output };
            engine.retain(slot);
            trace.undo.push((tensor.clone(), old));
        }
        let (slot, output) = engine.unmarked(to.slot, to.output);
        trace.moves.push((name, (engine.get(slot).id, output)));
    });
}

/// Notes that a value was given a record of its own.
pub(super) fn note_settled(engine: &Engine, from: Place, to: Slot) {
    with(|trace| {
        let source = trace.computed.get(&(engine.get(from.slot).id, from.output)).copied();
        source.map(|source| trace.computed.insert((engine.get(to).id, 0), source));
    });
}

/// Notes that the gradient of a variable is looked at, or cleared, before either happens.
pub(super) fn note_grad(variable: &Tensor, clears: bool) {
    if !is_open() {
        return;
    }
    // Dropped after the engine is free again.
    let initial = variable.0.lock().variable.as_ref().map(|variable| variable.grad.clone());
    let engine = engine::lock();
    with(|trace| {
        // One that is no variable may become one later: that it is none is part of the step.
        let (Some(name), Some(initial)) = (trace.name(&engine, variable), &initial) else { return };
        if trace.grads.contains_key(&name) {
            return;
        }
        // One that is cleared first is not part of the step.
        if let Some(grad) = initial.as_ref().filter(|_| !clears) {
            trace.add(&engine, grad, Holder::Grad(name));
        }
        let exists = (!clears).then_some(initial.is_some());
        let plans = trace.plans.len() as u32;
        trace.grads.insert(name, FirstGrad { initial: initial.clone(), exists, plans });
        trace.grad_order.push(name);
    });
    drop(engine);
}

/// Notes that the step asks whether a tensor is a variable.
pub(super) fn note_question(tensor: &Tensor) {
    if is_open() {
        note_use(&engine::lock(), tensor);
    }
}

/// Notes that a handle is about to become a variable, or to be none any more.
pub(super) fn note_variable(tensor: &Tensor) {
    if !is_open() {
        return;
    }
    let before = tensor.is_variable();
    // What goes with the variable is its gradient.
    note_grad(tensor, true);
    let engine = engine::lock();
    with(|trace| {
        if trace.name(&engine, tensor).is_some() && !trace.variables.iter().any(|(known, _)| known.is(tensor)) {
            trace.variables.push((tensor.clone(), before));
        }
    });
}

/// Notes a check of a tensor's elements.
pub(super) fn note_check(target: &Tensor, check: IndexCheck) {
    if !is_open() {
        return;
    }
    let engine = engine::lock();
    with(|trace| {
        trace.name(&engine, target);
        let (id, output, ty) = place_of(&engine, target);
        let before = trace.plans.len() as u32;
        trace.checks.push(((id, output), Check { before, source: Source::Unread, ty, check }));
    });
}

/// The record that a tensor names.
fn place_of(engine: &Engine, tensor: &Tensor) -> (u64, u32, TensorType) {
    let (slot, output) = tensor.place();
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
        let (slot, _) = engine.unmarked(tensor.place().0, output);
        let strides = engine.get(slot).values[output as usize].as_ref().map(|value| value.strides.clone());
        let variable = tensor.is_variable();
        let bound = matches!(holder, Holder::Argument(_)).then(|| Arc::downgrade(&tensor.0));
        self.names.push(Name {
            tensor: Some(tensor.clone()),
            holder,
            bound,
            variable,
            first: (id, output),
            ty,
            strides,
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

/// What is written down of a plan before it runs.
pub(super) struct Draft {
    lines: Vec<Option<String>>,
    leaves: Vec<(Source, TensorType)>,
    numbers: Vec<Number>,
    outputs: Vec<(u64, u32, TensorType)>,
}

/// Writes down a plan that is about to run, while its records are whole. Leaves and numbers stand in the order of the
/// plan's key.
pub(super) fn draft(engine: &Engine, walk: &Walk, outputs: &[Output]) -> Option<Draft> {
    with(|trace| {
        let made = trace.draft(engine, walk, outputs);
        match made {
            Ok(draft) => Some(draft),
            Err(error) => {
                // After a gap everything else is missed too.
                if trace.disturbed.is_none() {
                    trace.refused.get_or_insert(error);
                }
                None
            }
        }
    })
    .flatten()
}

/// Keeps a plan that ran.
pub(super) fn keep(draft: Draft, lowered: Lowered) {
    with(|trace| {
        let plan = trace.plans.len() as u32;
        for (position, (id, output, _)) in draft.outputs.iter().enumerate() {
            trace.computed.insert((*id, *output), Source::Output(plan, position as u32));
        }
        trace.plans.push(TracedPlan {
            lowered,
            leaves: draft.leaves,
            numbers: draft.numbers,
            lines: draft.lines,
            types: draft.outputs.into_iter().map(|(_, _, ty)| ty).collect(),
        });
    });
}

impl Trace {
    fn draft(&mut self, engine: &Engine, walk: &Walk, outputs: &[Output]) -> Result<Draft> {
        let lines = walk.nodes.iter().map(|node| self.lines.get(&engine.get(node.slot).id).cloned()).collect();
        let outputs_len = outputs.len();
        let mut draft =
            Draft { lines, leaves: Vec::new(), numbers: Vec::new(), outputs: Vec::with_capacity(outputs_len) };
        let uses_operands = |role: Role| matches!(role, Role::Open | Role::Example | Role::Known);
        let users = (0..walk.len()).filter(|&rank| uses_operands(walk.nodes[rank].role));
        let read: HashSet<u64> = users.flat_map(|rank| walk.edges(rank)).map(|edge| edge.word()).collect();
        for (rank, &Node { slot, role, .. }) in walk.nodes.iter().enumerate() {
            let record = engine.get(slot);
            if uses_operands(role) {
                if record.id < self.start && role == Role::Open && !matches!(record.op, Op::Marker) {
                    let error = refusal(format!(
                        "another thread recorded {} before the step and never computed it; call wg.eval on it first",
                        record.op.name()
                    ));
                    return Err(self.disturbed.get_or_insert(error).clone());
                }
                for (position, operand) in record.operands.iter().enumerate() {
                    let Operand::Number(value, _) = *operand else { continue };
                    let origin = self.origins.get(&(record.id, position)).copied().unwrap_or(Origin::Literal);
                    let line = self.lines.get(&record.id).map(|line| format!(", {line}")).unwrap_or_default();
                    draft.numbers.push(Number { value, origin, place: format!("{}{line}", record.op.name()) });
                }
            }
            if !matches!(role, Role::Open | Role::Example) {
                for output in 0..record.values.len() as u32 {
                    if record.values[output as usize].is_some() {
                        let source = match role == Role::Leaf && !read.contains(&Edge::to(rank, output).word()) {
                            true => Source::Unread,
                            false => self.source(engine, slot, output)?,
                        };
                        draft.leaves.push((source, record.types[output as usize].clone()));
                    }
                }
            }
        }
        for output in outputs {
            let record = engine.get(walk.nodes[output.rank as usize].slot);
            draft.outputs.push((record.id, output.output, record.types[output.output as usize].clone()));
        }
        Ok(draft)
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
        let (_, next) = rng::seed();
        // Declared before the engine is locked: no tensor may be dropped while it is.
        let grads = with(|trace| trace.current_grads()).unwrap_or_default();
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

    /// Whether nothing is wrong with the step but that another thread recorded or computed a part of it.
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
            drop(variable.as_ref().and_then(|variable| variable.replace_grad(first.initial.clone())));
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

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Name(name) => write!(f, "tensor {name} from outside"),
            Source::Output(plan, output) => write!(f, "result {output} of plan {plan}"),
            Source::Constant(constant) => write!(f, "host data {constant}"),
            Source::Unread => f.write_str("a value that nothing reads"),
        }
    }
}

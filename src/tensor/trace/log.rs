//! What a traced step did: the tensors it used, its plans, and what it leaves behind; and whether later arguments and
//! tensors are such that it could be the same step again.

use super::place_of;
use crate::device_id::DeviceId;
use crate::graph::{Op, TensorType};
use crate::scalar::Scalar;
use crate::shape::Strides;
use crate::tensor::checks::IndexCheck;
use crate::tensor::engine::{self, Record, Value};
use crate::tensor::handle::{Cell, Tensor, leaf};
use crate::tensor::lower::Lowered;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::sync::{Arc, Weak};

/// The place of a name in `Log::names`.
pub(in crate::tensor) type NameId = u32;

/// How a tensor that existed before the step is found at each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tensor) enum Holder {
    /// The argument at this position.
    Argument(u32),
    /// The handle itself: a parameter, a state, a captured tensor.
    Handle,
    /// The gradient of this variable.
    Grad(NameId),
}

/// A tensor that existed before the step and that the step uses.
#[derive(Clone)]
pub(in crate::tensor) struct Name {
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
    pub device: DeviceId,
}

impl Name {
    pub(super) fn kept(&self) -> Name {
        let tensor = self.tensor.clone().filter(|_| self.holder == Holder::Handle);
        Name { tensor, ..self.clone() }
    }
}

/// Of the names up to one, the first that has its value and the first that is the same handle: itself, mostly.
pub(in crate::tensor) type Same = [NameId; 2];

/// Where a value of the step comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::tensor) enum Source {
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

pub(in crate::tensor) struct Number {
    pub value: Scalar,
    pub origin: Origin,
    /// The op and the user's line.
    pub place: String,
}

/// A plan as it ran.
pub(in crate::tensor) struct TracedPlan {
    pub device: DeviceId,
    pub lowered: Lowered,
    /// The source of each leaf, and what it is.
    pub leaves: Vec<(Source, TensorType)>,
    pub numbers: Vec<Number>,
    pub types: Vec<TensorType>,
    /// The user's line of each record, in the order of `Lowered::ends`.
    pub lines: Vec<Option<String>>,
}

/// What becomes of the gradient of a variable.
pub(in crate::tensor) struct GradLog {
    pub variable: NameId,
    /// Whether it existed, if the step asked before it cleared it.
    pub exists: Option<bool>,
    /// Plans that had run when the step first touched it.
    pub plans: u32,
    pub last: LastGrad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tensor) enum LastGrad {
    Unchanged,
    None,
    Value(Source),
    /// A tensor from outside, itself.
    Handle(NameId),
}

/// What the step gives back.
#[derive(Clone, Debug)]
pub(in crate::tensor) enum Returned {
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
pub(in crate::tensor) struct Spent {
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
    pub(in crate::tensor) names: Vec<Name>,
    /// What each name shares with earlier ones: the same at each call.
    pub(in crate::tensor) same: Vec<Same>,
    pub(in crate::tensor) plans: Vec<TracedPlan>,
    /// The values that each rebound name took, the last one last.
    pub(in crate::tensor) states: Vec<(NameId, Vec<Source>)>,
    pub(in crate::tensor) grads: Vec<GradLog>,
    pub(in crate::tensor) returned: Vec<(Returned, TensorType)>,
    pub(in crate::tensor) constants: Vec<(Value, TensorType, String)>,
    pub(in crate::tensor) checks: Vec<Check>,
    /// Streams drawn from the generator.
    pub(in crate::tensor) draws: u64,
}

/// A check of a tensor's elements.
pub(in crate::tensor) struct Check {
    /// The plan before which it is made.
    pub before: u32,
    pub source: Source,
    pub ty: TensorType,
    pub check: IndexCheck,
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

impl Log {
    /// Whether the step could be the same with these arguments and what other tensors are now.
    pub fn fits(&self, arguments: &[&Tensor]) -> bool {
        let grad_of = |name: NameId| self.names[name as usize].tensor.as_ref()?.held_grad(&engine::lock());
        let find = |name: &Name| match name.holder {
            Holder::Argument(position) => Some(arguments[position as usize].clone()),
            Holder::Handle => name.tensor.clone(),
            Holder::Grad(variable) => grad_of(variable),
        };
        let Some(tensors) = self.names.iter().map(find).collect::<Option<Vec<Tensor>>>() else { return false };
        let name_fits = |(name, tensor): (&Name, &Tensor)| {
            let same = |(value, ty): (Value, TensorType)| {
                ty == name.ty && name.strides.as_ref().is_none_or(|strides| *strides == value.strides)
            };
            let alike = tensor.is_variable() == name.variable && tensor.device() == name.device;
            alike && tensor.value().is_ok_and(same)
        };
        if !self.names.iter().zip(&tensors).all(name_fits) {
            return false;
        }
        let same = {
            let engine = engine::lock();
            sames(tensors.iter().map(|tensor| {
                let (id, output, _) = place_of(&engine, tensor);
                ((id, output), tensor.address())
            }))
        };
        let exists = |grad: &GradLog| grad.exists.is_none_or(|exists| grad_of(grad.variable).is_some() == exists);
        same == self.same && self.grads.iter().all(exists)
    }

    /// Whether this step uses, as a tensor from outside, what was an argument of an earlier call: seen from there the two
    /// were one.
    pub fn captures_argument_of(&self, before: &Log) -> bool {
        let arguments = || before.names.iter().filter_map(|name| name.bound.as_ref());
        let captured = self.names.iter().filter(|name| name.holder == Holder::Handle);
        captured.filter_map(|name| name.tensor.as_ref()).any(|tensor| arguments().any(|bound| is_of(bound, tensor)))
    }

    /// Whether the step uses this tensor from outside, other than as an argument.
    pub fn captures(&self, tensor: &Tensor) -> bool {
        self.names.iter().filter_map(|name| name.tensor.as_ref()).any(|captured| captured.is(tensor))
    }

    /// Keeps bound those arguments alone that were one handle in an earlier log of the same step too. Whether there are
    /// any.
    pub fn keep_bound(&mut self, before: &mut Log) -> bool {
        let mut any = false;
        for (now, then) in self.names.iter_mut().zip(&mut before.names) {
            let same = match (&now.bound, &then.bound) {
                (Some(now), Some(then)) => now.ptr_eq(then),
                _ => false,
            };
            if !same {
                (now.bound, then.bound) = (None, None);
            }
            any |= same;
        }
        any
    }

    /// Whether a result is a tensor from outside that is no argument.
    pub fn is_outside(&self, result: usize) -> bool {
        match self.returned[result].0 {
            Returned::Name(name) => self.names[name as usize].holder == Holder::Handle,
            _ => false,
        }
    }
}

/// Whether a handle that is not kept alive is this one.
pub(in crate::tensor) fn is_of(handle: &Weak<Cell>, tensor: &Tensor) -> bool {
    std::ptr::eq(handle.as_ptr(), Arc::as_ptr(&tensor.0))
}

/// What each name shares with earlier ones, from its place and the address of its handle.
pub(super) fn sames(names: impl Iterator<Item = ((u64, u32), usize)>) -> Vec<Same> {
    let (mut places, mut cells) = (HashMap::new(), HashMap::new());
    let same = |(at, (place, cell)): (usize, ((u64, u32), usize))| {
        [*places.entry(place).or_insert(at as NameId), *cells.entry(cell).or_insert(at as NameId)]
    };
    names.enumerate().map(same).collect()
}

//! Transforms of functions: gradient, jvp, vmap and custom gradients. The function is the caller's to run; here are the
//! frames that are open while it runs, and the nodes that are recorded when it is done.

use super::context::{self, Frame, GradGuard};
use super::engine::{self, Engine, Operand, Slot};
use super::functions;
use super::handle::{Tensor, operand_slot};
use super::record::{Recorder, Types, push_marker, push_placeholder};
use crate::error::{Error, Result};
use crate::graph::infer::infer;
use crate::graph::{BatchSpec, GradientSpec, JvpSpec, Op, Source, TensorType};
use smallvec::SmallVec;

/// Nesting deeper than this is refused: each depth has one bit.
const MAX_DEPTH: usize = 32;

/// An open transform. Dropping it closes it.
pub struct Transform {
    bit: u64,
    /// The grad mode of whoever opened it.
    grad: bool,
    open: bool,
    _mode: GradGuard,
}

impl Transform {
    /// Opens a transform whose arguments gradients or tangents flow through.
    pub fn differentiate() -> Result<Transform> {
        Transform::open(0, true)
    }

    /// Opens a batch: its arguments are placeholders for one example.
    pub fn batch() -> Result<Transform> {
        Transform::open(MAX_DEPTH, context::grad_enabled())
    }

    fn open(shift: usize, grad: bool) -> Result<Transform> {
        let depth = context::transform_depth();
        if depth >= MAX_DEPTH {
            return Err(Error::grad(format!("transforms are nested deeper than {MAX_DEPTH}")));
        }
        let bit = 1 << (depth + shift);
        let opened = engine::lock().next_id();
        context::push_transform(Frame { bit, opened, placeholders: Vec::new(), rebound: Vec::new() });
        Ok(Transform { bit, grad: context::grad_enabled(), open: true, _mode: GradGuard::new(grad) })
    }

    /// The argument to give to the function in the place of `tensor`.
    pub fn argument(&self, tensor: &Tensor) -> Result<Tensor> {
        let ty = tensor.ty();
        if !ty.dtype.is_float() {
            return Err(Error::grad(format!(
                "a transform differentiates float arguments only, this one is {}",
                ty.dtype
            )));
        }
        let mut recorder = Recorder::begin();
        let Some((slot, output)) = (match recorder.operand_in(tensor, self.grad) {
            Operand::Node(slot, output) => Some((slot, output)),
            Operand::Number(..) => None,
        }) else {
            return Err(Error::internal("an argument without a record"));
        };
        let engine = recorder.engine();
        let marker = push_marker(engine, slot, output, None);
        engine.get_mut(marker).transforms |= self.bit;
        let argument = Tensor::on(engine, marker, 0);
        engine.release(marker);
        Ok(argument)
    }

    /// The placeholder for one row of `tensor`, which has the examples along its first axis.
    pub fn example(&self, tensor: &Tensor) -> Result<Tensor> {
        let mut ty = tensor.ty();
        ty.shape.remove(0);
        let (history, device) = (tensor.requires_grad(), tensor.device());
        let mut engine = engine::lock();
        let slot = push_placeholder(&mut engine, ty, device, self.bit);
        engine.get_mut(slot).history = history;
        context::with_top_frame(|frame| frame.placeholders.push(slot));
        Ok(Tensor::on(&mut engine, slot, 0))
    }

    /// Closes the transform. A handle from outside that was given a value of this transform gets its old one back.
    pub fn close(mut self) -> Result<()> {
        self.close_frame()
    }

    fn close_frame(&mut self) -> Result<()> {
        self.open = false;
        let Some(frame) = context::pop_transform() else {
            return Err(Error::internal("a transform was closed twice"));
        };
        let mut leaked = false;
        for (tensor, place) in frame.rebound.into_iter().rev() {
            let escapes = {
                let engine = engine::lock();
                let (slot, _) = tensor.place(&engine);
                engine.get(slot).transforms & frame.bit != 0
            };
            // A handle made inside is the function's own.
            if escapes && tensor.0.born <= frame.opened {
                leaked = true;
                tensor.restore(place);
            } else {
                context::log_rebind(&tensor, place);
            }
        }
        let mut engine = engine::lock();
        frame.placeholders.iter().for_each(|&slot| engine.release(slot));
        drop(engine);
        if leaked {
            return Err(Error::grad(
                "a tensor from outside was given a value that depends on a transform's argument; it has its old value \
                 again; return the new value from the function instead",
            ));
        }
        Ok(())
    }
}

impl Drop for Transform {
    fn drop(&mut self) {
        if self.open {
            // Reached only while an error is on its way out, which says more than this one could.
            let _ = self.close_frame();
        }
    }
}

/// Gradients of Σ target·cotangent (cotangents of one if None) with respect to arguments of a closed transform.
pub fn gradient(targets: &[&Tensor], cotangents: Option<&[&Tensor]>, arguments: &[&Tensor]) -> Result<Vec<Tensor>> {
    let spec = GradientSpec { targets: targets.len() as u32, wrt: arguments.len() as u32, ones: cotangents.is_none() };
    let mut recorder = Recorder::begin();
    let operands = operands(&mut recorder, &[targets, cotangents.unwrap_or(&[]), arguments]);
    let types: Types = arguments.iter().map(|argument| recorder.ty(argument)).collect();
    finish(recorder, Op::Gradient(spec), operands, types, arguments)
}

/// Tangents of the targets when the arguments of a closed transform move by `tangents`.
pub fn jvp(targets: &[&Tensor], arguments: &[&Tensor], tangents: &[&Tensor]) -> Result<Vec<Tensor>> {
    let spec = JvpSpec { targets: targets.len() as u32, primals: arguments.len() as u32 };
    let mut recorder = Recorder::begin();
    let operands = operands(&mut recorder, &[targets, arguments, tangents]);
    let types: Types = targets.iter().map(|target| recorder.ty(target)).collect();
    finish(recorder, Op::Jvp(spec), operands, types, arguments)
}

/// The targets for all examples; `examples` are the placeholders, `args` what they stand for.
pub fn vmap_axis(size: usize, targets: &[&Tensor], examples: &[&Tensor], args: &[&Tensor]) -> Result<Vec<Tensor>> {
    let spec = BatchSpec { targets: targets.len() as u32, examples: examples.len() as u32, size };
    let mut recorder = Recorder::begin();
    let operands = operands(&mut recorder, &[targets, examples, args]);
    let inputs: Vec<TensorType> = targets.iter().map(|target| recorder.ty(target)).collect();
    let types = infer(&Op::Batch(spec), &inputs.iter().collect::<Vec<_>>())?;
    finish(recorder, Op::Batch(spec), operands, types, examples)
}

/// A custom gradient being traced: the value is known, and the pullback runs on a placeholder.
pub struct CustomTrace {
    frame: Transform,
    placeholder: Tensor,
}

impl CustomTrace {
    pub fn begin(value: &Tensor) -> Result<CustomTrace> {
        let ty = value.ty();
        if !ty.dtype.is_float() {
            return Err(Error::grad(format!("custom_gradient: the value is {}, only floats have gradients", ty.dtype)));
        }
        let frame = Transform::batch()?;
        let device = value.device();
        let placeholder = {
            let mut engine = engine::lock();
            let slot = push_placeholder(&mut engine, ty, device, frame.bit);
            engine.get_mut(slot).history = true;
            let tensor = Tensor::on(&mut engine, slot, 0);
            engine.release(slot);
            tensor
        };
        Ok(CustomTrace { frame, placeholder })
    }

    /// What to call the pullback with.
    pub fn cotangent(&self) -> &Tensor {
        &self.placeholder
    }

    /// The value with its pullback: `gradients` is what the pullback made of the placeholder, one for each argument.
    pub fn finish(self, value: &Tensor, arguments: &[&Tensor], gradients: &[&Tensor]) -> Result<Tensor> {
        let CustomTrace { frame, placeholder } = self;
        frame.close()?;
        for (position, (argument, gradient)) in arguments.iter().zip(gradients).enumerate() {
            let (want, got) = (argument.ty(), gradient.ty());
            if want != got {
                return Err(Error::grad(format!(
                    "custom_gradient: the pullback gave {got} for argument {position}, which is {want}"
                )));
            }
        }
        let mut recorder = Recorder::begin();
        let operands = operands(&mut recorder, &[&[value], &[&placeholder], arguments, gradients]);
        let ty = recorder.ty(value);
        recorder.finish(Op::CustomGradient(arguments.len() as u32), operands, ty)
    }
}

/// Cuts a result of a closed transform off its arguments, unless it has history of the caller's own.
pub fn result(tensor: &Tensor, arguments: &[&Tensor]) -> Result<Tensor> {
    let kept = keeps_history(tensor, arguments);
    if kept { Ok(tensor.clone()) } else { functions::detach(tensor) }
}

/// Cuts the outputs of one transform's node off its arguments, likewise.
pub fn results(made: Vec<Tensor>, arguments: &[&Tensor]) -> Result<Vec<Tensor>> {
    let Some(first) = made.first() else { return Ok(made) };
    let kept = keeps_history(first, arguments);
    if kept { Ok(made) } else { made.iter().map(functions::detach).collect() }
}

fn keeps_history(tensor: &Tensor, arguments: &[&Tensor]) -> bool {
    let mut engine = engine::lock();
    let own: Vec<Slot> = arguments.iter().map(|argument| argument.place(&engine).0).collect();
    let (slot, _) = tensor.place(&engine);
    context::grad_enabled() && has_other_history(&mut engine, slot, &own)
}

/// Whether a variable, or the argument of a transform that is still open, is reached below `root` other than through
/// `own` markers. Markers of closed transforms are passed: their arguments may have history themselves.
fn has_other_history(engine: &mut Engine, root: Slot, own: &[Slot]) -> bool {
    let walk = engine.next_walk();
    let open = context::open_bits();
    let mut stack = vec![root];
    while let Some(slot) = stack.pop() {
        let record = engine.get_mut(slot);
        if record.visit.walk == walk || !record.history {
            continue;
        }
        record.visit.walk = walk;
        stack.extend(record.operands.iter().filter_map(operand_slot));
        let record = engine.get(slot);
        let is_argument = matches!(record.op, Op::Marker | Op::Source(Source::Placeholder));
        let is_source = record.variable.is_some() || is_argument && own_bits(engine, slot) & open != 0;
        if is_source && !own.contains(&slot) {
            return true;
        }
    }
    false
}

fn operands(recorder: &mut Recorder, groups: &[&[&Tensor]]) -> SmallVec<[Operand; 3]> {
    groups.iter().flat_map(|group| group.iter()).map(|tensor| recorder.operand(tensor)).collect()
}

/// Records the node of a transform; its results no longer depend on the transform's own arguments.
fn finish(
    mut recorder: Recorder,
    op: Op,
    operands: SmallVec<[Operand; 3]>,
    types: Types,
    arguments: &[&Tensor],
) -> Result<Vec<Tensor>> {
    let count = types.len() as u32;
    let engine = recorder.engine();
    let own = arguments.iter().fold(0, |bits, argument| bits | own_bits(engine, argument.place(engine).0));
    let slot = recorder.push(op, operands, types)?;
    let transforms = recorder.engine().get(slot).transforms & !own;
    recorder.set_transforms(slot, transforms);
    let made: Vec<Tensor> = (0..count).map(|output| recorder.tensor(slot, output)).collect();
    recorder.end(&made.iter().collect::<Vec<_>>())?;
    Ok(made)
}

/// The bit of the transform that an argument belongs to: its own bits less those of what it marks.
fn own_bits(engine: &Engine, slot: Slot) -> u64 {
    let record = engine.get(slot);
    let inner = record.operands.first().and_then(operand_slot).map_or(0, |slot| engine.get(slot).transforms);
    record.transforms & !inner
}

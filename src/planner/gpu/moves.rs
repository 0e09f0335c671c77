//! What moves elements: gathers, embeds and joins; and random fills. A thread makes one element of the result.

use super::plan::{Kernel, Word};
use super::shader::{At, Shader, THREADS};
use super::{OTHER_BUFFERS, Scene};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{GatherMode, RandomDef, SliceDim};
use crate::planner::tasks::{Start, Task};
use crate::planner::window::{Dims, Window};
use crate::shape::Shape;

/// Operands that one shader joins: drivers compile it.
const MOST_OPERANDS: usize = 64;

/// Opens a shader in which thread `i` of `size` goes on.
pub fn each<'a>(scene: &'a Scene, task: &Task, size: usize) -> Shader<'a> {
    let mut shader = Shader::new(scene.program, &scene.homes, task.name);
    let count = shader.number(size);
    shader.line(&format!("let i = group * {THREADS}u + thread;"));
    shader.line(&format!("if (i >= {count}) {{ return; }}"));
    shader
}

pub fn finish(scene: &Scene, shader: Shader, size: usize) -> Result<Kernel> {
    shader.finish(&scene.limits, THREADS, size.div_ceil(THREADS))
}

/// Reads an int64 index along an axis of `shape`, for a task of this name, into the variable `index`, from the end if it is
/// negative. One that is out of range is noted and becomes `otherwise`.
pub fn checked_index(
    shader: &mut Shader,
    name: &'static str,
    element: &str,
    (shape, axis): (&Shape, usize),
    otherwise: &str,
) {
    shader.fault();
    let extent = shader.number(shape[axis]);
    let [code, run, record] = [Word::Index(name, axis as u32), Word::Run, Word::Record].map(|word| shader.word(word));
    shader.item("first", || {
        // The exchange may fail where it should not, but then it has seen the zero.
        "fn first(word: u32, run: u32) -> bool {
  for (var tries = 0u; tries < 64u; tries++) {
    let seen = atomicCompareExchangeWeak(&fault[word], 0u, run);
    if (seen.exchanged || seen.old_value != 0u) { return seen.exchanged; }
  }
  return false;
}"
        .to_owned()
    });
    shader.item("checked", || {
        "fn checked(index: vec2<u32>, extent: u32, code: u32, run: u32, record: u32, otherwise: u32) -> u32 {
  if (index.y == 0u && index.x < extent) { return index.x; }
  if (index.y == 0xffffffffu && index.x > 0xffffffffu - extent) { return index.x + extent; }
  first(0u, run);
  if (first(record, run)) {
    atomicStore(&fault[record + 1u], code);
    atomicStore(&fault[record + 2u], index.x);
    atomicStore(&fault[record + 3u], index.y);
    atomicStore(&fault[record + 4u], extent);
  }
  return otherwise;
}"
        .to_owned()
    });
    shader.line(&format!("let index = checked({element}, {extent}, {code}, {run}, {record}, {otherwise});"));
}

pub fn gather(scene: &Scene, task: &Task, mode: GatherMode, axis: usize, kernels: &mut Vec<Kernel>) -> Result<()> {
    let (from, indices) = (&task.inputs[0], &task.inputs[1]);
    let size = task.shape.size();
    let mut shader = each(scene, task, size);
    let inner: usize = from.shape[axis + 1..].iter().product();
    // The place of the element among the results: before, along and behind the axis.
    let along: usize = match mode {
        GatherMode::Take => indices.size(),
        GatherMode::Along => indices.shape[axis],
    };
    let (inner_word, along_word) = (shader.number(inner), shader.number(along));
    shader.line(&format!("let behind = i % {inner_word};"));
    shader.line(&format!("let before = i / {inner_word} / {along_word};"));
    let index = match mode {
        GatherMode::Take => {
            shader.line(&format!("let place = i / {inner_word} % {along_word};"));
            shader.load(indices, At::Linear("place"))?
        }
        GatherMode::Along => shader.load(indices, At::Linear("i"))?,
    };
    checked_index(&mut shader, task.name, &index, (&from.shape, axis), "0u");
    let at = along_axis(&mut shader, from, axis);
    let x = shader.element(from.value, &at)?;
    shader.store(task.output, "i", &x)?;
    kernels.push(finish(scene, shader, size)?);
    Ok(())
}

/// The element of a window at `before`, `index` and `behind` of an axis.
pub fn along_axis(shader: &mut Shader, window: &Window, axis: usize) -> String {
    let mut terms: Vec<String> = shader.offset(window).into_iter().collect();
    shader.terms(&part(window, 0..axis), "before", &mut terms);
    shader.terms(&part(window, axis..axis + 1), "index", &mut terms);
    shader.terms(&part(window, axis + 1..window.shape.rank()), "behind", &mut terms);
    if terms.is_empty() { "0u".to_owned() } else { terms.join(" + ") }
}

/// Some of a window's axes.
pub fn part(window: &Window, axes: std::ops::Range<usize>) -> Dims {
    let shape: Shape = window.shape[axes.clone()].into();
    Window { shape, strides: window.strides[axes].into(), ..window.clone() }.dims()
}

/// The operand where it stands in the result, zero elsewhere. The starts are int64 numbers.
pub fn embed(scene: &Scene, task: &Task, dims: &[SliceDim], kernels: &mut Vec<Kernel>) -> Result<()> {
    let from = &task.inputs[0];
    let size = task.shape.size();
    let dtype = scene.program.values[task.output as usize].dtype;
    let mut shader = each(scene, task, size);
    shader.line(&format!("var x = {};", super::shader::zero(dtype)));
    let mut terms: Vec<String> = shader.offset(from).into_iter().collect();
    let mut inside = Vec::new();
    let mut behind = 1;
    for axis in (0..task.shape.rank()).rev() {
        let extent = task.shape[axis];
        let (skipped, extent_word) = (shader.number(behind), shader.number(extent));
        shader.line(&format!("let at{axis} = i / {skipped} % {extent_word};"));
        behind *= extent.max(1);
        let dim = dims.iter().position(|dim| dim.axis as usize == axis);
        let place = match dim {
            None => format!("at{axis}"),
            Some(at) => {
                let (dim, start) = (&dims[at], start(scene, &mut shader, &task.inputs[1 + at])?);
                let (step, length) = (shader.number(dim.step.unsigned_abs()), shader.number(dim.length));
                // Steps from the start, forwards or backwards; what lies on the other side wraps to a large number.
                let walked = if dim.step > 0 { format!("at{axis} - {start}") } else { format!("{start} - at{axis}") };
                shader.line(&format!("let walked{axis} = {walked};"));
                inside.push(format!("walked{axis} % {step} == 0u && walked{axis} / {step} < {length}"));
                format!("walked{axis} / {step}")
            }
        };
        match from.strides[axis] {
            0 => {}
            stride => {
                let stride = shader.stride(stride);
                terms.push(format!("({place}) * {stride}"));
            }
        }
    }
    let index = if terms.is_empty() { "0u".to_owned() } else { terms.join(" + ") };
    let x = shader.element(from.value, &index)?;
    let condition = if inside.is_empty() { "true".to_owned() } else { inside.join(" && ") };
    shader.line(&format!("if ({condition}) {{ x = {x}; }}"));
    shader.store(task.output, "i", "x")?;
    kernels.push(finish(scene, shader, size)?);
    Ok(())
}

/// The start of a slice, checked before the plan runs, as u32.
fn start(scene: &Scene, shader: &mut Shader, window: &Window) -> Result<String> {
    match scene.program.start(window)? {
        Start::Known(start) => Ok(shader.number(start as usize)),
        Start::Cell(cell) => Ok(shader.word(Word::Cell(cell, 0))),
    }
}

/// A few operands at a time: each has workgroups of its own, which write its part of the result.
pub fn concat(scene: &Scene, task: &Task, axis: usize, kernels: &mut Vec<Kernel>) -> Result<()> {
    let whole = Window::whole(task.output, &task.shape);
    let starts = task.inputs.iter().scan(0, |next, input| {
        let start = *next;
        *next += input.shape[axis];
        Some(start)
    });
    let parts: Vec<(usize, &Window)> = starts.zip(&task.inputs).filter(|(_, input)| input.size() > 0).collect();
    for parts in parts.chunks((scene.limits.buffers - OTHER_BUFFERS).min(MOST_OPERANDS)) {
        let mut shader = Shader::new(scene.program, &scene.homes, task.name);
        for &(start, input) in parts {
            let offset = start as isize * whole.strides[axis];
            let part = Window { offset, shape: input.shape.clone(), ..whole.clone() };
            shader.open_part(input.size().div_ceil(THREADS));
            let size = shader.number(input.size());
            shader.line(&format!("let i = group * {THREADS}u + thread;"));
            shader.open(&format!("if (i < {size})"));
            let x = shader.load(input, At::Linear("i"))?;
            let index = shader.index(&part, At::Linear("i"));
            shader.store(task.output, &index, &x)?;
            shader.close();
            shader.close();
        }
        kernels.push(shader.finish_parts(&scene.limits)?);
    }
    Ok(())
}

pub fn random(scene: &Scene, task: &Task, def: &'static RandomDef, kernels: &mut Vec<Kernel>) -> Result<()> {
    let size = task.shape.size();
    let dtype = scene.program.values[task.output as usize].dtype;
    let expression = (def.wgsl)(dtype)
        .ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("{}: {dtype} is not there on the GPU", def.name)))?;
    let mut shader = each(scene, task, size);
    for (name, window) in [("seed", &task.inputs[0]), ("stream", &task.inputs[1])] {
        debug_assert_eq!(scene.program.values[window.value as usize].dtype, DType::I64);
        let x = shader.load(window, At::Linear("0u"))?;
        shader.line(&format!("let {name} = {x};"));
    }
    shader.store(task.output, "i", expression)?;
    kernels.push(finish(scene, shader, size)?);
    Ok(())
}

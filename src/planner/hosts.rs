//! Lowers tasks that have a kernel of their own: products, convolutions, pools, gathers, scatters, embeds, joins, random
//! fills and composites with a hand kernel. Resolves their operands to addresses and strides.

use super::Scene;
use super::plan::{Batch, Kernel, Operand, Place, Product, base, operand};
use super::tasks::{Task, TaskKind};
use super::window::Window;
use crate::error::{Error, Result};
use crate::ops::conv::Convolution;
use crate::ops::pool;
use crate::shape::Shape;

/// The kernel of a task; None if it has nothing to compute.
pub fn lower(scene: &Scene, index: u32, task: &Task) -> Result<Option<Kernel>> {
    let size = task.shape.size();
    if size == 0 {
        return Ok(None);
    }
    let input = |i: usize| see(scene, &task.inputs[i]);
    let out = || see(scene, &Window::whole(task.output, &task.shape));
    let value = &scene.program.values[task.output as usize];
    let kernel = match &task.kind {
        TaskKind::Contract => Kernel::Contract(product(scene, task)),
        TaskKind::Conv(spec, role) => {
            let shapes = [&task.inputs[0].shape, &task.inputs[1].shape];
            let workspace = scene.partials.get(&index).copied().unwrap_or_default() as isize;
            Kernel::Conv {
                conv: Box::new(Convolution::new(spec, *role, value.dtype, shapes, &task.shape)?),
                inputs: [scene.place(&task.inputs[0]), scene.place(&task.inputs[1])],
                out: scene.place(&scene.whole(task.output)),
                workspace: Place { base: base::ARENA, offset: workspace, starts: smallvec::SmallVec::new() },
            }
        }
        TaskKind::Pool(sweeps, role) => {
            let dtype = |i: usize| scene.program.values[task.inputs[i].value as usize].dtype;
            let last = task.inputs.len() - 1;
            Kernel::Pool {
                pool: Box::new(pool::extents(sweeps, *role, &task.inputs[0].shape, &task.shape)),
                role: *role,
                dtypes: (dtype(0), if last == 0 { value.dtype } else { dtype(1) }),
                inputs: [scene.place(&task.inputs[0]), scene.place(&task.inputs[last])],
                out: scene.place(&scene.whole(task.output)),
            }
        }
        TaskKind::Gather(mode, axis) => {
            Kernel::Gather { mode: *mode, axis: *axis as usize, from: input(0), indices: input(1), out: out() }
        }
        TaskKind::Scatter(mode, axis) => {
            Kernel::Scatter { mode: *mode, axis: *axis as usize, updates: input(0), indices: input(1), out: out() }
        }
        TaskKind::Embed(dims) => {
            let mut window = Window::whole(task.output, &task.shape);
            for (dim, start) in dims.iter().zip(&task.inputs[1..]) {
                let axis = dim.axis as usize;
                let stride = window.strides[axis];
                match scene.program.start(start)? {
                    super::tasks::Start::Known(start) => window.offset += start as isize * stride,
                    super::tasks::Start::Cell(cell) => window.starts.push((cell, stride)),
                }
                window.strides[axis] = stride * dim.step;
            }
            window.shape = task.inputs[0].shape.clone();
            Kernel::Embed { from: input(0), window: see(scene, &window), out: out() }
        }
        TaskKind::Concat(axis) => Kernel::Concat { parts: parts(scene, task, *axis as usize) },
        TaskKind::Random(def) => Kernel::Random {
            fill: (def.fill)(value.dtype)
                .ok_or_else(|| Error::internal("random numbers of a dtype without a kernel"))?,
            seed: scene.place(&task.inputs[0]),
            stream: scene.place(&task.inputs[1]),
            out: scene.place(&scene.whole(task.output)),
            size,
            dtype: value.dtype,
        },
        TaskKind::Hand { kernel, attrs, results, .. } => Kernel::Hand {
            run: kernel.run,
            attrs: attrs.clone(),
            inputs: task.inputs.iter().map(|window| see(scene, window)).collect(),
            outputs: results.iter().map(|window| see(scene, window)).collect(),
        },
        TaskKind::Map { .. } | TaskKind::RowReduce { .. } | TaskKind::OuterReduce { .. } => {
            return Err(Error::internal(format!("{} outside a row group", task.name)));
        }
    };
    Ok(Some(kernel))
}

fn see(scene: &Scene, window: &Window) -> Operand {
    operand(window, scene.place(window), scene.program.values[window.value as usize].dtype)
}

/// Each input of a join and the part of the result that it fills.
fn parts(scene: &Scene, task: &Task, axis: usize) -> Vec<(Operand, Operand)> {
    let mut start = 0;
    let mut parts = Vec::with_capacity(task.inputs.len());
    for input in &task.inputs {
        let whole = Window::whole(task.output, &task.shape);
        let offset = start as isize * whole.strides[axis];
        let part = Window { offset, shape: Shape::clone(&input.shape), ..whole };
        start += input.shape[axis];
        if input.size() > 0 {
            parts.push((see(scene, input), see(scene, &part)));
        }
    }
    parts
}

fn product(scene: &Scene, task: &Task) -> Product {
    let (a, b, out) = (&task.inputs[0], &task.inputs[1], Window::whole(task.output, &task.shape));
    let rank = task.shape.rank();
    let mut outer: smallvec::SmallVec<[Batch; 1]> = smallvec::SmallVec::new();
    for axis in (0..rank - 2).filter(|&axis| task.shape[axis] != 1) {
        let extent = task.shape[axis];
        let steps = [a.strides[axis], b.strides[axis], out.strides[axis]];
        match outer.last_mut() {
            Some(last) if (0..3).all(|i| last.steps[i] == steps[i] * extent as isize) => {
                *last = Batch { extent: last.extent * extent, steps };
            }
            _ => outer.push(Batch { extent, steps }),
        }
    }
    let batch = outer.pop().unwrap_or(Batch { extent: 1, steps: [0; 3] });
    Product {
        dtype: scene.program.values[task.output as usize].dtype,
        a: scene.place(a),
        b: scene.place(b),
        out: scene.place(&out),
        shape: (task.shape[rank - 2], a.shape[rank - 1], task.shape[rank - 1]),
        a_steps: (a.strides[rank - 2], a.strides[rank - 1]),
        b_steps: (b.strides[rank - 2], b.strides[rank - 1]),
        batch,
        outer,
    }
}

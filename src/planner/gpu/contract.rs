//! Matrix products: [m, k] times [k, n] for each index of the leading axes. A workgroup of 16 by 16 threads makes a tile
//! of the result, each thread a few elements of it in registers, from slices of both operands in workgroup memory.
//! Whatever can name its operands by (batch, row, column) can use it: convolutions do.

use super::Scene;
use super::plan::Kernel;
use super::shader::{Shader, register, zero};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::arithmetic::{ADD, MULTIPLY};
use crate::planner::tasks::Task;
use crate::planner::window::Window;

/// Threads along each side of a workgroup, and elements of the inner axis in a slice.
const SIDE: usize = 16;

/// The sizes of a product, and along which axis neighbouring elements of its operands lie.
pub struct Sizes {
    pub batch: usize,
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// Neighbours of the first operand lie along its rows (k), not down its columns.
    pub a_along_k: bool,
    /// Neighbours of the second operand lie along its rows (n), not down its columns.
    pub b_along_n: bool,
}

pub fn lower(scene: &Scene, task: &Task, kernels: &mut Vec<Kernel>) -> Result<()> {
    let (a, b, out) = (&task.inputs[0], &task.inputs[1], Window::whole(task.output, &task.shape));
    let rank = task.shape.rank();
    let sizes = Sizes {
        batch: task.shape[..rank - 2].iter().product(),
        m: task.shape[rank - 2],
        k: a.shape[rank - 1],
        n: task.shape[rank - 1],
        a_along_k: a.strides[rank - 1] == 1,
        b_along_n: b.strides[rank - 1] == 1,
    };
    let dtype = scene.program.values[task.output as usize].dtype;
    let mut shader = Shader::new(scene.program, &scene.homes, task.name);
    let a_index = matrix_index(&mut shader, a, ["z", "m", "k"]);
    let b_index = matrix_index(&mut shader, b, ["z", "k", "n"]);
    let c_index = matrix_index(&mut shader, &out, ["z", "m", "n"]);
    let load_a = shader.element(a.value, &a_index)?;
    let load_b = shader.element(b.value, &b_index)?;
    let place = shader.place(task.output, &c_index)?;
    let groups = product(&mut shader, dtype, &sizes, [&load_a, &load_b], &place)?;
    kernels.push(shader.finish(&scene.limits, SIDE * SIDE, groups)?);
    Ok(())
}

/// The element of its buffer at (batch, row, column) of a window.
fn matrix_index(shader: &mut Shader, window: &Window, [batch, row, column]: [&str; 3]) -> String {
    let rank = window.shape.rank();
    let mut terms: Vec<String> = shader.offset(window).into_iter().collect();
    let leading =
        Window { shape: window.shape[..rank - 2].into(), strides: window.strides[..rank - 2].into(), ..window.clone() };
    shader.terms(&leading.dims(), batch, &mut terms);
    for (index, axis) in [(row, rank - 2), (column, rank - 1)] {
        match window.strides[axis] {
            0 => {}
            1 => terms.push(index.to_owned()),
            stride => terms.push(format!("{index} * {}", shader.number(stride as usize))),
        }
    }
    if terms.is_empty() { "0u".to_owned() } else { terms.join(" + ") }
}

/// Writes the body of a product into a shader. `loads` are the elements of the operands, expressions in z, m, k and z,
/// k, n that are evaluated inside the sizes only; `place` is where the element of the result at z, m, n goes. Gives the
/// number of workgroups.
pub fn product(shader: &mut Shader, dtype: DType, sizes: &Sizes, loads: [&str; 2], place: &str) -> Result<usize> {
    let (rows, columns) = (per_thread(sizes.m), per_thread(sizes.n));
    let (tile_m, tile_n) = (rows * SIDE, columns * SIDE);
    let (across, down) = (sizes.n.div_ceil(tile_n), sizes.m.div_ceil(tile_m));
    let [m, k, n] = [sizes.m, sizes.k, sizes.n].map(|size| shader.number(size));
    let (zero, add) = (zero(dtype), fused(shader, dtype)?);
    shader.shared("slice_a", dtype, tile_m * SIDE);
    shader.shared("slice_b", dtype, SIDE * tile_n);
    let (across_word, tiles) = (shader.number(across), shader.number(across * down));
    let batch = shader.number(sizes.batch);
    shader.line(&format!("let z = group / {tiles};"));
    shader.line(&format!("let first_m = group % {tiles} / {across_word} * {tile_m}u;"));
    shader.line(&format!("let first_n = group % {across_word} * {tile_n}u;"));
    shader.line(&format!("if (z >= {batch}) {{ return; }}"));
    shader.line(&format!("let thread_m = thread / {SIDE}u;"));
    shader.line(&format!("let thread_n = thread % {SIDE}u;"));
    for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
        shader.line(&format!("var c{i}_{j} = {zero};"));
    }
    shader.open_uniform(&format!("for (var first_k = 0u; first_k < {k}; first_k += {SIDE}u)"));
    let (a, b) = (("m", &*m, rows), ("n", &*n, columns));
    Slice { name: "slice_a", outer: a, inner: &k, along_k: sizes.a_along_k, load: loads[0] }.load(shader, dtype);
    Slice { name: "slice_b", outer: b, inner: &k, along_k: !sizes.b_along_n, load: loads[1] }.load(shader, dtype);
    shader.barrier()?;
    shader.open(&format!("for (var kk = 0u; kk < {SIDE}u; kk++)"));
    for i in 0..rows {
        shader.line(&format!("let a{i} = slice_a[kk * {tile_m}u + {}u + thread_m];", i * SIDE));
    }
    for j in 0..columns {
        shader.line(&format!("let b{j}_ = slice_b[kk * {tile_n}u + {}u + thread_n];", j * SIDE));
    }
    for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
        shader.line(&format!("c{i}_{j} = {};", add(&format!("c{i}_{j}"), &format!("a{i}"), &format!("b{j}_"))));
    }
    shader.close();
    shader.barrier()?;
    shader.close();
    for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
        shader.open("");
        shader.line(&format!("let m = first_m + {}u + thread_m;", i * SIDE));
        shader.line(&format!("let n = first_n + {}u + thread_n;", j * SIDE));
        shader.line(&format!("if (m < {m} && n < {n}) {{ {place} = c{i}_{j}; }}"));
        shader.close();
    }
    Ok(sizes.batch * across * down)
}

/// Rows or columns of a tile that one thread makes.
fn per_thread(size: usize) -> usize {
    match size {
        ..=16 => 1,
        17..=32 => 2,
        _ => 4,
    }
}

/// A slice of an operand in workgroup memory, [k][outer].
struct Slice<'a> {
    name: &'a str,
    /// The axis that is not summed over, with its size, and elements of it for each thread.
    outer: (&'a str, &'a str, usize),
    /// The size of the axis that is summed over.
    inner: &'a str,
    /// Neighbouring elements of the operand lie along k.
    along_k: bool,
    load: &'a str,
}

impl Slice<'_> {
    /// Loads it, zero outside. Neighbouring threads load neighbouring elements of the operand.
    fn load(&self, shader: &mut Shader, dtype: DType) {
        let Slice { name, outer: (outer, outer_size, per_thread), inner, along_k, load } = *self;
        let tile = per_thread * SIDE;
        for part in 0..per_thread {
            shader.open("");
            shader.line(&format!("let at = thread + {}u;", part * SIDE * SIDE));
            let (row, column) = match along_k {
                true => (format!("at % {SIDE}u"), format!("at / {SIDE}u")),
                false => (format!("at / {tile}u"), format!("at % {tile}u")),
            };
            shader.line(&format!("let k = first_k + {row};"));
            shader.line(&format!("let {outer} = first_{outer} + {column};"));
            shader.line(&format!("var x: {} = {};", register(dtype), zero(dtype)));
            shader.line(&format!("if ({outer} < {outer_size} && k < {inner}) {{ x = {load}; }}"));
            shader.line(&format!("{name}[({row}) * {tile}u + {column}] = x;"));
            shader.close();
        }
    }
}

/// How a product is added to a sum.
fn fused(shader: &mut Shader, dtype: DType) -> Result<impl Fn(&str, &str, &str) -> String + use<>> {
    // Declares the functions of integers; floats have operators.
    let integer = !dtype.is_float();
    if integer {
        shader.binary(&MULTIPLY, dtype, ["x", "y"])?;
        shader.binary(&ADD, dtype, ["x", "y"])?;
    }
    let name = dtype.name();
    Ok(move |sum: &str, x: &str, y: &str| match integer {
        true => format!("op_add_{name}({sum}, op_multiply_{name}({x}, {y}))"),
        false => format!("{sum} + {x} * {y}"),
    })
}

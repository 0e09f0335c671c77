//! Matrix products: [m, k] times [k, n] for each index of the leading axes. A workgroup of 16 by 16 threads makes a tile
//! of the result, each thread a few elements of it in registers, from slices of both operands in workgroup memory.
//! Whatever can name its operands by (batch, row, column) can use it: convolutions do. Long sums are cut into chunks if
//! there are few results, so that there is enough to do at once; sizes alone decide the cut.

use super::Scene;
use super::moves;
use super::plan::Kernel;
use super::rows::{self, Ending};
use super::shader::{Shader, THREADS, register, zero};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::arithmetic::{ADD, MULTIPLY};
use crate::planner::tasks::Task;
use crate::planner::window::Window;

/// Threads along each side of a workgroup, and elements of the inner axis in a slice.
const SIDE: usize = 16;
/// With fewer rows, tiles are mostly empty: a thread makes one element of the result alone.
const FEW_ROWS: usize = 4;
/// Sums are cut until so many workgroups have work, but into no shorter chunks than this.
const MANY_GROUPS: usize = 256;
const SHORTEST: usize = 512;
/// Longer ones are cut in any case: a sum of so many numbers has lost enough digits.
const LONGEST: usize = 1 << 15;

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

/// A product, as what it reads and writes.
pub trait Product {
    fn sizes(&self) -> Sizes;

    /// The elements of the operands: expressions in z, m, k and z, k, n that are evaluated inside the sizes only.
    fn loads(&self, shader: &mut Shader) -> Result<[String; 2]>;

    /// Which element of the result is at z, m, n.
    fn index(&self, shader: &mut Shader) -> String {
        let Sizes { m, n, .. } = self.sizes();
        let [m, n] = [m, n].map(|size| shader.number(size));
        format!("(z * {m} + m) * {n} + n")
    }

    /// Whether some z, m, n have no element; their index is `NONE`.
    fn is_partial(&self) -> bool {
        false
    }
}

/// No element of a result.
pub const NONE: &str = "0xffffffffu";

pub fn lower(scene: &mut Scene, task: &Task, ending: Option<Ending>, kernels: &mut Vec<Kernel>) -> Result<()> {
    multiply(scene, task, &Matrices(task), ending, kernels)
}

/// The operands and the result of a task as they lie in memory.
struct Matrices<'a>(&'a Task);

impl Product for Matrices<'_> {
    fn sizes(&self) -> Sizes {
        let Task { inputs, shape, .. } = self.0;
        let rank = shape.rank();
        Sizes {
            batch: shape[..rank - 2].iter().product(),
            m: shape[rank - 2],
            k: inputs[0].shape[rank - 1],
            n: shape[rank - 1],
            a_along_k: inputs[0].strides[rank - 1] == 1,
            b_along_n: inputs[1].strides[rank - 1] == 1,
        }
    }

    fn loads(&self, shader: &mut Shader) -> Result<[String; 2]> {
        let (a, b) = (&self.0.inputs[0], &self.0.inputs[1]);
        let a_index = matrix_index(shader, a, ["z", "m", "k"]);
        let b_index = matrix_index(shader, b, ["z", "k", "n"]);
        Ok([shader.element(a.value, &a_index)?, shader.element(b.value, &b_index)?])
    }
}

/// The element of its buffer at (batch, row, column) of a window.
pub fn matrix_index(shader: &mut Shader, window: &Window, [batch, row, column]: [&str; 3]) -> String {
    let rank = window.shape.rank();
    let mut terms: Vec<String> = shader.offset(window).into_iter().collect();
    let leading =
        Window { shape: window.shape[..rank - 2].into(), strides: window.strides[..rank - 2].into(), ..window.clone() };
    shader.terms(&leading.dims(), batch, &mut terms);
    for (index, axis) in [(row, rank - 2), (column, rank - 1)] {
        match window.strides[axis] {
            0 => {}
            1 => terms.push(index.to_owned()),
            stride => terms.push(format!("{index} * {}", shader.stride(stride))),
        }
    }
    if terms.is_empty() { "0u".to_owned() } else { terms.join(" + ") }
}

/// How the sums of a product are cut: into so many chunks of so many elements, the last one shorter.
#[derive(Clone, Copy)]
struct Cut {
    chunks: usize,
    len: usize,
}

impl Cut {
    /// For results that so many workgroups make; each chunk may take as many bytes as a kernel can bind.
    fn new(sizes: &Sizes, groups: usize, element: usize, binding_bytes: usize) -> Cut {
        let results = sizes.batch * sizes.m * sizes.n * element;
        let wanted = MANY_GROUPS.div_ceil(groups.max(1)).min(sizes.k / SHORTEST).max(sizes.k.div_ceil(LONGEST));
        let wanted = wanted.min(binding_bytes / results.max(1));
        let len = sizes.k.div_ceil(wanted.max(1)).next_multiple_of(SIDE).max(SIDE);
        Cut { chunks: sizes.k.div_ceil(len).max(1), len }
    }
}

/// The kernels of a product and its ending.
pub fn multiply(
    scene: &mut Scene,
    task: &Task,
    product: &dyn Product,
    ending: Option<Ending>,
    kernels: &mut Vec<Kernel>,
) -> Result<()> {
    let dtype = scene.program.values[task.output as usize].dtype;
    let sizes = product.sizes();
    let results = sizes.batch * sizes.m * sizes.n;
    let tiles = if sizes.m < FEW_ROWS { None } else { Some(Tiles::new(&sizes, dtype)) };
    let groups = tiles.as_ref().map_or(results.div_ceil(THREADS), |tiles| sizes.batch * tiles.across * tiles.down);
    let cut = Cut::new(&sizes, groups, dtype.device_size(), scene.limits.binding_bytes);
    let slot = match cut.chunks {
        1 => None,
        chunks => Some(scene.scratch(task.name, chunks * results * dtype.device_size())?),
    };
    let mut shader = Shader::new(scene.program, &scene.homes, task.name);
    let loads = product.loads(&mut shader)?;
    let times = tiles.as_ref().map_or(1, |tiles| tiles.rows * tiles.columns);
    let (mut shader, store) = match slot {
        Some(slot) => partial(shader, slot, dtype, &sizes),
        None => end(scene, task, product, ending, shader, times)?,
    };
    let groups = match tiles {
        Some(tiles) => tiles.write(&mut shader, dtype, &sizes, cut, &loads, &store)?,
        None => one_by_one(&mut shader, dtype, &sizes, cut, &loads, &store)?,
    };
    kernels.push(shader.finish(&scene.limits, THREADS, groups)?);
    if let Some(slot) = slot {
        kernels.push(join(scene, task, product, ending, cut, slot)?);
    }
    Ok(())
}

/// How the element of the result at z, m, n is kept.
struct Store {
    /// The statement that keeps an expression.
    statement: Box<dyn Fn(&str) -> String>,
    /// Whether a shader should have it once, for drivers compile it.
    is_long: bool,
}

/// Keeps the sum of a chunk in a working buffer.
fn partial<'a>(mut shader: Shader<'a>, slot: u32, dtype: DType, sizes: &Sizes) -> (Shader<'a>, Store) {
    let [m, n] = [sizes.m, sizes.n].map(|size| shader.number(size));
    let place = shader.scratch(slot, dtype, &format!("(part * {m} + m) * {n} + n"), true);
    (shader, Store { statement: Box::new(move |x| format!("{place} = {x};")), is_long: false })
}

/// Stores an element, or does with it what the ending says; a thread has so many.
fn end<'a>(
    scene: &'a Scene,
    task: &Task,
    product: &dyn Product,
    ending: Option<Ending<'a>>,
    mut shader: Shader<'a>,
    times: usize,
) -> Result<(Shader<'a>, Store)> {
    let index = product.index(&mut shader);
    let (first, last) = match ending {
        None => (format!("{} = ", shader.place(task.output, "at")?), ";"),
        Some(ending) => {
            shader = rows::ending(scene, ending, shader, times)?;
            ("ending(at, ".to_owned(), ");")
        }
    };
    let is_there = if product.is_partial() { format!("if (at != {NONE}) ") } else { String::new() };
    let statement = Box::new(move |x: &str| format!("let at = {index}; {is_there}{{ {first}{x}{last} }}"));
    Ok((shader, Store { statement, is_long: ending.is_some() }))
}

/// Declares what belongs to a chunk of the sums: the index of its matrix, where it starts and where it ends.
fn chunk(shader: &mut Shader, sizes: &Sizes, cut: Cut) {
    let k = shader.number(sizes.k);
    if cut.chunks == 1 {
        shader.line("let z = part;");
        shader.line("let start = 0u;");
        shader.line(&format!("let end = {k};"));
        return;
    }
    let (chunks, len) = (shader.number(cut.chunks), shader.number(cut.len));
    shader.line(&format!("let z = part / {chunks};"));
    shader.line(&format!("let start = part % {chunks} * {len};"));
    shader.line(&format!("let end = min(start + {len}, {k});"));
}

/// A thread for each element of the result. Gives the number of workgroups.
fn one_by_one(
    shader: &mut Shader,
    dtype: DType,
    sizes: &Sizes,
    cut: Cut,
    loads: &[String; 2],
    store: &Store,
) -> Result<usize> {
    let parts = sizes.batch * cut.chunks;
    let size = parts * sizes.m * sizes.n;
    let add = fused(shader, dtype)?;
    let [m, n, count] = [sizes.m, sizes.n, size].map(|size| shader.number(size));
    shader.line(&format!("let i = group * {THREADS}u + thread;"));
    shader.line(&format!("if (i >= {count}) {{ return; }}"));
    shader.line(&format!("let n = i % {n};"));
    shader.line(&format!("let m = i / {n} % {m};"));
    shader.line(&format!("let part = i / {n} / {m};"));
    chunk(shader, sizes, cut);
    shader.line(&format!("var sum = {};", zero(dtype)));
    shader.open_loop("for (var k = start; k < end; k++)", cut.len.min(sizes.k));
    shader.line(&format!("sum = {};", add("sum", &loads[0], &loads[1])));
    shader.close();
    shader.line(&(store.statement)("sum"));
    Ok(size.div_ceil(THREADS))
}

/// Adds the sums of the chunks of each element of the result in their order.
fn join(
    scene: &Scene,
    task: &Task,
    product: &dyn Product,
    ending: Option<Ending>,
    cut: Cut,
    slot: u32,
) -> Result<Kernel> {
    let dtype = scene.program.values[task.output as usize].dtype;
    let sizes = product.sizes();
    let size = sizes.batch * sizes.m * sizes.n;
    let (mut shader, store) = end(scene, task, product, ending, moves::each(scene, task, size), 1)?;
    let [m, n, chunks] = [sizes.m, sizes.n, cut.chunks].map(|size| shader.number(size));
    shader.line(&format!("let n = i % {n};"));
    shader.line(&format!("let m = i / {n} % {m};"));
    shader.line(&format!("let z = i / {n} / {m};"));
    shader.line(&format!("var sum = {};", zero(dtype)));
    shader.open_loop(&format!("for (var part = z * {chunks}; part < (z + 1u) * {chunks}; part++)"), cut.chunks);
    let x = shader.scratch(slot, dtype, &format!("(part * {m} + m) * {n} + n"), false);
    let sum = shader.binary(&ADD, dtype, ["sum", &x])?;
    shader.line(&format!("sum = {sum};"));
    shader.close();
    shader.line(&(store.statement)("sum"));
    moves::finish(scene, shader, size)
}

/// How the result is cut into tiles, one for a workgroup.
struct Tiles {
    /// Elements that a thread makes along each side.
    rows: usize,
    columns: usize,
    across: usize,
    down: usize,
}

impl Tiles {
    fn new(sizes: &Sizes, dtype: DType) -> Tiles {
        // Slices of two-word elements must fit the workgroup's memory.
        let most = if dtype.device_size() > 4 { 2 } else { 4 };
        let (rows, columns) = (per_thread(sizes.m).min(most), per_thread(sizes.n).min(most));
        Tiles { rows, columns, across: sizes.n.div_ceil(columns * SIDE), down: sizes.m.div_ceil(rows * SIDE) }
    }

    /// Row and column of each element that a thread makes, in its own tile.
    fn each(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, columns) = (self.rows, self.columns);
        (0..rows).flat_map(move |i| (0..columns).map(move |j| (i, j)))
    }

    /// Writes the body of a product. Gives the number of workgroups.
    fn write(
        &self,
        shader: &mut Shader,
        dtype: DType,
        sizes: &Sizes,
        cut: Cut,
        loads: &[String; 2],
        store: &Store,
    ) -> Result<usize> {
        let &Tiles { rows, columns, across, down } = self;
        let (tile_m, tile_n) = (rows * SIDE, columns * SIDE);
        let parts = sizes.batch * cut.chunks;
        let [m, n] = [sizes.m, sizes.n].map(|size| shader.number(size));
        let (zero, add) = (zero(dtype), fused(shader, dtype)?);
        shader.shared("slice_a", dtype, SIDE * pitch(rows));
        shader.shared("slice_b", dtype, SIDE * pitch(columns));
        let [across_word, tiles, parts_word] = [across, across * down, parts].map(|size| shader.number(size));
        shader.line(&format!("let part = group / {tiles};"));
        shader.line(&format!("let first_m = group % {tiles} / {across_word} * {tile_m}u;"));
        shader.line(&format!("let first_n = group % {across_word} * {tile_n}u;"));
        shader.line(&format!("if (part >= {parts_word}) {{ return; }}"));
        chunk(shader, sizes, cut);
        shader.line(&format!("let thread_m = thread / {SIDE}u;"));
        shader.line(&format!("let thread_n = thread % {SIDE}u;"));
        self.each().for_each(|(i, j)| shader.line(&format!("var c{i}_{j} = {zero};")));
        let head = format!("for (var first_k = start; first_k < end; first_k += {SIDE}u)");
        shader.open_uniform_loop(&head, cut.len.min(sizes.k).div_ceil(SIDE));
        let (a, b) = (("m", &*m, rows), ("n", &*n, columns));
        Slice { name: "slice_a", outer: a, along_k: sizes.a_along_k, load: &loads[0] }.load(shader, dtype);
        Slice { name: "slice_b", outer: b, along_k: !sizes.b_along_n, load: &loads[1] }.load(shader, dtype);
        shader.barrier()?;
        shader.open_loop(&format!("for (var kk = 0u; kk < {SIDE}u; kk++)"), SIDE);
        for i in 0..rows {
            shader.line(&format!("let a{i} = slice_a[kk * {}u + {}u + thread_m];", pitch(rows), i * SIDE));
        }
        for j in 0..columns {
            shader.line(&format!("let b{j}_ = slice_b[kk * {}u + {}u + thread_n];", pitch(columns), j * SIDE));
        }
        for (i, j) in self.each() {
            let sum = add(&format!("c{i}_{j}"), &format!("a{i}"), &format!("b{j}_"));
            shader.line(&format!("c{i}_{j} = {sum};"));
        }
        shader.close();
        shader.barrier()?;
        shader.close();
        let keep = |shader: &mut Shader, [i, j]: [&str; 2], x: &str| {
            shader.line(&format!("let m = first_m + {i} * {SIDE}u + thread_m;"));
            shader.line(&format!("let n = first_n + {j} * {SIDE}u + thread_n;"));
            shader.line(&format!("if (m < {m} && n < {n}) {{ {} }}", (store.statement)(x)));
        };
        if store.is_long {
            shader.open_loop(&format!("for (var e = 0u; e < {}u; e++)", rows * columns), rows * columns);
            shader.line(&format!("var x = {zero};"));
            let cases = self.each().map(|(i, j)| format!("case {}u: {{ x = c{i}_{j}; }}", i * columns + j));
            shader.line(&format!("switch e {{ {} default: {{}} }}", cases.collect::<Vec<_>>().join(" ")));
            keep(shader, [&format!("(e / {columns}u)"), &format!("(e % {columns}u)")], "x");
            shader.close();
        } else {
            for (i, j) in self.each() {
                shader.open("");
                keep(shader, [&format!("{i}u"), &format!("{j}u")], &format!("c{i}_{j}"));
                shader.close();
            }
        }
        Ok(parts * across * down)
    }
}

/// Rows or columns of a tile that one thread makes.
fn per_thread(size: usize) -> usize {
    match size {
        ..=16 => 1,
        17..=32 => 2,
        _ => 4,
    }
}

/// From one row of a slice to the next: odd, so that a column lies in different banks of the memory.
fn pitch(per_thread: usize) -> usize {
    per_thread * SIDE + 1
}

/// A slice of an operand in workgroup memory, [k][outer].
struct Slice<'a> {
    name: &'a str,
    /// The axis that is not summed over, with its size, and elements of it for each thread.
    outer: (&'a str, &'a str, usize),
    /// Neighbouring elements of the operand lie along k.
    along_k: bool,
    load: &'a str,
}

impl Slice<'_> {
    /// Loads it, zero outside. Neighbouring threads load neighbouring elements of the operand.
    fn load(&self, shader: &mut Shader, dtype: DType) {
        let Slice { name, outer: (outer, outer_size, per_thread), along_k, load } = *self;
        let (tile, pitch) = (per_thread * SIDE, pitch(per_thread));
        for part in 0..per_thread {
            shader.open("");
            shader.line(&format!("let at = thread + {}u;", part * THREADS));
            let (row, column) = match along_k {
                true => (format!("at % {SIDE}u"), format!("at / {SIDE}u")),
                false => (format!("at / {tile}u"), format!("at % {tile}u")),
            };
            shader.line(&format!("let k = first_k + {row};"));
            shader.line(&format!("let {outer} = first_{outer} + {column};"));
            shader.line(&format!("var x: {} = {};", register(dtype), zero(dtype)));
            shader.line(&format!("if ({outer} < {outer_size} && k < end) {{ x = {load}; }}"));
            shader.line(&format!("{name}[({row}) * {pitch}u + {column}] = x;"));
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

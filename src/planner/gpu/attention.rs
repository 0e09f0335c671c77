//! Attention: a workgroup takes a block of queries, or of keys, and walks the other side block by block, with no more
//! than one tile of scores in its memory. The value passes over the keys once with a running softmax; gradients compute
//! the scores again, from the logarithms that the value left. Results gather in registers and are written once.

use super::Scene;
use super::contract::matrix_index;
use super::moves::{each, finish};
use super::plan::Kernel;
use super::shader::{At, Shader, THREADS};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Masking;
use crate::planner::tasks::{Task, TaskKind};
use crate::planner::window::Window;

/// Threads along each side of a tile, and elements of a width that are loaded at a time.
const SIDE: usize = 16;
/// Elements of rows that are loaded at a time to be added up.
const SLICE: usize = 1024;
/// With wider rows, a thread has no registers for the results of a large tile.
const WIDE: usize = 128;
const LOWEST: &str = "bitcast<f32>(0xff800000u)";

/// Query (…, L, E), key (…, S, E), value (…, S, Ev), scale, and the mask (…, L, S) if there is one, give (…, L, Ev) and
/// the logarithms of Σ exp(score), (…, L).
pub fn value(scene: &mut Scene, task: &Task, masking: Masking, kernels: &mut Vec<Kernel>) -> Result<()> {
    let problem = Problem::new(scene, task, masking);
    kernels.push(Writer::new(scene, &problem).value()?);
    Ok(())
}

/// The gradients of query, key and value. Behind the operands come the results of the value and their cotangents.
pub fn gradient(scene: &mut Scene, task: &Task, masking: Masking, kernels: &mut Vec<Kernel>) -> Result<()> {
    let problem = Problem::new(scene, task, masking);
    let state = scene.scratch(task.name, (2 * problem.items * problem.queries + 1) * 4)?;
    kernels.push(problem.prepare(scene, state)?);
    kernels.push(Writer::new(scene, &problem).key_gradients(state)?);
    kernels.push(Writer::new(scene, &problem).query_gradient(state)?);
    Ok(())
}

struct Problem<'a> {
    task: &'a Task,
    masking: Masking,
    items: usize,
    queries: usize,
    keys: usize,
    /// Of a key and of a value.
    width: usize,
    out_width: usize,
    /// Elements of a tile that a thread makes along each side.
    side: usize,
}

/// Rows of each matrix of an operand.
#[derive(Clone, Copy)]
struct Rows<'a> {
    window: &'a Window,
    count: usize,
    width: usize,
}

impl<'a> Problem<'a> {
    fn new(scene: &Scene, task: &'a Task, masking: Masking) -> Problem<'a> {
        let (query, value) = (&task.inputs[0].shape, &task.inputs[2].shape);
        let lead = query.rank() - 2;
        let mut problem = Problem {
            task,
            masking,
            items: query[..lead].iter().product(),
            queries: query[lead],
            keys: value[lead],
            width: query[lead + 1],
            out_width: value[lead + 1],
            side: 4,
        };
        if problem.group_bytes() > scene.limits.group_bytes || problem.width.max(problem.out_width) > WIDE {
            problem.side = 2;
        }
        problem
    }

    /// Queries or keys of a block.
    fn edge(&self) -> usize {
        self.side * SIDE
    }

    /// From one row of a tile to the next: odd, so that a column lies in different banks of the memory.
    fn pitch(&self) -> usize {
        self.edge() + 1
    }

    fn group_bytes(&self) -> usize {
        4 * (self.edge() * self.pitch() + 2 * SIDE * self.pitch() + SLICE + THREADS + self.edge())
    }

    /// Query, key or value.
    fn operand(&self, input: usize) -> Rows<'a> {
        rows(&self.task.inputs[input])
    }

    /// What comes behind the operands: the results, and their cotangents.
    fn given(&self, at: usize) -> &'a Window {
        &self.task.inputs[4 + usize::from(self.masking.is_masked) + at]
    }

    fn cotangent(&self) -> Rows<'a> {
        rows(self.given(2))
    }

    /// For each query its logarithm and what is taken from the slopes of its scores, Σ out·cotangent less the cotangent
    /// of the logarithm; and behind them the scale.
    fn prepare(&self, scene: &Scene, state: u32) -> Result<Kernel> {
        let count = self.items * self.queries;
        let mut shader = each(scene, self.task, count);
        let [queries, width] = [self.queries, self.out_width].map(|size| shader.number(size));
        shader.line(&format!("let item = i / {queries};"));
        shader.line(&format!("let row = i % {queries};"));
        shader.line("var shift = 0.0;");
        shader.open_loop(&format!("for (var column = 0u; column < {width}; column++)"), self.out_width);
        let (out, cotangent) =
            (element(&mut shader, self.given(0), "column")?, element(&mut shader, self.given(2), "column")?);
        shader.line(&format!("shift += {out} * {cotangent};"));
        shader.close();
        let (logs, to_logs) = (column(self.given(1)), column(self.given(3)));
        let (log, to_log) = (element(&mut shader, &logs, "0u")?, element(&mut shader, &to_logs, "0u")?);
        let [first, second] = ["2u * i", "2u * i + 1u"].map(|at| shader.scratch(state, DType::F32, at, true));
        origin(&mut shader);
        shader.line(&format!("{first} = origin({log});"));
        shader.line(&format!("{second} = shift - {to_log};"));
        let scale = shader.load(&self.task.inputs[3], At::Linear("0u"))?;
        let behind = format!("2u * {}", shader.number(count));
        let place = shader.scratch(state, DType::F32, &behind, true);
        shader.line(&format!("if (i == 0u) {{ {place} = {scale}; }}"));
        finish(scene, shader, count)
    }
}

fn rows(window: &Window) -> Rows<'_> {
    let rank = window.shape.rank();
    Rows { window, count: window.shape[rank - 2], width: window.shape[rank - 1] }
}

/// One number a row as a matrix of one column.
fn column(window: &Window) -> Window {
    let mut column = window.clone();
    column.shape.push(1);
    column.strides.push(0);
    column
}

/// The element at `item`, `row` and a column.
fn element(shader: &mut Shader, window: &Window, column: &str) -> Result<String> {
    let index = matrix_index(shader, window, ["item", "row", column]);
    shader.element(window.value, &index)
}

/// Declares what scores are taken from: for a query without keys not its -inf, so that its weights are exp(-inf).
fn origin(shader: &mut Shader) {
    shader.item("origin", || {
        "fn origin(x: f32) -> f32 { return select(x, 0.0, bitcast<u32>(x) == 0xff800000u); }".to_owned()
    });
}

/// Declares e^x, 0 where that would be no normal number.
fn weight(shader: &mut Shader) {
    shader.item("weight", || {
        "fn weight(x: f32) -> f32 { return select(exp_f32(select(x, -87.0, x < -87.0)), 0.0, x < -87.0); }".to_owned()
    });
}

/// Writes one kernel: a workgroup has the block of rows from `first` on in matrix `item`.
struct Writer<'a> {
    scene: &'a Scene<'a>,
    problem: &'a Problem<'a>,
    shader: Shader<'a>,
}

impl<'a> Writer<'a> {
    fn new(scene: &'a Scene<'a>, problem: &'a Problem<'a>) -> Writer<'a> {
        let shader = Shader::new(scene.program, &scene.homes, problem.task.name);
        Writer { scene, problem, shader }
    }

    /// Fills the value and its logarithms.
    fn value(mut self) -> Result<Kernel> {
        let Problem { queries, out_width, .. } = *self.problem;
        let groups = self.open(queries);
        let scale = self.shader.load(&self.problem.task.inputs[3], At::Linear("0u"))?;
        self.shader.line(&format!("let scale = {scale};"));
        self.open_softmax();
        self.declare("o", out_width);
        self.open_keys();
        self.products("s", (self.problem.operand(0), "first"), (self.problem.operand(1), "other"))?;
        for [(i, row), (j, column)] in self.places() {
            self.shader.open("");
            self.shader.line(&format!("let query = first + {row};"));
            self.shader.line(&format!("let key = other + {column};"));
            self.score(&format!("s{i}_{j}"))?;
            self.put_in_tile(&row, &column, "x");
            self.shader.close();
        }
        self.shader.barrier()?;
        self.softmax()?;
        self.scale_rows("o", out_width);
        self.accumulate("o", self.problem.operand(2), "other")?;
        self.shader.close();
        self.close_softmax()?;
        self.scale_rows("o", out_width);
        self.store("o", 0, [queries, out_width])?;
        self.shader.finish(&self.scene.limits, THREADS, groups)
    }

    /// Fills the gradients of key and value.
    fn key_gradients(mut self, state: u32) -> Result<Kernel> {
        let Problem { queries, keys, width, out_width, .. } = *self.problem;
        let groups = self.open(keys);
        self.open_gradient(state);
        self.declare("k", width);
        self.declare("v", out_width);
        let (start, end) = (if self.problem.masking.is_causal { "first" } else { "0u" }, self.shader.number(queries));
        let edge = self.problem.edge();
        let head = format!("for (var other = {start}; other < {end}; other += {edge}u)");
        self.shader.open_uniform_loop(&head, queries.div_ceil(edge));
        let (query, cotangent) = (self.problem.operand(0), self.problem.cotangent());
        self.products("s", (self.problem.operand(1), "first"), (query, "other"))?;
        self.products("d", (self.problem.operand(2), "first"), (cotangent, "other"))?;
        for [(i, row), (j, column)] in self.places() {
            self.slope([&format!("other + {column}"), &format!("first + {row}")], &format!("{i}_{j}"), state)?;
        }
        for (name, made, rows) in [("s", "v", cotangent), ("d", "k", query)] {
            for [(i, row), (j, column)] in self.places() {
                self.put_in_tile(&row, &column, &format!("{name}{i}_{j}"));
            }
            self.shader.barrier()?;
            self.accumulate(made, rows, "other")?;
        }
        self.shader.close();
        self.store("k", 1, [keys, width])?;
        self.store("v", 2, [keys, out_width])?;
        self.shader.finish(&self.scene.limits, THREADS, groups)
    }

    /// Fills the gradient of the query.
    fn query_gradient(mut self, state: u32) -> Result<Kernel> {
        let Problem { queries, width, .. } = *self.problem;
        let groups = self.open(queries);
        self.open_gradient(state);
        self.declare("q", width);
        self.open_keys();
        let key = self.problem.operand(1);
        self.products("s", (self.problem.operand(0), "first"), (key, "other"))?;
        self.products("d", (self.problem.cotangent(), "first"), (self.problem.operand(2), "other"))?;
        for [(i, row), (j, column)] in self.places() {
            self.slope([&format!("first + {row}"), &format!("other + {column}")], &format!("{i}_{j}"), state)?;
            self.put_in_tile(&row, &column, &format!("d{i}_{j}"));
        }
        self.shader.barrier()?;
        self.accumulate("q", key, "other")?;
        self.shader.close();
        self.store("q", 0, [queries, width])?;
        self.shader.finish(&self.scene.limits, THREADS, groups)
    }

    /// Begins a kernel over blocks of `rows`. Gives the number of workgroups.
    fn open(&mut self, rows: usize) -> usize {
        let (edge, pitch) = (self.problem.edge(), self.problem.pitch());
        let count = rows.div_ceil(edge);
        let [blocks, items] = [count, self.problem.items].map(|size| self.shader.number(size));
        self.shader.line(&format!("let item = group / {blocks};"));
        self.shader.line(&format!("let first = group % {blocks} * {edge}u;"));
        self.shader.line(&format!("if (item >= {items}) {{ return; }}"));
        self.shader.line(&format!("let thread_y = thread / {SIDE}u;"));
        self.shader.line(&format!("let thread_x = thread % {SIDE}u;"));
        self.shader.shared("tile", DType::F32, edge * pitch);
        self.shader.shared("slice_a", DType::F32, SIDE * pitch);
        self.shader.shared("slice_b", DType::F32, SIDE * pitch);
        self.shader.shared("slice", DType::F32, SLICE);
        weight(&mut self.shader);
        origin(&mut self.shader);
        self.problem.items * count
    }

    /// Opens the walk over the keys that a block of queries sees: `other` is the first of a block.
    fn open_keys(&mut self) {
        let (edge, keys) = (self.problem.edge(), self.shader.number(self.problem.keys));
        self.shader.line(&match self.problem.masking.is_causal {
            true => format!("let end = min({keys}, first + {edge}u);"),
            false => format!("let end = {keys};"),
        });
        let head = format!("for (var other = 0u; other < end; other += {edge}u)");
        self.shader.open_uniform_loop(&head, self.problem.keys.div_ceil(edge));
    }

    /// A thread's elements of a tile: i and j, with their row and column.
    fn places(&self) -> impl Iterator<Item = [(usize, String); 2]> + use<> {
        let side = self.problem.side;
        let place = |n: usize, along: &str| (n, format!("{}u + thread_{along}", n * SIDE));
        (0..side).flat_map(move |i| (0..side).map(move |j| [place(i, "y"), place(j, "x")]))
    }

    /// A thread's elements of rows of `width`.
    fn parts(&self, width: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let side = self.problem.side;
        (0..side).flat_map(move |i| (0..width.div_ceil(SIDE)).map(move |j| (i, j)))
    }

    /// Declares the variables in which a thread gathers rows of `width`.
    fn declare(&mut self, name: &str, width: usize) {
        self.parts(width).for_each(|(i, j)| self.shader.line(&format!("var {name}{i}_{j} = 0.0;")));
    }

    fn put_in_tile(&mut self, row: &str, column: &str, x: &str) {
        let pitch = self.problem.pitch();
        self.shader.line(&format!("tile[({row}) * {pitch}u + {column}] = {x};"));
    }

    /// Declares the products of rows of `a` with rows of `b`, each from a first row on.
    fn products(&mut self, name: &str, a: (Rows, &str), b: (Rows, &str)) -> Result<()> {
        let (side, edge, pitch) = (self.problem.side, self.problem.edge(), self.problem.pitch());
        for [(i, _), (j, _)] in self.places() {
            self.shader.line(&format!("var {name}{i}_{j} = 0.0;"));
        }
        let width = self.shader.number(a.0.width);
        let head = format!("for (var e = 0u; e < {width}; e += {SIDE}u)");
        self.shader.open_uniform_loop(&head, a.0.width.div_ceil(SIDE));
        for (slice, (rows, first)) in [("slice_a", a), ("slice_b", b)] {
            let count = self.shader.number(rows.count);
            let head = format!("for (var at = thread; at < {}u; at += {THREADS}u)", SIDE * edge);
            self.shader.open_loop(&head, (SIDE * edge).div_ceil(THREADS));
            self.shader.line(&format!("let column = e + at % {SIDE}u;"));
            self.shader.line(&format!("let row = {first} + at / {SIDE}u;"));
            self.shader.line("var x = 0.0;");
            let x = element(&mut self.shader, rows.window, "column")?;
            self.shader.line(&format!("if (row < {count} && column < {width}) {{ x = {x}; }}"));
            self.shader.line(&format!("{slice}[at % {SIDE}u * {pitch}u + at / {SIDE}u] = x;"));
            self.shader.close();
        }
        self.shader.barrier()?;
        self.shader.open_loop(&format!("for (var n = 0u; n < {SIDE}u; n++)"), SIDE);
        for n in 0..side {
            self.shader.line(&format!("let a{n} = slice_a[n * {pitch}u + {}u + thread_y];", n * SIDE));
            self.shader.line(&format!("let b{n} = slice_b[n * {pitch}u + {}u + thread_x];", n * SIDE));
        }
        for [(i, _), (j, _)] in self.places() {
            self.shader.line(&format!("{name}{i}_{j} += a{i} * b{j};"));
        }
        self.shader.close();
        self.shader.barrier()?;
        self.shader.close();
        Ok(())
    }

    /// Adds the product of the tile with rows from `first` on to what a thread gathers. A barrier lies between the writes
    /// of the tile and this, and one between this and the next.
    fn accumulate(&mut self, name: &str, rows: Rows, first: &str) -> Result<()> {
        let (side, edge, pitch) = (self.problem.side, self.problem.edge(), self.problem.pitch());
        let padded = rows.width.next_multiple_of(SIDE);
        // A power of two, as the edge is one times 16.
        let depth = 1 << (SLICE / padded).clamp(1, SIDE).ilog2();
        let [count, width] = [rows.count, rows.width].map(|size| self.shader.number(size));
        let head = format!("for (var start = 0u; start < {edge}u; start += {depth}u)");
        self.shader.open_uniform_loop(&head, edge.div_ceil(depth));
        let head = format!("for (var at = thread; at < {}u; at += {THREADS}u)", depth * padded);
        self.shader.open_loop(&head, (depth * padded).div_ceil(THREADS));
        self.shader.line(&format!("let row = {first} + start + at / {padded}u;"));
        self.shader.line(&format!("let column = at % {padded}u;"));
        self.shader.line("var x = 0.0;");
        let x = element(&mut self.shader, rows.window, "column")?;
        self.shader.line(&format!("if (row < {count} && column < {width}) {{ x = {x}; }}"));
        self.shader.line("slice[at] = x;");
        self.shader.close();
        self.shader.barrier()?;
        self.shader.open_loop(&format!("for (var n = 0u; n < {depth}u; n++)"), depth);
        for i in 0..side {
            self.shader.line(&format!("let a{i} = tile[({}u + thread_y) * {pitch}u + start + n];", i * SIDE));
        }
        for j in 0..padded / SIDE {
            self.shader.line(&format!("let b{j} = slice[n * {padded}u + {}u + thread_x];", j * SIDE));
        }
        for (i, j) in self.parts(rows.width) {
            self.shader.line(&format!("{name}{i}_{j} += a{i} * b{j};"));
        }
        self.shader.close();
        self.shader.barrier()?;
        self.shader.close();
        Ok(())
    }

    /// Declares `x`, the score of `query` and `key` from their product: -inf if they do not meet.
    fn score(&mut self, product: &str) -> Result<()> {
        let Problem { task, masking, queries, keys, .. } = *self.problem;
        let [queries, keys] = [queries, keys].map(|size| self.shader.number(size));
        let causal = if masking.is_causal { " && key <= query" } else { "" };
        self.shader.line(&format!("var x = {LOWEST};"));
        self.shader.open(&format!("if (query < {queries} && key < {keys}{causal})"));
        self.shader.line(&format!("x = {product} * scale;"));
        if masking.is_masked {
            let mask = &task.inputs[4];
            let index = matrix_index(&mut self.shader, mask, ["item", "query", "key"]);
            let mask_at = self.shader.element(mask.value, &index)?;
            self.shader.line(&match self.scene.program.values[mask.value as usize].dtype {
                DType::Bool => format!("x = select({LOWEST}, x, {mask_at} != 0u);"),
                _ => format!("x += {mask_at};"),
            });
        }
        self.shader.close();
        Ok(())
    }

    /// Declares what the rows of the running softmax need: a few neighbouring threads have one together.
    fn open_softmax(&mut self) {
        let edge = self.problem.edge();
        let lanes = THREADS / edge;
        self.shader.shared("lane_results", DType::F32, THREADS);
        self.shader.shared("factors", DType::F32, edge);
        self.shader.line(&format!("let tile_row = thread / {lanes}u;"));
        self.shader.line(&format!("let lane = thread % {lanes}u;"));
        self.shader.line(&format!("var largest = {LOWEST};"));
        self.shader.line("var total = 0.0;");
    }

    /// Scores in the tile become exp(score - largest so far); what was gathered before is due the factors of its rows.
    fn softmax(&mut self) -> Result<()> {
        let (edge, pitch) = (self.problem.edge(), self.problem.pitch());
        let lanes = THREADS / edge;
        let columns = format!("for (var column = lane; column < {edge}u; column += {lanes}u)");
        let others = format!("for (var n = 0u; n < {lanes}u; n++)");
        self.shader.line("var now = largest;");
        self.shader.open_loop(&columns, edge / lanes);
        self.shader.line(&format!("let x = tile[tile_row * {pitch}u + column];"));
        self.shader.line("now = select(now, x, x > now);");
        self.shader.close();
        self.shader.line("lane_results[thread] = now;");
        self.shader.barrier()?;
        self.shader.open_loop(&others, lanes);
        self.shader.line(&format!("let x = lane_results[tile_row * {lanes}u + n];"));
        self.shader.line("now = select(now, x, x > now);");
        self.shader.close();
        self.shader.line("let shared_origin = origin(now);");
        self.shader.line("let factor = weight(largest - shared_origin);");
        self.shader.line("var sum = 0.0;");
        self.shader.open_loop(&columns, edge / lanes);
        self.shader.line(&format!("let x = weight(tile[tile_row * {pitch}u + column] - shared_origin);"));
        self.shader.line(&format!("tile[tile_row * {pitch}u + column] = x;"));
        self.shader.line("sum += x;");
        self.shader.close();
        self.shader.line("if (lane == 0u) { factors[tile_row] = factor; }");
        self.shader.barrier()?;
        self.shader.line("lane_results[thread] = sum;");
        self.shader.barrier()?;
        self.shader.line("total *= factor;");
        self.shader.open_loop(&others, lanes);
        self.shader.line(&format!("total += lane_results[tile_row * {lanes}u + n];"));
        self.shader.close();
        self.shader.line("largest = now;");
        Ok(())
    }

    /// Stores the logarithms and leaves each row's share as its factor: a row that sees no key gives zeros.
    fn close_softmax(&mut self) -> Result<()> {
        let queries = self.shader.number(self.problem.queries);
        let logs = self.place(&column(self.result(1)?), ["first + tile_row", "0u"])?;
        self.shader.open("if (lane == 0u)");
        self.shader.line("factors[tile_row] = select(1.0 / total, 0.0, total == 0.0);");
        self.shader.line(&format!("if (first + tile_row < {queries}) {{ {logs} = largest + log_f32(total); }}"));
        self.shader.close();
        self.shader.barrier()
    }

    fn scale_rows(&mut self, name: &str, width: usize) {
        for (i, j) in self.parts(width) {
            self.shader.line(&format!("{name}{i}_{j} *= factors[{}u + thread_y];", i * SIDE));
        }
    }

    fn open_gradient(&mut self, state: u32) {
        let behind = format!("2u * {}", self.shader.number(self.problem.items * self.problem.queries));
        let scale = self.shader.scratch(state, DType::F32, &behind, false);
        self.shader.line(&format!("let scale = {scale};"));
    }

    /// The product s of a query with a key becomes its weight, and the product d of the cotangent with the value the
    /// gradient of s.
    fn slope(&mut self, [query, key]: [&str; 2], at: &str, state: u32) -> Result<()> {
        let queries = self.shader.number(self.problem.queries);
        self.shader.open("");
        self.shader.line(&format!("let query = {query};"));
        self.shader.line(&format!("let key = {key};"));
        self.score(&format!("s{at}"))?;
        let line = format!("2u * (item * {queries} + min(query, {queries} - 1u))");
        let log = self.shader.scratch(state, DType::F32, &line, false);
        let shift = self.shader.scratch(state, DType::F32, &format!("{line} + 1u"), false);
        self.shader.line(&format!("s{at} = weight(x - {log});"));
        self.shader.line(&format!("d{at} = select(s{at} * (d{at} - {shift}) * scale, 0.0, s{at} == 0.0);"));
        self.shader.close();
        Ok(())
    }

    fn result(&self, output: usize) -> Result<&'a Window> {
        match &self.problem.task.kind {
            TaskKind::Hand { results, .. } => Ok(&results[output]),
            _ => Err(Error::internal("attention is a hand kernel")),
        }
    }

    /// The place of an element of a result.
    fn place(&mut self, window: &Window, [row, column]: [&str; 2]) -> Result<String> {
        let index = matrix_index(&mut self.shader, window, ["item", row, column]);
        self.shader.place(window.value, &index)
    }

    /// Writes what a thread gathered to its rows of an output.
    fn store(&mut self, name: &str, output: usize, [count, width]: [usize; 2]) -> Result<()> {
        let [rows, columns] = [count, width].map(|size| self.shader.number(size));
        for (i, j) in self.parts(width) {
            self.shader.open("");
            self.shader.line(&format!("let row = first + {}u + thread_y;", i * SIDE));
            self.shader.line(&format!("let column = {}u + thread_x;", j * SIDE));
            let place = self.place(self.result(output)?, ["row", "column"])?;
            self.shader.line(&format!("if (row < {rows} && column < {columns}) {{ {place} = {name}{i}_{j}; }}"));
            self.shader.close();
        }
        Ok(())
    }
}

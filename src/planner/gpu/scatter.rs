//! Scatters: a thread makes one element of the result and adds its updates in the order of the indices, without atomics.
//! Where indices are few it walks them all. Many are sorted first, as pairs of a key, the index, and a position, by a
//! bitonic network; then each thread finds its own updates by binary search.

use super::Scene;
use super::moves::{checked_index, each, finish, part};
use super::plan::Kernel;
use super::shader::{At, Shader, THREADS, zero};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::GatherMode;
use crate::ops::arithmetic::ADD;
use crate::planner::tasks::Task;

/// Up to so many indices are walked.
const FEW: usize = 16;
/// Pairs that a workgroup sorts in its own memory, and how often they can be halved.
const BLOCK: usize = 1024;
const STEPS: usize = BLOCK.ilog2() as usize;
/// Sorted pairs that a thread adds up one by one: an index that is met often has many. Of very many pairs it takes more, for
/// a thread also adds up all chunks of one index.
const CHUNK: usize = 64;
const MOST_CHUNKS: usize = 1 << 12;
/// The key of a pair that is none: behind all others.
const NONE: &str = "0xffffffffu";
/// Pairs are held like int64: two words.
const PAIR: DType = DType::I64;

pub fn lower(scene: &mut Scene, task: &Task, mode: GatherMode, axis: usize, kernels: &mut Vec<Kernel>) -> Result<()> {
    let scatter = Scatter { task, mode, axis };
    if scatter.walked() <= FEW {
        kernels.push(scatter.walk(scene)?);
        return Ok(());
    }
    let count = scatter.task.inputs[1].size();
    let pairs = count.next_power_of_two().max(BLOCK);
    let slot = scene.scratch(task.name, pairs * PAIR.device_size())?;
    kernels.push(scatter.sort_blocks(scene, slot, count, pairs)?);
    let mut run = BLOCK * 2;
    while run <= pairs {
        let mut distance = run / 2;
        while distance >= BLOCK {
            kernels.push(scatter.exchange(scene, slot, pairs, run, distance)?);
            distance /= 2;
        }
        kernels.push(scatter.merge_blocks(scene, slot, pairs, run)?);
        run *= 2;
    }
    let elements = 2 * count.div_ceil(chunk(count)) * scatter.rows();
    let sums = scene.scratch(task.name, elements * scatter.dtype(scene).device_size())?;
    kernels.push(scatter.sum_chunks(scene, [slot, sums], count)?);
    kernels.push(scatter.sum(scene, slot, sums, count)?);
    Ok(())
}

/// How many of so many sorted pairs a thread adds up one by one.
fn chunk(count: usize) -> usize {
    count.div_ceil(MOST_CHUNKS).next_power_of_two().max(CHUNK)
}

struct Scatter<'a> {
    task: &'a Task,
    mode: GatherMode,
    axis: usize,
}

impl Scatter<'_> {
    fn dtype(&self, scene: &Scene) -> DType {
        scene.program.values[self.task.output as usize].dtype
    }

    /// Indices that one element of the result has to look at.
    fn walked(&self) -> usize {
        let indices = &self.task.inputs[1];
        match self.mode {
            GatherMode::Take => indices.size(),
            GatherMode::Along => indices.shape[self.axis],
        }
    }

    /// Opens a shader in which each thread has an element of the result: `before`, `at` and `behind` the axis.
    fn each_result<'a>(&self, scene: &'a Scene) -> Shader<'a> {
        let mut shader = each(scene, self.task, self.task.shape.size());
        let inner = shader.number(self.task.shape[self.axis + 1..].iter().product());
        let extent = shader.number(self.task.shape[self.axis]);
        shader.line(&format!("let behind = i % {inner};"));
        shader.line(&format!("let at = i / {inner} % {extent};"));
        shader.line(&format!("let before = i / {inner} / {extent};"));
        shader.line(&format!("var sum = {};", zero(self.dtype(scene))));
        shader
    }

    /// A statement that adds an update to the sum.
    fn add(&self, scene: &Scene, shader: &mut Shader, update: &str) -> Result<String> {
        match self.dtype(scene) {
            DType::Bool => Ok(format!("sum |= {update};")),
            dtype => Ok(format!("sum = {};", shader.binary(&ADD, dtype, ["sum", update])?)),
        }
    }

    /// The update at `before`, `k` and `behind`, where k counts the indices of one element.
    fn update(&self, shader: &mut Shader) -> Result<String> {
        let updates = &self.task.inputs[0];
        let end = updates.shape.rank() - (self.task.shape.rank() - self.axis - 1);
        let mut terms: Vec<String> = shader.offset(updates).into_iter().collect();
        shader.terms(&part(updates, 0..self.axis), "before", &mut terms);
        shader.terms(&part(updates, self.axis..end), "k", &mut terms);
        shader.terms(&part(updates, end..updates.shape.rank()), "behind", &mut terms);
        let index = if terms.is_empty() { "0u".to_owned() } else { terms.join(" + ") };
        shader.element(updates.value, &index)
    }

    /// The index at `before`, `k` and `behind`.
    fn index(&self, shader: &mut Shader) -> Result<String> {
        let indices = &self.task.inputs[1];
        if self.mode == GatherMode::Take {
            return shader.load(indices, At::Linear("k"));
        }
        let (axis, rank) = (self.axis, indices.shape.rank());
        let mut terms: Vec<String> = shader.offset(indices).into_iter().collect();
        shader.terms(&part(indices, 0..axis), "before", &mut terms);
        shader.terms(&part(indices, axis..axis + 1), "k", &mut terms);
        shader.terms(&part(indices, axis + 1..rank), "behind", &mut terms);
        let index = if terms.is_empty() { "0u".to_owned() } else { terms.join(" + ") };
        shader.element(indices.value, &index)
    }

    fn walk(&self, scene: &Scene) -> Result<Kernel> {
        let mut shader = self.each_result(scene);
        let count = shader.number(self.walked());
        shader.open_loop(&format!("for (var k = 0u; k < {count}; k++)"), self.walked());
        let index = self.index(&mut shader)?;
        checked_index(&mut shader, self.task.name, &index, (&self.task.shape, self.axis), NONE);
        let update = self.update(&mut shader)?;
        let add = self.add(scene, &mut shader, &update)?;
        shader.line(&format!("if (index == at) {{ {add} }}"));
        shader.close();
        shader.store(self.task.output, "i", "sum")?;
        finish(scene, shader, self.task.shape.size())
    }

    /// Makes the pairs and sorts each block of them, one upwards and the next downwards.
    fn sort_blocks(&self, scene: &Scene, slot: u32, count: usize, pairs: usize) -> Result<Kernel> {
        let mut shader = self.each_block(scene, pairs);
        let count = shader.number(count);
        self.open_block(&mut shader);
        shader.line(&format!("let k = group * {BLOCK}u + n;"));
        shader.line(&format!("var key = {NONE};"));
        shader.open(&format!("if (k < {count})"));
        self.key(&mut shader)?;
        shader.close();
        shader.line("block[n] = vec2<u32>(k, key);");
        shader.close();
        shader.barrier()?;
        shader.open_uniform_loop(&format!("for (var run = 2u; run <= {BLOCK}u; run <<= 1u)"), STEPS);
        self.merge(&mut shader, "run >> 1u", "run")?;
        shader.close();
        self.store_block(&mut shader, slot);
        shader.finish(&scene.limits, THREADS, pairs / BLOCK)
    }

    /// Declares the key of the index at `k`, the element of the result that it adds to: among those along the axis, or
    /// among all. An index out of range has none.
    fn key(&self, shader: &mut Shader) -> Result<()> {
        let indices = &self.task.inputs[1];
        let index = shader.load(indices, At::Linear("k"))?;
        checked_index(shader, self.task.name, &index, (&self.task.shape, self.axis), NONE);
        if self.mode == GatherMode::Take {
            shader.line("key = index;");
            return Ok(());
        }
        let inner = shader.number(self.task.shape[self.axis + 1..].iter().product());
        let along = shader.number(indices.shape[self.axis]);
        let extent = shader.number(self.task.shape[self.axis]);
        let place = format!("(k / {inner} / {along} * {extent} + index) * {inner} + k % {inner}");
        shader.line(&format!("if (index != {NONE}) {{ key = {place}; }}"));
        Ok(())
    }

    /// Opens a shader in which each workgroup has a block of pairs in its memory.
    fn each_block<'a>(&self, scene: &'a Scene, pairs: usize) -> Shader<'a> {
        let mut shader = Shader::new(scene.program, &scene.homes, self.task.name);
        shader.shared("block", PAIR, BLOCK);
        let blocks = shader.number(pairs / BLOCK);
        shader.line(&format!("if (group >= {blocks}) {{ return; }}"));
        shader
    }

    /// Opens a loop over the pairs `n` of the block that are a thread's own.
    fn open_block(&self, shader: &mut Shader) {
        shader.open_loop(&format!("for (var n = thread; n < {BLOCK}u; n += {THREADS}u)"), BLOCK / THREADS);
    }

    fn store_block(&self, shader: &mut Shader, slot: u32) {
        self.open_block(shader);
        let place = shader.scratch(slot, PAIR, &format!("group * {BLOCK}u + n"), true);
        shader.line(&format!("{place} = block[n];"));
        shader.close();
    }

    /// Sorts what lies `distance` and less apart in the block: the last steps of runs of `run` pairs.
    fn merge(&self, shader: &mut Shader, distance: &str, run: &str) -> Result<()> {
        shader.open_uniform_loop(&format!("for (var distance = {distance}; distance > 0u; distance >>= 1u)"), STEPS);
        let head = format!("for (var n = thread; n < {}u; n += {THREADS}u)", BLOCK / 2);
        shader.open_loop(&head, BLOCK / 2 / THREADS);
        self.swap(shader, |at| format!("block[{at}]"), &format!("group * {BLOCK}u + "), run);
        shader.close();
        shader.barrier()?;
        shader.close();
        Ok(())
    }

    /// Puts the two pairs of comparison `n` in order: upwards in every other run.
    fn swap(&self, shader: &mut Shader, mut pair: impl FnMut(&str) -> String, first: &str, run: &str) {
        shader.line("let low = 2u * n - (n & (distance - 1u));");
        shader.line("let high = low + distance;");
        let (low, high) = (pair("low"), pair("high"));
        shader.line(&format!("let x = {low};"));
        shader.line(&format!("let y = {high};"));
        shader.line(&format!("if (less_u64(y, x) == ((({first}low) & {run}) == 0u)) {{ {low} = y; {high} = x; }}"));
    }

    /// One step of the network over pairs that lie in different blocks.
    fn exchange(&self, scene: &Scene, slot: u32, pairs: usize, run: usize, distance: usize) -> Result<Kernel> {
        let mut shader = each(scene, self.task, pairs / 2);
        let (run, distance) = (shader.number(run), shader.number(distance));
        shader.line("let n = i;");
        shader.line(&format!("let distance = {distance};"));
        let places = ["low", "high"].map(|at| shader.scratch(slot, PAIR, at, true));
        let place = |at: &str| places[usize::from(at == "high")].clone();
        self.swap(&mut shader, place, "", &run);
        finish(scene, shader, pairs / 2)
    }

    /// The steps after it, which stay inside blocks.
    fn merge_blocks(&self, scene: &Scene, slot: u32, pairs: usize, run: usize) -> Result<Kernel> {
        let mut shader = self.each_block(scene, pairs);
        let run = shader.number(run);
        self.open_block(&mut shader);
        let pair = shader.scratch(slot, PAIR, &format!("group * {BLOCK}u + n"), true);
        shader.line(&format!("block[n] = {pair};"));
        shader.close();
        shader.barrier()?;
        self.merge(&mut shader, &format!("{}u", BLOCK / 2), &run)?;
        self.store_block(&mut shader, slot);
        shader.finish(&scene.limits, THREADS, pairs / BLOCK)
    }

    /// Rows of the updates that one index belongs to: the elements before and behind the axis.
    fn rows(&self) -> usize {
        match self.mode {
            GatherMode::Take => self.task.shape.size() / self.task.shape[self.axis],
            GatherMode::Along => 1,
        }
    }

    /// The update of the pair at `n`, after its position has been declared as `k`.
    fn paired_update(&self, shader: &mut Shader, pairs: u32) -> Result<String> {
        let pair = shader.scratch(pairs, PAIR, "n", false);
        shader.line(&format!("let k = {pair}.x;"));
        match self.mode {
            GatherMode::Take => self.update(shader),
            GatherMode::Along => shader.load(&self.task.inputs[0], At::Linear("k")),
        }
    }

    /// Adds the updates of the pairs from one variable up to another, at most so many.
    fn add_pairs(
        &self,
        scene: &Scene,
        shader: &mut Shader,
        pairs: u32,
        [first, end]: [&str; 2],
        most: usize,
    ) -> Result<()> {
        shader.open_loop(&format!("for (var n = {first}; n < {end}; n++)"), most);
        let update = self.paired_update(shader, pairs)?;
        let add = self.add(scene, shader, &update)?;
        shader.line(&add);
        shader.close();
        Ok(())
    }

    /// For each chunk of pairs two sums: over those at its start with one key, and over those at its end with one key.
    fn sum_chunks(&self, scene: &Scene, slots: [u32; 2], count: usize) -> Result<Kernel> {
        let [pairs, sums] = slots;
        let dtype = self.dtype(scene);
        let chunk = chunk(count);
        let size = count.div_ceil(chunk) * self.rows();
        let mut shader = each(scene, self.task, size);
        let inner = shader.number(self.task.shape[self.axis + 1..].iter().product());
        let [rows, count, chunk_word] = [self.rows(), count, chunk].map(|size| shader.number(size));
        shader.line(&format!("let behind = i % {rows} % {inner};"));
        shader.line(&format!("let before = i % {rows} / {inner};"));
        shader.line(&format!("let first = i / {rows} * {chunk_word};"));
        shader.line(&format!("let end = min(first + {chunk_word}, {count});"));
        shader.line("var begin = end - 1u;");
        shader.line("var stop = first + 1u;");
        shader.line(&format!("var sum = {};", zero(dtype)));
        let key = |shader: &mut Shader, at: &str| format!("{}.y", shader.scratch(pairs, PAIR, at, false));
        let (same, next) = (key(&mut shader, "first"), key(&mut shader, "stop"));
        shader.open_loop(&format!("while (stop < end && {next} == {same})"), chunk);
        shader.line("stop++;");
        shader.close();
        self.add_pairs(scene, &mut shader, pairs, ["first", "stop"], chunk)?;
        let place = shader.scratch(sums, dtype, "2u * i", true);
        shader.line(&format!("{place} = sum;"));
        let (same, next) = (key(&mut shader, "end - 1u"), key(&mut shader, "begin - 1u"));
        shader.open_loop(&format!("while (begin > first && {next} == {same})"), chunk);
        shader.line("begin--;");
        shader.close();
        shader.line(&format!("sum = {};", zero(dtype)));
        self.add_pairs(scene, &mut shader, pairs, ["begin", "end"], chunk)?;
        let place = shader.scratch(sums, dtype, "2u * i + 1u", true);
        shader.line(&format!("{place} = sum;"));
        finish(scene, shader, size)
    }

    /// Adds the updates whose keys name an element of the result, which lie side by side in the order of their positions;
    /// those of several chunks by the sums of the chunks.
    fn sum(&self, scene: &Scene, pairs: u32, sums: u32, count: usize) -> Result<Kernel> {
        let mut shader = self.each_result(scene);
        let (chunk, halvings, chunks) = (chunk(count), count.ilog2() as usize + 1, count.div_ceil(chunk(count)));
        let [count, rows, chunk_word] = [count, self.rows(), chunk].map(|size| shader.number(size));
        let key = if self.mode == GatherMode::Take { "at" } else { "i" };
        for (name, is_before) in [("first", "<"), ("end", "<=")] {
            let pair = shader.scratch(pairs, PAIR, "middle", false);
            shader.line(&format!("var {name} = 0u;"));
            shader.open_loop(&format!("for (var size = {count}; size > 0u;)"), halvings);
            shader.line("let half = size / 2u;");
            shader.line(&format!("let middle = {name} + half;"));
            shader.line(&format!("let is_before = {pair}.y {is_before} {key};"));
            shader.line(&format!("{name} = select({name}, middle + 1u, is_before);"));
            shader.line("size = select(half, size - half - 1u, is_before);");
            shader.close();
        }
        shader.line(&format!("let chunk = first / {chunk_word};"));
        shader.line("let last = max(end, 1u) - 1u;");
        shader.open(&format!("if (last / {chunk_word} <= chunk)"));
        self.add_pairs(scene, &mut shader, pairs, ["first", "end"], chunk)?;
        shader.close();
        shader.open("else");
        let row = match self.mode {
            GatherMode::Take => {
                format!("before * {} + behind", shader.number(self.task.shape[self.axis + 1..].iter().product()))
            }
            GatherMode::Along => "0u".to_owned(),
        };
        // The end of the first chunk, then the starts of all others.
        shader.line("var side = 1u;");
        shader.open_loop(&format!("for (var n = chunk; n <= last / {chunk_word}; n++)"), chunks);
        let part = shader.scratch(sums, self.dtype(scene), &format!("2u * (n * {rows} + {row}) + side"), false);
        let add = self.add(scene, &mut shader, &part)?;
        shader.line(&add);
        shader.line("side = 0u;");
        shader.close();
        shader.close();
        shader.store(self.task.output, "i", "sum")?;
        finish(scene, shader, self.task.shape.size())
    }
}

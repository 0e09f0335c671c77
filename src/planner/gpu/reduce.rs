//! Reductions that have shaders of their own: [outer, len, inner] to [outer, inner]. A workgroup takes a few neighbouring
//! results and as many threads for each as its size allows; long runs are cut into chunks first, so that there is enough
//! to do at once. The cut depends on sizes alone, so the same plan gives the same bits.

use super::Scene;
use super::plan::Kernel;
use super::rows::{shared_name, tree};
use super::shader::{At, Shader, THREADS};
use crate::error::{Error, Result};
use crate::graph::ReduceDef;
use crate::planner::tasks::{Task, TaskKind};

/// A run longer than this is cut, if there are few results.
const CHUNK: usize = 2048;
/// From this many results on, runs are not cut.
const MANY_RESULTS: usize = 1 << 14;

/// Where a pass reads and writes: the task's own operand and result, or partial results in a working buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Whole,
    /// Chunks of the operand to partial results.
    First {
        slot: u32,
        chunk: usize,
    },
    /// Rows of the operand to partial results.
    Rows {
        slot: u32,
    },
    /// Partial results to the result.
    Last {
        slot: u32,
    },
}

pub fn lower(
    scene: &mut Scene,
    task: &Task,
    def: &'static ReduceDef,
    len: usize,
    inner: usize,
    kernels: &mut Vec<Kernel>,
) -> Result<()> {
    let results = task.shape.size();
    let dtype = scene.program.values[task.output as usize].dtype;
    if let Some(columns) = countable(task, len).filter(|_| inner == 1) {
        let parts = len / columns;
        let slot = scene.scratch(task.name, results * parts * dtype.device_size())?;
        kernels.push(alone(scene, task, def, [results * parts, columns, 1], Pass::Rows { slot })?);
        kernels.push(alone(scene, task, def, [results, parts, 1], Pass::Last { slot })?);
        return Ok(());
    }
    if is_one_pass(task) {
        let shader = Shader::new(scene.program, &scene.homes, task.name);
        kernels.push(whole(scene, task, shader)?.finish_parts(&scene.limits)?);
        return Ok(());
    }
    // Runs of a length near the root, so that both passes have much to do at once.
    let chunk = ((len as f64).sqrt() as usize).next_power_of_two().max(CHUNK / 2);
    let parts = len.div_ceil(chunk);
    let slot = scene.scratch(task.name, results * parts * dtype.device_size())?;
    let outer = results / inner;
    kernels.push(alone(scene, task, def, [outer, len, inner], Pass::First { slot, chunk })?);
    kernels.push(alone(scene, task, def, [outer, parts, inner], Pass::Last { slot })?);
    Ok(())
}

/// Whether a task is a reduction in one pass.
pub fn is_one_pass(task: &Task) -> bool {
    match task.kind {
        TaskKind::RowReduce { len, .. } | TaskKind::OuterReduce { len, .. } => {
            let results = task.shape.size();
            results > 0 && (len <= CHUNK || results >= MANY_RESULTS) && countable(task, len).is_none()
        }
        _ => false,
    }
}

/// Adds a reduction in one pass to a shader, as a part of it.
pub fn whole<'a>(scene: &'a Scene, task: &Task, shader: Shader<'a>) -> Result<Shader<'a>> {
    let (def, len, inner) = match task.kind {
        TaskKind::RowReduce { def, len, .. } => (def, len, 1),
        TaskKind::OuterReduce { def, len, inner, .. } => (def, len, inner),
        _ => return Err(Error::internal(format!("{} is no reduction", task.name))),
    };
    pass(scene, task, def, [task.shape.size() / inner, len, inner], Pass::Whole, shader)
}

/// A pass that has a kernel of its own.
fn alone(scene: &Scene, task: &Task, def: &'static ReduceDef, sizes: [usize; 3], which: Pass) -> Result<Kernel> {
    let shader = Shader::new(scene.program, &scene.homes, task.name);
    pass(scene, task, def, sizes, which, shader)?.finish_parts(&scene.limits)
}

/// The last axes of an operand, as one, if it is a view with runs of more elements than 32 bits count.
fn countable(task: &Task, len: usize) -> Option<usize> {
    let fits = |&columns: &usize| columns <= u32::MAX as usize && len.is_multiple_of(columns);
    let last = |axis: usize| task.inputs[0].shape[axis..].iter().product();
    (0..task.inputs[0].shape.rank()).map(last).find(fits).filter(|_| len > u32::MAX as usize)
}

fn pass<'a>(
    scene: &'a Scene,
    task: &Task,
    def: &'static ReduceDef,
    sizes: [usize; 3],
    pass: Pass,
    mut shader: Shader<'a>,
) -> Result<Shader<'a>> {
    let [outer, len, inner] = sizes;
    let dtype = scene.program.values[task.output as usize].dtype;
    let parts = match pass {
        Pass::First { chunk, .. } => len.div_ceil(chunk),
        _ => 1,
    };
    let run = len.div_ceil(parts);
    // Neighbouring results lie side by side, so that neighbouring threads read neighbouring elements.
    let lanes =
        if inner == 1 && run > 32 { 1 } else { (THREADS / run.next_power_of_two().min(THREADS)).clamp(16, THREADS) };
    let depth = THREADS / lanes;
    let results = outer * parts * inner;
    shader.open_part(results.div_ceil(lanes));
    shader.counts(if inner == 1 { results } else { outer * len });
    let (count, length, width) = (shader.number(results), shader.number(len), shader.number(inner));
    shader.line(&format!("let result = group * {lanes}u + thread % {lanes}u;"));
    shader.line(&format!("let column = result % {width};"));
    let (identity, fold) = shader.fold(def, dtype)?;
    shader.line(&format!("var a = {identity};"));
    shader.open(&format!("if (result < {count})"));
    let chunk = match pass {
        Pass::First { chunk, .. } => {
            let (parts, chunk) = (shader.number(parts), shader.number(chunk));
            shader.line(&format!("let first = result / {width} % {parts} * {chunk};"));
            shader.line(&format!("let row = result / {width} / {parts};"));
            shader.line(&format!("let end = min(first + {chunk}, {length});"));
            "first + "
        }
        _ => {
            shader.line(&format!("let row = result / {width};"));
            shader.line(&format!("let end = {length};"));
            ""
        }
    };
    shader.open_loop(&format!("for (var k = {chunk}thread / {lanes}u; k < end; k += {depth}u)"), run.div_ceil(depth));
    shader.line(&format!("let i = (row * {length} + k) * {width} + column;"));
    let x = match pass {
        Pass::Last { slot } => shader.scratch(slot, dtype, "i", false),
        _ => {
            shader.line(&format!("let line = row * {length} + k;"));
            let at = match inner {
                1 => At::Row { row: "row", column: "k", len, linear: "i" },
                _ => At::Row { row: "line", column: "column", len: inner, linear: "i" },
            };
            shader.load(&task.inputs[0], at)?
        }
    };
    shader.line(&format!("a = {fold}(a, {x});"));
    shader.close();
    shader.close();
    tree(&mut shader, dtype, &fold, "a", THREADS, lanes)?;
    shader.open(&format!("if (thread < {lanes}u && result < {count})"));
    let total = format!("{}[thread]", shared_name(dtype));
    match pass {
        Pass::First { slot, .. } | Pass::Rows { slot } => {
            let place = shader.scratch(slot, dtype, "result", true);
            shader.line(&format!("{place} = {total};"));
        }
        _ => shader.store(task.output, "result", &total)?,
    }
    shader.close();
    shader.close();
    Ok(shader)
}

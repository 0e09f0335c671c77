//! Pooling: a thread makes one window or, on the way back, one position of the field, which gathers from the windows over
//! it in their order. Sweeps are written into the shader; extents are parameters.

use super::Scene;
use super::moves::{each, finish};
use super::plan::{Kernel, Word};
use super::shader::Shader;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Divisor, PoolRole, Sweep};
use crate::machine::cpu::pool::Pool;
use crate::ops::pool::extents;
use crate::planner::tasks::Task;

pub fn lower(scene: &Scene, task: &Task, sweeps: &[Sweep], role: PoolRole, kernels: &mut Vec<Kernel>) -> Result<()> {
    let pool = extents(sweeps, role, &task.inputs[0].shape, &task.shape);
    let size = task.shape.size();
    let mut writer = Writer { task, pool, shader: each(scene, task, size) };
    match role {
        PoolRole::Index => writer.index(scene.program.values[task.output as usize].dtype)?,
        PoolRole::Pick => writer.pick()?,
        PoolRole::Mean(divisor) => writer.mean(divisor)?,
        PoolRole::Place => writer.place()?,
        PoolRole::Spread(divisor) => writer.spread(divisor)?,
    }
    kernels.push(finish(scene, writer.shader, size)?);
    Ok(())
}

struct Writer<'a> {
    task: &'a Task,
    pool: Pool,
    shader: Shader<'a>,
}

impl Writer<'_> {
    /// Declares the plane of element `i` and its place in it.
    fn unravel(&mut self, place: &str, extents: [usize; 3]) {
        let mut behind = "i".to_owned();
        for axis in (0..3).rev() {
            let extent = self.shader.number(extents[axis]);
            self.shader.line(&format!("let {place}{axis} = {behind} % {extent};"));
            behind = format!("{behind} / {extent}");
        }
        self.shader.line(&format!("let plane = {behind};"));
    }

    /// The index in its tensor of a position in the plane.
    fn ravel(&mut self, place: &str, extents: [usize; 3]) -> String {
        let [a, b, c] = extents.map(|extent| self.shader.number(extent));
        format!("((plane * {a} + {place}0) * {b} + {place}1) * {c} + {place}2")
    }

    /// Element `index` of an operand; operands lie in row-major order.
    fn operand(&mut self, input: usize, index: &str) -> Result<String> {
        let window = &self.task.inputs[input];
        let index = match self.shader.offset(window) {
            Some(offset) => format!("{offset} + {index}"),
            None => index.to_owned(),
        };
        self.shader.element(window.value, &index)
    }

    /// Declares where the taps `j` of window `p` meet the field.
    fn meet(&mut self) {
        for (axis, Sweep { stride, dilation, low, .. }) in self.pool.sweeps.into_iter().enumerate() {
            // Before the field it wraps to a large number.
            self.shader.line(&format!("let f{axis} = p{axis} * {stride}u + j{axis} * {dilation}u - {low}u;"));
        }
    }

    /// Whether the position `f` is in the field.
    fn is_inside(&mut self) -> String {
        let inside = |axis: usize| format!("f{axis} < {}", self.shader.number(self.pool.field[axis]));
        [0, 1, 2].map(inside).join(" && ")
    }

    /// Opens loops over the taps of window `p` that meet the field, in their order.
    fn open_taps(&mut self) {
        for (axis, sweep) in self.pool.sweeps.into_iter().enumerate() {
            let head = format!("for (var j{axis} = 0u; j{axis} < {}u; j{axis}++)", sweep.taps);
            self.shader.open_loop(&head, sweep.taps);
        }
        self.meet();
        let inside = self.is_inside();
        self.shader.open(&format!("if ({inside})"));
    }

    /// Opens loops over the windows that position `f` belongs to, with its tap in each, in their order.
    fn open_windows(&mut self) {
        let mut met = Vec::new();
        for (axis, Sweep { taps, stride, dilation, low }) in self.pool.sweeps.into_iter().enumerate() {
            let last = self.shader.number(self.pool.grid[axis] - 1);
            let reach = (taps - 1) * dilation;
            let at = format!("at{axis}");
            self.shader.line(&format!("let {at} = f{axis} + {low}u;"));
            let first = format!("select(0u, ({at} - {reach}u + {}u) / {stride}u, {at} > {reach}u)", stride - 1);
            let last = format!("min({at} / {stride}u, {last})");
            let head = format!("for (var p{axis} = {first}; p{axis} <= {last}; p{axis}++)");
            self.shader.open_loop(&head, (reach / stride + 1).min(self.pool.grid[axis]));
            self.shader.line(&format!("let step{axis} = {at} - p{axis} * {stride}u;"));
            self.shader.line(&format!("let j{axis} = step{axis} / {dilation}u;"));
            if dilation > 1 {
                met.push(format!("step{axis} == j{axis} * {dilation}u"));
            }
        }
        let met = if met.is_empty() { "true".to_owned() } else { met.join(" && ") };
        self.shader.open(&format!("if ({met})"));
    }

    /// Closes what either of them opened.
    fn close_loops(&mut self) {
        (0..4).for_each(|_| self.shader.close());
    }

    /// The number of tap `j` in its window.
    fn tap(&self) -> String {
        let [_, rows, columns] = self.pool.sweeps.map(|sweep| sweep.taps);
        format!("(j0 * {rows}u + j1) * {columns}u + j2")
    }

    fn index(&mut self, dtype: DType) -> Result<()> {
        self.unravel("p", self.pool.grid);
        self.shader.line("var best = 0u;");
        self.shader.line("var largest = 0.0;");
        self.shader.line("var is_first = true;");
        self.open_taps();
        let at = self.ravel("f", self.pool.field);
        let x = self.operand(0, &at)?;
        let tap = self.tap();
        self.shader.line(&format!("let x = {x};"));
        // A NaN is larger than any number, and of several the last counts.
        self.shader.open("if (is_first || is_nan(x) || (x > largest && !is_nan(largest)))");
        self.shader.line("is_first = false;");
        self.shader.line("largest = x;");
        self.shader.line(&format!("best = {tap};"));
        self.shader.close();
        self.close_loops();
        self.shader.store(self.task.output, "i", if dtype == DType::I32 { "i32(best)" } else { "best" })
    }

    fn pick(&mut self) -> Result<()> {
        let tap = self.operand(1, "i")?;
        let [_, rows, columns] = self.pool.sweeps.map(|sweep| sweep.taps);
        let taps: usize = self.pool.sweeps.iter().map(|sweep| sweep.taps).product();
        self.unravel("p", self.pool.grid);
        self.shader.line(&format!("let tap = u32({tap});"));
        self.shader.line(&format!("let j2 = tap % {columns}u;"));
        self.shader.line(&format!("let j1 = tap / {columns}u % {rows}u;"));
        self.shader.line(&format!("let j0 = tap / {}u;", rows * columns));
        self.meet();
        self.shader.line("var x = 0.0;");
        let inside = self.is_inside();
        let at = self.ravel("f", self.pool.field);
        let x = self.operand(0, &at)?;
        self.shader.line(&format!("if (tap < {taps}u && {inside}) {{ x = {x}; }}"));
        self.shader.store(self.task.output, "i", "x")
    }

    fn place(&mut self) -> Result<()> {
        self.unravel("f", self.pool.field);
        self.shader.line("var sum = 0.0;");
        self.open_windows();
        let window = self.ravel("p", self.pool.grid);
        self.shader.line(&format!("let window = {window};"));
        let (tap, chosen, g) = (self.tap(), self.operand(1, "window")?, self.operand(0, "window")?);
        self.shader.line(&format!("if (u32({chosen}) == {tap}) {{ sum += {g}; }}"));
        self.close_loops();
        self.shader.store(self.task.output, "i", "sum")
    }

    fn mean(&mut self, divisor: Divisor) -> Result<()> {
        self.unravel("p", self.pool.grid);
        self.shader.line("var sum = 0.0;");
        self.open_taps();
        let at = self.ravel("f", self.pool.field);
        let x = self.operand(0, &at)?;
        self.shader.line(&format!("sum += {x};"));
        self.close_loops();
        let divisor = self.divisor(divisor);
        self.shader.store(self.task.output, "i", &format!("sum / {divisor}"))
    }

    fn spread(&mut self, divisor: Divisor) -> Result<()> {
        self.unravel("f", self.pool.field);
        self.shader.line("var sum = 0.0;");
        self.open_windows();
        let window = self.ravel("p", self.pool.grid);
        let g = self.operand(0, &window)?;
        let divisor = self.divisor(divisor);
        self.shader.line(&format!("sum += {g} / {divisor};"));
        self.close_loops();
        self.shader.store(self.task.output, "i", "sum")
    }

    /// What the sum over window `p` is divided by, as a float. Windows of means have no dilation.
    fn divisor(&mut self, divisor: Divisor) -> String {
        if let Divisor::Fixed(n) = divisor {
            let bits = self.shader.word(Word::Fixed((n as f32).to_bits()));
            return format!("bitcast<f32>({bits})");
        }
        let counted = |axis: usize| {
            let Sweep { taps, stride, low, .. } = self.pool.sweeps[axis];
            let field = self.pool.field[axis];
            let (start, end) = (format!("p{axis} * {stride}u"), format!("p{axis} * {stride}u + {taps}u"));
            match divisor {
                Divisor::Inside => {
                    let limit = self.shader.number(field + low);
                    let start = format!("max({start}, {low}u)");
                    format!("(max(min({end}, {limit}), {start}) - {start})")
                }
                _ => format!("(min({end}, {}) - {start})", self.shader.number(field + 2 * low)),
            }
        };
        format!("f32({})", [0, 1, 2].map(counted).join(" * "))
    }
}

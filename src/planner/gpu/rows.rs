//! The shader of a row group: elementwise work over rows, with what rows are reduced to spread back over them. Without a
//! reduction each thread takes one element, and several groups may stand side by side in a shader. With one, a workgroup
//! takes a row (a thread, if rows are short) and walks it once for each level of reductions that build on each other;
//! elements are computed again in each walk.

use super::plan::Kernel;
use super::shader::{At, Shader, THREADS, register};
use super::{Scene, is_stored};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::planner::fuse::{Class, Rows};
use crate::planner::tasks::{Origin, TaskKind};
use crate::planner::window::Window;
use hashbrown::{HashMap, HashSet};

/// Rows up to this long are walked by one thread.
const SHORT_ROW: usize = 32;

/// The shader of a group whose rows of `len` elements are reduced.
pub fn lower(scene: &Scene, group: u32, rows: &Rows, len: usize) -> Result<Kernel> {
    let mut shader = Shader::new(scene.program, &scene.homes, scene.program.tasks[rows.tasks[0] as usize].name);
    if scene.heeds(group) {
        open_heeding(&mut shader);
    }
    let writer = Writer::new(scene, group, rows, shader);
    if len <= SHORT_ROW { writer.short_rows(len) } else { writer.long_rows(len) }
}

/// Adds a group without reductions to a shader, as a part of it.
pub fn elements<'a>(scene: &'a Scene, group: u32, rows: &'a Rows, mut shader: Shader<'a>) -> Result<Shader<'a>> {
    shader.open_part(rows.size.div_ceil(THREADS));
    let size = shader.number(rows.size);
    shader.line(&format!("let i = group * {THREADS}u + thread;"));
    shader.open(&format!("if (i < {size})"));
    let mut writer = Writer::new(scene, group, rows, shader);
    writer.tiles(&writer.stored(Class::Tile), At::Linear("i"), "i")?;
    writer.shader.close();
    writer.shader.close();
    Ok(writer.shader)
}

/// Begins a kernel that heeds an index out of range.
pub fn open_heeding(shader: &mut Shader) {
    shader.fault();
    shader.line("let writes = atomicLoad(&fault[0]) == 0u;");
}

/// What a group does with the elements of a product.
#[derive(Clone, Copy)]
pub struct Ending<'a> {
    pub group: u32,
    pub rows: &'a Rows,
    pub product: u32,
}

/// Adds the function `ending` to the shader of a product, where a thread calls it so many times: all that the group does
/// with element `i` of the product, `x`.
pub fn ending<'a>(scene: &'a Scene, ending: Ending<'a>, shader: Shader<'a>, times: usize) -> Result<Shader<'a>> {
    let mut writer = Writer::new(scene, ending.group, ending.rows, shader);
    let outside = writer.shader.open_function(times);
    let mut element = Element::default();
    element.made.insert(ending.product, "x".to_owned());
    let mut results = Vec::new();
    for task in writer.stored(Class::Tile) {
        results.push((task, writer.tile(task, At::Linear("i"), &mut element)?));
    }
    writer.write(results, "i")?;
    let dtype = register(writer.dtype(ending.product));
    writer.shader.close_function("ending", &format!("fn ending(i: u32, x: {dtype})"), outside);
    Ok(writer.shader)
}

/// How many reductions of the group must be complete before each of its tasks, by task.
fn levels(scene: &Scene, group: u32, rows: &Rows) -> HashMap<u32, u32> {
    let mut levels: HashMap<u32, u32> = HashMap::new();
    for &task in &rows.tasks {
        let inputs = scene.program.tasks[task as usize].inputs.iter();
        let level = inputs.filter_map(|window| {
            let maker = scene.maker_in(window, group)?;
            let is_reduction = matches!(scene.program.tasks[maker as usize].kind, TaskKind::RowReduce { .. });
            Some(levels[&maker] + u32::from(is_reduction))
        });
        levels.insert(task, level.max().unwrap_or(0));
    }
    levels
}

struct Writer<'a> {
    scene: &'a Scene<'a>,
    group: u32,
    rows: &'a Rows,
    levels: HashMap<u32, u32>,
    shader: Shader<'a>,
    /// Variables of values that belong to the row at hand, by task.
    columns: HashMap<u32, String>,
    /// Elements loaded so far, for names.
    loads: usize,
}

/// What one walk along a row has computed of an element.
#[derive(Default)]
struct Element {
    made: HashMap<u32, String>,
    loaded: HashMap<String, String>,
}

impl<'a> Writer<'a> {
    fn new(scene: &'a Scene, group: u32, rows: &'a Rows, shader: Shader<'a>) -> Writer<'a> {
        Writer { scene, group, rows, levels: levels(scene, group, rows), shader, columns: HashMap::new(), loads: 0 }
    }

    fn short_rows(mut self, len: usize) -> Result<Kernel> {
        let rows = self.rows.size / len;
        let (count, columns) = (self.shader.number(rows), self.shader.number(len));
        self.shader.line(&format!("let row = group * {THREADS}u + thread;"));
        self.shader.line(&format!("if (row >= {count}) {{ return; }}"));
        let walk = (format!("for (var column = 0u; column < {columns}; column++)"), len);
        for level in 0..=self.deepest() {
            self.column_maps(level)?;
            for (task, total) in self.walk(level, len, &walk)? {
                self.columns.insert(task, total);
            }
        }
        self.column_maps(u32::MAX)?;
        self.last_walk(len, &walk)?;
        self.store_columns()?;
        self.shader.finish(&self.scene.limits, THREADS, rows.div_ceil(THREADS))
    }

    fn long_rows(mut self, len: usize) -> Result<Kernel> {
        let threads = len.next_power_of_two().clamp(64, THREADS);
        let rows = self.rows.size / len;
        let (count, columns) = (self.shader.number(rows), self.shader.number(len));
        self.shader.line("let row = group;");
        self.shader.line(&format!("if (row >= {count}) {{ return; }}"));
        let walk =
            (format!("for (var column = thread; column < {columns}; column += {threads}u)"), len.div_ceil(threads));
        for level in 0..=self.deepest() {
            self.column_maps(level)?;
            for (task, partial) in self.walk(level, len, &walk)? {
                let total = self.combine(task, &partial, threads)?;
                self.columns.insert(task, total);
            }
        }
        self.column_maps(u32::MAX)?;
        self.last_walk(len, &walk)?;
        self.shader.open("if (thread == 0u)");
        self.store_columns()?;
        self.shader.close();
        self.shader.finish(&self.scene.limits, threads, rows)
    }

    /// A variable of a task. It is numbered in its group, so that alike groups have one shader.
    fn name(&self, kind: &str, task: u32) -> String {
        let at = self.rows.tasks.iter().position(|&other| other == task).unwrap_or_default();
        format!("{kind}{at}")
    }

    fn class(&self, task: u32) -> Class {
        self.scene.groups.places[task as usize].1
    }

    fn kind(&self, task: u32) -> &TaskKind {
        &self.scene.program.tasks[task as usize].kind
    }

    /// The level of the last reductions.
    fn deepest(&self) -> u32 {
        let reductions = self.rows.tasks.iter().filter(|&&task| matches!(self.kind(task), TaskKind::RowReduce { .. }));
        reductions.map(|task| self.levels[task]).max().unwrap_or(0)
    }

    /// The tasks of a class whose values lie in memory.
    fn stored(&self, class: Class) -> Vec<u32> {
        let is_stored = |task: &u32| {
            let output = self.scene.program.tasks[*task as usize].output;
            self.class(*task) == class && is_stored(self.scene.homes[output as usize])
        };
        self.rows.tasks.iter().copied().filter(is_stored).collect()
    }

    /// One walk along the row, a loop and its rounds, for the reductions of a level: the variable that holds each one's result, or this
    /// thread's part of it.
    fn walk(&mut self, level: u32, len: usize, (head, rounds): &(String, usize)) -> Result<Vec<(u32, String)>> {
        let mut reductions = Vec::new();
        for &task in &self.rows.tasks {
            let TaskKind::RowReduce { def, .. } = *self.kind(task) else { continue };
            if self.levels[&task] == level {
                let dtype = self.dtype(task);
                let (identity, fold) = self.shader.fold(def, dtype)?;
                self.shader.line(&format!("var {} = {identity};", self.name("a", task)));
                reductions.push((task, fold));
            }
        }
        if reductions.is_empty() {
            return Ok(Vec::new());
        }
        self.shader.open_loop(head, *rounds);
        let length = self.shader.number(len);
        self.shader.line(&format!("let i = row * {length} + column;"));
        let at = At::Row { row: "row", column: "column", len, linear: "i" };
        let mut element = Element::default();
        for (task, fold) in &reductions {
            let window = &self.scene.program.tasks[*task as usize].inputs[0];
            let x = self.operand(window, at, &mut element)?;
            let a = self.name("a", *task);
            self.shader.line(&format!("{a} = {fold}({a}, {x});"));
        }
        self.shader.close();
        Ok(reductions.into_iter().map(|(task, _)| (task, self.name("a", task))).collect())
    }

    /// The result of a reduction from the parts of all threads of the workgroup.
    fn combine(&mut self, task: u32, partial: &str, threads: usize) -> Result<String> {
        let TaskKind::RowReduce { def, .. } = *self.kind(task) else {
            return Err(Error::internal("a row is reduced by something else"));
        };
        let dtype = self.dtype(task);
        let (_, fold) = self.shader.fold(def, dtype)?;
        let total = self.name("c", task);
        tree(&mut self.shader, dtype, &fold, partial, threads, 1)?;
        self.shader.line(&format!("let {total} = {};", shared_name(dtype) + "[0]"));
        self.shader.barrier()?;
        Ok(total)
    }

    /// Maps over rows, as soon as what they read is complete.
    fn column_maps(&mut self, level: u32) -> Result<()> {
        for &task in &self.rows.tasks {
            let is_due = self.class(task) == Class::Column
                && matches!(self.kind(task), TaskKind::Map { .. })
                && self.levels[&task] <= level
                && !self.columns.contains_key(&task);
            if is_due {
                let x = self.map(task, At::Linear("row"), &mut Element::default())?;
                self.columns.insert(task, x);
            }
        }
        Ok(())
    }

    fn last_walk(&mut self, len: usize, (head, rounds): &(String, usize)) -> Result<()> {
        let stored = self.stored(Class::Tile);
        if stored.is_empty() {
            return Ok(());
        }
        self.shader.open_loop(head, *rounds);
        let length = self.shader.number(len);
        self.shader.line(&format!("let i = row * {length} + column;"));
        self.tiles(&stored, At::Row { row: "row", column: "column", len, linear: "i" }, "i")?;
        self.shader.close();
        Ok(())
    }

    /// Computes these values at an element and stores them. A leaf is written after all of it has been read.
    fn tiles(&mut self, tasks: &[u32], at: At, i: &str) -> Result<()> {
        let mut element = Element::default();
        let mut results = Vec::with_capacity(tasks.len());
        for &task in tasks {
            results.push((task, self.tile(task, at, &mut element)?));
        }
        self.write(results, i)
    }

    fn store_columns(&mut self) -> Result<()> {
        let stored = self.stored(Class::Column);
        let results = stored.into_iter().map(|task| (task, self.columns[&task].clone())).collect();
        self.write(results, "row")
    }

    /// What replaces an old value leaves it as it is, or takes it, if an index was out of range.
    fn write(&mut self, results: Vec<(u32, String)>, at: &str) -> Result<()> {
        for (task, x) in results {
            let output = self.scene.program.tasks[task as usize].output;
            if self.scene.commit.donated.contains_key(&output) {
                self.shader.open("if (writes)");
                self.shader.store(output, at, &x)?;
                self.shader.close();
            } else if let Some(&leaf) = self.scene.commit.guarded.get(&output) {
                let size = self.scene.program.values[leaf as usize].size;
                let old = self.shader.load(&Window::whole(leaf, &[size].into()), At::Linear(at))?;
                self.shader.store(output, at, &format!("select({old}, {x}, writes)"))?;
            } else {
                self.shader.store(output, at, &x)?;
            }
        }
        Ok(())
    }

    /// The variable of a tile value at an element. Deep chains of maps are walked without recursion.
    fn tile(&mut self, task: u32, at: At, element: &mut Element) -> Result<String> {
        for needed in self.needed(task, element) {
            let x = self.map(needed, at, element)?;
            element.made.insert(needed, x);
        }
        Ok(element.made[&task].clone())
    }

    /// The tile tasks of the group that a value is made of and that were not computed yet, in order.
    fn needed(&self, task: u32, element: &Element) -> Vec<u32> {
        let mut found: HashSet<u32> = HashSet::new();
        let mut open = vec![task];
        while let Some(task) = open.pop() {
            if element.made.contains_key(&task) || !found.insert(task) {
                continue;
            }
            let inputs = self.scene.program.tasks[task as usize].inputs.iter();
            let makers = inputs.filter_map(|window| self.scene.maker_in(window, self.group));
            open.extend(makers.filter(|&maker| self.class(maker) == Class::Tile));
        }
        self.rows.tasks.iter().copied().filter(|task| found.contains(task)).collect()
    }

    fn map(&mut self, task: u32, at: At, element: &mut Element) -> Result<String> {
        let TaskKind::Map { function, .. } = *self.kind(task) else {
            return Err(Error::internal(format!("task {task} of a row group is no map")));
        };
        let scene = self.scene;
        let inputs = &scene.program.tasks[task as usize].inputs;
        let args = inputs.iter().map(|window| self.operand(window, at, element)).collect::<Result<Vec<_>>>()?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let from: Vec<DType> = inputs.iter().map(|window| scene.program.values[window.value as usize].dtype).collect();
        let x = self.shader.call(function, &from, self.dtype(task), &args)?;
        let name = self.name("t", task);
        self.shader.line(&format!("let {name} = {x};"));
        Ok(name)
    }

    /// The element of an operand at a position: a variable.
    fn operand(&mut self, window: &Window, at: At, element: &mut Element) -> Result<String> {
        if let Some(maker) = self.scene.maker_in(window, self.group) {
            return match self.class(maker) {
                Class::Column => Ok(self.columns[&maker].clone()),
                _ => self.tile(maker, at, element),
            };
        }
        let x = self.shader.load(window, at)?;
        if !matches!(self.scene.program.values[window.value as usize].origin, Origin::Leaf(_) | Origin::Task(_)) {
            return Ok(x);
        }
        if let Some(known) = element.loaded.get(&x) {
            return Ok(known.clone());
        }
        let name = format!("x{}", self.loads);
        self.loads += 1;
        self.shader.line(&format!("let {name} = {x};"));
        element.loaded.insert(x, name.clone());
        Ok(name)
    }

    fn dtype(&self, task: u32) -> DType {
        self.scene.program.values[self.scene.program.tasks[task as usize].output as usize].dtype
    }
}

/// The name of the array through which the threads of a workgroup combine values of a dtype.
pub fn shared_name(dtype: DType) -> String {
    format!("shared_{}", register(dtype).replace(['<', '>'], "_"))
}

/// Combines one value of each thread by halves, threads that are `lanes` apart; the results are the first elements of the
/// shared array. Their readers pass a barrier before the array is used again.
pub fn tree(shader: &mut Shader, dtype: DType, fold: &str, partial: &str, threads: usize, lanes: usize) -> Result<()> {
    let shared = shared_name(dtype);
    shader.shared(&shared, dtype, threads);
    shader.line(&format!("{shared}[thread] = {partial};"));
    shader.barrier()?;
    let head = format!("for (var half = {}u; half >= {lanes}u; half >>= 1u)", threads / 2);
    shader.open_uniform_loop(&head, (threads / lanes).ilog2() as usize);
    shader.open("if (thread < half)");
    shader.line(&format!("{shared}[thread] = {fold}({shared}[thread], {shared}[thread + half]);"));
    shader.close();
    shader.barrier()?;
    shader.close();
    Ok(())
}

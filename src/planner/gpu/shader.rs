//! Writes one compute shader: its parameters, its bindings, the scalar functions that it calls and its body. Parameters
//! are words of one uniform block; the first is always 0, a zero that no compiler can fold. Sizes and strides are
//! parameters too, so that one pipeline serves many shapes. Keeps count of workgroup memory and of where control flow is
//! uniform, because no validator does.

use super::plan::{Binding, Home, Kernel, Limits, Word};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{BinaryDef, ReduceDef};
use crate::ops;
use crate::planner::tasks::{Function, Origin, Program, Value};
use crate::planner::window::{Dims, Window, split};
use crate::scalar::Scalar;
use std::fmt::Write;

/// Threads of a workgroup where nothing asks for another number.
pub const THREADS: usize = 256;

/// How elements of a dtype are held in shaders.
pub fn register(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool | DType::U8 => "u32",
        DType::I32 => "i32",
        DType::I64 => "vec2<u32>",
        DType::F32 | DType::F64 => "f32",
    }
}

/// A zero of a dtype as a shader writes it.
pub fn zero(dtype: DType) -> String {
    format!("{}()", register(dtype))
}

/// The position of an element: its place in row-major order, and its row and column if the space has rows.
#[derive(Clone, Copy)]
pub enum At<'a> {
    Linear(&'a str),
    Row { row: &'a str, column: &'a str, len: usize, linear: &'a str },
}

pub struct Shader<'a> {
    program: &'a Program,
    homes: &'a [Home],
    name: &'static str,
    words: Vec<Word>,
    /// With the dtype of what lies there.
    bindings: Vec<(Binding, DType)>,
    fault: bool,
    /// Scalar functions and other items at module level, by name.
    items: Vec<(String, String)>,
    group_bytes: usize,
    body: String,
    blocks: Vec<Block>,
    /// Workgroups of the parts so far.
    parts: usize,
    /// Rounds of all loops that a thread may go through, and the most of any part before.
    rounds: usize,
    most_rounds: usize,
    /// The largest number of anything that threads count.
    largest: usize,
}

/// An open block.
struct Block {
    /// Whether all threads of a workgroup enter it equally often.
    uniform: bool,
    /// How often a thread goes through it at most, each time that it gets there.
    rounds: usize,
}

impl<'a> Shader<'a> {
    pub fn new(program: &'a Program, homes: &'a [Home], name: &'static str) -> Shader<'a> {
        Shader {
            program,
            homes,
            name,
            words: vec![Word::Fixed(0)],
            bindings: Vec::new(),
            fault: false,
            items: Vec::new(),
            group_bytes: 0,
            body: String::new(),
            blocks: Vec::new(),
            parts: 0,
            rounds: 0,
            most_rounds: 0,
            largest: 0,
        }
    }

    /// A parameter, as an expression of type u32.
    pub fn word(&mut self, word: Word) -> String {
        let at = self.words.iter().position(|known| *known == word).unwrap_or_else(|| {
            self.words.push(word);
            self.words.len() - 1
        });
        format!("p[{}].{}", at / 4, ["x", "y", "z", "w"][at % 4])
    }

    pub fn number(&mut self, number: usize) -> String {
        self.counts(number);
        self.word(Word::Fixed(number as u32))
    }

    /// Notes that threads count so many of something.
    pub fn counts(&mut self, number: usize) {
        self.largest = self.largest.max(number);
    }

    /// A number of elements from one to the next, which may be negative: arithmetic wraps.
    pub fn stride(&mut self, stride: isize) -> String {
        self.word(Word::Fixed(stride as u32))
    }

    fn bind(&mut self, value: u32, writes: bool) -> Result<usize> {
        let home = match self.homes[value as usize] {
            home @ (Home::Slot(_) | Home::Buffer(_) | Home::Leaf(_)) => home,
            home => return Err(Error::internal(format!("{}: a value at {home:?} has no memory", self.name))),
        };
        let dtype = self.program.values[value as usize].dtype;
        Ok(self.bind_home(home, dtype, writes))
    }

    /// The number of the binding of a buffer.
    fn bind_home(&mut self, home: Home, dtype: DType, writes: bool) -> usize {
        let at = self.bindings.iter().position(|(binding, _)| binding.home == home).unwrap_or_else(|| {
            self.bindings.push((Binding { home, writes: false }, dtype));
            self.bindings.len() - 1
        });
        self.bindings[at].0.writes |= writes;
        at
    }

    /// Element `index` of a working buffer that holds no value of the program.
    pub fn scratch(&mut self, slot: u32, dtype: DType, index: &str, writes: bool) -> String {
        format!("b{}[{index}]", self.bind_home(Home::Slot(slot), dtype, writes))
    }

    /// The element of a window at a position.
    pub fn load(&mut self, window: &Window, at: At) -> Result<String> {
        let index = self.index(window, at);
        self.element(window.value, &index)
    }

    /// Element `index` of a value: of its memory, or of what it is known to hold.
    pub fn element(&mut self, value: u32, index: &str) -> Result<String> {
        let Value { dtype, size, origin } = self.program.values[value as usize];
        match origin {
            Origin::Number(cell) => Ok(self.typed(dtype, |half| Word::Cell(cell, half))),
            Origin::Constant(start) if size == 1 => {
                let bytes = &self.program.constants[start as usize..];
                let bits = Scalar::from_bytes(dtype, bytes).to_bytes(dtype);
                let half = |half: u8| {
                    let at = usize::from(half) * 4;
                    Word::Fixed(u32::from_ne_bytes([bits[at], bits[at + 1], bits[at + 2], bits[at + 3]]))
                };
                Ok(self.typed(dtype, half))
            }
            // The one constant with more elements counts them.
            Origin::Constant(_) if dtype == DType::I64 => Ok(format!("vec2<u32>({index}, 0u)")),
            Origin::Constant(_) => Ok(format!("{}({index})", register(dtype))),
            Origin::Leaf(_) | Origin::Task(_) => Ok(format!("b{}[{index}]", self.bind(value, false)?)),
        }
    }

    /// A number of one or two words in its register type.
    fn typed(&mut self, dtype: DType, word: impl Fn(u8) -> Word) -> String {
        let low = self.word(word(0));
        match dtype {
            DType::Bool | DType::U8 => low,
            DType::I32 => format!("bitcast<i32>({low})"),
            DType::F32 | DType::F64 => format!("bitcast<f32>({low})"),
            DType::I64 => format!("vec2<u32>({low}, {})", self.word(word(1))),
        }
    }

    /// Where a window's first element lies in its buffer.
    pub fn offset(&mut self, window: &Window) -> Option<String> {
        let leaf = match self.homes[window.value as usize] {
            Home::Leaf(leaf) => Some(leaf),
            _ => None,
        };
        let starts = window.starts.iter().map(|&(cell, stride)| (cell, stride as i64)).collect();
        let word = Word::Offset { leaf, fixed: window.offset as i64, starts };
        let is_none = leaf.is_none() && window.offset == 0 && window.starts.is_empty();
        (!is_none).then(|| self.word(word))
    }

    /// The element of its buffer that a window shows at a position.
    pub fn index(&mut self, window: &Window, at: At) -> String {
        let mut terms: Vec<String> = self.offset(window).into_iter().collect();
        let dims = window.dims();
        let (rows, linear) = match at {
            At::Linear(i) => (None, i),
            At::Row { row, column, len, linear } => (split(&dims, len).map(|dims| (dims, row, column)), linear),
        };
        match rows {
            // A view may have more rows and columns together than can be counted.
            Some(((outer, inner), row, column)) => {
                self.terms(&outer, row, &mut terms);
                self.terms(&inner, column, &mut terms);
            }
            None => {
                self.counts(window.size());
                self.terms(&dims, linear, &mut terms);
            }
        }
        if terms.is_empty() { "0u".to_owned() } else { terms.join(" + ") }
    }

    /// What the axes add for the element `i` of their row-major order.
    pub fn terms(&mut self, dims: &Dims, i: &str, terms: &mut Vec<String>) {
        let mut behind = 1;
        for (axis, &(extent, stride)) in dims.iter().enumerate().rev() {
            let skipped = if behind == 1 { i.to_owned() } else { format!("{i} / {}", self.number(behind)) };
            let place = if axis == 0 { skipped } else { format!("({skipped}) % {}", self.number(extent)) };
            match stride {
                0 => {}
                1 => terms.push(format!("({place})")),
                _ => terms.push(format!("({place}) * {}", self.stride(stride))),
            }
            behind *= extent;
        }
    }

    /// A statement that stores an element of a whole value.
    pub fn store(&mut self, value: u32, index: &str, x: &str) -> Result<()> {
        let place = self.place(value, index)?;
        self.line(&format!("{place} = {x};"));
        Ok(())
    }

    /// The place of element `index` of a whole value, to be assigned.
    pub fn place(&mut self, value: u32, index: &str) -> Result<String> {
        let binding = self.bind(value, true)?;
        // A donated leaf may start anywhere in its buffer.
        let window = Window::whole(value, &[self.program.values[value as usize].size].into());
        Ok(match self.offset(&window) {
            Some(offset) => format!("b{binding}[{offset} + {index}]"),
            None => format!("b{binding}[{index}]"),
        })
    }

    /// The call of a scalar function.
    pub fn call(&mut self, function: Function, from: &[DType], to: DType, args: &[&str]) -> Result<String> {
        let refused = || {
            let dtypes: Vec<&str> = from.iter().map(|dtype| dtype.name()).collect();
            Error::new(ErrorKind::Unsupported, format!("{} is not there on the GPU", dtypes.join(", ")))
        };
        let (first, out) = (from[0], register(to));
        let name = |op: &str| format!("op_{op}_{}", first.name());
        let (name, parameters, expression) = match function {
            Function::Copy => return Ok(args[0].to_owned()),
            Function::Unary(def) => {
                (name(def.name), format!("x: {}", register(first)), (def.wgsl)(first).ok_or_else(refused)?)
            }
            Function::Binary(def) => {
                let ty = register(first);
                (name(def.name), format!("x: {ty}, y: {ty}"), (def.wgsl)(first).ok_or_else(refused)?)
            }
            Function::Select => {
                ("op_where_".to_owned() + to.name(), format!("c: u32, x: {out}, y: {out}"), ops::select_wgsl())
            }
            Function::Cast if register(first) == out && first == to => return Ok(args[0].to_owned()),
            Function::Cast => (
                format!("op_cast_{}_{}", first.name(), to.name()),
                format!("x: {}", register(first)),
                ops::cast_wgsl(first, to).ok_or_else(refused)?,
            ),
        };
        self.enter_loops(ops::wgsl::rounds(expression));
        self.item(&name, || format!("fn {name}({parameters}) -> {out} {{ return {expression}; }}"));
        Ok(format!("{name}({})", args.join(", ")))
    }

    pub fn binary(&mut self, def: &'static BinaryDef, dtype: DType, args: [&str; 2]) -> Result<String> {
        self.call(Function::Binary(def), &[dtype, dtype], dtype, &args)
    }

    /// The identity of a reduction, and the name of the function that combines two of its values.
    pub fn fold(&mut self, def: &'static ReduceDef, dtype: DType) -> Result<(&'static str, String)> {
        let fold = (def.wgsl)(dtype).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("{}: {dtype} is not there on the GPU", def.name))
        })?;
        let (name, ty) = (format!("fold_{}_{}", def.name, dtype.name()), register(dtype));
        self.item(&name, || format!("fn {name}(x: {ty}, y: {ty}) -> {ty} {{ return {}; }}", fold.combine));
        Ok((fold.identity, name))
    }

    /// An item at module level, written once.
    pub fn item(&mut self, name: &str, text: impl FnOnce() -> String) {
        if !self.items.iter().any(|(known, _)| known == name) {
            self.items.push((name.to_owned(), text()));
        }
    }

    /// An array in workgroup memory, made once for each name.
    pub fn shared(&mut self, name: &str, dtype: DType, len: usize) {
        if !self.items.iter().any(|(known, _)| known == name) {
            self.group_bytes += len * dtype.device_size();
            self.item(name, || format!("var<workgroup> {name}: array<{}, {len}>;", register(dtype)));
        }
    }

    /// Binds the words that bad indices are noted in.
    pub fn fault(&mut self) {
        self.fault = true;
    }

    pub fn line(&mut self, text: &str) {
        let indent = "  ".repeat(self.blocks.len() + 1);
        _ = writeln!(self.body, "{indent}{text}");
    }

    /// Opens a block that each thread may enter or not.
    pub fn open(&mut self, head: &str) {
        debug_assert!(!head.starts_with("for") && !head.starts_with("while"), "a loop that is not counted: {head}");
        self.enter(head, Block { uniform: false, rounds: 1 });
    }

    /// Opens what the next so many workgroups do, and no others; there their numbers start with 0.
    pub fn open_part(&mut self, groups: usize) {
        let [first, count] = [self.parts, groups].map(|number| self.number(number));
        self.parts += groups;
        self.most_rounds = self.most_rounds.max(self.rounds);
        self.rounds = 0;
        // Numbers before the first wrap to large ones.
        self.enter(&format!("if (group - {first} < {count})"), Block { uniform: true, rounds: 1 });
        self.line(&format!("let group = group - {first};"));
    }

    /// Opens a loop of at most so many rounds.
    pub fn open_loop(&mut self, head: &str, rounds: usize) {
        self.enter(head, Block { uniform: false, rounds });
    }

    /// Opens a loop that all threads of a workgroup go through equally often, at most so many rounds.
    pub fn open_uniform_loop(&mut self, head: &str, rounds: usize) {
        self.enter(head, Block { uniform: true, rounds });
    }

    fn enter(&mut self, head: &str, block: Block) {
        if block.rounds != 1 {
            self.enter_loops(block.rounds);
        }
        self.line(&format!("{head} {{"));
        self.blocks.push(block);
    }

    /// Counts so many rounds of loops for each time that a thread gets here.
    fn enter_loops(&mut self, rounds: usize) {
        let times = self.blocks.iter().fold(1, |times: usize, block| times.saturating_mul(block.rounds));
        self.rounds = self.rounds.saturating_add(times.saturating_mul(rounds));
    }

    pub fn close(&mut self) {
        self.blocks.pop();
        self.line("}");
    }

    /// Opens a function without a result that a thread calls so many times. Gives what `close_function` needs.
    pub fn open_function(&mut self, times: usize) -> String {
        self.blocks.push(Block { uniform: false, rounds: times });
        std::mem::take(&mut self.body)
    }

    pub fn close_function(&mut self, name: &str, head: &str, outside: String) {
        self.blocks.pop();
        let body = std::mem::replace(&mut self.body, outside);
        self.item(name, || format!("{head} {{\n{body}}}"));
    }

    pub fn barrier(&mut self) -> Result<()> {
        if self.blocks.iter().any(|block| !block.uniform) {
            return Err(Error::internal(format!("{}: a barrier that some threads may not reach", self.name)));
        }
        self.line("workgroupBarrier();");
        Ok(())
    }

    /// The kernel of all parts.
    pub fn finish_parts(self, limits: &Limits) -> Result<Kernel> {
        let groups = self.parts;
        self.finish(limits, THREADS, groups)
    }

    /// The kernel, run by `groups` workgroups of `threads` threads. The body sees the number of its workgroup as `group`
    /// and of its thread as `thread`.
    pub fn finish(self, limits: &Limits, threads: usize, groups: usize) -> Result<Kernel> {
        if self.group_bytes > limits.group_bytes || threads > limits.group_threads {
            return Err(Error::internal(format!(
                "{}: {} bytes and {threads} threads in a workgroup; the device has {} and {}",
                self.name, self.group_bytes, limits.group_bytes, limits.group_threads
            )));
        }
        if self.bindings.len() + usize::from(self.fault) > limits.buffers {
            return Err(Error::internal(format!(
                "{}: {} buffers in one kernel; the device binds {}",
                self.name,
                self.bindings.len(),
                limits.buffers
            )));
        }
        self.check_counts(limits)?;
        let groups = grid(self.name, groups, limits)?;
        Ok(Kernel {
            name: self.name,
            wgsl: self.text(threads),
            bindings: self.bindings.into_iter().map(|(binding, _)| binding).collect(),
            fault: self.fault,
            words: self.words,
            groups,
        })
    }

    /// Refuses what a thread would not count to the end.
    fn check_counts(&self, limits: &Limits) -> Result<()> {
        let (name, rounds, most) = (self.name, self.rounds.max(self.most_rounds), limits.loop_rounds);
        if rounds > most {
            let text = format!("{name}: {rounds} rounds of loops in a thread are more than this device's {most}");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let (largest, most) = (self.largest, u32::MAX);
        if u32::try_from(largest).is_err() {
            let text = format!("{name}: {largest} elements are more than the {most} that a kernel of a GPU can count");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Ok(())
    }

    fn text(&self, threads: usize) -> String {
        let mut head = format!("// {}\n", self.name);
        _ = writeln!(head, "@group(0) @binding(0) var<uniform> p: array<vec4<u32>, {}>;", self.words.len().div_ceil(4));
        for (at, (binding, dtype)) in self.bindings.iter().enumerate() {
            let access = if binding.writes { "read_write" } else { "read" };
            let ty = register(*dtype);
            _ = writeln!(head, "@group(0) @binding({}) var<storage, {access}> b{at}: array<{ty}>;", at + 1);
        }
        if self.fault {
            let at = self.bindings.len() + 1;
            _ = writeln!(head, "@group(0) @binding({at}) var<storage, read_write> fault: array<atomic<u32>>;");
        }
        let mut main = String::new();
        self.items.iter().for_each(|(_, text)| _ = writeln!(main, "{text}"));
        _ = writeln!(
            main,
            "@compute @workgroup_size({threads})\n\
             fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, \
             @builtin(local_invocation_index) thread: u32) {{\n  let group = id.x + id.y * count.x;\n{}}}",
            self.body
        );
        let prelude = ops::wgsl::prelude(&main);
        head + &prelude + &main
    }
}

/// So many workgroups along two axes.
fn grid(name: &str, groups: usize, limits: &Limits) -> Result<[u32; 3]> {
    let rows = groups.div_ceil(limits.groups);
    if rows > limits.groups {
        return Err(Error::new(
            ErrorKind::Memory,
            format!("{name}: {groups} workgroups are more than the device's {} by {}", limits.groups, limits.groups),
        ));
    }
    Ok([groups.min(limits.groups) as u32, rows as u32, 1])
}

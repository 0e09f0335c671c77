//! Lowers a graph to tasks. Layout ops become windows on values, reductions become row reductions and outer
//! reductions, and what is left is one task a value. Fused and unfused executors agree because both use `runs` to take
//! a reduction apart. Chooses no memory and groups nothing.

use super::layout::{self, Spot};
use super::window::Window;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{
    Attrs, BinaryDef, CompositeDef, ConvRole, ConvSpec, DeviceKernel, GatherMode, Graph, HostKernel, Layout, Node, Op,
    PoolRole, RandomDef, ReduceDef, SliceDim, SliceDims, Source, Sweeps, TensorType, UnaryDef, Val,
};
use crate::machine::cpu::dispatch::Kernels;
use crate::machine::cpu::reduce::ReduceKernels;
use crate::ops;
use crate::scalar::Scalar;
use crate::shape::{Shape, Strides};
use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};
use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Leaf(u32),
    /// A number of the plan's input, in this cell.
    Number(u32),
    /// At this byte of the plan's constants.
    Constant(u32),
    /// Made by this task.
    Task(u32),
}

#[derive(Clone, Copy, Debug)]
pub struct Value {
    pub dtype: DType,
    pub size: usize,
    pub origin: Origin,
}

impl Value {
    pub fn bytes(&self) -> usize {
        self.size * self.dtype.size()
    }
}

/// The scalar function of a map.
#[derive(Clone, Copy)]
pub enum Function {
    Unary(&'static UnaryDef),
    Binary(&'static BinaryDef),
    Select,
    Cast,
    Copy,
}

impl Function {
    /// Whether an element costs several times as much as an addition.
    pub fn is_heavy(self) -> bool {
        match self {
            Function::Unary(def) => def.ulp > 0.5,
            Function::Binary(def) => def.ulp > 0.5,
            Function::Select | Function::Cast | Function::Copy => false,
        }
    }
}

#[derive(Clone)]
pub enum TaskKind {
    /// One element of the output from one of each input.
    Map {
        function: Function,
        kernels: &'static Kernels,
    },
    /// Each run of `len` elements to one, by the lane tree.
    RowReduce {
        def: &'static ReduceDef,
        kernels: &'static ReduceKernels,
        len: usize,
    },
    /// Over the middle of [outer, len, inner], by the chunk tree.
    OuterReduce {
        def: &'static ReduceDef,
        kernels: &'static ReduceKernels,
        len: usize,
        inner: usize,
    },
    Contract,
    Conv(ConvSpec, ConvRole),
    Pool(Sweeps, PoolRole),
    Gather(GatherMode, u8),
    Scatter(GatherMode, u8),
    Embed(SliceDims),
    Concat(u8),
    Random(&'static RandomDef),
    /// A composite with a hand kernel, and where each of its results lies: several may share a value.
    Hand {
        kernel: &'static HostKernel,
        attrs: Attrs,
        nanos: u64,
        flops: u64,
        device: Option<DeviceKernel>,
        results: Vec<Window>,
    },
}

#[derive(Clone)]
pub struct Task {
    pub name: &'static str,
    pub kind: TaskKind,
    pub inputs: SmallVec<[Window; 2]>,
    /// The first output; others follow it.
    pub output: u32,
    /// Of the first output, which is row-major unless a hand kernel makes it.
    pub shape: Shape,
}

impl Task {
    /// The values that it makes.
    pub fn outputs(&self) -> Range<u32> {
        let last = match &self.kind {
            TaskKind::Hand { results, .. } => results.iter().map(|window| window.value).max(),
            _ => None,
        };
        self.output..last.unwrap_or(self.output) + 1
    }
}

/// A start of a slice that must lie in 0..=limit.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    pub cell: u32,
    pub low: i64,
    pub high: i64,
    pub dim: usize,
}

impl Check {
    pub fn hold(&self, start: i64) -> Result<()> {
        if (self.low..=self.high).contains(&start) {
            return Ok(());
        }
        Err(Error::index(format!("slice: start {start} is out of range for an axis of {}", self.dim)))
    }
}

/// A graph as tasks.
#[derive(Default)]
pub struct Program {
    pub values: Vec<Value>,
    pub tasks: Vec<Task>,
    /// The slot and dtype of each cell of numbers.
    pub cells: Vec<(u32, DType)>,
    pub constants: Vec<u8>,
    pub checks: Vec<Check>,
    /// Slots of leaves that lie in row-major order.
    pub flat_leaves: hashbrown::HashSet<u32>,
    /// The value of each output of the graph.
    pub outputs: Vec<u32>,
}

impl Program {
    /// Adds a task that copies a whole value; gives the copy.
    pub fn copy_value(&mut self, value: u32) -> u32 {
        let Value { dtype, size, .. } = self.values[value as usize];
        let (shape, output) = (Shape::from([size]), self.values.len() as u32);
        self.values.push(Value { dtype, size, origin: Origin::Task(self.tasks.len() as u32) });
        let kind = TaskKind::Map { function: Function::Copy, kernels: super::kernels::copy(dtype) };
        self.tasks.push(Task { name: "copy", kind, inputs: smallvec![Window::whole(value, &shape)], output, shape });
        output
    }
}

/// A maximal run of equal treatment in the shape of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub extent: usize,
    pub reduced: bool,
}

/// The runs of a reduction, outermost first: axes of one element are dropped, adjacent equal ones merged.
pub fn runs(shape: &[usize], axes: u32) -> SmallVec<[Run; 4]> {
    let mut runs: SmallVec<[Run; 4]> = SmallVec::new();
    for (axis, &extent) in shape.iter().enumerate().filter(|(_, extent)| **extent != 1) {
        let reduced = axes >> axis & 1 == 1;
        match runs.last_mut() {
            Some(last) if last.reduced == reduced => last.extent *= extent,
            _ => runs.push(Run { extent, reduced }),
        }
    }
    runs
}

/// One step of a reduction: [outer, len, inner] to [outer, inner]; `inner` = 1 is the lane tree, else the chunk tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReduceStep {
    pub outer: usize,
    pub len: usize,
    pub inner: usize,
}

/// The steps of a reduction, innermost first, each rounding to its dtype. Nothing in the shape is empty.
pub fn reduce_steps(shape: &[usize], axes: u32) -> SmallVec<[ReduceStep; 2]> {
    let mut steps = SmallVec::new();
    let mut inner = 1;
    let runs = runs(shape, axes);
    for (at, run) in runs.iter().enumerate().rev() {
        if run.reduced {
            let outer = runs[..at].iter().map(|run| run.extent).product();
            steps.push(ReduceStep { outer, len: run.extent, inner });
        } else {
            inner *= run.extent;
        }
    }
    steps
}

pub fn lower(graph: &Graph, leaf_strides: &[Strides]) -> Result<Program> {
    let mut lowering = Lowering {
        program: Program::default(),
        leaf_strides,
        windows: Vec::new(),
        cells: HashMap::new(),
        spots: layout::spots(graph),
        roots: HashMap::new(),
    };
    lowering.windows.reserve(graph.nodes.len());
    lowering.program.values.reserve(graph.nodes.len());
    lowering.program.tasks.reserve(graph.nodes.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        let windows = match &node.op {
            Op::Composite(def, attrs) => lowering.hand(graph, index as u32, def, attrs),
            Op::Concat(_) if lowering.roots.contains_key(&(index as u32)) => Ok(lowering.root(index as u32, node)),
            _ => lowering.node(graph, node).map(|window| smallvec![window]),
        };
        lowering.windows.push(windows.map_err(|e| e.within(node.op.name()))?);
    }
    for val in &graph.outputs {
        let output = lowering.output(graph, *val);
        lowering.program.outputs.push(output);
    }
    Ok(lowering.program)
}

struct Lowering<'a> {
    program: Program,
    leaf_strides: &'a [Strides],
    /// How the outputs of each node are seen.
    windows: Vec<SmallVec<[Window; 1]>>,
    cells: HashMap<(u32, DType), u32>,
    /// Results that do not lie in row-major order in memory of their own.
    spots: HashMap<Val, Spot>,
    /// The values of nodes that hand kernels make before their turn comes.
    roots: HashMap<u32, u32>,
}

impl Lowering<'_> {
    fn node(&mut self, graph: &Graph, node: &Node) -> Result<Window> {
        let [ty] = node.outputs.as_slice() else {
            return Err(Error::internal("a primitive op has one output"));
        };
        let input = |i: usize| self.window(node.inputs[i]);
        match &node.op {
            Op::Source(source) => self.source(*source, ty),
            Op::Unary(def) => {
                let from = graph.dtype(node.inputs[0]);
                let kernels = (def.kernels)(from).ok_or_else(|| refused(from))?;
                Ok(self.map(def.name, Function::Unary(def), kernels, node, ty))
            }
            Op::Binary(def) => {
                let from = graph.dtype(node.inputs[0]);
                let kernels = (def.kernels)(from).ok_or_else(|| refused(from))?;
                Ok(self.map(def.name, Function::Binary(def), kernels, node, ty))
            }
            Op::Select => Ok(self.map("where", Function::Select, ops::select_kernels(ty.dtype), node, ty)),
            Op::Cast(to) => {
                let kernels = ops::cast_kernels(graph.dtype(node.inputs[0]), *to);
                Ok(self.map("astype", Function::Cast, kernels, node, ty))
            }
            Op::Reduce(def, axes) => {
                let kernels = (def.kernels)(ty.dtype).ok_or_else(|| refused(ty.dtype))?;
                let from = input(0).clone();
                if from.size() == 0 {
                    return Ok(self.constant(Scalar::F64(def.empty.unwrap_or(0.0)), ty));
                }
                self.reduce(def, kernels, from, *axes, ty)
            }
            Op::After => Ok(Window { after: Some(input(1).value), ..input(0).clone() }),
            Op::Layout(Layout::Broadcast) => Ok(input(0).broadcast(&ty.shape)),
            Op::Layout(Layout::Permute(perm)) => Ok(input(0).permute(perm)),
            Op::Layout(Layout::Reshape) => match input(0).reshape(&ty.shape) {
                Some(window) => Ok(window),
                None => {
                    let from = input(0).clone();
                    Ok(self.copy(from, ty))
                }
            },
            Op::Layout(Layout::Slice(dims)) => self.slice(graph, node, dims, ty),
            Op::Contract if ty.dtype == DType::Bool => Err(refused(ty.dtype)),
            Op::Contract => Ok(self.host("matmul", TaskKind::Contract, node, ty)),
            Op::Conv(spec, role) => self.flat_host(TaskKind::Conv(spec.clone(), *role), graph, node),
            Op::Pool(sweeps, role) => self.flat_host(TaskKind::Pool(sweeps.clone(), *role), graph, node),
            Op::Gather(mode, axis) => Ok(self.host(node.op.name(), TaskKind::Gather(*mode, *axis), node, ty)),
            Op::Scatter(mode, axis) => Ok(self.host(node.op.name(), TaskKind::Scatter(*mode, *axis), node, ty)),
            Op::Embed(dims) => {
                self.check_starts(node, dims, &ty.shape)?;
                Ok(self.host("embed", TaskKind::Embed(dims.clone()), node, ty))
            }
            Op::Concat(axis) => Ok(self.host("concat", TaskKind::Concat(*axis), node, ty)),
            Op::Random(def) => {
                (def.fill)(ty.dtype).ok_or_else(|| refused(ty.dtype))?;
                Ok(self.host(def.name, TaskKind::Random(def), node, ty))
            }
            Op::Marker
            | Op::Detach
            | Op::Composite(..)
            | Op::Gradient(_)
            | Op::Jvp(_)
            | Op::Batch(_)
            | Op::CustomGradient(_)
            | Op::Pullback(_) => Err(Error::internal("is left after expansion")),
        }
    }

    fn source(&mut self, source: Source, ty: &TensorType) -> Result<Window> {
        match source {
            Source::Leaf(slot) => {
                let strides = self
                    .leaf_strides
                    .get(slot as usize)
                    .filter(|strides| strides.len() == ty.shape.rank())
                    .ok_or_else(|| Error::internal(format!("no strides of rank {} for slot {slot}", ty.shape.rank())))?
                    .clone();
                let value = self.value(ty.dtype, ty.shape.size(), Origin::Leaf(slot));
                let window = Window { strides, ..Window::whole(value, &ty.shape) };
                if window.is_flat() {
                    self.program.flat_leaves.insert(slot);
                }
                Ok(window)
            }
            Source::Number(slot) => {
                let cell = self.cell(slot, ty.dtype);
                let value = self.value(ty.dtype, 1, Origin::Number(cell));
                Ok(Window::spread(value, &ty.shape))
            }
            Source::Full(x) => Ok(self.constant(x, ty)),
            Source::Iota => {
                let at = self.program.constants.len();
                for i in 0..ty.shape.size() as i64 {
                    let bytes = Scalar::I64(i).to_bytes(ty.dtype);
                    self.program.constants.extend_from_slice(&bytes[..ty.dtype.size()]);
                }
                self.align_constants();
                let value = self.value(ty.dtype, ty.shape.size(), Origin::Constant(at as u32));
                Ok(Window::whole(value, &ty.shape))
            }
            Source::Placeholder => Err(Error::internal("is left after expansion")),
        }
    }

    fn constant(&mut self, x: Scalar, ty: &TensorType) -> Window {
        let at = self.program.constants.len();
        self.program.constants.extend_from_slice(&x.to_bytes(ty.dtype));
        let value = self.value(ty.dtype, 1, Origin::Constant(at as u32));
        Window::spread(value, &ty.shape)
    }

    fn align_constants(&mut self) {
        let len = self.program.constants.len().next_multiple_of(8);
        self.program.constants.resize(len, 0);
    }

    fn cell(&mut self, slot: u32, dtype: DType) -> u32 {
        let next = self.program.cells.len() as u32;
        let cell = *self.cells.entry((slot, dtype)).or_insert(next);
        if cell == next {
            self.program.cells.push((slot, dtype));
        }
        cell
    }

    fn value(&mut self, dtype: DType, size: usize, origin: Origin) -> u32 {
        self.program.values.push(Value { dtype, size, origin });
        self.program.values.len() as u32 - 1
    }

    fn task(&mut self, name: &'static str, kind: TaskKind, inputs: SmallVec<[Window; 2]>, ty: &TensorType) -> Window {
        let output = self.value(ty.dtype, ty.shape.size(), Origin::Task(self.program.tasks.len() as u32));
        self.program.tasks.push(Task { name, kind, inputs, output, shape: ty.shape.clone() });
        Window::whole(output, &ty.shape)
    }

    fn map(
        &mut self,
        name: &'static str,
        function: Function,
        kernels: &'static Kernels,
        node: &Node,
        ty: &TensorType,
    ) -> Window {
        self.host(name, TaskKind::Map { function, kernels }, node, ty)
    }

    fn host(&mut self, name: &'static str, kind: TaskKind, node: &Node, ty: &TensorType) -> Window {
        let mut inputs = SmallVec::new();
        node.inputs.iter().for_each(|&val| inputs.push(self.window(val).clone()));
        self.task(name, kind, inputs, ty)
    }

    /// A task whose kernel reads operands in row-major order only.
    fn flat_host(&mut self, kind: TaskKind, graph: &Graph, node: &Node) -> Result<Window> {
        let mut inputs = SmallVec::new();
        for &val in &node.inputs {
            let window = self.window(val).clone();
            inputs.push(if window.is_flat() { window } else { self.copy(window, graph.ty(val)) });
        }
        Ok(self.task(node.op.name(), kind, inputs, &node.outputs[0]))
    }

    /// A composite that is left after expansion has a hand kernel.
    fn hand(
        &mut self,
        graph: &Graph,
        index: u32,
        def: &'static CompositeDef,
        attrs: &Attrs,
    ) -> Result<SmallVec<[Window; 1]>> {
        let node = &graph.nodes[index as usize];
        let inputs: SmallVec<[&TensorType; 8]> = node.inputs.iter().map(|&val| graph.ty(val)).collect();
        let kernel = def.kernel_for(attrs, &inputs).ok_or_else(|| Error::internal("is left after expansion"))?;
        let (nanos, flops) = ((kernel.nanos)(attrs, &inputs), (kernel.flops)(attrs, &inputs));
        let device = (kernel.device)(attrs, &inputs);
        let output = self.program.values.len() as u32;
        let results: Vec<Window> = node.vals(index).into_iter().map(|val| self.result(graph, val)).collect();
        let windows = results.iter().cloned().collect();
        let kind = TaskKind::Hand { kernel, attrs: attrs.clone(), nanos, flops, device, results };
        let inputs = node.inputs.iter().map(|&val| self.window(val).clone()).collect();
        self.program.tasks.push(Task { name: def.name, kind, inputs, output, shape: node.outputs[0].shape.clone() });
        Ok(windows)
    }

    /// Where a result of the next task lies: in a value of its own, or in one that others share.
    fn result(&mut self, graph: &Graph, val: Val) -> Window {
        let maker = Origin::Task(self.program.tasks.len() as u32);
        let ty = graph.ty(val);
        let Some(Spot { root, window }) = self.spots.remove(&val) else {
            return Window::whole(self.value(ty.dtype, ty.shape.size(), maker), &ty.shape);
        };
        let value = match self.roots.get(&root.node) {
            Some(&value) => value,
            None => self.value(ty.dtype, graph.shape(root).size(), maker),
        };
        self.roots.insert(root.node, value);
        Window { value, ..window }
    }

    /// A node whose parts were written into its memory.
    fn root(&self, index: u32, node: &Node) -> SmallVec<[Window; 1]> {
        smallvec![Window::whole(self.roots[&index], &node.outputs[0].shape)]
    }

    fn window(&self, val: Val) -> &Window {
        &self.windows[val.node as usize][val.output as usize]
    }

    /// The elements of a window, one after another.
    fn copy(&mut self, from: Window, ty: &TensorType) -> Window {
        let kind = TaskKind::Map { function: Function::Copy, kernels: super::kernels::copy(ty.dtype) };
        self.task("copy", kind, smallvec![from], ty)
    }

    fn reduce(
        &mut self,
        def: &'static ReduceDef,
        kernels: &'static ReduceKernels,
        from: Window,
        axes: u32,
        ty: &TensorType,
    ) -> Result<Window> {
        let mut window = from;
        for ReduceStep { outer, len, inner } in reduce_steps(&window.shape.clone(), axes) {
            let kind = match inner {
                1 => TaskKind::RowReduce { def, kernels, len },
                _ => TaskKind::OuterReduce { def, kernels, len, inner },
            };
            let between = TensorType { dtype: ty.dtype, shape: Shape::from([outer, inner]) };
            window = self.task(def.name, kind, smallvec![window], &between);
        }
        window.reshape(&ty.shape).ok_or_else(|| Error::internal("the result has another size"))
    }

    fn slice(&mut self, graph: &Graph, node: &Node, dims: &[SliceDim], ty: &TensorType) -> Result<Window> {
        let before = graph.shape(node.inputs[0]).clone();
        self.check_starts(node, dims, &before)?;
        let mut window = self.window(node.inputs[0]).clone();
        for (dim, start) in dims.iter().zip(&node.inputs[1..]) {
            let axis = dim.axis as usize;
            let stride = window.strides[axis];
            match self.start(*start)? {
                Start::Known(start) => window.offset += start as isize * stride,
                Start::Cell(cell) => window.starts.push((cell, stride)),
            }
            window.strides[axis] = stride * dim.step;
        }
        window.shape = ty.shape.clone();
        Ok(window)
    }

    fn start(&self, val: Val) -> Result<Start> {
        self.program.start(self.window(val))
    }

    /// Known starts are checked now, others when the plan runs.
    fn check_starts(&mut self, node: &Node, dims: &[SliceDim], field: &Shape) -> Result<()> {
        for (dim, start) in dims.iter().zip(&node.inputs[1..]).filter(|(dim, _)| dim.length > 0) {
            let walk = (dim.length as i64 - 1) * dim.step as i64;
            let extent = field[dim.axis as usize];
            let (low, high) = (0.max(-walk), (extent as i64 - 1).min(extent as i64 - 1 - walk));
            match self.start(*start)? {
                Start::Known(start) if !(low..=high).contains(&start) => {
                    return Err(Error::index(format!("start {start} is out of range for an axis of {extent}")));
                }
                Start::Known(_) => {}
                Start::Cell(cell) => self.program.checks.push(Check { cell, low, high, dim: extent }),
            }
        }
        Ok(())
    }

    /// The value of an output: itself if a task wrote it just so, else a copy.
    fn output(&mut self, graph: &Graph, val: Val) -> u32 {
        let window = self.window(val);
        let value = &self.program.values[window.value as usize];
        if matches!(value.origin, Origin::Task(_)) && window.is_whole(value.size) {
            return window.value;
        }
        let from = window.clone();
        self.copy(from, graph.ty(val)).value
    }
}

/// Where a slice starts along one axis.
pub enum Start {
    Known(i64),
    Cell(u32),
}

impl Program {
    /// Reads a window on a start: a constant, or a number of the plan's input.
    pub fn start(&self, window: &Window) -> Result<Start> {
        let value = &self.values[window.value as usize];
        match value.origin {
            Origin::Constant(at) if value.size == 1 => {
                let bytes = &self.constants[at as usize..];
                Ok(Start::Known(Scalar::from_bytes(value.dtype, bytes).as_i64()))
            }
            Origin::Number(cell) if value.dtype == DType::I64 => Ok(Start::Cell(cell)),
            _ => Err(Error::internal("a start must be an int64 number")),
        }
    }
}

fn refused(dtype: DType) -> Error {
    Error::dtype(format!("{dtype} is not supported"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_are_taken_apart_innermost_first() {
        let step = |outer, len, inner| ReduceStep { outer, len, inner };
        assert_eq!(reduce_steps(&[4, 5], 0b10).as_slice(), &[step(4, 5, 1)]);
        assert_eq!(reduce_steps(&[4, 5], 0b01).as_slice(), &[step(1, 4, 5)]);
        assert_eq!(reduce_steps(&[4, 1, 5], 0b111).as_slice(), &[step(1, 20, 1)]);
        assert_eq!(reduce_steps(&[2, 3, 4, 5], 0b0101).as_slice(), &[step(6, 4, 5), step(1, 2, 15)]);
        assert_eq!(reduce_steps(&[3, 1], 0b10).len(), 0);
    }
}

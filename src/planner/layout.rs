//! Where kernels leave results that may lie anywhere, row by row. A result is laid out as its readers want it: what is
//! permuted and reshaped before it is read lies in memory as it is read, so it needs no copy; results that are only
//! joined lie in their places of the joined value, which then needs no kernel. Decides by the graph alone; makes no task.

use super::window::Window;
use crate::graph::{Graph, Layout, Node, Op, Val};
use crate::shape::Strides;
use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

/// The memory of a result: that of a value of the graph in its row-major order, and the window in which it lies there.
/// Whose memory it is, is not known yet.
pub struct Spot {
    pub root: Val,
    pub window: Window,
}

/// The spots of results that do not lie in row-major order in memory of their own.
pub fn spots(graph: &Graph) -> HashMap<Val, Spot> {
    let mut spots = HashMap::new();
    if !graph.nodes.iter().any(is_free) {
        return spots;
    }
    let chains = Chains::of(graph);
    for (index, node) in graph.nodes.iter().enumerate().filter(|(_, node)| is_free(node)) {
        let paths: SmallVec<[Path; 3]> = node.vals(index as u32).into_iter().map(|val| chains.path(val)).collect();
        for path in paths.iter().filter(|path| path.len() > 1) {
            if let Some(spot) = chains.joined(path, &paths).or_else(|| chains.alone(path)) {
                spots.insert(path[0], spot);
            }
        }
    }
    spots
}

/// Whether a kernel writes the results of the node wherever their rows lie.
fn is_free(node: &Node) -> bool {
    matches!(&node.op, Op::Composite(def, _) if def.kernel.is_some_and(|kernel| kernel.is_strided))
}

/// A result, and what is made of it by layouts, up to what others read.
type Path = SmallVec<[Val; 3]>;

/// What reads free results, and what layouts make of them.
struct Chains<'a> {
    graph: &'a Graph,
    /// Nodes, as often as they read; an output of the graph is read by `NOBODY`.
    readers: HashMap<Val, SmallVec<[u32; 2]>>,
}

const NOBODY: u32 = u32::MAX;

impl<'a> Chains<'a> {
    fn of(graph: &'a Graph) -> Chains<'a> {
        let mut readers: HashMap<Val, SmallVec<[u32; 2]>> = HashMap::new();
        let mut is_followed = vec![false; graph.nodes.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            for val in node.inputs.iter().filter(|val| is_followed[val.node as usize]) {
                readers.entry(*val).or_default().push(index as u32);
            }
            is_followed[index] = is_free(node)
                || matches!(node.op, Op::Layout(Layout::Permute(_) | Layout::Reshape))
                    && is_followed[node.inputs[0].node as usize];
        }
        for val in graph.outputs.iter().filter(|val| is_followed[val.node as usize]) {
            readers.entry(*val).or_default().push(NOBODY);
        }
        Chains { graph, readers }
    }

    fn readers(&self, val: Val) -> &[u32] {
        self.readers.get(&val).map_or(&[], |nodes| nodes)
    }

    /// Follows a value through layouts as long as one of them, and else only what reads any strides, reads it.
    fn path(&self, val: Val) -> Path {
        let mut path: Path = smallvec![val];
        let mut at = val;
        loop {
            let mut next = None;
            for &reader in self.readers(at) {
                match self.graph.nodes.get(reader as usize).map(|node| &node.op) {
                    Some(Op::Layout(Layout::Permute(_) | Layout::Reshape))
                        if next.is_none_or(|next| next == reader) =>
                    {
                        next = Some(reader);
                    }
                    Some(Op::Composite(..)) => {}
                    _ => return path,
                }
            }
            let Some(node) = next else { return path };
            at = Val { node, output: 0 };
            path.push(at);
        }
    }

    /// In memory that is the end of its path.
    fn alone(&self, path: &Path) -> Option<Spot> {
        let root = *path.last()?;
        let window = self.seen_from(path, Window::whole(NOBODY, self.graph.shape(root)))?;
        Some(Spot { root, window })
    }

    /// In memory that is a join of this result and others of the same kernel, which nobody else reads.
    fn joined(&self, path: &Path, all: &[Path]) -> Option<Spot> {
        let end = *path.last()?;
        let &[node] = self.readers(end) else { return None };
        let join = self.graph.nodes.get(node as usize)?;
        let Op::Concat(axis) = join.op else { return None };
        let (whole, mut start, mut found) = (Window::whole(NOBODY, &join.outputs[0].shape), 0, None);
        for &input in &join.inputs {
            let part = all.iter().find(|path| path.len() > 1 && path.last() == Some(&input))?;
            let shape = self.graph.shape(input).clone();
            let offset = start * whole.strides[axis as usize];
            start += shape[axis as usize] as isize;
            let window = self.seen_from(part, Window { offset, shape, ..whole.clone() })?;
            if input == end {
                found = Some(window);
            }
        }
        Some(Spot { root: Val { node, output: 0 }, window: found? })
    }

    /// The window on the start of a path that shows what one on its end shows; None if strides do not say this, or not
    /// with rows in one piece.
    fn seen_from(&self, path: &Path, mut window: Window) -> Option<Window> {
        for pair in path.windows(2).rev() {
            let shape = self.graph.shape(pair[0]);
            window = match &self.graph.node(pair[1]).op {
                Op::Layout(Layout::Permute(perm)) => {
                    let mut strides: Strides = window.strides.clone();
                    perm.iter().zip(&window.strides).for_each(|(&axis, &stride)| strides[axis as usize] = stride);
                    Window { shape: shape.clone(), strides, ..window }
                }
                _ => window.reshape(shape)?,
            };
        }
        let (&extent, &stride) = (window.shape.last()?, window.strides.last()?);
        (stride == 1 || extent == 1).then_some(window)
    }
}

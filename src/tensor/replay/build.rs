//! From the log of a step to a replay: which results are needed at all, which are written over the value they replace,
//! and where the others lie. Plans are built again with those outputs alone; their bits do not depend on it.

use super::{Block, BlockKind, GradUpdate, NameSpec, PlanStep, Replay, Runner, StateUpdate, Version};
use crate::error::{Error, Result};
use crate::exec::{DevicePlan, Donation, OutputHome, Prepared};
use crate::graph::{Graph, Op, Source as GraphSource};
use crate::machine::cpu::buffer::Buffer;
use crate::machine::cpu::view::is_contiguous;
use crate::scalar::Scalar;
use crate::tensor::lower::Lowered;
use crate::tensor::trace::{Holder, LastGrad, Log, NameId, Origin, Returned, Same, Source, TracedPlan};
use hashbrown::{HashMap, HashSet};
use std::sync::Arc;

/// The replay of a logged step.
pub(super) fn build(log: Log) -> Result<Replay> {
    let needs = Needs::of(&log);
    let Log { names, same, plans, states, grads, returned, constants, checks, draws } = log;
    let mut build =
        Build { places: HashMap::new(), blocks: Vec::new(), first_block: (names.len() + constants.len()) as u32 };
    for name in 0..names.len() as u32 {
        build.places.insert(Source::Name(name), name);
    }
    for constant in 0..constants.len() as u32 {
        build.places.insert(Source::Constant(constant), names.len() as u32 + constant);
    }
    let shares = |&(at, same): &(usize, &Same)| same[0] != at as NameId;
    let aliased = same.iter().enumerate().filter(shares).flat_map(|(at, same)| [at as NameId, same[0]]).collect();
    let leaf_names: HashSet<Source> = plans
        .iter()
        .enumerate()
        .flat_map(|(at, plan)| needs.leaves[at].iter().map(|&leaf| plan.leaves[leaf as usize].0))
        .collect();
    let mut in_place: HashSet<NameId> = HashSet::new();
    let mut steps = Vec::with_capacity(plans.len());
    for (at, plan) in plans.into_iter().enumerate() {
        let pairs = needs.replacements(at as u32, &states, &aliased, &build);
        steps.push(build.plan(at as u32, plan, &needs, &pairs)?);
        for (name, new) in pairs.iter().map(|pair| (pair.name, pair.new)) {
            if build.places[&new] == name {
                in_place.insert(name);
            }
        }
    }
    let place = |source: Source| {
        let found = build.places.get(&source).copied();
        found.ok_or_else(|| Error::internal(format!("{source} of a step has no place")))
    };
    let after = |source: Source| match source {
        Source::Output(plan, _) => plan + 1,
        _ => 0,
    };
    let mut updates = Vec::with_capacity(states.len());
    for (name, versions) in &states {
        let version = |&source: &Source| {
            let at = place(source)?;
            Ok(Version { after: after(source), place: (at != *name).then_some(at) })
        };
        updates.push(StateUpdate { name: *name, versions: versions.iter().map(version).collect::<Result<_>>()? });
    }
    let mut grad_updates = Vec::with_capacity(grads.len());
    for grad in &grads {
        let (last, reuses) = match grad.last {
            LastGrad::Unchanged => continue,
            LastGrad::None | LastGrad::Handle(_) => (None, false),
            LastGrad::Value(source) => {
                let at = place(source)?;
                let was_read = names.iter().enumerate().any(|(name, known)| {
                    known.holder == Holder::Grad(grad.variable) && leaf_names.contains(&Source::Name(name as u32))
                });
                let exclusive = needs.finals.get(&source) == Some(&1);
                let block = at.checked_sub(build.first_block);
                let reuses = match block.map(|block| &mut build.blocks[block as usize]) {
                    Some(block) if !was_read && exclusive && block.outputs == 1 && !block.is_on_device() => {
                        block.kind = BlockKind::Grad(grad_updates.len() as u32);
                        true
                    }
                    _ => false,
                };
                (Some(Version { after: after(source), place: Some(at) }), reuses)
            }
        };
        let handle = match grad.last {
            LastGrad::Handle(name) => Some(name),
            _ => None,
        };
        grad_updates.push(GradUpdate {
            variable: grad.variable,
            cleared: grad.exists.is_none().then_some(grad.plans as usize),
            last,
            handle,
            reuses,
            taken: None,
        });
    }
    let exists = grads.iter().filter_map(|grad| grad.exists.map(|exists| (grad.variable, exists))).collect();
    let mut specs = Vec::with_capacity(names.len());
    for (at, (name, same)) in names.into_iter().zip(same).enumerate() {
        let at = at as u32;
        let source = Source::Name(at);
        // The shape of an argument is a guard even if nothing reads it.
        let is_kept = leaf_names.contains(&source)
            || needs.finals.contains_key(&source)
            || matches!(name.holder, Holder::Argument(_))
            || checks.iter().any(|check| check.source == source);
        let leaf = name.strides.filter(|_| is_kept).map(|strides| (name.ty, strides));
        specs.push(NameSpec {
            tensor: name.tensor,
            holder: name.holder,
            bound: name.bound,
            variable: name.variable,
            device: name.device,
            leaf,
            in_place: in_place.contains(&at),
            same,
            known: None,
            is_whole: false,
            cell: 0,
            place: None,
            taken: None,
            buffer: None,
        });
    }
    let mut gives = Vec::with_capacity(returned.len());
    for (given, ty) in returned {
        let at = match &given {
            Returned::Value(source) | Returned::Used(source, _) => Some(place(*source)?),
            Returned::Name(_) | Returned::Grad(_) => None,
        };
        gives.push((given, ty, at));
    }
    let checks =
        checks.into_iter().filter_map(|check| Some((build.places.get(&check.source).copied()?, check))).collect();
    let working = steps.iter().map(|step: &PlanStep| step.runner.working_bytes()).max().unwrap_or(0);
    let places = build.first_block as usize + build.blocks.len();
    Ok(Replay {
        names: specs,
        constants: constants.into_iter().map(|(value, ty, _)| (value, ty)).collect(),
        blocks: build.blocks,
        first_block: build.first_block,
        plans: steps,
        states: updates,
        grads: grad_updates,
        exists,
        returned: gives,
        checks,
        begun: 0,
        draws,
        working,
        addresses: vec![std::ptr::null_mut(); places],
        held: Vec::new(),
    })
}

/// What is needed of each plan.
struct Needs {
    /// Positions of the outputs that something reads, in order.
    outputs: Vec<Vec<u32>>,
    /// Positions of the leaves that those depend on.
    leaves: Vec<Vec<u32>>,
    /// How often each value is left behind by the step.
    finals: HashMap<Source, u32>,
    /// The last plan that reads each value.
    last_read: HashMap<Source, u32>,
}

/// A value of a handle, and the one that takes its place.
struct Replacement {
    name: NameId,
    old: Source,
    new: Source,
}

impl Needs {
    fn of(log: &Log) -> Needs {
        let mut needs =
            Needs { outputs: Vec::new(), leaves: Vec::new(), finals: HashMap::new(), last_read: HashMap::new() };
        let mut wanted: Vec<HashSet<u32>> = vec![HashSet::new(); log.plans.len()];
        let mut want = |source: Source| {
            if let Source::Output(plan, output) = source {
                wanted[plan as usize].insert(output);
            }
        };
        let states = log.states.iter().filter_map(|(_, versions)| versions.last().copied());
        let grads = log.grads.iter().filter_map(|grad| match grad.last {
            LastGrad::Value(source) => Some(source),
            _ => None,
        });
        let returned = log.returned.iter().filter_map(|(given, _)| match given {
            Returned::Value(source) | Returned::Used(source, _) => Some(*source),
            _ => None,
        });
        for source in states.chain(grads).chain(returned) {
            *needs.finals.entry(source).or_default() += 1;
            want(source);
        }
        // What a handle named between two barriers is what it keeps if the second one fails.
        log.states.iter().flat_map(|(_, versions)| versions).for_each(|&source| want(source));
        log.checks.iter().for_each(|check| want(check.source));
        for (at, plan) in log.plans.iter().enumerate().rev() {
            let mut outputs: Vec<u32> = wanted[at].iter().copied().collect();
            outputs.sort_unstable();
            let leaves = reached_leaves(&plan.lowered, &outputs);
            for &leaf in &leaves {
                let source = plan.leaves[leaf as usize].0;
                needs.last_read.entry(source).or_insert(at as u32);
                if let Source::Output(made_by, output) = source {
                    wanted[made_by as usize].insert(output);
                }
            }
            needs.outputs.push(outputs);
            needs.leaves.push(leaves);
        }
        needs.outputs.reverse();
        needs.leaves.reverse();
        needs
    }

    /// The handles whose old value a plan reads last, and whose new value it makes.
    fn replacements(
        &self,
        plan: u32,
        states: &[(NameId, Vec<Source>)],
        aliased: &HashSet<NameId>,
        build: &Build,
    ) -> Vec<Replacement> {
        let mut found = Vec::new();
        for (name, versions) in states.iter().filter(|(name, _)| !aliased.contains(name)) {
            let mut old = Source::Name(*name);
            for (position, &new) in versions.iter().enumerate() {
                let made_here = matches!(new, Source::Output(made_by, _) if made_by == plan);
                let is_last = position + 1 == versions.len();
                let kept = self.finals.get(&new).copied().unwrap_or(0);
                // The old value lies in the handle's own buffer, nobody reads it later, and nobody else keeps either.
                if made_here
                    && build.places.get(&old) == Some(name)
                    && self.last_read.get(&old).is_some_and(|&last| last == plan)
                    && !self.finals.contains_key(&old)
                    && kept == u32::from(is_last)
                {
                    found.push(Replacement { name: *name, old, new });
                }
                old = new;
            }
        }
        found
    }
}

/// The leaf slots that some outputs of a recorded graph depend on.
fn reached_leaves(lowered: &Lowered, outputs: &[u32]) -> Vec<u32> {
    let graph: &Graph = &lowered.graph;
    let mut reached = vec![false; graph.nodes.len()];
    outputs.iter().for_each(|&output| reached[graph.outputs[output as usize].node as usize] = true);
    // Leaves that stand for known values follow their nodes.
    let mut leaves_of: HashMap<u32, Vec<u32>> = HashMap::new();
    lowered.known.iter().for_each(|(val, leaf)| leaves_of.entry(val.node).or_default().push(leaf.node));
    let mut leaves = Vec::new();
    let mut stack: Vec<u32> = (0..graph.nodes.len() as u32).filter(|&node| reached[node as usize]).collect();
    while let Some(node) = stack.pop() {
        if let Op::Source(GraphSource::Leaf(slot)) = graph.nodes[node as usize].op {
            leaves.push(slot);
        }
        let inputs = graph.nodes[node as usize].inputs.iter().map(|val| val.node);
        for next in inputs.chain(leaves_of.get(&node).into_iter().flatten().copied()) {
            if !std::mem::replace(&mut reached[next as usize], true) {
                stack.push(next);
            }
        }
    }
    leaves.sort_unstable();
    leaves
}

struct Build {
    /// Where each value lies: names, then constants, then blocks.
    places: HashMap<Source, u32>,
    blocks: Vec<Block>,
    first_block: u32,
}

impl Build {
    fn plan(&mut self, at: u32, plan: TracedPlan, needs: &Needs, pairs: &[Replacement]) -> Result<PlanStep> {
        let TracedPlan { device, lowered, leaves, numbers, types, .. } = plan;
        let outputs = &needs.outputs[at as usize];
        let Lowered { mut graph, known, strides, .. } = lowered;
        graph.outputs = outputs.iter().map(|&output| graph.outputs[output as usize]).collect();
        let donations: Vec<Donation> = pairs
            .iter()
            .filter_map(|pair| {
                let leaf = leaves.iter().position(|(source, _)| *source == pair.old)?;
                let position = outputs.iter().position(|&output| Source::Output(at, output) == pair.new)?;
                let ty = &leaves[leaf].1;
                let fits = *ty == types[outputs[position] as usize] && is_contiguous(&ty.shape, &strides[leaf]);
                fits.then_some(Donation { output: position as u32, leaf: leaf as u32 })
            })
            .collect();
        let plan = DevicePlan::build(device, &graph, &known, &strides, &donations)?;
        let mut buffers: Vec<u32> = Vec::with_capacity(outputs.len());
        let first = self.first_block + self.blocks.len() as u32;
        let homes: Vec<OutputHome> = plan.outputs().to_vec();
        for &bytes in plan.buffers() {
            buffers.push(self.first_block + self.blocks.len() as u32);
            let kind = if device.is_cpu() { BlockKind::Kept } else { BlockKind::Device };
            self.blocks.push(Block { bytes, kind, outputs: 0, current: None });
        }
        for (&output, home) in outputs.iter().zip(&homes) {
            let source = Source::Output(at, output);
            let place = match *home {
                OutputHome::Donated(leaf) => self.places[&leaves[leaf as usize].0],
                OutputHome::Buffer(buffer) => {
                    let block = &mut self.blocks[(first - self.first_block + buffer) as usize];
                    block.outputs += 1;
                    if needs.finals.contains_key(&source) && !block.is_on_device() {
                        block.kind = BlockKind::Fresh;
                    }
                    first + buffer
                }
            };
            self.places.insert(source, place);
        }
        for block in &mut self.blocks[(first - self.first_block) as usize..] {
            if matches!(block.kind, BlockKind::Kept) {
                block.current = Some(Arc::new(Buffer::new(block.bytes)?.into()));
            }
        }
        let values = numbers.iter().map(|number| number.value).collect();
        let runner = Runner::new(plan, strides.len(), values);
        let mut step = PlanStep { nanos: runner.nanos(), runner, leaves: Vec::new(), buffers, numbers: Vec::new() };
        for &leaf in &needs.leaves[at as usize] {
            let (source, _) = leaves[leaf as usize];
            let place = self.places.get(&source).copied();
            let place = place.ok_or_else(|| Error::internal(format!("{source} is read before it is made")))?;
            step.leaves.push((leaf, place));
        }
        let found = |(place, slot): (u32, u32)| match numbers[slot as usize].origin {
            Origin::Literal => None,
            origin => Some((place, origin)),
        };
        step.numbers = step.runner.places().into_iter().filter_map(found).collect();
        Ok(step)
    }
}

impl Block {
    fn is_on_device(&self) -> bool {
        matches!(self.kind, BlockKind::Device)
    }
}

impl Runner {
    /// For a plan that is given so many leaves, with the numbers as they were.
    fn new(plan: DevicePlan, leaves: usize, numbers: Vec<Scalar>) -> Runner {
        match plan {
            DevicePlan::Cpu(plan) => {
                let mut prepared = Prepared::new(plan);
                let slots: Vec<u32> = prepared.cells().collect();
                let cells = slots.into_iter().enumerate();
                cells.for_each(|(cell, slot)| prepared.set_cell(cell, numbers[slot as usize]));
                let _ = leaves;
                Runner::Host(prepared)
            }
            #[cfg(feature = "gpu")]
            plan => Runner::Device(super::DeviceRunner { plan, numbers, leaves, ticket: None }),
        }
    }

    /// Where the numbers that the plan uses are put, each with its slot.
    fn places(&self) -> Vec<(u32, u32)> {
        match self {
            Runner::Host(prepared) => prepared.cells().enumerate().map(|(cell, slot)| (cell as u32, slot)).collect(),
            Runner::Device(runner) => {
                let used: HashSet<u32> = runner.plan.cells().iter().map(|&(slot, _)| slot).collect();
                used.into_iter().map(|slot| (slot, slot)).collect()
            }
        }
    }

    /// About how long a run takes on one thread; a device is handed things over, however long that takes.
    fn nanos(&self) -> u64 {
        match self {
            Runner::Host(prepared) => prepared.nanos(),
            Runner::Device(_) => u64::MAX,
        }
    }

    fn working_bytes(&self) -> usize {
        match self {
            Runner::Host(prepared) => prepared.working_bytes(),
            Runner::Device(_) => 0,
        }
    }
}

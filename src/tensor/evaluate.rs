//! Evaluation: walk, describe, claim, look up or build, run, publish. All or nothing: a plan that fails leaves every
//! value and every handle as it was, and only the node that failed and its users keep the error. What is wanted of
//! several devices is a plan for each, one after another; only the last writes over values, so that all or nothing
//! holds for a step on several devices too.

use super::context;
use super::engine::{self, Engine, Slot, State, Value};
use super::handle::{self, Place, Tensor};
use super::key::{self, Description};
use super::lower::{self, Lowered};
use super::publish::{self, Decisions};
use super::trace;
use super::transfer::own_copy;
use super::verify;
use super::walk::{Node, Outcome, Role, Walk, walk};
use crate::device_id::DeviceId;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{Cache, DevicePlan, Inputs, Leaf, OutputHome};
use crate::graph::Op;
use crate::machine::cpu::view::is_contiguous;
use crate::machine::lock::Guard;
use crate::machine::storage::{self, Storage};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Which process this is, counted in forks: claims of another one are not waited for.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// The plans of this process, for all threads.
pub static PLANS: Cache = Cache::new(64 << 20);
static PLANS_RUN: AtomicU64 = AtomicU64::new(0);
static NODES_COMPUTED: AtomicU64 = AtomicU64::new(0);

/// Called in a child right after a fork.
pub(super) fn next_generation() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Which process this is, as claims say it.
pub(super) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Plans run so far, for tests and `wg.debug`.
pub fn plans_run() -> u64 {
    PLANS_RUN.load(Ordering::Relaxed)
}

/// Recorded nodes computed so far, each as often as a plan computed it.
pub fn nodes_computed() -> u64 {
    NODES_COMPUTED.load(Ordering::Relaxed)
}

/// Nodes that this thread recorded and that wait to be computed.
pub fn pending_nodes() -> usize {
    context::count_pending(|slot, id, engine| {
        engine.find(slot, id).is_some_and(|record| matches!(record.state, State::Pending))
    })
}

/// Runs the work it is given, with what evaluation must not hold let go of: a language binding's own lock.
pub type Scope = fn(&mut (dyn FnMut() + Send));

static SCOPE: OnceLock<Scope> = OnceLock::new();

/// Sets what every evaluation runs in. The first call wins.
pub fn set_evaluation_scope(scope: Scope) {
    let _ = SCOPE.set(scope);
}

/// A handle that an optimizer moved to a new value, and what it named before.
pub struct Rebinding {
    tensor: Tensor,
    old: Place,
    new: Place,
}

impl Rebinding {
    /// Lets `tensor` name the value of `new` from now on.
    pub fn new(tensor: &Tensor, new: &Tensor) -> Rebinding {
        let mut engine = engine::lock();
        let (slot, output) = new.place(&engine);
        Rebinding::at(&mut engine, tensor, slot, output)
    }

    /// Lets `tensor` name an output of a record from now on.
    pub(super) fn at(engine: &mut Engine, tensor: &Tensor, slot: Slot, output: u32) -> Rebinding {
        let new = Place { slot, output };
        Rebinding { old: tensor.move_to(engine, new), tensor: tensor.clone(), new }
    }

    /// Gives the new value a record of its own, so that it lives no longer than its handle and the next step may write
    /// over it: the record of the old value, if nothing else holds that.
    fn settle(&self, engine: &mut Engine) {
        let record = engine.get(self.new.slot);
        let output = self.new.output as usize;
        let shared = record.types.len() > 1 && self.tensor.place(engine) == (self.new.slot, self.new.output);
        let Some(value) = record.values[output].clone().filter(|_| shared) else {
            return engine.release(self.old.slot);
        };
        let old = engine.get(self.old.slot);
        let slot = if old.is_leaf() && (old.refs, old.handles) == (1, 0) && old.types[0] == record.types[output] {
            engine.get_mut(self.old.slot).values[0] = Some(value);
            engine.renew(self.old.slot);
            self.old.slot
        } else {
            let ty = record.types[output].clone();
            engine.insert(handle::leaf(value, ty))
        };
        if trace::is_open() {
            trace::note_settled(engine, self.new, slot);
        }
        let new = self.tensor.move_to(engine, Place { slot, output: 0 });
        engine.release(new.slot);
        engine.release(self.old.slot);
    }

    /// Lets the handle name its old value again.
    pub fn undo(self) {
        self.tensor.restore(self.old);
    }
}

/// Computes the values of these tensors, and publishes whatever else must not be computed twice.
pub fn evaluate(tensors: &[&Tensor]) -> Result<()> {
    let roots: Vec<Slot> = {
        let mut engine = engine::lock();
        let mut roots: Vec<Slot> = tensors.iter().map(|tensor| tensor.place(&engine).0).collect();
        // One plan, in whatever order they were named.
        roots.sort_by_key(|&slot| engine.get(slot).id);
        roots.iter().for_each(|&slot| engine.retain(slot));
        roots
    };
    let result = evaluate_slots(&roots);
    let mut engine = engine::lock();
    roots.into_iter().for_each(|slot| engine.release(slot));
    result
}

/// The barrier: evaluates every pending tensor of this thread that has a live handle, the rebound ones included. On
/// failure each rebound handle names its old value again.
pub fn evaluate_all(rebound: &[Rebinding]) -> Result<()> {
    if !rebound.is_empty() && context::in_transform() {
        rebound.iter().for_each(|rebinding| rebinding.tensor.restore(rebinding.old));
        return Err(Error::grad("step: an optimizer cannot step inside a transform"));
    }
    if let Err(error) = prepare_old(rebound) {
        rebound.iter().rev().for_each(|rebinding| rebinding.tensor.restore(rebinding.old));
        return Err(error);
    }
    let roots: Vec<Slot> = {
        let mut pending = context::take_pending();
        let mut engine = engine::lock();
        let mut roots = Vec::with_capacity(pending.len());
        let mut kept = Vec::new();
        for &(slot, id) in &pending {
            let Some(record) = engine.find(slot, id) else { continue };
            if !matches!(record.state, State::Pending) {
                continue;
            }
            if record.is_example() {
                kept.push((slot, id));
            } else if record.handles > 0 {
                roots.push(slot);
            }
        }
        roots.iter().for_each(|&slot| engine.retain(slot));
        drop(engine);
        pending.clear();
        pending.extend(kept);
        context::put_pending(pending);
        roots
    };
    let places: Vec<(Place, Place)> = rebound.iter().map(|rebinding| (rebinding.old, rebinding.new)).collect();
    let mut result = run(&roots, &places, Wait::IfLinesAreKept);
    if result.is_err()
        && let Some(rest) = without_failed(&roots, rebound)
    {
        result = run(&rest, &places, Wait::IfLinesAreKept);
    }
    match &mut result {
        Ok(()) => {
            let mut engine = engine::lock();
            rebound.iter().for_each(|rebinding| rebinding.settle(&mut engine));
            roots.iter().for_each(|&slot| engine.release(slot));
        }
        Err(error) => {
            // In reverse, so that a handle rebound twice ends at its first value.
            rebound.iter().rev().for_each(|rebinding| rebinding.tensor.restore(rebinding.old));
            if error.kind() != ErrorKind::Interrupted
                && let Some(first) = blame(&roots)
            {
                *error = first;
            }
            let mut engine = engine::lock();
            for &slot in &roots {
                // What did not fail is pending still, for the next barrier.
                if let (State::Pending, id) = (&engine.get(slot).state, engine.get(slot).id) {
                    context::note_pending(slot, id);
                }
                engine.release(slot);
            }
        }
    }
    result
}

/// Computes the old values of variables on a device, and lays them in order, so that the plan can keep them: an index out
/// of range is found too late to leave them pending.
fn prepare_old(rebound: &[Rebinding]) -> Result<()> {
    let (mut pending, mut strided) = (Vec::new(), Vec::new());
    if !rebound.is_empty() {
        let engine = engine::lock();
        for Rebinding { tensor, old, .. } in rebound {
            if engine.get(old.slot).device.is_cpu() || !tensor.is_variable_in(&engine) {
                continue;
            }
            let (slot, output) = engine.unmarked(old.slot, old.output);
            let record = engine.get(slot);
            let ty = &record.types[output as usize];
            match &record.values[output as usize] {
                Some(value) if !is_contiguous(&ty.shape, &value.strides) => {
                    strided.push((Place { slot, output }, value.clone(), ty.clone()));
                }
                None if !record.is_done() => pending.push(slot),
                _ => {}
            }
        }
    }
    if !pending.is_empty() {
        evaluate_slots(&pending)?;
    }
    for (Place { slot, output }, value, ty) in strided {
        let copy = own_copy(&value, &ty)?;
        engine::lock().get_mut(slot).values[output as usize] = Some(copy);
    }
    Ok(())
}

/// Computes these records, which the caller holds; on failure finds the ones that failed.
pub(super) fn evaluate_slots(roots: &[Slot]) -> Result<()> {
    run(roots, &[], Wait::IfLinesAreKept).map_err(|error| match error.kind() {
        ErrorKind::Interrupted | ErrorKind::Grad => error,
        _ => blame(roots).unwrap_or(error),
    })
}

/// Users of what failed before keep its error, which has been raised: they must not hold up the rest. Gives the rest, if
/// there were such users and what is rebound is not among them.
#[cold]
fn without_failed(roots: &[Slot], rebound: &[Rebinding]) -> Option<Vec<Slot>> {
    let mut engine = engine::lock();
    let generation = GENERATION.load(Ordering::Relaxed);
    let mut rest = Vec::with_capacity(roots.len());
    for &slot in roots {
        match walk(&mut engine, &[slot], generation) {
            Ok(_) => rest.push(slot),
            Err(error) => engine.get_mut(slot).state = State::Failed(error),
        }
    }
    let stands = |rebinding: &Rebinding| !matches!(engine.get(rebinding.new.slot).state, State::Failed(_));
    (rest.len() < roots.len() && rebound.iter().all(stands)).then_some(rest)
}

/// Finds which nodes failed, by evaluating them one by one in record order; those keep the error, and so do their users.
/// Gives the first error, with the line that recorded its node if lines are kept.
fn blame(roots: &[Slot]) -> Option<Error> {
    let open: Vec<Slot> = {
        let mut engine = engine::lock();
        let Ok(Outcome::Ready(walk)) = walk(&mut engine, roots, GENERATION.load(Ordering::Relaxed)) else {
            return None;
        };
        let open: Vec<Slot> = walk.nodes.iter().filter(|node| node.role == Role::Open).map(|node| node.slot).collect();
        open.iter().for_each(|&slot| engine.retain(slot));
        open
    };
    let mut first = None;
    for &slot in &open {
        if let Err(error) = run(&[slot], &[], Wait::Always)
            && error.kind() != ErrorKind::Interrupted
        {
            let mut engine = engine::lock();
            // A user of a failed node has that node's error, line included.
            let error = if first.as_ref() == Some(&error) { error } else { engine.with_line(slot, error) };
            first.get_or_insert(error.clone());
            engine.get_mut(slot).state = State::Failed(error);
        }
    }
    let mut engine = engine::lock();
    open.into_iter().for_each(|slot| engine.release(slot));
    first
}

/// What one plan needs to run, once its records are claimed.
struct Claimed {
    device: DeviceId,
    walk: Walk,
    decisions: Decisions,
    description: Description,
    lowered: Option<Lowered>,
    plan: Option<Arc<DevicePlan>>,
    /// Its device is waited for.
    waits: bool,
    /// What a traced step writes down of this plan.
    draft: Option<trace::Draft>,
}

/// When the device of a plan is waited for. An index out of range is then an error of the plan that met it; else of the
/// next read.
#[derive(Clone, Copy, PartialEq)]
enum Wait {
    Always,
    /// Then the error can name one; in eager mode too.
    IfLinesAreKept,
}

fn run(roots: &[Slot], rebound: &[(Place, Place)], wait: Wait) -> Result<()> {
    match in_scope(|| run_here(roots, rebound, wait))? {
        Ran::All => Ok(()),
        Ran::Nothing => run_each(roots, rebound),
    }
}

/// What became of the roots of a run.
#[derive(PartialEq)]
enum Ran {
    All,
    /// They are on several devices.
    Nothing,
}

/// A plan for each device, the CPU's first. Each is waited for: what failed on one device undoes a step on all.
#[cold]
fn run_each(roots: &[Slot], rebound: &[(Place, Place)]) -> Result<()> {
    let mut parts: BTreeMap<DeviceId, Vec<Slot>> = BTreeMap::new();
    {
        let engine = engine::lock();
        roots.iter().for_each(|&slot| parts.entry(engine.get(slot).device).or_default().push(slot));
    }
    let last = parts.len() - 1;
    let mut each = parts.into_values().enumerate();
    each.try_for_each(|(at, roots)| run(&roots, if at == last { rebound } else { &[] }, Wait::Always))
}

/// Runs work that takes long or waits, with what evaluation must not hold let go of.
pub(super) fn in_scope<T: Send>(mut work: impl FnMut() -> Result<T> + Send) -> Result<T> {
    let Some(scope) = SCOPE.get() else { return work() };
    let mut result = None;
    scope(&mut || result = Some(work()));
    result.unwrap_or_else(|| Err(Error::internal("the scope of an evaluation ran nothing")))
}

fn run_here(roots: &[Slot], rebound: &[(Place, Place)], wait: Wait) -> Result<Ran> {
    let engine = engine::lock();
    let Some(device) = roots.first().map(|&root| engine.get(root).device) else { return Ok(Ran::All) };
    if roots.iter().any(|&root| engine.get(root).device != device) {
        return Ok(Ran::Nothing);
    }
    let Some(mut claimed) = claim(engine, device, roots, rebound, wait)? else { return Ok(Ran::All) };
    let made = catch_unwind(AssertUnwindSafe(|| execute(&mut claimed))).unwrap_or_else(|panic| Err(panicked(&*panic)));
    let mut engine = engine::lock();
    let result = match made {
        Ok((plan, buffers)) => {
            if let (Some(draft), Some(lowered)) = (claimed.draft.take(), claimed.lowered.take()) {
                trace::keep(draft, lowered);
            }
            publish_values(&mut engine, &claimed, &plan, buffers);
            Ok(Ran::All)
        }
        Err(error) => {
            give_back(&mut engine, &claimed.walk);
            Err(error)
        }
    };
    for node in claimed.walk.nodes.iter().rev() {
        engine.release(node.slot);
    }
    drop(engine);
    engine::tell_settled();
    result
}

/// What a kernel said when it panicked.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Error {
    if let Some(error) = panic.downcast_ref::<Error>() {
        return error.clone();
    }
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Error::internal(format!("a kernel panicked: {text}"))
}

/// Walks until nothing of the plan is in another thread's hands, then takes all of it. None: nothing is pending.
fn claim(
    mut engine: Guard<'static, Engine>,
    device: DeviceId,
    roots: &[Slot],
    rebound: &[(Place, Place)],
    wait: Wait,
) -> Result<Option<Claimed>> {
    let generation = GENERATION.load(Ordering::Relaxed);
    let walk = loop {
        match walk(&mut engine, roots, generation)? {
            Outcome::Ready(walk) => break walk,
            Outcome::Busy => engine = engine::wait_for_settled(engine),
        }
    };
    if let Some(&root) = roots.iter().find(|&&root| engine.get(root).is_example()) {
        return Err(Error::grad(format!(
            "{}: the value of a per-example tensor or of a placeholder cotangent was read; inside vmap and custom \
             gradients values do not exist yet, so use wg.where instead of if, and return what you want to see",
            engine.get(root).op.name()
        )));
    }
    let is_open = |node: &Node| node.role == Role::Open && !matches!(engine.get(node.slot).op, Op::Marker);
    if !walk.nodes.iter().any(is_open) {
        return Ok(None);
    }
    let decisions = publish::decide(&engine, &walk, rebound);
    let (outputs, donations) = (&decisions.outputs, &decisions.donations);
    let words = std::mem::take(&mut engine.words);
    let mut description = key::describe(&engine, &walk, outputs, donations, words);
    let plan = PLANS.get(&description.words);
    let traced = trace::is_open();
    let draft = if traced { trace::draft(&engine, &walk, outputs) } else { None };
    if plan.is_some() {
        engine.words = std::mem::take(&mut description.words);
    }
    let lowered = match plan {
        Some(_) if !traced && !verify::is_on() => None,
        _ => Some(lower::lower(&engine, &walk, outputs, donations)?),
    };
    for node in &walk.nodes {
        let record = engine.get_mut(node.slot);
        record.refs += 1;
        if node.role == Role::Open {
            record.state = State::Claimed(generation);
        }
    }
    let has_line = |node: &Node| node.role == Role::Open && engine.has_line(node.slot);
    let names_line = || context::eager() || walk.nodes.iter().any(has_line);
    let waits = !device.is_cpu() && (wait == Wait::Always || names_line());
    Ok(Some(Claimed { device, walk, decisions, description, lowered, plan, waits, draft }))
}

fn execute(claimed: &mut Claimed) -> Result<(Arc<DevicePlan>, Vec<Arc<Storage>>)> {
    let plan = match (claimed.plan.take(), &claimed.lowered) {
        (Some(plan), _) => plan,
        (None, Some(lowered)) => {
            let Lowered { graph, known, strides, donations, .. } = lowered;
            let plan = Arc::new(DevicePlan::build(claimed.device, graph, known, strides, donations)?);
            PLANS.insert(std::mem::take(&mut claimed.description.words), plan)
        }
        (None, None) => return Err(Error::internal("a plan is neither cached nor lowered")),
    };
    // Dropped at the end of the run: a donated buffer must have no other holder when its value is published.
    let mut leaves = std::mem::take(&mut claimed.description.leaves);
    copy_shared(claimed, &plan, &mut leaves)?;
    let inputs = Inputs { leaves: &leaves, numbers: &claimed.description.numbers };
    if let Some(lowered) = &claimed.lowered {
        verify::check(lowered, &inputs)?;
    }
    PLANS_RUN.fetch_add(1, Ordering::Relaxed);
    let buffers = plan.run(&inputs)?;
    if claimed.waits {
        storage::judge(claimed.device)?;
    }
    Ok((plan, buffers))
}

/// Puts copies where the plan writes over what others hold too.
fn copy_shared(claimed: &Claimed, plan: &DevicePlan, leaves: &mut [Leaf]) -> Result<()> {
    let Claimed { walk, decisions, .. } = claimed;
    for donation in decisions.donations.iter().filter(|donation| donation.copied) {
        let position = decisions.outputs.binary_search(&donation.new);
        let Ok(OutputHome::Donated(slot)) = position.map(|position| plan.outputs()[position]) else { continue };
        let record = walk.nodes[donation.leaf.rank as usize].slot;
        let ty = engine::lock().get(record).types[donation.leaf.output as usize].clone();
        let leaf = &mut leaves[slot as usize];
        let value = Value { buffer: Arc::clone(&leaf.buffer), offset: leaf.offset, strides: ty.shape.strides() };
        *leaf = Leaf { buffer: own_copy(&value, &ty)?.buffer, offset: 0 };
    }
    Ok(())
}

/// Sets the values, marks the records done and forgets what nothing needs any more.
fn publish_values(engine: &mut Engine, claimed: &Claimed, plan: &DevicePlan, buffers: Vec<Arc<Storage>>) {
    let Claimed { walk, decisions, .. } = claimed;
    for donation in &decisions.donations {
        let Ok(position) = decisions.outputs.binary_search(&donation.new) else { continue };
        if let OutputHome::Donated(_) = plan.outputs()[position] {
            // Written over the old value, which is gone: what held it holds the new one.
            let leaf = engine.get_mut(walk.nodes[donation.leaf.rank as usize].slot);
            let value = if donation.copied {
                let strides = leaf.types[donation.leaf.output as usize].shape.strides();
                Some(Value { buffer: Arc::clone(&buffers[position]), offset: 0, strides })
            } else {
                leaf.values[donation.leaf.output as usize].take()
            };
            let record = engine.get_mut(walk.nodes[donation.new.rank as usize].slot);
            record.values[donation.new.output as usize] = value;
        }
    }
    for ((output, home), buffer) in decisions.outputs.iter().zip(plan.outputs()).zip(buffers) {
        if let OutputHome::Buffer(_) = home {
            let record = engine.get_mut(walk.nodes[output.rank as usize].slot);
            let strides = record.types[output.output as usize].shape.strides();
            record.values[output.output as usize] = Some(Value { buffer, offset: 0, strides });
        }
    }
    let mut computed = 0;
    for node in walk.nodes.iter().filter(|node| node.role == Role::Open) {
        let record = engine.get_mut(node.slot);
        // A marker has no value of its own and stays open for the walk to pass.
        let is_marker = matches!(record.op, Op::Marker);
        record.state = if is_marker { State::Pending } else { State::Done };
        computed += u64::from(!is_marker);
    }
    NODES_COMPUTED.fetch_add(computed, Ordering::Relaxed);
    decisions.forget(engine, walk);
}

/// Nothing happened: what was claimed is pending again.
fn give_back(engine: &mut Engine, walk: &Walk) {
    for node in walk.nodes.iter().filter(|node| node.role == Role::Open) {
        engine.get_mut(node.slot).state = State::Pending;
    }
}

//! The contexts of this process, opened at first use and kept by their number.

use super::adapters::{self, AdapterInfo, Found};
use super::context::{Context, Counters};
use super::failure::{contained, forked};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::lock::Lock;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

static REGISTRY: Lock<Registry> = Lock::new(Registry { pid: 0, listed: None, contexts: Vec::new() });
/// The process that first opened a device; 0 if none did.
static OWNER: AtomicU32 = AtomicU32::new(0);

struct Registry {
    /// The process that the list was made in.
    pid: u32,
    listed: Option<Listed>,
    contexts: Vec<Option<Arc<Context>>>,
}

struct Listed {
    /// Adapters live as long as it.
    _instance: Option<wgpu::Instance>,
    found: Vec<Found>,
}

/// All devices, the best first; the one that WENGERT_GPU names goes before. None in a child that was forked from a
/// process that had opened one. Never fails.
pub fn devices() -> Vec<AdapterInfo> {
    if is_forked() {
        return Vec::new();
    }
    REGISTRY.lock().list().iter().map(|found| found.info.clone()).collect()
}

/// The context of a device, opened at its first use.
pub fn context(index: u8) -> Result<Arc<Context>> {
    if is_forked() {
        return Err(forked());
    }
    let mut registry = REGISTRY.lock();
    if let Some(Some(context)) = registry.contexts.get(usize::from(index)) {
        context.check()?;
        return Ok(context.clone());
    }
    let found = registry.list();
    let Some(chosen) = found.get(usize::from(index)) else { return Err(no_device(index, found)) };
    // Even an attempt leaves threads of the driver behind.
    OWNER.store(process::id(), Ordering::Release);
    let context = Context::open(chosen, index)?;
    let slots = usize::from(index) + 1;
    if registry.contexts.len() < slots {
        registry.contexts.resize(slots, None);
    }
    registry.contexts[usize::from(index)] = Some(context.clone());
    Ok(context)
}

/// What all open contexts have done so far.
pub fn counters() -> Counters {
    let mut sum = Counters::default();
    open().iter().for_each(|context| sum += context.counters());
    sum
}

/// Gives the free memory of all open contexts back to the system.
pub fn trim() -> Result<()> {
    open().iter().try_for_each(|context| context.trim())
}

/// Closes all contexts and forgets what devices there are, after a loss. What was on them is gone: using it is
/// DeviceLostError.
pub fn reset() -> Result<()> {
    if is_forked() {
        return Err(forked());
    }
    let mut registry = REGISTRY.lock();
    for context in registry.contexts.drain(..).flatten() {
        context.health.forget();
        context.close();
    }
    registry.listed = None;
    Ok(())
}

/// Holds the list across a fork.
pub fn before_fork() {
    REGISTRY.before_fork();
}

/// Gives it back on both sides.
///
/// # Safety
/// Must follow `before_fork` in the same thread, once in the parent and once in the child.
pub unsafe fn after_fork() {
    // SAFETY: as the caller promises.
    unsafe { REGISTRY.after_fork() };
}

/// The contexts that work.
fn open() -> Vec<Arc<Context>> {
    if is_forked() {
        return Vec::new();
    }
    REGISTRY.lock().contexts.iter().flatten().filter(|context| context.check().is_ok()).cloned().collect()
}

fn is_forked() -> bool {
    let owner = OWNER.load(Ordering::Acquire);
    owner != 0 && owner != process::id()
}

fn no_device(index: u8, found: &[Found]) -> Error {
    let names: Vec<String> = found.iter().enumerate().map(|(n, found)| format!("gpu:{n} {}", found.info)).collect();
    let there = if names.is_empty() { "no device with a working driver".to_owned() } else { names.join(", ") };
    Error::new(ErrorKind::Device, format!("gpu:{index} does not exist: there is {there}"))
}

impl Registry {
    fn list(&mut self) -> &[Found] {
        let pid = process::id();
        if self.pid != pid {
            // The parent's is left alone: its driver may have had threads that do not exist here.
            std::mem::forget(self.listed.take());
            self.pid = pid;
        }
        let listed = self.listed.get_or_insert_with(|| {
            // A driver that panics is one that is not there.
            contained(|| {
                let instance = adapters::instance();
                let found = adapters::list(&instance);
                Listed { _instance: Some(instance), found }
            })
            .unwrap_or_else(|_| Listed { _instance: None, found: Vec::new() })
        });
        &listed.found
    }
}

//! A context: one open device with its memory, pipelines and counters. Threads share it.

use super::adapters::{AdapterInfo, Found};
use super::buffer::{Block, Pool, Use};
use super::cache::Cache;
use super::failure::{Health, contained};
use super::faults::{FAULT_BYTES, Faults};
use super::pipeline::{Layouts, Pipelines};
use super::run::BindGroups;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::lock::Lock;
use std::collections::VecDeque;
use std::fmt;
use std::ops::AddAssign;
use std::process;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use wgpu::{CommandBuffer, DeviceDescriptor, ExperimentalFeatures, SubmissionIndex};

/// What the device takes; all in plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Storage buffers of one kernel.
    pub storage_buffers: usize,
    /// Bytes of one buffer that a kernel can bind, which is also the most that one allocation gives.
    pub buffer_bytes: usize,
    /// Workgroups along one axis of a dispatch.
    pub groups: usize,
    /// Bytes of workgroup memory. Nothing below the planner checks it.
    pub group_bytes: usize,
    /// Threads of a workgroup.
    pub group_threads: usize,
    /// Threads of a workgroup along x, y and z.
    pub group_sizes: [usize; 3],
    /// Bytes of one parameter block.
    pub uniform_bytes: usize,
    /// Rounds of all loops that a thread runs, summed: past them llvmpipe leaves each loop without a word.
    pub loop_rounds: usize,
    /// Threads that run in step: the fewest and the most.
    pub subgroup: [usize; 2],
}

/// What a context has done so far, and the bytes it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub submits: u64,
    pub dispatches: u64,
    pub reads: u64,
    /// Pipelines that were made, not found.
    pub pipelines: u64,
    /// Bind groups that were made, not found.
    pub bind_groups: u64,
    /// Bytes of device memory that are held, the free ones of the pool included.
    pub memory: u64,
}

#[derive(Default)]
pub(super) struct Counts {
    pub submits: AtomicU64,
    pub dispatches: AtomicU64,
    pub reads: AtomicU64,
    pub pipelines: AtomicU64,
    pub bind_groups: AtomicU64,
}

pub struct Context {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    info: AdapterInfo,
    limits: Limits,
    index: u8,
    serial: u64,
    /// The process that the device was opened in.
    pub(super) pid: u32,
    pub(super) health: Arc<Health>,
    pub(super) pool: Lock<Pool>,
    /// Held by the thread that polls.
    pub(super) polling: Lock<()>,
    /// Bytes of all blocks that exist.
    pub(super) memory: AtomicU64,
    /// Bytes written since the last submission.
    pub(super) unsent: AtomicU64,
    pub(super) layouts: Lock<Layouts>,
    pub(super) pipelines: Lock<Pipelines>,
    pub(super) bind_groups: Lock<BindGroups>,
    /// The last runs that were handed over, the oldest first.
    pub(super) runs: Lock<VecDeque<SubmissionIndex>>,
    pub(super) counts: Counts,
    /// What kernels note bad indices in.
    pub(super) fault: OnceLock<Block>,
    pub(super) faults: Lock<Faults>,
    /// Whether any run has met a bad index.
    pub(super) has_met: AtomicBool,
}

/// Bind groups of a generation of their cache.
const BIND_GROUPS: usize = 4096;
/// Pipelines of a generation of their cache; plans keep theirs anyway.
const PIPELINES: usize = 1024;

impl Context {
    /// Opens a device.
    pub(super) fn open(found: &Found, index: u8) -> Result<Arc<Context>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let failed = |why: String| Error::new(ErrorKind::Device, format!("gpu: cannot open {}: {why}", found.info));
        let descriptor = DeviceDescriptor {
            label: Some("wengert"),
            required_features: wgpu::Features::empty(),
            required_limits: found.adapter.limits(),
            experimental_features: ExperimentalFeatures::disabled(),
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = contained(|| pollster::block_on(found.adapter.request_device(&descriptor)))
            .map_err(failed)?
            .map_err(|error| failed(error.to_string()))?;
        let health = Arc::new(Health::new());
        let (strays, losses) = (health.clone(), health.clone());
        device.on_uncaptured_error(Arc::new(move |error| strays.note_stray(&error)));
        device.set_device_lost_callback(move |_, why| losses.lose(&why));
        let context = Context {
            limits: Limits::of(&found.adapter),
            info: found.info.clone(),
            index,
            serial: NEXT.fetch_add(1, Ordering::Relaxed),
            pid: process::id(),
            health,
            polling: Lock::new(()),
            pool: Lock::new(Pool::new(found.info.kind)),
            memory: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            layouts: Lock::new(Layouts::default()),
            pipelines: Lock::new(Cache::new(PIPELINES)),
            bind_groups: Lock::new(Cache::new(BIND_GROUPS)),
            runs: Lock::new(VecDeque::new()),
            counts: Counts::default(),
            fault: OnceLock::new(),
            faults: Lock::new(Faults::default()),
            has_met: AtomicBool::new(false),
            device,
            queue,
        };
        // New memory is zero.
        let fault = context.block(Use::Storage, FAULT_BYTES as usize)?;
        let _ = context.fault.set(fault);
        Ok(Arc::new(context))
    }

    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The number of the device: 0 of "gpu:0".
    pub fn index(&self) -> u8 {
        self.index
    }

    /// Another one for each context: the one after a reset differs.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    pub fn counters(&self) -> Counters {
        let Counts { submits, dispatches, reads, pipelines, bind_groups } = &self.counts;
        let [submits, dispatches, reads, pipelines, bind_groups, memory] =
            [submits, dispatches, reads, pipelines, bind_groups, &self.memory]
                .map(|count| count.load(Ordering::Relaxed));
        Counters { submits, dispatches, reads, pipelines, bind_groups, memory }
    }

    /// Hands work and all that was written to the device.
    pub(super) fn submit(&self, work: Option<CommandBuffer>) -> SubmissionIndex {
        self.unsent.store(0, Ordering::Relaxed);
        self.counts.submits.fetch_add(1, Ordering::Relaxed);
        self.queue.submit(work)
    }

    /// Lets go of the device, for good.
    pub(super) fn close(&self) {
        // A device that is gone already may panic.
        let _ = contained(|| {
            self.device.destroy();
            self.device.poll(wgpu::PollType::Poll)
        });
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gpu:{} {}", self.index, self.info)
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        let Counters { submits, dispatches, reads, pipelines, bind_groups, memory } = other;
        self.submits += submits;
        self.dispatches += dispatches;
        self.reads += reads;
        self.pipelines += pipelines;
        self.bind_groups += bind_groups;
        self.memory += memory;
    }
}

impl Limits {
    fn of(adapter: &wgpu::Adapter) -> Limits {
        let (limits, info) = (adapter.limits(), adapter.get_info());
        let size = |n: u32| n as usize;
        Limits {
            storage_buffers: size(limits.max_storage_buffers_per_shader_stage),
            buffer_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) as usize & !3,
            groups: size(limits.max_compute_workgroups_per_dimension),
            group_bytes: size(limits.max_compute_workgroup_storage_size),
            group_threads: size(limits.max_compute_invocations_per_workgroup),
            group_sizes: [
                size(limits.max_compute_workgroup_size_x),
                size(limits.max_compute_workgroup_size_y),
                size(limits.max_compute_workgroup_size_z),
            ],
            uniform_bytes: limits.max_uniform_buffer_binding_size as usize,
            loop_rounds: if info.name.contains("llvmpipe") { 65_000 } else { usize::MAX },
            subgroup: [size(info.subgroup_min_size), size(info.subgroup_max_size)],
        }
    }
}

//! Runs: one encoder, one pass, one submission.

use super::adapters::Kind;
use super::buffer::{Binding, Block};
use super::cache::Cache;
use super::context::Context;
use super::pipeline::{Layout, Pipeline};
use crate::error::{Error, Result};
use smallvec::SmallVec;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use wgpu::{BindGroup, BindGroupEntry, BindingResource, BufferBinding, SubmissionIndex};

/// One kernel of a run.
pub struct Dispatch<'a> {
    pub pipeline: &'a Pipeline,
    pub buffers: SmallVec<[Binding<'a>; 8]>,
    /// The first word of its block in the parameters of the run, a multiple of 64.
    pub params: u32,
    /// Along each axis at most `Limits::groups`; none at all is fine.
    pub groups: [u32; 3],
}

/// By the layout, the block of parameters, and the block and size of each buffer. Ids are never used twice, so an entry
/// whose memory is gone is found by nobody.
pub(super) type BindGroups = Cache<Key, BindGroup>;
type Key = SmallVec<[u64; 20]>;

/// Runs that the device may be behind. Without a bound a loop that reads nothing would heap them up.
const AHEAD: usize = 32;
/// What the start of a parameter block is aligned to, in words: 256 bytes suit every device.
const ALIGN: u32 = 64;

impl Context {
    /// Runs kernels one after another. `params` are the words of all their parameter blocks. Waits only if the device is
    /// far behind, and then before it hands anything over: a run that was interrupted has not begun.
    pub fn run(&self, params: &[u32], dispatches: &[Dispatch<'_>]) -> Result<()> {
        self.turn(params.len())?.run(params, dispatches)
    }

    /// Hands a run over, for whoever's turn it is.
    pub(super) fn hand_over(&self, params: &[u32], block: Option<&Block>, dispatches: &[Dispatch<'_>]) -> Result<()> {
        for dispatch in dispatches {
            self.fits_run(params, dispatch)?;
        }
        let result = self.guarded(|| describe(dispatches), || self.encode(params, block, dispatches));
        // A submission that was refused is never over.
        self.runs.lock().push_back(result?);
        Ok(())
    }

    /// Waits until no more than `AHEAD` runs are under way. llvmpipe has none: a submission would wait inside the driver for
    /// the one before it, where nothing can interrupt.
    pub(super) fn catch_up(&self) -> Result<()> {
        let ahead = if self.info().kind == Kind::Cpu { 0 } else { AHEAD };
        let mut runs = self.runs.lock();
        let oldest = if runs.len() < ahead { None } else { runs.pop_front() };
        drop(runs);
        oldest.map_or(Ok(()), |oldest| self.wait_for(Some(oldest), || true))
    }

    /// Finds mistakes that wgpu would tell in other words, or not at all.
    fn fits_run(&self, params: &[u32], dispatch: &Dispatch<'_>) -> Result<()> {
        let Dispatch { pipeline, buffers, params: first, .. } = dispatch;
        let layout = &pipeline.layout;
        for binding in buffers {
            self.owns(*binding)?;
        }
        let wrong = |why: &str| Err(Error::internal(format!("gpu: kernel {}: {why}", pipeline.name())));
        if pipeline.serial != self.serial() {
            return wrong("a pipeline of another context");
        }
        if buffers.len() != layout.buffers {
            return wrong("the number of buffers is not that of its bindings");
        }
        let end = *first as usize + layout.words as usize;
        if layout.words > 0 && (end > params.len() || !first.is_multiple_of(ALIGN)) {
            return wrong("its block of parameters is outside of those of the run, or not aligned");
        }
        Ok(())
    }

    fn encode(&self, params: &[u32], block: Option<&Block>, dispatches: &[Dispatch<'_>]) -> Result<SubmissionIndex> {
        if let Some(block) = block {
            self.send(&block.raw, 0, bytemuck::cast_slice(params))?;
        }
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let mut bound: Option<&Pipeline> = None;
        let mut count = 0;
        for dispatch in dispatches.iter().filter(|dispatch| !dispatch.groups.contains(&0)) {
            let Dispatch { pipeline, params, groups: [x, y, z], .. } = *dispatch;
            if !bound.is_some_and(|bound| std::ptr::eq(bound, pipeline)) {
                pass.set_pipeline(&pipeline.raw);
                bound = Some(pipeline);
            }
            let group = self.bind_group(&pipeline.layout, block, &dispatch.buffers);
            let offset = [params * 4];
            pass.set_bind_group(0, &group, &offset[..usize::from(pipeline.layout.words > 0)]);
            pass.dispatch_workgroups(x, y, z);
            count += 1;
        }
        drop(pass);
        let index = self.submit(Some(encoder.finish()));
        self.counts.dispatches.fetch_add(count, Ordering::Relaxed);
        Ok(index)
    }

    fn bind_group(&self, layout: &Layout, params: Option<&Block>, buffers: &[Binding<'_>]) -> BindGroup {
        let params = params.filter(|_| layout.words > 0);
        let mut key: Key = SmallVec::from_slice(&[layout.id, params.map_or(0, |block| block.id)]);
        key.extend(buffers.iter().flat_map(|binding| [binding.block.id, binding.bytes]));
        if let Some(found) = self.bind_groups.lock().get(key.as_slice()) {
            return found;
        }
        let bytes = u64::from(layout.words) * 4;
        let params = params.map(|block| entry(0, &block.raw, bytes));
        let buffers = buffers.iter().zip(1..).map(|(binding, n)| entry(n, &binding.block.raw, binding.bytes));
        let entries: SmallVec<[BindGroupEntry<'_>; 9]> = params.into_iter().chain(buffers).collect();
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout.raw,
            entries: &entries,
        });
        self.counts.bind_groups.fetch_add(1, Ordering::Relaxed);
        self.bind_groups.lock().insert(key, group.clone());
        group
    }
}

fn entry(binding: u32, buffer: &wgpu::Buffer, bytes: u64) -> BindGroupEntry<'_> {
    let resource = BindingResource::Buffer(BufferBinding { buffer, offset: 0, size: NonZeroU64::new(bytes) });
    BindGroupEntry { binding, resource }
}

/// The kernels of a run, for errors: the first few by name.
fn describe(dispatches: &[Dispatch<'_>]) -> String {
    const NAMED: usize = 4;
    let named = |dispatch: &Dispatch<'_>| {
        let bytes: u64 = dispatch.buffers.iter().map(|binding| binding.bytes).sum();
        format!("{} ({bytes} bytes)", dispatch.pipeline.name())
    };
    let names: Vec<String> = dispatches.iter().take(NAMED).map(named).collect();
    let more = dispatches.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("gpu: run {}{more}", names.join(", "))
}

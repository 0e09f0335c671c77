//! Kernels as the device runs them, cached by their text.

use super::cache::Cache;
use super::context::Context;
use crate::error::{Error, Result};
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use wgpu::{BindGroupLayout, BindGroupLayoutEntry, BindingType, BufferBindingType, ShaderStages};

/// How a kernel uses a storage buffer: as its text declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    ReadWrite,
}

/// A kernel that is ready to run. Belongs to the context that made it.
pub struct Pipeline {
    pub(super) raw: wgpu::ComputePipeline,
    pub(super) layout: Arc<Layout>,
    pub(super) serial: u64,
    name: String,
}

/// The bindings of a kernel.
pub(super) struct Layout {
    pub raw: BindGroupLayout,
    pub id: u64,
    pub buffers: usize,
    /// Words of the parameter block.
    pub words: u32,
}

pub(super) type Pipelines = Cache<Arc<str>, Arc<Pipeline>>;
pub(super) type Layouts = HashMap<(SmallVec<[Access; 8]>, u32), Arc<Layout>>;

impl Pipeline {
    /// What the first line of the text says.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipeline({})", self.name)
    }
}

impl Context {
    /// The kernel of this text. `access` is that of `b1`, `b2`, …; `words` are the `u32` words of the parameter block `p`,
    /// a multiple of 4, and 0 if the kernel has none. The same text has the same bindings. Errors name the first line of
    /// the text, a comment.
    pub fn pipeline(&self, wgsl: &str, access: &[Access], words: u32) -> Result<Arc<Pipeline>> {
        self.check()?;
        if let Some(found) = self.pipelines.lock().get(wgsl) {
            return Ok(found);
        }
        let name = name(wgsl);
        let about = || format!("gpu: kernel {name}");
        self.fits(access, words).map_err(|why| Error::internal(format!("{}: {why}", about())))?;
        let pipeline = self.guarded(about, || {
            let layout = self.layout(access, words);
            let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(name),
                source: wgpu::ShaderSource::Wgsl(wgsl.into()),
            });
            let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&layout.raw)],
                immediate_size: 0,
            });
            let raw = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            });
            Ok(Arc::new(Pipeline { raw, layout, serial: self.serial(), name: name.to_owned() }))
        })?;
        self.counts.pipelines.fetch_add(1, Ordering::Relaxed);
        self.pipelines.lock().insert(wgsl.into(), pipeline.clone());
        Ok(pipeline)
    }

    fn fits(&self, access: &[Access], words: u32) -> Result<(), String> {
        let limits = self.limits();
        if access.len() > limits.storage_buffers {
            return Err(format!("{} storage buffers, the device takes {}", access.len(), limits.storage_buffers));
        }
        if words as usize * 4 > limits.uniform_bytes || !words.is_multiple_of(4) {
            return Err(format!("{words} words of parameters, the device takes {} bytes", limits.uniform_bytes));
        }
        Ok(())
    }

    fn layout(&self, access: &[Access], words: u32) -> Arc<Layout> {
        let mut layouts = self.layouts.lock();
        let id = layouts.len() as u64;
        let layout = layouts.entry((access.into(), words)).or_insert_with(|| {
            let params = NonZeroU64::new(u64::from(words) * 4).map(|bytes| {
                entry(
                    0,
                    BindingType::Buffer {
                        ty: BufferBindingType::Uniform,
                        has_dynamic_offset: true,
                        min_binding_size: Some(bytes),
                    },
                )
            });
            let buffers = access.iter().zip(1..).map(|(access, binding)| {
                entry(
                    binding,
                    BindingType::Buffer {
                        ty: BufferBindingType::Storage { read_only: *access == Access::Read },
                        has_dynamic_offset: false,
                        min_binding_size: None,
                    },
                )
            });
            let entries: Vec<BindGroupLayoutEntry> = params.into_iter().chain(buffers).collect();
            let raw = self
                .device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
            Arc::new(Layout { raw, id, buffers: access.len(), words })
        });
        layout.clone()
    }
}

fn entry(binding: u32, ty: BindingType) -> BindGroupLayoutEntry {
    BindGroupLayoutEntry { binding, visibility: ShaderStages::COMPUTE, ty, count: None }
}

/// The first line of a text, if it is a comment.
fn name(wgsl: &str) -> &str {
    let line = wgsl.lines().next().unwrap_or_default();
    line.strip_prefix("//").map_or("without a name", str::trim)
}

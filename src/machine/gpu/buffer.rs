//! Memory of the device. Freed blocks are kept for the next buffer of the same size class, since making one costs a system
//! call and a clearing. A block may be reused at once: the device does all work in the order of the calls.

use super::adapters::Kind;
use super::context::Context;
use super::failure::contained;
use super::faults::Doubt;
use super::testing::must_fail;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::lock::Lock;
use hashbrown::HashMap;
use std::fmt;
use std::mem::ManuallyDrop;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wgpu::{BufferDescriptor, BufferUsages};

/// The smallest block.
const SMALLEST: u64 = 256;
/// Bytes that were written and not yet handed to the device: more are sent at once.
const UNSENT_LIMIT: u64 = 32 << 20;

/// What a block is for; blocks of one use stay with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Use {
    Storage,
    Params,
    Staging,
}

impl Use {
    fn usages(self) -> BufferUsages {
        match self {
            Use::Storage => BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST,
            Use::Params => BufferUsages::UNIFORM | BufferUsages::COPY_DST,
            Use::Staging => BufferUsages::MAP_READ | BufferUsages::COPY_DST,
        }
    }
}

pub(super) struct Block {
    pub raw: wgpu::Buffer,
    /// Never used twice.
    pub id: u64,
    purpose: Use,
}

/// Free blocks by use and size.
pub(super) struct Pool {
    blocks: HashMap<(Use, u64), Vec<Block>>,
    bytes: u64,
    limit: u64,
}

impl Pool {
    pub fn new(kind: Kind) -> Pool {
        // Of a software device the memory is that of the system.
        let limit = if kind == Kind::Cpu { 512 << 20 } else { 2 << 30 };
        Pool { blocks: HashMap::new(), bytes: 0, limit }
    }

    fn take(&mut self, purpose: Use, class: u64) -> Option<Block> {
        let block = self.blocks.get_mut(&(purpose, class))?.pop()?;
        self.bytes -= class;
        Some(block)
    }

    /// Takes a free block, and gives back those that there is no room for.
    fn put(&mut self, block: Block) -> Vec<Block> {
        let class = block.raw.size();
        if class > self.limit {
            return vec![block];
        }
        let evicted = if self.bytes + class > self.limit { self.empty() } else { Vec::new() };
        self.bytes += class;
        self.blocks.entry((block.purpose, class)).or_default().push(block);
        evicted
    }

    fn empty(&mut self) -> Vec<Block> {
        self.bytes = 0;
        self.blocks.drain().flat_map(|(_, blocks)| blocks).collect()
    }
}

/// Memory of one device: a number of bytes in a block of its own. Its bytes are those of whoever had the block before.
/// Dropped, it goes back to the pool of its context.
pub struct Buffer {
    block: ManuallyDrop<Block>,
    context: ManuallyDrop<Arc<Context>>,
    bytes: usize,
    /// The runs whose indices the content depends on.
    pub(super) doubt: Lock<Doubt>,
    /// The run that wrote the content; 0 for none.
    pub(super) written: AtomicU64,
}

/// A buffer as kernels see it.
#[derive(Clone, Copy)]
pub struct Binding<'a> {
    pub(super) block: &'a Block,
    pub(super) bytes: u64,
    pub(super) serial: u64,
}

impl Buffer {
    /// Different for all buffers that live at the same time.
    pub fn id(&self) -> u64 {
        self.block.id
    }

    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Even an empty buffer has room for one element of any dtype, because shaders ask for it.
    pub fn binding(&self) -> Binding<'_> {
        Binding { block: &self.block, bytes: whole_words(self.bytes.max(8)), serial: self.context.serial() }
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.block.raw
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes on gpu:{})", self.bytes, self.context.index())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.context.pid != process::id() {
            // In a forked child nothing of the device may be touched: both are left to the end of the process.
            return;
        }
        // SAFETY: neither is used after this.
        let (block, context) = unsafe { (ManuallyDrop::take(&mut self.block), ManuallyDrop::take(&mut self.context)) };
        context.give_back(block);
    }
}

impl Context {
    /// Memory of this many bytes with any content.
    pub fn alloc(self: &Arc<Self>, bytes: usize) -> Result<Buffer> {
        let block = self.block(Use::Storage, bytes)?;
        Ok(Buffer {
            block: ManuallyDrop::new(block),
            context: ManuallyDrop::new(self.clone()),
            bytes,
            doubt: Lock::new(Doubt::default()),
            written: AtomicU64::new(0),
        })
    }

    /// Memory with these bytes.
    pub fn upload(self: &Arc<Self>, bytes: &[u8]) -> Result<Buffer> {
        let buffer = self.alloc(bytes.len())?;
        self.write(&buffer, 0, bytes)?;
        Ok(buffer)
    }

    /// Writes bytes from `first_byte` on, a multiple of 4; after the last one up to 3 more are set to zero.
    pub fn write(&self, buffer: &Buffer, first_byte: usize, bytes: &[u8]) -> Result<()> {
        self.owns(buffer.binding())?;
        let about = || format!("gpu: write {} bytes", bytes.len());
        if first_byte + bytes.len() > buffer.bytes || !first_byte.is_multiple_of(4) {
            return Err(Error::internal(format!("{} at {first_byte} into {buffer:?}", about())));
        }
        self.guarded(about, || self.send(buffer.raw(), first_byte as u64, bytes))
    }

    /// Hands bytes to the queue, which carries them over before the next submission.
    pub(super) fn send(&self, raw: &wgpu::Buffer, first_byte: u64, bytes: &[u8]) -> Result<()> {
        let whole = bytes.len() & !3;
        if whole > 0 {
            self.queue.write_buffer(raw, first_byte, &bytes[..whole]);
        }
        if whole < bytes.len() {
            let mut word = [0; 4];
            word[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue.write_buffer(raw, first_byte + whole as u64, &word);
        }
        let unsent = self.unsent.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        if unsent > UNSENT_LIMIT {
            self.submit(None);
        }
        Ok(())
    }

    /// Copies bytes on the device. Offsets and length are multiples of 4; the buffers are different ones.
    pub fn copy(&self, from: &Buffer, from_byte: usize, to: &Buffer, to_byte: usize, bytes: usize) -> Result<()> {
        self.owns(from.binding())?;
        self.owns(to.binding())?;
        let about = || format!("gpu: copy {bytes} bytes from {from_byte} of {from:?} to {to_byte} of {to:?}");
        if from_byte + bytes > from.bytes || to_byte + bytes > to.bytes {
            return Err(Error::internal(about()));
        }
        if bytes == 0 {
            return Ok(());
        }
        to.set_doubt(to.doubt().and(from.doubt()));
        self.guarded(about, || {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(from.raw(), from_byte as u64, to.raw(), to_byte as u64, Some(bytes as u64));
            self.submit(Some(encoder.finish()));
            Ok(())
        })
    }

    /// A block for this many bytes, from the pool if there is one.
    pub(super) fn block(&self, purpose: Use, bytes: usize) -> Result<Block> {
        self.check()?;
        let limit = self.limits().buffer_bytes;
        let no_memory =
            |why: String| Error::new(ErrorKind::Memory, format!("gpu: cannot allocate {bytes} bytes: {why}"));
        if bytes > limit {
            return Err(no_memory(format!("{} gives at most {limit} to one buffer", self.info())));
        }
        if must_fail() {
            return Err(no_memory("a test wants it".to_owned()));
        }
        let class = size_class(bytes as u64).min(limit as u64 & !3);
        if let Some(block) = self.pool.lock().take(purpose, class) {
            return Ok(block);
        }
        let made = self.make_block(purpose, class).or_else(|error| match error.kind() {
            ErrorKind::Memory => {
                self.trim()?;
                self.make_block(purpose, class)
            }
            _ => Err(error),
        });
        made.map_err(|error| match error.kind() {
            ErrorKind::Memory => no_memory(format!(
                "out of memory on {}, where this process holds {} bytes",
                self.info(),
                self.memory.load(Ordering::Relaxed)
            )),
            _ => error,
        })
    }

    fn make_block(&self, purpose: Use, class: u64) -> Result<Block> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let raw = self.guarded(
            || format!("gpu: allocate {class} bytes"),
            || {
                let usage = purpose.usages();
                Ok(self.device.create_buffer(&BufferDescriptor {
                    label: None,
                    size: class,
                    usage,
                    mapped_at_creation: false,
                }))
            },
        )?;
        self.memory.fetch_add(class, Ordering::Relaxed);
        Ok(Block { raw, id: NEXT.fetch_add(1, Ordering::Relaxed), purpose })
    }

    pub(super) fn give_back(&self, block: Block) {
        let evicted = if self.health.is_lost() { vec![block] } else { self.pool.lock().put(block) };
        self.free(evicted);
    }

    /// Gives the free blocks back to the system, once the work that uses them is done.
    pub fn trim(&self) -> Result<()> {
        let free = self.pool.lock().empty();
        self.free(free);
        self.wait_for(None, || true)
    }

    /// Destroys blocks, whatever bind groups still name them.
    pub(super) fn free(&self, blocks: Vec<Block>) {
        for block in blocks {
            self.memory.fetch_sub(block.raw.size(), Ordering::Relaxed);
            // A panic here says that the device is gone, which the next call will see.
            let _ = contained(|| block.raw.destroy());
        }
    }

    /// Refuses what is another context's.
    pub(super) fn owns(&self, binding: Binding<'_>) -> Result<()> {
        if binding.serial == self.serial() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::DeviceLost,
            "gpu: a tensor is on a device that was lost or reset: it is gone, make it again",
        ))
    }
}

/// The bytes that kernels see of this many: whole words, and at least one.
pub(super) fn whole_words(bytes: usize) -> u64 {
    bytes.max(1).next_multiple_of(4) as u64
}

/// The bytes really taken for a request: four classes for each doubling.
fn size_class(bytes: u64) -> u64 {
    let bytes = bytes.max(SMALLEST);
    bytes.next_multiple_of((bytes.next_power_of_two() / 8).max(SMALLEST))
}

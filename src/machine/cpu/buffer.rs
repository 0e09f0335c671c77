//! Memory of tensors: aligned, immutable once published, shared by reference count. Freed blocks are kept for the next
//! buffer of the same size class: fresh pages cost several times the kernel that fills them, and aligned allocation
//! costs as much as recording an op. Zero-sized tensors get a valid pointer too.

use crate::error::{Error, ErrorKind, Result};
use crate::machine::lock::Lock;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::alloc::{Layout, alloc, dealloc};
use std::any::Any;
use std::ptr::NonNull;

/// Every buffer starts on a cache line, which is also the widest vector.
pub const ALIGN: usize = 64;
/// From here on size classes are four to a doubling instead of one to a cache line.
const LARGE: usize = 64 << 10;
/// Free bytes that are kept; a block that does not fit empties the pool first.
const POOL_LIMIT: usize = 512 << 20;

pub(crate) static POOL: Lock<Pool> =
    Lock::new(Pool { blocks: HashMap::with_hasher(FixedState::with_seed(0)), bytes: 0 });

/// Free blocks by size class.
pub(crate) struct Pool {
    blocks: HashMap<usize, Vec<NonNull<u8>>, FixedState>,
    bytes: usize,
}

// SAFETY: a block in the pool has no other owner.
unsafe impl Send for Pool {}

/// A block of memory. `Arc<Buffer>` is what values hold; the bytes are written only while one owner exists.
pub struct Buffer {
    ptr: NonNull<u8>,
    bytes: usize,
    /// Set when the memory belongs to somebody else (an explicit zero-copy import).
    owner: Option<Box<dyn Any + Send + Sync>>,
}

// SAFETY: the memory is plain bytes; writers hold the only reference (see `Buffer::as_mut_ptr`).
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Uninitialised memory of this many bytes.
    pub fn new(bytes: usize) -> Result<Buffer> {
        let class = size_class(bytes);
        let mut pool = POOL.lock();
        if let Some(ptr) = pool.blocks.get_mut(&class).and_then(Vec::pop) {
            pool.bytes -= class;
            drop(pool);
            return Ok(Buffer { ptr, bytes, owner: None });
        }
        drop(pool);
        let out_of_memory = || Error::new(ErrorKind::Memory, format!("cannot allocate {bytes} bytes for a tensor"));
        let layout = Layout::from_size_align(class, ALIGN).map_err(|_| out_of_memory())?;
        // SAFETY: the size is not zero.
        let ptr = NonNull::new(unsafe { alloc(layout) }).ok_or_else(out_of_memory)?;
        Ok(Buffer { ptr, bytes, owner: None })
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Buffer> {
        let buffer = Buffer::new(bytes.len())?;
        // SAFETY: the new block is at least this long and overlaps nothing.
        unsafe { buffer.ptr.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(buffer)
    }

    /// Memory that `owner` keeps alive and that nobody writes while this buffer lives.
    ///
    /// # Safety
    /// `ptr` must be valid for reads of `bytes` bytes until `owner` is dropped.
    pub unsafe fn from_owner(ptr: NonNull<u8>, bytes: usize, owner: Box<dyn Any + Send + Sync>) -> Buffer {
        Buffer { ptr, bytes, owner: Some(owner) }
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.ptr.as_ptr()
    }

    /// For the one writer of a buffer that nobody reads: its maker before publication, or a commit block that was
    /// given the buffer by its last holder.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether the memory is ours to write once nobody else holds the buffer.
    pub fn is_owned(&self) -> bool {
        self.owner.is_none()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.owner.is_some() {
            return;
        }
        let class = size_class(self.bytes);
        let mut pool = POOL.lock();
        let evicted = if pool.bytes + class > POOL_LIMIT {
            pool.bytes = 0;
            std::mem::take(&mut pool.blocks)
        } else {
            HashMap::default()
        };
        if class <= POOL_LIMIT {
            pool.bytes += class;
            pool.blocks.entry(class).or_default().push(self.ptr);
        }
        drop(pool);
        if class > POOL_LIMIT {
            release(self.ptr, class);
        }
        free(evicted);
    }
}

/// Gives the free blocks back to the system.
pub fn trim() {
    let mut pool = POOL.lock();
    pool.bytes = 0;
    let blocks = std::mem::take(&mut pool.blocks);
    drop(pool);
    free(blocks);
}

fn free(blocks: HashMap<usize, Vec<NonNull<u8>>, FixedState>) {
    for (class, blocks) in blocks {
        blocks.into_iter().for_each(|ptr| release(ptr, class));
    }
}

/// Gives a block back to the system.
fn release(ptr: NonNull<u8>, class: usize) {
    // SAFETY: each block was allocated with its size class and this alignment, and has no owner left.
    unsafe { dealloc(ptr.as_ptr(), Layout::from_size_align_unchecked(class, ALIGN)) };
}

/// The bytes really taken for a request: multiples of a cache line, then four classes for each doubling.
fn size_class(bytes: usize) -> usize {
    if bytes < LARGE {
        return bytes.max(1).next_multiple_of(ALIGN);
    }
    let step = (bytes.next_power_of_two() / 8).max(ALIGN);
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_reused() {
        let a = Buffer::new(100_000).unwrap();
        let first = a.as_ptr();
        assert!((first as usize).is_multiple_of(ALIGN));
        drop(a);
        let b = Buffer::new(100_001).unwrap();
        assert!(b.len() == 100_001 && (b.as_ptr() as usize).is_multiple_of(ALIGN));
        assert!(Buffer::new(0).unwrap().is_empty());
    }

    #[test]
    fn too_much_memory_is_an_error() {
        assert_eq!(Buffer::new(1 << 60).err().map(|e| e.kind()), Some(ErrorKind::Memory));
    }
}

//! Memory of tensors: aligned, immutable once published, shared by reference count. Freed blocks of at least 64 KiB
//! are kept for the next buffer of the same size class, because fresh pages cost several times the kernel that fills
//! them. Zero-sized tensors get a valid pointer too.

use crate::error::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::alloc::{Layout, alloc, dealloc};
use std::any::Any;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Every buffer starts on a cache line, which is also the widest vector.
pub const ALIGN: usize = 64;
const POOLED_FROM: usize = 64 << 10;
const POOL_LIMIT: usize = 512 << 20;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static POOL: Mutex<Pool> = Mutex::new(Pool { blocks: Vec::new(), bytes: 0 });

struct Pool {
    /// Free blocks, oldest first.
    blocks: Vec<(NonNull<u8>, usize)>,
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
        if class >= POOLED_FROM {
            let mut pool = POOL.lock();
            if let Some(at) = pool.blocks.iter().rposition(|&(_, size)| size == class) {
                let (ptr, _) = pool.blocks.swap_remove(at);
                pool.bytes -= class;
                ALLOCATED.fetch_add(class, Ordering::Relaxed);
                return Ok(Buffer { ptr, bytes, owner: None });
            }
        }
        let out_of_memory = || Error::new(ErrorKind::Memory, format!("cannot allocate {bytes} bytes for a tensor"));
        let layout = Layout::from_size_align(class, ALIGN).map_err(|_| out_of_memory())?;
        // SAFETY: the size is not zero.
        let ptr = NonNull::new(unsafe { alloc(layout) }).ok_or_else(out_of_memory)?;
        ALLOCATED.fetch_add(class, Ordering::Relaxed);
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
        ALLOCATED.fetch_sub(class, Ordering::Relaxed);
        let mut evicted = Vec::new();
        if class >= POOLED_FROM {
            let mut pool = POOL.lock();
            pool.blocks.push((self.ptr, class));
            pool.bytes += class;
            while pool.bytes > POOL_LIMIT {
                let (ptr, size) = pool.blocks.remove(0);
                pool.bytes -= size;
                evicted.push((ptr, size));
            }
        } else {
            evicted.push((self.ptr, class));
        }
        for (ptr, size) in evicted {
            // SAFETY: each block was allocated with this size class and alignment and has no owner left.
            unsafe { dealloc(ptr.as_ptr(), Layout::from_size_align_unchecked(size, ALIGN)) };
        }
    }
}

/// Bytes in living buffers of our own.
pub fn allocated_bytes() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

/// The bytes really taken for a request: multiples of a cache line, then four classes for each doubling.
fn size_class(bytes: usize) -> usize {
    if bytes < POOLED_FROM {
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
        assert_eq!(first as usize % ALIGN, 0);
        drop(a);
        let b = Buffer::new(100_001).unwrap();
        assert!(b.len() == 100_001 && b.as_ptr() as usize % ALIGN == 0);
        assert!(Buffer::new(0).unwrap().is_empty());
    }

    #[test]
    fn too_much_memory_is_an_error() {
        assert_eq!(Buffer::new(1 << 60).err().map(|e| e.kind()), Some(ErrorKind::Memory));
    }
}

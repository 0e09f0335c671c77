//! Working memory of runs: one block for all intermediate values of a plan, leased for the run and given back after it.
//! A run never allocates for a kernel. Blocks are kept for the next run, as far as their number and bytes allow; contents
//! are arbitrary.

use super::buffer::{self, ALIGN, Buffer};
use crate::error::Result;
use crate::machine::lock::Lock;

/// Blocks kept: as many as threads that are likely to run plans at one time.
const KEPT: usize = 8;
const SMALLEST: usize = 64 << 10;
/// Bytes kept, unless the one block that was used last is larger.
const LIMIT: usize = 256 << 20;

pub(crate) static POOL: Lock<Vec<Buffer>> = Lock::new(Vec::new());

/// A block of at least the bytes asked for, aligned to `ALIGN`, until it is dropped.
pub struct Lease(Option<Buffer>);

/// Takes the smallest kept block that is large enough, or makes one.
pub fn lease(bytes: usize) -> Result<Lease> {
    let mut pool = POOL.lock();
    let fitting = (0..pool.len()).filter(|&at| pool[at].len() >= bytes);
    if let Some(at) = fitting.min_by_key(|&at| pool[at].len()) {
        return Ok(Lease(Some(pool.remove(at))));
    }
    drop(pool);
    Ok(Lease(Some(Buffer::new(bytes.max(SMALLEST).next_multiple_of(ALIGN))?)))
}

/// Gives all free memory of runs and of tensors back to the system.
pub fn trim() {
    let blocks = std::mem::take(&mut *POOL.lock());
    drop(blocks);
    buffer::trim();
    release_heap();
}

/// glibc keeps freed blocks of up to 32 MiB in its heap, once blocks of that size have come and gone.
fn release_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: has no preconditions; other threads may allocate meanwhile.
    unsafe {
        libc::malloc_trim(0);
    }
}

impl Lease {
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.0.as_ref().map_or(std::ptr::null_mut(), Buffer::as_mut_ptr)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(block) = self.0.take() else { return };
        let mut pool = POOL.lock();
        pool.push(block);
        let evicted = evicted(&mut pool);
        drop(pool);
        drop(evicted);
    }
}

/// Takes blocks out until the pool keeps its limits.
fn evicted(pool: &mut Vec<Buffer>) -> Vec<Buffer> {
    let mut evicted = Vec::new();
    while pool.len() > 1 && pool.iter().map(Buffer::len).sum::<usize>() > LIMIT {
        // The one that was used longest ago.
        evicted.push(pool.remove(0));
    }
    if pool.len() > KEPT {
        // The smallest: a larger one serves every plan that it serves.
        let smallest = (0..pool.len()).min_by_key(|&at| pool[at].len());
        evicted.extend(smallest.map(|at| pool.remove(at)));
    }
    evicted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_do_not_overlap_and_are_reused() {
        let (a, b) = (lease(1000).unwrap(), lease(200_000).unwrap());
        assert_ne!(a.as_mut_ptr(), b.as_mut_ptr());
        assert_eq!(a.as_mut_ptr() as usize % ALIGN, 0);
    }

    #[test]
    fn the_pool_keeps_few_bytes_but_always_the_last_block() {
        let sizes = |pool: &[Buffer]| pool.iter().map(Buffer::len).collect::<Vec<_>>();
        let blocks = |sizes: &[usize]| sizes.iter().map(|&bytes| Buffer::new(bytes).unwrap()).collect::<Vec<_>>();
        let mut pool = blocks(&[LIMIT / 2, 1 << 20, LIMIT / 2]);
        assert_eq!(sizes(&evicted(&mut pool)), [LIMIT / 2]);
        assert_eq!(sizes(&pool), [1 << 20, LIMIT / 2]);
        let mut pool = blocks(&[1 << 20, LIMIT + (1 << 20)]);
        assert_eq!(sizes(&evicted(&mut pool)), [1 << 20]);
        let mut pool = blocks(&[3, 1, 4, 1, 5, 9, 2, 6, 5].map(|size| size << 10));
        assert_eq!(evicted(&mut pool).len(), 1);
        assert_eq!(pool.len(), KEPT);
    }
}

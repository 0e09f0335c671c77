//! Working memory of runs: one block for all intermediate values of a plan, leased for the run and given back after it.
//! A run never allocates for a kernel. Blocks are kept for the next run, a few of them; contents are arbitrary.

use super::buffer::{ALIGN, Buffer};
use crate::error::Result;
use crate::machine::lock::Lock;

/// Blocks kept: as many as threads that are likely to run plans at one time.
const KEPT: usize = 8;
const SMALLEST: usize = 64 << 10;

pub(crate) static POOL: Lock<Vec<Buffer>> = Lock::new(Vec::new());

/// A block of at least the bytes asked for, aligned to `ALIGN`, until it is dropped.
pub struct Lease(Option<Buffer>);

/// Takes the smallest kept block that is large enough, or makes one.
pub fn lease(bytes: usize) -> Result<Lease> {
    let mut pool = POOL.lock();
    let fitting = (0..pool.len()).filter(|&at| pool[at].len() >= bytes);
    if let Some(at) = fitting.min_by_key(|&at| pool[at].len()) {
        return Ok(Lease(Some(pool.swap_remove(at))));
    }
    drop(pool);
    Ok(Lease(Some(Buffer::new(bytes.max(SMALLEST).next_multiple_of(ALIGN))?)))
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
        if pool.len() > KEPT {
            // The smallest goes: a larger one serves every plan that it serves.
            let smallest = (0..pool.len()).min_by_key(|&at| pool[at].len());
            let evicted = smallest.map(|at| pool.swap_remove(at));
            drop(pool);
            drop(evicted);
        }
    }
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
}

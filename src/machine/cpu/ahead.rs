//! Takes memory from the system before it is used: while a plan is made, a thread of its own touches the pages of the
//! block in which the plan will run, so that fewer kernels of the first run wait for them. A first touch takes 1 to 2 µs
//! a page of 4 KiB on a virtual machine, and a step that is run once more takes none. The block has the bytes that the
//! plan asks for, however far the thread came. Only on Linux since 5.14; elsewhere nothing is touched.

use super::buffer::Buffer;

/// Less is touched as fast as a thread starts.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nothing is touched"))]
const LEAST: usize = 4 << 20;

/// A block that is being touched.
pub struct Ahead(Option<system::Toucher>);

impl Ahead {
    /// Starts to touch a block: its first `most` bytes, as far as time allows. It takes a core of its own.
    pub fn start(most: usize) -> Ahead {
        Ahead(system::Toucher::start(most))
    }

    /// Stops, and gives the block, of exactly so many bytes; None if nothing was started.
    pub fn block(self, bytes: usize) -> Option<Buffer> {
        self.0?.block(bytes)
    }
}

#[cfg(target_os = "linux")]
mod system {
    use super::{Buffer, LEAST};
    use std::ptr::{self, NonNull};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::{Builder, JoinHandle};

    /// Bytes between two looks whether to stop: about 50 µs.
    const STRETCH: usize = 128 << 10;
    const PAGE: usize = 4096;

    /// Pages of our own.
    struct Pages {
        start: NonNull<u8>,
        bytes: usize,
    }

    // SAFETY: the memory is plain bytes that belong to the value.
    unsafe impl Send for Pages {}
    // SAFETY: as above; a shared value gives out its bounds only.
    unsafe impl Sync for Pages {}

    impl Pages {
        fn new(bytes: usize) -> Option<Pages> {
            let bytes = bytes.checked_next_multiple_of(PAGE)?;
            let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new mapping, wherever there is room.
            let start = unsafe { libc::mmap(ptr::null_mut(), bytes, rights, kind, -1, 0) };
            let start = NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED)?;
            Some(Pages { start, bytes })
        }

        /// The first pages for so many bytes, and new ones for what is missing; their place may change.
        fn resized(mut self, bytes: usize) -> Option<Pages> {
            let bytes = bytes.max(1).checked_next_multiple_of(PAGE)?;
            // SAFETY: our own pages, in which nobody has a pointer.
            let start = unsafe { libc::mremap(self.start.as_ptr().cast(), self.bytes, bytes, libc::MREMAP_MAYMOVE) };
            self.start = NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED)?;
            self.bytes = bytes;
            Some(self)
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: a mapping that nobody else has.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        }
    }

    /// Stops the thread when it is dropped.
    struct Stop(Arc<AtomicBool>);

    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    pub struct Toucher {
        stop: Stop,
        thread: JoinHandle<Pages>,
    }

    impl Toucher {
        pub fn start(most: usize) -> Option<Toucher> {
            if most < LEAST {
                return None;
            }
            let pages = Pages::new(most)?;
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = Arc::clone(&stop);
            let touch = move || {
                for done in (0..pages.bytes).step_by(STRETCH) {
                    let stretch = STRETCH.min(pages.bytes - done);
                    // SAFETY: inside our own pages. Kernels before 5.14 refuse the advice.
                    let refused = unsafe {
                        libc::madvise(pages.start.as_ptr().add(done).cast(), stretch, libc::MADV_POPULATE_WRITE)
                    };
                    if refused != 0 || stopped.load(Ordering::Relaxed) {
                        break;
                    }
                }
                pages
            };
            let thread = Builder::new().name("wengert-ahead".into()).spawn(touch).ok()?;
            Some(Toucher { stop: Stop(stop), thread })
        }

        pub fn block(self, bytes: usize) -> Option<Buffer> {
            drop(self.stop);
            let pages = self.thread.join().ok()?.resized(bytes)?;
            // SAFETY: valid until the pages are dropped.
            Some(unsafe { Buffer::from_owner(pages.start, bytes, Box::new(pages)) })
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::Buffer;

    pub struct Toucher;

    impl Toucher {
        pub fn start(_most: usize) -> Option<Toucher> {
            None
        }

        pub fn block(self, _bytes: usize) -> Option<Buffer> {
            None
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::machine::cpu::buffer::ALIGN;

    /// Whether the first page of a block is there before anybody wrote to it.
    fn is_touched(block: &Buffer) -> bool {
        let mut there = 0u8;
        // SAFETY: one page of a mapping, one byte of answer.
        let failed = unsafe { libc::mincore(block.as_mut_ptr().cast(), 1, &mut there) };
        failed == 0 && there & 1 == 1
    }

    #[test]
    fn a_block_has_the_bytes_asked_for_however_far_the_thread_came() {
        for bytes in [1, 10_000, 2 * LEAST, 5 * LEAST + 64] {
            let block = Ahead::start(2 * LEAST).block(bytes).expect("a thread was started");
            assert_eq!((block.len(), block.as_ptr() as usize % ALIGN), (bytes, 0));
            assert!(is_touched(&block));
            // SAFETY: the block is ours alone.
            unsafe {
                block.as_mut_ptr().write_bytes(1, bytes);
                assert_eq!(block.as_ptr().add(bytes - 1).read(), 1);
            }
        }
    }

    #[test]
    fn little_is_not_worth_a_thread() {
        assert!(Ahead::start(LEAST - 1).block(LEAST).is_none());
        // Dropped at once, while it is touched.
        drop(Ahead::start(8 * LEAST));
    }
}

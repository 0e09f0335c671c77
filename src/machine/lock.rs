//! A lock that survives forks. It does not poison: what it guards stays whole when a holder panics. The thread that
//! forks holds it across the fork and gives it back on both sides; waiters that exist only in the parent leave nothing
//! behind in the child, because they wait on the lock's own word and in no table of the process.

use std::cell::UnsafeCell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub type Guard<'a, T> = MutexGuard<'a, T>;

pub struct Lock<T: 'static> {
    lock: Mutex<T>,
    /// The guard that is kept while the process forks.
    held: UnsafeCell<Option<Guard<'static, T>>>,
}

// SAFETY: `held` is touched only by the thread that holds the lock, as `before_fork` and `after_fork` ask for.
unsafe impl<T: Send> Sync for Lock<T> {}
// SAFETY: `held` is set only behind a `&'static` borrow, and what is borrowed for good is never moved.
unsafe impl<T: Send> Send for Lock<T> {}

impl<T> Lock<T> {
    pub const fn new(value: T) -> Lock<T> {
        Lock { lock: Mutex::new(value), held: UnsafeCell::new(None) }
    }

    pub fn lock(&self) -> Guard<'_, T> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock until `after_fork`.
    pub fn before_fork(&'static self) {
        let guard = self.lock();
        // SAFETY: this thread holds the lock, so no other one is here.
        unsafe { *self.held.get() = Some(guard) };
    }

    /// Gives the lock back, in the parent and in the child.
    ///
    /// # Safety
    /// Must follow `before_fork` in the same thread, once in each process.
    pub unsafe fn after_fork(&'static self) {
        // SAFETY: this thread has held the lock since `before_fork`. The guard is moved out before it is dropped.
        let guard = unsafe { (*self.held.get()).take() };
        drop(guard);
    }
}

/// Waits for news about what the lock guards.
pub fn wait<'a, T>(news: &Condvar, guard: Guard<'a, T>) -> Guard<'a, T> {
    news.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    static COUNT: Lock<u32> = Lock::new(0);

    #[test]
    fn a_panic_leaves_it_usable() {
        let _ = std::panic::catch_unwind(|| {
            let mut count = COUNT.lock();
            *count += 1;
            std::panic::resume_unwind(Box::new(()));
        });
        assert_eq!(*COUNT.lock(), 1);
        COUNT.before_fork();
        // SAFETY: follows `before_fork` here.
        unsafe { COUNT.after_fork() };
        assert_eq!(*COUNT.lock(), 1);
    }
}

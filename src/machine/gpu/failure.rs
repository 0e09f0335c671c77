//! What goes wrong on a device and how it becomes an error: error scopes around each batch, panics of the driver's
//! wrapper, loss, forks.

use super::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::lock::Lock;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use wgpu::ErrorFilter;

/// Whether the device still works. wgpu drops all work on a lost device without a word, so this is asked around each batch.
pub(super) struct Health {
    lost: AtomicBool,
    /// A reset has taken the device off the list.
    forgotten: AtomicBool,
    reason: Lock<String>,
    is_stray: AtomicBool,
    /// An error that no scope saw: of another thread's clean-up, say.
    stray: Lock<Option<String>>,
}

impl Health {
    pub fn new() -> Health {
        Health {
            lost: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
            reason: Lock::new(String::new()),
            is_stray: AtomicBool::new(false),
            stray: Lock::new(None),
        }
    }

    /// The first reason stays.
    pub fn lose(&self, reason: &str) {
        let mut kept = self.reason.lock();
        if !self.lost.load(Ordering::Relaxed) {
            *kept = if reason.is_empty() { "the driver gave no reason".to_owned() } else { one_line(reason) };
            self.lost.store(true, Ordering::Release);
        }
    }

    pub fn forget(&self) {
        self.lose("wg.gpu.reset() was called");
        self.forgotten.store(true, Ordering::Release);
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub fn note_stray(&self, error: &wgpu::Error) {
        *self.stray.lock() = Some(one_line(&error.to_string()));
        self.is_stray.store(true, Ordering::Release);
    }

    fn check_loss(&self) -> Result<()> {
        if self.is_lost() {
            let reason = self.reason.lock();
            let rest = if self.forgotten.load(Ordering::Acquire) {
                "a tensor on it is gone, make it again"
            } else {
                "its tensors are gone, wg.gpu.reset() makes it usable again"
            };
            return Err(Error::new(ErrorKind::DeviceLost, format!("gpu: the device was lost: {reason}; {rest}")));
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        self.check_loss()?;
        if self.is_stray.swap(false, Ordering::Acquire)
            && let Some(error) = self.stray.lock().take()
        {
            return Err(Error::new(ErrorKind::Device, format!("gpu: {error}")));
        }
        Ok(())
    }
}

impl Context {
    /// Whether the context can be used: not after a fork, not after a loss.
    pub fn check(&self) -> Result<()> {
        if self.pid != process::id() {
            return Err(forked());
        }
        self.health.check()
    }

    /// Runs one batch of calls of wgpu. All that goes wrong comes out as an error that begins with `about()`.
    pub(super) fn guarded<T>(&self, about: impl Fn() -> String, f: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check()?;
        let outcome = contained(|| {
            // Locals are dropped in reverse order, as scopes ask for.
            let memory = self.device.push_error_scope(ErrorFilter::OutOfMemory);
            let internal = self.device.push_error_scope(ErrorFilter::Internal);
            let validation = self.device.push_error_scope(ErrorFilter::Validation);
            let result = f();
            let validation = pollster::block_on(validation.pop());
            let internal = pollster::block_on(internal.pop());
            let memory = pollster::block_on(memory.pop());
            (result, memory.or(internal).or(validation))
        });
        let (result, error) = outcome.map_err(|panic| {
            self.health.lose(&panic);
            self.health.check_loss().err().unwrap_or_else(|| Error::internal(panic))
        })?;
        // Errors that are nobody's wait for the next batch: this one may have done its work.
        self.health.check_loss()?;
        match error {
            Some(error) => Err(described(&about(), &error)),
            None => result,
        }
    }
}

fn described(about: &str, error: &wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::new(ErrorKind::Memory, format!("{about}: out of device memory")),
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::new(ErrorKind::Device, format!("{about}: {}", one_line(description)))
        }
    }
}

/// Runs `f`; a panic inside comes out as its message.
pub(super) fn contained<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    one_line(&text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned()))
}

pub(super) fn forked() -> Error {
    Error::new(
        ErrorKind::Device,
        "gpu: this process was forked from one that had used the GPU, which a child cannot: start it by \
         multiprocessing's \"spawn\", or use the GPU in the child alone",
    )
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

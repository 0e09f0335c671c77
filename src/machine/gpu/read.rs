//! Reads: from the device into memory of this process. They wait, bring bad indices along, and can be interrupted.

use super::buffer::{Block, Buffer, Use, whole_words};
use super::context::Context;
use super::failure::contained;
use super::faults::FAULT_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::cpu::par;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;
use wgpu::{CommandEncoder, MapMode, PollError, PollType, SubmissionIndex};

/// Between two looks at whether the user wants to stop.
const SLICE: Duration = Duration::from_millis(50);
/// What wgpu's panic says when the submission of another thread empties the queue between two steps of a poll: the device
/// is well.
const EMPTIED: &str = "If the queue is empty";
/// Bytes of the word that tells of a bad index.
const FIRST: u64 = 4;
/// Bytes that are read at once.
const PIECE: usize = 64 << 20;

/// A copy into a staging block that was handed over: the submission, and whether its memory could be mapped.
type Copied = (SubmissionIndex, Arc<OnceLock<bool>>);

impl Context {
    /// Waits for the bytes from `first_byte` on. If a run met a bad index that no read has raised yet, of whichever thread,
    /// IndexError comes instead; so it does at each read of what depends on one.
    pub fn read(&self, buffer: &Buffer, first_byte: usize, out: &mut [u8]) -> Result<()> {
        self.owns(buffer.binding())?;
        if first_byte + out.len() > buffer.len() {
            return Err(Error::internal(format!("gpu: read {} bytes at {first_byte} of {buffer:?}", out.len())));
        }
        // A stop that was meant for an earlier run is over.
        par::begin();
        if out.is_empty() {
            self.piece(buffer.raw(), 0, out)?;
        }
        for (n, piece) in out.chunks_mut(PIECE).enumerate() {
            self.piece(buffer.raw(), first_byte + n * PIECE, piece)?;
        }
        buffer.error().map_or(Ok(()), Err)
    }

    /// Waits until all work that was handed over is done. Bad indices stay for the next read.
    pub fn wait(&self) -> Result<()> {
        par::begin();
        self.wait_for(None, || true)
    }

    /// Waits until it is known of all runs that were handed over whether they met a bad index, and raises a new one.
    pub fn judge(&self) -> Result<()> {
        par::begin();
        self.piece(&self.fault_block()?.raw, 0, &mut [])
    }

    fn piece(&self, raw: &wgpu::Buffer, first_byte: usize, out: &mut [u8]) -> Result<()> {
        self.catch_up()?;
        // Copies take whole words; the word that tells of a bad index comes first.
        let skipped = first_byte % 4;
        let end = FIRST + whole_words(skipped + out.len());
        let staging = self.block(Use::Staging, end as usize)?;
        match self.through(&staging, raw, first_byte - skipped, skipped, out) {
            Ok((is_well, last)) => {
                self.give_back(staging);
                if is_well {
                    self.faults.lock().clear_up_to(last);
                    return Ok(());
                }
                self.learn()
            }
            // The device may still write to it.
            Err(error) => {
                self.free(vec![staging]);
                Err(error)
            }
        }
    }

    /// Reads through a staging block: after the first word of the faults come those of the buffer from `start` on, of which
    /// the first bytes are skipped. Whether no bad index waits to be raised, up to which run.
    fn through(
        &self,
        staging: &Block,
        raw: &wgpu::Buffer,
        start: usize,
        skipped: usize,
        out: &mut [u8],
    ) -> Result<(bool, u64)> {
        let bytes = whole_words(skipped + out.len());
        let end = FIRST + bytes;
        let fault = self.fault_block()?;
        let length = out.len();
        let about = || format!("gpu: read {length} bytes");
        let (copied, last) = {
            let faults = self.faults.lock();
            let copied = self.copy_out(about, staging, end, |encoder| {
                encoder.copy_buffer_to_buffer(&fault.raw, 0, &staging.raw, 0, Some(FIRST));
                encoder.copy_buffer_to_buffer(raw, start as u64, &staging.raw, FIRST, Some(bytes));
            })?;
            (copied, faults.last())
        };
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        let (index, mapped) = copied;
        // A panic in the poll of another thread may drop the callback.
        self.wait_for(Some(index), || mapped.get().is_some() || Arc::strong_count(&mapped) == 1)?;
        self.mapped(about, staging, end, &mapped, |view| {
            let (first, data) = view.split_at(FIRST as usize);
            out.copy_from_slice(&data[skipped..skipped + length]);
            (first.iter().all(|&byte| byte == 0), last)
        })
    }

    /// Brings all words of the faults here and clears them, in one step of the device, with no run between. Not to be
    /// interrupted: the words would be lost. Raises the first bad index that is new; another thread may have been first.
    fn learn(&self) -> Result<()> {
        let staging = self.block(Use::Staging, FAULT_BYTES as usize)?;
        let fault = self.fault_block()?;
        let about = || "gpu: read a fault".to_owned();
        let mut faults = self.faults.lock();
        let (index, mapped) = self.copy_out(about, &staging, FAULT_BYTES, |encoder| {
            encoder.copy_buffer_to_buffer(&fault.raw, 0, &staging.raw, 0, Some(FAULT_BYTES));
            encoder.clear_buffer(&fault.raw, 0, Some(FAULT_BYTES));
        })?;
        let is_called = || mapped.get().is_some() || Arc::strong_count(&mapped) == 1;
        self.wait_unless(Some(index), is_called, || Ok(()))?;
        let words: Vec<u32> =
            self.mapped(about, &staging, FAULT_BYTES, &mapped, bytemuck::pod_collect_to_vec::<u8, u32>)?;
        let new = faults.learn(&words);
        self.has_met.fetch_or(new.is_some(), Ordering::Release);
        drop(faults);
        self.give_back(staging);
        new.map_or(Ok(()), Err)
    }

    /// Hands over copies into a staging block of so many bytes, to be mapped when they are done.
    fn copy_out(
        &self,
        about: impl Fn() -> String,
        staging: &Block,
        end: u64,
        encode: impl FnOnce(&mut CommandEncoder),
    ) -> Result<Copied> {
        let mapped = Arc::new(OnceLock::new());
        let index = self.guarded(about, || {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            encode(&mut encoder);
            let done = mapped.clone();
            encoder.map_buffer_on_submit(&staging.raw, MapMode::Read, 0..end, move |result| {
                _ = done.set(result.is_ok());
            });
            Ok(self.submit(Some(encoder.finish())))
        })?;
        Ok((index, mapped))
    }

    /// Takes the bytes out of a staging block once it is mapped, or what was to tell of it is gone, and unmaps it.
    fn mapped<T>(
        &self,
        about: impl Fn() -> String,
        staging: &Block,
        end: u64,
        mapped: &OnceLock<bool>,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        self.guarded(about, || {
            let refused = || Error::new(ErrorKind::Device, "gpu: the driver did not give the bytes");
            if mapped.get() == Some(&false) {
                return Err(refused());
            }
            // No answer: the poll that was about to bring it panicked, after the memory had been mapped.
            let taken = take(&staging.raw.get_mapped_range(0..end).map_err(|_| refused())?);
            staging.raw.unmap();
            Ok(taken)
        })
    }

    /// Waits for a submission or the last one, in slices that let the user stop, and for what is to be called after it:
    /// the poll of another thread may be about to do so. One thread polls at a time: wgpu panics if a wait that timed out
    /// finds that another thread's poll has emptied the queue since.
    pub(super) fn wait_for(&self, index: Option<SubmissionIndex>, is_called: impl Fn() -> bool) -> Result<()> {
        self.wait_unless(index, is_called, || {
            par::poll().map_err(|par::Stopped| Error::new(ErrorKind::Interrupted, "the run was interrupted"))
        })
    }

    fn wait_unless(
        &self,
        index: Option<SubmissionIndex>,
        is_called: impl Fn() -> bool,
        stop: impl Fn() -> Result<()>,
    ) -> Result<()> {
        loop {
            self.check()?;
            let wait = PollType::Wait { submission_index: index.clone(), timeout: Some(SLICE) };
            let turn = self.polling.lock();
            let polled = contained(|| self.device.poll(wait));
            drop(turn);
            match polled {
                Ok(Ok(_)) if is_called() => return self.check(),
                Ok(Ok(_)) => thread::yield_now(),
                Ok(Err(PollError::Timeout)) => {}
                Ok(Err(error)) => return Err(Error::internal(format!("gpu: {error}"))),
                Err(panic) if panic.contains(EMPTIED) => {}
                Err(panic) => self.health.lose(&panic),
            }
            stop()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::device;
    use super::*;

    #[test]
    fn bytes_are_read_though_the_answer_was_lost() {
        let Some(context) = device() else { return };
        let buffer = context.upload(&[1, 2, 3, 4]).unwrap();
        let staging = context.block(Use::Staging, 4).unwrap();
        let copy =
            |encoder: &mut CommandEncoder| encoder.copy_buffer_to_buffer(buffer.raw(), 0, &staging.raw, 0, Some(4));
        let (index, answer) = context.copy_out(String::new, &staging, 4, copy).unwrap();
        context.wait_for(Some(index), || answer.get().is_some()).unwrap();
        let lost = OnceLock::new();
        assert_eq!(context.mapped(String::new, &staging, 4, &lost, <[u8]>::to_vec).unwrap(), [1, 2, 3, 4]);
        // Now it is not mapped.
        let error = context.mapped(String::new, &staging, 4, &lost, <[u8]>::to_vec).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device);
    }
}

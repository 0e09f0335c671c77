//! Reads: from the device into memory of this process. They wait, bring faults along, and can be interrupted.

use super::buffer::{Block, Buffer, Use, whole_words};
use super::context::{Context, FAULT_BYTES};
use super::failure::contained;
use super::failure::fault_name;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::cpu::par;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;
use wgpu::{MapMode, PollError, PollType, SubmissionIndex};

/// Between two looks at whether the user wants to stop.
const SLICE: Duration = Duration::from_millis(50);
/// What wgpu's panic says when the submission of another thread empties the queue between two steps of a poll: the device
/// is well.
const EMPTIED: &str = "If the queue is empty";
/// Bytes that are read at once.
const PIECE: usize = 64 << 20;

impl Context {
    /// Waits for the bytes from `first_byte` on. If a kernel met a bad index since the last read, of whichever thread, the
    /// fault is cleared and IndexError comes instead.
    pub fn read(&self, buffer: &Buffer, first_byte: usize, out: &mut [u8]) -> Result<()> {
        self.owns(buffer.binding())?;
        if first_byte + out.len() > buffer.len() {
            return Err(Error::internal(format!("gpu: read {} bytes at {first_byte} of {buffer:?}", out.len())));
        }
        // A stop that was meant for an earlier run is over.
        par::begin();
        if out.is_empty() {
            return self.piece(buffer, 0, out);
        }
        for (n, piece) in out.chunks_mut(PIECE).enumerate() {
            self.piece(buffer, first_byte + n * PIECE, piece)?;
        }
        Ok(())
    }

    /// Waits until all work that was handed over is done. Faults stay for the next read.
    pub fn wait(&self) -> Result<()> {
        par::begin();
        self.wait_for(None, || true)
    }

    fn piece(&self, buffer: &Buffer, first_byte: usize, out: &mut [u8]) -> Result<()> {
        self.catch_up()?;
        // Copies take whole words; the fault comes first.
        let skipped = first_byte % 4;
        let end = FAULT_BYTES + whole_words(skipped + out.len());
        let staging = self.block(Use::Staging, end as usize)?;
        match self.through(&staging, buffer, first_byte - skipped, skipped, out) {
            Ok(fault) => {
                self.give_back(staging);
                if fault[0] == 0 { Ok(()) } else { Err(self.clear_fault(fault)) }
            }
            // The device may still write to it.
            Err(error) => {
                self.free(vec![staging]);
                Err(error)
            }
        }
    }

    /// Reads through a staging block: after its words of fault come those of the buffer from `start` on, of which the first
    /// bytes are skipped. Gives the fault.
    fn through(
        &self,
        staging: &Block,
        buffer: &Buffer,
        start: usize,
        skipped: usize,
        out: &mut [u8],
    ) -> Result<[u32; 4]> {
        let bytes = whole_words(skipped + out.len());
        let end = FAULT_BYTES + bytes;
        let fault = self.fault()?.block;
        let mapped = Arc::new(OnceLock::new());
        let length = out.len();
        let about = || format!("gpu: read {length} bytes");
        let index = self.guarded(about, || {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(&fault.raw, 0, &staging.raw, 0, Some(FAULT_BYTES));
            encoder.copy_buffer_to_buffer(buffer.raw(), start as u64, &staging.raw, FAULT_BYTES, Some(bytes));
            let done = mapped.clone();
            encoder.map_buffer_on_submit(&staging.raw, MapMode::Read, 0..end, move |result| {
                _ = done.set(result.is_ok());
            });
            Ok(self.submit(Some(encoder.finish())))
        })?;
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        // A panic in the poll of another thread may drop the callback.
        self.wait_for(Some(index), || mapped.get().is_some() || Arc::strong_count(&mapped) == 1)?;
        self.guarded(about, || {
            if mapped.get() != Some(&true) {
                return Err(Error::new(ErrorKind::Device, "gpu: the driver did not give the bytes"));
            }
            take(staging, skipped, end, out)
        })
    }

    /// Clears a fault once it is known here, so that an interrupted read does not lose it. Gives the error that it stands
    /// for.
    fn clear_fault(&self, [code, low, high, limit]: [u32; 4]) -> Error {
        let cleared = self.guarded(
            || "gpu: clear a fault".to_owned(),
            || {
                let mut encoder = self.device.create_command_encoder(&Default::default());
                encoder.clear_buffer(&self.fault()?.block.raw, 0, Some(FAULT_BYTES));
                self.submit(Some(encoder.finish()));
                Ok(())
            },
        );
        let index = (i64::from(high as i32) << 32) | i64::from(low);
        let op = fault_name(code);
        let error = Error::index(format!("{op}: index {index} is out of range for an axis of size {limit}"));
        cleared.err().unwrap_or(error)
    }

    /// Waits for a submission or the last one, in slices that let the user stop, and for what is to be called after it:
    /// the poll of another thread may be about to do so. One thread polls at a time: wgpu panics if a wait that timed out
    /// finds that another thread's poll has emptied the queue since.
    pub(super) fn wait_for(&self, index: Option<SubmissionIndex>, is_called: impl Fn() -> bool) -> Result<()> {
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
            par::poll().map_err(|par::Stopped| Error::new(ErrorKind::Interrupted, "the run was interrupted"))?;
        }
    }
}

/// Takes the bytes out of a mapped block and unmaps it; gives the words of the fault.
fn take(staging: &Block, skipped: usize, end: u64, out: &mut [u8]) -> Result<[u32; 4]> {
    let fault = {
        let view = staging.raw.get_mapped_range(0..end).map_err(|error| Error::internal(format!("gpu: {error}")))?;
        let (fault, data) = view.split_at(FAULT_BYTES as usize);
        out.copy_from_slice(&data[skipped..skipped + out.len()]);
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(fault.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        words
    };
    staging.raw.unmap();
    Ok(fault)
}

//! Bad indices. A kernel cannot stop for one: it clamps the index and notes it in a few words of its device. Kernels that
//! write over old values then write nothing, until a read has brought the words here, raised the error and cleared them.
//! Owns which runs met a bad index and which wrote nothing, so that the host can tell which values depend on one.

use super::buffer::{Binding, Block, Buffer, Use};
use super::context::Context;
use super::run::Dispatch;
use crate::error::{Error, Result};
use crate::machine::lock::{Guard, Lock};
use crate::machine::storage::Fate;
use std::collections::BTreeMap;
use std::process;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Runs that each have a record of their own, by their number; a later one may share it.
const RECORDS: u64 = 64;
/// Words of a record: the number of the run, the code of what met the index, its low and high word, the extent.
const WORDS: u64 = 8;
/// The first word of all is the number of the first run that met a bad index since the words were cleared; then come the
/// records.
pub(super) const FAULT_BYTES: u64 = 4 * WORDS * (1 + RECORDS);

/// The ops and axes that took a bad index, by their code less one. Few: one for each axis of each op that takes indices.
static CODES: Lock<Vec<(&'static str, u32)>> = Lock::new(Vec::new());

/// The code that a kernel of this name puts down for an index along this axis.
pub fn fault_code(name: &'static str, axis: u32) -> u32 {
    let mut codes = CODES.lock();
    let at = codes.iter().position(|&known| known == (name, axis)).unwrap_or_else(|| {
        codes.push((name, axis));
        codes.len() - 1
    });
    at as u32 + 1
}

/// What a run met.
#[derive(Clone, Copy)]
struct Fault {
    code: u32,
    index: i64,
    extent: u32,
}

impl Fault {
    fn error(&self) -> Error {
        let (op, axis) = CODES.lock().get(self.code as usize - 1).copied().unwrap_or(("gpu", 0));
        let Fault { index, extent, .. } = self;
        Error::index(format!("{op}: index {index} is out of range for axis {axis} of size {extent}"))
    }
}

/// The runs whose indices a value depends on: none, or some from the first to the last of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubt(Option<[u64; 2]>);

impl Doubt {
    pub fn of(run: u64) -> Doubt {
        Doubt(Some([run, run]))
    }

    pub fn and(self, other: Doubt) -> Doubt {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Doubt(Some([a[0].min(b[0]), a[1].max(b[1])])),
            (a, b) => Doubt(a.or(b)),
        }
    }
}

/// What is known of the runs of a context. Held while a run is handed over, so that the device does them in the order of
/// their numbers.
#[derive(Default)]
pub(super) struct Faults {
    /// The number of the last run.
    last: u64,
    /// Of the runs up to this one it is known what they met.
    judged: u64,
    met: BTreeMap<u64, Fault>,
    /// From a run that met a bad index to the last one before it was raised: they wrote over nothing.
    void: Vec<[u64; 2]>,
}

impl Faults {
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The runs up to this one met no bad index but those that are known.
    pub fn clear_up_to(&mut self, run: u64) {
        self.judged = self.judged.max(run);
    }

    /// Takes the words in, as they were after the last run. Gives the first bad index that is new.
    pub fn learn(&mut self, words: &[u32]) -> Option<Error> {
        // Words of the device have the low half of a number.
        let number = |low: u32| self.last - u64::from((self.last as u32).wrapping_sub(low));
        if words[0] == 0 {
            self.judged = self.last;
            return None;
        }
        let first = number(words[0]);
        for record in words.chunks_exact(WORDS as usize).skip(1).filter(|record| record[0] != 0) {
            let index = (i64::from(record[3] as i32) << 32) | i64::from(record[2]);
            let fault = Fault { code: record[1], index, extent: record[4] };
            // Later runs that share the record may have met one too.
            let run = number(record[0]);
            self.met.extend((run..=self.last).step_by(RECORDS as usize).map(|run| (run, fault)));
        }
        self.void.push([first, self.last]);
        self.judged = self.last;
        self.met.get(&first).map(Fault::error)
    }

    /// The error of a value, if it is known to depend on a bad index.
    pub fn error(&self, doubt: Doubt) -> Option<Error> {
        let [first, last] = doubt.0?;
        self.met.range(first..=last).next().map(|(_, fault)| fault.error())
    }

    /// A doubt without the runs that are known to be well.
    pub fn remaining(&self, doubt: Doubt) -> Doubt {
        match doubt.0 {
            Some([first, last]) if self.error(doubt).is_none() => {
                Doubt((last > self.judged).then_some([first.max(self.judged + 1), last]))
            }
            _ => doubt,
        }
    }

    fn fate(&self, run: u64) -> Fate {
        match self.void.iter().rev().any(|[first, last]| (*first..=*last).contains(&run)) {
            true => Fate::Void,
            false if run > self.judged => Fate::Unknown,
            false => Fate::Done,
        }
    }
}

/// The right to hand over the next run.
pub struct Turn<'a> {
    context: &'a Context,
    /// For the parameters of the run.
    params: Option<Block>,
    faults: Guard<'a, Faults>,
}

impl Context {
    /// For a run with so many words of parameters. Waits only if the device is far behind or its memory is full, and before
    /// it is this run's turn: other threads need not wait for that.
    pub fn turn(&self, words: usize) -> Result<Turn<'_>> {
        self.check()?;
        self.catch_up()?;
        let params = if words > 0 { Some(self.block(Use::Params, words * 4)?) } else { None };
        Ok(Turn { context: self, params, faults: self.faults.lock() })
    }

    /// The words of the device that kernels note bad indices in.
    pub fn fault(&self) -> Result<Binding<'_>> {
        Ok(Binding { block: self.fault_block()?, bytes: FAULT_BYTES, serial: self.serial() })
    }

    pub(super) fn fault_block(&self) -> Result<&Block> {
        self.fault.get().ok_or_else(|| Error::internal("gpu: the context is not complete"))
    }
}

impl Turn<'_> {
    /// The number of the run; its low word is never zero.
    pub fn number(&self) -> u64 {
        let next = self.faults.last + 1;
        next + u64::from(next as u32 == 0)
    }

    /// The word where the run's record begins.
    pub fn record(&self) -> u32 {
        (WORDS * (1 + self.number() % RECORDS)) as u32
    }

    /// What is not known to be well of a buffer that the run reads; an error if it is known to be bad.
    pub fn doubt(&self, buffer: &Buffer) -> Result<Doubt> {
        let doubt = buffer.doubt();
        match self.faults.error(doubt) {
            Some(error) => Err(error),
            None => Ok(self.faults.remaining(doubt)),
        }
    }

    /// Runs kernels one after another. `params` are the words of all their parameter blocks.
    pub fn run(mut self, params: &[u32], dispatches: &[Dispatch<'_>]) -> Result<()> {
        self.faults.last = self.number();
        self.context.hand_over(params, self.params.as_ref(), dispatches)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // The next writer of the block comes after this submission.
        self.params.take().into_iter().for_each(|block| self.context.give_back(block));
    }
}

impl Buffer {
    pub fn doubt(&self) -> Doubt {
        *self.doubt.lock()
    }

    /// Says which runs with indices the content depends on.
    pub fn set_doubt(&self, doubt: Doubt) {
        *self.doubt.lock() = doubt;
    }

    /// Says which run wrote the content.
    pub fn set_written(&self, run: u64) {
        self.written.store(run, Ordering::Relaxed);
    }

    /// The run that wrote the content.
    pub fn written(&self) -> Ticket {
        Ticket { context: Arc::downgrade(self.context()), run: self.written.load(Ordering::Relaxed) }
    }

    /// The error, if the content is known to depend on a bad index.
    pub fn error(&self) -> Option<Error> {
        let doubt = self.doubt();
        let context = self.context();
        if doubt == Doubt::default() || context.pid != process::id() || !context.has_met.load(Ordering::Acquire) {
            return None;
        }
        context.faults.lock().error(doubt)
    }
}

/// A run of a device, to be asked later what became of it.
#[derive(Clone, Debug)]
pub struct Ticket {
    context: Weak<Context>,
    run: u64,
}

impl Ticket {
    /// What became of the run, as far as that is known. On a lost device there is nothing to undo.
    pub fn fate(&self) -> Fate {
        match self.context.upgrade() {
            Some(context) if context.pid == process::id() && !context.health.is_lost() => {
                context.faults.lock().fate(self.run)
            }
            _ => Fate::Done,
        }
    }

    /// Whether both runs are of one device.
    pub fn is_beside(&self, other: &Ticket) -> bool {
        self.context.ptr_eq(&other.context)
    }

    /// Waits until it is known; raises a bad index that is new.
    pub fn judge(&self) -> Result<()> {
        self.context.upgrade().map_or(Ok(()), |context| context.judge())
    }
}

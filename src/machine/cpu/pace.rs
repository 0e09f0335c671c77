//! Whether it pays now to share work that one thread can do alone. What one core wrote and another reads costs little
//! where they share a cache and more than it saves where they do not, and a helper may have no core of its own; no plan
//! can know. So both ways are tried from time to time, and the faster is kept until the next trial. Bits are the same.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Runs of each way in a trial; the first half finds the caches as the other way left them.
const TRIAL: u32 = 4;
/// Runs from one trial to the next.
const PERIOD: u32 = 256;

/// Many threads may ask at once; a count lost between them does no harm.
#[derive(Debug)]
pub struct Pace {
    runs: AtomicU32,
    /// Shortest nanoseconds in the last trial: shared, alone.
    best: [AtomicU64; 2],
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { runs: AtomicU32::new(0), best: [const { AtomicU64::new(u64::MAX) }; 2] }
    }
}

impl Pace {
    /// Whether the next run is to be shared.
    pub fn shares(&self) -> bool {
        match self.runs.load(Ordering::Relaxed) {
            0..TRIAL => true,
            runs if runs < 2 * TRIAL => false,
            _ => self.best[0].load(Ordering::Relaxed) <= self.best[1].load(Ordering::Relaxed),
        }
    }

    /// The time of the run that was asked for.
    pub fn ran(&self, time: Duration) {
        let runs = self.runs.load(Ordering::Relaxed);
        if runs < 2 * TRIAL && runs % TRIAL >= TRIAL / 2 {
            self.best[(runs / TRIAL) as usize].fetch_min(time.as_nanos() as u64, Ordering::Relaxed);
        }
        if runs + 1 == PERIOD {
            self.best.iter().for_each(|best| best.store(u64::MAX, Ordering::Relaxed));
        }
        self.runs.store((runs + 1) % PERIOD, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs with these nanoseconds, shared and alone; how many were shared.
    fn shared(pace: &Pace, runs: u32, shared: u64, alone: u64) -> u32 {
        let mut count = 0;
        for _ in 0..runs {
            let shares = pace.shares();
            count += u32::from(shares);
            pace.ran(Duration::from_nanos(if shares { shared } else { alone }));
        }
        count
    }

    #[test]
    fn the_faster_way_is_kept_until_the_machine_changes() {
        let pace = Pace::default();
        assert_eq!(shared(&pace, PERIOD, 250, 400), PERIOD - TRIAL);
        assert_eq!(shared(&pace, PERIOD, 500, 400), TRIAL);
        assert_eq!(shared(&pace, PERIOD, 250, 400), PERIOD - TRIAL);
    }

    #[test]
    fn the_first_runs_of_a_trial_do_not_count() {
        let pace = Pace::default();
        shared(&pace, TRIAL / 2, 9000, 9000);
        shared(&pace, TRIAL / 2, 250, 9000);
        shared(&pace, TRIAL / 2, 250, 200);
        shared(&pace, TRIAL / 2, 250, 400);
        assert!(pace.shares());
    }
}

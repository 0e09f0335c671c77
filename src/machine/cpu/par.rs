//! Threads: `par` runs independent items over a private pool, and `poll` lets the user stop a long run.
//!
//! The calling thread takes its share of the items and never waits for a helper that has not started, so a sleeping
//! helper costs one wake-up call and no more; after its share a helper looks out for the next run for a short while.
//! Each thread has a range of the items, the same one in each run of as many, so that what it wrote in one run is in its
//! cache in the next; one that is through takes items of the others. Who runs an item must not change its result. Only
//! the thread that called in ever runs the poll hook; helpers read the stop flag of their run.
//! A team of helpers belongs to one process id: a forked child makes its own and leaves the parent's alone.

use std::any::Any;
use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

/// The poll hook asked for an end: the items not yet started were skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// How much a kernel has to do: decides whether waking helpers can pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Multiply-adds of a matrix product.
    MulAdds(usize),
    /// Elements of loads, stores and plain arithmetic.
    Plain(usize),
    /// Elements of exp, tanh and the like.
    Transcendental(usize),
    /// A stage of a plan, found large when it was planned.
    Stage,
}

impl Work {
    fn is_large(self) -> bool {
        match self {
            Work::MulAdds(n) => n >= 4 << 20,
            Work::Plain(n) => n >= 256 << 10,
            Work::Transcendental(n) => n >= 64 << 10,
            Work::Stage => true,
        }
    }
}

const POLL_MS: u64 = 50;
/// Turns of looking out before a thread sleeps, about 100 µs in all: waking costs 10 µs, and as much as 70 µs pass until
/// the thread runs. Each turn yields, for the threads may share a core.
const TURNS: usize = 120;
/// Looks in a turn; more in the first, for the next kernel is mostly near.
const SPINS: usize = 32;
const FIRST_SPINS: usize = 256;
const MAX_THREADS: usize = 256;

static THREADS: AtomicUsize = AtomicUsize::new(0);
static HOOK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static TEAMS: AtomicPtr<Team> = AtomicPtr::new(ptr::null_mut());

thread_local! {
    /// Whether the hook asked this thread's run to stop.
    static STOPPED: Cell<bool> = const { Cell::new(false) };
    /// The run this thread works in, if any.
    static SHARE: Cell<Option<Share>> = const { Cell::new(None) };
    static POLLED_MS: Cell<u64> = const { Cell::new(0) };
}

#[derive(Clone, Copy)]
struct Share {
    stop: *const AtomicBool,
    is_helper: bool,
}

/// Threads that a run may use, the calling one included: `WENGERT_NUM_THREADS`, or as many as the system grants.
pub fn num_threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let asked = std::env::var("WENGERT_NUM_THREADS").ok().and_then(|text| text.trim().parse().ok());
            set_num_threads(
                asked.filter(|&n| n > 0).unwrap_or_else(|| thread::available_parallelism().map_or(1, Into::into)),
            );
            THREADS.load(Ordering::Relaxed)
        }
        n => n,
    }
}

/// Results never depend on this number. Runs already under way keep theirs.
pub fn set_num_threads(n: usize) {
    THREADS.store(n.clamp(1, MAX_THREADS), Ordering::Relaxed);
}

/// Registers what `poll` asks: true means stop. It runs only on threads that call `par` or `poll` from outside a run.
pub fn set_poll(hook: fn() -> bool) {
    HOOK.store(hook as *mut (), Ordering::Release);
}

/// How many threads `par` would use for this work, from this thread, now: for kernels that cut their work by it.
pub fn width(work: Work) -> usize {
    if work.is_large() && SHARE.get().is_none() { num_threads() } else { 1 }
}

/// Forgets that an earlier run of this thread was stopped. Call it when a run starts.
pub fn begin() {
    STOPPED.set(false);
}

/// Asks the hook if 50 ms have passed on this thread, and a helper's run whether it was stopped. Call it between kernels.
pub fn poll() -> Result<(), Stopped> {
    let share = SHARE.get();
    // SAFETY: a share is in place only while its run, which owns the flag, is alive on this thread.
    let stop = share.map(|share| unsafe { &*share.stop });
    if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
        return Err(Stopped);
    }
    if share.is_some_and(|share| share.is_helper) {
        return Ok(());
    }
    // A stop that a kernel saw and could not report is still there for the executor.
    if !STOPPED.get() {
        if !is_due() || !ask_hook() {
            return Ok(());
        }
        STOPPED.set(true);
    }
    if let Some(stop) = stop {
        stop.store(true, Ordering::Relaxed);
    }
    Err(Stopped)
}

/// Runs `f` without polls: what it starts on this thread is finished whatever the user wants.
pub fn without_polls<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(u64);
    impl Drop for Restore {
        fn drop(&mut self) {
            POLLED_MS.set(self.0);
        }
    }
    // A poll in the far future is never long ago.
    let _restore = Restore(POLLED_MS.replace(u64::MAX));
    f()
}

fn is_due() -> bool {
    coarse_ms().saturating_sub(POLLED_MS.get()) >= POLL_MS
}

fn ask_hook() -> bool {
    let hook = HOOK.load(Ordering::Acquire);
    if hook.is_null() {
        return false;
    }
    // SAFETY: only `set_poll` writes a pointer that is not null, and it writes a `fn() -> bool`.
    let hook = unsafe { std::mem::transmute::<*mut (), fn() -> bool>(hook) };
    let stop = hook();
    POLLED_MS.set(coarse_ms());
    stop
}

/// Milliseconds of a steady clock, a few of them coarse: a fifth of the cost of an exact one.
#[cfg(target_os = "linux")]
fn coarse_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec; this clock exists on every Linux that Rust supports.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

#[cfg(not(target_os = "linux"))]
fn coarse_ms() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    // The offset makes a thread's first poll due, as on Linux.
    START.get_or_init(Instant::now).elapsed().as_millis() as u64 + POLL_MS
}

/// Runs `f(0)` … `f(n - 1)`, in any order, on this thread and, if the work is large, on helpers.
///
/// Inside an item of another run it is serial and stops with that run. After a stop no further item starts. A panic of
/// `f` is raised again here, after every helper has left `f`.
pub fn par(n: usize, work: Work, f: &(dyn Fn(usize) + Sync)) -> Result<(), Stopped> {
    let threads = width(work);
    if threads.min(n) > 1 {
        let helpers = team(threads - 1);
        run_with(&helpers[..helpers.len().min(n - 1)], n, f)
    } else {
        (0..n).try_for_each(|item| poll().map(|()| f(item)))
    }
}

/// One call of `par`, on its caller's stack: `close` returns after the last use.
struct Run {
    f: *const (dyn Fn(usize) + Sync),
    n: usize,
    /// The next item of each thread's range; the first is the caller's.
    next: SmallVec<[Cursor; 4]>,
    /// Helpers that may still use this, plus `SLEEPS`.
    inside: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    caller: Thread,
}

/// In a cache line of its own: each thread mostly counts its own items.
#[repr(align(64))]
struct Cursor(AtomicUsize);

/// The caller sleeps until the last helper has left.
const SLEEPS: usize = 1 << (usize::BITS - 1);

fn run_with(helpers: &[Helper], n: usize, f: &(dyn Fn(usize) + Sync)) -> Result<(), Stopped> {
    // SAFETY: only the lifetime changes. `close` below returns after the last use of `f`, and nothing between here and
    // there unwinds: `work` catches panics of `f` and of the hook.
    let f = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
    let run = Run {
        f,
        n,
        next: (0..=helpers.len()).map(|thread| Cursor(share(thread, helpers.len() + 1, n).start.into())).collect(),
        inside: AtomicUsize::new(helpers.len()),
        stop: AtomicBool::new(false),
        panic: Mutex::new(None),
        caller: thread::current(),
    };
    for helper in helpers {
        if !helper.post(&run) {
            run.inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
    run.work(0);
    run.close(helpers);
    if let Some(payload) = run.panic.lock().take() {
        resume_unwind(payload);
    }
    if run.stop.load(Ordering::Relaxed) { Err(Stopped) } else { Ok(()) }
}

/// Number `part` of so many equal parts of `0..n`. Items, rows and columns are all cut like this, so that a thread meets in
/// one kernel what it wrote in another.
#[inline]
pub fn share(part: usize, parts: usize, n: usize) -> Range<usize> {
    part * n / parts..(part + 1) * n / parts
}

impl Run {
    /// Runs the items of this thread's range, then what is left of the others.
    fn work(&self, thread: usize) {
        self.guarded(thread > 0, || {
            // SAFETY: the caller is in `run_with`, before the end of `close`.
            let f = unsafe { &*self.f };
            let threads = self.next.len();
            for owner in (thread..threads).chain(0..thread) {
                let (next, end) = (&self.next[owner].0, share(owner, threads, self.n).end);
                // Read first: a range that is through stays in the caches of all.
                while next.load(Ordering::Relaxed) < end {
                    if poll().is_err() {
                        return;
                    }
                    let item = next.fetch_add(1, Ordering::Relaxed);
                    if item < end {
                        f(item);
                    }
                }
            }
        });
    }

    /// Runs `f` as a share of this run; a panic is kept for the caller and ends the run.
    fn guarded(&self, is_helper: bool, f: impl FnOnce()) {
        let outer = SHARE.replace(Some(Share { stop: &self.stop, is_helper }));
        let result = catch_unwind(AssertUnwindSafe(f));
        SHARE.set(outer);
        if let Err(payload) = result {
            self.stop.store(true, Ordering::Relaxed);
            self.panic.lock().get_or_insert(payload);
        }
    }

    /// # Safety
    /// The calling helper took `run` from its mail and has not left it. From here on the run may be gone.
    unsafe fn leave(run: *const Run) {
        // SAFETY: the run is there until the exchange below is done.
        let (inside, caller) = unsafe { (&(*run).inside, &(*run).caller) };
        let mut now = inside.load(Ordering::Relaxed);
        loop {
            let sleeper = (now == SLEEPS + 1).then(|| caller.clone());
            match inside.compare_exchange_weak(now, now - 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return sleeper.iter().for_each(Thread::unpark),
                Err(seen) => now = seen,
            }
        }
    }

    /// Takes the run back from helpers that have not come to it and waits for the others.
    fn close(&self, helpers: &[Helper]) {
        let mut turns = 0;
        let inside = || self.inside.load(Ordering::Acquire) & !SLEEPS;
        if inside() > 0 {
            let back = helpers.iter().filter(|helper| helper.take_back(self)).count();
            self.inside.fetch_sub(back, Ordering::Relaxed);
        }
        while inside() > 0 {
            if turns < TURNS {
                look_out(turns, || inside() == 0);
                turns += 1;
            } else {
                if self.inside.fetch_or(SLEEPS, Ordering::Relaxed) & !SLEEPS > 0 {
                    thread::park_timeout(Duration::from_millis(POLL_MS));
                }
                self.guarded(false, || _ = poll());
            }
        }
    }
}

/// One turn of waiting for `seen`.
fn look_out(turn: usize, seen: impl Fn() -> bool) {
    let spins = if turn == 0 { FIRST_SPINS } else { SPINS };
    for _ in 0..spins {
        if seen() {
            return;
        }
        std::hint::spin_loop();
    }
    thread::yield_now();
}

struct Helper {
    mail: &'static Mail,
    thread: Thread,
}

/// Where a helper finds its next run.
#[repr(align(64))]
struct Mail {
    /// Its thread number in the runs of its team.
    thread: usize,
    /// Who takes a run out must leave it: the helper after its work, or the run's caller at the end.
    run: AtomicPtr<Run>,
    is_asleep: AtomicBool,
}

impl Helper {
    fn start(thread: usize) -> Option<Helper> {
        let (run, is_asleep) = (AtomicPtr::new(ptr::null_mut()), AtomicBool::new(false));
        let mail: &Mail = Box::leak(Box::new(Mail { thread, run, is_asleep }));
        let handle = thread::Builder::new().name(format!("wengert-{thread}")).spawn(|| mail.serve()).ok()?;
        Some(Helper { mail, thread: handle.thread().clone() })
    }

    /// Whether the helper's mail was empty: another caller's run is left there.
    fn post(&self, run: &Run) -> bool {
        let run = ptr::from_ref(run).cast_mut();
        // In one order with `is_asleep`, as the two are read crosswise: either the helper sees the run, or we see it
        // asleep.
        let empty = ptr::null_mut();
        let is_posted = self.mail.run.compare_exchange(empty, run, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if self.mail.is_asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        is_posted
    }

    /// Whether the run was still in the helper's mail.
    fn take_back(&self, run: &Run) -> bool {
        let run = ptr::from_ref(run).cast_mut();
        self.mail.run.compare_exchange(run, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Mail {
    fn serve(&self) {
        let mut turns = 0;
        loop {
            // Read first, so that the line stays where the next caller writes it.
            let is_posted = !self.run.load(Ordering::Relaxed).is_null();
            let run = if is_posted { self.run.swap(ptr::null_mut(), Ordering::Acquire) } else { ptr::null_mut() };
            if !run.is_null() {
                // SAFETY: its caller waits until a run that was taken from the mail is left.
                unsafe {
                    (*run).work(self.thread);
                    Run::leave(run);
                }
                turns = 0;
            } else if turns < TURNS {
                look_out(turns, || !self.run.load(Ordering::Relaxed).is_null());
                turns += 1;
            } else {
                self.is_asleep.store(true, Ordering::SeqCst);
                if self.run.load(Ordering::SeqCst).is_null() {
                    thread::park();
                }
                self.is_asleep.store(false, Ordering::SeqCst);
                turns = 0;
            }
        }
    }
}

/// The teams made so far, newest first. None is ever freed: a run may use it, and in a forked child its threads do not
/// exist. There is one for each thread count asked for in this process.
struct Team {
    pid: u32,
    size: usize,
    helpers: OnceLock<Vec<Helper>>,
    older: *const Team,
}

/// `size` helpers of this process.
fn team(size: usize) -> &'static [Helper] {
    let pid = std::process::id();
    let mut newest = TEAMS.load(Ordering::Acquire);
    let mut made: Option<Box<Team>> = None;
    let team = loop {
        if let Some(found) = find(newest, pid, size) {
            break found;
        }
        // Not started yet: if another thread is first, this one goes away.
        let mut team =
            made.take().unwrap_or_else(|| Box::new(Team { pid, size, helpers: OnceLock::new(), older: newest }));
        team.older = newest;
        let raw: *mut Team = &mut *team;
        match TEAMS.compare_exchange(newest, raw, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break Box::leak(team),
            Err(now) => (newest, made) = (now, Some(team)),
        }
    };
    // The system may grant fewer threads.
    team.helpers.get_or_init(|| (1..=size).map_while(Helper::start).collect())
}

fn find(mut team: *const Team, pid: u32, size: usize) -> Option<&'static Team> {
    // SAFETY: teams in the list are complete and never freed.
    while let Some(at) = unsafe { team.as_ref() } {
        if at.pid == pid && at.size == size {
            return Some(at);
        }
        team = at.older;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const LARGE: Work = Work::MulAdds(usize::MAX);

    thread_local! {
        static ASKED: Cell<usize> = const { Cell::new(0) };
        static STOP_AT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// Helpers and other tests have their own counts, so only the thread that sets `STOP_AT` can be stopped.
    fn hook() -> bool {
        ASKED.set(ASKED.get() + 1);
        ASKED.get() >= STOP_AT.get()
    }

    #[test]
    fn each_item_runs_once_for_any_thread_count() {
        for threads in 1..=4 {
            set_num_threads(threads);
            for n in [0, 1, 2, 3, 100] {
                let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                par(n, LARGE, &|i| _ = counts[i].fetch_add(1, Ordering::Relaxed)).unwrap();
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn shares_cover_all_items_once() {
        for (threads, n) in [(1, 5), (2, 5), (3, 2), (4, 100), (7, 0)] {
            let shares: Vec<Range<usize>> = (0..threads).map(|thread| share(thread, threads, n)).collect();
            assert!(shares.iter().cloned().flatten().eq(0..n));
            assert!(shares.iter().all(|share| share.len() <= n.div_ceil(threads)));
        }
    }

    #[test]
    fn each_thread_runs_its_own_range_first() {
        let caller = thread::current().id();
        // The helper may come late once, or another test change the number of threads, but not each time.
        let shared = (0..20).any(|_| {
            set_num_threads(2);
            let order = Mutex::new(Vec::new());
            par(4, LARGE, &|item| {
                order.lock().push((item, thread::current().id() == caller));
                thread::sleep(Duration::from_millis(10));
            })
            .unwrap();
            let mut order = order.into_inner();
            order.sort_unstable();
            order == [(0, true), (1, true), (2, false), (3, false)]
        });
        assert!(shared);
    }

    #[test]
    fn small_work_stays_on_the_calling_thread() {
        let caller = thread::current().id();
        par(100, Work::Plain(1000), &|_| assert_eq!(thread::current().id(), caller)).unwrap();
    }

    #[test]
    fn helpers_take_part_and_nested_runs_are_serial() {
        set_num_threads(4);
        let ids = Mutex::new(Vec::new());
        par(64, LARGE, &|_| {
            let outer = thread::current().id();
            ids.lock().push(outer);
            assert_eq!(width(LARGE), 1);
            par(4, LARGE, &|_| assert_eq!(thread::current().id(), outer)).unwrap();
            thread::sleep(Duration::from_millis(1));
        })
        .unwrap();
        let mut ids = ids.into_inner();
        ids.sort_by_key(|id| format!("{id:?}"));
        ids.dedup();
        assert!(ids.len() > 1);
    }

    #[test]
    fn many_callers_share_a_team() {
        set_num_threads(3);
        let callers: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(|| {
                    for round in 0..5000 {
                        let (n, sum) = (2 + round % 5, AtomicUsize::new(0));
                        par(n, LARGE, &|item| _ = sum.fetch_add(item + 1, Ordering::Relaxed)).unwrap();
                        assert_eq!(sum.into_inner(), n * (n + 1) / 2);
                        if round % 1000 == 0 {
                            thread::sleep(Duration::from_millis(1));
                        }
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        set_num_threads(3);
        for bad in [0, 7, 63] {
            let result = catch_unwind(|| par(64, LARGE, &|i| assert!(i != bad, "item {i}")));
            let payload = result.unwrap_err();
            assert!(payload.downcast_ref::<String>().unwrap().contains("item"));
            assert_eq!(par(64, LARGE, &|_| ()), Ok(()));
        }
    }

    #[test]
    fn a_stop_skips_the_rest_and_belongs_to_one_run() {
        set_poll(hook);
        for threads in [1, 3] {
            set_num_threads(threads);
            let other = thread::spawn(|| par(100, LARGE, &|_| thread::sleep(Duration::from_millis(2))));
            STOP_AT.set(ASKED.get() + 2);
            let ran = AtomicUsize::new(0);
            let result = par(10_000, LARGE, &|_| {
                ran.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            });
            assert_eq!(result, Err(Stopped));
            assert!(ran.load(Ordering::Relaxed) < 1000);
            STOP_AT.set(usize::MAX);
            assert_eq!(poll(), Err(Stopped), "the run that was stopped is not over");
            begin();
            assert_eq!(par(10, LARGE, &|_| ()), Ok(()));
            assert_eq!(other.join().unwrap(), Ok(()));
        }
    }

    #[test]
    fn the_hook_is_asked_at_most_every_50_ms() {
        set_poll(hook);
        let (before, start) = (ASKED.get(), Instant::now());
        while start.elapsed() < Duration::from_millis(220) {
            poll().unwrap();
        }
        assert!((2..=6).contains(&(ASKED.get() - before)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_forked_child_has_its_own_pool() {
        set_num_threads(2);
        par(8, LARGE, &|_| ()).unwrap();
        // SAFETY: the child only computes and leaves by `_exit`.
        match unsafe { libc::fork() } {
            0 => {
                let sum = AtomicUsize::new(0);
                let done = par(100, LARGE, &|i| _ = sum.fetch_add(i, Ordering::Relaxed)).is_ok();
                // SAFETY: ends the child without running the parent's exit handlers.
                unsafe { libc::_exit(if done && sum.into_inner() == 4950 { 0 } else { 1 }) }
            }
            child => {
                let mut status = -1;
                // SAFETY: waits for the child made above.
                unsafe { libc::waitpid(child, &mut status, 0) };
                assert_eq!(status, 0);
            }
        }
    }
}

//! Plans by key. A key is words made by whoever records; a hit compares the whole key. Bounded by the estimated bytes
//! of plans and keys: the plans that were used least recently go first. The lock is held for a lookup only, never while
//! a plan is made or run.

use super::device::DevicePlan;
use crate::machine::lock::Lock;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::sync::Arc;

const DEFAULT_LIMIT: usize = 64 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub hits: u64,
    pub misses: u64,
    pub plans: usize,
    pub bytes: usize,
}

pub struct Cache {
    state: Lock<State>,
}

struct State {
    table: HashTable<Entry>,
    limit: usize,
    bytes: usize,
    hits: u64,
    misses: u64,
    clock: u64,
}

struct Entry {
    hash: u64,
    key: Box<[u64]>,
    plan: Arc<DevicePlan>,
    bytes: usize,
    used: u64,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache::new(DEFAULT_LIMIT)
    }
}

impl Cache {
    pub const fn new(limit: usize) -> Cache {
        let state = State { table: HashTable::new(), limit, bytes: 0, hits: 0, misses: 0, clock: 0 };
        Cache { state: Lock::new(state) }
    }

    /// The plan of exactly this key. Counts a hit or a miss.
    pub fn get(&self, key: &[u64]) -> Option<Arc<DevicePlan>> {
        let hash = hash(key);
        let mut state = self.state.lock();
        state.clock += 1;
        let now = state.clock;
        let found = state.table.find_mut(hash, |entry| entry.hash == hash && *entry.key == *key).map(|entry| {
            entry.used = now;
            Arc::clone(&entry.plan)
        });
        match &found {
            Some(_) => state.hits += 1,
            None => state.misses += 1,
        }
        found
    }

    /// Keeps a plan. If another thread was first, its plan stays and is given back.
    pub fn insert(&self, key: Vec<u64>, plan: Arc<DevicePlan>) -> Arc<DevicePlan> {
        let hash = hash(&key);
        let bytes = plan.bytes() + key.len() * 8 + size_of::<Entry>();
        let mut evicted = Vec::new();
        let mut state = self.state.lock();
        if let Some(entry) = state.table.find(hash, |entry| entry.hash == hash && *entry.key == *key) {
            return Arc::clone(&entry.plan);
        }
        state.bytes += bytes;
        let used = state.clock;
        let entry = Entry { hash, key: key.into(), plan: Arc::clone(&plan), bytes, used };
        state.table.insert_unique(hash, entry, |entry| entry.hash);
        if state.bytes > state.limit {
            state.evict(&mut evicted);
        }
        drop(state);
        drop(evicted);
        plan
    }

    /// The plans that are kept, in no order.
    pub fn plans(&self) -> Vec<Arc<DevicePlan>> {
        self.state.lock().table.iter().map(|entry| Arc::clone(&entry.plan)).collect()
    }

    pub fn counters(&self) -> Counters {
        let state = self.state.lock();
        Counters { hits: state.hits, misses: state.misses, plans: state.table.len(), bytes: state.bytes }
    }

    pub fn set_limit(&self, bytes: usize) {
        let mut evicted = Vec::new();
        let mut state = self.state.lock();
        state.limit = bytes;
        if state.bytes > bytes {
            state.evict(&mut evicted);
        }
        drop(state);
    }

    pub fn clear(&self) {
        let mut state = self.state.lock();
        let table = std::mem::take(&mut state.table);
        state.bytes = 0;
        drop(state);
        drop(table);
    }

    /// Holds the lock across a fork.
    pub fn before_fork(&'static self) {
        self.state.before_fork();
    }

    /// # Safety
    /// Must follow `before_fork` in the same thread, once in the parent and once in the child.
    pub unsafe fn after_fork(&'static self) {
        // SAFETY: as the caller promises.
        unsafe { self.state.after_fork() };
    }

    /// The keys held, for whoever explains misses.
    pub fn keys(&self) -> Vec<Box<[u64]>> {
        self.state.lock().table.iter().map(|entry| entry.key.clone()).collect()
    }
}

impl State {
    /// Drops plans, least recently used first, to three quarters of the limit, so that a full cache does not sort at
    /// every insertion. The newest plan always stays. The plans are handed out to be dropped without the lock.
    fn evict(&mut self, evicted: &mut Vec<Entry>) {
        let mut ages: Vec<(u64, usize)> = self.table.iter().map(|entry| (entry.used, entry.bytes)).collect();
        ages.sort_unstable();
        ages.pop();
        let target = self.limit / 4 * 3;
        let mut bytes = self.bytes;
        let mut cut = 0;
        for (used, size) in ages {
            if bytes <= target {
                break;
            }
            bytes -= size;
            cut = used + 1;
        }
        let newest = self.table.iter().map(|entry| entry.used).max().unwrap_or(0);
        evicted.extend(self.table.extract_if(|entry| entry.used < cut && entry.used < newest));
        self.bytes -= evicted.iter().map(|entry| entry.bytes).sum::<usize>();
    }
}

fn hash(key: &[u64]) -> u64 {
    // The bytes of all words in one call: several times faster than word by word.
    FixedState::default().hash_one(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::build;
    use crate::graph::Graph;

    fn plan() -> Arc<DevicePlan> {
        Arc::new(DevicePlan::Cpu(build(&Graph::new(), &[], &[], &[]).unwrap()))
    }

    #[test]
    fn only_an_equal_key_hits_and_the_first_plan_stays() {
        let cache = Cache::new(1 << 20);
        let first = cache.insert(vec![1, 2, 3], plan());
        assert!(cache.get(&[1, 2]).is_none() && cache.get(&[1, 2, 4]).is_none());
        assert!(Arc::ptr_eq(&cache.get(&[1, 2, 3]).unwrap(), &first));
        assert!(Arc::ptr_eq(&cache.insert(vec![1, 2, 3], plan()), &first));
        let counters = cache.counters();
        assert_eq!((counters.hits, counters.misses, counters.plans), (1, 2, 1));
        cache.clear();
        assert_eq!((cache.counters().plans, cache.counters().bytes), (0, 0));
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let cache = Cache::new(1 << 20);
        for key in 0..100 {
            cache.insert(vec![key], plan());
            cache.get(&[0]);
        }
        let before = cache.counters();
        cache.set_limit(before.bytes / 2);
        assert!(cache.counters().bytes <= before.bytes / 2 && cache.counters().plans < before.plans);
        assert!(cache.get(&[0]).is_some() && cache.get(&[99]).is_some() && cache.get(&[1]).is_none());
    }
}

//! Plans by key. A key is words made by whoever records; a hit compares the whole key. Bounded by the estimated bytes
//! of plans and keys: the plans that were used least recently go first. The lock is held for a lookup only, never while
//! a plan is made or run.

use crate::planner::Plan;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const DEFAULT_LIMIT: usize = 64 << 20;

/// Lookups of this process's plans that found one, and that did not.
pub static HITS: AtomicU64 = AtomicU64::new(0);
pub static MISSES: AtomicU64 = AtomicU64::new(0);

static PLANS: Cache = Cache::new(DEFAULT_LIMIT);

/// The plan of exactly this key, among those of this process.
pub fn find(key: &[u64]) -> Option<Arc<Plan>> {
    let found = PLANS.get(key);
    let count = if found.is_some() { &HITS } else { &MISSES };
    count.fetch_add(1, Ordering::Relaxed);
    found
}

/// Keeps a plan. If another thread was first, its plan stays and is given back.
pub fn insert(key: Vec<u64>, plan: Arc<Plan>) -> Arc<Plan> {
    PLANS.insert(key, plan)
}

/// The plans of this process.
pub fn plans() -> &'static Cache {
    &PLANS
}

pub struct Cache {
    state: Mutex<State>,
}

struct State {
    table: HashTable<Entry>,
    limit: usize,
    bytes: usize,
    clock: u64,
}

struct Entry {
    hash: u64,
    key: Box<[u64]>,
    plan: Arc<Plan>,
    bytes: usize,
    used: u64,
}

impl Cache {
    pub const fn new(limit: usize) -> Cache {
        let state = State { table: HashTable::new(), limit, bytes: 0, clock: 0 };
        Cache { state: Mutex::new(state) }
    }

    /// The plan of exactly this key.
    pub fn get(&self, key: &[u64]) -> Option<Arc<Plan>> {
        let hash = hash(key);
        let mut state = self.state.lock();
        state.clock += 1;
        let now = state.clock;
        state.table.find_mut(hash, |entry| entry.hash == hash && *entry.key == *key).map(|entry| {
            entry.used = now;
            Arc::clone(&entry.plan)
        })
    }

    /// Keeps a plan. If another thread was first, its plan stays and is given back.
    pub fn insert(&self, key: Vec<u64>, plan: Arc<Plan>) -> Arc<Plan> {
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

    /// How many plans are kept, and their estimated bytes.
    pub fn size(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.table.len(), state.bytes)
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
    let mut hasher = FixedState::default().build_hasher();
    key.iter().for_each(|&word| hasher.write_u64(word));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::build;
    use crate::graph::Graph;

    fn plan() -> Arc<Plan> {
        Arc::new(build(&Graph::new(), &[], &[], &[]).unwrap())
    }

    #[test]
    fn only_an_equal_key_hits_and_the_first_plan_stays() {
        let cache = Cache::new(1 << 20);
        let first = cache.insert(vec![1, 2, 3], plan());
        assert!(cache.get(&[1, 2]).is_none() && cache.get(&[1, 2, 4]).is_none());
        assert!(Arc::ptr_eq(&cache.get(&[1, 2, 3]).unwrap(), &first));
        assert!(Arc::ptr_eq(&cache.insert(vec![1, 2, 3], plan()), &first));
        assert_eq!(cache.size().0, 1);
        cache.clear();
        assert_eq!(cache.size(), (0, 0));
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let cache = Cache::new(1 << 20);
        for key in 0..100 {
            cache.insert(vec![key], plan());
            cache.get(&[0]);
        }
        let (plans, bytes) = cache.size();
        cache.set_limit(bytes / 2);
        assert!(cache.size().1 <= bytes / 2 && cache.size().0 < plans);
        assert!(cache.get(&[0]).is_some() && cache.get(&[99]).is_some() && cache.get(&[1]).is_none());
    }
}

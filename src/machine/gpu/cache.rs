//! A bounded map that forgets what was not asked for lately: two generations, of which the older one goes when the younger
//! one is full.

use hashbrown::HashMap;
use std::borrow::Borrow;
use std::hash::Hash;

pub(super) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Entries of a generation.
    limit: usize,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub fn new(limit: usize) -> Cache<K, V> {
        Cache { young: HashMap::new(), old: HashMap::new(), limit }
    }

    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some(found) = self.young.get(key) {
            return Some(found.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.limit {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut cache = Cache::new(2);
        for key in 0..10 {
            cache.insert(key, key);
            assert_eq!(cache.get(&0), Some(0), "asked for after each insertion");
        }
        assert_eq!(cache.get(&1), None);
        assert!(cache.len() <= 4);
    }
}

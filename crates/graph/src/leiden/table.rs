//! Sums of weights by community around one vertex.

/// Nothing is stored in this slot. No vertex has this number.
const EMPTY: u32 = u32::MAX;

/// A small hash table from community to weight, walked in the order of first touch.
#[derive(Default)]
pub(crate) struct Table {
    keys: Vec<u32>,
    sums: Vec<f64>,
    /// Slots in use, in the order of first touch.
    used: Vec<u32>,
    shift: u32,
}

impl Table {
    /// Forgets everything and makes room for `len` distinct keys.
    pub fn clear(&mut self, len: usize) {
        let slots = (2 * len).next_power_of_two().max(16);
        if slots > self.keys.len() {
            self.keys = vec![EMPTY; slots];
            self.sums = vec![0.0; slots];
            self.used.clear();
        } else {
            for &slot in &self.used {
                self.keys[slot as usize] = EMPTY;
            }
            self.used.clear();
        }
        // Few keys stay in few cache lines, whatever the largest row so far.
        self.shift = 32 - slots.trailing_zeros();
    }

    /// Forgets everything; [`Table::grow`] makes room later.
    pub fn start(&mut self) {
        self.clear(8);
    }

    /// Makes room for one key more.
    pub fn grow(&mut self) {
        let slots = 1usize << (32 - self.shift);
        if 2 * self.used.len() < slots {
            return;
        }
        let entries: Vec<(u32, f64)> = self.iter().collect();
        self.clear(slots);
        for (key, sum) in entries {
            self.add(key, sum);
        }
    }

    /// Where `key` is, or where it would go.
    fn slot(&self, key: u32) -> usize {
        // Fibonacci hashing: multiplication by 2^32 / φ, top bits (Knuth, volume 3, 6.4).
        let mask = (1usize << (32 - self.shift)) - 1;
        let mut slot = (key.wrapping_mul(0x9E37_79B1) >> self.shift) as usize;
        while self.keys[slot] != EMPTY && self.keys[slot] != key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Adds `weight` to the sum of `key`.
    pub fn add(&mut self, key: u32, weight: f64) {
        let slot = self.slot(key);
        if self.keys[slot] == EMPTY {
            self.keys[slot] = key;
            self.sums[slot] = weight;
            self.used.push(slot as u32);
        } else {
            self.sums[slot] += weight;
        }
    }

    /// The sum of `key`, 0 if it was never touched.
    pub fn get(&self, key: u32) -> f64 {
        let slot = self.slot(key);
        if self.keys[slot] == EMPTY { 0.0 } else { self.sums[slot] }
    }

    /// Keys and sums in the order of first touch.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f64)> + '_ {
        self.used.iter().map(|&slot| (self.keys[slot as usize], self.sums[slot as usize]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_are_those_of_a_map(rounds in prop::collection::vec(prop::collection::vec((0u32..60, 1u8..9), 0..80), 1..5)) {
            let mut table = Table::default();
            for round in &rounds {
                table.clear(round.len());
                let mut want: BTreeMap<u32, f64> = BTreeMap::new();
                for &(key, weight) in round {
                    table.add(key, f64::from(weight));
                    *want.entry(key).or_default() += f64::from(weight);
                }
                prop_assert_eq!(table.iter().collect::<BTreeMap<_, _>>(), want.clone());
                let mut grown = Table::default();
                grown.start();
                for &(key, weight) in round {
                    grown.grow();
                    grown.add(key, f64::from(weight));
                }
                prop_assert_eq!(grown.iter().collect::<Vec<_>>(), table.iter().collect::<Vec<_>>());
                prop_assert_eq!((0..60).map(|k| table.get(k)).sum::<f64>(), want.values().sum::<f64>());
            }
        }
    }
}

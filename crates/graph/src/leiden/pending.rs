//! Sets of vertices as bits, and the order in which they are visited.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::random::mix;

/// A set of vertices. Adding commutes, so threads may add together without the outcome depending on them.
pub(crate) struct Pending(Vec<AtomicU64>);

impl Pending {
    /// No vertex of `n`.
    pub fn none(n: usize) -> Self {
        Pending((0..n.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// All `n` vertices.
    pub fn all(n: usize) -> Self {
        let mut all = Pending((0..n.div_ceil(64)).map(|_| AtomicU64::new(u64::MAX)).collect());
        if !n.is_multiple_of(64)
            && let Some(last) = all.0.last_mut()
        {
            *last.get_mut() = (1 << (n % 64)) - 1;
        }
        all
    }

    /// Adds `v`.
    pub fn add(&self, v: u32) {
        let (word, bit) = (&self.0[v as usize / 64], 1u64 << (v % 64));
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }

    /// Takes `v` out.
    pub fn remove(&mut self, v: u32) {
        *self.0[v as usize / 64].get_mut() &= !(1 << (v % 64));
    }

    /// Whether `v` is in.
    pub fn holds(&self, v: u32) -> bool {
        (self.0[v as usize / 64].load(Relaxed) >> (v % 64)) & 1 == 1
    }

    /// The vertices, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().enumerate().flat_map(|(i, word)| {
            let mut left = word.load(Relaxed);
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let bit = left.trailing_zeros();
                    left &= left - 1;
                    i as u32 * 64 + bit
                })
            })
        })
    }
}

/// Neighbours in number that stay together in a batch, as a power of two: their rows lie side by side in memory.
const TOGETHER: u32 = 3;

/// Vertices dealt into batches by a hash of (key, vertex): a seeded order between batches, ascending inside one. In batches of more than
/// one vertex, runs of eight numbers stay together.
#[derive(Default)]
pub(crate) struct Batches {
    vertices: Vec<u32>,
    ends: Vec<usize>,
}

impl Batches {
    /// Deals the set into batches of about `size`.
    pub fn deal(&mut self, set: &Pending, size: usize, key: u64) {
        let len: usize = set.0.iter().map(|word| word.load(Relaxed).count_ones() as usize).sum();
        let n_batches = len.div_ceil(size.max(1));
        let together = if size > 1 { TOGETHER } else { 0 };
        let of = |v: u32| (((mix(key, u64::from(v >> together)) >> 32) * n_batches as u64) >> 32) as usize;
        self.ends.clear();
        self.ends.resize(n_batches, 0);
        for v in set.iter() {
            self.ends[of(v)] += 1;
        }
        let mut start = 0;
        for end in &mut self.ends {
            start += std::mem::replace(end, start);
        }
        self.vertices.clear();
        self.vertices.resize(len, 0);
        for v in set.iter() {
            let end = &mut self.ends[of(v)];
            self.vertices[*end] = v;
            *end += 1;
        }
    }

    /// The batches in their order.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.vertices[std::mem::replace(&mut start, end)..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_vertex_once_and_follow_the_key() {
        for n in [0usize, 1, 63, 64, 65, 1000] {
            let mut set = Pending::all(n);
            assert_eq!(set.iter().collect::<Vec<_>>(), (0..n as u32).collect::<Vec<_>>());
            for v in (0..n as u32).step_by(3) {
                set.remove(v);
            }
            let want: Vec<u32> = (0..n as u32).filter(|v| v % 3 != 0).collect();
            let (mut one, mut two) = (Batches::default(), Batches::default());
            one.deal(&set, 20, 1);
            two.deal(&set, 20, 2);
            let mut dealt: Vec<u32> = one.iter().flatten().copied().collect();
            assert!(one.iter().all(|batch| batch.is_sorted()));
            assert!(n < 100 || dealt != two.iter().flatten().copied().collect::<Vec<_>>());
            dealt.sort_unstable();
            assert_eq!(dealt, want);
        }
    }
}

//! Repair across the borders of lists: neighbours of neighbours (Dong et al. 2011), each row computed by its owner alone.
//!
//! A candidate in a list that the row has searched was compared with it already; only the others cost a distance.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::join::Joined;
use super::kernel::Simd;
use super::metric::Scale;
use super::progress::Progress;
use super::rows::{Reader, Shelf};
use super::scan::{self, Key};

/// Rows of one task.
const BLOCK: usize = 1024;
/// Neighbours of a row, forward and reverse each, that are followed, and that a followed row offers.
const FOLLOW: usize = 24;
/// Candidates of a row, at most.
const OFFERS: usize = 512;

/// Who has a row among its neighbours, ascending.
struct Reverse {
    offsets: Vec<u32>,
    ids: Vec<u32>,
}

impl Reverse {
    fn new(n: usize, indices: &[u32], k: usize) -> Self {
        let follow = k.min(FOLLOW);
        let counts: Vec<AtomicU32> = (0..n).map(|_| AtomicU32::new(0)).collect();
        indices.par_chunks(BLOCK * k).flat_map_iter(|rows| rows.chunks_exact(k)).for_each(|row| {
            row[..follow].iter().for_each(|&id| _ = counts[id as usize].fetch_add(1, Relaxed));
        });
        let mut offsets = Vec::with_capacity(n + 1);
        let mut end = 0;
        offsets.push(0);
        // From here on a count is where the next one goes.
        for count in counts.iter() {
            let start = end;
            end += count.swap(start, Relaxed);
            offsets.push(end);
        }
        let ids: Vec<AtomicU32> = (0..end).map(|_| AtomicU32::new(0)).collect();
        indices.par_chunks(k).with_min_len(BLOCK).zip(0..n as u32).for_each(|(row, own)| {
            row[..follow].iter().for_each(|&id| ids[counts[id as usize].fetch_add(1, Relaxed) as usize].store(own, Relaxed));
        });
        // They came in any order.
        let mut ids: Vec<u32> = ids.into_iter().map(AtomicU32::into_inner).collect();
        let mut rest = &mut ids[..];
        let mut rows = Vec::with_capacity(n.div_ceil(BLOCK));
        for first in (0..n).step_by(BLOCK) {
            let offsets = &offsets[first..=(first + BLOCK).min(n)];
            let here;
            (here, rest) = rest.split_at_mut((offsets[offsets.len() - 1] - offsets[0]) as usize);
            rows.push((offsets, here));
        }
        rows.into_par_iter().for_each(|(offsets, ids)| {
            offsets.windows(2).for_each(|row| ids[(row[0] - offsets[0]) as usize..(row[1] - offsets[0]) as usize].sort_unstable());
        });
        Reverse { offsets, ids }
    }

    /// The first [`FOLLOW`].
    fn row(&self, at: usize) -> &[u32] {
        let (from, to) = (self.offsets[at] as usize, self.offsets[at + 1] as usize);
        &self.ids[from..to.min(from + FOLLOW)]
    }
}

/// One pass over all rows; neighbours of neighbours are looked at where either row has changed. `list_of` is the list of each position.
pub(super) fn pass(simd: Simd, x: Shelf<'_>, joined: &mut Joined, list_of: &[u32], scale: Scale, progress: &Progress) -> Result<()> {
    let (n, k) = (x.n(), joined.distances.k);
    let frozen = joined.distances.indices.clone();
    let reverse = Reverse::new(n, &frozen, k);
    let lists = list_of.last().map_or(0, |&list| list as usize + 1);
    let mut now = vec![false; n];
    joined
        .distances
        .indices
        .par_chunks_mut(BLOCK * k)
        .zip(joined.distances.distances.par_chunks_mut(BLOCK * k))
        .zip(now.par_chunks_mut(BLOCK))
        .enumerate()
        .try_for_each_init(
            || (Work::new(lists, k), x.reader()),
            |(work, reader), (block, ((indices, distances), now))| {
                reader.start();
                let rows = now.len();
                for (slot, now) in now.iter_mut().enumerate() {
                    let own = block * BLOCK + slot;
                    work.start(joined.searched.of(own, list_of[own]));
                    work.offer(own, &frozen, k, &reverse, list_of, &joined.changed);
                    let span = slot * k..(slot + 1) * k;
                    *now = work.take(simd, reader, own, scale, &mut indices[span.clone()], &mut distances[span])?;
                }
                progress.add(rows, "descent")
            },
        )?;
    joined.changed = now;
    Ok(())
}

/// What a task needs, kept between tasks.
struct Work {
    /// Lists searched by the row whose stamp they bear.
    lists: Vec<u32>,
    stamp: u32,
    /// (stamp, id) of what the row has or was offered: open addressing, at most half full.
    table: Vec<u64>,
    /// The table has 2³² >> shift places.
    shift: u32,
    offers: Vec<u32>,
    squared: Vec<f32>,
    row: Vec<Key>,
}

impl Work {
    fn new(lists: usize, k: usize) -> Self {
        let places = (2 * (1 + k + OFFERS)).next_power_of_two();
        Work {
            lists: vec![0; lists],
            stamp: 0,
            table: vec![0; places],
            shift: 32 - places.trailing_zeros(),
            offers: Vec::new(),
            squared: Vec::new(),
            row: Vec::new(),
        }
    }

    /// Starts a row that has searched these lists.
    fn start(&mut self, lists: impl Iterator<Item = u32>) {
        if self.stamp == u32::MAX {
            self.lists.fill(0);
            self.table.fill(0);
            self.stamp = 0;
        }
        self.stamp += 1;
        for list in lists {
            self.lists[list as usize] = self.stamp;
        }
    }

    /// Gathers new candidates of row `own`: reverse neighbours, and the neighbours of neighbours either way.
    fn offer(&mut self, own: usize, indices: &[u32], k: usize, reverse: &Reverse, list_of: &[u32], changed: &[bool]) {
        self.offers.clear();
        let known = &indices[own * k..(own + 1) * k];
        self.seen(own as u32);
        for &id in known {
            self.seen(id);
        }
        let follow = k.min(FOLLOW);
        let back = reverse.row(own);
        for &via in back {
            self.add(via, list_of);
        }
        for &via in known[..follow].iter().chain(back) {
            let via = via as usize;
            if !changed[own] && !changed[via] {
                continue;
            }
            for &id in &indices[via * k..via * k + follow] {
                self.add(id, list_of);
            }
        }
    }

    /// Adds a candidate unless its list was searched or it is there already.
    fn add(&mut self, id: u32, list_of: &[u32]) {
        if self.lists[list_of[id as usize] as usize] != self.stamp && self.offers.len() < OFFERS && self.seen(id) {
            self.offers.push(id);
        }
    }

    /// Puts an id into the table; whether it is new.
    fn seen(&mut self, id: u32) -> bool {
        let entry = u64::from(self.stamp) << 32 | u64::from(id);
        let mut at = (id.wrapping_mul(0x9e37_79b1) >> self.shift) as usize;
        while (self.table[at] >> 32) as u32 == self.stamp {
            if self.table[at] == entry {
                return false;
            }
            at = (at + 1) & (self.table.len() - 1);
        }
        self.table[at] = entry;
        true
    }

    /// Takes the candidates that are nearer than what the row has; whether any is.
    fn take(
        &mut self,
        simd: Simd,
        x: &mut Reader<'_>,
        own: usize,
        scale: Scale,
        indices: &mut [u32],
        distances: &mut [f32],
    ) -> Result<bool> {
        if self.offers.is_empty() {
            return Ok(false);
        }
        x.squared(simd, own, &self.offers, &mut self.squared)?;
        self.row.clear();
        self.row.extend(distances.iter().zip(indices.iter()).map(|(&distance, &id)| scan::key(distance, id)));
        let last = self.row.len() - 1;
        let mut farthest = self.row[last];
        let mut any = false;
        for (&id, &squared) in self.offers.iter().zip(&self.squared) {
            let key = scan::key(scale.distance(squared), id);
            if key < farthest {
                simd.insert(&mut self.row, key);
                farthest = self.row[last];
                any = true;
            }
        }
        for ((&key, index), distance) in self.row.iter().zip(indices.iter_mut()).zip(distances.iter_mut()) {
            *distance = scan::distance(key);
            *index = scan::id(key);
        }
        Ok(any)
    }
}

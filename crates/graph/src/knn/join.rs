//! The clustered self-join: each cell against the cells of the lists nearest to it.

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::Metric;
use super::exact::emit;
use super::kernel::{Form, Simd};
use super::lists::{Lists, around};
use super::progress::Progress;
use super::rank::{self, Ranking};
use super::scan::{EMPTY, Key, Panels, Queries, id, scan};
use crate::{Distances, Embedding};

/// Lists of one task: their cells share packed candidates. Fewer where that leaves less than 128 tasks.
const GROUP: usize = 8;
/// Searched lists of a cell that are kept for the repair: a repeated comparison costs less than the memory for more.
const KEPT: usize = 12;
/// Lists looked at around a list for each that a cell of it probes.
const WIDER: usize = 6;
/// At least so many are looked at.
const LOOK: usize = 48;

/// Neighbours found in the lists, and which lists were searched.
pub(super) struct Joined {
    /// In positions.
    pub distances: Distances,
    /// Lists that each position searched, the nearest few: `(n, kept)`.
    pub probed: Vec<u32>,
    /// Lists kept a position.
    pub kept: usize,
}

/// Searches, for every position, its `probes` nearest lists. `x` is in order of position; `k < n`, and the smallest
/// `probes` lists hold more than `k` cells together.
pub(super) fn join(
    simd: Simd,
    x: Embedding,
    lists: &Lists,
    k: usize,
    probes: usize,
    metric: Metric,
    progress: &Progress,
) -> Result<Joined> {
    let n = x.n();
    let keep = rank::keep(k, n);
    let probes = probes.min(lists.len());
    let width = (WIDER * probes).max(LOOK).min(lists.len());
    let near = around(simd, &lists.centres, x.d, width);
    let mut distances = Distances { k, indices: vec![0; n * k], distances: vec![0.0; n * k] };
    let kept = probes.min(KEPT);
    let mut probed = vec![0u32; n * kept];

    // Each task owns the rows of its lists.
    let mut tasks = Vec::new();
    let (mut indices, mut values, mut searched) = (&mut distances.indices[..], &mut distances.distances[..], &mut probed[..]);
    let group = (lists.len() / 128).clamp(1, GROUP);
    for first in (0..lists.len()).step_by(group) {
        let span = first..(first + group).min(lists.len());
        let rows = (lists.offsets[span.end] - lists.offsets[span.start]) as usize;
        let (a, b, c);
        (a, indices) = std::mem::take(&mut indices).split_at_mut(rows * k);
        (b, values) = std::mem::take(&mut values).split_at_mut(rows * k);
        (c, searched) = std::mem::take(&mut searched).split_at_mut(rows * kept);
        tasks.push((span, a, b, c));
    }
    tasks.into_par_iter().try_for_each_init(Work::default, |work, (span, indices, values, searched)| {
        let base = lists.offsets[span.start];
        let rows = indices.len() / k;
        work.searched.clear();
        for list in span {
            work.choose(simd, x, lists, list, &near[list * width..(list + 1) * width], probes);
        }
        for (kept, all) in searched.chunks_exact_mut(kept).zip(work.searched.chunks_exact(probes)) {
            kept.copy_from_slice(&all[..kept.len()]);
        }
        work.search(simd, x, lists, base, probes, keep);
        for slot in 0..rows {
            let ranked = work.ranking.rank(simd, x, metric, base + slot as u32, &work.best[slot * keep..(slot + 1) * keep]);
            emit(ranked, &mut indices[slot * k..(slot + 1) * k], &mut values[slot * k..(slot + 1) * k]);
        }
        progress.add(rows, "join")
    })?;
    Ok(Joined { distances, probed, kept })
}

/// What a task needs, kept between tasks.
#[derive(Default)]
struct Work {
    queries: Queries,
    panels: Panels,
    best: Vec<Key>,
    /// The lists that each row of the task searches: `(rows, probes)`.
    searched: Vec<u32>,
    /// (other than the cell's nearest list, list, row of the task) in one number.
    visits: Vec<u64>,
    ranking: Ranking,
}

impl Work {
    /// Adds, for each cell of `list`, the `probes` lists of `near` whose means are nearest to it, nearest first.
    fn choose(&mut self, simd: Simd, x: Embedding, lists: &Lists, list: usize, near: &[u32], probes: usize) {
        let d = x.d;
        let mean = |list: u32| &lists.centres[list as usize * d..(list as usize + 1) * d];
        let centre = mean(list as u32);
        self.panels.pack(Form::Dot, near.iter().map(|&other| mean(other)), centre);
        self.queries.clear(Form::Dot, d);
        for (slot, row) in lists.span(list).enumerate() {
            self.queries.push(x.row(row), centre, slot as u32, u32::MAX);
        }
        self.best.clear();
        self.best.resize(lists.span(list).len() * probes, EMPTY);
        scan(simd, &mut self.queries, &self.panels, 0..self.panels.len(), 0, &mut self.best, probes);
        self.searched.extend(self.best.iter().map(|&key| near[id(key) as usize]));
    }

    /// Fills `best`, `(rows, keep)`, from the lists that each row searches.
    fn search(&mut self, simd: Simd, x: Embedding, lists: &Lists, base: u32, probes: usize, keep: usize) {
        let d = x.d;
        let rows = self.searched.len() / probes;
        self.best.clear();
        self.best.resize(rows * keep, EMPTY);
        self.visits.clear();
        for (row, lists) in self.searched.chunks_exact(probes).enumerate() {
            // The nearest list first: it makes the thresholds tight.
            let visit = |(rank, &list): (usize, &u32)| u64::from(rank > 0) << 63 | u64::from(list) << 31 | row as u64;
            self.visits.extend(lists.iter().enumerate().map(visit));
        }
        self.visits.sort_unstable();
        for visits in self.visits.chunk_by(|a, b| a >> 31 == b >> 31) {
            let list = (visits[0] >> 31) as u32 as usize;
            let span = lists.span(list);
            let centre = &lists.centres[list * d..(list + 1) * d];
            self.panels.pack(Form::Dot, x.data[span.start * d..span.end * d].chunks_exact(d), centre);
            self.queries.clear(Form::Dot, d);
            for &visit in visits {
                let slot = (visit & ((1 << 31) - 1)) as u32;
                let row = base + slot;
                self.queries.push(x.row(row as usize), centre, slot, row);
            }
            scan(simd, &mut self.queries, &self.panels, 0..self.panels.len(), span.start as u32, &mut self.best, keep);
        }
    }
}

//! The clustered self-join: each cell against the cells of the lists nearest to it.

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::Metric;
use super::exact::emit;
use super::kernel::{CANDIDATES, Form, Simd};
use super::lists::{Lists, around};
use super::progress::Progress;
use super::rank::{self, Ranking};
use super::rows::{Reader, Shelf};
use super::scan::{self, EMPTY, Key, Panels, Queries, scan};
use crate::Distances;

/// Lists of one task, at most: their cells share packed candidates.
const GROUP: usize = 16;
/// Tasks of a thread, at least. How the lists are dealt out changes no bit.
const TASKS: usize = 24;
/// Searched lists of a cell that are kept for the repair: a repeated comparison costs less than the memory for more.
pub(super) const KEPT: usize = 8;
/// No list.
pub(super) const NONE: u32 = u32::MAX;

/// Which lists a cell searches besides its own.
///
/// A cell that is `m` nearer to its own list's mean than to the plane half-way to another's has no one nearer than `m` in that list. Its
/// neighbours lie in many directions, so most lists with `m` well below the distance `r` of its k-th neighbour hold none either: those with
/// `m < reach · r` are searched, `r` taken from its own list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Lists looked at around a list.
    pub width: usize,
    /// See above; ∞ searches all that are looked at.
    pub reach: f32,
}

/// How far a cell is from the plane between two means: `(|x − c|² − |x − own|²) / 2 |c − own|`.
pub(super) fn margin(to_other: f32, to_own: f32, apart: f32) -> f32 {
    if apart > 0.0 { 0.5 * (to_other - to_own) / apart } else { 0.0 }
}

/// Neighbours found in the lists, and which lists were searched.
pub(super) struct Joined {
    /// In positions.
    pub distances: Distances,
    /// Lists that each position searched besides its own, the nearest few, or [`NONE`]: `(n, KEPT)`.
    pub probed: Vec<u32>,
}

/// Searches, for every position, its own list and those within reach. `x` is in order of position; `k < n`.
pub(super) fn join(simd: Simd, x: Shelf<'_>, lists: &Lists, k: usize, reach: Reach, metric: Metric, progress: &Progress) -> Result<Joined> {
    let n = x.n();
    let keep = rank::keep(k, n);
    let near = around(simd, &lists.centres, x.d(), reach.width);
    let mut distances = Distances { k, indices: vec![0; n * k], distances: vec![0.0; n * k] };
    let mut probed = vec![NONE; n * KEPT];

    // Each task owns the rows of its lists.
    let mut tasks = Vec::new();
    let (mut indices, mut values, mut searched) = (&mut distances.indices[..], &mut distances.distances[..], &mut probed[..]);
    let group = (lists.len() / (TASKS * rayon::current_num_threads())).clamp(1, GROUP);
    for first in (0..lists.len()).step_by(group) {
        let span = first..(first + group).min(lists.len());
        let rows = (lists.offsets[span.end] - lists.offsets[span.start]) as usize;
        let (a, b, c);
        (a, indices) = std::mem::take(&mut indices).split_at_mut(rows * k);
        (b, values) = std::mem::take(&mut values).split_at_mut(rows * k);
        (c, searched) = std::mem::take(&mut searched).split_at_mut(rows * KEPT);
        tasks.push((span, a, b, c));
    }
    let room = || (Work::default(), x.reader());
    tasks.into_par_iter().try_for_each_init(room, |(work, reader), (span, indices, values, searched)| {
        reader.start();
        let base = lists.offsets[span.start];
        let rows = indices.len() / k;
        work.best.clear();
        work.best.resize(rows * keep, EMPTY);
        work.visits.clear();
        for list in span {
            let near = &near[list * reach.width..(list + 1) * reach.width];
            let rows = (lists.offsets[list] - base) as usize..(lists.offsets[list + 1] - base) as usize;
            work.own(simd, reader, lists, list, base, keep)?;
            work.choose(simd, reader, lists, near, (k, keep), reach.reach, rows.start, &mut searched[rows.start * KEPT..rows.end * KEPT])?;
        }
        work.search(simd, reader, lists, base, keep)?;
        for slot in 0..rows {
            let ranked = work.ranking.rank(simd, reader, metric, base + slot as u32, &work.best[slot * keep..(slot + 1) * keep])?;
            emit(ranked, &mut indices[slot * k..(slot + 1) * k], &mut values[slot * k..(slot + 1) * k]);
        }
        progress.add(rows, "join")
    })?;
    Ok(Joined { distances, probed })
}

/// What a task needs, kept between tasks.
#[derive(Default)]
struct Work {
    queries: Queries,
    panels: Panels,
    /// `(rows, keep)`.
    best: Vec<Key>,
    /// (list, row of the task) in one number.
    visits: Vec<u64>,
    /// Squared distances of a list's cells to the means around it.
    to_means: Vec<f32>,
    chosen: Vec<(f32, u32)>,
    ranking: Ranking,
}

impl Work {
    /// Compares the cells of a list with each other.
    fn own(&mut self, simd: Simd, x: &mut Reader<'_>, lists: &Lists, list: usize, base: u32, keep: usize) -> Result<()> {
        let (d, span) = (lists.d, lists.span(list));
        let centre = &lists.centres[list * d..(list + 1) * d];
        self.panels.pack(simd, Form::Dot, x.stretch(span.clone())?, centre);
        self.queries.clear(Form::Dot, d);
        for (row, at) in x.stretch(span.clone())?.zip(span.start as u32..) {
            self.queries.push(row, centre, at - base, at);
        }
        scan(simd, &mut self.queries, &self.panels, 0..self.panels.len(), span.start as u32, &mut self.best, keep);
        Ok(())
    }

    /// Decides which of the lists `near` (the first is their own) the cells in `queries` search; `first` is the first one's row.
    #[allow(clippy::too_many_arguments)]
    fn choose(
        &mut self,
        simd: Simd,
        x: &mut Reader<'_>,
        lists: &Lists,
        near: &[u32],
        (k, keep): (usize, usize),
        reach: f32,
        first: usize,
        searched: &mut [u32],
    ) -> Result<()> {
        let d = lists.d;
        let mean = |list: u32| &lists.centres[list as usize * d..(list as usize + 1) * d];
        let own = mean(near[0]);
        let apart: Vec<f32> =
            near.iter().map(|&other| mean(other).iter().zip(own).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()).collect();
        self.panels.pack(simd, Form::Dot, near.iter().map(|&other| mean(other)), own);
        self.queries.clear(Form::Dot, d);
        for row in x.stretch(lists.span(near[0] as usize))? {
            self.queries.push(row, own, 0, u32::MAX);
        }
        scan::all(simd, &mut self.queries, &self.panels, &mut self.to_means);
        let width = self.panels.len() * CANDIDATES;
        for (slot, (to_means, searched)) in self.to_means.chunks_exact(width).zip(searched.chunks_exact_mut(KEPT)).enumerate() {
            let row = first + slot;
            let limit = reach * scan::distance(self.best[row * keep + k - 1]).sqrt();
            self.chosen.clear();
            for ((&list, &apart), &far) in near.iter().zip(&apart).zip(to_means).skip(1) {
                let margin = margin(far, to_means[0], apart);
                if margin < limit {
                    self.chosen.push((margin, list));
                    self.visits.push(u64::from(list) << 32 | row as u64);
                }
            }
            if self.chosen.len() > KEPT {
                self.chosen.select_nth_unstable_by(KEPT - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            }
            searched.iter_mut().zip(&self.chosen).for_each(|(kept, &(_, list))| *kept = list);
        }
        Ok(())
    }

    /// Compares cells with those of the lists that they search.
    fn search(&mut self, simd: Simd, x: &mut Reader<'_>, lists: &Lists, base: u32, keep: usize) -> Result<()> {
        let d = lists.d;
        self.visits.sort_unstable();
        for visits in self.visits.chunk_by(|a, b| a >> 32 == b >> 32) {
            let list = (visits[0] >> 32) as usize;
            let span = lists.span(list);
            let centre = &lists.centres[list * d..(list + 1) * d];
            self.panels.pack(simd, Form::Dot, x.stretch(span.clone())?, centre);
            self.queries.clear(Form::Dot, d);
            for &visit in visits {
                let slot = visit as u32;
                self.queries.push(x.row((base + slot) as usize)?, centre, slot, base + slot);
            }
            scan(simd, &mut self.queries, &self.panels, 0..self.panels.len(), span.start as u32, &mut self.best, keep);
        }
        Ok(())
    }
}

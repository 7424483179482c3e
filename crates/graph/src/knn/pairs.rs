//! All pairs by a metric that is no function of the Euclidean distance.
//!
//! A distance is a sum, or a maximum, over coordinates of a term of two numbers. Candidates are packed by coordinate, so that the
//! compiler has lanes to work with. Nothing is fused and every sum has one order, so the bits are the same for any instructions and any
//! number of threads (Minkowski's powers are the system's).

use std::ops::Range;

use cellmill_matrix::{Error, Place, Result};
use rayon::prelude::*;

use super::Metric;
use super::progress::Progress;
use crate::{Distances, Embedding};

/// Candidates of a packed panel: enough for a loop that the compiler does not unroll, but turns into vectors.
const LANES: usize = 64;
/// Queries of one task.
const BLOCK: usize = 128;
/// Panels that all queries of a task pass before the next: with the queries and their nearest, they fit in L2.
const RUN: usize = 8;
/// Coordinates that are summed before they are added to the rest: rounding hardly grows with the number of dimensions.
const PART: usize = 64;

/// The `k` nearest others of each cell by a metric of pairs, `k < n`: rows ascend, equal sums by id; those of similarities
/// descend.
pub(super) fn neighbours(x: Embedding, k: usize, metric: Metric, progress: &Progress) -> Result<Distances> {
    let d = x.d as f64;
    let apart = |x: f32, y: f32| (x - y).abs();
    let add = |a: f32, b: f32| a + b;
    let plainly = |sum: f32, _: usize, _: usize| f64::from(sum);
    let same = |score: f64| score;
    match metric {
        Metric::Manhattan => search(x, k, Terms { term: apart, join: add, score: plainly, distance: same }, progress),
        Metric::Chebyshev => {
            let larger = |a: f32, b: f32| if a > b { a } else { b };
            search(x, k, Terms { term: apart, join: larger, score: plainly, distance: same }, progress)
        }
        Metric::Minkowski(p) => {
            let term = |x: f32, y: f32| f64::from((x - y).abs()).powf(p);
            search(x, k, Terms { term, join: |a, b| a + b, score: |sum: f64, _, _| sum, distance: |sum: f64| sum.powf(1.0 / p) }, progress)
        }
        Metric::Canberra => {
            let term = |x: f32, y: f32| if x != y { (x - y).abs() / (x.abs() + y.abs()) } else { 0.0 };
            search(x, k, Terms { term, join: add, score: plainly, distance: same }, progress)
        }
        Metric::BrayCurtis => {
            // Σ (|x| + |y|) is known of each row.
            let size = |cell: usize| if cell < x.n() { x.row(cell).iter().map(|&x| f64::from(x).abs()).sum() } else { 0.0 };
            let sizes: Vec<f64> = (0..x.n().next_multiple_of(LANES)).into_par_iter().map(size).collect();
            let score = |apart: f32, own: usize, id: usize| if apart > 0.0 { f64::from(apart) / (sizes[own] + sizes[id]) } else { 0.0 };
            search(x, k, Terms { term: apart, join: add, score: &score, distance: same }, progress)
        }
        Metric::Hamming => {
            let term = |x: f32, y: f32| if x != y { 1.0 } else { 0.0 };
            search(x, k, Terms { term, join: add, score: plainly, distance: |differ| differ / d }, progress)
        }
        Metric::JensenShannon => {
            search(x, k, Terms { term: divergence, join: add, score: plainly, distance: |sum: f64| (sum / 2.0).sqrt() }, progress)
        }
        Metric::InnerProduct => search(
            x,
            k,
            Terms { term: |x, y| x * y, join: add, score: |sum: f32, _, _| -f64::from(sum), distance: |score: f64| 0.0 - score },
            progress,
        ),
        Metric::Euclidean | Metric::SqEuclidean | Metric::Cosine | Metric::Correlation | Metric::Hellinger => {
            Err(Error::bug("pairs of a metric that lists are searched by"))
        }
    }
}

/// `x ln(x / m) + y ln(y / m)`, m = (x + y) / 2, for x and y from 0 on: m g(t), t = (x − y) / (x + y), where
/// `g(t) = (1 + t) ln(1 + t) + (1 − t) ln(1 − t) = t² + t⁴ / 6 + t⁶ / 15 + …`.
#[inline(always)]
fn divergence(x: f32, y: f32) -> f32 {
    let sum = x + y;
    let t = if sum > 0.0 { (x - y) / sum } else { 0.0 };
    let t2 = t * t;
    // The first term left out is below 2e-8 of the sum where the series is taken; the logarithms cancel there.
    let series = t2 * (1.0 + t2 * (1.0 / 6.0 + t2 * (1.0 / 15.0 + t2 * (1.0 / 28.0 + t2 / 45.0))));
    let whole = (1.0 + t) * ln(1.0 + t) + (1.0 - t) * ln(1.0 - t);
    0.5 * sum * if t2 < 0.0625 { series } else { whole }
}

/// The logarithm of a number in `0..=2`, within 3e-7 of it or of 1; finite at 0. In lanes, and with the same bits on all machines.
#[inline(always)]
fn ln(x: f32) -> f32 {
    /// sqrt(1/2), from which on the mantissa is taken.
    const ROOT: u32 = 0x3f35_04f3;
    // x = 2^e (1 + f), ln(1 + f) = 2 artanh s, s = f / (2 + f), |s| < 0.172.
    let e = (x.to_bits().wrapping_sub(ROOT) as i32) >> 23;
    let f = f32::from_bits(x.to_bits().wrapping_sub((e << 23) as u32)) - 1.0;
    let s = f / (2.0 + f);
    let s2 = s * s;
    let series = 2.0 * s * (1.0 + s2 * (1.0 / 3.0 + s2 * (1.0 / 5.0 + s2 * (1.0 / 7.0 + s2 / 9.0))));
    e as f32 * std::f32::consts::LN_2 + series
}

/// A metric by coordinates.
#[derive(Clone, Copy)]
struct Terms<T, J, C, D> {
    /// What one coordinate adds.
    term: T,
    /// Two sums together.
    join: J,
    /// What pairs are ranked by, of the sum and the two cells: the least is the nearest.
    score: C,
    /// The distance for a score.
    distance: D,
}

/// A candidate of a query: its score and its id.
type Near = (f64, u32);

fn search<S: Copy + Default>(
    x: Embedding,
    k: usize,
    terms: Terms<
        impl Fn(f32, f32) -> S + Copy + Sync,
        impl Fn(S, S) -> S + Copy + Sync,
        impl Fn(S, usize, usize) -> f64 + Copy + Sync,
        impl Fn(f64) -> f64 + Copy + Sync,
    >,
    progress: &Progress,
) -> Result<Distances> {
    let n = x.n();
    let panels = Panels::new(x);
    let mut found = Distances { k, indices: vec![0; n * k], distances: vec![0.0; n * k] };
    let tasks = found.indices.par_chunks_mut(BLOCK * k).zip(found.distances.par_chunks_mut(BLOCK * k)).enumerate();
    tasks.try_for_each_init(Task::default, |task, (block, (indices, distances))| {
        let (first, here) = (block * BLOCK, indices.len() / k);
        task.load(x, first..first + here, k);
        scan(task, &panels, terms.term, terms.join, terms.score);
        let rows = task.best.chunks_exact(k).zip(indices.chunks_exact_mut(k)).zip(distances.chunks_exact_mut(k));
        for (row, ((best, indices), distances)) in (first..).zip(rows) {
            if best[k - 1].1 == u32::MAX {
                let found = format!("cell {row} is at finite distances from fewer than {k} others");
                return Err(Error::invalid(Place::default().rows(row as u64..row as u64 + 1), found, "another metric may do"));
            }
            for ((index, distance), &(score, id)) in indices.iter_mut().zip(distances).zip(best) {
                (*index, *distance) = (id, (terms.distance)(score) as f32);
            }
        }
        progress.add(here, "pairs")
    })?;
    Ok(found)
}

/// All cells, in panels of `LANES`: `(panels, d, LANES)`, zeros behind the last cell.
struct Panels {
    n: usize,
    d: usize,
    data: Vec<[f32; LANES]>,
}

impl Panels {
    fn new(x: Embedding) -> Self {
        let (n, d) = (x.n(), x.d);
        let mut data = vec![[0f32; LANES]; n.div_ceil(LANES) * d];
        data.par_chunks_exact_mut(d).enumerate().for_each(|(panel, out)| {
            for lane in 0..LANES.min(n - panel * LANES) {
                out.iter_mut().zip(x.row(panel * LANES + lane)).for_each(|(out, &x)| out[lane] = x);
            }
        });
        Panels { n, d, data }
    }
}

/// Some cells that look for their nearest.
#[derive(Default)]
struct Task {
    /// The first of them.
    first: usize,
    k: usize,
    /// Their rows: `(cells, d)`.
    queries: Vec<f32>,
    /// `(cells, k)`, ascending by (score, id).
    best: Vec<Near>,
}

impl Task {
    fn load(&mut self, x: Embedding, cells: Range<usize>, k: usize) {
        (self.first, self.k) = (cells.start, k);
        self.queries.clear();
        cells.clone().for_each(|cell| self.queries.extend(x.row(cell)));
        self.best.clear();
        self.best.resize(cells.len() * k, (f64::INFINITY, u32::MAX));
    }

    /// Puts the candidates `ids` into a row, but for the cell itself.
    #[inline(always)]
    fn take(&mut self, row: usize, scores: &[f64; LANES], ids: Range<usize>) {
        let (own, last) = (self.first + row, self.k - 1);
        let best = &mut self.best[row * self.k..][..self.k];
        if !scores.iter().fold(false, |any, &score| any | (score < best[last].0)) {
            return;
        }
        for (id, &score) in ids.zip(scores) {
            // Ids ascend, so of equal scores the first stays before the others.
            if score < best[last].0 && id != own {
                let place = best.partition_point(|near| near.0 <= score);
                best.copy_within(place..last, place + 1);
                best[place] = (score, id as u32);
            }
        }
    }
}

/// Finds the nearest of all cells for those of a task.
///
/// Compiled for AVX2, too, where the processor has it.
fn scan<S: Copy + Default>(
    task: &mut Task,
    panels: &Panels,
    term: impl Fn(f32, f32) -> S,
    join: impl Fn(S, S) -> S,
    score: impl Fn(S, usize, usize) -> f64,
) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2<S: Copy + Default>(
            task: &mut Task,
            panels: &Panels,
            term: impl Fn(f32, f32) -> S,
            join: impl Fn(S, S) -> S,
            score: impl Fn(S, usize, usize) -> f64,
        ) {
            plain(task, panels, term, join, score);
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: this processor has AVX2, as has just been seen.
            return unsafe { avx2(task, panels, term, join, score) };
        }
    }
    plain(task, panels, term, join, score);
}

#[inline(always)]
fn plain<S: Copy + Default>(
    task: &mut Task,
    &Panels { n, d, ref data }: &Panels,
    term: impl Fn(f32, f32) -> S,
    join: impl Fn(S, S) -> S,
    score: impl Fn(S, usize, usize) -> f64,
) {
    for (run, stretch) in data.chunks(RUN * d).enumerate() {
        for row in 0..task.best.len() / task.k {
            for (panel, candidates) in stretch.chunks_exact(d).enumerate() {
                let query = &task.queries[row * d..][..d];
                let mut sums = [S::default(); LANES];
                for (xs, ys) in query.chunks(PART).zip(candidates.chunks(PART)) {
                    let mut part = [S::default(); LANES];
                    for (&x, y) in xs.iter().zip(ys) {
                        part.iter_mut().zip(y).for_each(|(sum, &y)| *sum = join(*sum, term(x, y)));
                    }
                    sums.iter_mut().zip(&part).for_each(|(sum, &part)| *sum = join(*sum, part));
                }
                let (own, from) = (task.first + row, (run * RUN + panel) * LANES);
                let scores = std::array::from_fn(|lane| score(sums[lane], own, from + lane));
                task.take(row, &scores, from..n.min(from + LANES));
            }
        }
    }
}

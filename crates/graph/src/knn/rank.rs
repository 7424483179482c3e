//! From roughly ranked candidates to a row of the result: exact distances, order (distance, id).

use super::Metric;
use super::kernel::Simd;
use super::scan::{self, Key};
use crate::Embedding;

/// Room for the candidates of one row at a time.
#[derive(Default)]
pub(super) struct Ranking {
    ids: Vec<u32>,
    squared: Vec<f32>,
    keys: Vec<Key>,
}

impl Ranking {
    /// Exact keys of `candidates` (empty places are left out) seen from row `own`, ascending by (distance, id); the distance
    /// in a key is the metric's own.
    pub(super) fn rank(&mut self, simd: Simd, x: Embedding, metric: Metric, own: u32, candidates: &[Key]) -> &[Key] {
        self.ids.clear();
        self.ids.extend(candidates.iter().filter(|&&key| key != scan::EMPTY).map(|&key| scan::id(key)));
        simd.squared(x.row(own as usize), x.data, &self.ids, &mut self.squared);
        self.keys.clear();
        self.keys.extend(self.ids.iter().zip(&self.squared).map(|(&id, &squared)| scan::key(metric.distance(squared), id)));
        self.keys.sort_unstable();
        &self.keys
    }
}

/// Candidates kept for `k` results: a few more, so that rounding in the scan costs none.
pub(super) fn keep(k: usize, n: usize) -> usize {
    (k + (k / 8).max(4)).min(n - 1)
}

/// Mean of each coordinate over all cells: `(d,)`, summed in f64 over blocks of fixed size in order.
pub(super) fn centre(x: Embedding) -> Vec<f32> {
    use rayon::prelude::*;
    let sums: Vec<Vec<f64>> = x
        .data
        .par_chunks(4096 * x.d)
        .map(|rows| {
            let mut sum = vec![0f64; x.d];
            for row in rows.chunks_exact(x.d) {
                sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            }
            sum
        })
        .collect();
    let mut mean = vec![0f64; x.d];
    for sum in &sums {
        mean.iter_mut().zip(sum).for_each(|(mean, sum)| *mean += sum);
    }
    mean.iter().map(|sum| (sum / x.n() as f64) as f32).collect()
}

//! How many lists to search: a sample of cells with known neighbours says what each number would find.

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::Metric;
use super::exact::sample;
use super::kernel::Simd;
use super::lists::Lists;
use super::means::stratified;
use super::progress::Progress;
use super::scan::{self, Key};
use crate::{Distances, Embedding};

/// Cells of the sample: 7,000 known neighbours at k = 14, a standard error of recall of about 0.002 at 0.99.
const SAMPLE: usize = 512;

/// Cells with their exact neighbours.
pub(super) struct Sample {
    rows: Vec<u32>,
    truth: Vec<Vec<Key>>,
}

impl Sample {
    /// Finds the `k` nearest of a sample of rows by brute force.
    pub(super) fn new(simd: Simd, x: Embedding, k: usize, metric: Metric, seed: u64, progress: &Progress) -> Result<Self> {
        let rows = stratified(x.n(), SAMPLE.min(x.n()), seed ^ 0x7a1e);
        let truth = sample(simd, x, &rows, k, metric, progress)?;
        Ok(Sample { rows, truth })
    }

    /// The share of true neighbours that the nearest `p + 1` lists hold, for each `p`: `(lists,)`, ascending to 1.
    pub(super) fn coverage(&self, simd: Simd, x: Embedding, lists: &Lists, list_of: &[u32]) -> Vec<f64> {
        let all: Vec<u32> = (0..lists.len() as u32).collect();
        let ranks: Vec<Vec<u32>> = self
            .rows
            .par_iter()
            .zip(&self.truth)
            .map_init(Vec::new, |squared, (&row, truth)| {
                simd.squared(x.row(row as usize), &lists.centres, &all, squared);
                let mut keys: Vec<Key> = squared.iter().zip(&all).map(|(&squared, &list)| scan::key(squared, list)).collect();
                keys.sort_unstable();
                let mut rank = vec![0u32; keys.len()];
                keys.iter().zip(0..).for_each(|(&key, at)| rank[scan::id(key) as usize] = at);
                truth.iter().map(|&key| rank[list_of[scan::id(key) as usize] as usize]).collect()
            })
            .collect();
        let mut found = vec![0u64; lists.len()];
        ranks.iter().flatten().for_each(|&rank| found[rank as usize] += 1);
        let total = found.iter().sum::<u64>().max(1) as f64;
        let mut sum = 0;
        found
            .iter()
            .map(|found| {
                sum += found;
                sum as f64 / total
            })
            .collect()
    }

    /// The share of a row's k places that are as near as the true ones, over the sample.
    pub(super) fn recall(&self, found: &Distances) -> f64 {
        let k = found.k;
        let hits: usize = self
            .rows
            .iter()
            .zip(&self.truth)
            .map(|(&row, truth)| {
                let farthest = truth.last().map_or(0.0, |&key| scan::distance(key)) * (1.0 + 1e-5);
                found.distances[row as usize * k..(row as usize + 1) * k].iter().filter(|&&distance| distance <= farthest).count()
            })
            .sum();
        hits as f64 / (self.rows.len() * k).max(1) as f64
    }
}

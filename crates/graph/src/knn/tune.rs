//! How far to search: a sample of cells with known neighbours says what each reach would find.

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::Metric;
use super::exact::sample;
use super::join::margin;
use super::kernel::Simd;
use super::lists::{Lists, around};
use super::means::stratified;
use super::progress::Progress;
use super::rows::{Reader, Shelf};
use super::scan::{self, Key};
use crate::Distances;

/// Cells of the sample: 7,000 known neighbours at k = 14, a standard error of recall of about 0.002 at 0.99.
const SAMPLE: usize = 512;

/// Cells with their exact neighbours.
pub(super) struct Sample {
    rows: Vec<u32>,
    truth: Vec<Vec<Key>>,
    metric: Metric,
}

impl Sample {
    /// Finds the `k` nearest of a sample of rows by brute force.
    pub(super) fn new(simd: Simd, x: Shelf<'_>, k: usize, metric: Metric, seed: u64, progress: &Progress) -> Result<Self> {
        let rows = stratified(x.n(), SAMPLE.min(x.n()), seed ^ 0x7a1e);
        let truth = sample(simd, x, &rows, k, metric, progress)?;
        Ok(Sample { rows, truth, metric })
    }

    /// How far lists must be searched ([`Reach::reach`]) for each of the true neighbours, ascending; ∞ for one outside the `width` lists that
    /// are looked at.
    pub(super) fn reaches(&self, simd: Simd, x: Shelf<'_>, lists: &Lists, list_of: &[u32], width: usize) -> Result<Vec<f32>> {
        let near = around(simd, &lists.centres, x.d(), width);
        let d = lists.d;
        let mean = |list: u32| &lists.centres[list as usize * d..(list as usize + 1) * d];
        let squared = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let room = || x.reader();
        let of_row = |reader: &mut Reader<'_>, (&row, truth): (&u32, &Vec<Key>)| -> Result<Vec<f32>> {
            reader.start();
            let row = row as usize;
            let own = list_of[row];
            let near = &near[own as usize * width..(own as usize + 1) * width];
            let at = reader.row(row)?;
            let farthest = truth.last().map_or(0.0, |&key| self.metric.squared(scan::distance(key)).sqrt() as f32);
            let reach = |&key: &Key| {
                let list = list_of[scan::id(key) as usize];
                if list == own {
                    return f32::NEG_INFINITY;
                }
                if !near.contains(&list) {
                    return f32::INFINITY;
                }
                margin(squared(at, mean(list)), squared(at, mean(own)), squared(mean(list), mean(own)).sqrt())
                    / farthest.max(f32::MIN_POSITIVE)
            };
            Ok(truth.iter().map(reach).collect())
        };
        let all: Vec<Vec<f32>> = self.rows.par_iter().zip(&self.truth).map_init(room, of_row).collect::<Result<_>>()?;
        let mut all = all.concat();
        all.sort_unstable_by(f32::total_cmp);
        Ok(all)
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

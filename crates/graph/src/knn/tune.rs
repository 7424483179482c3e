//! How far to search: a sample of cells with known neighbours says what each reach would find.

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::exact::sample;
use super::join::margin;
use super::kernel::Simd;
use super::lists::Lists;
use super::means::stratified;
use super::metric::Scale;
use super::progress::Progress;
use super::rows::{Reader, Shelf};
use super::scan::{self, Key};
use crate::Distances;

/// Cells of the sample: 7,000 known neighbours at k = 14, a standard error of recall of about 0.002 at 0.99.
const SAMPLE: usize = 512;

/// What lists mean to a sample's cells.
pub(super) struct Survey {
    /// For each true neighbour, the reach beyond which its list is searched, and how many lists are nearer to the cell's own; ascending.
    needs: Vec<(f32, u32)>,
}

impl Survey {
    /// The least reach that finds a share of the neighbours.
    pub(super) fn reach(&self, share: f64) -> f32 {
        let at = (share * self.needs.len() as f64).ceil() as usize;
        // Lists strictly below the reach are searched.
        self.needs.get(at).map_or(f32::INFINITY, |need| need.0).max(LEAST)
    }

    /// Lists that have to be looked at around each so that nearly nothing within reach is missed.
    pub(super) fn width(&self, reach: f32) -> usize {
        let mut ranks: Vec<u32> = self.needs.iter().filter(|need| need.0 < reach).map(|need| need.1).collect();
        ranks.sort_unstable();
        let at = ranks.len() - (ranks.len() as f64 * MISSED) as usize;
        ranks.get(at.saturating_sub(1)).map_or(1, |&rank| rank as usize + 1)
    }

    /// How many of the lists nearest to a cell's own, itself counted, hold a share of the neighbours.
    pub(super) fn near(&self, share: f64) -> usize {
        let mut ranks: Vec<u32> = self.needs.iter().map(|need| need.1).collect();
        ranks.sort_unstable();
        let at = (share * ranks.len() as f64).ceil() as usize;
        ranks.get(at.saturating_sub(1)).map_or(1, |&rank| rank as usize + 1)
    }
}

/// The least reach: where a cell's own list holds nearly all of its neighbours, some others are searched all the same.
const LEAST: f32 = 0.05;
/// Share of the neighbours within reach that may lie in lists that are not looked at.
const MISSED: f64 = 0.001;

/// Cells with their exact neighbours.
pub(super) struct Sample {
    rows: Vec<u32>,
    truth: Vec<Vec<Key>>,
    scale: Scale,
}

impl Sample {
    /// Finds the `k` nearest of a sample of rows by brute force.
    pub(super) fn new(simd: Simd, x: Shelf<'_>, k: usize, scale: Scale, seed: u64, progress: &Progress) -> Result<Self> {
        let rows = stratified(x.n(), SAMPLE.min(x.n()), seed ^ 0x7a1e);
        let truth = sample(simd, x, &rows, k, scale, progress)?;
        Ok(Sample { rows, truth, scale })
    }

    /// What the lists would give the sample.
    pub(super) fn survey(&self, simd: Simd, x: Shelf<'_>, lists: &Lists, list_of: &[u32]) -> Result<Survey> {
        let d = lists.d;
        let all: Vec<u32> = (0..lists.len() as u32).collect();
        let mean = |list: u32| &lists.centres[list as usize * d..(list as usize + 1) * d];
        let room = || (x.reader(), Vec::new(), Vec::new());
        let of_row = |(reader, to_means, apart): &mut (Reader<'_>, Vec<f32>, Vec<f32>), (&row, truth): (&u32, &Vec<Key>)| {
            reader.start();
            let own = list_of[row as usize];
            simd.squared(reader.row(row as usize)?, &lists.centres, &all, to_means);
            simd.squared(mean(own), &lists.centres, &all, apart);
            let farthest = truth.last().map_or(0.0, |&key| self.scale.squared(scan::distance(key)).sqrt() as f32).max(f32::MIN_POSITIVE);
            let ratio = |list: usize| match list as u32 == own {
                true => f32::NEG_INFINITY,
                false => margin(to_means[list], to_means[own as usize], apart[list].sqrt()) / farthest,
            };
            let need = |&key: &Key| {
                let list = list_of[scan::id(key) as usize] as usize;
                let nearer = apart.iter().enumerate().filter(|&(other, &far)| (far, other) < (apart[list], list)).count();
                (ratio(list), nearer as u32)
            };
            Ok(truth.iter().map(need).collect())
        };
        let found: Vec<Vec<(f32, u32)>> = self.rows.par_iter().zip(&self.truth).map_init(room, of_row).collect::<Result<_>>()?;
        let mut needs = found.concat();
        needs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Survey { needs })
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

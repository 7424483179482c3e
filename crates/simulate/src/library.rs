//! How many counts a cell needs for the wanted number of genes.

use crate::Options;
use crate::dispersion::{N_CLASSES, shape};
use crate::expression::Expression;
use crate::random::normal_quantile;

/// Median library size of a cell of low quality, relative to the others, and its spread in the log.
pub(crate) const LOW_QUALITY: (f64, f64) = (0.03, 0.5);

/// Bins of log expression: this many a unit, from -40 to 0.
const BINS_PER_UNIT: f64 = 20.0;
const LOWEST: f64 = -40.0;
/// Libraries that stand for the log-normal distribution.
const N_LIBRARIES: usize = 16;

/// Mean library size at which a cell has `target` genes on average. The expected number of genes at library size L is
/// Σ_types w Σ_genes 1 - (1 + L p / r)^-r, with genes of like p and r taken together.
pub(crate) fn mean_library(expression: &Expression, options: &Options, target: f64) -> f64 {
    let bins = histogram(expression);
    let (mut low, mut high) = (0.0, libm::log(1e9));
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if genes(&bins, options, libm::exp(middle)) < target { low = middle } else { high = middle }
    }
    libm::exp(0.5 * (low + high))
}

/// `(log p, r, how many)` of the bins that hold genes; a gene of a type counts as the type's share of the cells.
fn histogram(expression: &Expression) -> Vec<(f64, f64, f64)> {
    let n_bins = (-LOWEST * BINS_PER_UNIT) as usize;
    let mut held = vec![0.0; n_bins * N_CLASSES];
    for (logs, weight) in expression.log_profiles.iter().zip(&expression.weights) {
        for (&log, &class) in logs.iter().zip(&expression.classes) {
            let bin = (((f64::from(log) - LOWEST) * BINS_PER_UNIT).max(0.0) as usize).min(n_bins - 1);
            held[bin * N_CLASSES + class as usize] += weight;
        }
    }
    held.iter()
        .enumerate()
        .filter(|(_, n)| **n > 0.0)
        .map(|(i, &n)| (LOWEST + ((i / N_CLASSES) as f64 + 0.5) / BINS_PER_UNIT, shape(i % N_CLASSES), n))
        .collect()
}

/// Expected genes a cell at a mean library size.
fn genes(bins: &[(f64, f64, f64)], options: &Options, mean: f64) -> f64 {
    let sigma = options.size_sigma;
    let seen = |library: f64| -> f64 {
        bins.iter().map(|&(log, r, n)| n * (1.0 - libm::exp(-r * libm::log1p(library * libm::exp(log) / r)))).sum()
    };
    let good: f64 = (0..N_LIBRARIES)
        .map(|i| seen(mean * libm::exp(sigma * normal_quantile((i as f64 + 0.5) / N_LIBRARIES as f64) - 0.5 * sigma * sigma)))
        .sum::<f64>()
        / N_LIBRARIES as f64;
    (1.0 - options.low_quality) * good + options.low_quality * seen(mean * LOW_QUALITY.0)
}

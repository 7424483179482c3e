//! Tests of each gene between groups of cells, from statistics that folds have gathered: no matrix is in sight here.
//!
//! The results are those of scanpy 1.11 `tl.rank_genes_groups`: Welch's t-test from means and variances ([`welch`]), the rank sum test
//! from sorted values ([`Ranks`]), and what is done with the p-values of all genes ([`benjamini_hochberg`], [`bonferroni`]).

mod adjust;
mod ranks;
mod student;
mod welch;

pub use adjust::{benjamini_hochberg, best_first, bonferroni};
pub use ranks::{GeneRanks, Ranks, pair};
pub use student::{normal_two_sided, student_two_sided};
pub use welch::{Sample, welch};

/// log2 of the ratio of two mean expressions, which are means of logarithms: (expm1(a · ln base) + 1e-9) / (expm1(b · ln base) + 1e-9).
pub fn log_fold_change(mean: f64, reference: f64, base: Option<f64>) -> f64 {
    let linear = |x: f64| (x * base.map_or(1.0, f64::ln)).exp_m1();
    log2_ratio(linear(mean), linear(reference))
}

/// log2 of the ratio of two means: (a + 1e-9) / (b + 1e-9).
pub fn log2_ratio(a: f64, b: f64) -> f64 {
    ((a + 1e-9) / (b + 1e-9)).log2()
}

#[cfg(test)]
mod tests;

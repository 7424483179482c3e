//! Rank sums of each column over groups of rows: what Wilcoxon's test is made of.
//!
//! Contract: of each column, twice the sum of the ranks of each group's rows among all (ranks count from 1, equal values share their mean,
//! rows without an entry are zeros), and Σ t³ − t over runs of t equal values. Both are whole numbers. Values are not negative.

pub mod cuda;

/// Of rows of which `n_zeros` in all and `zeros` of each group have no entry in a column: what these add to `twice`, `(n_groups,)`; and
/// Σ t³ − t of their run of ties.
pub fn add_zeros(twice: &mut [u64], zeros: impl Iterator<Item = u64>, n_zeros: u64) -> f64 {
    twice.iter_mut().zip(zeros).for_each(|(sum, n)| *sum += n * (n_zeros + 1));
    let t = n_zeros as f64;
    t * t * t - t
}

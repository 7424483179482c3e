//! Row totals: what quality control, filtering and normalisation ask of a row.
//!
//! Contract: `n_genes[i]` = number of non-zero entries of row i (u32, exact); `total[i]` = Σ_j x[i, j] in f64, summed in eight
//! lanes of fixed order; explicit zeros are not counted. Tolerance: none, every back end gives these bits.

mod cpu;
#[cfg(test)]
mod tests;

pub use cpu::{COUNT_BITS, Look, column_counts, column_totals, largest, look, row_totals, subset_totals, top_shares, whole_number};

use serde::{Deserialize, Serialize};

/// Totals of consecutive rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowTotals {
    /// Non-zero entries of each row: `(n_rows,)`.
    pub n_genes: Vec<u32>,
    /// Sum of each row: `(n_rows,)`.
    pub total: Vec<f64>,
}

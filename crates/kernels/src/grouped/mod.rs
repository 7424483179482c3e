//! Sums of each column over groups of rows: what t-tests, pseudobulks and dot plots are made of.
//!
//! Contract: for each group, [Σ x, Σ x²] of each column in f64, row after row, and the number of its entries that are not zero.

pub mod cuda;

/// Adds one row's entries to the sums of its group. `sums`, `counts`: `(n_cols,)`.
#[inline]
pub fn add_row(columns: &[u32], values: &[f32], sums: &mut [[f64; 2]], counts: &mut [u32]) {
    for (&column, &value) in columns.iter().zip(values) {
        let (cell, x) = (&mut sums[column as usize], f64::from(value));
        cell[0] += x;
        cell[1] += x * x;
        counts[column as usize] += u32::from(value != 0.0);
    }
}

//! Sums of each column over groups of rows: what t-tests, pseudobulks and dot plots are made of.
//!
//! Contract: for each group, [Σ x, Σ x²] of each column in f64, row after row, and the number of its entries that are not zero.

pub mod cuda;

/// Adds one row's entries to the sums of its group. `sums`, `counts`: `(n_cols,)`.
#[inline]
pub fn add_row<T: Copy + Into<f64>>(columns: &[u32], values: &[T], sums: &mut [[f64; 2]], counts: &mut [u32]) {
    for (&column, &value) in columns.iter().zip(values) {
        let (cell, x) = (&mut sums[column as usize], value.into());
        cell[0] += x;
        cell[1] += x * x;
        counts[column as usize] += u32::from(x != 0.0);
    }
}

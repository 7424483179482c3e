//! Sums of each column's values and squares.
//!
//! Contract: `into[j]` = [Σ_i x[i, j], Σ_i x[i, j]²] in f64, added row after row. A caller turns the sums of a few thousand rows into
//! mean and squared deviations before it merges them, so cancellation never sees more than one task's rows.

pub mod cuda;

use cellmill_matrix::Csr;

/// Adds values and squares of each column.
pub fn accumulate(x: &Csr, into: &mut [[f64; 2]]) {
    accumulate_row(&x.indices, &x.data, into);
}

/// Adds values and squares of one row's entries.
pub fn accumulate_row(columns: &[u32], values: &[f32], into: &mut [[f64; 2]]) {
    for (&column, &value) in columns.iter().zip(values) {
        add(&mut into[column as usize], f64::from(value));
    }
}

/// Adds min(x, clip) and its square of one row's entries (`seurat_v3`). `clip`: `(n_cols,)`.
pub fn accumulate_clipped_row(columns: &[u32], values: &[f32], clip: &[f64], into: &mut [[f64; 2]]) {
    for (&column, &value) in columns.iter().zip(values) {
        add(&mut into[column as usize], f64::from(value).min(clip[column as usize]));
    }
}

fn add(cell: &mut [f64; 2], value: f64) {
    cell[0] += value;
    cell[1] += value * value;
}

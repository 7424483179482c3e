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

wide! {
    /// Adds values and squares of one row's entries.
    pub fn accumulate_row(columns: &[u32], values: &[f32], into: &mut [[f64; 2]]) = each;
}

/// Values are squared several at a time; the additions, each to a place of its own, are what is left to do one by one.
#[inline(always)]
fn each(columns: &[u32], values: &[f32], into: &mut [[f64; 2]]) {
    let ((columns, last_columns), (values, last_values)) = (columns.as_chunks::<AT_ONCE>(), values.as_chunks::<AT_ONCE>());
    for (columns, values) in columns.iter().zip(values) {
        let pairs = values.map(|v| [f64::from(v), f64::from(v) * f64::from(v)]);
        for (&column, pair) in columns.iter().zip(pairs) {
            let cell = &mut into[column as usize];
            *cell = [cell[0] + pair[0], cell[1] + pair[1]];
        }
    }
    for (&column, &value) in last_columns.iter().zip(last_values) {
        add(&mut into[column as usize], f64::from(value));
    }
}

/// Entries whose squares are taken together.
const AT_ONCE: usize = 8;

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

//! Scores of sparse rows: `Y = X W + 1 offset'`.
//!
//! For a row with entries x_j: `y = offset + sum over its entries in order of x_j W[j]`, one fused multiply-add an entry in f32 from
//! zero, then the offset in f64. A row's components are summed in registers, `WIDTH` of them at a time.

pub mod cuda;

use cellmill_matrix::{Csr, Error, Result};
use rayon::prelude::*;

/// Components summed at a time: thirteen 256-bit registers of f32, so 50 components take one pass and 100 as well.
const WIDTH: usize = 104;

/// Rows that a task takes.
const ROWS: usize = 128;

/// What the rows are multiplied with: `W (p, k)` and `offset (k,)`.
#[derive(Clone, Debug)]
pub struct Projection {
    n_columns: usize,
    n_components: usize,
    /// `W` in panels of `WIDTH` components (the last one narrower, a multiple of 8, filled up with zeros): each `(p, width)`.
    panels: Vec<Vec<f32>>,
    offset: Vec<f64>,
}

impl Projection {
    /// `weights`: `(p, k)` row by row; `offset`: `(k,)`. For centred scores, offset = -mean' W.
    pub fn new(weights: &[f64], p: usize, offset: &[f64]) -> Result<Self> {
        let k = offset.len();
        if weights.len() != p * k {
            return Err(Error::bug(format!("{} weights for {p} genes by {k} components", weights.len())));
        }
        let panel = |start: usize| {
            let end = (start + WIDTH).min(k);
            let width = (end - start).next_multiple_of(8);
            let mut panel = vec![0.0f32; p * width];
            for (j, row) in panel.chunks_exact_mut(width).enumerate() {
                for (out, &w) in row.iter_mut().zip(&weights[j * k + start..j * k + end]) {
                    *out = w as f32;
                }
            }
            panel
        };
        let panels = (0..k).step_by(WIDTH).map(panel).collect();
        Ok(Projection { n_columns: p, n_components: k, panels, offset: offset.to_vec() })
    }

    /// Components.
    pub fn n_components(&self) -> usize {
        self.n_components
    }

    /// Bytes of heap memory for `p` columns and `k` components.
    pub fn bytes(p: usize, k: usize) -> u64 {
        (p * k.next_multiple_of(8) * 4 + 8 * k) as u64
    }

    /// Scores of the rows into `out`: `(n_rows, k)`, row by row.
    pub fn scores(&self, rows: &Csr, out: &mut [f32]) -> Result<()> {
        let (p, k) = (self.n_columns, self.n_components);
        if rows.n_cols != p || out.len() != rows.n_rows() * k {
            let found = format!("scores of {} x {} rows into {} numbers", rows.n_rows(), rows.n_cols, out.len());
            return Err(Error::bug(format!("{found} by a projection of {p} genes to {k} components")));
        }
        if k == 0 {
            return Ok(());
        }
        let instructions = Instructions::detect();
        out.par_chunks_mut(ROWS * k).enumerate().try_for_each(|(task, out)| {
            let first = task * ROWS;
            let entries = rows.indptr[first] as usize..rows.indptr[first + out.len() / k] as usize;
            if rows.indices[entries].iter().any(|&column| column as usize >= p) {
                return Err(Error::bug(format!("a column beyond the {p} genes of a projection")));
            }
            for (q, panel) in self.panels.iter().enumerate() {
                let start = q * WIDTH;
                let end = (start + WIDTH).min(k);
                for (i, out) in out.chunks_exact_mut(k).enumerate() {
                    let (columns, values) = rows.row(first + i);
                    let sum = row_times(columns, values, panel, (end - start).div_ceil(8), instructions);
                    for ((out, sum), offset) in out[start..end].iter_mut().zip(sum.as_flattened()).zip(&self.offset[start..end]) {
                        *out = (f64::from(*sum) + offset) as f32;
                    }
                }
            }
            Ok(())
        })
    }
}

/// The components of one row, eight a register.
type Sum = [[f32; 8]; WIDTH / 8];

/// Which machine instructions the products use. The bits are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    /// What every machine has.
    Portable,
    /// 256-bit registers with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Instructions {
    /// The best that this machine has.
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Instructions::Avx2;
        }
        Instructions::Portable
    }
}

/// `sum over entries of value * panel[column]`; a row of the panel is `n` registers long.
fn row_times(columns: &[u32], values: &[f32], panel: &[f32], n: usize, instructions: Instructions) -> Sum {
    match instructions {
        Instructions::Portable => row_times_portable(columns, values, panel, n),
        // SAFETY: `Avx2` is only made by `detect`, after it has seen that this machine has AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe {
            match n {
                1 => row_times_avx2::<1>(columns, values, panel),
                2 => row_times_avx2::<2>(columns, values, panel),
                3 => row_times_avx2::<3>(columns, values, panel),
                4 => row_times_avx2::<4>(columns, values, panel),
                5 => row_times_avx2::<5>(columns, values, panel),
                6 => row_times_avx2::<6>(columns, values, panel),
                7 => row_times_avx2::<7>(columns, values, panel),
                8 => row_times_avx2::<8>(columns, values, panel),
                9 => row_times_avx2::<9>(columns, values, panel),
                10 => row_times_avx2::<10>(columns, values, panel),
                11 => row_times_avx2::<11>(columns, values, panel),
                12 => row_times_avx2::<12>(columns, values, panel),
                _ => row_times_avx2::<{ WIDTH / 8 }>(columns, values, panel),
            }
        },
    }
}

fn row_times_portable(columns: &[u32], values: &[f32], panel: &[f32], n: usize) -> Sum {
    let mut sum = Sum::default();
    for (&column, &value) in columns.iter().zip(values) {
        let row = &panel[column as usize * 8 * n..][..8 * n];
        for (sum, &w) in sum.as_flattened_mut().iter_mut().zip(row) {
            *sum = value.mul_add(w, *sum);
        }
    }
    sum
}

/// [`row_times_portable`] with the sums in `N = n` registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn row_times_avx2<const N: usize>(columns: &[u32], values: &[f32], panel: &[f32]) -> Sum {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    let mut registers = [_mm256_setzero_ps(); N];
    for (&column, &value) in columns.iter().zip(values) {
        let row = &panel[column as usize * 8 * N..][..8 * N];
        let value = _mm256_set1_ps(value);
        for (r, sum) in registers.iter_mut().enumerate() {
            // SAFETY: `row` has 8 N floats and r < N.
            *sum = _mm256_fmadd_ps(value, unsafe { _mm256_loadu_ps(row.as_ptr().add(8 * r)) }, *sum);
        }
    }
    let mut sum = Sum::default();
    for (out, register) in sum.iter_mut().zip(&registers) {
        // SAFETY: `out` has eight floats.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *register) };
    }
    sum
}

#[cfg(test)]
mod tests;

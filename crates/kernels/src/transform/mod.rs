//! Value by value: normalise a row to a target sum, take logarithms, scale columns.
//!
//! Contract, with t = target / Σ_j x[i, j] (1 for an empty row): normalised z = f32(x·t); logged y = f32(ln(1 + x·t) / ln(base)).
//! Both products and logarithms are taken in f64 and rounded once. Tolerance for other back ends: 1 unit in the last place.

mod cpu;
pub mod cuda;
#[cfg(test)]
mod tests;

pub use cpu::{base_row, center_columns, expm1, log1p, normalize_log1p, normalize_total, scale_columns, sqrt};

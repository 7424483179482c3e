//! Analytic Pearson residuals of a negative binomial offset model (Lause, Berens & Kobak 2021, (3) and (4)).
//!
//! Contract: with s_j the share of gene j in all counts and t_i the total of cell i, μ = s_j t_i and
//! r(x) = clip((x − μ) / √(μ + μ²/θ), ±clip), all in f64. [`add_row`] adds r(x) − r(0) and r(x)² − r(0)² of a row's entries, row after
//! row; [`of_zeros`] gives Σ r(0) and Σ r(0)² over cells from how often each total occurs. Together they are the sums over every cell,
//! zeros included. r is near 0 on average, so the variance of these sums loses nothing to cancellation.

mod zeros;

pub use zeros::of_zeros;

use serde::{Deserialize, Serialize};

/// The two numbers of the model that all genes share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Overdispersion, above 0; larger: nearer to Poisson. `inf` is Poisson.
    pub theta: f64,
    /// Residuals are clipped to ±clip, at least 0.
    pub clip: f64,
}

impl Model {
    /// The residual of a count where `mu` counts are expected; 0 where none are (scanpy: NaN).
    #[inline]
    pub fn residual(&self, count: f64, mu: f64) -> f64 {
        if mu > 0.0 { ((count - mu) / (mu + mu * mu / self.theta).sqrt()).clamp(-self.clip, self.clip) } else { 0.0 }
    }
}

/// Adds [r(x) − r(0), r(x)² − r(0)²] of one row's entries. `share`: `(n_cols,)`; `total`: that of the row.
pub fn add_row(columns: &[u32], values: &[f32], share: &[f64], total: f64, model: &Model, into: &mut [[f64; 2]]) {
    for (&column, &value) in columns.iter().zip(values) {
        let mu = share[column as usize] * total;
        let (found, zero) = (model.residual(f64::from(value), mu), model.residual(0.0, mu));
        let cell = &mut into[column as usize];
        cell[0] += found - zero;
        cell[1] += found * found - zero * zero;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The sums over all cells, the plain way: one residual a cell.
        #[test]
        fn zeros_and_entries_are_all_cells(
            counts in prop::collection::vec(0u8..30, 1..60),
            others in prop::collection::vec(1u16..400, 60),
            theta in 1.0f64..200.0,
            clip in 0.5f64..20.0,
        ) {
            let model = Model { theta, clip };
            let totals: Vec<f64> = counts.iter().zip(&others).map(|(&c, &o)| f64::from(c) + f64::from(o)).collect();
            let share = counts.iter().map(|&c| f64::from(c)).sum::<f64>() / totals.iter().sum::<f64>();
            let mut into = [[0.0; 2]];
            let mut seen: Vec<(f64, f64)> = Vec::new();
            for (&count, &total) in counts.iter().zip(&totals) {
                if count > 0 {
                    add_row(&[0], &[f32::from(count)], &[share], total, &model, &mut into);
                }
                match seen.iter_mut().find(|s| s.0 == total) {
                    Some(s) => s.1 += 1.0,
                    None => seen.push((total, 1.0)),
                }
            }
            let zeros = of_zeros(share, &seen, &model);
            let plain: Vec<f64> = counts.iter().zip(&totals).map(|(&c, &t)| model.residual(f64::from(c), share * t)).collect();
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-10 * (1.0 + b.abs());
            prop_assert!(near(into[0][0] + zeros[0], plain.iter().sum()));
            prop_assert!(near(into[0][1] + zeros[1], plain.iter().map(|r| r * r).sum()));
        }
    }

    #[test]
    fn a_gene_without_counts_has_no_residual() {
        let model = Model { theta: 100.0, clip: 10.0 };
        assert_eq!(of_zeros(0.0, &[(5.0, 3.0)], &model), [0.0, 0.0]);
        assert_eq!(model.residual(0.0, 0.0), 0.0);
    }
}

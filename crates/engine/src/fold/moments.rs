//! Mean and variance of every gene, for each batch, numerically stable.

use cellmill_kernels::moments;
use cellmill_matrix::Result;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};

/// Mean and squared deviations of every gene over the rows of each batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moments {
    /// Number of genes.
    pub n_vars: usize,
    /// Number of batches; 1 without a batch key.
    pub n_batches: usize,
}

/// Moments of one batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneMoments {
    /// Rows.
    pub n_obs: u64,
    /// Mean over rows: `(n_vars,)` f64.
    pub mean: Vec<f64>,
    /// Σ (x − mean)²: `(n_vars,)` f64.
    pub squares: Vec<f64>,
}

impl GeneMoments {
    /// The moments of no rows.
    pub fn none(n_vars: usize) -> Self {
        GeneMoments { n_obs: 0, mean: vec![0.0; n_vars], squares: vec![0.0; n_vars] }
    }

    /// From sums and sums of squares over `n_obs` rows.
    pub(crate) fn from_sums(n_obs: u64, sums: &[[f64; 2]]) -> Self {
        let n = n_obs as f64;
        let mean: Vec<f64> = sums.iter().map(|s| if n_obs == 0 { 0.0 } else { s[0] / n }).collect();
        let squares = sums
            .iter()
            .zip(&mean)
            .map(|(s, m)| {
                let deviation = s[1] - s[0] * m;
                // What is left of a constant gene is rounding: a few thousand additions of relative error 2^-53 each.
                if deviation <= s[1] * 1e-12 { 0.0 } else { deviation }
            })
            .collect();
        GeneMoments { n_obs, mean, squares }
    }

    /// Adds the moments of later rows.
    pub fn merge(&mut self, later: &GeneMoments) {
        if later.n_obs == 0 {
            return;
        }
        if self.n_obs == 0 {
            *self = later.clone();
            return;
        }
        // Chan, Golub & LeVeque 1979, (2.1): δ = m_b − m_a; m = m_a + δ n_b / n; M = M_a + M_b + δ² n_a n_b / n.
        let (a, b) = (self.n_obs as f64, later.n_obs as f64);
        let n = a + b;
        for j in 0..self.mean.len() {
            let delta = later.mean[j] - self.mean[j];
            self.mean[j] += delta * (b / n);
            self.squares[j] += later.squares[j] + delta * delta * (a * b / n);
        }
        self.n_obs += later.n_obs;
    }

    /// Variance with `ddof` 1: `(n_vars,)`; 0 for a single row.
    pub fn variance(&self) -> Vec<f64> {
        let n = (self.n_obs.max(2) - 1) as f64;
        self.squares.iter().map(|s| s / n).collect()
    }

    /// Σ x²: `(n_vars,)`.
    pub fn sum_of_squares(&self) -> Vec<f64> {
        let n = self.n_obs as f64;
        self.squares.iter().zip(&self.mean).map(|(s, m)| s + n * m * m).collect()
    }
}

/// Sums of one task: a batch's are made when its first row passes.
pub struct MomentsAcc {
    batches: Vec<Option<(u64, Vec<[f64; 2]>)>>,
}

impl Fold for Moments {
    type Acc = MomentsAcc;
    /// Moments of each batch of which rows were seen.
    type State = Vec<Option<GeneMoments>>;
    type Output = Vec<GeneMoments>;

    fn init(&self) -> Self::State {
        vec![None; self.n_batches]
    }

    fn open(&self) -> MomentsAcc {
        MomentsAcc { batches: vec![None; self.n_batches] }
    }

    fn accumulate(&self, acc: &mut MomentsAcc, _: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        let slot = |batch: &mut Option<(u64, Vec<[f64; 2]>)>| {
            batch.get_or_insert_with(|| (0, vec![[0.0; 2]; self.n_vars]));
        };
        match &chunk.batch {
            None => {
                slot(&mut acc.batches[0]);
                if let Some((n, sums)) = &mut acc.batches[0] {
                    *n += chunk.x.n_rows() as u64;
                    moments::accumulate(&chunk.x, sums);
                }
            }
            Some(batch) => {
                for (i, &b) in batch.iter().enumerate() {
                    slot(&mut acc.batches[b as usize]);
                    if let Some((n, sums)) = &mut acc.batches[b as usize] {
                        *n += 1;
                        let (columns, values) = chunk.x.row(i);
                        moments::accumulate_row(columns, values, sums);
                    }
                }
            }
        }
        Ok(())
    }

    fn close(&self, acc: MomentsAcc) -> Self::State {
        acc.batches.into_iter().map(|b| b.map(|(n, sums)| GeneMoments::from_sums(n, &sums))).collect()
    }

    fn merge(&self, into: &mut Self::State, later: Self::State) {
        for (a, b) in into.iter_mut().zip(later) {
            match (a.as_mut(), b) {
                (_, None) => {}
                (None, b) => *a = b,
                (Some(a), Some(b)) => a.merge(&b),
            }
        }
    }

    fn finish(&self, state: Self::State) -> Vec<GeneMoments> {
        state.into_iter().map(|b| b.unwrap_or_else(|| GeneMoments::none(self.n_vars))).collect()
    }
}

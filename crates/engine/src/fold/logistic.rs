//! Loss and gradient of a logistic regression of groups on genes: one pass for each step of a solver.

use cellmill_matrix::Result;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};

/// Σ over cells of the negative log-likelihood of each cell's group, and its gradient. The groups are the chunk's batches; cells of other
/// codes are passed over. Two groups share one column of coefficients (that of the second), more have one each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Logistic {
    /// Number of genes.
    pub n_vars: usize,
    /// Number of groups, at least 2.
    pub n_groups: usize,
    /// Coefficients, those of a gene side by side, intercepts last: `(n_vars + 1, columns)`.
    pub weights: Vec<f64>,
}

/// Loss and gradient over some cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// Cells.
    pub n_obs: u64,
    /// Σ −ln p(group).
    pub loss: f64,
    /// Its derivative by each coefficient: as `weights`.
    pub gradient: Vec<f64>,
}

impl Logistic {
    /// Columns of coefficients.
    pub fn columns(&self) -> usize {
        if self.n_groups == 2 { 1 } else { self.n_groups }
    }

    /// From linear predictors to (−ln p of the group, derivative by each predictor, left in their place).
    fn loss(&self, predictors: &mut [f64], group: usize) -> f64 {
        if let [z] = predictors {
            let (x, y) = (*z, group as f64);
            *z = 1.0 / (1.0 + (-x).exp()) - y;
            // ln(1 + e^x) without overflow.
            return x.max(0.0) + (-x.abs()).exp().ln_1p() - y * x;
        }
        let most = predictors.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let own = predictors[group] - most;
        let mut sum = 0.0;
        for z in predictors.iter_mut() {
            *z = (*z - most).exp();
            sum += *z;
        }
        predictors.iter_mut().for_each(|z| *z /= sum);
        predictors[group] -= 1.0;
        sum.ln() - own
    }
}

impl Fold for Logistic {
    type Acc = Slope;
    type State = Slope;
    type Output = Slope;

    fn init(&self) -> Slope {
        Slope { n_obs: 0, loss: 0.0, gradient: vec![0.0; self.weights.len()] }
    }

    fn open(&self) -> Slope {
        self.init()
    }

    fn accumulate(&self, acc: &mut Slope, _: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        let k = self.columns();
        let intercepts = &self.weights[self.n_vars * k..];
        let mut z = vec![0.0; k];
        for i in 0..chunk.x.n_rows() {
            let group = chunk.batch.as_ref().map_or(0, |codes| codes[i] as usize);
            if group >= self.n_groups {
                continue;
            }
            let (columns, values) = chunk.x.row(i);
            z.copy_from_slice(intercepts);
            for (&column, &value) in columns.iter().zip(values) {
                let weights = &self.weights[column as usize * k..][..k];
                z.iter_mut().zip(weights).for_each(|(z, w)| *z += w * f64::from(value));
            }
            acc.n_obs += 1;
            acc.loss += self.loss(&mut z, group);
            for (&column, &value) in columns.iter().zip(values) {
                let gradient = &mut acc.gradient[column as usize * k..][..k];
                gradient.iter_mut().zip(&z).for_each(|(g, d)| *g += d * f64::from(value));
            }
            acc.gradient[self.n_vars * k..].iter_mut().zip(&z).for_each(|(g, d)| *g += d);
        }
        Ok(())
    }

    fn close(&self, acc: Slope) -> Slope {
        acc
    }

    fn merge(&self, into: &mut Slope, later: Slope) {
        into.n_obs += later.n_obs;
        into.loss += later.loss;
        into.gradient.iter_mut().zip(&later.gradient).for_each(|(a, b)| *a += b);
    }

    fn finish(&self, state: Slope) -> Slope {
        state
    }
}

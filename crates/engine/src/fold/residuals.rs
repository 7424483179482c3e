//! The second read of `pearson_residuals`: sums of residuals of the entries, and how often each row total occurs.

use std::collections::BTreeMap;

use cellmill_kernels::residual::{Model, add_row};
use cellmill_matrix::Result;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};

/// Sums of the Pearson residuals of every gene in each batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Residuals {
    /// Each gene's share of a batch's counts: `(n_batches, n_vars)`.
    pub share: Vec<Vec<f64>>,
    /// The model.
    pub model: Model,
}

/// What one batch's rows say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResidualSums {
    /// Rows.
    pub n_obs: u64,
    /// [Σ (r(x) − r(0)), Σ (r(x)² − r(0)²)] over the entries of each gene: `(n_vars,)`; empty without rows.
    pub entries: Vec<[f64; 2]>,
    /// Rows of each total (the bits of an f64, which are in its order).
    pub totals: BTreeMap<u64, u64>,
}

impl Fold for Residuals {
    type Acc = Vec<ResidualSums>;
    type State = Vec<ResidualSums>;
    type Output = Vec<ResidualSums>;

    fn init(&self) -> Vec<ResidualSums> {
        vec![ResidualSums::default(); self.share.len()]
    }

    fn open(&self) -> Vec<ResidualSums> {
        self.init()
    }

    fn accumulate(&self, acc: &mut Vec<ResidualSums>, _: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        let totals = chunk.totals().total.clone();
        for (i, &total) in totals.iter().enumerate() {
            let b = chunk.batch.as_ref().map_or(0, |batch| batch[i] as usize);
            let (columns, values) = chunk.x.row(i);
            let sums = &mut acc[b];
            sums.n_obs += 1;
            sums.entries.resize(self.share[b].len(), [0.0; 2]);
            *sums.totals.entry(total.to_bits()).or_default() += 1;
            add_row(columns, values, &self.share[b], total, &self.model, &mut sums.entries);
        }
        Ok(())
    }

    fn close(&self, acc: Vec<ResidualSums>) -> Vec<ResidualSums> {
        acc
    }

    fn merge(&self, into: &mut Vec<ResidualSums>, later: Vec<ResidualSums>) {
        for (a, b) in into.iter_mut().zip(later) {
            if a.n_obs == 0 {
                *a = b;
                continue;
            }
            a.n_obs += b.n_obs;
            for (a, b) in a.entries.iter_mut().zip(b.entries) {
                a[0] += b[0];
                a[1] += b[1];
            }
            b.totals.into_iter().for_each(|(total, n)| *a.totals.entry(total).or_default() += n);
        }
    }

    fn finish(&self, state: Vec<ResidualSums>) -> Vec<ResidualSums> {
        state
    }
}

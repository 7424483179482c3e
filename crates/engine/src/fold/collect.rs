//! The rows themselves, as they are after some steps: the free monoid.

use std::sync::Arc;

use cellmill_matrix::{Csr, Result};
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};
use crate::exec::Spare;

/// Collects the rows after `step` steps; states are rows laid end to end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Collect {
    /// Steps done before the rows are taken.
    pub step: usize,
    /// Columns that the rows have then.
    pub n_cols: usize,
    /// Rows that are no longer needed, whose memory is taken.
    #[serde(skip)]
    pub spare: Arc<Spare<Csr>>,
}

impl Collect {
    /// Collects the rows after `step` steps, when they have `n_cols` columns.
    pub fn new(step: usize, n_cols: usize) -> Self {
        Collect { step, n_cols, spare: Arc::default() }
    }
}

/// Rows laid end to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collected {
    /// The rows.
    pub x: Csr,
    /// Their sums for normalisation, where these were taken: `(x.n_rows(),)`.
    pub normalizer: Option<Vec<f64>>,
}

impl Fold for Collect {
    type Acc = Collected;
    type State = Collected;
    type Output = Collected;

    fn listens(&self, step: usize) -> bool {
        step == self.step
    }
    fn init(&self) -> Collected {
        Collected { x: Csr::empty(self.n_cols), normalizer: None }
    }
    fn open(&self) -> Collected {
        let mut x = self.spare.take();
        x.clear(self.n_cols);
        Collected { x, normalizer: None }
    }
    fn accumulate(&self, acc: &mut Collected, step: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        if step == self.step {
            append(acc, &chunk.x, chunk.normalizer.as_deref());
        }
        Ok(())
    }
    fn close(&self, acc: Collected) -> Collected {
        acc
    }
    fn merge(&self, into: &mut Collected, later: Collected) {
        append(into, &later.x, later.normalizer.as_deref());
    }
    fn finish(&self, state: Collected) -> Collected {
        state
    }
}

fn append(into: &mut Collected, later: &Csr, normalizer: Option<&[f64]>) {
    let offset = into.x.nnz() as u64;
    into.x.indptr.extend(later.indptr.iter().skip(1).map(|p| p + offset));
    into.x.indices.extend_from_slice(&later.indices);
    into.x.data.extend_from_slice(&later.data);
    if let Some(sums) = normalizer {
        into.normalizer.get_or_insert_default().extend_from_slice(sums);
    }
}

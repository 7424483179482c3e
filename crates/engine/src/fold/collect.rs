//! The rows themselves, as they are after some steps: the free monoid.

use cellmill_matrix::{Csr, Result};
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};

/// Collects the rows after `step` steps; states are rows laid end to end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Collect {
    /// Steps done before the rows are taken.
    pub step: usize,
    /// Columns that the rows have then.
    pub n_cols: usize,
}

impl Fold for Collect {
    type Acc = Csr;
    type State = Csr;
    type Output = Csr;

    fn listens(&self, step: usize) -> bool {
        step == self.step
    }
    fn init(&self) -> Csr {
        Csr::empty(self.n_cols)
    }
    fn open(&self) -> Csr {
        self.init()
    }
    fn accumulate(&self, acc: &mut Csr, step: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        if step == self.step {
            self.merge_rows(acc, &chunk.x);
        }
        Ok(())
    }
    fn close(&self, acc: Csr) -> Csr {
        acc
    }
    fn merge(&self, into: &mut Csr, later: Csr) {
        self.merge_rows(into, &later);
    }
    fn finish(&self, state: Csr) -> Csr {
        state
    }
}

impl Collect {
    fn merge_rows(&self, into: &mut Csr, later: &Csr) {
        let offset = into.nnz() as u64;
        into.indptr.extend(later.indptr.iter().skip(1).map(|p| p + offset));
        into.indices.extend_from_slice(&later.indices);
        into.data.extend_from_slice(&later.data);
    }
}

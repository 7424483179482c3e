//! The second read of `seurat_v3`: sums of counts clipped at each gene's and batch's bound.

use cellmill_kernels::moments::accumulate_clipped_row;
use cellmill_matrix::Result;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};

/// Σ min(x, clip) and Σ min(x, clip)² of every gene in each batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Clipped {
    /// Bound of each gene in each batch: `(n_batches, n_vars)`.
    pub clip: Vec<Vec<f64>>,
}

/// [Σ min(x, clip), Σ min(x, clip)²] of each gene: `(n_batches, n_vars)`.
pub type ClippedSums = Vec<Vec<[f64; 2]>>;

impl Fold for Clipped {
    type Acc = ClippedSums;
    type State = ClippedSums;
    type Output = ClippedSums;

    fn init(&self) -> ClippedSums {
        self.clip.iter().map(|c| vec![[0.0; 2]; c.len()]).collect()
    }

    fn open(&self) -> ClippedSums {
        self.init()
    }

    fn accumulate(&self, acc: &mut ClippedSums, _: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        for i in 0..chunk.x.n_rows() {
            let b = chunk.batch.as_ref().map_or(0, |batch| batch[i] as usize);
            let (columns, values) = chunk.x.row(i);
            accumulate_clipped_row(columns, values, &self.clip[b], &mut acc[b]);
        }
        Ok(())
    }

    fn close(&self, acc: ClippedSums) -> ClippedSums {
        acc
    }

    fn merge(&self, into: &mut ClippedSums, later: ClippedSums) {
        for (a, b) in into.iter_mut().zip(later) {
            for (a, b) in a.iter_mut().zip(b) {
                a[0] += b[0];
                a[1] += b[1];
            }
        }
    }

    fn finish(&self, state: ClippedSums) -> ClippedSums {
        state
    }
}

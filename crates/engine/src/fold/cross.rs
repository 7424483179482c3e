//! Products of regressors with each other and with every gene: the normal equations of a linear regression.

use cellmill_matrix::Result;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};

/// Σ r rᵀ and Σ r xᵀ over rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cross {
    /// Number of genes.
    pub n_vars: usize,
    /// Regressors of a row.
    pub width: usize,
    /// Regressors of each source row: `(n_obs of the source, width)`.
    pub regressors: Vec<f64>,
}

/// The products.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Products {
    /// Σ r rᵀ: `(width, width)`.
    pub gram: Vec<f64>,
    /// Σ r xᵀ: `(width, n_vars)`.
    pub cross: Vec<f64>,
}

impl Fold for Cross {
    type Acc = Products;
    type State = Products;
    type Output = Products;

    fn init(&self) -> Products {
        Products { gram: vec![0.0; self.width * self.width], cross: vec![0.0; self.width * self.n_vars] }
    }

    fn open(&self) -> Products {
        self.init()
    }

    fn accumulate(&self, acc: &mut Products, _: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        for (i, &row) in chunk.rows.iter().enumerate() {
            let at = (chunk.source.start as usize + row as usize) * self.width;
            let r = &self.regressors[at..at + self.width];
            for (sums, a) in acc.gram.chunks_exact_mut(self.width).zip(r) {
                sums.iter_mut().zip(r).for_each(|(sum, b)| *sum += a * b);
            }
            let (columns, values) = chunk.x.row(i);
            for (sums, a) in acc.cross.chunks_exact_mut(self.n_vars.max(1)).zip(r) {
                columns.iter().zip(values).for_each(|(&c, &x)| sums[c as usize] += a * f64::from(x));
            }
        }
        Ok(())
    }

    fn close(&self, acc: Products) -> Products {
        acc
    }

    fn merge(&self, into: &mut Products, later: Products) {
        into.gram.iter_mut().zip(later.gram).for_each(|(a, b)| *a += b);
        into.cross.iter_mut().zip(later.cross).for_each(|(a, b)| *a += b);
    }

    fn finish(&self, state: Products) -> Products {
        state
    }
}

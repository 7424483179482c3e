//! Genes that hold much of some row's counts: scanpy's `exclude_highly_expressed`.

use cellmill_matrix::Result;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};

/// Whether each gene holds more than a share of the counts of at least one row: `(n_vars,)`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct High {
    /// Number of genes.
    pub n_vars: usize,
    /// The share, 0 to 1.
    pub above: f64,
}

impl Fold for High {
    type Acc = Vec<bool>;
    type State = Vec<bool>;
    type Output = Vec<bool>;

    fn init(&self) -> Vec<bool> {
        vec![false; self.n_vars]
    }
    fn open(&self) -> Vec<bool> {
        self.init()
    }
    fn accumulate(&self, high: &mut Vec<bool>, _: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        let bounds: Vec<f64> = chunk.totals().total.iter().map(|sum| self.above * sum).collect();
        for (i, bound) in bounds.into_iter().enumerate() {
            let (columns, values) = chunk.x.row(i);
            for (&j, &x) in columns.iter().zip(values) {
                high[j as usize] |= f64::from(x) > bound;
            }
        }
        Ok(())
    }
    fn close(&self, high: Vec<bool>) -> Vec<bool> {
        high
    }
    fn merge(&self, into: &mut Vec<bool>, later: Vec<bool>) {
        into.iter_mut().zip(later).for_each(|(a, b)| *a |= b);
    }
    fn finish(&self, state: Vec<bool>) -> Vec<bool> {
        state
    }
}

#[cfg(test)]
mod tests {
    use cellmill_matrix::Csr;

    use super::*;

    #[test]
    fn a_gene_is_high_where_it_holds_more_than_the_share_of_one_row() {
        let mut x = Csr::empty(3);
        x.push_row(&[0, 1], &[1.0, 3.0]);
        x.push_row(&[0, 1, 2], &[2.0, 1.0, 1.0]);
        let fold = High { n_vars: 3, above: 0.5 };
        let mut high = fold.open();
        fold.accumulate(&mut high, 0, &mut Chunk::new(0..2, x, None), &mut RowColumns::default()).unwrap();
        assert_eq!(high, [false, true, false], "half of a row is not more than half");
    }
}

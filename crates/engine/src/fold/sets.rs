//! Sums of each row over sets of genes: what scores are made of.

use cellmill_kernels::totals::subset_totals;
use cellmill_matrix::{Result, Values};
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};

/// Sum of each row over the genes of each set, as row columns of f64 under the set's name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetSums {
    /// Names and genes: masks of `(n_vars,)`.
    pub sets: Vec<(String, Vec<bool>)>,
}

impl Fold for SetSums {
    type Acc = ();
    type State = ();
    type Output = ();

    fn init(&self) {}
    fn open(&self) {}
    fn accumulate(&self, (): &mut (), _: usize, chunk: &mut Chunk, rows: &mut RowColumns) -> Result<()> {
        let masks: Vec<Vec<bool>> = self.sets.iter().map(|(_, mask)| mask.clone()).collect();
        for (sums, (name, _)) in subset_totals(&chunk.x, &masks).into_iter().zip(&self.sets) {
            rows.extend(name, Values::F64(sums));
        }
        Ok(())
    }
    fn close(&self, (): ()) {}
    fn merge(&self, (): &mut (), (): ()) {}
    fn finish(&self, (): ()) {}
}

//! Folds: what is asked of the rows. A fold is a monoid over rows with two exits: a `State` that merges, and columns of one
//! value a row that belong to the rows themselves.

mod by_gene;
mod clipped;
mod collect;
mod cross;
mod grouped;
mod high;
mod largest;
mod laws;
mod logistic;
mod moments;
mod pair;
mod qc;
mod residuals;
mod sets;

pub use by_gene::{ByGene, Genes};
pub use clipped::{Clipped, ClippedSums};
pub use collect::{Collect, Collected};
pub use cross::{Cross, Products};
pub use grouped::{GroupStats, Grouped, GroupedStats, NO_GROUP};
pub use high::High;
pub use largest::Largest;
pub use laws::check_laws;
pub use logistic::{Logistic, Slope};
pub use moments::{GeneMoments, Moments};
pub use pair::At;
pub use qc::{EXACT_TOTAL, GeneTotals, Qc};
pub use residuals::{ResidualSums, Residuals};
pub use sets::SetSums;

use cellmill_kernels::totals::RowTotals;
use cellmill_matrix::Result;
use serde::{Serialize, de::DeserializeOwned};

use crate::chunk::{Chunk, RowColumns};

/// What is known of a task's rows that nobody has looked at here: whole numbers from 0 on, below 2^23.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Non-zero entries and sum of each row.
    pub totals: RowTotals,
    /// Sums of each row over sets of genes, by name.
    pub sets: Vec<(String, Vec<f64>)>,
    /// Sums and counts of each gene: a word of [`cellmill_kernels::totals::column_counts`].
    pub genes: Vec<u64>,
    /// The largest value.
    pub largest: f32,
}

/// A question to all rows. `merge` is associative up to rounding and `init` is its identity; the order of merging is fixed by
/// the rows alone, so results are the same bits for any number of threads or workers.
pub trait Fold: Clone + Serialize + DeserializeOwned + Send + Sync {
    /// What accumulates while one task's rows pass.
    type Acc;
    /// What a task leaves behind.
    type State: Serialize + DeserializeOwned + Send;
    /// What all states together mean.
    type Output;

    /// Whether the fold looks at the rows as they are after `step` steps.
    fn listens(&self, _step: usize) -> bool {
        true
    }
    /// The state of no rows.
    fn init(&self) -> Self::State;
    /// An empty accumulator.
    fn open(&self) -> Self::Acc;
    /// Adds the rows of a chunk as they are after `step` steps of the recipe. Rows come in order; how they are cut into chunks
    /// makes no difference to a bit of the result.
    fn accumulate(&self, acc: &mut Self::Acc, step: usize, chunk: &mut Chunk, rows: &mut RowColumns) -> Result<()>;
    /// Whether [`Fold::count`] may stand for [`Fold::accumulate`].
    fn takes_counts(&self) -> bool {
        false
    }
    /// Adds the rows of a whole task of which only their sums are known, with the same result. Called where [`Fold::takes_counts`].
    fn count(&self, _acc: &mut Self::Acc, _step: usize, _counted: &Counted, _rows: &mut RowColumns) {}
    /// The state of the rows that were added.
    fn close(&self, acc: Self::Acc) -> Self::State;
    /// Adds the state of later rows.
    fn merge(&self, into: &mut Self::State, later: Self::State);
    /// The answer.
    fn finish(&self, state: Self::State) -> Self::Output;
}

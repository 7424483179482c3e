//! A fold of which only the state is wanted.

use cellmill_engine::Chunk;
use cellmill_engine::chunk::RowColumns;
use cellmill_engine::fold::{Counted, Fold};
use cellmill_matrix::Result;
use serde::{Deserialize, Serialize};

/// A fold whose row columns are dropped.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Silent<F> {
    /// The fold.
    pub inner: F,
}

impl<F: Fold> Fold for Silent<F> {
    type Acc = F::Acc;
    type State = F::State;
    type Output = F::Output;
    fn listens(&self, step: usize) -> bool {
        self.inner.listens(step)
    }
    fn init(&self) -> Self::State {
        self.inner.init()
    }
    fn open(&self) -> Self::Acc {
        self.inner.open()
    }
    fn accumulate(&self, acc: &mut Self::Acc, step: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        self.inner.accumulate(acc, step, chunk, &mut RowColumns::default())
    }
    fn takes_counts(&self) -> bool {
        self.inner.takes_counts()
    }
    fn count(&self, acc: &mut Self::Acc, step: usize, counted: &Counted, _: &mut RowColumns) {
        self.inner.count(acc, step, counted, &mut RowColumns::default());
    }
    fn close(&self, acc: Self::Acc) -> Self::State {
        self.inner.close(acc)
    }
    fn merge(&self, into: &mut Self::State, later: Self::State) {
        self.inner.merge(into, later);
    }
    fn finish(&self, state: Self::State) -> Self::Output {
        self.inner.finish(state)
    }
}

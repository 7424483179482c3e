//! A pair of folds is a fold: two questions, one read. And a fold listens at one step of the recipe.

use cellmill_matrix::Result;
use serde::{Deserialize, Serialize};

use super::{Counted, Fold};
use crate::chunk::{Chunk, RowColumns};

/// A fold that sees the rows as they are after `step` steps of the recipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct At<F> {
    /// Steps done before the fold looks; 0 is the raw rows.
    pub step: usize,
    /// The fold.
    pub fold: F,
}

impl<F: Fold> Fold for At<F> {
    type Acc = F::Acc;
    type State = F::State;
    type Output = F::Output;

    fn listens(&self, step: usize) -> bool {
        step == self.step
    }
    fn init(&self) -> Self::State {
        self.fold.init()
    }
    fn open(&self) -> Self::Acc {
        self.fold.open()
    }
    fn accumulate(&self, acc: &mut Self::Acc, step: usize, chunk: &mut Chunk, rows: &mut RowColumns) -> Result<()> {
        if step == self.step { self.fold.accumulate(acc, step, chunk, rows) } else { Ok(()) }
    }
    fn takes_counts(&self) -> bool {
        self.fold.takes_counts()
    }
    fn count(&self, acc: &mut Self::Acc, step: usize, counted: &Counted, rows: &mut RowColumns) {
        if step == self.step {
            self.fold.count(acc, step, counted, rows);
        }
    }
    fn close(&self, acc: Self::Acc) -> Self::State {
        self.fold.close(acc)
    }
    fn merge(&self, into: &mut Self::State, later: Self::State) {
        self.fold.merge(into, later);
    }
    fn finish(&self, state: Self::State) -> Self::Output {
        self.fold.finish(state)
    }
}

impl<A: Fold, B: Fold> Fold for (A, B) {
    type Acc = (A::Acc, B::Acc);
    type State = (A::State, B::State);
    type Output = (A::Output, B::Output);

    fn listens(&self, step: usize) -> bool {
        self.0.listens(step) || self.1.listens(step)
    }
    fn init(&self) -> Self::State {
        (self.0.init(), self.1.init())
    }
    fn open(&self) -> Self::Acc {
        (self.0.open(), self.1.open())
    }
    fn accumulate(&self, acc: &mut Self::Acc, step: usize, chunk: &mut Chunk, rows: &mut RowColumns) -> Result<()> {
        self.0.accumulate(&mut acc.0, step, chunk, rows)?;
        self.1.accumulate(&mut acc.1, step, chunk, rows)
    }
    fn takes_counts(&self) -> bool {
        self.0.takes_counts() && self.1.takes_counts()
    }
    fn count(&self, acc: &mut Self::Acc, step: usize, counted: &Counted, rows: &mut RowColumns) {
        self.0.count(&mut acc.0, step, counted, rows);
        self.1.count(&mut acc.1, step, counted, rows);
    }
    fn close(&self, acc: Self::Acc) -> Self::State {
        (self.0.close(acc.0), self.1.close(acc.1))
    }
    fn merge(&self, into: &mut Self::State, later: Self::State) {
        self.0.merge(&mut into.0, later.0);
        self.1.merge(&mut into.1, later.1);
    }
    fn finish(&self, state: Self::State) -> Self::Output {
        (self.0.finish(state.0), self.1.finish(state.1))
    }
}

impl<F: Fold> Fold for Option<F> {
    type Acc = Option<F::Acc>;
    type State = Option<F::State>;
    type Output = Option<F::Output>;

    fn listens(&self, step: usize) -> bool {
        self.as_ref().is_some_and(|fold| fold.listens(step))
    }
    fn init(&self) -> Self::State {
        self.as_ref().map(F::init)
    }
    fn open(&self) -> Self::Acc {
        self.as_ref().map(F::open)
    }
    fn accumulate(&self, acc: &mut Self::Acc, step: usize, chunk: &mut Chunk, rows: &mut RowColumns) -> Result<()> {
        match (self, acc) {
            (Some(fold), Some(acc)) => fold.accumulate(acc, step, chunk, rows),
            _ => Ok(()),
        }
    }
    fn takes_counts(&self) -> bool {
        self.as_ref().is_none_or(F::takes_counts)
    }
    fn count(&self, acc: &mut Self::Acc, step: usize, counted: &Counted, rows: &mut RowColumns) {
        if let (Some(fold), Some(acc)) = (self, acc) {
            fold.count(acc, step, counted, rows);
        }
    }
    fn close(&self, acc: Self::Acc) -> Self::State {
        self.as_ref().zip(acc).map(|(fold, acc)| fold.close(acc))
    }
    fn merge(&self, into: &mut Self::State, later: Self::State) {
        if let (Some(fold), Some(into), Some(later)) = (self, into, later) {
            fold.merge(into, later);
        }
    }
    fn finish(&self, state: Self::State) -> Self::Output {
        self.as_ref().zip(state).map(|(fold, state)| fold.finish(state))
    }
}

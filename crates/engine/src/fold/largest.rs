//! The largest value: a GPU rounds to a share of it.

use cellmill_kernels::totals::largest;
use cellmill_matrix::Result;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};

/// The largest magnitude of a stored value; NaN if one is missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Largest;

impl Fold for Largest {
    type Acc = f32;
    type State = f32;
    type Output = f32;

    fn init(&self) -> f32 {
        0.0
    }
    fn open(&self) -> f32 {
        0.0
    }
    fn accumulate(&self, most: &mut f32, _: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        self.merge(most, largest(&chunk.x.data));
        Ok(())
    }
    fn close(&self, most: f32) -> f32 {
        most
    }
    fn merge(&self, into: &mut f32, later: f32) {
        *into = largest(&[*into, later]);
    }
    fn finish(&self, most: f32) -> f32 {
        most
    }
}

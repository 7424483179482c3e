//! The nouns of the graph stage.

use cellmill_matrix::{Error, Place, Result};

/// Cells in a low-dimensional space: row-major, `(n, d)` f32, finite.
#[derive(Clone, Copy, Debug)]
pub struct Embedding<'a> {
    /// `n * d` coordinates.
    pub data: &'a [f32],
    /// Dimensions.
    pub d: usize,
}

impl<'a> Embedding<'a> {
    /// Wraps row-major coordinates.
    pub fn new(data: &'a [f32], d: usize) -> Result<Self> {
        if d == 0 || data.len() % d != 0 {
            return Err(Error::invalid(
                Place::default(),
                format!("{} numbers in rows of {d}", data.len()),
                "an embedding is a whole number of rows",
            ));
        }
        Ok(Embedding { data, d })
    }

    /// Number of cells.
    pub fn n(&self) -> usize {
        self.data.len() / self.d
    }

    /// Coordinates of cell `i`: `(d,)`.
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.d..(i + 1) * self.d]
    }
}

/// The nearest others of each cell: `k` a row, never the cell itself, ascending by (distance, id).
#[derive(Clone, Debug, PartialEq)]
pub struct Distances {
    /// Neighbours a row. scanpy's `n_neighbors` counts the cell itself, so this is `n_neighbors − 1`.
    pub k: usize,
    /// `(n, k)` row-major.
    pub indices: Vec<u32>,
    /// `(n, k)` row-major, ≥ 0.
    pub distances: Vec<f32>,
}

impl Distances {
    /// Number of cells.
    pub fn n(&self) -> usize {
        self.indices.len() / self.k.max(1)
    }
}

/// A symmetric weighted graph without self-loops: row `i` has neighbours `indices[indptr[i]..indptr[i + 1]]`, ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Connectivities {
    /// `(n + 1,)`.
    pub indptr: Vec<u64>,
    /// `(nnz,)`, strictly ascending within a row.
    pub indices: Vec<u32>,
    /// `(nnz,)`, > 0.
    pub weights: Vec<f32>,
}

impl Connectivities {
    /// Number of cells.
    pub fn n(&self) -> usize {
        self.indptr.len() - 1
    }

    /// Neighbours and weights of cell `i`.
    pub fn row(&self, i: usize) -> (&[u32], &[f32]) {
        let span = self.indptr[i] as usize..self.indptr[i + 1] as usize;
        (&self.indices[span.clone()], &self.weights[span])
    }
}

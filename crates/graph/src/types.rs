//! The nouns of the graph stage.

use cellmill_matrix::{Error, Place, Result};
use rayon::prelude::*;

/// Cells in a low-dimensional space: the first `d` of `wide` columns of a row-major f32 matrix, finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Embedding<'a> {
    /// `n * wide` coordinates.
    data: &'a [f32],
    /// Columns of the matrix.
    wide: usize,
    /// Dimensions.
    pub d: usize,
}

impl<'a> Embedding<'a> {
    /// Wraps row-major coordinates `(n, d)`.
    pub fn new(data: &'a [f32], d: usize) -> Result<Self> {
        Self::columns(data, d, d)
    }

    /// Wraps the first `d` columns of a row-major matrix `(n, wide)`.
    pub fn columns(data: &'a [f32], wide: usize, d: usize) -> Result<Self> {
        if d == 0 || d > wide || !data.len().is_multiple_of(wide) {
            return Err(Error::invalid(
                Place::default(),
                format!("{} numbers in rows of {wide}, of which {d} are used", data.len()),
                "an embedding is a whole number of rows of at least one coordinate",
            ));
        }
        Ok(Embedding { data, wide, d })
    }

    /// The same for lengths that fit.
    pub(crate) fn of(data: &'a [f32], d: usize) -> Self {
        debug_assert!(d > 0 && data.len().is_multiple_of(d));
        Embedding { data, wide: d, d }
    }

    /// Number of cells.
    pub fn n(&self) -> usize {
        self.data.len() / self.wide
    }

    /// Coordinates of cell `i`: `(d,)`.
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.wide..i * self.wide + self.d]
    }

    /// All coordinates one after the other, if no column is left out.
    pub(crate) fn whole(&self) -> Option<&'a [f32]> {
        (self.d == self.wide).then_some(self.data)
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

    /// Appends a row; what comes twice is summed.
    pub fn push_row(&mut self, row: &mut [(u32, f32)]) {
        row.sort_by_key(|edge| edge.0);
        for edges in row.chunk_by(|a, b| a.0 == b.0) {
            self.indices.push(edges[0].0);
            self.weights.push(edges.iter().map(|edge| edge.1).sum());
        }
        self.indptr.push(self.indices.len() as u64);
    }

    /// The graph itself if it is symmetric to the last bit, else its sum with its transpose. Clusters are found by moves that each gain
    /// something, which come to an end only where an edge weighs the same from both its ends.
    pub fn symmetric(self) -> Connectivities {
        let turned = self.transposed();
        if turned == self {
            return self;
        }
        let mut sum = Connectivities { indptr: vec![0], indices: Vec::new(), weights: Vec::new() };
        let mut both = Vec::new();
        for i in 0..self.n() {
            both.clear();
            for (indices, weights) in [self.row(i), turned.row(i)] {
                both.extend(indices.iter().copied().zip(weights.iter().copied()));
            }
            sum.push_row(&mut both);
        }
        sum
    }

    /// Each edge from its other end; rows are ascending.
    fn transposed(&self) -> Connectivities {
        let n = self.n();
        let mut indptr = vec![0u64; n + 1];
        self.indices.iter().for_each(|&j| indptr[j as usize + 1] += 1);
        (0..n).for_each(|j| indptr[j + 1] += indptr[j]);
        let mut next = indptr.clone();
        let (mut indices, mut weights) = (vec![0u32; self.indices.len()], vec![0f32; self.indices.len()]);
        for i in 0..n {
            let (row, values) = self.row(i);
            for (&j, &weight) in row.iter().zip(values) {
                let at = next[j as usize] as usize;
                (indices[at], weights[at]) = (i as u32, weight);
                next[j as usize] += 1;
            }
        }
        Connectivities { indptr, indices, weights }
    }

    /// The same graph with position `i` called `order[i]`: rows and columns, ascending again.
    pub fn in_original_order(self, order: &[u32]) -> Connectivities {
        if order.iter().zip(0..).all(|(&cell, at)| cell == at) {
            return self;
        }
        let mut position = vec![0u32; order.len()];
        order.iter().zip(0..).for_each(|(&cell, at)| position[cell as usize] = at);
        let mut indptr = Vec::with_capacity(self.indptr.len());
        indptr.push(0);
        let mut end = 0;
        for &at in &position {
            end += self.row(at as usize).0.len() as u64;
            indptr.push(end);
        }
        let mut indices = vec![0u32; self.indices.len()];
        let mut weights = vec![0f32; self.weights.len()];
        // Rows that one task writes lie together, so the two arrays are cut at their ends.
        const ROWS: usize = 1 << 12;
        let mut pieces = Vec::new();
        let (mut rest_indices, mut rest_weights) = (&mut indices[..], &mut weights[..]);
        for start in (0..position.len()).step_by(ROWS) {
            let stop = (start + ROWS).min(position.len());
            let length = (indptr[stop] - indptr[start]) as usize;
            let (i, later_i) = std::mem::take(&mut rest_indices).split_at_mut(length);
            let (w, later_w) = std::mem::take(&mut rest_weights).split_at_mut(length);
            (rest_indices, rest_weights) = (later_i, later_w);
            pieces.push((&position[start..stop], i, w));
        }
        pieces.into_par_iter().for_each(|(rows, indices, weights)| {
            let mut entries: Vec<(u32, f32)> = Vec::new();
            let mut write = 0;
            for &at in rows {
                let (columns, values) = self.row(at as usize);
                entries.clear();
                entries.extend(columns.iter().zip(values).map(|(&c, &w)| (order[c as usize], w)));
                entries.sort_unstable_by_key(|e| e.0);
                for &(column, weight) in &entries {
                    indices[write] = column;
                    weights[write] = weight;
                    write += 1;
                }
            }
        });
        Connectivities { indptr, indices, weights }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_has_the_sum_of_both_directions() {
        let mut graph = Connectivities { indptr: vec![0], indices: vec![], weights: vec![] };
        // 0 -> 1 twice, 1 -> 0, 1 -> 2, and nothing from 2.
        [vec![(1, 0.5), (1, 0.25)], vec![(2, 1.0), (0, 0.1)], vec![]].iter_mut().for_each(|row| graph.push_row(row));
        assert_eq!(graph.row(0), (&[1u32][..], &[0.75f32][..]));
        let sum = graph.symmetric();
        assert_eq!(sum, Connectivities { indptr: vec![0, 1, 3, 4], indices: vec![1, 0, 2, 1], weights: vec![0.85, 0.85, 1.0, 1.0] });
        // What is symmetric stays as it is.
        assert_eq!(sum.clone().symmetric(), sum);
    }

    #[test]
    fn renumbering_is_undone() {
        // Cells 2, 0, 1 at positions 0, 1, 2; edges (2, 0) of weight 0.5 and (0, 1) of weight 0.25.
        let graph = Connectivities { indptr: vec![0, 1, 3, 4], indices: vec![1, 0, 2, 1], weights: vec![0.5, 0.5, 0.25, 0.25] };
        let back = graph.in_original_order(&[2, 0, 1]);
        assert_eq!(back, Connectivities { indptr: vec![0, 2, 3, 4], indices: vec![1, 2, 0, 0], weights: vec![0.25, 0.5, 0.25, 0.5] });
    }
}

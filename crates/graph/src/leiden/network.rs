//! The graph of one level: level 0 borrows the cells' graph, later levels own what aggregation made.

use cellmill_cuda::Plain;
use cellmill_matrix::{Error, Place, Result};
use rayon::prelude::*;

use crate::Connectivities;

/// Rows a task when every row is walked. A fixed size, so that sums don't depend on the threads.
pub(crate) const ROWS: usize = 4096;

/// An edge weight: f32 between cells, f64 between aggregates (sums of many).
pub(crate) trait Weight: Plain + Into<f64> {
    /// The weight for sums.
    fn get(self) -> f64;
}

impl Weight for f32 {
    fn get(self) -> f64 {
        f64::from(self)
    }
}

impl Weight for f64 {
    fn get(self) -> f64 {
        self
    }
}

/// A symmetric graph of `n` vertices, each a cell or a set of cells.
#[derive(Clone, Copy)]
pub(crate) struct Network<'a, W> {
    /// Row starts: `(n + 1,)`.
    pub indptr: &'a [u64],
    /// Neighbours, ascending in a row, never the vertex itself.
    pub indices: &'a [u32],
    /// Weight of each edge end.
    pub weights: &'a [W],
    /// Sum of the weights of a vertex's edge ends, those inside it included: `(n,)`.
    pub strength: &'a [f64],
    /// Sum of all strengths, 2m.
    pub total: f64,
}

impl<'a, W: Weight> Network<'a, W> {
    /// Number of vertices.
    pub fn n(&self) -> usize {
        self.strength.len()
    }

    /// Neighbours of `v` and the weights of the edges to them.
    pub fn row(&self, v: u32) -> (&'a [u32], &'a [W]) {
        let span = self.indptr[v as usize] as usize..self.indptr[v as usize + 1] as usize;
        (&self.indices[span.clone()], &self.weights[span])
    }

    /// Neighbours of `v` with the weights of the edges to them.
    pub fn edges(&self, v: u32) -> impl Iterator<Item = (u32, f64)> + use<'a, W> {
        let (neighbours, weights) = self.row(v);
        neighbours.iter().zip(weights).map(|(&u, &w)| (u, w.get()))
    }
}

/// A level that owns its graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Coarse {
    pub indptr: Vec<u64>,
    pub indices: Vec<u32>,
    pub weights: Vec<f64>,
    pub strength: Vec<f64>,
    pub total: f64,
}

impl Coarse {
    /// The graph for the phases.
    pub fn network(&self) -> Network<'_, f64> {
        Network { indptr: &self.indptr, indices: &self.indices, weights: &self.weights, strength: &self.strength, total: self.total }
    }
}

/// Checks the cells' graph and sums each row: `(n,)`.
pub(crate) fn strengths(graph: &Connectivities) -> Result<Vec<f64>> {
    let bad = |found: String, expected: &str| {
        Error::invalid(Place { element: Some("obsp/connectivities".into()), ..Place::default() }, found, expected)
    };
    let (Some(&first), Some(&last)) = (graph.indptr.first(), graph.indptr.last()) else {
        return Err(bad("no row starts".into(), "a graph of n cells has n + 1 of them"));
    };
    if first != 0 || last != graph.indices.len() as u64 || graph.weights.len() != graph.indices.len() {
        return Err(bad(
            format!("rows from {first} to {last}, {} neighbours and {} weights", graph.indices.len(), graph.weights.len()),
            "each entry has a neighbour and a weight",
        ));
    }
    if graph.n() > u32::MAX as usize - 1 {
        return Err(bad(format!("{} cells", graph.n()), "at most 2^32 - 2 can be clustered"));
    }
    if let Some(i) = graph.indptr.windows(2).position(|w| w[1] < w[0]) {
        return Err(bad(format!("row {i} ends before its start"), "row starts never decrease"));
    }
    let n = graph.n();
    let row = |i: usize| {
        let (neighbours, weights) = graph.row(i);
        let mut before = None;
        let mut sum = 0.0f64;
        for (&u, &w) in neighbours.iter().zip(weights) {
            if u as usize >= n || u as usize == i || before >= Some(u) {
                return Err(bad(format!("neighbour {u} of cell {i}"), "neighbours ascend, are cells, and are others"));
            }
            if !(w > 0.0 && w.is_finite()) {
                return Err(bad(format!("weight {w} between cells {i} and {u}"), "weights are finite and above 0"));
            }
            before = Some(u);
            sum += f64::from(w);
        }
        Ok(sum)
    };
    (0..n).into_par_iter().with_min_len(ROWS).map(row).collect()
}

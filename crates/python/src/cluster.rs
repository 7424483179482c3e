//! Leiden and Louvain.

use cellmill_graph::leiden::{Options, leiden_on};
use cellmill_graph::{Connectivities, louvain};
use cellmill_matrix::{Error, Place};
use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::device::processor;
use crate::error::raised;
use crate::pool;

/// A CSR matrix of weights as a graph; entries on the diagonal and of weight 0 are left out. Where it is not symmetric, an edge has the sum
/// of both directions, as in a graph of igraph without directions.
pub fn graph_of(indptr: &Bound<'_, PyAny>, indices: &Bound<'_, PyAny>, weights: &PyReadonlyArray1<'_, f32>) -> PyResult<Connectivities> {
    let indptr = whole(indptr)?;
    let indices: Vec<u64> = whole(indices)?;
    let weights = weights.as_slice().map_err(|e| PyValueError::new_err(e.to_string()))?;
    let n = indptr.len().saturating_sub(1);
    let fits = indptr.first() == Some(&0)
        && indptr.windows(2).all(|w| w[0] <= w[1])
        && indptr.last() == Some(&(indices.len() as u64))
        && indices.len() == weights.len()
        && n < u32::MAX as usize
        && indices.iter().all(|&j| (j as usize) < n);
    if !fits {
        let place = Place { element: Some("obsp/connectivities".into()), ..Place::default() };
        return Err(raised(Error::invalid(place, "indptr, indices and data that don't fit each other", "a square csr_matrix is expected")));
    }
    let mut graph =
        Connectivities { indptr: vec![0], indices: Vec::with_capacity(indices.len()), weights: Vec::with_capacity(indices.len()) };
    let mut row: Vec<(u32, f32)> = Vec::new();
    for i in 0..n {
        row.clear();
        let span = indptr[i] as usize..indptr[i + 1] as usize;
        row.extend(
            indices[span.clone()].iter().zip(&weights[span]).map(|(&j, &w)| (j as u32, w)).filter(|&(j, w)| j as usize != i && w != 0.0),
        );
        graph.push_row(&mut row);
    }
    Ok(graph.symmetric())
}

/// Positions of an int32 or int64 array.
pub fn whole(array: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    let negative = || PyValueError::new_err("negative positions in a sparse matrix");
    if let Ok(a) = array.extract::<PyReadonlyArray1<'_, i32>>() {
        return a.as_array().iter().map(|&x| u64::try_from(x).map_err(|_| negative())).collect();
    }
    let a: PyReadonlyArray1<'_, i64> = array.extract()?;
    a.as_array().iter().map(|&x| u64::try_from(x).map_err(|_| negative())).collect()
}

/// How to cluster; scanpy's names.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct How {
    method: String,
    resolution: f64,
    n_iterations: i32,
    seed: u64,
}

/// Labels `(n,)` i32 by size, largest first, how many clusters there are, and their modularity. `method`: `leiden` or `louvain`.
#[pyfunction]
pub fn cluster<'py>(
    py: Python<'py>,
    indptr: &Bound<'py, PyAny>,
    indices: &Bound<'py, PyAny>,
    weights: PyReadonlyArray1<'py, f32>,
    how: How,
) -> PyResult<Bound<'py, PyAny>> {
    let graph = graph_of(indptr, indices, &weights)?;
    let How { method, resolution, n_iterations, seed } = how;
    let options = Options { resolution, n_iterations, seed, ..Options::default() };
    let found = pool::run(py, &method, |call| match method.as_str() {
        "louvain" => louvain(&graph, &options, call),
        _ => leiden_on(&graph, &[resolution], &options, &processor(call)?, call).map(|mut found| found.swap_remove(0)),
    })?;
    let labels: Vec<i32> = found.labels.iter().map(|&l| l as i32).collect();
    (labels.into_pyarray(py), found.n_clusters, found.modularity).into_bound_py_any(py)
}

//! Neighbours and the weighted graph.

use cellmill_graph::fuzzy::{Method, connectivities_on};
use cellmill_graph::{Embedding, Knn, knn};
use cellmill_matrix::Error;
use numpy::{IntoPyArray, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::convert;
use crate::device::processor;
use crate::error::raised;
use crate::pool;

/// Distances and connectivities of the rows of `x`, `(n, d)` f32, each as `(indptr, indices, data)` of a `(n, n)` CSR matrix.
#[pyfunction]
pub fn neighbors<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f32>,
    n_neighbors: usize,
    mode: &str,
    metric: &str,
    method: &str,
    seed: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let (n, d) = (x.shape()[0], x.shape()[1]);
    let data = x.as_slice().map_err(|e| PyValueError::new_err(e.to_string()))?;
    let options = knn::Options {
        n_neighbors,
        mode: match mode {
            "exact" => knn::Mode::Exact,
            "fast" => knn::Mode::Fast,
            _ => knn::Mode::Accurate,
        },
        metric: match metric {
            "euclidean" => knn::Metric::Euclidean,
            "cosine" => knn::Metric::Cosine,
            other => return Err(raised(Error::option("metric", format!("'{other}'"), "it is euclidean or cosine"))),
        },
        seed,
    };
    let method = match method {
        "umap" => Method::UMAP,
        "gauss" => Method::Gauss,
        "jaccard" => Method::Jaccard,
        other => return Err(raised(Error::option("method", format!("'{other}'"), "it is umap, gauss or jaccard"))),
    };
    let (distances, graph) = pool::run(py, "neighbors", |call| {
        let Knn { order, distances } = knn::knn_on(Embedding::new(data, d)?, &options, &processor(call)?, None, call)?;
        // Cells that are near lie together here, which the weights are found faster by.
        let graph = connectivities_on(&distances, method, &processor(call)?)?.in_original_order(&order);
        Ok((Knn { order, distances }.in_original_order(), graph))
    })?;
    let k = distances.k as u64;
    let indptr = (0..=n as u64).map(|i| i * k).collect();
    let (dp, di) = convert::index(py, indptr, distances.indices, n);
    let (cp, ci) = convert::index(py, graph.indptr, graph.indices, n);
    let distances = (dp, di, distances.distances.into_pyarray(py));
    (distances, (cp, ci, graph.weights.into_pyarray(py))).into_bound_py_any(py)
}

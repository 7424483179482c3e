//! Neighbours and the weighted graph.

use cellmill_graph::fuzzy::{Method, connectivities_on};
use cellmill_graph::{Connectivities, Distances, Embedding, Knn, knn};
use cellmill_matrix::Error;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::convert;
use crate::device::processor;
use crate::error::raised;
use crate::pool;

/// A CSR matrix: `(indptr, indices, data)`.
type Parts<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyArray1<f32>>);

/// Distances and connectivities of the rows of `x`, `(n, d)` f32, each as `(indptr, indices, data)` of a `(n, n)` CSR matrix. `p` is the
/// exponent of `minkowski`; without a method there are no connectivities.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "arguments of a Python function")]
pub fn neighbors<'py>(
    py: Python<'py>,
    x: PyReadonlyArray2<'py, f32>,
    n_neighbors: usize,
    mode: &str,
    metric: &str,
    p: Option<f64>,
    method: Option<&str>,
    seed: u64,
) -> PyResult<(Parts<'py>, Option<Parts<'py>>)> {
    let (n, d) = (x.shape()[0], x.shape()[1]);
    let data = x.as_slice().map_err(|e| PyValueError::new_err(e.to_string()))?;
    let metric = knn::Metric::named(metric, p).map_err(raised)?;
    let options = knn::Options {
        n_neighbors,
        mode: match mode {
            "exact" => knn::Mode::Exact,
            "fast" => knn::Mode::Fast,
            _ => knn::Mode::Accurate,
        },
        metric,
        seed,
    };
    let method = method.map(method_of).transpose()?;
    let (distances, graph) = pool::run(py, "neighbors", |call| {
        let Knn { order, distances } = knn::knn_on(Embedding::new(data, d)?, &options, &processor(call)?, None, call)?;
        // Cells that are near lie together here, which the weights are found faster by.
        let weigh = |method| connectivities_on(&metric.for_weights(&distances), method, &processor(call)?);
        let graph = method.map(weigh).transpose()?.map(|graph| graph.in_original_order(&order));
        Ok((Knn { order, distances }.in_original_order(), graph))
    })?;
    let k = distances.k as u64;
    let indptr = (0..=n as u64).map(|i| i * k).collect();
    let (dp, di) = convert::index(py, indptr, distances.indices, n);
    Ok(((dp, di, distances.distances.into_pyarray(py)), graph.map(|graph| parts(py, graph, n))))
}

/// Connectivities of neighbours that were found elsewhere: `indices` and `distances` are `(n, k)`, without the cells themselves, nearest
/// first.
#[pyfunction]
pub fn connectivities<'py>(
    py: Python<'py>,
    indices: PyReadonlyArray2<'py, u32>,
    distances: PyReadonlyArray2<'py, f32>,
    method: &str,
) -> PyResult<Parts<'py>> {
    let (n, k) = (indices.shape()[0], indices.shape()[1]);
    let (ids, lengths) = (indices.as_slice(), distances.as_slice());
    let (Ok(ids), Ok(lengths)) = (ids, lengths) else { return Err(PyValueError::new_err("rows lie in C order")) };
    let found = Distances { k, indices: ids.to_vec(), distances: lengths.to_vec() };
    let method = method_of(method)?;
    let graph = pool::run(py, "connectivities", |call| connectivities_on(&found, method, &processor(call)?))?;
    Ok(parts(py, graph, n))
}

fn method_of(name: &str) -> PyResult<Method> {
    match name {
        "umap" => Ok(Method::UMAP),
        "gauss" => Ok(Method::Gauss),
        "jaccard" => Ok(Method::Jaccard),
        other => Err(raised(Error::option("method", format!("'{other}'"), "it is umap, gauss or jaccard"))),
    }
}

fn parts(py: Python<'_>, graph: Connectivities, n: usize) -> Parts<'_> {
    let (indptr, indices) = convert::index(py, graph.indptr, graph.indices, n);
    (indptr, indices, graph.weights.into_pyarray(py))
}

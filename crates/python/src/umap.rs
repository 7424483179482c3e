//! UMAP.

use cellmill_graph::Embedding;
use cellmill_graph::umap::{Init, Options, find_ab as curve, umap_on};
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::cluster::graph_of;
use crate::device::processor;
use crate::error::raised;
use crate::{convert, pool};

/// The curve `(a, b)` for a smallest distance and a spread.
#[pyfunction]
pub fn find_ab(min_dist: f64, spread: f64) -> (f64, f64) {
    curve(min_dist, spread)
}

/// The numbers that shape a layout; scanpy's names.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Shape {
    n_components: usize,
    min_dist: f64,
    spread: f64,
    n_epochs: Option<usize>,
    alpha: f64,
    gamma: f64,
    negative_sample_rate: usize,
    a: Option<f64>,
    b: Option<f64>,
    seed: u64,
}

/// A layout `(n, n_components)` f32 of a graph. `init`: `random`, `spectral` (with `start`, parts of the graph that no edge joins are put where
/// their cells lie in it), or with `start` `pca` or `given`.
#[pyfunction]
#[pyo3(signature = (indptr, indices, weights, shape, init, start=None))]
pub fn umap<'py>(
    py: Python<'py>,
    indptr: &Bound<'py, PyAny>,
    indices: &Bound<'py, PyAny>,
    weights: PyReadonlyArray1<'py, f32>,
    shape: Shape,
    init: &str,
    start: Option<PyReadonlyArray2<'py, f32>>,
) -> PyResult<Bound<'py, PyAny>> {
    let graph = graph_of(indptr, indices, &weights)?;
    let d = shape.n_components;
    // Of any width, where a spectral start asks where cells lie.
    let width = start.as_ref().map_or(d, |start| start.shape()[1]);
    let start = match &start {
        None => None,
        Some(start) if start.shape()[0] != graph.n() || (init != "spectral" && width != d) => {
            let (found, wanted) = (start.shape(), graph.n());
            return Err(PyValueError::new_err(format!("init_pos: shape {found:?}, but ({wanted}, {d}) is expected")));
        }
        Some(start) => Some(start.as_slice().map_err(|e| PyValueError::new_err(e.to_string()))?),
    };
    let lie = start.filter(|_| init == "spectral").map(|start| Embedding::new(start, width));
    let coordinates = lie.transpose().map_err(raised)?;
    let options = Options {
        n_components: d,
        min_dist: shape.min_dist,
        spread: shape.spread,
        n_epochs: shape.n_epochs,
        alpha: shape.alpha,
        gamma: shape.gamma,
        negative_sample_rate: shape.negative_sample_rate,
        a: shape.a,
        b: shape.b,
        init: match (init, start) {
            ("random", _) => Init::Random,
            ("pca", Some(start)) => Init::Pca(start),
            ("given", Some(start)) => Init::Given(start),
            _ => Init::Spectral,
        },
        coordinates,
        seed: shape.seed,
    };
    let placed = pool::run(py, "umap", |call| umap_on(&graph, &options, &processor(call)?, call))?;
    convert::rows(py, placed, d)
}

//! PAGA.

use cellmill_graph::{PagaModel, paga_sparse};
use cellmill_matrix::{Element, Error, Place};
use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::cluster::whole;
use crate::convert;
use crate::error::raised;
use crate::pool;

/// The abstracted graph: connectivities, their tree, and the clusters' sizes. `n_neighbors`: of model v1.0; v1.2 without.
#[pyfunction]
#[pyo3(signature = (indptr, indices, labels, n_clusters, n_neighbors = None))]
pub fn paga<'py>(
    py: Python<'py>,
    indptr: &Bound<'py, PyAny>,
    indices: &Bound<'py, PyAny>,
    labels: PyReadonlyArray1<'py, u32>,
    n_clusters: usize,
    n_neighbors: Option<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    let indptr = whole(indptr)?;
    let narrow =
        |j: u64| u32::try_from(j).map_err(|_| raised(Error::invalid(Place::default(), format!("neighbour {j}"), "there are fewer cells")));
    let indices: Vec<u32> = whole(indices)?.into_iter().map(narrow).collect::<PyResult<_>>()?;
    let labels = labels.as_array().to_vec();
    let model = n_neighbors.map_or(PagaModel::V12, |n_neighbors| PagaModel::V10 { n_neighbors });
    let found = pool::run(py, "paga", |_| paga_sparse(&indptr, &indices, &labels, n_clusters, model))?;
    let sizes: Vec<i64> = found.sizes.iter().map(|&n| n as i64).collect();
    let graph = convert::element(py, Element::Sparse(found.connectivities))?;
    let tree = convert::element(py, Element::Sparse(found.connectivities_tree))?;
    (graph, tree, sizes.into_pyarray(py)).into_bound_py_any(py)
}

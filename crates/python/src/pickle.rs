//! Matrices in another process: how the rows are come by, which of them are left, and the steps.

use std::path::PathBuf;
use std::sync::Arc;

use cellmill_engine::recipe::Step;
use cellmill_matrix::Shape;
use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::matrix::Matrix;
use crate::origin::{Joined, Opened, Origin};

/// The place as any working directory finds it; a URL stays as it is.
fn absolute(place: &std::path::Path) -> PathBuf {
    if place.exists() { std::path::absolute(place).unwrap_or_else(|_| place.into()) } else { place.into() }
}

/// What `cellmill._matrix.remade` makes the same matrix of. Values that lie in memory go along; those of a store are read where they are.
pub fn reduce<'py>(matrix: &Matrix, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
    let origin = match matrix.origin() {
        Origin::Store(_, Opened { input, matrix, genome, gex_only, scratch, .. }) => {
            ("store", absolute(input), matrix, genome.as_deref(), *gex_only, scratch).into_bound_py_any(py)?
        }
        Origin::Joined(_, Joined { parts, columns }) => {
            let parts: Vec<Matrix> = parts.iter().map(Matrix::unpacked).collect();
            ("concat", parts, columns.clone(), matrix.origin().shape().n_vars).into_bound_py_any(py)?
        }
        Origin::Csr { indptr, indices, data, shape } => {
            ("csr", indptr.clone_ref(py), indices.clone_ref(py), data.clone_ref(py), (shape.n_obs, shape.n_vars)).into_bound_py_any(py)?
        }
        Origin::Dense { array, shape } => ("dense", array.clone_ref(py), (shape.n_obs, shape.n_vars)).into_bound_py_any(py)?,
        Origin::Blocks(blocks) => {
            ("blocks", blocks.reader().clone_ref(py), blocks.ends().to_vec(), matrix.origin().shape().n_vars).into_bound_py_any(py)?
        }
    };
    let steps = postcard::to_stdvec(matrix.steps()).map_err(|e| PyValueError::new_err(e.to_string()))?;
    let keep = matrix.keep().map(|keep| keep.to_vec().into_pyarray(py));
    let remade = py.import("cellmill._matrix")?.getattr("remade")?;
    let Shape { n_obs, n_vars } = matrix.origin().shape();
    (remade, (origin, (n_obs, n_vars), keep, PyBytes::new(py, &steps))).into_bound_py_any(py)
}

/// The rows of a whole matrix that are left, after the steps that [`reduce`] gave.
///
/// It keeps no packed rows: as many processes would take the memory as many times.
pub fn resumed(matrix: &Matrix, shape: (usize, usize), keep: Option<PyReadonlyArray1<'_, bool>>, steps: &[u8]) -> PyResult<Matrix> {
    let found = (matrix.n_obs(), matrix.n_vars());
    if found != shape {
        let found = format!("{} x {}, but {} x {} when it was pickled", found.0, found.1, shape.0, shape.1);
        return Err(PyValueError::new_err(format!("{}: {found}", matrix.location())));
    }
    let steps: Vec<Step> = postcard::from_bytes(steps).map_err(|e| PyValueError::new_err(e.to_string()))?;
    let keep = keep.map(|k| k.as_slice().map(<[bool]>::to_vec)).transpose().map_err(|e| PyValueError::new_err(e.to_string()))?;
    Ok(matrix.after(keep.map(Arc::new), Arc::new(steps)))
}

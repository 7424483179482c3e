//! Dense rows: Pearson residuals, and what regressors leave. Each is a fit from one pass, and rows by the fit: those of the matrix that was
//! looked at, or of a block of it.

use cellmill_engine::fold::NO_GROUP;
use cellmill_kernels::residual::Model;
use cellmill_matrix::{Csr, ErrorKind};
use cellmill_run::pearson::PearsonResiduals;
use cellmill_run::regress::{Effects, Regressors};
use cellmill_run::view::dense_rows;
use numpy::{IntoPyArray, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::raised;
use crate::groups::{codes_of, spread, viewed};
use crate::matrix::Matrix;
use crate::{convert, pool};

/// All rows of a matrix, turned: `(n_obs, n_vars)`.
fn rows_of<'py, T: numpy::Element>(
    py: Python<'py>,
    matrix: &Matrix,
    turn: impl Fn(&Csr, &[u64], &mut Vec<T>) + Send + Sync,
) -> PyResult<Bound<'py, PyAny>> {
    let (n_obs, n_vars) = (matrix.n_obs(), matrix.n_vars());
    let (needs, ceiling) = ((size_of::<T>() * n_obs * n_vars) as u64, pool::memory());
    if needs > ceiling {
        let what = format!("a dense matrix of {n_obs} x {n_vars}");
        return Err(raised(ErrorKind::Budget { what, needs, ceiling }.into()));
    }
    let mut all: Vec<T> = Vec::with_capacity(n_obs * n_vars);
    let mut take = |rows: Vec<T>| {
        all.extend(rows);
        Ok(())
    };
    viewed(py, matrix, None, |view| pool::run(py, "dense rows", |call| dense_rows(view, turn, call, &mut take)))?;
    convert::rows(py, all, n_vars)
}

/// Each gene's share of all counts `(n_vars,)` f64, and the clip.
#[pyfunction]
#[pyo3(signature = (matrix, theta, clip=None))]
pub fn pearson_fit<'py>(py: Python<'py>, matrix: &Matrix, theta: f64, clip: Option<f64>) -> PyResult<(Bound<'py, PyAny>, f64)> {
    let PearsonResiduals { share, model } =
        viewed(py, matrix, None, |view| pool::run(py, "counts", |call| PearsonResiduals::fit(view, theta, clip, &mut 0, call)))?;
    Ok((share.into_pyarray(py).into_any(), model.clip))
}

/// Pearson residuals of all rows: `(n_obs, n_vars)`, f64 if `wide`, else f32.
#[pyfunction]
pub fn pearson_rows<'py>(
    py: Python<'py>,
    matrix: &Matrix,
    share: Vec<f64>,
    theta: f64,
    clip: f64,
    wide: bool,
) -> PyResult<Bound<'py, PyAny>> {
    if share.len() != matrix.n_vars() {
        return Err(PyValueError::new_err(format!("shares of {} genes, but there are {}", share.len(), matrix.n_vars())));
    }
    let fit = PearsonResiduals { share, model: Model { theta, clip } };
    match wide {
        true => rows_of(py, matrix, |x, _, dense| fit.rows(x, |r| r, dense)),
        false => rows_of(py, matrix, |x, _, dense| fit.rows(x, |r| r as f32, dense)),
    }
}

/// Regressors of the rows that are left: numbers `(n_obs, n)` f64, or categories `(n_obs,)` i32.
#[derive(FromPyObject)]
pub enum Given<'py> {
    Categories(PyReadonlyArray1<'py, i32>),
    Numbers(PyReadonlyArray2<'py, f64>),
}

/// The same at the places of the source's rows.
enum Spread {
    Categories(Vec<u32>),
    Numbers(Vec<Vec<f64>>),
}

impl Spread {
    fn new(matrix: &Matrix, given: &Given<'_>) -> PyResult<Self> {
        Ok(match given {
            Given::Categories(codes) => Spread::Categories(codes_of(matrix, codes)?),
            Given::Numbers(numbers) => {
                let columns = numbers.as_array();
                let column = |c: numpy::ndarray::ArrayView1<'_, f64>| spread(matrix, &c.to_vec(), 0.0);
                Spread::Numbers(columns.columns().into_iter().map(column).collect::<PyResult<_>>()?)
            }
        })
    }

    fn regressors(&self) -> Regressors<'_> {
        match self {
            Spread::Categories(codes) => Regressors::Categories(codes),
            Spread::Numbers(columns) => Regressors::Numbers(columns),
        }
    }
}

/// What the regressors explain: coefficients `(1 + n, n_vars)`, or means `(n_categories, n_vars)`, f64.
#[pyfunction]
pub fn regress_fit<'py>(py: Python<'py>, matrix: &Matrix, regressors: Given<'py>) -> PyResult<Bound<'py, PyAny>> {
    let held = Spread::new(matrix, &regressors)?;
    let effects = viewed(py, matrix, None, |view| pool::run(py, "regression", |call| Effects::fit(view, held.regressors(), &mut 0, call)))?;
    convert::rows(py, effects.coefficients, matrix.n_vars())
}

/// What the regressors leave of all rows: `(n_obs, n_vars)` f32.
#[pyfunction]
pub fn regress_rows<'py>(
    py: Python<'py>,
    matrix: &Matrix,
    regressors: Given<'py>,
    coefficients: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyAny>> {
    let held = Spread::new(matrix, &regressors)?;
    let coefficients = coefficients.as_array();
    let due = match &held {
        Spread::Categories(codes) => codes.iter().filter(|c| **c != NO_GROUP).max().map_or(0, |c| *c as usize + 1),
        Spread::Numbers(columns) => columns.len() + 1,
    };
    if coefficients.nrows() < due || coefficients.ncols() != matrix.n_vars() {
        let found = coefficients.dim();
        return Err(PyValueError::new_err(format!("coefficients {found:?}, but ({due}, {}) are expected", matrix.n_vars())));
    }
    let effects = Effects { coefficients: coefficients.iter().copied().collect(), n_vars: matrix.n_vars() };
    rows_of(py, matrix, |x, numbers, dense: &mut Vec<f32>| effects.rows(x, numbers, held.regressors(), dense))
}

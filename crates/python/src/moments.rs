//! Mean and variance of genes.

use cellmill_engine::exec::{self, Aside};
use cellmill_engine::fold::{At, GeneMoments, Moments, Qc};
use cellmill_engine::recipe::{RowQc, Step};
use cellmill_matrix::{Error, Place, Result};
use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::raised;
use crate::matrix::Matrix;
use crate::pool;

/// Batches of the rows that are left, and how many batches there are.
pub struct Batches {
    /// Batch of each row of the origin, `(n_obs of the origin,)`; 0 for rows that are not left.
    pub of_source: Option<Vec<u32>>,
    /// Their number; 1 without a batch key.
    pub n: usize,
}

impl Batches {
    /// From one code a row that is left.
    pub fn new(matrix: &Matrix, codes: Option<PyReadonlyArray1<'_, u32>>) -> PyResult<Self> {
        let Some(codes) = codes else { return Ok(Batches { of_source: None, n: 1 }) };
        let codes = codes.as_slice().map_err(|e| pyo3::exceptions::PyValueError::new_err(e.to_string()))?;
        if codes.len() != matrix.n_obs() {
            let found = format!("{} batch codes", codes.len());
            return Err(raised(Error::invalid(Place::default(), found, format!("there are {} cells", matrix.n_obs()))));
        }
        let n = codes.iter().max().map_or(1, |&most| most as usize + 1);
        let of_source = match matrix.keep() {
            None => codes.to_vec(),
            Some(keep) => {
                let mut codes = codes.iter();
                keep.iter().map(|&k| if k { codes.next().copied().unwrap_or(0) } else { 0 }).collect()
            }
        };
        Ok(Batches { of_source: Some(of_source), n })
    }

    /// What the executor takes.
    pub fn aside(&self) -> Aside<'_> {
        Aside { batch: self.of_source.as_deref() }
    }
}

/// Moments of each batch: of the values as they are, and, if `linear` says by which step, of what that step makes of them. `before` says
/// that the step was the last one and is looked behind instead.
pub struct Found {
    /// Of the values as they are.
    pub values: Vec<GeneMoments>,
    /// Of the values on a linear scale.
    pub linear: Option<Vec<GeneMoments>>,
}

/// Where moments are taken on a linear scale, too.
pub enum Linear {
    /// Nowhere.
    No,
    /// e^(x · ln base) − 1 of the values.
    Expm1 { base: Option<f64> },
}

/// One pass for the moments of each batch.
pub fn of_batches(py: Python<'_>, matrix: &Matrix, batches: &Batches, linear: Linear) -> PyResult<Found> {
    let mut recipe = matrix.whole_recipe();
    let end = recipe.len();
    let fold = |step| At { step, fold: Moments { n_vars: matrix.n_vars(), n_batches: batches.n } };
    let at_linear = match linear {
        Linear::No => None,
        // The values before the logarithm are the linear ones.
        Linear::Expm1 { base } if matches!(recipe.last(), Some(Step::Log1p { base: b }) if *b == base) => Some(end - 1),
        Linear::Expm1 { base } => {
            recipe.push(Step::Expm1 { base });
            Some(end + 1)
        }
    };
    let folds = (fold(end), at_linear.map(fold));
    let done = matrix.feed(py, |feed| pool::run(py, "moments", |call| exec::run(feed, &recipe, &folds, &batches.aside(), None, call)))?;
    let (values, linear) = done.output;
    matrix.remember_moments(merged(&values, matrix.n_vars()));
    Ok(Found { values, linear })
}

/// Moments over all batches.
pub fn merged(batches: &[GeneMoments], n_vars: usize) -> GeneMoments {
    let mut all = GeneMoments::none(n_vars);
    batches.iter().for_each(|b| all.merge(b));
    all
}

/// Moments over all rows, from what is known or one pass; and the share of rows with an entry.
pub fn overall(py: Python<'_>, matrix: &Matrix) -> PyResult<(GeneMoments, Vec<f32>)> {
    if let (Some(moments), Some(detection)) = (matrix.moments(), matrix.detection()) {
        return Ok(((*moments).clone(), (*detection).clone()));
    }
    let recipe = matrix.whole_recipe();
    let n_vars = matrix.n_vars();
    let step = recipe.len();
    let counts = At { step, fold: Qc { n_vars, rows: RowQc::default(), counts: false } };
    let folds = (At { step, fold: Moments { n_vars, n_batches: 1 } }, counts);
    let done: Result<_> =
        Ok(matrix.feed(py, |feed| pool::run(py, "moments", |call| exec::run(feed, &recipe, &folds, &Aside::default(), None, call)))?);
    let (moments, totals) = done.map_err(raised)?.output;
    let moments = merged(&moments, n_vars);
    let n = totals.n_obs.max(1) as f32;
    let detection: Vec<f32> = totals.n_cells.iter().map(|&c| c as f32 / n).collect();
    matrix.remember_moments(moments.clone());
    matrix.remember_detection(detection.clone());
    Ok((moments, detection))
}

/// `mean` and `var` (ddof 1) of each gene over all rows, f64.
#[pyfunction]
pub fn moments<'py>(py: Python<'py>, matrix: &Matrix) -> PyResult<Bound<'py, PyDict>> {
    let found = match matrix.moments() {
        Some(known) => (*known).clone(),
        None => merged(&of_batches(py, matrix, &Batches { of_source: None, n: 1 }, Linear::No)?.values, matrix.n_vars()),
    };
    let out = PyDict::new(py);
    out.set_item("var", found.variance().into_pyarray(py))?;
    out.set_item("mean", found.mean.into_pyarray(py))?;
    Ok(out)
}

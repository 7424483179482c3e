//! Mean and variance of genes.

use std::sync::Arc;

use cellmill_engine::exec::{self, Aside};
use cellmill_engine::fold::{At, GeneMoments, Largest, Moments, Qc};
use cellmill_engine::recipe::{RowQc, Step};
use cellmill_matrix::{Error, Place};
use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::raised;
use crate::matrix::{Matrix, pick};
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
    let mut recipe = matrix.sparse_recipe()?;
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
    let folds = ((fold(end), At { step: end, fold: Largest }), at_linear.map(fold));
    let done = matrix.feed(py, |feed| pool::run(py, "moments", |call| exec::run(feed, &recipe, &folds, &batches.aside(), None, call)))?;
    let ((values, largest), linear) = done.output;
    matrix.remember(Genes::new(&values, largest, matrix.n_vars()));
    Ok(Found { values, linear })
}

/// What is known of the genes from a pass over their values.
#[derive(Clone)]
pub struct Genes {
    /// Over all rows.
    pub moments: GeneMoments,
    /// No value is larger in magnitude: `(n_vars,)`.
    pub largest: Vec<f32>,
}

impl Genes {
    /// From the moments of each batch, and the largest value of all.
    fn new(batches: &[GeneMoments], largest: f32, n_vars: usize) -> Self {
        let mut moments = GeneMoments::none(n_vars);
        batches.iter().for_each(|b| moments.merge(b));
        Genes { moments, largest: vec![largest; n_vars] }
    }

    /// Of the columns whose flag is true.
    pub fn columns(&self, mask: &[bool]) -> Self {
        let GeneMoments { n_obs, mean, squares } = &self.moments;
        let moments = GeneMoments { n_obs: *n_obs, mean: pick(mean, mask), squares: pick(squares, mask) };
        Genes { moments, largest: pick(&self.largest, mask) }
    }

    /// Of each column's values times a factor.
    pub fn times(&self, factors: &[f64]) -> Self {
        let GeneMoments { n_obs, mean, squares } = &self.moments;
        let moments = GeneMoments {
            n_obs: *n_obs,
            mean: mean.iter().zip(factors).map(|(m, f)| m * f).collect(),
            squares: squares.iter().zip(factors).map(|(s, f)| s * f * f).collect(),
        };
        // Rounding to f32 may lift it by one unit.
        let largest = self.largest.iter().zip(factors).map(|(&x, f)| (f64::from(x) * f.abs() * (1.0 + 1e-6)) as f32).collect();
        Genes { moments, largest }
    }
}

/// What is known of the genes, or one pass finds; and the share of rows with an entry.
pub fn overall(py: Python<'_>, matrix: &Matrix) -> PyResult<(Arc<Genes>, Arc<Vec<f32>>)> {
    if let (Some(genes), Some(detection)) = (matrix.genes(), matrix.detection()) {
        return Ok((genes, detection));
    }
    let recipe = matrix.whole_recipe();
    let n_vars = matrix.n_vars();
    let step = recipe.len();
    let counts = At { step, fold: Qc { n_vars, rows: RowQc::default(), counts: false } };
    let folds = ((At { step, fold: Moments { n_vars, n_batches: 1 } }, At { step, fold: Largest }), counts);
    let done = matrix.feed(py, |feed| pool::run(py, "moments", |call| exec::run(feed, &recipe, &folds, &Aside::default(), None, call)))?;
    let ((moments, largest), totals) = done.output;
    let n = totals.n_obs.max(1) as f32;
    let detection = totals.n_cells.iter().map(|&c| c as f32 / n).collect();
    Ok((matrix.remember(Genes::new(&moments, largest, n_vars)), matrix.remember_detection(detection)))
}

/// `mean` and `var` (ddof 1) of each gene over all rows, f64.
#[pyfunction]
pub fn moments<'py>(py: Python<'py>, matrix: &Matrix) -> PyResult<Bound<'py, PyDict>> {
    if matrix.genes().is_none() {
        of_batches(py, matrix, &Batches { of_source: None, n: 1 }, Linear::No)?;
    }
    let found = matrix.genes().ok_or_else(|| raised(Error::bug("moments that were just taken are not known")))?;
    let out = PyDict::new(py);
    out.set_item("var", found.moments.variance().into_pyarray(py))?;
    out.set_item("mean", found.moments.mean.clone().into_pyarray(py))?;
    Ok(out)
}

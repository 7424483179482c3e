//! Highly variable genes.

use cellmill_engine::exec;
use cellmill_engine::fold::{At, Clipped};
use cellmill_engine::host::hvg::{Flavor, Options};
use cellmill_kernels::residual::Model;
use cellmill_matrix::{Error, Values};
use cellmill_run::survey::choice;
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::raised;
use crate::matrix::Matrix;
use crate::moments::{Batches, Linear, of_batches};
use crate::{convert, pool};

/// scanpy's cut-offs.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Cutoffs {
    n_top_genes: Option<usize>,
    min_mean: f64,
    max_mean: f64,
    min_disp: f64,
    max_disp: f64,
    n_bins: usize,
    span: f64,
}

impl Cutoffs {
    fn options(self, n_vars: usize) -> PyResult<Options> {
        if let Some(n) = self.n_top_genes.filter(|&n| n > n_vars) {
            return Err(raised(Error::option("n_top_genes", n, format!("there are {n_vars} genes"))));
        }
        let Cutoffs { n_top_genes, min_mean, max_mean, min_disp, max_disp, n_bins, span } = self;
        let options = Options { n_top_genes, min_mean, max_mean, min_disp, max_disp, n_bins, span };
        options.check().map_err(raised)?;
        Ok(options)
    }
}

/// `seurat` and `cell_ranger` on logarithms to `base`. `batch`: code of each cell; `names`: names of the genes, then. Gives columns of var
/// and warnings.
#[pyfunction]
#[pyo3(signature = (matrix, flavor, cutoffs, base=None, batch=None, names=None))]
pub fn highly_variable<'py>(
    py: Python<'py>,
    matrix: &Matrix,
    flavor: &str,
    cutoffs: Cutoffs,
    base: Option<f64>,
    batch: Option<PyReadonlyArray1<'py, u32>>,
    names: Option<Vec<String>>,
) -> PyResult<(Bound<'py, PyDict>, Vec<String>)> {
    let options = cutoffs.options(matrix.n_vars())?;
    let batches = Batches::new(matrix, batch)?;
    let (flavor, linear) = match flavor {
        "seurat" => (Flavor::Seurat, Linear::Expm1 { base }),
        "cell_ranger" => (Flavor::CellRanger, Linear::No),
        other => {
            let flavors = "it is seurat, cell_ranger, seurat_v3 or seurat_v3_paper";
            return Err(raised(Error::option("flavor", format!("'{other}'"), flavors)));
        }
    };
    let found = of_batches(py, matrix, &batches, linear)?;
    let moments = found.linear.as_ref().unwrap_or(&found.values);
    columns(py, choice::dispersions(moments, names.as_deref(), flavor, &options).map_err(raised)?)
}

/// `seurat_v3` and `seurat_v3_paper` on counts.
#[pyfunction]
#[pyo3(signature = (matrix, flavor, cutoffs, batch=None))]
pub fn highly_variable_v3<'py>(
    py: Python<'py>,
    matrix: &Matrix,
    flavor: &str,
    cutoffs: Cutoffs,
    batch: Option<PyReadonlyArray1<'py, u32>>,
) -> PyResult<(Bound<'py, PyDict>, Vec<String>)> {
    let options = cutoffs.options(matrix.n_vars())?;
    let by_batch = batch.is_some();
    let batches = Batches::new(matrix, batch)?;
    let flavor = if flavor == "seurat_v3_paper" { Flavor::SeuratV3Paper } else { Flavor::SeuratV3 };
    let raw = of_batches(py, matrix, &batches, Linear::No)?.values;
    let fits = choice::fits(&raw, options.span).map_err(raised)?;
    let recipe = matrix.whole_recipe();
    let fold = At { step: recipe.len(), fold: Clipped { clip: fits.iter().map(|f| f.clip.clone()).collect() } };
    let sums =
        matrix.feed(py, |feed| pool::run(py, "clipped sums", |call| exec::run(feed, &recipe, &fold, &batches.aside(), None, call)))?;
    columns(py, choice::ranks(&raw, fits, &sums.output, by_batch, flavor, &options).map_err(raised)?)
}

/// `pearson_residuals` on counts.
#[pyfunction]
#[pyo3(signature = (matrix, n_top_genes, theta, clip, batch=None))]
pub fn highly_variable_pearson<'py>(
    py: Python<'py>,
    matrix: &Matrix,
    n_top_genes: usize,
    theta: f64,
    clip: f64,
    batch: Option<PyReadonlyArray1<'py, u32>>,
) -> PyResult<(Bound<'py, PyDict>, Vec<String>)> {
    let by_batch = batch.is_some();
    let batches = Batches::new(matrix, batch)?;
    let raw = of_batches(py, matrix, &batches, Linear::No)?.values;
    let expected = choice::expected(&raw, Model { theta, clip });
    let recipe = matrix.whole_recipe();
    let fold = At { step: recipe.len(), fold: expected.clone() };
    let sums = matrix.feed(py, |feed| pool::run(py, "residuals", |call| exec::run(feed, &recipe, &fold, &batches.aside(), None, call)))?;
    columns(py, choice::residuals(&raw, &expected, &sums.output, by_batch, n_top_genes).map_err(raised)?)
}

fn columns<'py>(py: Python<'py>, (columns, warnings): choice::Chosen) -> PyResult<(Bound<'py, PyDict>, Vec<String>)> {
    let out = PyDict::new(py);
    for (name, values) in columns {
        let values: Values = values;
        out.set_item(name, convert::values(py, values)?)?;
    }
    Ok((out, warnings))
}

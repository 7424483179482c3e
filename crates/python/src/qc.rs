//! Quality control: columns of obs and totals of genes in one pass.

use cellmill_engine::exec::{self, Aside};
use cellmill_engine::fold::{At, EXACT_TOTAL, High, Qc};
use cellmill_engine::recipe::RowQc;
use cellmill_matrix::Values;
use numpy::IntoPyArray;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::matrix::Matrix;
use crate::{convert, pool};

/// QC of the rows as they are: `rows`, named columns of obs; `row_total`, the sum of each row in f64; `total` f64 and `n_cells` i64 of each gene.
#[pyfunction]
#[pyo3(signature = (matrix, qc_vars=Vec::new(), percent_top=Vec::new(), log1p=true))]
pub fn quality<'py>(
    py: Python<'py>,
    matrix: &Matrix,
    qc_vars: Vec<(String, Vec<bool>)>,
    percent_top: Vec<usize>,
    log1p: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let recipe = matrix.sparse_recipe()?;
    let fold = Qc { n_vars: matrix.n_vars(), rows: RowQc { qc_vars, percent_top, log1p }, counts: false };
    let fold = At { step: recipe.len(), fold };
    let done =
        matrix.feed(py, |feed| pool::run(py, "quality control", |call| exec::run(feed, &recipe, &fold, &Aside::default(), None, call)))?;
    let mut rows = done.rows;
    let n = done.output.n_obs.max(1) as f32;
    matrix.remember_detection(done.output.n_cells.iter().map(|&c| c as f32 / n).collect());
    matrix.remember_whole(done.output.whole);
    let out = PyDict::new(py);
    if let Some(total) = rows.take(EXACT_TOTAL) {
        out.set_item("row_total", convert::values(py, total)?)?;
    } else {
        out.set_item("row_total", Vec::<f64>::new().into_pyarray(py))?;
    }
    let columns = PyDict::new(py);
    for (name, values) in rows.columns {
        columns.set_item(name, convert::values(py, values)?)?;
    }
    out.set_item("rows", columns)?;
    out.set_item("total", done.output.total.into_pyarray(py))?;
    out.set_item("n_cells", convert::values(py, Values::I64(done.output.n_cells.iter().map(|&c| c as i64).collect()))?)?;
    out.set_item("whole", done.output.whole)?;
    out.set_item("largest", done.output.largest)?;
    Ok(out)
}

/// Whether each gene holds more than a share of the counts of at least one cell: `(n_vars,)` bool.
#[pyfunction]
pub fn highly_expressed<'py>(py: Python<'py>, matrix: &Matrix, max_fraction: f64) -> PyResult<Bound<'py, PyAny>> {
    let recipe = matrix.sparse_recipe()?;
    let fold = At { step: recipe.len(), fold: High { n_vars: matrix.n_vars(), above: max_fraction } };
    let done = matrix
        .feed(py, |feed| pool::run(py, "highly expressed genes", |call| exec::run(feed, &recipe, &fold, &Aside::default(), None, call)))?;
    Ok(done.output.into_pyarray(py).into_any())
}

//! Principal components.

use std::sync::OnceLock;

use cellmill_engine::pca::{Columns, Rows, pca as components};
use cellmill_engine::stage::{Allowance, Stage};
use cellmill_matrix::{Error, Place};
use numpy::IntoPyArray;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::device::processor;
use crate::device_array::DeviceArray;
use crate::error::raised;
use crate::matrix::Matrix;
use crate::moments::overall;
use crate::{convert, pool, rows};

/// Share of the memory ceiling that the chosen columns, packed for the projection, may take.
const SELECTED_SHARE: u64 = 4;

/// `scores` `(n_obs, n_comps)` f32, `components` `(n_vars, n_comps)` f64, `variance`, `variance_ratio`. `centred`: whether means are taken away;
/// `on_device`: whether scores stay on the GPU that finds them, if one does.
#[pyfunction]
pub fn pca<'py>(py: Python<'py>, matrix: &Matrix, n_comps: usize, centred: bool, on_device: bool) -> PyResult<Bound<'py, PyDict>> {
    let (n_obs, p) = (matrix.n_obs(), matrix.n_vars());
    let most = n_obs.min(p).saturating_sub(1);
    if n_comps == 0 || n_comps > most {
        return Err(raised(Error::option("n_comps", n_comps, format!("{n_obs} cells and {p} genes allow 1 to {most}"))));
    }
    let (genes, detection) = overall(py, matrix)?;
    let moments = &genes.moments;
    if !moments.mean.iter().chain(&moments.squares).all(|m| m.is_finite()) {
        let place = Place { element: Some("X".into()), ..Place::default() };
        let found = "values that are missing or infinite (Input contains NaN)";
        return Err(raised(Error::invalid(place, found, "components are made of numbers")));
    }
    let bound = moments.sum_of_squares().into_iter().fold(1.0, f64::max) * 1.001;
    let largest = Some(genes.largest.clone()).filter(|largest| largest.iter().all(|x| x.is_finite()));
    let columns = Columns { detection: detection.iter().map(|d| d.min(1.0)).collect(), bound, largest, centred };
    let recipe = matrix.whole_recipe();
    let (select, transform) = rows::selecting(&recipe);
    let n_tasks = matrix.feed(py, |feed| Ok(cellmill_engine::exec::cut(feed.source.shape().n_obs).len()))?;
    let stay = OnceLock::new();
    let found = matrix.feed(py, |feed| {
        let selected = Stage::new(n_tasks, &Allowance::new(pool::memory() / SELECTED_SHARE), None);
        let rows = Rows { feed, select, n_genes: p, transform, last: matrix.is_of_store(), crew: None, stay: on_device.then_some(&stay) };
        pool::run(py, "principal components", |call| components(rows, &columns, n_comps, &selected, None, &processor(call)?, call))
    })?;
    let out = PyDict::new(py);
    match stay.into_inner() {
        Some(scores) => out.set_item("scores", DeviceArray::floats(scores, vec![n_obs, n_comps]))?,
        None => out.set_item("scores", convert::rows(py, found.scores, n_comps)?)?,
    }
    out.set_item("components", convert::rows(py, found.components, n_comps)?)?;
    out.set_item("variance", found.variance.into_pyarray(py))?;
    out.set_item("variance_ratio", found.variance_ratio.into_pyarray(py))?;
    Ok(out)
}

//! The command line's job as one call.

use std::path::PathBuf;

use cellmill_matrix::Error;
use cellmill_run::cluster::Dispatcher;
use cellmill_run::device::{Choice, Word};
use cellmill_run::job::Job;
use cellmill_run::output::WithX;
use cellmill_run::recipe::{Recipe, Stage};
use cellmill_store::write::Format;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::raised;
use crate::pool;
use crate::workers::Crew;

/// What `cellmill run` is told besides the recipe.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Request {
    input: PathBuf,
    output: Option<PathBuf>,
    format: Option<String>,
    overwrite: bool,
    in_place: bool,
    with_x: Option<String>,
    through: String,
    genome: Option<String>,
    spill_dir: Option<PathBuf>,
    resume: bool,
    device: String,
}

fn one_of<T: Copy>(name: &str, found: &str, known: &[(&str, T)]) -> PyResult<T> {
    let names: Vec<&str> = known.iter().map(|(n, _)| *n).collect();
    let wrong = || raised(Error::option(name, format!("'{found}'"), format!("it is one of {}", names.join(", "))));
    known.iter().find(|(n, _)| *n == found).map(|(_, value)| *value).ok_or_else(wrong)
}

/// Runs a recipe (TOML) on a store and writes a new one, with the workers of a `cellmill._crew.Crew` if there is one; returns the summary
/// as JSON.
#[pyfunction]
#[pyo3(signature = (request, recipe, crew=None))]
pub fn run(py: Python<'_>, request: Request, recipe: &str, crew: Option<Py<PyAny>>) -> PyResult<String> {
    let recipe = Recipe::parse(recipe, "recipe").map_err(raised)?;
    let format = request
        .format
        .as_deref()
        .map(|f| one_of("format", f, &[("zarr", Format::Zarr3), ("zarr2", Format::Zarr2), ("h5ad", Format::H5ad)]));
    let with_x = request
        .with_x
        .as_deref()
        .map(|x| one_of("with_x", x, &[("raw", WithX::Raw), ("normalized", WithX::Normalized), ("hvg", WithX::Hvg)]));
    let stages = Stage::ALL.map(|s| (s.name(), s));
    let device: Word = request.device.parse().map_err(raised)?;
    let job = Job {
        output: request.output.unwrap_or_else(|| request.input.clone()),
        input: request.input,
        format: format.transpose()?,
        overwrite: request.overwrite,
        in_place: request.in_place,
        with_x: with_x.transpose()?,
        recipe,
        through: one_of("through", &request.through, &stages)?,
        threads: pool::threads(),
        memory: pool::memory(),
        genome: request.genome,
        spill_dir: request.spill_dir,
        resume: request.resume,
        device: Choice { device, ..Choice::default() },
    };
    let crew = crew.map(Crew);
    let summary = pool::run(py, "run", |call| job.run_with(crew.as_ref().map(|c| c as &dyn Dispatcher), call))?;
    serde_json::to_string(&summary).map_err(|e| PyValueError::new_err(e.to_string()))
}

/// The default recipe as TOML.
#[pyfunction]
pub fn default_recipe() -> PyResult<String> {
    Recipe::default().to_toml().map_err(raised)
}

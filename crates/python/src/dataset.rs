//! A store on disk: its data frames and elements, and its matrices.

use std::path::PathBuf;
use std::sync::Arc;

use cellmill_matrix::{Source, Table};
use cellmill_store::anndata::AnnData;
use cellmill_store::dataset::{Dataset, InputFormat, OpenOptions};
use pyo3::prelude::*;

use crate::error::raised;
use crate::matrix::Matrix;
use crate::origin::{Opened, Origin};
use crate::{convert, pool};

/// AnnData in zarr or h5ad, 10x h5, or 10x mtx, open for reading.
#[pyclass(frozen, module = "cellmill._cellmill")]
pub struct Store {
    path: PathBuf,
    format: InputFormat,
    anndata: Option<AnnData>,
    obs: Table,
    var: Table,
    source: Arc<dyn Source>,
    /// Whether the matrix lies by columns in the store.
    turned: bool,
    /// Which matrix that is, and of which genome.
    matrix: String,
    genome: Option<String>,
    /// Whether other features than genes were left out, as workers leave them out.
    gex_only: bool,
    scratch: PathBuf,
}

impl Store {
    fn options(&self, matrix: &str) -> OpenOptions {
        OpenOptions {
            matrix: matrix.to_string(),
            scratch: self.scratch.clone(),
            memory_bytes: pool::memory() / 4,
            ..OpenOptions::default()
        }
    }

    fn opened(&self, matrix: &str, turned: bool) -> Opened {
        let (input, scratch) = (self.path.clone(), self.scratch.clone());
        Opened { input, matrix: matrix.to_string(), genome: self.genome.clone(), gex_only: self.gex_only, scratch, turned }
    }
}

#[pymethods]
impl Store {
    /// Opens an input. `scratch`: where a matrix that lies by columns is turned into rows.
    #[new]
    #[pyo3(signature = (path, matrix="X", genome=None, gex_only=true, scratch=None))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        matrix: &str,
        genome: Option<String>,
        gex_only: bool,
        scratch: Option<PathBuf>,
    ) -> PyResult<Self> {
        let scratch = scratch.unwrap_or_else(std::env::temp_dir);
        let options = OpenOptions {
            matrix: matrix.to_string(),
            genome: genome.clone(),
            gex_only,
            scratch: scratch.clone(),
            memory_bytes: pool::memory() / 4,
        };
        let data = pool::run(py, "opening", |call| {
            let data = Dataset::open(&path, &options, call)?;
            data.warnings.iter().for_each(|w| cellmill_run::observe::Listener::warn(call, w));
            Ok(data)
        })?;
        let Dataset { format, anndata, obs, var, source, turned, .. } = data;
        Ok(Store { path, format, anndata, obs, var, source: source.into(), turned, matrix: matrix.into(), genome, gex_only, scratch })
    }

    /// What people call its format.
    #[getter]
    fn format(&self) -> &'static str {
        self.format.name()
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The parts of obs.
    fn obs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::table(py, self.obs.clone())
    }

    /// The parts of var.
    fn var<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::table(py, self.var.clone())
    }

    /// The chosen matrix.
    fn matrix(&self) -> Matrix {
        Matrix::of(Origin::Store(self.source.clone(), self.opened(&self.matrix, self.turned)))
    }

    /// Another matrix of the store: `X`, `layers/NAME`, `raw/X`.
    fn other_matrix(&self, py: Python<'_>, name: &str) -> PyResult<Matrix> {
        let options = self.options(name);
        let data = pool::run(py, "opening", |call| Dataset::open(&self.path, &options, call))?;
        Ok(Matrix::of(Origin::Store(data.source.into(), self.opened(name, data.turned))))
    }

    /// Names in a mapping: `layers`, `obsm`, `varm`, `obsp`, `varp`, `uns`.
    fn names(&self, group: &str) -> PyResult<Vec<String>> {
        self.anndata.as_ref().map_or(Ok(Vec::new()), |store| store.names(group)).map_err(raised)
    }

    /// An element as a tuple that names its kind, None if it is passed over; and warnings.
    fn element<'py>(&self, py: Python<'py>, path: &str) -> PyResult<(Option<Bound<'py, PyAny>>, Vec<String>)> {
        let mut warnings = Vec::new();
        let found = match &self.anndata {
            None => None,
            Some(store) => py.detach(|| store.element(path, &mut warnings)).map_err(raised)?,
        };
        Ok((found.map(|e| convert::element(py, e)).transpose()?, warnings))
    }
}

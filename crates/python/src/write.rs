//! A handle written as a store: its tables and elements as Python holds them, its matrices streamed.

use std::path::PathBuf;

use cellmill_matrix::Element;
use cellmill_run::output::{stream_rows, write_elements};
use cellmill_store::write::{CsrStream, Format, create, write_root, write_table};
use pyo3::prelude::*;

use crate::matrix::Matrix;
use crate::{convert, pool};

/// Writes a new AnnData store, `zarr` (version 3) or `h5ad`, in place of what has that name. obs, var and elements by path are tuples as
/// [`convert::element`] gives them. Nothing appears under its name before it is complete.
#[pyfunction]
#[pyo3(signature = (path, format, obs, var, elements, matrices))]
pub fn write_store(
    py: Python<'_>,
    path: PathBuf,
    format: &str,
    obs: &Bound<'_, PyAny>,
    var: &Bound<'_, PyAny>,
    elements: Vec<(String, Bound<'_, PyAny>)>,
    matrices: Vec<(String, PyRef<'_, Matrix>)>,
) -> PyResult<()> {
    let format = if format == "h5ad" { Format::H5ad } else { Format::Zarr3 };
    let (obs, var) = (convert::table_of(obs)?, convert::table_of(var)?);
    let elements: Vec<(String, Element)> =
        elements.into_iter().map(|(path, e)| Ok((path, convert::element_of(&e)?))).collect::<PyResult<_>>()?;
    let has_raw = matrices.iter().any(|(name, _)| name == "raw/X");
    let writer = pool::run(py, "writing", |_| {
        let writer = create(&path, format, true)?;
        write_root(&*writer)?;
        if has_raw {
            let attrs = [("encoding-type", "raw"), ("encoding-version", "0.1.0")].map(|(k, v)| (k.to_string(), v.into()));
            writer.group("raw", attrs.into_iter().collect())?;
        }
        write_table(&*writer, "obs", &obs)?;
        write_table(&*writer, "var", &var)?;
        write_elements(&*writer, elements)?;
        Ok(writer)
    })?;
    for (name, matrix) in &matrices {
        let recipe = matrix.whole_recipe();
        let (n_obs, n_vars) = (matrix.n_obs() as u64, matrix.n_vars());
        matrix.feed(py, |feed| {
            pool::run(py, "writing", |call| {
                let mut stream = CsrStream::create(&*writer, name, n_obs, n_vars)?;
                stream_rows(feed, &recipe, n_vars, &mut stream, call)?;
                stream.finish()
            })
        })?;
    }
    pool::run(py, "writing", |_| writer.finish())
}

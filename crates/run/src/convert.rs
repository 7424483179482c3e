//! Any readable format to AnnData zarr or h5ad. X is streamed; everything else is carried over.

use std::path::PathBuf;

use cellmill_matrix::{Element, Error, Place, Result};
use cellmill_store::write::{CsrStream, Format, create, write_element, write_root, write_table};
use serde::Serialize;

use crate::job::open;
use crate::observe::{Listener, Observer};
use crate::output::stream_rows;

/// What to convert.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// The input.
    pub input: PathBuf,
    /// The output.
    pub output: PathBuf,
    /// Its format.
    pub format: Format,
    /// Whether an existing output may be replaced.
    pub overwrite: bool,
    /// The genome of a 10x file that has several.
    pub genome: Option<String>,
    /// Threads.
    pub threads: usize,
    /// Memory ceiling in bytes.
    pub memory: u64,
}

/// What was converted.
#[derive(Clone, Debug, Serialize)]
pub struct Converted {
    /// The output.
    pub output: String,
    /// Cells and genes.
    pub shape: [u64; 2],
    /// Entries of X.
    pub nnz: u64,
}

/// Converts. Nothing appears under the output's name before it is complete.
pub fn convert(job: &Conversion, listener: &dyn Listener) -> Result<Converted> {
    if job.output.exists() && !job.overwrite {
        return Err(Error::invalid(
            Place::store(job.output.display().to_string()),
            "it exists already",
            "-y (--overwrite) is needed to replace it",
        ));
    }
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(job.threads.max(1)).build().map_err(|e| Error::bug(format!("no threads: {e}")))?;
    pool.install(|| {
        let scratch = job.output.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from);
        let data = open(&job.input, "X", job.genome.clone(), &scratch, job.memory, listener)?;
        let mut warnings = data.warnings.clone();
        let observer = Observer::new(listener, &*data.source);
        let watch = observer.stage("convert", "cells");
        let writer = create(&job.output, job.format, job.overwrite)?;
        let w = &*writer;
        write_root(w)?;
        write_table(w, "obs", &data.obs)?;
        write_table(w, "var", &data.var)?;
        let shape = data.source.shape();
        let mut stream = CsrStream::create(w, "X", shape.n_obs, shape.n_vars)?;
        let nnz = stream_rows(&*data.source, &[], shape.n_vars, &mut stream, &watch)?;
        stream.finish()?;
        if let Some(store) = &data.anndata {
            for group in ["obsm", "varm", "obsp", "varp", "uns"] {
                for name in store.names(group)? {
                    let path = format!("{group}/{name}");
                    if let Some(element) = store.element(&path, &mut warnings)? {
                        write_element(w, &path, &element)?;
                    }
                }
            }
        }
        if let Some(store) = &data.anndata {
            for layer in store.matrices()?.into_iter().filter(|m| m.starts_with("layers/")) {
                let rows = store.matrix(&layer)?.into_rows(&scratch, job.memory / 4, &watch)?;
                let mut stream = CsrStream::create(w, &layer, shape.n_obs, rows.shape().n_vars)?;
                stream_rows(&*rows, &[], rows.shape().n_vars, &mut stream, &watch)?;
                stream.finish()?;
            }
            if store.matrices()?.iter().any(|m| m == "raw/X") {
                let rows = store.matrix("raw/X")?.into_rows(&scratch, job.memory / 4, &watch)?;
                write_element(w, "raw", &Element::Dict(Vec::new()))?;
                write_table(w, "raw/var", &store.var_of("raw/X", &mut warnings)?)?;
                write_element(w, "raw/varm", &Element::Dict(Vec::new()))?;
                let mut stream = CsrStream::create(w, "raw/X", shape.n_obs, rows.shape().n_vars)?;
                stream_rows(&*rows, &[], rows.shape().n_vars, &mut stream, &watch)?;
                stream.finish()?;
            }
        }
        writer.finish()?;
        watch.finish(shape.n_obs, nnz, 1);
        warnings.iter().for_each(|m| listener.warn(m));
        Ok(Converted { output: job.output.display().to_string(), shape: [shape.n_obs, shape.n_vars as u64], nnz })
    })
}

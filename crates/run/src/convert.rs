//! Any readable format to AnnData zarr or h5ad. X is streamed; everything else is carried over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cellmill_engine::exec::Feed;
use cellmill_matrix::{Element, Encoding, Error, Place, Result, Source, Table, Watch};
use cellmill_store::anndata::AnnData;
use cellmill_store::copy::{copy, is_wide};
use cellmill_store::dataset::without_x;
use cellmill_store::element::name_lost;
use cellmill_store::tree::TreeWriter;
use cellmill_store::write::{CsrStream, Format, create, write_element, write_root, write_table};
use serde::Serialize;

use crate::carry::Annotations;
use crate::job::{local, open};
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

/// The rows of any source with their tables, to be written as a store.
pub struct Rows<'a> {
    /// The matrix.
    pub source: &'a dyn Source,
    /// Cells.
    pub obs: &'a Table,
    /// Genes.
    pub var: &'a Table,
}

impl Rows<'_> {
    /// Writes root, obs, var and X; other elements may follow. Returns the entries of X.
    fn write(&self, w: &dyn TreeWriter, watch: &dyn Watch) -> Result<u64> {
        write_tables(w, self.obs, self.var)?;
        stream_matrix(w, "X", self.source, watch)
    }

    /// Writes a whole store of these rows. Nothing appears under its name before it is complete.
    pub fn save(&self, output: &Path, format: Format, overwrite: bool, listener: &dyn Listener) -> Result<Converted> {
        refuse_existing(output, overwrite)?;
        let observer = Observer::new(listener, self.source);
        let watch = observer.stage("writing", "cells");
        let writer = create(output, format, overwrite)?;
        let nnz = self.write(&*writer, &watch)?;
        writer.finish()?;
        let shape = self.source.shape();
        watch.finish(shape.n_obs, nnz, 1);
        Ok(Converted { output: output.display().to_string(), shape: [shape.n_obs, shape.n_vars as u64], nnz })
    }
}

/// Writes root, obs and var.
fn write_tables(w: &dyn TreeWriter, obs: &Table, var: &Table) -> Result<()> {
    write_root(w)?;
    write_table(w, "obs", obs)?;
    write_table(w, "var", var)
}

/// Streams a matrix into a new `csr_matrix`; returns its entries.
fn stream_matrix(w: &dyn TreeWriter, path: &str, source: &dyn Source, watch: &dyn Watch) -> Result<u64> {
    let shape = source.shape();
    let mut stream = CsrStream::create(w, path, shape.n_obs, shape.n_vars)?;
    let (nnz, _) = stream_rows(Feed::source(source), &[], shape.n_vars, &mut stream, watch)?;
    stream.finish()?;
    Ok(nnz)
}

fn refuse_existing(output: &Path, overwrite: bool) -> Result<()> {
    local(output)?;
    if output.exists() && !overwrite {
        let place = Place::store(output.display().to_string());
        return Err(Error::invalid(place, "it exists already", "-y (--overwrite) is needed to replace it"));
    }
    Ok(())
}

/// Converts. Nothing appears under the output's name before it is complete.
pub fn convert(job: &Conversion, listener: &dyn Listener) -> Result<Converted> {
    refuse_existing(&job.output, job.overwrite)?;
    let threads = rayon::ThreadPoolBuilder::new().num_threads(job.threads.max(1));
    threads.build().map_err(|e| Error::bug(format!("no threads: {e}")))?.install(|| {
        if let Some(store) = without_x(&job.input)? {
            return convert_without_x(&store, job, listener);
        }
        let scratch = job.output.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from);
        let data = open(&job.input, "X", job.genome.clone(), &scratch, job.memory, listener)?;
        let mut warnings = data.warnings.clone();
        let observer = Observer::new(listener, &*data.source);
        let watch = observer.stage("convert", "cells");
        let writer = create(&job.output, job.format, job.overwrite)?;
        let nnz = match &data.anndata {
            // Rows of float32 are what everything else reads fastest, but no value is changed for that.
            Some(store) if rows_as_they_are(store)? => {
                write_tables(&*writer, &data.obs, &data.var)?;
                copy(store, "X", &*writer, &watch)?
            }
            _ => Rows { source: &*data.source, obs: &data.obs, var: &data.var }.write(&*writer, &watch)?,
        };
        if let Some(store) = &data.anndata {
            carry_over(store, &*writer, &watch, &mut warnings)?;
        }
        writer.finish()?;
        let shape = data.source.shape();
        watch.finish(shape.n_obs, nnz, 1);
        warnings.iter().for_each(|m| listener.warn(m));
        Ok(Converted { output: job.output.display().to_string(), shape: [shape.n_obs, shape.n_vars as u64], nnz })
    })
}

/// Everything of a store that has no X, such as a run's result.
fn convert_without_x(store: &AnnData, job: &Conversion, listener: &dyn Listener) -> Result<Converted> {
    let mut warnings = Vec::new();
    let (obs, var) = (store.obs(&mut warnings)?, store.var(&mut warnings)?);
    let observer = Observer::without_source(listener);
    let watch = observer.stage("convert", "cells");
    let writer = create(&job.output, job.format, job.overwrite)?;
    write_tables(&*writer, &obs, &var)?;
    carry_over(store, &*writer, &watch, &mut warnings)?;
    writer.finish()?;
    watch.finish(store.n_obs(), 0, 1);
    warnings.iter().for_each(|m| listener.warn(m));
    Ok(Converted { output: job.output.display().to_string(), shape: [store.n_obs(), store.n_vars()], nnz: 0 })
}

/// Whether X is of wide numbers and lies by rows or dense: then it is copied.
fn rows_as_they_are(store: &AnnData) -> Result<bool> {
    let info = store.matrix_info("X")?;
    Ok(is_wide(&info) && info.encoding != Encoding::Csc)
}

/// Everything of an AnnData store but X, obs and var: annotations whole, layers and raw a piece at a time, all as they lie.
fn carry_over(store: &AnnData, w: &dyn TreeWriter, watch: &dyn Watch, warnings: &mut Vec<String>) -> Result<()> {
    for group in ["", "layers"] {
        name_lost(&**store.tree(), group, warnings);
    }
    Annotations::of(store).write(w, &BTreeSet::new(), warnings)?;
    for matrix in store.matrices()?.into_iter().filter(|m| m != "X") {
        if matrix == "raw/X" {
            write_element(w, "raw", &Element::Dict(Vec::new()))?;
            write_table(w, "raw/var", &store.var_of(&matrix, warnings)?)?;
            match store.element("raw/varm", warnings)? {
                Some(varm) => write_element(w, "raw/varm", &varm)?,
                None => write_element(w, "raw/varm", &Element::Dict(Vec::new()))?,
            }
        }
        copy(store, &matrix, w, watch)?;
    }
    Ok(())
}

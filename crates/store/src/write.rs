//! Writing an AnnData store of any format.

use std::path::Path;

use cellmill_matrix::{Csr, DType, Error, Result, SparseFormat, Values};

use crate::element::{attrs, indptr_values, join};
pub use crate::element::{write_element, write_root, write_table};
use crate::hdf5::Hdf5Writer;
use crate::tree::{ArrayStream, Attrs, TreeWriter};
use crate::zarr::{ZarrVersion, ZarrWriter};

/// The format of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A zarr folder, version 3.
    Zarr3,
    /// A zarr folder, version 2.
    Zarr2,
    /// An HDF5 file.
    H5ad,
}

impl Format {
    /// The format that a name asks for: `.h5ad`, `.h5` and `.hdf5` are HDF5, anything else zarr version 3.
    pub fn of_path(path: &Path) -> Format {
        match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("h5ad" | "h5" | "hdf5") => Format::H5ad,
            _ => Format::Zarr3,
        }
    }
}

/// Begins an output. It takes its name in [`TreeWriter::finish`]; without that nothing is left.
pub fn create(path: &Path, format: Format, overwrite: bool) -> Result<Box<dyn TreeWriter>> {
    Ok(match format {
        Format::Zarr3 => Box::new(ZarrWriter::create(path, ZarrVersion::V3, overwrite)?),
        Format::Zarr2 => Box::new(ZarrWriter::create(path, ZarrVersion::V2, overwrite)?),
        Format::H5ad => Box::new(Hdf5Writer::create(path, overwrite)?),
    })
}

/// Entries of a chunk of `indices` and `data`.
const CHUNK: u64 = 1 << 19;

/// A `csr_matrix` that is written row block by row block: int32 indices, float32 data.
pub struct CsrStream<'a> {
    writer: &'a dyn TreeWriter,
    path: String,
    shape: [u64; 2],
    indptr: Vec<u64>,
    indices: Box<dyn ArrayStream>,
    data: Box<dyn ArrayStream>,
}

impl<'a> CsrStream<'a> {
    /// Begins a matrix of `n_obs` rows by `n_vars` columns at `path`; groups above it exist already.
    pub fn create(writer: &'a dyn TreeWriter, path: &str, n_obs: u64, n_vars: usize) -> Result<CsrStream<'a>> {
        if n_vars > i32::MAX as usize {
            return Err(Error::invalid(Default::default(), format!("{n_vars} columns"), "at most 2^31 - 1 can be written"));
        }
        let shape = [n_obs, n_vars as u64];
        writer.group(path, attrs(SparseFormat::Csr, shape))?;
        let indices = writer.stream(&join(path, "indices"), DType::I32, &[0], &[CHUNK], Attrs::new())?;
        let data = writer.stream(&join(path, "data"), DType::F32, &[0], &[CHUNK], Attrs::new())?;
        Ok(CsrStream { writer, path: path.to_string(), shape, indptr: vec![0], indices, data })
    }

    /// Appends rows.
    pub fn append(&mut self, rows: &Csr) -> Result<()> {
        if rows.n_cols as u64 != self.shape[1] {
            return Err(Error::bug(format!("{}: rows of {} columns for {}", self.path, rows.n_cols, self.shape[1])));
        }
        let before = self.indptr.last().copied().unwrap_or(0);
        self.indptr.extend(rows.indptr.iter().skip(1).map(|end| before + end));
        self.indices.append(&Values::I32(rows.indices.iter().map(|i| *i as i32).collect()))?;
        self.data.append(&Values::F32(rows.data.clone()))
    }

    /// Writes `indptr`, once all rows are there.
    pub fn finish(self) -> Result<()> {
        let rows = self.indptr.len() as u64 - 1;
        if rows != self.shape[0] {
            return Err(Error::bug(format!("{}: {rows} rows of {}", self.path, self.shape[0])));
        }
        self.indices.close()?;
        self.data.close()?;
        let indptr = cellmill_matrix::Array::vector(indptr_values(&self.indptr));
        self.writer.array(&join(&self.path, "indptr"), &indptr, Attrs::new())
    }
}

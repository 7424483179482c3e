//! A matrix that lies by columns: this process has turned it into rows, in temporary files of its own, and leaves them where workers can
//! read them.

use std::path::PathBuf;

use cellmill_engine::journal::Journal;
use cellmill_matrix::{Result, Source, Table};
use cellmill_store::write::Format;

use crate::convert::Rows;
use crate::observe::Listener;

/// The rows, as a store in a journal. Workers ask for the matrix alone: cells and genes are numbered.
pub(crate) fn share(source: &dyn Source, journal: &Journal, listener: &dyn Listener) -> Result<PathBuf> {
    let path = journal.folder().join("rows.zarr");
    if !path.exists() {
        let shape = source.shape();
        let numbers = |n: usize| Table::of_index((0..n).map(|i| i.to_string()).collect());
        let (obs, var) = (numbers(shape.n_obs as usize), numbers(shape.n_vars));
        Rows { source, obs: &obs, var: &var }.save(&path, Format::Zarr3, false, listener)?;
    }
    Ok(path)
}

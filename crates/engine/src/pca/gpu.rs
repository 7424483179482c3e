//! The covariance by a GPU: the threads of the CPU unpack and transform the chosen columns, the GPU multiplies them.

use std::sync::Arc;

use cellmill_cuda::Device;
use cellmill_kernels::gram::{MAX_COLUMNS, cuda::Gram};
use cellmill_kernels::pack::cuda::Rows;
use cellmill_matrix::{Result, Watch};

use super::{Columns, Pass};
use crate::exec::{cut, in_order};
use crate::recipe::apply_all;
use crate::stage::Stage;

/// What a pass over the rows finds.
pub(super) struct Found {
    /// Covariance, ddof 1: `(p, p)`.
    pub covariance: Vec<f64>,
    /// Sum of each column: `(p,)`.
    pub sums: Vec<f64>,
    /// Rows.
    pub n_obs: u64,
    /// Entries.
    pub nnz: u64,
}

/// Largest part of the free memory of a card that is taken.
const SHARE: f64 = 0.9;

/// Takes the covariance of all rows; `None` if this GPU or these columns are not fit for it.
pub(super) fn covariance(
    device: &Arc<Device>,
    pass: Pass<'_>,
    columns: &Columns,
    selected: &Stage,
    watch: &dyn Watch,
) -> Result<Option<Found>> {
    let Some(largest) = &columns.largest else { return Ok(None) };
    let p = largest.len();
    let room = (device.memory()?.0 as f64 * SHARE) as u64;
    if p >= MAX_COLUMNS || Gram::bytes(p) + 8 * (p * p) as u64 > room {
        return Ok(None);
    }
    let stream = device.stream()?;
    let mut gram = Gram::new(&stream, largest)?;
    let rows = pass.rows;
    let n_source = rows.feed.source.shape().n_obs;
    let tasks = cut(n_source);
    let mut nnz = 0;
    in_order(
        tasks.len(),
        2,
        |i| {
            let mut chunk = pass.selected(&tasks[i])?;
            pass.keep(selected, i, &chunk);
            apply_all(rows.transform, &mut chunk)?;
            Ok(chunk.x)
        },
        |i, x| {
            nnz += x.nnz() as u64;
            gram.add(&Rows::upload(&stream, &x)?)?;
            watch.tick(tasks[i].end, n_source, "")
        },
    )?;
    let n_obs = gram.n_rows();
    let (covariance, sums) = gram.covariance()?;
    gram.check()?;
    Ok(Some(Found { covariance: stream.download(&covariance, p * p)?, sums: stream.download(&sums, p)?, n_obs, nnz }))
}

//! Chosen rows and columns, transformed, as one CSR matrix in the memory of a GPU: for other libraries of the process. Rows travel as they
//! do for a covariance: packed, from the stage where the GPU can do the steps, else task by task as the threads make them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cellmill_cuda::{Buffer, Device};
use cellmill_kernels::pack::compact::{Compact, Entries};
use cellmill_matrix::{Error, Place, Result, Watch};

use super::gpu::Feeder;
use super::{Memory, Pass, Rows};
use crate::exec::in_order;
use crate::recipe::apply_all;

/// A CSR matrix in device memory: columns ascend in each row, and all numbers are below 2^31.
#[derive(Debug)]
pub struct Csr {
    /// Row starts: `(n_rows + 1,)`.
    pub indptr: Buffer<u32>,
    /// Column of each entry: `(nnz,)`.
    pub columns: Buffer<u32>,
    /// Value of each entry: `(nnz,)`.
    pub values: Buffer<f32>,
    /// Rows and columns.
    pub shape: (usize, usize),
}

/// Brings rows to a device; `None` if it has no room for the work.
///
/// # Errors
/// 2^31 entries or more, which other libraries' matrices can't have; or more than there is memory for.
pub fn csr_on(device: &Arc<Device>, rows: Rows<'_>, watch: &dyn Watch) -> Result<Option<Csr>> {
    let (decoded, memory) = (AtomicBool::new(false), Memory::default());
    let pass = Pass { rows, decoded: &decoded, memory: &memory };
    let devices = std::slice::from_ref(device);
    let Some(feeder) = Feeder::new(devices, pass, 0)? else { return Ok(None) };
    let compact = Compact::new(device)?;
    let mut lanes = feeder.lanes()?;
    let mut parts: Vec<Entries> = Vec::with_capacity(feeder.tasks.len());
    let tasks = &feeder.tasks;
    let n_source = rows.feed.source.shape().n_obs;
    in_order(
        tasks.len(),
        1,
        |i| {
            feeder.load(i, || {
                let mut chunk = pass.selected(&tasks[i])?;
                apply_all(rows.transform, &mut chunk)?;
                Ok(chunk)
            })
        },
        |i, loaded| {
            lanes[0].rows(loaded, |lane, rows| {
                parts.push(compact.entries(lane, rows)?);
                Ok(())
            })?;
            watch.tick(tasks[i].end, n_source, "")
        },
    )?;
    lanes.into_iter().try_for_each(|lanes| lanes.finish())?;
    let place = || Place::store(rows.feed.source.location());
    joined(device, parts, rows.n_genes).map_err(|e| e.at(&place())).map(Some)
}

/// The parts end to end. What wrote them is done.
fn joined(device: &Arc<Device>, parts: Vec<Entries>, n_cols: usize) -> Result<Csr> {
    let nnz: usize = parts.iter().map(|part| part.columns.len()).sum();
    if nnz > i32::MAX as usize {
        let found = format!("{nnz} entries for one matrix on a GPU");
        return Err(Error::invalid(Place::default(), found, "there they are numbered in 31 bits; choose fewer cells or genes"));
    }
    let mut end = 0u32;
    let indptr: Vec<u32> = std::iter::once(0)
        .chain(parts.iter().flat_map(|part| part.lens.iter().copied()))
        .map(|len| {
            end += len;
            end
        })
        .collect();
    let stream = device.stream()?;
    let (mut columns, mut values) = (stream.alloc::<u32>(nnz)?, stream.alloc::<f32>(nnz)?);
    let mut at = 0;
    for part in parts {
        stream.copy(&part.columns, &mut columns, at)?;
        stream.copy(&part.values, &mut values, at)?;
        at += part.columns.len();
        // The part goes back in the order of another stream.
        stream.synchronize()?;
    }
    let shape = (indptr.len() - 1, n_cols);
    Ok(Csr { indptr: stream.upload(&indptr)?, columns, values, shape })
}

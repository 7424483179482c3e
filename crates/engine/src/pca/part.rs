//! Parts of the two passes over the rows: a range of tasks, in this process or in another.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cellmill_cuda::{Device, Processor};
use cellmill_kernels::gram::{Gram, Totals};
use cellmill_kernels::project::Projection;
use cellmill_matrix::{Error, Result, Watch};
use serde::{Deserialize, Serialize};

use super::gpu::{self, Covariance, Found};
use super::{Columns, Fit, Half, Memory, Pass, Rows, covariance_pass};
use crate::exec::{cut, in_order};
use crate::stage::Stage;

/// Whoever carries out the passes over the rows in other processes, by [`products`] and [`scores`] of ranges of tasks.
pub trait Crew: Sync {
    /// Sums of products over all rows.
    fn products(&self, rows: &Rows<'_>, columns: &Columns, watch: &dyn Watch) -> Result<Products>;
    /// Scores of all rows: `(n_obs, n_comps)` row-major; `None` where the crew leaves them somewhere else.
    fn scores(&self, rows: &Rows<'_>, fit: &Fit, watch: &dyn Watch) -> Result<Option<Vec<f32>>>;
}

/// Tasks that are projected.
#[derive(Clone)]
pub struct Part {
    /// Which.
    pub tasks: Range<usize>,
    /// Whether the rows of the first and the last of them stay packed: others project these tasks too.
    pub shared: bool,
}

impl Part {
    /// Whether nobody will ask for the rows of a task again.
    pub(super) fn is_last(&self, task: usize) -> bool {
        !self.shared || (self.tasks.start < task && task + 1 < self.tasks.end)
    }
}

/// Sums of products of some rows: addition is exact, so those of all rows have the same bits however they are cut into whole blocks.
#[derive(Serialize, Deserialize)]
pub struct Products {
    /// The sums.
    pub sums: Sums,
    /// Entries of the chosen columns.
    pub nnz: u64,
    /// Whether rows were decoded from the store.
    pub decoded: bool,
}

/// Sums by CPUs and by GPUs are rounded differently: a covariance is of one kind.
#[derive(Serialize, Deserialize)]
pub enum Sums {
    /// By CPUs.
    Cpu(Gram),
    /// By GPUs: the same bits on each.
    Gpu(Totals),
}

impl Products {
    /// Adds those of other rows.
    pub fn merge(&mut self, other: &Products) -> Result<()> {
        self.nnz += other.nnz;
        self.decoded |= other.decoded;
        match (&mut self.sums, &other.sums) {
            (Sums::Cpu(mine), Sums::Cpu(others)) => mine.merge(others),
            (Sums::Gpu(mine), Sums::Gpu(others)) => mine.merge(others),
            _ => Err(Error::bug("sums of products by a CPU and by a GPU are merged")),
        }
    }

    pub(super) fn found(&self) -> Result<Found> {
        let (covariance, sums, n_obs) = match &self.sums {
            Sums::Cpu(gram) => (gram.covariance()?, gram.sums(), gram.n_rows()),
            Sums::Gpu(totals) => (totals.covariance()?, totals.sums(), totals.n_rows()),
        };
        Ok(Found { covariance: Covariance::Host(covariance), sums, n_obs, nnz: self.nnz })
    }
}

/// Sums of products of some tasks' rows, by the first GPU of the processor if it has one; `None` if that or the columns are not fit for it.
/// `part` begins and ends at whole blocks of [`super::TASKS_A_BLOCK`] tasks, or ends with the last task.
pub fn products(
    rows: Rows<'_>,
    columns: &Columns,
    part: Range<usize>,
    selected: &Stage,
    processor: &Processor,
    watch: &dyn Watch,
) -> Result<Option<Products>> {
    let decoded = AtomicBool::new(false);
    let memory = Memory::default();
    let pass = Pass { rows, decoded: &decoded, memory: &memory };
    let (sums, nnz) = match processor.device() {
        Some(device) => match gpu::products(device, pass, columns, part, selected, watch)? {
            Some((totals, nnz)) => (Sums::Gpu(totals), nnz),
            None => return Ok(None),
        },
        None => {
            let none = Half { gram: Gram::new(&columns.detection, columns.bound)?, nnz: 0, tasks: part.start };
            let Half { gram, nnz, .. } = covariance_pass(pass, none, part.end, selected, None, watch)?;
            (Sums::Cpu(gram), nnz)
        }
    };
    Ok(Some(Products { sums, nnz, decoded: decoded.into_inner() }))
}

/// Scores of some tasks' rows: `(n_obs of the part, n_comps)` row-major.
pub fn scores(rows: Rows<'_>, part: &Part, selected: &Stage, fit: &Fit, watch: &dyn Watch) -> Result<Vec<f32>> {
    project(Pass { rows, decoded: &AtomicBool::new(false), memory: &Memory::default() }, part, selected, fit, watch)
}

/// The same by a GPU, of tasks of which `n_rows` rows stay; `None` if it is not fit for it.
pub fn scores_on(
    device: &Arc<Device>,
    rows: Rows<'_>,
    (part, n_rows): (&Part, usize),
    selected: &Stage,
    fit: &Fit,
    watch: &dyn Watch,
) -> Result<Option<Vec<f32>>> {
    let (decoded, memory) = (AtomicBool::new(false), Memory::default());
    gpu::scores(std::slice::from_ref(device), Pass { rows, decoded: &decoded, memory: &memory }, (part, n_rows), selected, fit, watch)
}

/// X V − centre·V, task by task: from what was selected, or else from the feed.
pub(super) fn project(pass: Pass<'_>, part: &Part, selected: &Stage, fit: &Fit, watch: &dyn Watch) -> Result<Vec<f32>> {
    let k = fit.variance.len();
    let projection = Projection::new(&fit.components, fit.centre.len(), &fit.shift())?;
    let tasks = cut(pass.rows.feed.source.shape().n_obs);
    let Part { tasks: Range { start, end }, .. } = part.clone();
    let rows: u64 = tasks[start..end].iter().map(|t| t.end - t.start).sum();
    let mut scores = Vec::with_capacity(rows.min(fit.n_obs) as usize * k);
    in_order(
        end - start,
        2,
        |i| {
            let i = start + i;
            let chunk = pass.transformed(selected, i, &tasks[i])?;
            if part.is_last(i) {
                selected.forget(i);
            }
            let mut out = vec![0f32; chunk.x.n_rows() * k];
            projection.scores(&chunk.x, &mut out)?;
            pass.memory.rows.give(chunk.x);
            Ok(out)
        },
        |i, block| {
            scores.extend_from_slice(&block);
            watch.tick((start + i) as u64 + 1, tasks.len() as u64, "projection")
        },
    )?;
    Ok(scores)
}

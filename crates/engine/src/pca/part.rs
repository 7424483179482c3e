//! Parts of the two passes over the rows: a range of tasks, in this process or in another.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use cellmill_kernels::gram::Gram;
use cellmill_kernels::project::Projection;
use cellmill_matrix::{Result, Watch};
use serde::{Deserialize, Serialize};

use super::{Columns, Fit, Half, Memory, Pass, Rows, covariance_pass};
use crate::exec::{cut, in_order};
use crate::stage::Stage;

/// Whoever carries out the passes over the rows in other processes, by [`products`] and [`scores`] of ranges of tasks.
pub trait Crew: Sync {
    /// Sums of products over all rows.
    fn products(&self, rows: &Rows<'_>, columns: &Columns, watch: &dyn Watch) -> Result<Products>;
    /// Scores of all rows: `(n_obs, n_comps)` row-major.
    fn scores(&self, rows: &Rows<'_>, fit: &Fit, watch: &dyn Watch) -> Result<Vec<f32>>;
}

/// Sums of products of some rows: addition is exact, so those of all rows have the same bits however they are cut into whole blocks.
#[derive(Serialize, Deserialize)]
pub struct Products {
    /// The sums.
    pub gram: Gram,
    /// Entries of the chosen columns.
    pub nnz: u64,
    /// Whether rows were decoded from the store.
    pub decoded: bool,
}

impl Products {
    /// Adds those of other rows.
    pub fn merge(&mut self, other: &Products) -> Result<()> {
        self.nnz += other.nnz;
        self.decoded |= other.decoded;
        self.gram.merge(&other.gram)
    }
}

/// Sums of products of some tasks' rows. `part` begins and ends at whole blocks of [`super::TASKS_A_BLOCK`] tasks, or ends with the last task.
pub fn products(rows: Rows<'_>, columns: &Columns, part: Range<usize>, selected: &Stage, watch: &dyn Watch) -> Result<Products> {
    let decoded = AtomicBool::new(false);
    let none = Half { gram: Gram::new(&columns.detection, columns.bound)?, nnz: 0, tasks: part.start };
    let Half { gram, nnz, .. } =
        covariance_pass(Pass { rows, decoded: &decoded, memory: &Memory::default() }, none, part.end, selected, None, watch)?;
    Ok(Products { gram, nnz, decoded: decoded.into_inner() })
}

/// Scores of some tasks' rows: `(n_obs of the part, n_comps)` row-major.
pub fn scores(rows: Rows<'_>, part: Range<usize>, selected: &Stage, fit: &Fit, watch: &dyn Watch) -> Result<Vec<f32>> {
    project(Pass { rows, decoded: &AtomicBool::new(false), memory: &Memory::default() }, part, selected, fit, watch)
}

/// X V − centre·V, task by task: from what was selected, or else from the feed.
pub(super) fn project(pass: Pass<'_>, part: Range<usize>, selected: &Stage, fit: &Fit, watch: &dyn Watch) -> Result<Vec<f32>> {
    let k = fit.variance.len();
    let projection = Projection::new(&fit.components, fit.centre.len(), &fit.shift())?;
    let tasks = cut(pass.rows.feed.source.shape().n_obs);
    let rows: u64 = tasks[part.clone()].iter().map(|t| t.end - t.start).sum();
    let mut scores = Vec::with_capacity(rows.min(fit.n_obs) as usize * k);
    in_order(
        part.len(),
        2,
        |i| {
            let i = part.start + i;
            let chunk = pass.transformed(selected, i, &tasks[i])?;
            selected.forget(i);
            let mut out = vec![0f32; chunk.x.n_rows() * k];
            projection.scores(&chunk.x, &mut out)?;
            pass.memory.rows.give(chunk.x);
            Ok(out)
        },
        |i, block| {
            scores.extend_from_slice(&block);
            watch.tick((part.start + i) as u64 + 1, tasks.len() as u64, "projection")
        },
    )?;
    Ok(scores)
}

//! The rows that a statistic looks at: a feed, and the steps that lead to them. What markers, aggregates, scores and residuals ask is asked
//! of a view, by the command line and by Python alike.

use std::sync::Arc;

use cellmill_cuda::Device;
use cellmill_engine::Chunk;
use cellmill_engine::chunk::RowColumns;
use cellmill_engine::exec::{self, Aside, Feed, Scratch, TASK_ROWS, THREAD_BYTES, Task, cut, in_order, sliced};
use cellmill_engine::fold::{At, Collect, Collected, Fold};
use cellmill_engine::recipe::{Rows, Step};
use cellmill_matrix::{Csr, Error, Result, SourceRow, Watch};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::cluster::reads::Read;
use crate::wide::Wide;

/// Rows after some steps.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Where rows come from. With a stage, the source is decoded once however many passes are needed.
    pub feed: Feed<'a>,
    /// Steps that choose cells, then genes.
    pub select: &'a [Step],
    /// Steps that change values: normalisation, logarithm, scaling without centring.
    pub values: &'a [Step],
    /// Genes after `select`.
    pub n_vars: usize,
    /// Bytes of memory that states may take.
    pub memory: u64,
    /// Who reads the rows, if it is not this process.
    pub cluster: Option<&'a Cluster<'a>>,
    /// GPUs, for what they can do.
    pub gpus: &'a [Arc<Device>],
    /// The same rows of the source in f64, if they are that.
    pub wide: Option<&'a dyn Wide>,
}

/// Groups of cells.
#[derive(Clone, Copy)]
pub struct Groups<'a> {
    /// Group of each source row, [`cellmill_engine::fold::NO_GROUP`] for none: `(n_obs of the source,)`.
    pub codes: &'a [u32],
    /// The groups' names.
    pub names: &'a [String],
}

impl View<'_> {
    /// The steps to all genes.
    pub fn steps(&self) -> Vec<Step> {
        self.select.iter().chain(self.values).cloned().collect()
    }

    /// The steps to some genes, `(n_vars,)`. Cells are normalised by their totals over all genes all the same.
    pub fn steps_of(&self, genes: &[bool]) -> Vec<Step> {
        let mut steps = self.select.to_vec();
        let taken = steps.iter().any(|s| matches!(s, Step::TakeTotals | Step::TakeTotalsOf { .. }));
        if !taken && self.values.iter().any(|s| matches!(s, Step::NormalizeTotal { .. })) {
            steps.push(Step::TakeTotals);
        }
        steps.push(Step::KeepVar { mask: genes.to_vec() });
        steps.extend(self.values.iter().map(|step| match step {
            Step::Scale { mean, inverse_std, max_value } => {
                Step::Scale { mean: mean.as_ref().map(|m| of(m, genes)), inverse_std: of(inverse_std, genes), max_value: *max_value }
            }
            other => other.clone(),
        }));
        steps
    }

    /// Refuses steps after which zeros are no longer zeros.
    pub fn check(&self) -> Result<()> {
        match self.values.iter().any(|s| matches!(s, Step::Scale { mean: Some(_), .. })) {
            true => Err(Error::option("zero_center", "true", "values that were not centred are needed here")),
            false => Ok(()),
        }
    }

    /// One pass over these steps; the fold looks behind the last.
    pub(crate) fn pass<F: Fold>(&self, steps: &[Step], fold: &F, codes: Option<&[u32]>, watch: &dyn Watch) -> Result<exec::Done<F::Output>>
    where
        At<F>: Read<Output = F::Output>,
    {
        let (fold, aside) = (At { step: steps.len(), fold: fold.clone() }, Aside { batch: codes });
        match self.cluster {
            Some(cluster) => cluster.fold(steps, &fold, &aside, watch),
            None => exec::run(self.feed, steps, &fold, &aside, None, watch),
        }
    }

    /// Cells of each group that are kept, those of no group last, where this is known before a pass: `(n_groups + 1,)`.
    pub fn sizes(&self, groups: &Groups<'_>) -> Option<Vec<u64>> {
        let keep = match self.select.first() {
            Some(Step::KeepObs { rows: Rows::Mask { keep, first: 0 } }) => Some(keep),
            Some(Step::KeepObs { .. }) => return None,
            _ => None,
        };
        if self.select.iter().skip(1).any(|s| matches!(s, Step::KeepObs { .. })) {
            return None;
        }
        let mut sizes = vec![0; groups.names.len() + 1];
        for (i, &code) in groups.codes.iter().enumerate() {
            if keep.is_none_or(|k| k[i]) {
                sizes[(code as usize).min(groups.names.len())] += 1;
            }
        }
        Some(sizes)
    }

    /// Checks codes against the source.
    pub fn check_codes(&self, codes: &[u32]) -> Result<()> {
        let n_obs = self.feed.source.shape().n_obs;
        if codes.len() as u64 != n_obs {
            return Err(Error::bug(format!("{} codes for {n_obs} rows", codes.len())));
        }
        Ok(())
    }

    /// Stored entries of the source.
    pub fn entries(&self) -> u64 {
        self.feed.source.entries_before(SourceRow(self.feed.source.shape().n_obs))
    }

    /// Bytes that rows on their way take, whatever is asked of them.
    pub fn flight_bytes(&self) -> u64 {
        let threads = rayon::current_num_threads() as u64;
        threads * THREAD_BYTES + self.feed.source.overhead_bytes(rayon::current_num_threads())
    }

    /// States of so many bytes that are held at a time: those on their way, those that wait for their turn, and the tree's.
    pub fn states(&self) -> u64 {
        let tasks = self.feed.source.shape().n_obs.div_ceil(TASK_ROWS).max(1);
        let threads = (rayon::current_num_threads() as u64).min(tasks);
        (threads * 3).min(tasks) + u64::from(64 - tasks.leading_zeros()) + 1
    }
}

/// Turns the kept rows into dense ones, `(n_rows, n_vars)`, task by task and in order. `turn` gets rows, their numbers in the source,
/// and what to append to; `take` gets what it made. Returns whether the source was decoded.
pub fn dense_rows<T: Send>(
    view: &View<'_>,
    turn: impl Fn(&Csr, &[u64], &mut Vec<T>) + Sync,
    watch: &dyn Watch,
    take: &mut (impl FnMut(Vec<T>) -> Result<()> + Send),
) -> Result<bool> {
    view.check()?;
    let steps = view.steps();
    let n_obs = view.feed.source.shape().n_obs;
    let mut tasks = cut(n_obs);
    // Tasks of which a mask leaves nothing are not read.
    let kept = |step: &Step, inside: &std::ops::Range<u64>| match step {
        Step::KeepObs { rows: Rows::Mask { keep, first: 0 } } => {
            keep.get(inside.start as usize..inside.end as usize).is_none_or(|k| k.contains(&true))
        }
        _ => true,
    };
    tasks.retain(|inside| steps.iter().all(|step| kept(step, inside)));
    let mut decoded = false;
    in_order(
        tasks.len(),
        1,
        |i| {
            let steps = sliced(&steps, &tasks[i]);
            let fold = (At { step: steps.len(), fold: Numbers }, Collect::new(steps.len(), view.n_vars));
            let done = Task { recipe: &steps, fold: &fold, rows: tasks[i].clone(), batch: None }.run(view.feed, &mut Scratch::default())?;
            let (numbers, Collected { x, .. }) = done.state;
            let mut dense = Vec::with_capacity(x.n_rows() * view.n_vars);
            turn(&x, &numbers, &mut dense);
            Ok((dense, done.decoded))
        },
        |i, (rows, from_store)| {
            decoded |= from_store;
            take(rows)?;
            watch.tick(tasks[i].end, n_obs, "")
        },
    )?;
    Ok(decoded)
}

/// The numbers of the rows that are left, in the source.
#[derive(Clone, Serialize, Deserialize)]
struct Numbers;

impl Fold for Numbers {
    type Acc = Vec<u64>;
    type State = Vec<u64>;
    type Output = Vec<u64>;

    fn init(&self) -> Vec<u64> {
        Vec::new()
    }
    fn open(&self) -> Vec<u64> {
        Vec::new()
    }
    fn accumulate(&self, acc: &mut Vec<u64>, _: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        acc.extend(chunk.rows.iter().map(|&r| chunk.source.start + u64::from(r)));
        Ok(())
    }
    fn close(&self, acc: Vec<u64>) -> Vec<u64> {
        acc
    }
    fn merge(&self, into: &mut Vec<u64>, later: Vec<u64>) {
        into.extend(later);
    }
    fn finish(&self, state: Vec<u64>) -> Vec<u64> {
        state
    }
}

/// The entries whose flag is true.
fn of(values: &[f64], keep: &[bool]) -> Vec<f64> {
    values.iter().zip(keep).filter(|(_, k)| **k).map(|(v, _)| *v).collect()
}

/// Cuts genes into runs whose weights stay below `most` (a gene that is heavier alone is a run of its own): masks of `(weights.len(),)`.
pub fn runs(weights: &[u64], most: u64) -> Vec<std::ops::Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut sum) = (0, 0u64);
    for (j, &weight) in weights.iter().enumerate() {
        if sum + weight > most && j > start {
            runs.push(start..j);
            (start, sum) = (j, 0);
        }
        sum += weight;
    }
    if start < weights.len() {
        runs.push(start..weights.len());
    }
    runs
}

/// A mask that is true on a run of genes.
pub fn mask_of(run: &std::ops::Range<usize>, n_vars: usize) -> Vec<bool> {
    (0..n_vars).map(|j| run.contains(&j)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_hold_what_fits() {
        assert_eq!(runs(&[3, 3, 3, 10, 1], 7), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(runs(&[1, 1], 7), std::iter::once(0..2).collect::<Vec<_>>());
        assert!(runs(&[], 7).is_empty());
    }
}

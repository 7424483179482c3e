//! A task: a range of source rows, a recipe and a fold. What a thread is handed now is what a worker is handed later.

use std::ops::Range;

use cellmill_kernels::select::renumbering;
use cellmill_matrix::{Csr, Place, Result, Source, SourceRow, Watch};
use serde::{Deserialize, Serialize};

use super::order::{Tree, in_order};
use super::spare::Spare;
use crate::chunk::{Chunk, Known, RowColumns};
use crate::fold::Fold;
use crate::journal::Log;
use crate::reader::Reader;
use crate::recipe::{Rows, Step, apply};
use crate::stage::{Piece, Stage};

/// Source rows of a task. Fixed: the tree of merging, and with it every bit of a result, follows from the number of rows alone.
pub const TASK_ROWS: u64 = 4096;

/// Entries of a chunk at most (or one row): 256 KiB, which stay in the core's second cache from step to step, beside the sums of all genes,
/// also where two threads share it.
const CHUNK_ENTRIES: u64 = 1 << 15;

/// Bytes that a thread is counted with for the rows it works on: decoded, packed, transformed.
pub const THREAD_BYTES: u64 = 4 << 20;

/// Facts about rows that a recipe needs besides the matrix. Tasks get their own slice of them.
#[derive(Clone, Debug, Default)]
pub struct Aside<'a> {
    /// Batch of each source row: `(n_obs,)`.
    pub batch: Option<&'a [u32]>,
}

/// Where rows come from.
#[derive(Clone, Copy)]
pub struct Feed<'a> {
    /// The store.
    pub source: &'a dyn Source,
    /// Kept rows of all genes as the store has them: tasks that are there come from it, others are left in it on the way.
    pub stage: Option<&'a Stage>,
    /// Whoever reads whole tasks on GPUs, into the same stage.
    pub reader: Option<&'a Reader<'a>>,
}

impl<'a> Feed<'a> {
    /// From the store alone.
    pub fn source(source: &'a dyn Source) -> Self {
        Feed::new(source, None)
    }

    /// From the store, or from what is kept of it.
    pub fn new(source: &'a dyn Source, stage: Option<&'a Stage>) -> Self {
        Feed { source, stage, reader: None }
    }

    /// The filters that a recipe begins with, behind which its rows are staged.
    pub fn filters<'s>(&self, recipe: &'s [Step]) -> &'s [Step] {
        let n = recipe.iter().take_while(|s| matches!(s, Step::KeepObs { .. })).count();
        &recipe[..if self.stage.is_some_and(Stage::is_unfiltered) { 0 } else { n }]
    }
}

/// One task.
#[derive(Clone, Debug)]
pub struct Task<'a, F> {
    /// What happens to the rows.
    pub recipe: &'a [Step],
    /// What is asked of them.
    pub fold: &'a F,
    /// Source rows.
    pub rows: Range<u64>,
    /// Batch of each row of the task.
    pub batch: Option<&'a [u32]>,
}

/// What a task leaves behind.
#[derive(Serialize, Deserialize)]
pub struct TaskOutput<S> {
    /// The state of its rows.
    pub state: S,
    /// Columns of its rows.
    pub rows: RowColumns,
    /// Stored entries that were read.
    pub entries: u64,
    /// Whether they were decoded from the store.
    pub decoded: bool,
}

/// Memory that goes from task to task.
#[derive(Default)]
pub struct Scratch {
    buffer: Csr,
    packed: Vec<u8>,
}

/// Cuts rows into tasks.
pub fn cut(n_obs: u64) -> Vec<Range<u64>> {
    (0..n_obs).step_by(TASK_ROWS as usize).map(|start| start..(start + TASK_ROWS).min(n_obs)).collect()
}

/// The task that a source row belongs to.
pub fn task_of(row: u64) -> usize {
    (row / TASK_ROWS) as usize
}

impl<F: Fold> Task<'_, F> {
    /// Reads the rows, chunk by chunk, and folds them.
    pub fn run(&self, feed: Feed<'_>, scratch: &mut Scratch) -> Result<TaskOutput<F::State>> {
        let mut open = Open { acc: self.fold.open(), rows: RowColumns::default() };
        // Rows are staged once they are filtered: a recipe that begins with filters may begin behind them, if nobody looks before.
        let filters = feed.filters(self.recipe).len();
        let kept = match feed.stage {
            Some(stage) if !(0..filters).any(|s| self.fold.listens(s)) => stage.task(task_of(self.rows.start)),
            _ => None,
        };
        let entries = match &kept {
            Some(pieces) => self.unpack(pieces, filters, feed.source, &mut open, scratch)?,
            None => match self.read(feed, filters, &mut open)? {
                Some(entries) => entries,
                None => self.decode(feed, filters, &mut open, scratch)?,
            },
        };
        Ok(TaskOutput { state: self.fold.close(open.acc), rows: open.rows, entries, decoded: kept.is_none() })
    }

    /// Has the rows read on a GPU, where that tells the fold all that it asks for.
    fn read(&self, feed: Feed<'_>, filters: usize, open: &mut Open<F>) -> Result<Option<u64>> {
        let fit = filters == self.recipe.len() && self.fold.takes_counts();
        let Some(reader) = feed.reader.filter(|_| fit) else { return Ok(None) };
        let kept = filters > 0 && self.fold.listens(filters);
        let place = Place::store(feed.source.location()).rows(self.rows.clone());
        let Some(read) = reader.read(&self.rows, self.recipe, kept).map_err(|e| e.at(&place))? else { return Ok(None) };
        if self.fold.listens(0) {
            self.fold.count(&mut open.acc, 0, &read.all, &mut open.rows);
        }
        if let Some(kept) = &read.kept {
            self.fold.count(&mut open.acc, filters, kept, &mut open.rows);
        }
        Ok(Some(read.entries))
    }

    fn decode(&self, feed: Feed<'_>, filters: usize, open: &mut Open<F>, scratch: &mut Scratch) -> Result<u64> {
        let mut pieces = feed.stage.map(|_| Vec::new());
        let mut entries = 0;
        let mut start = self.rows.start;
        while start < self.rows.end {
            let end = chunk_end(feed.source, start, self.rows.end);
            let place = Place::store(feed.source.location()).rows(start..end);
            feed.source.read(SourceRow(start)..SourceRow(end), &mut scratch.buffer)?;
            entries += scratch.buffer.nnz() as u64;
            let at = (start - self.rows.start) as usize;
            let batch = self.batch.map(|b| b[at..at + (end - start) as usize].to_vec());
            let mut chunk = Chunk::new(start..end, std::mem::take(&mut scratch.buffer), batch);
            self.steps(&mut chunk, 0..filters, open).map_err(|e| e.at(&place))?;
            if let (Some(stage), Some(list)) = (feed.stage, &mut pieces) {
                // Passes over rows that are not filtered yet normalise them, each anew.
                let known = if stage.is_unfiltered() { chunk.know() } else { Known::default() };
                match stage.pack(&chunk, &mut scratch.packed) {
                    Some(piece) => list.push(piece.knowing(known)),
                    None => pieces = None,
                }
            }
            self.steps(&mut chunk, filters..self.recipe.len(), open).map_err(|e| e.at(&place))?;
            self.look(&mut chunk, self.recipe.len(), open).map_err(|e| e.at(&place))?;
            scratch.buffer = chunk.x;
            start = end;
        }
        if let (Some(stage), Some(pieces)) = (feed.stage, pieces) {
            stage.keep(task_of(self.rows.start), pieces);
        }
        Ok(entries)
    }

    fn unpack(&self, pieces: &[Piece], filters: usize, source: &dyn Source, open: &mut Open<F>, scratch: &mut Scratch) -> Result<u64> {
        let columns = self.columns_first(filters);
        let mut entries = 0;
        for piece in pieces {
            let place = Place::store(source.location()).rows(piece.source().clone());
            let buffer = std::mem::take(&mut scratch.buffer);
            entries += piece.entries();
            let (mut chunk, done) = match &columns {
                Some(c) => (piece.chunk_of_columns(&c.map, c.n_kept, c.take_totals, buffer)?, filters + 1 + usize::from(c.take_totals)),
                None => (piece.chunk(buffer)?, filters),
            };
            let at = (piece.source().start - self.rows.start) as usize;
            chunk.batch = self.batch.map(|b| chunk.rows.iter().map(|&r| b[at + r as usize]).collect());
            self.steps(&mut chunk, done..self.recipe.len(), open).map_err(|e| e.at(&place))?;
            self.look(&mut chunk, self.recipe.len(), open).map_err(|e| e.at(&place))?;
            scratch.buffer = chunk.x;
        }
        Ok(entries)
    }

    /// The choice of columns that comes next after `filters` steps, if nobody looks at the rows before it.
    fn columns_first(&self, filters: usize) -> Option<Columns> {
        let (take_totals, mask) = match &self.recipe[filters..] {
            [Step::TakeTotals, Step::KeepVar { mask }, ..] => (true, mask),
            [Step::KeepVar { mask }, ..] => (false, mask),
            _ => return None,
        };
        if (filters..=filters + usize::from(take_totals)).any(|s| self.fold.listens(s)) {
            return None;
        }
        let (map, n_kept) = renumbering(mask);
        Some(Columns { map, n_kept, take_totals })
    }

    /// Applies these steps of the recipe; the fold looks before each.
    fn steps(&self, chunk: &mut Chunk, steps: Range<usize>, open: &mut Open<F>) -> Result<()> {
        let mut step = steps.start;
        while step < steps.end {
            self.look(chunk, step, open)?;
            // Steps may be fused as long as nobody looks at the rows between them.
            let alone = (step + 1..steps.end).find(|&s| self.fold.listens(s)).unwrap_or(steps.end);
            step += apply(&self.recipe[step..alone], chunk)?;
        }
        Ok(())
    }

    fn look(&self, chunk: &mut Chunk, step: usize, open: &mut Open<F>) -> Result<()> {
        if self.fold.listens(step) { self.fold.accumulate(&mut open.acc, step, chunk, &mut open.rows) } else { Ok(()) }
    }
}

/// A task on its way.
struct Open<F: Fold> {
    acc: F::Acc,
    rows: RowColumns,
}

/// Columns to keep while rows are unpacked.
struct Columns {
    map: Vec<u32>,
    n_kept: usize,
    take_totals: bool,
}

/// The row after the last that fits one chunk together with `start`; at least one row.
pub(crate) fn chunk_end(source: &dyn Source, start: u64, limit: u64) -> u64 {
    let before = source.entries_before(SourceRow(start));
    let (mut low, mut high) = (start + 1, limit.max(start + 1));
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if source.entries_before(SourceRow(middle)) - before <= CHUNK_ENTRIES {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

/// What a fold over all rows has found.
pub struct Done<O> {
    /// The answer.
    pub output: O,
    /// Columns of the rows.
    pub rows: RowColumns,
    /// Stored entries that were read.
    pub entries: u64,
    /// Whether rows were decoded from the store.
    pub decoded: bool,
}

/// Runs a fold over all rows on the threads of the installed pool. What `log` holds already is not done again.
pub fn run<F: Fold>(
    feed: Feed<'_>,
    recipe: &[Step],
    fold: &F,
    aside: &Aside<'_>,
    log: Option<&Log>,
    watch: &dyn Watch,
) -> Result<Done<F::Output>> {
    let all = part(feed, recipe, fold, aside, 0..cut(feed.source.shape().n_obs).len(), log, watch)?;
    Ok(Done { output: fold.finish(all.state), rows: all.rows, entries: all.entries, decoded: all.decoded })
}

/// Runs some of the tasks. Parts of 2^h tasks each, cut from the first task on, merge in their order by a [`Tree`] to the bits that
/// [`run`] finds: each part is a subtree of its tree.
pub fn part<F: Fold>(
    feed: Feed<'_>,
    recipe: &[Step],
    fold: &F,
    aside: &Aside<'_>,
    part: Range<usize>,
    log: Option<&Log>,
    watch: &dyn Watch,
) -> Result<TaskOutput<F::State>> {
    let n_obs = feed.source.shape().n_obs;
    let tasks = cut(n_obs);
    let mut tree = Tree::default();
    let mut rows = RowColumns::default();
    let (mut entries, mut decoded) = (0, false);
    let spare = Spare::<Scratch>::default();
    in_order(
        part.len(),
        2,
        |i| {
            let i = part.start + i;
            if let Some(done) = log.and_then(|log| log.get::<TaskOutput<F::State>>(i as u64)) {
                return Ok(TaskOutput { decoded: false, ..done });
            }
            // While this task's rows are decoded, the disk fetches those of the one that this thread will take next; at first, its own.
            let ahead = |task: usize| {
                let wanted = part.contains(&task) && feed.stage.is_none_or(|stage| stage.task(task).is_none());
                if let Some(rows) = tasks.get(task).filter(|_| wanted) {
                    feed.source.will_read(SourceRow(rows.start)..SourceRow(rows.end));
                }
            };
            let threads = rayon::current_num_threads();
            if i < part.start + threads {
                ahead(i);
            }
            ahead(i + threads);
            let rows = tasks[i].clone();
            let recipe = sliced(recipe, &rows);
            let batch = aside.batch.map(|b| &b[rows.start as usize..rows.end as usize]);
            let mut scratch = spare.take();
            let done = Task { recipe: &recipe, fold, rows, batch }.run(feed, &mut scratch)?;
            spare.give(scratch);
            if let Some(log) = log {
                log.put(i as u64, &done);
            }
            Ok(done)
        },
        |i, done| {
            tree.push(done.state, |a, b| fold.merge(a, b));
            rows.append(done.rows);
            entries += done.entries;
            decoded |= done.decoded;
            watch.tick(tasks[part.start + i].end, n_obs, "")
        },
    )?;
    let state = tree.finish(|a, b| fold.merge(a, b)).unwrap_or_else(|| fold.init());
    Ok(TaskOutput { state, rows, entries, decoded })
}

/// The recipe as one task needs it: masks and columns of its own rows alone.
pub fn sliced(recipe: &[Step], rows: &Range<u64>) -> Vec<Step> {
    recipe
        .iter()
        .map(|step| match step {
            Step::KeepObs { rows: Rows::Mask { keep, first } } => {
                let span = (rows.start - first) as usize..(rows.end - first) as usize;
                Step::KeepObs { rows: Rows::Mask { keep: keep[span].to_vec(), first: rows.start } }
            }
            Step::KeepObs { rows: Rows::Where { rule, qc, obs, first } } => {
                let span = (rows.start - first) as usize..(rows.end - first) as usize;
                let obs = obs.iter().map(|(n, c)| (n.clone(), c.slice(span.clone()))).collect();
                Step::KeepObs { rows: Rows::Where { rule: rule.clone(), qc: qc.clone(), obs, first: rows.start } }
            }
            other => other.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::Collect;
    use crate::pca::held::Held;
    use crate::stage::Allowance;

    /// 5,000 cells, two tasks; counts, or with `fractions` what are none.
    fn rows(fractions: bool) -> Csr {
        let mut x = Csr::empty(90);
        for i in 0..5000u32 {
            let columns: Vec<u32> = (0..90).filter(|j| (i * 31 + j * j * 17) % 7 < 3).collect();
            let values: Vec<f32> = columns.iter().map(|j| (i % 7 + j % 5 + 1) as f32 * if fractions { 0.25 } else { 1.0 }).collect();
            x.push_row(&columns, &values);
        }
        x
    }

    /// One stage serves passes whose filters differ; a row's totals and whether it holds counts are kept with it.
    #[test]
    fn filters_come_behind_an_unfiltered_stage() {
        for fractions in [false, true] {
            let source = Held(rows(fractions));
            let stage = Stage::new(2, &Allowance::new(1 << 30), None).unfiltered();
            for (pass, third) in [3, 5, 2].into_iter().enumerate() {
                let keep = (0..5000).map(|i| i % third != 0).collect();
                let recipe = [
                    Step::KeepObs { rows: Rows::Mask { keep, first: 0 } },
                    Step::NormalizeTotal { target_sum: 1e4 },
                    Step::Log1p { base: None },
                ];
                let fold = Collect::new(recipe.len(), 90);
                let take = |feed| run(feed, &recipe, &fold, &Aside::default(), None, &()).unwrap();
                let (staged, plain) = (take(Feed::new(&source, Some(&stage))), take(Feed::source(&source)));
                assert_eq!(staged.decoded, pass == 0);
                assert_eq!(staged.output, plain.output);
            }
        }
    }
}

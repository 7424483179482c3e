//! A task: a range of source rows, a recipe and a fold. What a thread is handed now is what a worker is handed later.

use std::ops::Range;
use std::sync::Mutex;

use cellmill_matrix::{Csr, Place, Result, Source, SourceRow, Watch};

use super::order::{Tree, in_order};
use crate::chunk::{Chunk, RowColumns};
use crate::fold::Fold;
use crate::recipe::{Rows, Step, apply};

/// Source rows of a task. Fixed: the tree of merging, and with it every bit of a result, follows from the number of rows alone.
pub const TASK_ROWS: u64 = 4096;

/// Entries of a chunk at most (or one row): 2²¹ entries are 16 MiB, which stay near the core and keep dense rows from filling memory.
const CHUNK_ENTRIES: u64 = 1 << 21;

/// Facts about rows that a recipe needs besides the matrix. Tasks get their own slice of them.
#[derive(Clone, Debug, Default)]
pub struct Aside<'a> {
    /// Batch of each source row: `(n_obs,)`.
    pub batch: Option<&'a [u32]>,
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
pub struct TaskOutput<S> {
    /// The state of its rows.
    pub state: S,
    /// Columns of its rows.
    pub rows: RowColumns,
    /// Stored entries that were read.
    pub entries: u64,
}

/// Cuts rows into tasks.
pub fn cut(n_obs: u64) -> Vec<Range<u64>> {
    (0..n_obs).step_by(TASK_ROWS as usize).map(|start| start..(start + TASK_ROWS).min(n_obs)).collect()
}

impl<F: Fold> Task<'_, F> {
    /// Reads the rows, chunk by chunk, and folds them. `buffer` keeps its memory from task to task.
    pub fn run(&self, source: &dyn Source, buffer: &mut Csr) -> Result<TaskOutput<F::State>> {
        let mut acc = self.fold.open();
        let mut rows = RowColumns::default();
        let mut entries = 0;
        let mut start = self.rows.start;
        while start < self.rows.end {
            let end = chunk_end(source, start, self.rows.end);
            let place = Place::store(source.location()).rows(start..end);
            source.read(SourceRow(start)..SourceRow(end), buffer)?;
            entries += buffer.nnz() as u64;
            let at = (start - self.rows.start) as usize;
            let batch = self.batch.map(|b| b[at..at + (end - start) as usize].to_vec());
            let mut chunk = Chunk::new(start..end, std::mem::take(buffer), batch);
            let mut step = 0;
            self.fold.accumulate(&mut acc, step, &mut chunk, &mut rows).map_err(|e| e.at(&place))?;
            while step < self.recipe.len() {
                // Steps may be fused as long as nobody looks at the rows between them.
                let alone = (step + 1..self.recipe.len()).find(|&s| self.fold.listens(s)).unwrap_or(self.recipe.len());
                step += apply(&self.recipe[step..alone], &mut chunk).map_err(|e| e.at(&place))?;
                self.fold.accumulate(&mut acc, step, &mut chunk, &mut rows).map_err(|e| e.at(&place))?;
            }
            *buffer = chunk.x;
            start = end;
        }
        Ok(TaskOutput { state: self.fold.close(acc), rows, entries })
    }
}

/// The row after the last that fits one chunk together with `start`; at least one row.
fn chunk_end(source: &dyn Source, start: u64, limit: u64) -> u64 {
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

/// Runs a fold over all rows of a source on the threads of the installed pool.
pub fn run<F: Fold>(
    source: &dyn Source,
    recipe: &[Step],
    fold: &F,
    aside: &Aside<'_>,
    watch: &dyn Watch,
) -> Result<(F::Output, RowColumns, u64)>
where
    F::State: Send,
{
    let tasks = cut(source.shape().n_obs);
    let mut tree = Tree::default();
    let mut rows = RowColumns::default();
    let mut entries = 0;
    let n_obs = source.shape().n_obs;
    let buffers = Mutex::new(Vec::new());
    in_order(
        tasks.len(),
        2,
        |i| {
            let rows = tasks[i].clone();
            let recipe = sliced(recipe, &rows);
            let batch = aside.batch.map(|b| &b[rows.start as usize..rows.end as usize]);
            let mut buffer = buffers.lock().map_or_else(|_| Csr::default(), |mut b| b.pop().unwrap_or_default());
            let done = Task { recipe: &recipe, fold, rows, batch }.run(source, &mut buffer);
            if let Ok(mut buffers) = buffers.lock() {
                buffers.push(buffer);
            }
            done
        },
        |i, done| {
            tree.push(done.state, |a, b| fold.merge(a, b));
            rows.append(done.rows);
            entries += done.entries;
            watch.tick(tasks[i].end, n_obs, "")
        },
    )?;
    let state = tree.finish(|a, b| fold.merge(a, b)).unwrap_or_else(|| fold.init());
    Ok((fold.finish(state), rows, entries))
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

//! Exact principal components of the highly variable genes: one pass for the Gram matrix, an eigensolver on the covariance, and a
//! projection from the rows that were kept on the way. Where genes are too many for a covariance, the eigensolver asks the rows.

pub mod ahead;
mod arriving;
pub mod csr;
mod gpu;
#[cfg(test)]
pub(crate) mod held;
mod part;
mod route;
mod wide;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cellmill_cuda::{Buffer, Processor};
use cellmill_kernels::gram::{BLOCK, Gram, MAX_COLUMNS, Work};
use cellmill_matrix::{Csr, Error, Result, Watch};
use serde::{Deserialize, Serialize};

use self::gpu::Covariance;
pub use self::gpu::prepare;
pub(crate) use self::gpu::{Laid, MOST_ENTRIES, again, lay, most_entries, turn};
use crate::chunk::Chunk;
use crate::exec::{Feed, Scratch, Spare, TASK_ROWS, Task, cut, in_order, sliced};
use crate::fold::{Collect, Collected};
use crate::host::eigen::{few, top_eigenpairs};
use crate::journal::Journal;
use crate::recipe::{Step, apply_all};
use crate::stage::Stage;
pub use part::{Crew, Part, Products, Sums, products, scores, scores_on};

/// Principal components.
#[derive(Clone, Debug)]
pub struct Pca {
    /// Scores (x − mean)·V, or x·V of values that are not centred: `(n_obs, n_comps)` row-major f32; empty where they [stay](Rows::stay),
    /// or where the crew leaves them somewhere else.
    pub scores: Vec<f32>,
    /// Loadings V: `(n_genes, n_comps)` row-major, orthonormal columns; in each the entry of largest magnitude is positive.
    pub components: Vec<f64>,
    /// Variance of each component's scores: `(n_comps,)`. Of centred values ddof 1, descending; else ddof 0, as in scikit-learn's
    /// `TruncatedSVD`.
    pub variance: Vec<f64>,
    /// Share of the total variance: `(n_comps,)`.
    pub variance_ratio: Vec<f64>,
    /// Entries of the chosen columns that were multiplied.
    pub nnz: u64,
    /// Passes in which rows were decoded from the store.
    pub source_reads: u32,
}

/// What the solver must know beforehand, from the moments of the first read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Columns {
    /// Share of the kept rows in which each chosen column is not zero: `(p,)`.
    pub detection: Vec<f32>,
    /// At least each column's sum of squares after the recipe, over all kept rows.
    pub bound: f64,
    /// No value of a column is larger in magnitude after the recipe, where that is known: `(p,)`. A GPU needs it.
    pub largest: Option<Vec<f32>>,
    /// Whether means are taken away.
    pub centred: bool,
}

/// The rows of an analysis: where they come from and what happens to them.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Where they come from.
    pub feed: Feed<'a>,
    /// Ends with the chosen columns.
    pub select: &'a [Step],
    /// Chosen columns.
    pub n_genes: usize,
    /// After it they enter the analysis. A base row that it leaves out changes no covariance.
    pub transform: &'a [Step],
    /// Whether `feed.stage` may forget what nobody will ask for again.
    pub last: bool,
    /// Who reads them, if it is not this process: the pass for a covariance, and the projection.
    pub crew: Option<&'a dyn Crew>,
    /// Where the scores stay, if one GPU finds them: there, and not on the host.
    pub stay: Option<&'a OnceLock<Buffer<f32>>>,
}

/// What one pass over all rows finds: enough to project them.
#[derive(Serialize, Deserialize)]
pub struct Fit {
    /// What is taken from each chosen column, its mean or 0: `(p,)`.
    centre: Vec<f64>,
    components: Vec<f64>,
    variance: Vec<f64>,
    variance_ratio: Vec<f64>,
    n_obs: u64,
    nnz: u64,
    /// Whether a GPU read the rows: then one projects them, and `selected` holds none.
    on_gpu: bool,
}

/// A block of the Gram matrix is the kept rows of this many tasks: a cut by source rows alone.
pub const TASKS_A_BLOCK: usize = BLOCK / TASK_ROWS as usize;

/// A pass that was stopped.
#[derive(Serialize, Deserialize)]
struct Half {
    gram: Gram,
    nnz: u64,
    /// Tasks that are in.
    tasks: usize,
}

/// Names of the notes in a journal.
const HALF: &str = "covariance";
const FIT: &str = "components";
const SCORES: &str = "scores";

/// Keeps the scores of [`pca`] in a journal, for the next call: a caller can do other work while this is written.
pub fn keep_scores(journal: &Journal, scores: &[f32]) {
    journal.save(SCORES, &scores);
}

/// Time between two notes of the Gram matrix, in units of the time that the last one took: keeping them costs 3 % at most.
const RARELY: u32 = 32;

/// Takes `n_comps` components of the rows. Chosen columns are packed into `selected` on the way, for the projection. `watch` hears of
/// source rows in the pass and of tasks in the projection.
pub fn pca(
    rows: Rows<'_>,
    columns: &Columns,
    n_comps: usize,
    selected: &Stage,
    journal: Option<&Journal>,
    processor: &Processor,
    watch: &dyn Watch,
) -> Result<Pca> {
    let (first, second) = (AtomicBool::new(false), AtomicBool::new(false));
    let memory = Memory::default();
    let fit = match journal.and_then(|j| j.load::<Fit>(FIT)) {
        Some(fit) => fit,
        None => {
            let rows = Pass { rows, decoded: &first, memory: &memory };
            let fit = fit(rows, columns, n_comps, selected, journal, processor, watch)?;
            if let Some(journal) = journal {
                journal.save(FIT, &fit);
                journal.forget(HALF);
            }
            fit
        }
    };
    let scores = match (journal.and_then(|j| j.load::<Vec<f32>>(SCORES)), rows.crew) {
        (Some(scores), _) => Some(scores),
        (None, Some(crew)) => crew.scores(&rows, &fit, watch)?,
        (None, None) => Some(all_scores(Pass { rows, decoded: &second, memory: &memory }, selected, &fit, processor, watch)?),
    };
    let stayed = scores.is_none() || rows.stay.is_some_and(|stay| stay.get().is_some());
    let scores = scores.unwrap_or_default();
    if scores.len() != fit.n_scores() && !stayed {
        return Err(Error::bug("other rows in the projection than in the covariance"));
    }
    let Fit { components, variance, variance_ratio, nnz, .. } = fit;
    let source_reads = [first, second].into_iter().map(|d| u32::from(d.into_inner())).sum();
    Ok(Pca { scores, components, variance, variance_ratio, nnz, source_reads })
}

/// The rows in one pass, and whether any of them was decoded from the store.
#[derive(Clone, Copy)]
struct Pass<'a> {
    rows: Rows<'a>,
    decoded: &'a AtomicBool,
    memory: &'a Memory,
}

/// Memory that goes from task to task.
#[derive(Default)]
struct Memory {
    tasks: Spare<Scratch>,
    rows: Arc<Spare<Csr>>,
    packed: Spare<Vec<u8>>,
    /// Room for all scores.
    scores: Spare<Vec<f32>>,
}

/// Nanoseconds of an entry that is unpacked, transformed and multiplied by a block of vectors, against those of one of the covariance.
const ENTRY: f64 = 10.0;

/// Whether the eigensolver asks the rows instead of a covariance: where that has no room, or where all rows are read in less time than the
/// covariance. Decided by the data alone, so that neither threads nor memory change a bit.
pub fn by_rows(columns: &Columns, n_rows: u64, n_comps: usize) -> bool {
    let p = columns.detection.len();
    let entries = columns.detection.iter().map(|&d| f64::from(d)).sum::<f64>() * n_rows as f64;
    p > MAX_COLUMNS || (p > 1000 && few(n_comps, p) && entries * ENTRY < (p * p) as f64)
}

fn fit(
    rows: Pass<'_>,
    columns: &Columns,
    n_comps: usize,
    selected: &Stage,
    journal: Option<&Journal>,
    processor: &Processor,
    watch: &dyn Watch,
) -> Result<Fit> {
    let p = columns.detection.len();
    if by_rows(columns, rows.rows.feed.source.shape().n_obs, n_comps) {
        return wide::fit(rows, columns, n_comps, selected, watch);
    }
    let elsewhere = match rows.rows.crew {
        Some(crew) => {
            let products = crew.products(&rows.rows, columns, watch)?;
            rows.decoded.fetch_or(products.decoded, Ordering::Relaxed);
            let of_gpus = matches!(products.sums, Sums::Gpu(_));
            let found = products.found()?;
            // What others' GPUs have summed goes on as what one's own has.
            Some(match processor.device().filter(|_| of_gpus) {
                Some(device) => gpu::Found { covariance: found.covariance.onto(device)?, ..found },
                None => found,
            })
        }
        None => gpu::covariance(processor.devices(), rows, columns, selected, watch)?,
    };
    let gpu::Found { covariance, sums, n_obs, nnz } = match elsewhere {
        Some(found) => found,
        None => {
            let half = match journal.and_then(|j| j.load::<Half>(HALF)) {
                Some(half) => half,
                None => Half { gram: Gram::new(&columns.detection, columns.bound)?, nnz: 0, tasks: 0 },
            };
            let end = cut(rows.rows.feed.source.shape().n_obs).len();
            let Half { gram, nnz, .. } = covariance_pass(rows, half, end, selected, journal, watch)?;
            gpu::Found { covariance: Covariance::Host(gram.covariance()?), sums: gram.sums(), n_obs: gram.n_rows(), nnz }
        }
    };
    let most = (n_obs as usize).min(p).saturating_sub(1);
    if n_comps == 0 || n_comps > most {
        return Err(Error::option("n_comps", n_comps, format!("{n_obs} cells and {p} genes allow 1 to {most}")));
    }
    let mean: Vec<f64> = sums.iter().map(|s| s / n_obs as f64).collect();
    let on_gpu = matches!(covariance, Covariance::Device(..));
    let covariance = match columns.centred {
        // While a GPU looks for them, all threads make the pages of the scores: the one that copies scores into them would take as long.
        true if on_gpu && rows.rows.crew.is_none() && rows.rows.stay.is_none() => {
            let pages = || rows.memory.scores.give(arriving::pages(n_obs as usize * n_comps));
            rayon::join(|| gpu::eigenpairs(covariance, p, n_comps), pages).0?
        }
        true => gpu::eigenpairs(covariance, p, n_comps)?,
        false => Err(covariance),
    };
    let (total, pairs) = match covariance {
        Ok(found) => found,
        Err(covariance) => {
            let mut covariance = covariance.into_host()?;
            let total = (0..p).map(|j| covariance[j * p + j]).sum();
            if !columns.centred {
                let weight = n_obs as f64 / (n_obs as f64 - 1.0);
                for (row, m) in covariance.chunks_exact_mut(p).zip(&mean) {
                    row.iter_mut().zip(&mean).for_each(|(c, other)| *c += weight * m * other);
                }
            }
            (total, top_eigenpairs(&covariance, p, n_comps, watch)?)
        }
    };
    Ok(Fit { on_gpu, ..Fit::new(pairs, mean, total, columns.centred, n_obs, nnz) })
}

impl Fit {
    /// Components.
    pub fn n_comps(&self) -> usize {
        self.variance.len()
    }

    /// Cells.
    pub fn n_obs(&self) -> u64 {
        self.n_obs
    }

    /// Numbers that the projection has: cells times components.
    pub fn n_scores(&self) -> usize {
        self.n_obs as usize * self.n_comps()
    }

    /// −centre·V, which every score gets: `(n_comps,)`.
    fn shift(&self) -> Vec<f64> {
        let k = self.variance.len();
        let mut shift = vec![0f64; k];
        for (row, m) in self.components.chunks_exact(k).zip(&self.centre) {
            shift.iter_mut().zip(row).for_each(|(s, v)| *s -= m * v);
        }
        shift
    }

    /// From eigenvalues and eigenvectors of the covariance, or, of values that are not centred, of Σ x x' / (n − 1). `total`: the variance
    /// of all columns, ddof 1.
    fn new((values, components): (Vec<f64>, Vec<f64>), mean: Vec<f64>, total: f64, centred: bool, n_obs: u64, nnz: u64) -> Fit {
        let (n, k) = (n_obs as f64, values.len());
        let variance_ratio = |variance: &[f64]| variance.iter().map(|v| v / total).collect();
        if centred {
            return Fit { variance_ratio: variance_ratio(&values), variance: values, centre: mean, components, n_obs, nnz, on_gpu: false };
        }
        // v' C v = λ − n / (n − 1) (μ·v)².
        let mut along = vec![0.0; k];
        for (row, m) in components.chunks_exact(k).zip(&mean) {
            along.iter_mut().zip(row).for_each(|(a, v)| *a += m * v);
        }
        let mut variance: Vec<f64> = values.iter().zip(&along).map(|(value, a)| (value - n / (n - 1.0) * a * a).max(0.0)).collect();
        let variance_ratio = variance_ratio(&variance);
        variance.iter_mut().for_each(|v| *v *= (n - 1.0) / n);
        Fit { centre: vec![0.0; mean.len()], components, variance, variance_ratio, n_obs, nnz, on_gpu: false }
    }
}

/// Adds the tasks that `half` lacks of those before `end`.
fn covariance_pass(
    pass: Pass<'_>,
    mut half: Half,
    end: usize,
    selected: &Stage,
    journal: Option<&Journal>,
    watch: &dyn Watch,
) -> Result<Half> {
    let rows = pass.rows;
    let n_source = rows.feed.source.shape().n_obs;
    let tasks = cut(n_source);
    let first = half.tasks;
    let mut work = Work::default();
    let mut waiting: Vec<Csr> = Vec::new();
    let mut noted = Instant::now();
    let mut cost = Duration::from_millis(100);
    in_order(
        end - first,
        1,
        |i| {
            let mut chunk = pass.selected(&tasks[first + i])?;
            pass.keep(selected, first + i, &chunk);
            apply_all(rows.transform, &mut chunk)?;
            Ok(chunk.x)
        },
        |i, x| {
            let i = first + i;
            half.nnz += x.nnz() as u64;
            waiting.push(x);
            if waiting.len() == TASKS_A_BLOCK || i + 1 == end {
                half.gram.add(&waiting.iter().collect::<Vec<_>>(), &mut work)?;
                waiting.drain(..).for_each(|x| pass.memory.rows.give(x));
                half.tasks = i + 1;
                if let Some(journal) = journal
                    && noted.elapsed() > cost * RARELY
                {
                    noted = Instant::now();
                    journal.save(HALF, &half);
                    cost = noted.elapsed();
                }
            }
            watch.tick(tasks[i].end, n_source, "")
        },
    )?;
    Ok(half)
}

impl Pass<'_> {
    /// Chosen columns of a task's rows, before `transform`.
    fn selected(&self, span: &Range<u64>) -> Result<Chunk> {
        let select = sliced(self.rows.select, span);
        let fold = Collect { spare: self.memory.rows.clone(), ..Collect::new(select.len(), self.rows.n_genes) };
        let task = Task { recipe: &select, fold: &fold, rows: span.clone(), batch: None };
        let mut scratch = self.memory.tasks.take();
        let done = task.run(self.rows.feed, &mut scratch)?;
        self.memory.tasks.give(scratch);
        self.decoded.fetch_or(done.decoded, Ordering::Relaxed);
        let Collected { mut x, normalizer } = done.state;
        // Several wait for their turn: what growing left over is given back.
        if x.indices.capacity() > x.nnz() + x.nnz() / 4 {
            x.indices.shrink_to_fit();
            x.data.shrink_to_fit();
        }
        let mut chunk = Chunk::new(0..x.n_rows() as u64, x, None);
        chunk.normalizer = normalizer;
        Ok(chunk)
    }

    /// Packs the chosen columns of a task; nobody asks for the others then.
    fn keep(&self, selected: &Stage, task: usize, chunk: &Chunk) {
        let mut packed = self.memory.packed.take();
        let piece = selected.pack(chunk, &mut packed);
        self.memory.packed.give(packed);
        if let Some(piece) = piece {
            selected.keep(task, vec![piece]);
            if let Some(stage) = self.rows.feed.stage.filter(|_| self.rows.last) {
                stage.forget(task);
            }
        }
    }

    /// Chosen columns of a task's rows as they enter the analysis: from what was selected, or else from the feed.
    fn transformed(&self, selected: &Stage, task: usize, span: &Range<u64>) -> Result<Chunk> {
        let mut chunk = match selected.task(task) {
            Some(pieces) if pieces.len() == 1 => pieces[0].chunk(self.memory.rows.take())?,
            _ => self.selected(span)?,
        };
        apply_all(self.rows.transform, &mut chunk)?;
        Ok(chunk)
    }
}

/// Scores of all rows, on the devices where they have room.
fn all_scores(pass: Pass<'_>, selected: &Stage, fit: &Fit, processor: &Processor, watch: &dyn Watch) -> Result<Vec<f32>> {
    let all = Part { tasks: 0..cut(pass.rows.feed.source.shape().n_obs).len(), shared: false };
    if fit.on_gpu
        && let Some(scores) = gpu::scores(processor.devices(), pass, (&all, fit.n_obs as usize), selected, fit, watch)?
    {
        if let Some(stage) = pass.rows.feed.stage {
            stage.leave_devices();
        }
        return Ok(scores);
    }
    part::project(pass, &all, selected, fit, watch)
}

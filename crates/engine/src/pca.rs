//! Exact principal components of the highly variable genes: one pass for the Gram matrix, an eigensolver on the covariance, and a
//! projection from the rows that were kept on the way.

use cellmill_kernels::gram::{BLOCK, Gram, Work};
use cellmill_kernels::project::Projection;
use cellmill_matrix::{Csr, Error, Result, Source, Watch};

use crate::chunk::Chunk;
use crate::exec::{TASK_ROWS, Task, cut, in_order, sliced};
use crate::fold::{Collect, Collected};
use crate::host::eigen::top_eigenpairs;
use crate::recipe::{Step, apply_all};
use crate::stage::{Block, Stage};

/// Principal components.
#[derive(Clone, Debug)]
pub struct Pca {
    /// Scores (x − mean)·V: `(n_obs, n_comps)` row-major f32.
    pub scores: Vec<f32>,
    /// Loadings V: `(n_genes, n_comps)` row-major, orthonormal columns; in each the entry of largest magnitude is positive.
    pub components: Vec<f64>,
    /// Variance of each component, ddof 1, descending: `(n_comps,)`.
    pub variance: Vec<f64>,
    /// Share of the total variance: `(n_comps,)`.
    pub variance_ratio: Vec<f64>,
    /// Entries of the chosen columns that were multiplied.
    pub nnz: u64,
}

/// What the solver must know beforehand, from the moments of the first read.
#[derive(Clone, Debug)]
pub struct Columns {
    /// Share of the kept rows in which each chosen column is not zero: `(p,)`.
    pub detection: Vec<f32>,
    /// At least each column's sum of squares after the recipe, over all kept rows.
    pub bound: f64,
}

/// Reads the rows through `select`, which ends with the chosen columns, then `transform`, after which they enter the analysis (a base
/// row that it leaves out changes no covariance), and takes `n_comps` components. `watch` hears of source rows in the pass and of blocks
/// in the projection.
pub fn pca(source: &dyn Source, select: &[Step], transform: &[Step], columns: &Columns, n_comps: usize, watch: &dyn Watch) -> Result<Pca> {
    let p = columns.detection.len();
    let n_source = source.shape().n_obs;
    let tasks = cut(n_source);
    let mut gram = Gram::new(&columns.detection, columns.bound)?;
    let mut work = Work::default();
    let mut stage = Stage::default();
    let mut nnz = 0u64;
    let mut waiting: Vec<Csr> = Vec::new();
    // A block of the Gram matrix is the kept rows of this many tasks: a cut by source rows alone.
    let tasks_a_block = BLOCK / TASK_ROWS as usize;
    in_order(
        tasks.len(),
        2,
        |i| {
            let select = sliced(select, &tasks[i]);
            let fold = Collect { step: select.len(), n_cols: p };
            let task = Task { recipe: &select, fold: &fold, rows: tasks[i].clone(), batch: None };
            let Collected { x, normalizer } = task.run(source, &mut Csr::default())?.state;
            let mut chunk = Chunk::new(tasks[i].clone(), x, None);
            chunk.normalizer = normalizer;
            let block = Block::of(&chunk, &mut Vec::new());
            apply_all(transform, &mut chunk)?;
            Ok((block, chunk.x))
        },
        |i, (block, rows)| {
            nnz += rows.nnz() as u64;
            stage.push(block);
            waiting.push(rows);
            if waiting.len() == tasks_a_block || i + 1 == tasks.len() {
                gram.add(&waiting.iter().collect::<Vec<_>>(), &mut work)?;
                waiting.clear();
            }
            watch.tick(tasks[i].end, n_source, "")
        },
    )?;
    drop(work);
    let n_obs = gram.n_rows();
    let most = (n_obs as usize).min(p).saturating_sub(1);
    if n_comps == 0 || n_comps > most {
        return Err(Error::option("n_comps", n_comps, format!("{n_obs} cells and {p} genes allow 1 to {most}")));
    }
    let covariance = gram.covariance()?;
    let mean: Vec<f64> = gram.sums().iter().map(|s| s / n_obs as f64).collect();
    drop(gram);
    let total: f64 = (0..p).map(|j| covariance[j * p + j]).sum();
    let (variance, components) = top_eigenpairs(&covariance, p, n_comps, watch)?;
    drop(covariance);
    let variance_ratio = variance.iter().map(|v| v / total).collect();
    let scores = scores(&stage, transform, &components, &mean, n_comps, n_obs as usize, watch)?;
    Ok(Pca { scores, components, variance, variance_ratio, nnz })
}

/// X V − mean·V, block by block of the stage.
fn scores(
    stage: &Stage,
    transform: &[Step],
    components: &[f64],
    mean: &[f64],
    k: usize,
    n_obs: usize,
    watch: &dyn Watch,
) -> Result<Vec<f32>> {
    let mut shift = vec![0f64; k];
    for (row, m) in components.chunks_exact(k).zip(mean) {
        shift.iter_mut().zip(row).for_each(|(s, v)| *s -= m * v);
    }
    let projection = Projection::new(components, mean.len(), &shift)?;
    let mut scores = vec![0f32; n_obs * k];
    let mut rest = &mut scores[..];
    let blocks = stage.blocks();
    in_order(
        blocks.len(),
        2,
        |i| {
            let mut chunk = blocks[i].chunk(Csr::default())?;
            apply_all(transform, &mut chunk)?;
            let mut out = vec![0f32; blocks[i].n_rows() * k];
            projection.scores(&chunk.x, &mut out)?;
            Ok(out)
        },
        |i, block| {
            let (mine, later) = std::mem::take(&mut rest).split_at_mut(block.len());
            mine.copy_from_slice(&block);
            rest = later;
            watch.tick(i as u64 + 1, blocks.len() as u64, "projection")
        },
    )?;
    Ok(scores)
}

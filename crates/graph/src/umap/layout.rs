//! The optimiser: every cell moves by its own pulls and pushes, a sixteenth of the cells at a time.
//!
//! umap-learn walks through the edges and moves both ends; here each cell owns its move and reads the others where they were when its
//! block began, so that the layout does not depend on the number of threads. Blocks follow one another (Gauss-Seidel), and cells that
//! stand next to each other in the order of the graph are in different blocks.

use cellmill_cuda::Processor;
use cellmill_matrix::{Result, Watch};
use rayon::prelude::*;

use super::cuda::{self, Edges};
use super::force::{self, Forces, Job, Task};
use super::lanes::Point;
use super::random::{self, Use};
use crate::Connectivities;

/// Blocks that move one after the other.
const N_BLOCKS: usize = 16;
/// Cells that one task moves.
const CELLS: usize = 1 << 9;
/// A cell meets at most this many of its neighbours in an epoch; a hub takes turns.
const MOST: usize = 1 << 9;
/// Up to this many cells, those that push are drawn from all.
const DIRECT: usize = 1 << 18;
/// Beyond, they are drawn from a fresh sample of so many for each block and epoch, which stays in the cache (256 KiB).
const POOL: usize = 1 << 15;
/// Bits of a rate's fraction.
const FRACTION: u32 = 31;

/// What the optimiser needs to know besides the graph.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub a: f32,
    pub b: f32,
    pub gamma: f32,
    pub alpha: f32,
    pub negative_sample_rate: usize,
    pub n_epochs: usize,
    pub seed: u64,
    /// Edges below this weight do not count.
    pub least: f32,
    /// The largest weight.
    pub most: f32,
}

impl Plan {
    fn on_gpu(&self, pool: usize) -> cuda::Plan {
        let Plan { a, b, gamma, alpha, negative_sample_rate, n_epochs, seed, .. } = *self;
        cuda::Plan { a, b, gamma, alpha, negative_sample_rate, n_epochs, seed, pool }
    }
}

/// The graph with its cells renumbered block by block.
pub(super) struct Blocks {
    /// First cell of each block: `(N_BLOCKS + 1,)`.
    starts: Vec<usize>,
    /// The cell's number in the graph: `(n,)`.
    old: Vec<u32>,
    /// Row starts: `(n + 1,)`.
    indptr: Vec<u64>,
    /// Neighbours: `(nnz,)`.
    targets: Vec<u32>,
    /// How often an edge attracts, in 2⁻³¹ an epoch: weight over largest weight. `(nnz,)`.
    rates: Vec<u32>,
}

impl Blocks {
    pub fn new(graph: &Connectivities, plan: &Plan) -> Self {
        let n = graph.n();
        // Of each 16 cells in a row one goes to each block, in random order.
        let mut block = vec![0u8; n];
        block.par_chunks_mut(N_BLOCKS).enumerate().for_each(|(g, group)| {
            let mut order: [u8; N_BLOCKS] = std::array::from_fn(|b| b as u8);
            for k in (1..N_BLOCKS).rev() {
                order.swap(k, (random::bits(plan.seed, Use::Blocks, g as u64, k as u64) % (k as u64 + 1)) as usize);
            }
            group.copy_from_slice(&order[..group.len()]);
        });
        let mut starts = vec![0; N_BLOCKS + 1];
        block.iter().for_each(|&b| starts[b as usize + 1] += 1);
        (0..N_BLOCKS).for_each(|b| starts[b + 1] += starts[b]);
        let (mut next, mut old, mut new) = (starts.clone(), vec![0u32; n], vec![0u32; n]);
        for (i, &b) in block.iter().enumerate() {
            old[next[b as usize]] = i as u32;
            new[i] = next[b as usize] as u32;
            next[b as usize] += 1;
        }
        drop(block);

        let mut indptr = vec![0u64; n + 1];
        indptr[1..].par_iter_mut().zip(&old).with_min_len(1 << 12).for_each(|(length, &i)| {
            *length = graph.row(i as usize).1.iter().filter(|&&w| w >= plan.least).count() as u64;
        });
        (0..n).for_each(|i| indptr[i + 1] += indptr[i]);
        let nnz = indptr[n] as usize;
        let (mut targets, mut rates) = (vec![0u32; nnz], vec![0u32; nnz]);
        // Cuts the edges at every 4096th row.
        let mut pieces = Vec::new();
        let (mut rest, mut rest_rates) = (&mut targets[..], &mut rates[..]);
        for first in (0..n).step_by(1 << 12) {
            let last = n.min(first + (1 << 12));
            let length = (indptr[last] - indptr[first]) as usize;
            let (piece, after) = rest.split_at_mut(length);
            let (piece_rates, after_rates) = rest_rates.split_at_mut(length);
            pieces.push((&old[first..last], piece, piece_rates));
            (rest, rest_rates) = (after, after_rates);
        }
        let unit = f64::from(1u32 << FRACTION);
        pieces.into_par_iter().for_each(|(cells, targets, rates)| {
            let mut slots = targets.iter_mut().zip(rates);
            for &i in cells {
                let (indices, weights) = graph.row(i as usize);
                let kept = indices.iter().zip(weights).filter(|edge| *edge.1 >= plan.least);
                for ((&j, &w), (target, rate)) in kept.zip(&mut slots) {
                    *target = new[j as usize];
                    *rate = (f64::from(w) / f64::from(plan.most) * unit) as u32;
                }
            }
        });
        Blocks { starts, old, indptr, targets, rates }
    }
}

impl Blocks {
    /// Points of the blocks' cells, `(n,)`, as the graph numbers them.
    fn in_graph_order<const S: usize>(&self, points: &[[f32; S]]) -> Vec<[f32; S]> {
        let mut result = vec![[0.0; S]; points.len()];
        self.old.iter().zip(points).for_each(|(&i, point)| result[i as usize] = *point);
        result
    }
}

/// Optimises the row-major `(n, S)` start: unused coordinates are 0 and stay 0.
pub(super) fn optimise<const S: usize>(
    blocks: &Blocks,
    plan: &Plan,
    start: Vec<[f32; S]>,
    epochs: std::ops::Range<usize>,
    processor: &Processor,
    watch: &dyn Watch,
) -> Result<Vec<[f32; S]>>
where
    [f32; S]: Point<S>,
{
    let n = blocks.old.len();
    let mut points: Vec<[f32; S]> = blocks.old.iter().map(|&i| start[i as usize]).collect();
    drop(start);
    if let Some(device) = processor.device().filter(|_| S <= cuda::MOST) {
        let Blocks { starts, indptr, targets, rates, .. } = blocks;
        let pool = if n > DIRECT { POOL } else { 0 };
        let edges = Edges { starts, indptr, targets, rates };
        if cuda::optimise(device, &edges, &plan.on_gpu(pool), &mut points, epochs.clone(), watch)? {
            return Ok(blocks.in_graph_order(&points));
        }
    }
    let longest = blocks.starts.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
    let mut moved = vec![[0.0; S]; longest];
    let mut pool: Vec<[f32; S]> = Vec::new();
    for epoch in epochs {
        watch.tick(epoch as u64, plan.n_epochs as u64, "")?;
        // umap-learn lowers alpha after each epoch, from the first one on.
        let alpha = plan.alpha * (1.0 - epoch.saturating_sub(1) as f32 / plan.n_epochs as f32);
        let forces = Forces { a: plan.a, b: plan.b, gamma: plan.gamma, alpha, negative_sample_rate: plan.negative_sample_rate };
        for (b, range) in blocks.starts.windows(2).map(|w| w[0]..w[1]).enumerate() {
            if n > DIRECT {
                let draw = |i: usize| {
                    let bits = random::bits(plan.seed, Use::Pool, (epoch * N_BLOCKS + b) as u64, i as u64);
                    points[((u128::from(bits) * n as u128) >> 64) as usize]
                };
                (0..POOL).into_par_iter().with_min_len(1 << 12).map(draw).collect_into_vec(&mut pool);
            }
            let moved = &mut moved[..range.len()];
            let shared = Shared { blocks, plan, forces, epoch, points: &points, pool: if n > DIRECT { &pool } else { &points } };
            moved.par_chunks_mut(CELLS).enumerate().for_each_init(
                || (Vec::new(), Vec::new()),
                |(jobs, targets), (chunk, moved)| shared.advance(range.start + chunk * CELLS, moved, jobs, targets),
            );
            points[range].copy_from_slice(moved);
        }
    }
    Ok(blocks.in_graph_order(&points))
}

/// The state in which a block moves.
struct Shared<'a, const S: usize> {
    blocks: &'a Blocks,
    plan: &'a Plan,
    forces: Forces,
    epoch: usize,
    points: &'a [[f32; S]],
    pool: &'a [[f32; S]],
}

impl<const S: usize> Shared<'_, S>
where
    [f32; S]: Point<S>,
{
    /// Moves the cells `first..first + moved.len()`.
    fn advance(&self, first: usize, moved: &mut [[f32; S]], jobs: &mut Vec<Job>, targets: &mut Vec<u32>) {
        jobs.clear();
        targets.clear();
        moved.copy_from_slice(&self.points[first..first + moved.len()]);
        for slot in 0..moved.len() {
            let cell = first + slot;
            let start = targets.len();
            self.attracting(cell, targets);
            if targets.len() > start {
                let key = random::bits(self.plan.seed, Use::Negatives, cell as u64, self.epoch as u64) as u32;
                jobs.push(Job { cell: cell as u32, start: start as u32, end: targets.len() as u32, key, slot: slot as u32 });
            }
        }
        let pool_is_all = self.pool.len() == self.points.len();
        force::run(&Task { forces: self.forces, frozen: self.points, pool: self.pool, pool_is_all, jobs, targets }, moved);
    }

    /// Appends the neighbours that attract `cell` in this epoch. An edge with rate r attracts when `floor(epoch · r)` has grown, that
    /// is when the fraction of `epoch · r` is below r: umap-learn's schedule without its state.
    fn attracting(&self, cell: usize, targets: &mut Vec<u32>) {
        let span = self.blocks.indptr[cell] as usize..self.blocks.indptr[cell + 1] as usize;
        let start = targets.len();
        let mut end = start;
        targets.resize(start + span.len(), 0);
        for (&target, &rate) in self.blocks.targets[span.clone()].iter().zip(&self.blocks.rates[span]) {
            targets[end] = target;
            end += usize::from((rate.wrapping_mul(self.epoch as u32) & ((1 << FRACTION) - 1)) < rate);
        }
        targets.truncate(end);
        let count = end - start;
        if count > MOST {
            let turns = count.div_ceil(MOST);
            let turn = random::bits(self.plan.seed, Use::Pool, u64::MAX - cell as u64, self.epoch as u64) as usize % turns;
            let kept = (count - turn).div_ceil(turns);
            for k in 0..kept {
                targets[start + k] = targets[start + turn + k * turns];
            }
            targets.truncate(start + kept);
        }
    }
}

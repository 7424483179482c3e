//! The Gram matrix of sparse rows, and from it the covariance of the columns.
//!
//! `G = X'X`, the column sums `s` and the number of rows `n` over blocks of rows. A block is summed in f32 (fused
//! multiply-add, short chains) and then folded into 64-bit fixed point, where addition is exact: blocks may come in any order, on any thread
//! or worker, and the totals have the same bits.
//!
//! Columns are ranked by detection. A panel of `WIDTH` neighbouring columns is made dense for a slab of rows, which fits in a core's
//! second-level cache; every column of a higher rank (a sparser one) then adds its few rows of that panel, with the sums in registers.
//! So the work is `sum over pairs of min(detection)`: nobody multiplies the zeros of the sparser column.

pub mod cuda;
mod fixed;
mod panel;
mod slab;
mod totals;

use std::sync::{Mutex, PoisonError};

use cellmill_matrix::{Csr, Error, Place, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use panel::{Instructions, Scratch, WIDTH};
use slab::{SLAB, Slab};
pub use totals::Totals;

/// Most rows of one block. Larger blocks are folded less often (a fold moves 16 bytes a pair of columns), smaller ones need less
/// working memory.
pub const BLOCK: usize = 16_384;

/// Most columns: their totals take 1 GiB, their covariance 2 GiB.
pub const MAX_COLUMNS: usize = 16_384;

/// Totals stay below `2^LIMIT_BITS`, so that no i64 overflows.
const LIMIT_BITS: i32 = 62;

/// A task is at most this share of a block's work, so that many threads end together.
const SHARES: f64 = 48.0;

/// Sums of products of `p` columns over all rows added so far: exact totals of the blocks' sums, so `merge` is associative and
/// commutative to the bit and a new `Gram` is its identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gram {
    /// Rank of each column, 0 for the one detected in most rows: `(p,)`.
    rank: Vec<u32>,
    /// Share of the rows with each rank's column, for cutting the work: `(p,)`, never increasing.
    detection: Vec<f32>,
    /// Products are kept as integers of 2^-scale.
    scale: i32,
    /// Column sums are kept as integers of 2^-sum_scale.
    sum_scale: i32,
    /// Rows added.
    n_rows: u64,
    /// Sum of each rank's column: `(p,)`.
    sums: Vec<i128>,
    /// Sums of products: panel by panel, for panel columns `c..c + WIDTH` the rows `c..p`, each `WIDTH` long (ranks). What lies above
    /// the diagonal or beyond `p` inside a panel has no meaning.
    totals: Vec<i64>,
}

/// Working memory for [`Gram::add`], to be used again for each block.
#[derive(Debug, Default)]
pub struct Work {
    slabs: Vec<Slab>,
    scratch: Mutex<Vec<Scratch>>,
}

impl Work {
    /// Bytes of working memory for `p` columns, blocks of at most `nnz` entries and `n_threads` threads.
    pub fn bytes(p: usize, nnz: usize, n_threads: usize) -> u64 {
        let slabs = 6 * nnz + BLOCK.div_ceil(SLAB) * 12 * (p + 1);
        let scratch = (SLAB + p) * WIDTH * 4;
        (slabs + scratch * n_threads) as u64
    }

    /// Bytes of heap memory in use.
    pub fn heap_bytes(&self) -> usize {
        let scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        self.slabs.iter().map(Slab::heap_bytes).sum::<usize>() + scratch.iter().map(Scratch::heap_bytes).sum::<usize>()
    }
}

/// One panel, some of its rows.
struct Task<'a> {
    start: usize,
    columns: std::ops::Range<usize>,
    totals: &'a mut [i64],
    weight: f64,
}

impl Gram {
    /// No rows of `p = detection.len()` columns. `detection[j]` is the share of rows in which column `j` is not zero: it decides the
    /// order of work, so it must be the same wherever states are merged. `bound` is at least every column's sum of squares over all
    /// rows that will ever be added (known from an earlier pass): totals keep 62 bits below it.
    pub fn new(detection: &[f32], bound: f64) -> Result<Self> {
        let p = detection.len();
        if p > MAX_COLUMNS {
            let needs = Self::bytes(p) >> 20;
            let expected = format!("a Gram matrix of so many genes needs {needs} MiB; at most {MAX_COLUMNS} genes are taken");
            return Err(Error::option("n_top_genes", p, expected));
        }
        if !bound.is_finite() || bound < 0.0 {
            return Err(Error::bug(format!("the bound of a Gram matrix is {bound}")));
        }
        let mut order: Vec<u32> = (0..p as u32).collect();
        order.sort_by(|&a, &b| detection[b as usize].total_cmp(&detection[a as usize]).then(a.cmp(&b)));
        let mut rank = vec![0; p];
        for (i, &column) in order.iter().enumerate() {
            rank[column as usize] = i as u32;
        }
        // The least e with bound < 2^e; one bit more for the rounding of the sums in f32.
        let bits = exponent(bound) + 1;
        Ok(Gram {
            rank,
            detection: order.iter().map(|&column| detection[column as usize]).collect(),
            scale: LIMIT_BITS - bits,
            sum_scale: 62 - bits / 2,
            n_rows: 0,
            sums: vec![0; p],
            totals: vec![0; totals_len(p)],
        })
    }

    /// Bytes of the state for `p` columns: about `4 p^2`.
    pub fn bytes(p: usize) -> u64 {
        (8 * totals_len(p) + 24 * p) as u64
    }

    /// Columns.
    pub fn n_columns(&self) -> usize {
        self.rank.len()
    }

    /// Rows added so far.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Adds one block: the rows of `pieces` laid end to end, at most [`BLOCK`]. The bits of the result depend on which rows make a
    /// block, so blocks must be cut by the data alone; how a block is cut into pieces, the order of blocks and the number of
    /// threads (those of the pool that is installed) have no influence. After an error the state must not be used.
    pub fn add(&mut self, pieces: &[&Csr], work: &mut Work) -> Result<()> {
        let p = self.n_columns();
        let n: usize = pieces.iter().map(|csr| csr.n_rows()).sum();
        if n > BLOCK {
            return Err(Error::bug(format!("a block of {n} rows, but a Gram matrix takes at most {BLOCK} at a time")));
        }
        if n == 0 || p == 0 {
            self.n_rows += n as u64;
            return Ok(());
        }
        let n_slabs = n.div_ceil(SLAB);
        if work.slabs.len() < n_slabs {
            work.slabs.resize_with(n_slabs, Slab::default);
        }
        let slabs = &mut work.slabs[..n_slabs];
        let rank = &self.rank;
        slabs.par_iter_mut().enumerate().with_max_len(1).try_for_each(|(i, slab)| slab.fill(pieces, i * SLAB, rank))?;
        let slabs = &*slabs;

        let unit = (2.0f64).powi(self.sum_scale);
        for (j, sum) in self.sums.iter_mut().enumerate() {
            let block: f64 = slabs.iter().map(|slab| slab.sums[j]).sum();
            *sum += (block * unit) as i128;
        }

        let scale = self.scale;
        let scratch = &work.scratch;
        let instructions = Instructions::detect();
        let mut tasks = tasks(&self.detection, &mut self.totals);
        tasks.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        tasks.into_par_iter().with_max_len(1).try_for_each(|task| {
            let mut mine = scratch.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_else(Scratch::new);
            mine.product(slabs, task.start, task.columns.clone(), instructions);
            let done = fold(&mine, task, scale, instructions);
            scratch.lock().unwrap_or_else(PoisonError::into_inner).push(mine);
            done
        })?;
        self.n_rows += n as u64;
        Ok(())
    }

    /// Adds the rows of another state, made with the same `detection` and `bound`.
    pub fn merge(&mut self, other: &Gram) -> Result<()> {
        if self.rank != other.rank || self.scale != other.scale || self.sum_scale != other.sum_scale {
            return Err(Error::bug("two Gram matrices of different genes or bounds are merged"));
        }
        let overflow = || Error::bug("a sum of squares is beyond the bound of its Gram matrix");
        self.n_rows += other.n_rows;
        self.sums.iter_mut().zip(&other.sums).for_each(|(a, b)| *a = a.wrapping_add(*b));
        let fits = |(a, b): (&mut i64, &i64)| {
            let sum = a.checked_add(*b);
            *a = sum.unwrap_or(0);
            sum.is_some()
        };
        let pairs = self.totals.par_chunks_mut(1 << 16).zip(other.totals.par_chunks(1 << 16));
        let ok = pairs.map(|(a, b)| a.iter_mut().zip(b).map(fits).fold(true, |all, one| all & one)).reduce(|| true, |a, b| a & b);
        if ok { Ok(()) } else { Err(overflow()) }
    }

    /// Sum of each column: `(p,)`.
    pub fn sums(&self) -> Vec<f64> {
        let unit = (2.0f64).powi(-self.sum_scale);
        self.rank.iter().map(|&rank| self.sums[rank as usize] as f64 * unit).collect()
    }

    /// `G[i, j]`: sum over rows of the product of columns `i` and `j`.
    pub fn product(&self, i: usize, j: usize) -> f64 {
        let (a, b) = (self.rank[i] as usize, self.rank[j] as usize);
        self.totals[position(self.n_columns(), a.max(b), a.min(b))] as f64 * (2.0f64).powi(-self.scale)
    }

    /// Covariance of the columns, ddof 1: `(p, p)`, row by row, symmetric to the bit.
    pub fn covariance(&self) -> Result<Vec<f64>> {
        if self.n_rows < 2 {
            let place = Place::element("", "X");
            return Err(Error::invalid(place, format!("{} cells", self.n_rows), "a covariance needs at least 2"));
        }
        let p = self.n_columns();
        let n = self.n_rows as f64;
        let sums = self.sums();
        let unit = (2.0f64).powi(-self.scale);
        let mut order = vec![0; p];
        for (column, &rank) in self.rank.iter().enumerate() {
            order[rank as usize] = column;
        }
        // Chan, Golub & LeVeque 1983: sum (x - mean_x)(y - mean_y) = sum xy - (sum x)(sum y) / n
        let centred = |total: i64, i: usize, j: usize| (total as f64 * unit - sums[i] * sums[j] / n) / (n - 1.0);
        let mut covariance = vec![0.0; p * p];
        let mut rows: Vec<Option<&mut [f64]>> = covariance.chunks_mut(p.max(1)).map(Some).collect();
        let mut ranked: Vec<&mut [f64]> = order.iter().filter_map(|&column| rows[column].take()).collect();
        // Eight ranks share a cache line of their panel.
        ranked.par_chunks_mut(8).enumerate().for_each(|(group, rows)| {
            for (a, row) in (8 * group..).zip(rows.iter_mut()) {
                for b in 0..=a {
                    row[order[b]] = centred(self.totals[position(p, a, b)], order[a], order[b]);
                }
            }
            for b in 8 * group + 1..p {
                for (a, row) in (8 * group..b).zip(rows.iter_mut()) {
                    row[order[b]] = centred(self.totals[position(p, b, a)], order[a], order[b]);
                }
            }
        });
        Ok(covariance)
    }
}

/// The least e with `value < 2^e`, 0 for a zero.
fn exponent(value: f64) -> i32 {
    let mut e = 0;
    if value > 0.0 {
        e = value.log2().floor() as i32;
        while value >= (2.0f64).powi(e) {
            e += 1;
        }
    }
    e
}

/// Rows of the panel that starts at `start`, times its width, over all panels.
fn totals_len(p: usize) -> usize {
    (0..p).step_by(WIDTH).map(|start| (p - start) * WIDTH).sum()
}

/// Where the product of ranks `a >= b` lies.
fn position(p: usize, a: usize, b: usize) -> usize {
    let panel = b / WIDTH;
    let start = panel * WIDTH;
    // sum over earlier panels q of (p - q WIDTH) WIDTH
    let before = WIDTH * (panel * p - WIDTH * (panel * panel.saturating_sub(1) / 2));
    before + (a - start) * WIDTH + (b - start)
}

/// Cuts the totals into tasks of at most one of `SHARES` parts of the work.
fn tasks<'a>(detection: &[f32], mut totals: &'a mut [i64]) -> Vec<Task<'a>> {
    let p = detection.len();
    // Entries a row, and what a column costs even where it has none.
    let cost: Vec<f64> = detection.iter().map(|&d| f64::from(d.clamp(0.0, 1.0)) + 0.005).collect();
    let whole: f64 = cost.iter().enumerate().map(|(j, cost)| cost * (j / WIDTH + 1) as f64).sum();
    let limit = whole / SHARES;
    let mut tasks = Vec::new();
    for start in (0..p).step_by(WIDTH) {
        let mut from = start;
        while from < p {
            let mut to = from;
            let mut weight = 0.0;
            while to < p && (weight < limit || to - from < WIDTH) {
                weight += cost[to];
                to += 1;
            }
            let (mine, rest) = std::mem::take(&mut totals).split_at_mut((to - from) * WIDTH);
            totals = rest;
            tasks.push(Task { start, columns: from..to, totals: mine, weight });
            from = to;
        }
    }
    tasks
}

/// Adds a block's sums to the totals.
fn fold(scratch: &Scratch, task: Task<'_>, scale: i32, instructions: Instructions) -> Result<()> {
    let limit = (2.0f64).powi(LIMIT_BITS);
    let unit = (2.0f64).powi(scale);
    // |G[i, j]|^2 <= G[i, i] G[j, j]: what fits on the diagonal fits everywhere.
    let first = task.columns.start;
    for j in first..task.columns.end.min(task.start + WIDTH) {
        let (at, c) = (j - first, j - task.start);
        let sum = scratch.acc[at][c];
        let after = task.totals[at * WIDTH + c] as f64 + f64::from(sum) * unit;
        if !after.is_finite() || after >= limit {
            return Err(Error::bug(format!("a sum of squares ({sum}) is not finite or beyond the bound of its Gram matrix")));
        }
    }
    fixed::add(task.totals, scratch.acc.as_flattened(), scale, instructions);
    Ok(())
}

#[cfg(test)]
mod tests;

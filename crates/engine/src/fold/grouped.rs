//! Statistics of every gene in each group of cells: what t-tests, pseudobulks and dot plots ask for, in one read.

use std::ops::Range;

use cellmill_kernels::grouped::{add_row, cuda::Totals};
use cellmill_matrix::Result;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};

/// The code of a cell that belongs to no group.
pub const NO_GROUP: u32 = u32::MAX;

/// Sum, squared deviations and number of non-zeros of every gene in each group. The groups are the chunk's batches; codes from
/// `n_groups` on (also [`NO_GROUP`]) are counted together as the rest of the cells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grouped {
    /// Number of genes.
    pub n_vars: usize,
    /// Number of groups.
    pub n_groups: usize,
}

/// Statistics of one group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupStats {
    /// Cells.
    pub n_obs: u64,
    /// Σ x: `(n_vars,)` f64; exact for counts.
    pub sum: Vec<f64>,
    /// Σ (x − mean)²: `(n_vars,)` f64.
    pub squares: Vec<f64>,
    /// Cells with a non-zero entry: `(n_vars,)`.
    pub n_cells: Vec<u64>,
}

impl GroupStats {
    /// The statistics of no cells.
    pub fn none(n_vars: usize) -> Self {
        GroupStats { n_obs: 0, sum: vec![0.0; n_vars], squares: vec![0.0; n_vars], n_cells: vec![0; n_vars] }
    }

    /// Mean of gene `j`; 0 without cells.
    pub fn mean(&self, j: usize) -> f64 {
        if self.n_obs == 0 { 0.0 } else { self.sum[j] / self.n_obs as f64 }
    }

    /// Variance of gene `j`, ddof 1; 0 for a single cell.
    pub fn variance(&self, j: usize) -> f64 {
        self.squares[j] / (self.n_obs.max(2) - 1) as f64
    }

    /// Share of cells with gene `j`.
    pub fn share(&self, j: usize) -> f64 {
        self.n_cells[j] as f64 / self.n_obs as f64
    }

    /// Adds the statistics of other cells.
    pub fn merge(&mut self, other: &GroupStats) {
        if other.n_obs == 0 {
            return;
        }
        if self.n_obs == 0 {
            self.clone_from(other);
            return;
        }
        // Chan, Golub & LeVeque 1979, (2.1), as in `GeneMoments::merge`.
        let (a, b) = (self.n_obs as f64, other.n_obs as f64);
        let (by_a, by_b, weight) = (1.0 / a, 1.0 / b, a * b / (a + b));
        let sums = self.sum.iter_mut().zip(&other.sum);
        for ((sum, more), (squares, theirs)) in sums.zip(self.squares.iter_mut().zip(&other.squares)) {
            let delta = *more * by_b - *sum * by_a;
            *squares += theirs + delta * delta * weight;
            *sum += more;
        }
        self.n_cells.iter_mut().zip(&other.n_cells).for_each(|(n, more)| *n += more);
        self.n_obs += other.n_obs;
    }

    /// From sums of a GPU over `n_obs` cells, of the genes at these places.
    pub(crate) fn from_totals(n_obs: u64, totals: &Totals, places: Range<usize>) -> Self {
        let mut stats = GroupStats::none(places.len());
        stats.n_obs = n_obs;
        for (j, at) in places.enumerate() {
            let ([sum, squares], off) = totals.at(at);
            let deviation = squares - sum * (sum / n_obs.max(1) as f64);
            stats.sum[j] = sum;
            stats.squares[j] = if deviation <= squares * 1e-12 + off { 0.0 } else { deviation };
            stats.n_cells[j] = u64::from(totals.counts[at]);
        }
        stats
    }

    /// From [Σ x, Σ x²] and counts of one task's cells.
    fn from_sums(n_obs: u64, sums: &[[f64; 2]], counts: &[u32]) -> Self {
        let n = n_obs as f64;
        let squares = sums.iter().map(|s| {
            let deviation = s[1] - s[0] * (s[0] / n);
            // What is left of a constant gene is rounding: a few thousand additions of relative error 2^-53 each.
            if deviation <= s[1] * 1e-12 { 0.0 } else { deviation }
        });
        GroupStats {
            n_obs,
            squares: squares.collect(),
            sum: sums.iter().map(|s| s[0]).collect(),
            n_cells: counts.iter().map(|&n| u64::from(n)).collect(),
        }
    }
}

/// What all rows say.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedStats {
    /// Each group.
    pub groups: Vec<GroupStats>,
    /// Cells of no group.
    pub rest: GroupStats,
}

/// Rows of a group, and of each gene sums of values and squares, and cells that express it.
type Sums = (u64, Vec<[f64; 2]>, Vec<u32>);

/// Sums of one task; a group's are made when its first row passes.
pub struct GroupedAcc {
    groups: Vec<Option<Sums>>,
    /// Rows of a chunk by group, kept for its memory.
    order: Vec<(u32, u32)>,
}

impl Fold for Grouped {
    type Acc = GroupedAcc;
    /// Statistics of each group of which rows were seen; the rest comes last.
    type State = Vec<Option<GroupStats>>;
    type Output = GroupedStats;

    fn init(&self) -> Self::State {
        vec![None; self.n_groups + 1]
    }

    fn open(&self) -> GroupedAcc {
        GroupedAcc { groups: vec![None; self.n_groups + 1], order: Vec::new() }
    }

    fn accumulate(&self, acc: &mut GroupedAcc, _: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        let group = |i: usize| match &chunk.batch {
            None => 0,
            Some(codes) => codes[i].min(self.n_groups as u32),
        };
        // Rows of one group one after the other: its sums stay near the core. A group's own rows keep their order.
        acc.order.clear();
        acc.order.extend((0..chunk.x.n_rows()).map(|i| (group(i), i as u32)));
        acc.order.sort_unstable();
        for &(group, i) in &acc.order {
            let (columns, values) = chunk.x.row(i as usize);
            self.add(&mut acc.groups, group, columns, values);
        }
        Ok(())
    }

    fn close(&self, acc: GroupedAcc) -> Self::State {
        acc.groups.into_iter().map(|g| g.map(|(n, sums, counts)| GroupStats::from_sums(n, &sums, &counts))).collect()
    }

    fn merge(&self, into: &mut Self::State, later: Self::State) {
        for (a, b) in into.iter_mut().zip(later) {
            match (a.as_mut(), b) {
                (_, None) => {}
                (None, b) => *a = b,
                (Some(a), Some(b)) => a.merge(&b),
            }
        }
    }

    fn finish(&self, mut state: Self::State) -> GroupedStats {
        let or_none = |s: Option<GroupStats>| s.unwrap_or_else(|| GroupStats::none(self.n_vars));
        let rest = or_none(state.pop().flatten());
        GroupedStats { groups: state.into_iter().map(&or_none).collect(), rest }
    }
}

impl GroupedAcc {
    /// Adds a row of values that are wider than the engine's. `group`: its code.
    pub fn add(&mut self, fold: &Grouped, group: u32, columns: &[u32], values: &[f64]) {
        fold.add(&mut self.groups, group.min(fold.n_groups as u32), columns, values);
    }
}

impl Grouped {
    fn add<T: Copy + Into<f64>>(&self, groups: &mut [Option<Sums>], group: u32, columns: &[u32], values: &[T]) {
        let new = || (0, vec![[0.0; 2]; self.n_vars], vec![0; self.n_vars]);
        let (n, sums, counts) = groups[group as usize].get_or_insert_with(new);
        *n += 1;
        add_row(columns, values, sums, counts);
    }

    /// Bytes of one state with every group in it.
    pub fn state_bytes(&self) -> u64 {
        (self.n_groups as u64 + 1) * self.n_vars as u64 * 24
    }
}

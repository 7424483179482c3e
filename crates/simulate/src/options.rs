//! What to simulate.

use cellmill_matrix::{Error, Result};
use serde::{Deserialize, Serialize};

/// What to simulate. Everything but `n_obs` shapes the rows: row `i` is the same for every `n_obs > i`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Cells, 0 to 2⁴⁸. Default 1,306,127, as in the 10x mouse brain set.
    pub n_obs: u64,
    /// Genes, 1 to 1,000,000. Default 27,998, as in that set.
    pub n_vars: usize,
    /// Cell types, 1 to 1000. Default 30. More types: smaller ones, as near to each other.
    pub n_types: usize,
    /// Batches, 1 to 1000. Default 1: no batch effects. Each cell's batch is random, all are equally large.
    pub n_batches: usize,
    /// Mean number of genes seen in a cell, 1 to 0.6 `n_vars`. Default (`None`): 2000, or a quarter of `n_vars` if that is less.
    /// Time and memory grow in proportion.
    pub genes_per_cell: Option<f64>,
    /// Standard deviation of the log of the library sizes, 0 to 2. Default 0.5. Larger: more very small and very large cells.
    pub size_sigma: f64,
    /// Standard deviation of a gene's log expression between batches, 0 to 1. Default 0.15. Larger: batches part further.
    pub batch_sigma: f64,
    /// Share of cells of low quality (few genes, many mitochondrial counts), 0 to 1. Default 0.02.
    pub low_quality: f64,
    /// Seed. Default 0.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            n_obs: 1_306_127,
            n_vars: 27_998,
            n_types: 30,
            n_batches: 1,
            genes_per_cell: None,
            size_sigma: 0.5,
            batch_sigma: 0.15,
            low_quality: 0.02,
            seed: 0,
        }
    }
}

/// Most values of a table by genes (types, batches) that are held in memory: 2²⁷ take about 2 GiB.
const LARGEST_TABLE: usize = 1 << 27;

impl Options {
    /// Checks every option.
    pub(crate) fn check(&self) -> Result<()> {
        if self.n_obs > 1 << 48 {
            return Err(Error::option("n_obs", self.n_obs, "there are at most 2^48 cells"));
        }
        if !(1..=1_000_000).contains(&self.n_vars) {
            return Err(Error::option("n_vars", self.n_vars, "there are 1 to 1000000 genes"));
        }
        for (name, n) in [("n_types", self.n_types), ("n_batches", self.n_batches)] {
            if !(1..=1000).contains(&n) {
                return Err(Error::option(name, n, "it is from 1 to 1000"));
            }
            if n * self.n_vars > LARGEST_TABLE {
                return Err(Error::option(name, n, format!("at most {} fit with {} genes", LARGEST_TABLE / self.n_vars, self.n_vars)));
            }
        }
        if let Some(genes) = self.genes_per_cell {
            let most = (0.6 * self.n_vars as f64).max(1.0);
            if !(1.0..=most).contains(&genes) {
                return Err(Error::option("genes_per_cell", genes, format!("with {} genes it is from 1 to {most}", self.n_vars)));
            }
        }
        for (name, x, most) in
            [("size_sigma", self.size_sigma, 2.0), ("batch_sigma", self.batch_sigma, 1.0), ("low_quality", self.low_quality, 1.0)]
        {
            if !(0.0..=most).contains(&x) {
                return Err(Error::option(name, x, format!("it is from 0 to {most}")));
            }
        }
        Ok(())
    }

    /// Mean number of genes a cell to aim at.
    pub(crate) fn target_genes(&self) -> f64 {
        self.genes_per_cell.unwrap_or_else(|| (self.n_vars as f64 / 4.0).clamp(0.5, 2000.0))
    }
}

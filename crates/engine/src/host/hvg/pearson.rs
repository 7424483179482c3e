//! `pearson_residuals`: variance of the analytic Pearson residuals of the counts (Lause, Berens & Kobak 2021).
//!
//! The variance is over all cells, zeros included. What a zero adds depends on its cell's total alone, and totals of counts are whole
//! numbers with many repeats, so a gene costs as many steps as there are distinct totals (some ten thousand, however many cells), and its
//! entries cost two residuals each, in one more pass. Totals that are no whole numbers are as many as the cells: then a gene costs a step
//! a cell, as in scanpy.

use cellmill_kernels::residual::{Model, of_zeros};
use cellmill_matrix::{Error, Place, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::batches::{descending, first_of};
use super::vst::{coarse, median};
use super::{Moments, check_lengths};

/// One batch: what its counts say of the model.
#[derive(Clone, Copy, Debug)]
pub struct PearsonBatch<'a> {
    /// Cells.
    pub n_obs: u64,
    /// Each gene's share of all counts: (n_vars,).
    pub share: &'a [f64],
    /// [Σ (r(x) − r(0)), Σ (r(x)² − r(0)²)] over the entries of each gene: (n_vars,).
    pub entries: &'a [[f64; 2]],
    /// Each total and in how many cells it occurs.
    pub totals: &'a [(f64, f64)],
}

/// What `pearson_residuals` finds: columns of var, each (n_vars,), in the genes' order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HvgPearson {
    /// Genes that were chosen.
    pub highly_variable: Vec<bool>,
    /// Median over batches of a gene's rank by residual variance, 0 the most variable; NaN: in no batch's top.
    pub highly_variable_rank: Vec<f32>,
    /// Mean count over all cells.
    pub means: Vec<f64>,
    /// Variance of the counts over all cells, ddof 1.
    pub variances: Vec<f64>,
    /// Variance of the residuals, ddof 0, mean over batches.
    pub residual_variances: Vec<f64>,
    /// Batches in whose top a gene is.
    pub highly_variable_nbatches: Vec<i64>,
    /// Genes in the top of every batch.
    pub highly_variable_intersection: Vec<bool>,
}

/// Variance of the residuals of every gene in one batch, ddof 0; 0 for genes without counts there.
pub fn residual_variances(batch: &PearsonBatch<'_>, model: &Model) -> Vec<f64> {
    let n = batch.n_obs.max(1) as f64;
    let gene = |(share, entries): (&f64, &[f64; 2])| {
        let zeros = of_zeros(*share, batch.totals, model);
        let mean = (entries[0] + zeros[0]) / n;
        ((entries[1] + zeros[1]) / n - mean * mean).max(0.0)
    };
    batch.share.par_iter().zip(batch.entries).map(gene).collect()
}

/// Ranks the genes in each batch and chooses by the number of batches in whose top they are, then by the median rank.
///
/// `overall` holds the moments of the counts over all cells; `variances` the residual variances of each batch. Ties are settled as in
/// [`super::rank`].
pub fn rank_residuals(overall: &Moments, variances: &[Vec<f64>], n_top_genes: usize) -> Result<HvgPearson> {
    let n_vars = overall.mean.len();
    check_lengths(overall, n_vars)?;
    if variances.is_empty() {
        return Err(Error::invalid(Place::default(), "no cells", "highly variable genes are chosen by the counts of some cells"));
    }
    if variances.iter().any(|v| v.len() != n_vars) {
        return Err(Error::bug(format!("residual variances of {} batches are not of {n_vars} genes", variances.len())));
    }
    let mut ranks: Vec<Vec<f32>> = vec![Vec::new(); n_vars];
    for batch in variances {
        let keys: Vec<f64> = batch.iter().map(|v| coarse(*v)).collect();
        let mut order: Vec<usize> = (0..n_vars).collect();
        order.sort_by(|a, b| descending(keys[*a], keys[*b]));
        for (rank, gene) in order.iter().take(n_top_genes).enumerate() {
            ranks[*gene].push(rank as f32);
        }
    }
    let nbatches: Vec<i64> = ranks.iter().map(|r| r.len() as i64).collect();
    let median: Vec<f32> = ranks.iter_mut().map(|r| median(r)).collect();
    let mut order: Vec<usize> = (0..n_vars).collect();
    order.sort_by(|&a, &b| nbatches[b].cmp(&nbatches[a]).then_with(|| descending(-f64::from(median[a]), -f64::from(median[b]))));
    let count = variances.len() as f64;
    Ok(HvgPearson {
        highly_variable: first_of(&order, n_top_genes),
        highly_variable_rank: median,
        means: overall.mean.to_vec(),
        variances: overall.var.to_vec(),
        residual_variances: (0..n_vars).map(|j| variances.iter().map(|v| v[j]).sum::<f64>() / count).collect(),
        highly_variable_intersection: nbatches.iter().map(|n| *n == variances.len() as i64).collect(),
        highly_variable_nbatches: nbatches,
    })
}

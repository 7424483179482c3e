//! The choice of highly variable genes from statistics of each gene: no matrix is in sight here.
//!
//! `seurat` and `cell_ranger` need means and variances alone ([`dispersions`], [`dispersions_by_batch`]).
//! `seurat_v3` and `seurat_v3_paper` take two steps: [`fit`] gives each batch a clip for each gene, the engine reads
//! the counts a second time and sums what is clipped, and [`rank`] makes the choice.
//! `pearson_residuals` is alike: a second pass sums residuals ([`residual_variances`]), and [`rank_residuals`] makes the choice.
//! The results are those of scanpy 1.11 `pp.highly_variable_genes`, columns and ties included.

mod batches;
mod bins;
mod dispersion;
mod loess;
mod pearson;
mod quadratic;
mod vst;

use cellmill_matrix::{Error, Place, Result};
use serde::{Deserialize, Serialize};

pub use batches::dispersions_by_batch;
pub use dispersion::dispersions;
pub use pearson::{HvgPearson, PearsonBatch, rank_residuals, residual_variances};
pub use vst::{ClippedSums, HvgV3, V3Fit, fit, rank};

/// Genes that `seurat_v3` and `seurat_v3_paper` choose when no number is given.
pub const DEFAULT_TOP_GENES: usize = 2000;

/// Mean and variance of each gene over the cells of one batch.
///
/// `seurat`: of expm1(x · ln base) of the log1p data; `cell_ranger`: of the log1p data; `seurat_v3*`: of raw counts.
#[derive(Clone, Copy, Debug)]
pub struct Moments<'a> {
    /// Cells in the batch.
    pub n_obs: u64,
    /// Mean of each gene: (n_vars,).
    pub mean: &'a [f64],
    /// Variance of each gene: (n_vars,), ddof 1.
    pub var: &'a [f64],
}

/// How genes are compared. The names are scanpy's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flavor {
    /// Log dispersion against the mean and deviation of 20 bins of equal width (Satija et al. 2015).
    #[default]
    #[serde(rename = "seurat")]
    Seurat,
    /// Dispersion against the median and MAD of 20 bins of equal size (Zheng et al. 2017).
    #[serde(rename = "cell_ranger")]
    CellRanger,
    /// Variance of the clipped, standardised counts; batches are joined by the median rank first (Stuart et al. 2019).
    #[serde(rename = "seurat_v3")]
    SeuratV3,
    /// As `seurat_v3`, but batches are joined by the number of batches first, as the paper says.
    #[serde(rename = "seurat_v3_paper")]
    SeuratV3Paper,
    /// Variance of the Pearson residuals of the counts; batches are joined by the number of batches first (Lause et al. 2021).
    #[serde(rename = "pearson_residuals")]
    PearsonResiduals,
}

impl Flavor {
    /// scanpy's name.
    pub fn name(self) -> &'static str {
        match self {
            Flavor::Seurat => "seurat",
            Flavor::CellRanger => "cell_ranger",
            Flavor::SeuratV3 => "seurat_v3",
            Flavor::SeuratV3Paper => "seurat_v3_paper",
            Flavor::PearsonResiduals => "pearson_residuals",
        }
    }

    /// Whether it compares the counts themselves, not their logarithms.
    pub fn of_counts(self) -> bool {
        matches!(self, Flavor::SeuratV3 | Flavor::SeuratV3Paper | Flavor::PearsonResiduals)
    }
}

/// The options of the choice, with scanpy's names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Number of genes to choose. When given, the four cut-offs are ignored. `seurat_v3*` without it: 2,000.
    pub n_top_genes: Option<usize>,
    /// Genes at or below this mean are not chosen. `seurat`: on the log1p scale.
    pub min_mean: f64,
    /// Genes at or above this mean are not chosen.
    pub max_mean: f64,
    /// Genes at or below this normalised dispersion are not chosen.
    pub min_disp: f64,
    /// Genes at or above this normalised dispersion are not chosen.
    pub max_disp: f64,
    /// Bins of the mean, `seurat` only. More bins: fewer genes each to compare with.
    pub n_bins: usize,
    /// Share of the genes in each local fit, `seurat_v3*` only. Above 0, at most 1; larger: smoother.
    pub span: f64,
}

impl Default for Options {
    fn default() -> Self {
        let (min_mean, max_mean, min_disp, max_disp) = (0.0125, 3.0, 0.5, f64::INFINITY);
        Options { n_top_genes: None, min_mean, max_mean, min_disp, max_disp, n_bins: 20, span: 0.3 }
    }
}

impl Options {
    /// Refuses values that no flavour can use.
    pub fn check(&self) -> Result<()> {
        if self.n_top_genes == Some(0) {
            return Err(Error::option("n_top_genes", 0, "at least 1 is needed"));
        }
        if !(1..=1 << 20).contains(&self.n_bins) {
            return Err(Error::option("n_bins", self.n_bins, "it is between 1 and 1048576"));
        }
        check_span(self.span)?;
        for (name, cut) in
            [("min_mean", self.min_mean), ("max_mean", self.max_mean), ("min_disp", self.min_disp), ("max_disp", self.max_disp)]
        {
            if cut.is_nan() {
                return Err(Error::option(name, cut, "a number is needed"));
            }
        }
        Ok(())
    }

    /// Whether a cut-off differs from its default.
    fn has_cutoffs(&self) -> bool {
        let default = Options::default();
        self.min_mean != default.min_mean
            || self.max_mean != default.max_mean
            || self.min_disp != default.min_disp
            || self.max_disp != default.max_disp
    }

    /// Strict bounds on a gene's mean and normalised dispersion.
    fn in_bounds(&self, mean: f64, norm: f64) -> bool {
        mean > self.min_mean && mean < self.max_mean && norm > self.min_disp && norm < self.max_disp
    }
}

/// What `seurat` and `cell_ranger` find: columns of var, each (n_vars,), in the genes' order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hvg {
    /// Genes that were chosen.
    pub highly_variable: Vec<bool>,
    /// Mean of each gene (`seurat`: log1p of it); over batches: their mean.
    pub means: Vec<f64>,
    /// var / mean (`seurat`: its ln); over batches: their mean.
    pub dispersions: Vec<f64>,
    /// Dispersion less its bin's centre, over its bin's spread; over batches: their mean.
    pub dispersions_norm: Vec<f32>,
    /// Batches in which a gene was chosen. None without batches.
    pub nbatches: Option<Vec<i64>>,
    /// Genes chosen in every batch. None without batches.
    pub intersection: Option<Vec<bool>>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Refuses a span that is no share.
fn check_span(span: f64) -> Result<()> {
    if span > 0.0 && span <= 1.0 {
        return Ok(());
    }
    Err(Error::option("span", span, "a share of the genes above 0 and at most 1 is needed, 0.3 by default"))
}

/// Refuses moments whose two columns differ in length from the genes.
fn check_lengths(moments: &Moments, n_vars: usize) -> Result<()> {
    if moments.mean.len() == n_vars && moments.var.len() == n_vars {
        return Ok(());
    }
    Err(Error::invalid(
        Place::default(),
        format!("there are {} means and {} variances", moments.mean.len(), moments.var.len()),
        format!("there are {n_vars} genes"),
    ))
}

#[cfg(test)]
mod tests;

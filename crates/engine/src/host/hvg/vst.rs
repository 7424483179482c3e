//! `seurat_v3` and `seurat_v3_paper`: variance after standardisation by the deviation that a gene's mean predicts.

use cellmill_matrix::{Error, Place, Result};
use serde::{Deserialize, Serialize};

use super::batches::{descending, first_of};
use super::loess::loess;
use super::{DEFAULT_TOP_GENES, Flavor, Moments, Options, check_lengths, check_span};

/// The first step for one batch: what its means predict, and where counts are to be clipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct V3Fit {
    /// Cells in the batch.
    pub n_obs: u64,
    /// Mean count of each gene: (n_vars,).
    pub mean: Vec<f64>,
    /// Predicted log10 variance of each gene: (n_vars,); 0 for genes that don't vary.
    pub estimated: Vec<f64>,
    /// Regularised standard deviation: (n_vars,), sqrt(10^estimated).
    pub reg_std: Vec<f64>,
    /// Counts above this are clipped to it: (n_vars,), reg_std · sqrt(n_obs) + mean.
    pub clip: Vec<f64>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The second read of one batch: sums over its cells of clipped counts, c = min(x, clip).
#[derive(Clone, Copy, Debug)]
pub struct ClippedSums<'a> {
    /// Σ c of each gene: (n_vars,).
    pub sum: &'a [f64],
    /// Σ c² of each gene: (n_vars,).
    pub squares: &'a [f64],
}

/// What `seurat_v3` and `seurat_v3_paper` find: columns of var, each (n_vars,), in the genes' order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HvgV3 {
    /// Genes that were chosen.
    pub highly_variable: Vec<bool>,
    /// Median over batches of a gene's rank by normalised variance, 0 the most variable; NaN: in no batch's top.
    pub highly_variable_rank: Vec<f32>,
    /// Mean count over all cells.
    pub means: Vec<f64>,
    /// Variance of the counts over all cells, ddof 1.
    pub variances: Vec<f64>,
    /// Normalised variance, mean over batches.
    pub variances_norm: Vec<f64>,
    /// Batches in whose top a gene is. scanpy stores it only with a batch key.
    pub highly_variable_nbatches: Vec<i64>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// First step, for one batch of raw counts: loess of log10 variance on log10 mean over the genes that vary.
pub fn fit(moments: &Moments, span: f64) -> Result<V3Fit> {
    check_span(span)?;
    let n_vars = moments.mean.len();
    check_lengths(moments, n_vars)?;
    if moments.n_obs < 2 {
        return Err(Error::invalid(
            Place::default(),
            format!("a batch has {} cells", moments.n_obs),
            "seurat_v3 needs at least 2 in each; merge or leave out this batch",
        ));
    }
    let varying: Vec<usize> = (0..n_vars).filter(|gene| moments.var[*gene] > 0.0).collect();
    if let Some(&gene) =
        varying.iter().find(|gene| !(moments.mean[**gene] > 0.0 && (moments.mean[**gene] + moments.var[**gene]).is_finite()))
    {
        return Err(Error::invalid(
            Place::default(),
            format!("gene {gene} has mean {} and variance {}", moments.mean[gene], moments.var[gene]),
            "seurat_v3 needs raw counts, which are finite and not negative",
        ));
    }
    let x: Vec<f64> = varying.iter().map(|gene| moments.mean[*gene].log10()).collect();
    let y: Vec<f64> = varying.iter().map(|gene| moments.var[*gene].log10()).collect();
    let line = loess(&x, &y, span)?;
    let mut warnings = Vec::new();
    if line.singular + line.widened > 0 {
        warnings.push(format!(
            "many genes have the same mean: the fit of variance on mean is singular at {} points and was widened at {} (scanpy stops \
             here); filter genes of few cells or raise span",
            line.singular, line.widened
        ));
    }
    let mut estimated = vec![0.0; n_vars];
    for (gene, fitted) in varying.iter().zip(&line.fitted) {
        estimated[*gene] = *fitted;
    }
    let reg_std: Vec<f64> = estimated.iter().map(|log_variance| 10f64.powf(*log_variance).sqrt()).collect();
    let reach = (moments.n_obs as f64).sqrt();
    let clip = reg_std.iter().zip(moments.mean).map(|(std, mean)| std * reach + mean).collect();
    Ok(V3Fit { n_obs: moments.n_obs, mean: moments.mean.to_vec(), estimated, reg_std, clip, warnings })
}

impl V3Fit {
    /// Normalised variance of each gene: (n_vars,).
    ///
    /// Stuart et al. 2019, (N · mean² + Σ c² - 2 · mean · Σ c) / ((N - 1) · reg_std²).
    fn normalised(&self, sums: &ClippedSums) -> Vec<f64> {
        let n = self.n_obs as f64;
        (0..self.mean.len())
            .map(|gene| {
                let (mean, std) = (self.mean[gene], self.reg_std[gene]);
                let squares = n * (mean * mean) + sums.squares[gene] - 2.0 * sums.sum[gene] * mean;
                1.0 / ((n - 1.0) * (std * std)) * squares
            })
            .collect()
    }
}

/// Second step: ranks the genes in each batch and chooses by the ranks over batches.
///
/// `overall` holds the moments over all cells; `fits` and `sums` hold one entry for each batch, in the same order.
/// Genes that tie keep their order, as in scanpy with a stable sort; scanpy's own order of ties within a batch depends
/// on the machine's vector instructions (numpy `argsort`), so that its last few genes may differ where ties are cut.
pub fn rank(overall: &Moments, fits: &[V3Fit], sums: &[ClippedSums], flavor: Flavor, options: &Options) -> Result<HvgV3> {
    options.check()?;
    let n_vars = overall.mean.len();
    check_lengths(overall, n_vars)?;
    if fits.is_empty() || fits.len() != sums.len() {
        return Err(Error::bug(format!("{} fits and {} sums were given to rank", fits.len(), sums.len())));
    }
    if fits.iter().any(|fit| fit.mean.len() != n_vars || fit.reg_std.len() != n_vars)
        || sums.iter().any(|sums| sums.sum.len() != n_vars || sums.squares.len() != n_vars)
    {
        return Err(Error::bug(format!("the fits or sums given to rank are not of {n_vars} genes")));
    }
    if !matches!(flavor, Flavor::SeuratV3 | Flavor::SeuratV3Paper) {
        return Err(Error::bug(format!("{} has no ranks", flavor.name())));
    }
    let mut warnings: Vec<String> = match fits {
        [fit] => fit.warnings.clone(),
        _ => fits.iter().enumerate().flat_map(|(at, fit)| fit.warnings.iter().map(move |text| format!("batch {at}: {text}"))).collect(),
    };
    let n_top_genes = options.n_top_genes.unwrap_or_else(|| {
        warnings.push(format!("n_top_genes is not given: {} chooses {DEFAULT_TOP_GENES}", flavor.name()));
        DEFAULT_TOP_GENES
    });
    let norms: Vec<Vec<f64>> = fits.iter().zip(sums).map(|(fit, sums)| fit.normalised(sums)).collect();
    // Ranks within the top of each batch; the others are left out of the median.
    let mut ranks: Vec<Vec<f32>> = vec![Vec::new(); n_vars];
    for norms in &norms {
        let keys: Vec<f64> = norms.iter().map(|norm| coarse(*norm)).collect();
        let mut order: Vec<usize> = (0..n_vars).collect();
        order.sort_by(|a, b| descending(keys[*a], keys[*b]));
        for (rank, gene) in order.iter().take(n_top_genes).enumerate() {
            ranks[*gene].push(rank as f32);
        }
    }
    let nbatches: Vec<i64> = ranks.iter().map(|ranks| ranks.len() as i64).collect();
    let median: Vec<f32> = ranks.iter_mut().map(|ranks| median(ranks)).collect();
    let by_rank = |a: usize, b: usize| descending(-f64::from(median[a]), -f64::from(median[b]));
    let by_batches = |a: usize, b: usize| nbatches[b].cmp(&nbatches[a]);
    let mut order: Vec<usize> = (0..n_vars).collect();
    match flavor {
        Flavor::SeuratV3Paper => order.sort_by(|a, b| by_batches(*a, *b).then_with(|| by_rank(*a, *b))),
        _ => order.sort_by(|a, b| by_rank(*a, *b).then_with(|| by_batches(*a, *b))),
    }
    let count = norms.len() as f64;
    Ok(HvgV3 {
        highly_variable: first_of(&order, n_top_genes),
        highly_variable_rank: median,
        means: overall.mean.to_vec(),
        variances: overall.var.to_vec(),
        variances_norm: (0..n_vars).map(|gene| norms.iter().map(|norms| norms[gene]).sum::<f64>() / count).collect(),
        highly_variable_nbatches: nbatches,
        warnings,
    })
}

/// The value to 37 significant bits (about 1e-11).
///
/// Genes with the same counts in other cells tie, but sums in another order differ in their last bits: this keeps ties.
pub(super) fn coarse(value: f64) -> f64 {
    const DROPPED: u32 = 16;
    let half = 1 << (DROPPED - 1);
    if value.is_finite() { f64::from_bits((value.to_bits() + half) >> DROPPED << DROPPED) } else { value }
}

/// Median of ranks; NaN of none.
pub(super) fn median(ranks: &mut [f32]) -> f32 {
    ranks.sort_by(f32::total_cmp);
    let half = ranks.len() / 2;
    match ranks.len() {
        0 => f32::NAN,
        n if n % 2 == 1 => ranks[half],
        _ => (ranks[half - 1] + ranks[half]) / 2.0,
    }
}

//! `seurat` and `cell_ranger`: dispersions against those of genes with a similar mean.

use cellmill_matrix::{Error, Result};

use super::bins::{self, Bins};
use super::{Flavor, Hvg, Moments, Options, check_lengths};

/// Stands for a mean of 0, so that dispersions can be formed.
const LEAST_MEAN: f64 = 1e-12;

/// One batch's columns, before they are joined or stored: each (n_vars,).
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) highly_variable: Vec<bool>,
    pub(super) means: Vec<f64>,
    pub(super) dispersions: Vec<f64>,
    pub(super) norms: Vec<f64>,
}

/// Chooses genes from one batch by `seurat` or `cell_ranger`.
///
/// Genes without cells stay in the bins, as in scanpy without a batch key.
pub fn dispersions(moments: &Moments, flavor: Flavor, options: &Options) -> Result<Hvg> {
    let mut warnings = warn_of_options(options);
    let every = vec![true; moments.mean.len()];
    let chosen = choose(moments, &every, flavor, options, "", &mut warnings)?;
    Ok(Hvg {
        highly_variable: chosen.highly_variable,
        means: chosen.means,
        dispersions: chosen.dispersions,
        dispersions_norm: chosen.norms.iter().map(|norm| *norm as f32).collect(),
        nbatches: None,
        intersection: None,
        warnings,
    })
}

/// What the options alone give reason to say.
pub(super) fn warn_of_options(options: &Options) -> Vec<String> {
    let ignored = options.n_top_genes.is_some() && options.has_cutoffs();
    if ignored {
        vec!["If you pass `n_top_genes`, all cutoffs are ignored: min_mean, max_mean, min_disp, max_disp".to_owned()]
    } else {
        Vec::new()
    }
}

/// Chooses among the genes that are `kept`; the others get zeros and are not chosen, as in scanpy.
///
/// `whose` starts the warnings, for example `batch 3: `.
pub(super) fn choose(
    moments: &Moments,
    kept: &[bool],
    flavor: Flavor,
    options: &Options,
    whose: &str,
    warnings: &mut Vec<String>,
) -> Result<Chosen> {
    options.check()?;
    check_lengths(moments, kept.len())?;
    let genes: Vec<usize> = (0..kept.len()).filter(|gene| kept[*gene]).collect();
    let mut means = Vec::with_capacity(genes.len());
    let mut dispersions = Vec::with_capacity(genes.len());
    if moments.n_obs < 2 {
        warnings.push(format!("{whose}fewer than 2 cells: there are no variances, so no gene is chosen"));
    }
    for &gene in &genes {
        // One cell has no variance, whatever the caller stored for it.
        let var = if moments.n_obs < 2 { f64::NAN } else { moments.var[gene] };
        let mean = if moments.mean[gene] == 0.0 { LEAST_MEAN } else { moments.mean[gene] };
        let dispersion = var / mean;
        match flavor {
            Flavor::Seurat => {
                means.push(mean.ln_1p());
                dispersions.push(if dispersion == 0.0 { f64::NAN } else { dispersion.ln() });
            }
            Flavor::CellRanger => {
                means.push(mean);
                dispersions.push(dispersion);
            }
            Flavor::SeuratV3 | Flavor::SeuratV3Paper | Flavor::PearsonResiduals => {
                return Err(Error::bug(format!("{} has no dispersions", flavor.name())));
            }
        }
    }
    let norms = normalise(&means, &dispersions, flavor, options, whose, warnings)?;
    let chosen = select(&means, &norms, options, whose, warnings);
    let mut all = Chosen {
        highly_variable: vec![false; kept.len()],
        means: vec![0.0; kept.len()],
        dispersions: vec![0.0; kept.len()],
        norms: vec![0.0; kept.len()],
    };
    for (at, &gene) in genes.iter().enumerate() {
        all.highly_variable[gene] = chosen[at];
        all.means[gene] = means[at];
        all.dispersions[gene] = dispersions[at];
        all.norms[gene] = norms[at];
    }
    Ok(all)
}

/// Normalised dispersion: (dispersion - centre of its bin) / spread of its bin. NaN where either is missing.
fn normalise(
    means: &[f64],
    dispersions: &[f64],
    flavor: Flavor,
    options: &Options,
    whose: &str,
    warnings: &mut Vec<String>,
) -> Result<Vec<f64>> {
    let bins = match flavor {
        Flavor::Seurat => Bins::equal_width(means, options.n_bins)?,
        _ => Bins::equal_size(means),
    };
    if bins.dropped > 0 {
        let why = "many genes have the same mean, often 0";
        warnings.push(format!("{whose}{} bins of the mean have equal edges ({why}) and were merged; {} remain", bins.dropped, bins.len()));
    }
    let bin_of: Vec<Option<usize>> = means.iter().map(|mean| bins.of(*mean)).collect();
    let mut members: Vec<Vec<f64>> = vec![Vec::new(); bins.len()];
    for (bin, dispersion) in bin_of.iter().zip(dispersions) {
        if let Some(bin) = bin {
            members[*bin].push(*dispersion);
        }
    }
    let centre_and_spread: Vec<(f64, f64)> = members
        .iter()
        .map(|members| match flavor {
            Flavor::Seurat => {
                let mean = bins::mean(members.iter().copied());
                let deviation = bins::deviation(members.iter().copied());
                // A bin of one gene: its normalised dispersion becomes exactly 1.
                if deviation.is_nan() { (0.0, mean) } else { (mean, deviation) }
            }
            _ => {
                let median = bins::median(members.iter().copied());
                (median, bins::absolute_deviation(members.iter().copied(), median))
            }
        })
        .collect();
    let norm = |(bin, dispersion): (&Option<usize>, &f64)| match bin {
        Some(bin) => (dispersion - centre_and_spread[*bin].0) / centre_and_spread[*bin].1,
        None => f64::NAN,
    };
    Ok(bin_of.iter().zip(dispersions).map(norm).collect())
}

/// The genes that the options choose: the `n_top_genes` largest norms (more where the last ones tie), or all in bounds.
fn select(means: &[f64], norms: &[f64], options: &Options, whose: &str, warnings: &mut Vec<String>) -> Vec<bool> {
    let Some(n_top_genes) = options.n_top_genes else {
        return means.iter().zip(norms).map(|(mean, norm)| options.in_bounds(*mean, finite(*norm, 0.0))).collect();
    };
    let mut sorted: Vec<f64> = norms.iter().copied().filter(|norm| !norm.is_nan()).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    if n_top_genes > sorted.len() {
        warnings.push(format!(
            "{whose}`n_top_genes` > number of normalized dispersions, returning all genes with normalized dispersions: {n_top_genes} > {}",
            sorted.len()
        ));
    }
    let Some(&cutoff) = sorted.get(n_top_genes.min(sorted.len()).wrapping_sub(1)) else {
        return vec![false; norms.len()];
    };
    if cutoff == f64::INFINITY {
        let why = "in a bin of the mean, more than half of the genes have the same dispersion";
        warnings.push(format!("{whose}{n_top_genes} or more normalised dispersions are infinite ({why}): as in scanpy, no gene is chosen"));
    }
    norms.iter().map(|norm| finite(*norm, f64::NEG_INFINITY) >= cutoff).collect()
}

/// numpy `nan_to_num`: NaN becomes `nan`, an infinity the largest finite number of its sign.
fn finite(value: f64, nan: f64) -> f64 {
    if value.is_nan() { nan } else { value.clamp(f64::MIN, f64::MAX) }
}

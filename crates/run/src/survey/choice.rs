//! Highly variable genes as columns of var, from moments of each batch.

use cellmill_engine::fold::{ClippedSums, GeneMoments, ResidualSums, Residuals};
use cellmill_engine::host::hvg::{self, Flavor, Options, V3Fit};
use cellmill_kernels::residual::Model;
use cellmill_matrix::{Result, Values, keys};

/// Columns of var under scanpy's names, and what the user should know.
pub type Chosen = (Vec<(&'static str, Values)>, Vec<String>);

/// `seurat` and `cell_ranger`. `moments`: of each batch, on the scale that the flavour looks at. `names`: var's index, if there are batches.
pub fn dispersions(moments: &[GeneMoments], names: Option<&[String]>, flavor: Flavor, options: &Options) -> Result<Chosen> {
    let variances: Vec<Vec<f64>> = moments.iter().map(GeneMoments::variance).collect();
    let moments: Vec<hvg::Moments<'_>> = views(moments, &variances);
    let chosen = match names {
        None => hvg::dispersions(&moments[0], flavor, options)?,
        Some(names) => hvg::dispersions_by_batch(&moments, Some(names), flavor, options)?,
    };
    let mut columns = vec![
        (keys::HIGHLY_VARIABLE, Values::Bool(chosen.highly_variable)),
        (keys::MEANS, Values::F64(chosen.means)),
        (keys::DISPERSIONS, Values::F64(chosen.dispersions)),
        (keys::DISPERSIONS_NORM, Values::F32(chosen.dispersions_norm)),
    ];
    if let (Some(n), Some(all)) = (chosen.nbatches, chosen.intersection) {
        columns.push((keys::HIGHLY_VARIABLE_NBATCHES, Values::I64(n)));
        columns.push((keys::HIGHLY_VARIABLE_INTERSECTION, Values::Bool(all)));
    }
    Ok((columns, chosen.warnings))
}

/// First step of `seurat_v3`: the clip of each gene in each batch, from moments of the raw counts.
pub fn fits(raw: &[GeneMoments], span: f64) -> Result<Vec<V3Fit>> {
    let variances: Vec<Vec<f64>> = raw.iter().map(GeneMoments::variance).collect();
    views(raw, &variances).iter().map(|moments| hvg::fit(moments, span)).collect()
}

/// Second step: ranks from the sums of the clipped counts.
pub fn ranks(
    raw: &[GeneMoments],
    fits: Vec<V3Fit>,
    sums: &ClippedSums,
    batches: bool,
    flavor: Flavor,
    options: &Options,
) -> Result<Chosen> {
    let parts: Vec<(Vec<f64>, Vec<f64>)> =
        sums.iter().map(|b| (b.iter().map(|s| s[0]).collect(), b.iter().map(|s| s[1]).collect())).collect();
    let sums: Vec<hvg::ClippedSums<'_>> = parts.iter().map(|(sum, squares)| hvg::ClippedSums { sum, squares }).collect();
    let (overall, variance) = overall(raw);
    let all = hvg::Moments { n_obs: overall.n_obs, mean: &overall.mean, var: &variance };
    let chosen = hvg::rank(&all, &fits, &sums, flavor, options)?;
    let mut warnings: Vec<String> = fits.into_iter().flat_map(|f| f.warnings).collect();
    warnings.extend(chosen.warnings);
    let mut columns = vec![
        (keys::HIGHLY_VARIABLE, Values::Bool(chosen.highly_variable)),
        (keys::HIGHLY_VARIABLE_RANK, Values::F32(chosen.highly_variable_rank)),
        (keys::MEANS, Values::F64(chosen.means)),
        (keys::VARIANCES, Values::F64(chosen.variances)),
        (keys::VARIANCES_NORM, Values::F64(chosen.variances_norm)),
    ];
    if batches {
        columns.push((keys::HIGHLY_VARIABLE_NBATCHES, Values::I64(chosen.highly_variable_nbatches)));
    }
    Ok((columns, warnings))
}

/// First step of `pearson_residuals`: what the residuals are taken against, from moments of the raw counts.
pub fn expected(raw: &[GeneMoments], model: Model) -> Residuals {
    let share = |m: &GeneMoments| {
        let total: f64 = m.mean.iter().sum();
        m.mean.iter().map(|x| if total > 0.0 { x / total } else { 0.0 }).collect()
    };
    Residuals { share: raw.iter().map(share).collect(), model }
}

/// Second step: ranks by the variance of the residuals.
pub fn residuals(raw: &[GeneMoments], expected: &Residuals, sums: &[ResidualSums], batches: bool, n_top_genes: usize) -> Result<Chosen> {
    let variances: Vec<Vec<f64>> = sums
        .iter()
        .zip(&expected.share)
        .filter(|(sums, _)| sums.n_obs > 0)
        .map(|(sums, share)| {
            let totals: Vec<(f64, f64)> = sums.totals.iter().map(|(bits, n)| (f64::from_bits(*bits), *n as f64)).collect();
            let batch = hvg::PearsonBatch { n_obs: sums.n_obs, share, entries: &sums.entries, totals: &totals };
            hvg::residual_variances(&batch, &expected.model)
        })
        .collect();
    let (overall, variance) = overall(raw);
    let all = hvg::Moments { n_obs: overall.n_obs, mean: &overall.mean, var: &variance };
    let chosen = hvg::rank_residuals(&all, &variances, n_top_genes)?;
    let mut columns = vec![
        (keys::MEANS, Values::F64(chosen.means)),
        (keys::VARIANCES, Values::F64(chosen.variances)),
        (keys::RESIDUAL_VARIANCES, Values::F64(chosen.residual_variances)),
        (keys::HIGHLY_VARIABLE_RANK, Values::F32(chosen.highly_variable_rank)),
    ];
    if batches {
        columns.push((keys::HIGHLY_VARIABLE_NBATCHES, Values::I64(chosen.highly_variable_nbatches)));
        columns.push((keys::HIGHLY_VARIABLE_INTERSECTION, Values::Bool(chosen.highly_variable_intersection)));
    }
    columns.push((keys::HIGHLY_VARIABLE, Values::Bool(chosen.highly_variable)));
    Ok((columns, Vec::new()))
}

/// Moments over all batches, and the variance, ddof 1.
fn overall(raw: &[GeneMoments]) -> (GeneMoments, Vec<f64>) {
    let mut overall = GeneMoments::none(raw.first().map_or(0, |m| m.mean.len()));
    raw.iter().for_each(|b| overall.merge(b));
    let variance = overall.variance();
    (overall, variance)
}

fn views<'a>(moments: &'a [GeneMoments], variances: &'a [Vec<f64>]) -> Vec<hvg::Moments<'a>> {
    moments.iter().zip(variances).map(|(m, var)| hvg::Moments { n_obs: m.n_obs, mean: &m.mean, var }).collect()
}

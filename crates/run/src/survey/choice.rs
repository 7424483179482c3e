//! Highly variable genes as columns of var, from moments of each batch.

use cellmill_engine::fold::{ClippedSums, GeneMoments};
use cellmill_engine::host::hvg::{self, Flavor, Options, V3Fit};
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
    let mut overall = GeneMoments::none(raw.first().map_or(0, |m| m.mean.len()));
    raw.iter().for_each(|b| overall.merge(b));
    let variance = overall.variance();
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

fn views<'a>(moments: &'a [GeneMoments], variances: &'a [Vec<f64>]) -> Vec<hvg::Moments<'a>> {
    moments.iter().zip(variances).map(|(m, var)| hvg::Moments { n_obs: m.n_obs, mean: &m.mean, var }).collect()
}

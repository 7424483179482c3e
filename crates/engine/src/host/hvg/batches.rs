//! `seurat` and `cell_ranger` over batches: genes are chosen in each batch, then the choices are joined.

use std::cmp::Ordering;

use cellmill_matrix::{Error, Place, Result};

use super::bins;
use super::dispersion::{Chosen, choose, warn_of_options};
use super::{Flavor, Hvg, Moments, Options};

/// Chooses genes from the moments of each batch by `seurat` or `cell_ranger`, as scanpy with a batch key.
///
/// A gene without counts in a batch is left out there and counts with zeros in the means over batches. With
/// `n_top_genes` the genes are sorted by the number of batches that chose them, then by their mean normalised
/// dispersion, both descending. `names` (var's index) settles what still ties, as scanpy does; None: the genes' order.
pub fn dispersions_by_batch(batches: &[Moments], names: Option<&[String]>, flavor: Flavor, options: &Options) -> Result<Hvg> {
    let Some(first) = batches.first() else {
        return Err(Error::invalid(Place::default(), "there are no batches", "at least 1 is needed"));
    };
    let n_vars = first.mean.len();
    if let Some(names) = names.filter(|names| names.len() != n_vars) {
        return Err(Error::invalid(Place::default(), format!("there are {} names", names.len()), format!("there are {n_vars} genes")));
    }
    let mut warnings = warn_of_options(options);
    let mut chosen: Vec<Chosen> = Vec::with_capacity(batches.len());
    for (at, batch) in batches.iter().enumerate() {
        let mut kept: Vec<bool> = batch.mean.iter().map(|mean| *mean != 0.0).collect();
        kept.resize(n_vars, true);
        chosen.push(choose(batch, &kept, flavor, options, &format!("batch {at}: "), &mut warnings)?);
    }
    // Means over batches pass over NaN.
    let over = |column: fn(&Chosen) -> &[f64]| -> Vec<f64> {
        (0..n_vars).map(|gene| bins::mean(chosen.iter().map(|batch| column(batch)[gene]))).collect()
    };
    let means = over(|batch| &batch.means);
    let dispersions = over(|batch| &batch.dispersions);
    let mut norms = over(|batch| &batch.norms);
    let nbatches: Vec<i64> = (0..n_vars).map(|gene| chosen.iter().map(|batch| i64::from(batch.highly_variable[gene])).sum()).collect();
    let highly_variable = match options.n_top_genes {
        Some(n_top_genes) => {
            let mut order: Vec<usize> = (0..n_vars).collect();
            if let Some(names) = names {
                order.sort_by(|a, b| names[*a].cmp(&names[*b]));
            }
            order.sort_by(|a, b| nbatches[*b].cmp(&nbatches[*a]).then_with(|| descending(norms[*a], norms[*b])));
            first_of(&order, n_top_genes)
        }
        None => {
            for norm in &mut norms {
                if norm.is_nan() {
                    *norm = 0.0;
                }
            }
            means.iter().zip(&norms).map(|(mean, norm)| options.in_bounds(*mean, *norm)).collect()
        }
    };
    let intersection = nbatches.iter().map(|count| *count == batches.len() as i64).collect();
    Ok(Hvg {
        highly_variable,
        means,
        dispersions,
        dispersions_norm: norms.iter().map(|norm| *norm as f32).collect(),
        nbatches: Some(nbatches),
        intersection: Some(intersection),
        warnings,
    })
}

/// Larger first, NaN last.
pub(super) fn descending(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Marks the first `count` genes of an order.
pub(super) fn first_of(order: &[usize], count: usize) -> Vec<bool> {
    let mut marked = vec![false; order.len()];
    for gene in order.iter().take(count) {
        marked[*gene] = true;
    }
    marked
}

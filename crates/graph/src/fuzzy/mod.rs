//! From distances to a weighted graph: how strongly two cells belong together.
//!
//! Three kinds of weight, all symmetric, without self-loops and without stored zeros: umap-learn's fuzzy set (the default), a Gauss
//! kernel with a width for each cell, and the overlap of neighbourhoods (Jaccard).

mod cuda;
mod exp;
mod gauss;
mod jaccard;
mod smooth;
mod symmetric;
#[cfg(test)]
pub(crate) mod tests;

use cellmill_cuda::Processor;
use cellmill_matrix::{Error, Place, Result};
use rayon::prelude::*;

pub use self::cuda::SOURCE;
use crate::{Connectivities, Distances};

/// Rows that one task works on. Fixed, so that nothing depends on the number of threads.
const ROWS: usize = 1 << 13;

/// Bytes that a thread takes while it joins the edges of some of `n` cells with `k` neighbours each: edges that come in (8 each), and
/// room for the joined ones (8 each, twice as many).
pub fn bytes_in_flight(n: usize, k: usize) -> usize {
    24 * k * n.min(ROWS)
}

/// How distances become weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// umap-learn's fuzzy union of local exponential kernels: [`Method::UMAP`] has its defaults.
    Umap {
        /// 1 (default): fuzzy union `A + A' − A∘A'`; 0: fuzzy intersection `A∘A'`; between: a mixture. In `0..=1`.
        set_op_mix_ratio: f32,
        /// Number of nearest neighbours at weight 1 (default 1); a fraction interpolates. Larger: a more connected graph. ≥ 0.
        local_connectivity: f32,
    },
    /// scanpy's `method="gauss"` (Coifman et al. 2005; Haghverdi et al. 2016), decay within the neighbours.
    Gauss,
    /// Jaccard index of the two neighbourhoods, averaged over both directions (PhenoGraph, Levine et al. 2015).
    Jaccard,
}

impl Method {
    /// umap-learn's defaults.
    pub const UMAP: Method = Method::Umap { set_op_mix_ratio: 1.0, local_connectivity: 1.0 };
}

/// Weights of the graph whose edges are `distances`: `(n, n)`, symmetric to the bit, zero diagonal, no stored zeros.
///
/// Rows of `distances` exclude the cell itself, so umap-learn's and scanpy's `n_neighbors` is `distances.k + 1`.
pub fn connectivities(distances: &Distances, method: Method) -> Result<Connectivities> {
    connectivities_on(distances, method, &Processor::Cpu)
}

/// The same, to the bit; the fuzzy set by a GPU if there is one and it has room.
pub fn connectivities_on(distances: &Distances, method: Method, processor: &Processor) -> Result<Connectivities> {
    check(distances)?;
    match method {
        Method::Umap { set_op_mix_ratio, local_connectivity } => {
            if !(0.0..=1.0).contains(&set_op_mix_ratio) {
                return Err(Error::option("set_op_mix_ratio", set_op_mix_ratio, "it is between 0 (intersection) and 1 (union)"));
            }
            if !(local_connectivity >= 0.0 && local_connectivity.is_finite()) {
                return Err(Error::option("local_connectivity", local_connectivity, "it is a number of neighbours, 0 or more"));
            }
            smooth::umap(distances, set_op_mix_ratio, f64::from(local_connectivity), processor)
        }
        Method::Gauss => gauss::gauss(distances),
        Method::Jaccard => jaccard::jaccard(distances),
    }
}

/// Shapes fit, ids are other cells, distances are finite and not negative.
fn check(distances: &Distances) -> Result<()> {
    let (n, k) = (distances.n(), distances.k);
    let place = |rows| Place { element: Some("obsp/distances".into()), rows, store: None };
    if distances.indices.len() != distances.distances.len() || distances.indices.len() != n * k {
        return Err(Error::invalid(
            place(None),
            format!("{} ids and {} distances in rows of {k}", distances.indices.len(), distances.distances.len()),
            "there is one distance for each id and every row has k of them",
        ));
    }
    if n > u32::MAX as usize {
        return Err(Error::invalid(place(None), format!("{n} cells"), "cells are numbered in 32 bits"));
    }
    if k == 0 {
        return Ok(());
    }
    let wrong = (0..n).into_par_iter().with_min_len(ROWS).find_first(|&i| {
        let span = i * k..(i + 1) * k;
        let ids = distances.indices[span.clone()].iter().fold(true, |ok, &j| ok & ((j as usize) < n) & (j as usize != i));
        !distances.distances[span].iter().fold(ids, |ok, &d| ok & (0.0..f32::INFINITY).contains(&d))
    });
    match wrong {
        None => Ok(()),
        Some(i) => Err(Error::invalid(
            place(Some(i as u64..i as u64 + 1)),
            format!("neighbours {:?} at {:?}", &distances.indices[i * k..(i + 1) * k], &distances.distances[i * k..(i + 1) * k]),
            format!("neighbours are other cells (0..{n}) at finite distances of 0 or more"),
        )),
    }
}

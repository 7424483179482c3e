//! Modularity.

use rayon::prelude::*;

use super::network::{Network, ROWS, Weight};

/// Modularity of `membership` (communities `< n_communities`), 0 for a graph without edges.
///
/// Q = 1/2m Σ_ij (A_ij − γ k_i k_j / 2m) δ(c_i, c_j) (Newman 2004; γ: Reichardt and Bornholdt 2006), as igraph's
/// `modularity(membership, weights, resolution)`.
pub(super) fn modularity<W: Weight>(network: &Network<'_, W>, membership: &[u32], n_communities: usize, resolution: f64) -> f64 {
    if network.total <= 0.0 {
        return 0.0;
    }
    let inside = |task: usize| -> f64 {
        let vertices = task * ROWS..network.n().min((task + 1) * ROWS);
        let own = |v: usize| -> f64 {
            network.edges(v as u32).filter(|&(u, _)| membership[u as usize] == membership[v]).map(|(_, weight)| weight).sum()
        };
        vertices.map(own).sum()
    };
    let inside: Vec<f64> = (0..network.n().div_ceil(ROWS)).into_par_iter().map(inside).collect();
    let mut totals = vec![0.0; n_communities];
    for (&community, &strength) in membership.iter().zip(network.strength) {
        totals[community as usize] += strength;
    }
    let expected: f64 = totals.iter().map(|total| total * (total / network.total)).sum();
    (inside.iter().sum::<f64>() - resolution * expected) / network.total
}

//! Louvain: Leiden without refinement. Communities may be disconnected.

use cellmill_matrix::{Result, Watch};

use crate::Connectivities;
use crate::leiden::network::strengths;
use crate::leiden::{Clustering, Method, Options, level_0, run};

/// Clusters all cells (Blondel, Guillaume, Lambiotte and Lefebvre 2008); `beta` has no meaning here. Iterations after the first start
/// from the clusters of the one before.
pub fn louvain(graph: &Connectivities, options: &Options, watch: &dyn Watch) -> Result<Clustering> {
    let strength = strengths(graph)?;
    run(&level_0(graph, &strength), options, Method::Louvain, None, watch)
}

//! Leiden: communities of cells in the weighted graph that maximise modularity.
//!
//! Traag, Waltman and van Eck, "From Louvain to Leiden", 2019. An iteration moves vertices (`local_move`), splits the communities
//! into well-connected clusters (`refine`), makes these the vertices of a smaller graph (`aggregate`) and goes on there until
//! each community is one vertex. The next iteration starts from the communities found. Every community is connected.
//!
//! Threads plan the moves of a batch of vertices against a frozen state; commits are serial (`visit`). The result depends on
//! graph, options and seed, not on the number of threads. A GPU does the phases of large levels in its own way (`cuda`), with clusters
//! that are as good and the same in every run.

pub(crate) mod aggregate;
mod components;
mod cuda;
mod labels;
mod local_move;
pub(crate) mod network;
mod pending;
mod quality;
mod random;
mod refine;
mod subset;
pub(crate) mod table;
mod visit;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;

use cellmill_cuda::Processor;
use cellmill_matrix::{Error, Result, Watch};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Connectivities;
use aggregate::aggregate;
use cuda::DeviceNetwork;
pub(crate) use cuda::SOURCES;
use network::{Coarse, Network, Weight, strengths};
use random::mix;
use visit::{Pace, batch_size};

/// How to cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// γ of modularity, 1 by default, ≥ 0. Larger values give more, smaller clusters.
    pub resolution: f64,
    /// Full runs over all levels, each starting from the clusters of the one before: 2 by default. A negative number runs until
    /// nothing changes.
    pub n_iterations: i32,
    /// Decides the order in which vertices are visited.
    pub seed: u64,
    /// Temperature of the merges in the refinement, in units of edge weight (igraph's default is 0.01): larger values explore more.
    /// `None`, the default, takes the best merge.
    pub beta: Option<f64>,
    /// Runs from the start with different orders, of which the one with the largest modularity is kept. `None`, the default: 8 for a graph
    /// of fewer than 2^14 cells, where modularity varies by some 0.002 with the order, 1 for a larger one.
    pub n_starts: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options { resolution: 1.0, n_iterations: 2, seed: 0, beta: None, n_starts: None }
    }
}

impl Options {
    /// Checks the values.
    fn check(&self) -> Result<()> {
        if !(self.resolution.is_finite() && self.resolution >= 0.0) {
            return Err(Error::option("resolution", self.resolution, "it is a finite number, at least 0"));
        }
        if self.n_iterations == 0 {
            return Err(Error::option("n_iterations", 0, "it is a number above 0, or -1 to run until nothing changes"));
        }
        if let Some(beta) = self.beta.filter(|beta| !(beta.is_finite() && *beta > 0.0)) {
            return Err(Error::option("beta", beta, "it is a finite number above 0"));
        }
        if self.n_starts == Some(0) {
            return Err(Error::option("n_starts", 0, "it is a number above 0"));
        }
        Ok(())
    }
}

/// In the first of several iterations, a round over a large level that moves a smaller share of its vertices is the last: what is left costs
/// many rounds there and few on the next level, and the next iteration comes back to it.
const ENOUGH: f64 = 0.1;
/// Graphs with fewer cells are started several times.
const SMALL: usize = 1 << 14;
/// How often.
const STARTS: u32 = 8;

/// Clusters of cells.
#[derive(Clone, Debug, PartialEq)]
pub struct Clustering {
    /// Cluster of each cell, 0 the largest, ties by smallest member: `(n,)`.
    pub labels: Vec<u32>,
    /// Number of clusters.
    pub n_clusters: usize,
    /// Weighted modularity at the resolution asked for (igraph's formula); 0 for a graph without edges.
    pub modularity: f64,
    /// Modularity after each iteration that was run; never falls.
    pub history: Vec<f64>,
}

/// Clusters all cells. Isolated cells are clusters of their own. The graph must be symmetric.
pub fn leiden(graph: &Connectivities, options: &Options, watch: &dyn Watch) -> Result<Clustering> {
    options.check()?;
    let strength = strengths(graph)?;
    run(&level_0(graph, &strength), options, Method::Leiden, None, watch)
}

/// Clusters all cells at each resolution; each result equals that of [`leiden`] at this resolution.
pub fn leiden_many(graph: &Connectivities, resolutions: &[f64], options: &Options, watch: &dyn Watch) -> Result<Vec<Clustering>> {
    leiden_on(graph, resolutions, options, &Processor::Cpu, watch)
}

/// [`leiden_many`] on a processor. A GPU finds other clusters than the CPU, whose modularity is within 0.002 of theirs.
pub fn leiden_on(
    graph: &Connectivities,
    resolutions: &[f64],
    options: &Options,
    processor: &Processor,
    watch: &dyn Watch,
) -> Result<Vec<Clustering>> {
    let each: Vec<Options> = resolutions.iter().map(|&resolution| Options { resolution, ..options.clone() }).collect();
    each.iter().try_for_each(Options::check)?;
    let strength = strengths(graph)?;
    let network = level_0(graph, &strength);
    let gpu = match processor.device().filter(|_| options.beta.is_none()) {
        Some(device) => DeviceNetwork::new(device, &network)?,
        None => None,
    };
    let mut all = Vec::with_capacity(each.len());
    // A few at a time: while one commits its moves, threads plan for the others.
    for some in each.chunks(AT_A_TIME) {
        let found: Vec<Clustering> = some
            .par_iter()
            .with_max_len(1)
            .map(|options| run(&network, options, Method::Leiden, gpu.as_ref(), watch))
            .collect::<Result<_>>()?;
        all.extend(found);
    }
    Ok(all)
}

/// Resolutions that are clustered side by side; each needs some 100 bytes a cell.
const AT_A_TIME: usize = 4;

/// The graph between the cells with `keep`, renumbered in their order.
pub fn within(graph: &Connectivities, keep: &[bool]) -> Result<Connectivities> {
    subset::subset(graph, keep)
}

/// Clusters the cells with `keep` by the graph between them; `labels` follow the order of these cells.
pub fn leiden_within(graph: &Connectivities, keep: &[bool], options: &Options, watch: &dyn Watch) -> Result<Clustering> {
    leiden(&within(graph, keep)?, options, watch)
}

/// Modularity of any labels (`(n,)`, 0-based without large gaps) at a resolution: igraph's weighted formula.
pub fn modularity(graph: &Connectivities, labels: &[u32], resolution: f64) -> Result<f64> {
    let strength = strengths(graph)?;
    if labels.len() != strength.len() {
        let found = format!("{} labels", labels.len());
        return Err(Error::invalid(Default::default(), found, format!("the graph has {} cells", strength.len())));
    }
    let n_clusters = labels.iter().max().map_or(0, |&most| most as usize + 1);
    Ok(quality::modularity(&level_0(graph, &strength), labels, n_clusters, resolution))
}

/// The cells' graph as level 0.
pub(crate) fn level_0<'a>(graph: &'a Connectivities, strength: &'a [f64]) -> Network<'a, f32> {
    Network { indptr: &graph.indptr, indices: &graph.indices, weights: &graph.weights, strength, total: strength.iter().sum() }
}

/// Whether communities are refined before they are aggregated.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Method {
    Leiden,
    Louvain,
}

/// Runs the iterations, inside the caller's pool.
pub(crate) fn run(
    network: &Network<'_, f32>,
    options: &Options,
    method: Method,
    gpu: Option<&DeviceNetwork<f32>>,
    watch: &dyn Watch,
) -> Result<Clustering> {
    options.check()?;
    let n_starts = options.n_starts.unwrap_or(if network.n() < SMALL { STARTS } else { 1 });
    // One entry into the pool, rather than one for each batch.
    rayon::scope(|_| {
        if n_starts == 1 {
            return iterate(network, options, method, gpu, watch);
        }
        let one =
            |start: u32| iterate(network, &Options { seed: mix(options.seed, u64::from(start)), ..options.clone() }, method, gpu, watch);
        let found: Vec<Clustering> = (0..n_starts).into_par_iter().with_max_len(1).map(one).collect::<Result<_>>()?;
        // The first of the best.
        let best = found.into_iter().reduce(|best, next| if next.modularity > best.modularity { next } else { best });
        best.ok_or_else(|| Error::bug("no start was made"))
    })
}

fn iterate(
    network: &Network<'_, f32>,
    options: &Options,
    method: Method,
    gpu: Option<&DeviceNetwork<f32>>,
    watch: &dyn Watch,
) -> Result<Clustering> {
    let limit = u64::try_from(options.n_iterations).unwrap_or(0);
    let mut membership: Vec<u32> = (0..network.n() as u32).collect();
    let mut n_clusters = membership.len();
    let mut history: Vec<f64> = Vec::new();
    for iteration in 0.. {
        let note = history.last().map_or_else(String::new, |q| format!("modularity {q:.4}"));
        let tick = || watch.tick(iteration, limit, &note);
        tick()?;
        let before = membership.clone();
        let first = iteration == 0 && limit != 1;
        let level = Level { options, method, gpu, key: mix(options.seed, iteration), first, tick: &tick };
        level.descend(network, &mut membership)?;
        n_clusters = labels::compact(&mut membership);
        let q = quality::modularity(network, &membership, n_clusters, options.resolution);
        let stable = membership == before || history.last().is_some_and(|last| q - last < 1e-12);
        history.push(q);
        if iteration + 1 == limit || limit == 0 && stable {
            watch.tick(iteration + 1, limit, &format!("modularity {q:.4}"))?;
            break;
        }
    }
    labels::by_size(&mut membership);
    Ok(Clustering { labels: membership, n_clusters, modularity: history.last().copied().unwrap_or(0.0), history })
}

/// What every level of an iteration needs.
struct Level<'a> {
    options: &'a Options,
    method: Method,
    gpu: Option<&'a DeviceNetwork<f32>>,
    key: u64,
    /// Whether this is the first of several iterations: what is left undone on a large level, the next one does.
    first: bool,
    tick: &'a dyn Fn() -> Result<()>,
}

impl Level<'_> {
    /// One iteration over all levels: improves the cells' `membership`.
    fn descend(&self, network: &Network<'_, f32>, membership: &mut [u32]) -> Result<()> {
        let Some(mut next) = self.step(network, membership, 0, self.gpu)? else { return Ok(()) };
        let mut place = std::mem::take(&mut next.groups);
        for depth in 1.. {
            let Step { coarse, on_gpu, membership: above, .. } = &mut next;
            let Some(step) = self.step(&coarse.network(), above, depth, on_gpu.as_ref())? else { break };
            next = step;
            for vertex in &mut place {
                *vertex = next.groups[*vertex as usize];
            }
        }
        for (community, &vertex) in membership.iter_mut().zip(&place) {
            *community = next.membership[vertex as usize];
        }
        Ok(())
    }

    /// One level: moves vertices and, unless each community is one vertex, makes the next level. A level that was made on a GPU has its
    /// edges there alone.
    fn step<W: Weight>(
        &self,
        network: &Network<'_, W>,
        membership: &mut [u32],
        depth: u64,
        on_gpu: Option<&DeviceNetwork<W>>,
    ) -> Result<Option<Step>> {
        (self.tick)()?;
        let key = mix(self.key, depth);
        let resolution = self.options.resolution;
        let pace = |phase: u64, enough: f64| Pace { key: mix(key, phase), size: batch_size(network.n()), enough, tick: self.tick };
        let pace_0 = pace(0, if self.first { ENOUGH } else { 0.0 });
        match on_gpu {
            Some(network) => network.local_move(membership, resolution, &pace_0)?,
            None => local_move::local_move(network, membership, resolution, &pace_0).map(|_| ())?,
        }
        let n_communities = labels::compact(membership);
        if n_communities == network.n() {
            return Ok(None);
        }
        let (groups, communities) = match self.method {
            Method::Louvain => (membership.to_vec(), (0..n_communities as u32).collect()),
            Method::Leiden => {
                let rule = refine::Rule { resolution, beta: self.options.beta };
                let mut place = match on_gpu {
                    Some(network) => network.refine(membership, resolution, &pace(1, 0.0))?,
                    None => refine::refine(network, membership, n_communities, rule, &pace(1, 0.0))?,
                };
                let (groups, communities) = labels::by_community(&place, n_communities);
                if communities.len() < network.n() {
                    (groups, communities)
                } else {
                    // No merge passed the rules: go on with the connected parts of the communities.
                    let parts = match on_gpu {
                        None => components::components(network, membership),
                        Some(on_gpu) => {
                            let (indptr, indices, weights) = &on_gpu.edges()?;
                            components::components(&Network { indptr, indices, weights, ..*network }, membership)
                        }
                    };
                    for (place, part) in place.iter_mut().zip(parts) {
                        place.1 = part;
                    }
                    let (groups, communities) = labels::by_community(&place, n_communities);
                    if communities.len() == network.n() {
                        membership.iter_mut().zip(0..).for_each(|(community, v)| *community = v);
                        return Ok(None);
                    }
                    (groups, communities)
                }
            }
        };
        let made = match on_gpu {
            Some(on_gpu) => on_gpu.aggregate(&groups, communities.len(), network.strength)?,
            None => None,
        };
        let (coarse, on_gpu) = match (made, on_gpu) {
            (Some(made), _) => made,
            (None, None) => (aggregate(network, &groups, communities.len()), None),
            (None, Some(on_gpu)) => {
                let (indptr, indices, weights) = &on_gpu.edges()?;
                (aggregate(&Network { indptr, indices, weights, ..*network }, &groups, communities.len()), None)
            }
        };
        Ok(Some(Step { coarse, on_gpu, groups, membership: communities }))
    }
}

/// The next level.
struct Step {
    coarse: Coarse,
    on_gpu: Option<DeviceNetwork<f64>>,
    /// Vertex of the next level in which each vertex of this one lies.
    groups: Vec<u32>,
    /// Community of each vertex of the next level.
    membership: Vec<u32>,
}

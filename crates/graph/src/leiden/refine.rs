//! Refinement: each community is rebuilt from single vertices, inside its borders, by merges that keep clusters well connected.

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::network::{Network, ROWS, Weight};
use super::pending::Pending;
use super::random::{mix, unit};
use super::table::Table;
use super::visit::{Outcome, Pace, Visit, visit};

/// Splits each community (`membership`, numbers `< n_communities`) into connected, well-connected clusters. Returns the cluster of each
/// vertex, named after its first vertex, and the communities' numbers once more beside it: `(n,)` of (community, cluster).
pub(super) fn refine<W: Weight>(
    network: &Network<'_, W>,
    membership: &[u32],
    n_communities: usize,
    rule: Rule,
    pace: &Pace<'_>,
) -> Result<Vec<(u32, u32)>> {
    let n = network.n();
    let null = if network.total > 0.0 { rule.resolution / network.total } else { 0.0 };
    let mut community_totals = vec![0.0; n_communities];
    for (&community, &strength) in membership.iter().zip(network.strength) {
        community_totals[community as usize] += strength;
    }
    // e(v, S − v) of each vertex in its community S.
    let inside = |v: usize| -> f64 {
        network.edges(v as u32).filter(|&(u, _)| membership[u as usize] == membership[v]).map(|(_, weight)| weight).sum()
    };
    let inside: Vec<f64> = (0..n).into_par_iter().with_min_len(ROWS / 8).map(inside).collect();
    let pending = Pending::none(n);
    for v in 0..n {
        let (strength, total) = (network.strength[v], community_totals[membership[v] as usize]);
        if inside[v] > 0.0 && inside[v] >= null * strength * (total - strength) {
            pending.add(v as u32);
        }
    }
    let mut merging = Merging {
        network,
        place: membership.iter().enumerate().map(|(v, &community)| (community, v as u32)).collect(),
        community_totals,
        totals: network.strength.to_vec(),
        outside: inside.clone(),
        inside,
        sizes: vec![1; n],
        null,
        beta: rule.beta,
        key: pace.key,
    };
    visit(network, &mut merging, pending, pace)?;
    Ok(merging.place)
}

/// How clusters are chosen.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    /// γ.
    pub resolution: f64,
    /// Temperature of the choice, in units of edge weight; `None` takes the best.
    pub beta: Option<f64>,
}

/// The state of the phase.
struct Merging<'a, W> {
    network: &'a Network<'a, W>,
    /// (community, cluster) of each vertex, side by side because both are asked for.
    place: Vec<(u32, u32)>,
    /// Strength of each community.
    community_totals: Vec<f64>,
    /// Strength of each cluster.
    totals: Vec<f64>,
    /// Weight of the edges from each vertex to the rest of its community.
    inside: Vec<f64>,
    /// Weight of the edges from each cluster to the rest of its community.
    outside: Vec<f64>,
    /// Vertices in each cluster.
    sizes: Vec<u32>,
    /// γ / 2m.
    null: f64,
    beta: Option<f64>,
    key: u64,
}

/// Which cluster a vertex wants to join, and the weight of its edges to it.
#[derive(Clone, Copy)]
struct Join {
    to: u32,
    there: f64,
}

// Traag, Waltman and van Eck 2019, Algorithm A.2, MergeNodesSubset: a vertex that is still alone joins a cluster C of its community S
// with e(C, S − C) >= γ K_C (K_S − K_C) / 2m, if e(v, C) − γ k_v K_C / 2m >= 0.
impl<W: Weight> Visit for Merging<'_, W> {
    type Plan = Join;

    fn plan(&self, v: u32, table: &mut Table) -> Option<Join> {
        let (community, cluster) = self.place[v as usize];
        if cluster != v || self.sizes[v as usize] != 1 {
            return None;
        }
        let (neighbours, _) = self.network.row(v);
        table.clear(neighbours.len());
        for (u, weight) in self.network.edges(v) {
            let (its_community, its_cluster) = self.place[u as usize];
            if its_community == community {
                table.add(its_cluster, weight);
            }
        }
        let open = || {
            table.iter().map(|(to, there)| (Join { to, there }, self.gain(v, to, there))).filter(|&(join, _)| self.open(join.to, community))
        };
        let mut best: Option<(Join, f64)> = None;
        for (join, gain) in open() {
            if gain >= 0.0 && best.is_none_or(|(_, most)| gain > most) {
                best = Some((join, gain));
            }
        }
        let ((best, most), Some(beta)) = (best?, self.beta) else { return best.map(|(join, _)| join) };
        // Probability ~ exp(gain / β) among the gains >= 0; staying alone gains 0. Taken relative to the largest, so that nothing overflows.
        let chances = || open().filter(|&(_, gain)| gain >= 0.0).map(|(join, gain)| (join, ((gain - most) / beta).exp()));
        let alone = (-most / beta).exp();
        let mut left = unit(mix(mix(self.key, u64::from(v)), 1)) * (alone + chances().map(|(_, chance)| chance).sum::<f64>());
        if left < alone {
            return None;
        }
        left -= alone;
        for (join, chance) in chances() {
            if left < chance {
                return Some(join);
            }
            left -= chance;
        }
        Some(best)
    }

    fn commit(&mut self, v: u32, Join { to, there }: Join) -> Outcome {
        if self.sizes[v as usize] != 1 {
            return Outcome::Never;
        }
        if self.sizes[to as usize] == 0 || !self.open(to, self.place[v as usize].0) || self.gain(v, to, there) < 0.0 {
            return Outcome::Again;
        }
        self.sizes[v as usize] = 0;
        self.sizes[to as usize] += 1;
        self.totals[to as usize] += self.network.strength[v as usize];
        self.outside[to as usize] += self.inside[v as usize] - 2.0 * there;
        self.place[v as usize].1 = to;
        Outcome::Done
    }

    fn stirs(&self, _: u32, _: u32) -> bool {
        false
    }
}

impl<W: Weight> Merging<'_, W> {
    /// What joining the cluster is worth to the vertex.
    fn gain(&self, v: u32, to: u32, there: f64) -> f64 {
        there - self.null * self.network.strength[v as usize] * self.totals[to as usize]
    }

    /// Whether the cluster is well connected to the rest of the community.
    fn open(&self, cluster: u32, community: u32) -> bool {
        let total = self.totals[cluster as usize];
        self.outside[cluster as usize] >= self.null * total * (self.community_totals[community as usize] - total)
    }
}

//! Fast local moving: vertices go to the neighbouring community that gains most modularity, until none wants to go.

use cellmill_matrix::Result;

use super::network::{Network, Weight};
use super::pending::Pending;
use super::table::Table;
use super::visit::{Outcome, Pace, Visit, visit};

/// Instead of a community: a new one for the vertex alone.
const ALONE: u32 = u32::MAX;

/// Gains below this share of a vertex's strength are rounding errors; acting on them could go in circles.
pub(super) const NOISE: f64 = 1e-12;

/// Moves the vertices of `network`, starting from `membership` (communities `< n`), and returns the number of moves.
pub(super) fn local_move<W: Weight>(network: &Network<'_, W>, membership: &mut [u32], resolution: f64, pace: &Pace<'_>) -> Result<u64> {
    let n = network.n();
    let mut totals = vec![0.0; n];
    let mut sizes = vec![0u32; n];
    for (&community, &strength) in membership.iter().zip(network.strength) {
        totals[community as usize] += strength;
        sizes[community as usize] += 1;
    }
    let empty = (0..n as u32).rev().filter(|&c| sizes[c as usize] == 0).collect();
    let null = if network.total > 0.0 { resolution / network.total } else { 0.0 };
    let mut moving = Moving { network, membership, totals, sizes, empty, null };
    visit(network, &mut moving, Pending::all(n), pace)
}

/// The state of the phase.
struct Moving<'a, W> {
    network: &'a Network<'a, W>,
    membership: &'a mut [u32],
    /// Strength of each community.
    totals: Vec<f64>,
    /// Vertices in each community.
    sizes: Vec<u32>,
    /// Communities without vertices.
    empty: Vec<u32>,
    /// γ / 2m.
    null: f64,
}

/// Where a vertex wants to go.
#[derive(Clone, Copy)]
struct Move {
    to: u32,
    /// Weight of its edges to the community that it leaves.
    here: f64,
    /// Weight of its edges to the community that it joins.
    there: f64,
}

impl<W: Weight> Visit for Moving<'_, W> {
    type Plan = Move;

    // Joining C adds e(v, C) − γ k_v K_C / 2m to m Q, with K_C without v (Traag, Waltman and van Eck 2019, Algorithm A.2).
    fn plan(&self, v: u32, table: &mut Table) -> Option<Move> {
        let (neighbours, _) = self.network.row(v);
        table.clear(neighbours.len());
        for (u, weight) in self.network.edges(v) {
            table.add(self.membership[u as usize], weight);
        }
        let strength = self.network.strength[v as usize];
        let own = self.membership[v as usize];
        let mut best = Move { to: own, here: table.get(own), there: 0.0 };
        let mut value = self.stay(v, best.here) + NOISE * strength;
        for (community, weight) in table.iter().filter(|&(community, _)| community != own) {
            let other = weight - self.null * strength * self.totals[community as usize];
            if other > value {
                (best.to, best.there, value) = (community, weight, other);
            }
        }
        if value < 0.0 && self.sizes[own as usize] > 1 {
            (best.to, best.there) = (ALONE, 0.0);
        }
        (best.to != own).then_some(best)
    }

    fn commit(&mut self, v: u32, plan: Move) -> Outcome {
        let strength = self.network.strength[v as usize];
        let own = self.membership[v as usize];
        let total = if plan.to == ALONE { 0.0 } else { self.totals[plan.to as usize] };
        if plan.there - self.null * strength * total <= self.stay(v, plan.here) + NOISE * strength {
            return Outcome::Again;
        }
        let to = match (plan.to, self.empty.last()) {
            (ALONE, Some(&empty)) => {
                self.empty.pop();
                empty
            }
            // With no empty community every vertex is alone already.
            (ALONE, None) => return Outcome::Again,
            (to, _) => to,
        };
        self.sizes[own as usize] -= 1;
        if self.sizes[own as usize] == 0 {
            self.totals[own as usize] = 0.0;
            self.empty.push(own);
        } else {
            self.totals[own as usize] -= strength;
        }
        self.sizes[to as usize] += 1;
        self.totals[to as usize] += strength;
        self.membership[v as usize] = to;
        Outcome::Done
    }

    fn stirs(&self, v: u32, u: u32) -> bool {
        self.membership[u as usize] != self.membership[v as usize]
    }
}

impl<W: Weight> Moving<'_, W> {
    /// What staying is worth.
    fn stay(&self, v: u32, here: f64) -> f64 {
        let strength = self.network.strength[v as usize];
        here - self.null * strength * (self.totals[self.membership[v as usize] as usize] - strength)
    }
}

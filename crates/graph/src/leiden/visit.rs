//! Visiting vertices in batches: planned by threads against a frozen state, committed one by one.
//!
//! A serial Leiden visits one vertex after the other. Here a batch of about n / 128 vertices is planned at once. Of those that
//! want to change, one whose neighbour with a smaller number wants to change as well waits and is planned again after it, so that
//! the sums around every vertex that does change are exact. Commits run in order and check each plan against the current totals of
//! the communities: no change is made that a serial run would refuse. Nothing here depends on the number of threads.

use std::collections::VecDeque;

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::network::{Network, Weight};
use super::pending::{Batches, Pending};
use super::random::mix;
use super::table::Table;

/// Graphs below this size are visited one vertex at a time: nothing is gained by threads there.
const SERIAL: usize = 1 << 14;
/// A batch holds one vertex in this many: with some 20 neighbours a vertex about one in six meets another of its batch.
const PARTS: usize = 128;
/// Most vertices in a batch, so that its rows stay in cache between planning and commit.
const LARGEST: usize = 1 << 15;
/// Vertices a task: long enough to hide the cost of a task, short enough for 16 threads to share a batch.
const TASK: usize = 32;
/// Batches are reported to the watcher after this many vertices.
const REPORT: usize = 1 << 16;

/// How a phase goes through the vertices.
pub(super) struct Pace<'a> {
    /// Decides the order.
    pub key: u64,
    /// Vertices in a batch, about; 1 visits one after the other.
    pub size: usize,
    /// Ends with the first round that changes a smaller share of all vertices, though some are left to be visited.
    pub enough: f64,
    /// Called now and then.
    pub tick: &'a dyn Fn() -> Result<()>,
}

/// Vertices in a batch of a graph of `n`.
pub(super) fn batch_size(n: usize) -> usize {
    if n < SERIAL { 1 } else { (n / PARTS).min(LARGEST) }
}

/// What became of a plan.
pub(super) enum Outcome {
    /// The vertex changed.
    Done,
    /// The state no longer allows the plan: visit again.
    Again,
    /// The vertex can never change.
    Never,
}

/// What a phase does with a vertex.
pub(super) trait Visit: Sync {
    /// The change that a vertex wants.
    type Plan: Copy + Send + Sync;

    /// What `v` wants in this state; `None` to stay.
    fn plan(&self, v: u32, table: &mut Table) -> Option<Self::Plan>;

    /// Changes `v` if the plan still holds in this state.
    fn commit(&mut self, v: u32, plan: Self::Plan) -> Outcome;

    /// Whether a neighbour `u` of `v`, which has just changed, has to be visited (again).
    fn stirs(&self, v: u32, u: u32) -> bool;
}

/// Visits pending vertices until none is left, or few want to change, and returns how many changes were made.
pub(super) fn visit<W: Weight, V: Visit>(network: &Network<'_, W>, phase: &mut V, mut pending: Pending, pace: &Pace<'_>) -> Result<u64> {
    let n = network.n();
    if pace.size <= 1 {
        return in_turn(network, phase, pending, pace);
    }
    let mut claims = Pending::none(n);
    let mut batches = Batches::default();
    let mut waiting: Vec<u32> = Vec::new();
    let mut plans: Vec<Option<V::Plan>> = Vec::new();
    let mut wanting: Vec<(u32, V::Plan, bool)> = Vec::new();
    let mut changed: Vec<u32> = Vec::new();
    let mut table = Table::default();
    let (mut n_changes, mut since) = (0u64, 0usize);
    for round in 0.. {
        batches.deal(&pending, pace.size, mix(pace.key, round));
        let before = n_changes;
        let mut any = false;
        for batch in batches.iter() {
            any = true;
            since += batch.len();
            if since >= REPORT {
                since = 0;
                (pace.tick)()?;
            }
            for &v in batch {
                pending.remove(v);
            }
            waiting.clear();
            waiting.extend_from_slice(batch);
            while !waiting.is_empty() {
                plan(phase, &waiting, &mut table, &mut plans);
                wanting.clear();
                wanting.extend(waiting.iter().zip(&plans).filter_map(|(&v, plan)| plan.map(|plan| (v, plan, false))));
                waiting.clear();
                if batch.len() > 1 {
                    for &(v, ..) in &wanting {
                        claims.add(v);
                    }
                    each(&mut wanting, |(v, _, waits)| *waits = network.row(*v).0.iter().take_while(|&u| u < v).any(|&u| claims.holds(u)));
                }
                changed.clear();
                for &(v, plan, waits) in &wanting {
                    claims.remove(v);
                    if waits {
                        waiting.push(v);
                        continue;
                    }
                    match phase.commit(v, plan) {
                        Outcome::Done => changed.push(v),
                        Outcome::Again => pending.add(v),
                        Outcome::Never => {}
                    }
                }
                n_changes += changed.len() as u64;
                let phase = &*phase;
                each(&mut changed, |v| network.row(*v).0.iter().filter(|&&u| phase.stirs(*v, u)).for_each(|&u| pending.add(u)));
            }
        }
        if !any || ((n_changes - before) as f64) < pace.enough * n as f64 {
            break;
        }
    }
    Ok(n_changes)
}

/// Visits pending vertices one at a time, first come, first served.
fn in_turn<W: Weight, V: Visit>(network: &Network<'_, W>, phase: &mut V, mut pending: Pending, pace: &Pace<'_>) -> Result<u64> {
    let mut order = Batches::default();
    order.deal(&pending, 1, pace.key);
    let mut queue: VecDeque<u32> = order.iter().flatten().copied().collect();
    let mut table = Table::default();
    let (mut n_changes, mut n_visits) = (0u64, 0usize);
    while let Some(v) = queue.pop_front() {
        n_visits += 1;
        if n_visits.is_multiple_of(REPORT) {
            (pace.tick)()?;
        }
        pending.remove(v);
        let Some(plan) = phase.plan(v, &mut table) else { continue };
        if let Outcome::Done = phase.commit(v, plan) {
            n_changes += 1;
            for &u in network.row(v).0 {
                if phase.stirs(v, u) && !pending.holds(u) {
                    pending.add(u);
                    queue.push_back(u);
                }
            }
        }
    }
    Ok(n_changes)
}

/// Plans for every vertex, by threads if there are many.
fn plan<V: Visit>(phase: &V, vertices: &[u32], table: &mut Table, plans: &mut Vec<Option<V::Plan>>) {
    plans.clear();
    if vertices.len() <= TASK {
        plans.extend(vertices.iter().map(|&v| phase.plan(v, table)));
    } else {
        let plan = |table: &mut Table, &v: &u32| phase.plan(v, table);
        vertices.par_iter().with_min_len(TASK).map_init(Table::default, plan).collect_into_vec(plans);
    }
}

/// Applies `f` to every item, by threads if there are many.
fn each<T: Send>(items: &mut [T], f: impl Fn(&mut T) + Sync + Send) {
    if items.len() <= TASK {
        items.iter_mut().for_each(f);
    } else {
        items.par_iter_mut().with_min_len(TASK).for_each(f);
    }
}

//! Aggregation: groups of vertices become the vertices of the next level.

use rayon::prelude::*;

use super::network::{Coarse, Network, Weight};
use super::table::Table;

/// Groups a task.
const GROUPS: usize = 64;

/// Vertices sorted by group.
pub(crate) struct Members {
    starts: Vec<usize>,
    vertices: Vec<u32>,
}

impl Members {
    /// Sorts vertices by `groups` (`< n_groups`), ascending inside a group.
    pub fn new(groups: &[u32], n_groups: usize) -> Self {
        let mut starts = vec![0usize; n_groups + 1];
        for &group in groups {
            starts[group as usize + 1] += 1;
        }
        for g in 0..n_groups {
            starts[g + 1] += starts[g];
        }
        let mut next = starts.clone();
        let mut vertices = vec![0u32; groups.len()];
        for (v, &group) in groups.iter().enumerate() {
            let at = &mut next[group as usize];
            vertices[*at] = v as u32;
            *at += 1;
        }
        Members { starts, vertices }
    }

    /// Number of groups.
    pub fn n(&self) -> usize {
        self.starts.len() - 1
    }

    /// The vertices of a group.
    pub fn of(&self, group: usize) -> &[u32] {
        &self.vertices[self.starts[group]..self.starts[group + 1]]
    }
}

/// Lengths of some rows, and their entries.
type Rows = (Vec<u64>, Vec<(u32, f64)>);

/// Rows of summed weights between different groups: (row starts, group, sum), groups ascending in a row.
pub(crate) fn fold<I: Iterator<Item = (u32, f64)>>(
    members: &Members,
    groups: &[u32],
    edges: impl Fn(u32) -> I + Sync,
) -> (Vec<u64>, Vec<u32>, Vec<f64>) {
    let n = members.n();
    let part = |table: &mut Table, task: usize| {
        let (mut lens, mut rows, mut order) = (Vec::with_capacity(GROUPS), Vec::new(), Vec::new());
        for group in task * GROUPS..n.min((task + 1) * GROUPS) {
            let own = group as u32;
            table.start();
            for &v in members.of(group) {
                for (u, weight) in edges(v) {
                    let other = groups[u as usize];
                    if other != own {
                        table.grow();
                        table.add(other, weight);
                    }
                }
            }
            order.clear();
            order.extend(table.iter());
            order.sort_unstable_by_key(|entry| entry.0);
            lens.push(order.len() as u64);
            rows.extend_from_slice(&order);
        }
        (lens, rows)
    };
    let parts: Vec<Rows> = (0..n.div_ceil(GROUPS)).into_par_iter().map_init(Table::default, part).collect();
    let mut indptr = Vec::with_capacity(n + 1);
    let mut end = 0u64;
    indptr.push(0);
    for len in parts.iter().flat_map(|(lens, _)| lens) {
        end += len;
        indptr.push(end);
    }
    let (mut indices, mut sums) = (vec![0u32; end as usize], vec![0f64; end as usize]);
    let mut pieces = Vec::with_capacity(parts.len());
    let (mut rest, mut rest_sums) = (&mut indices[..], &mut sums[..]);
    for (_, rows) in parts {
        let (piece, after) = rest.split_at_mut(rows.len());
        let (piece_sums, after_sums) = rest_sums.split_at_mut(rows.len());
        pieces.push((rows, piece, piece_sums));
        (rest, rest_sums) = (after, after_sums);
    }
    pieces.into_par_iter().for_each(|(rows, indices, sums)| {
        for ((index, sum), row) in indices.iter_mut().zip(sums).zip(rows) {
            (*index, *sum) = row;
        }
    });
    (indptr, indices, sums)
}

/// The graph of the groups: an edge weighs what the edges between two groups weigh together. Strengths add up, so that what
/// lies inside a group stays in its strength.
pub(super) fn aggregate<W: Weight>(network: &Network<'_, W>, groups: &[u32], n_groups: usize) -> Coarse {
    let members = Members::new(groups, n_groups);
    let (indptr, indices, weights) = fold(&members, groups, |v| network.edges(v));
    let strength = |group: usize| members.of(group).iter().map(|&v| network.strength[v as usize]).sum();
    Coarse {
        indptr,
        indices,
        weights,
        strength: (0..n_groups).into_par_iter().with_min_len(256).map(strength).collect(),
        total: network.total,
    }
}

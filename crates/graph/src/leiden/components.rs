//! Connected parts of communities.

use super::network::{Network, Weight};

/// The connected parts of each community, each named after its smallest vertex: `(n,)`.
pub(super) fn components<W: Weight>(network: &Network<'_, W>, membership: &[u32]) -> Vec<u32> {
    let mut part = vec![u32::MAX; network.n()];
    let mut stack = Vec::new();
    for first in 0..network.n() as u32 {
        if part[first as usize] != u32::MAX {
            continue;
        }
        part[first as usize] = first;
        stack.push(first);
        while let Some(v) = stack.pop() {
            for &u in network.row(v).0 {
                if part[u as usize] == u32::MAX && membership[u as usize] == membership[v as usize] {
                    part[u as usize] = first;
                    stack.push(u);
                }
            }
        }
    }
    part
}

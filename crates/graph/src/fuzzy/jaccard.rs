//! Overlap of two cells' neighbourhoods.

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::{ROWS, symmetric};
use crate::{Connectivities, Distances};

/// PhenoGraph: `J_ij = |N(i) ∩ N(j)| / |N(i) ∪ N(j)|` for j in N(i), where N lacks the cell itself; then `(J + J') / 2`.
pub(super) fn jaccard(distances: &Distances) -> Result<Connectivities> {
    let k = distances.k;
    let mut sorted = distances.indices.clone();
    sorted.par_chunks_mut(ROWS * k.max(1)).for_each(|rows| rows.chunks_mut(k.max(1)).for_each(<[u32]>::sort_unstable));
    let weigh = |i: usize, weights: &mut [f32]| {
        let own = &sorted[i * k..(i + 1) * k];
        for (weight, &j) in weights.iter_mut().zip(&distances.indices[i * k..(i + 1) * k]) {
            let shared = n_shared(own, &sorted[j as usize * k..(j as usize + 1) * k]);
            *weight = (shared as f64 / (2 * k - shared) as f64) as f32;
        }
    };
    symmetric::symmetric(distances, weigh, |a, b| (a + b) / 2.0)
}

/// Number of ids in both ascending lists.
fn n_shared(a: &[u32], b: &[u32]) -> usize {
    let (mut i, mut j, mut shared) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        shared += usize::from(a[i] == b[j]);
        let (x, y) = (a[i], b[j]);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    shared
}

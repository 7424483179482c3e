//! Joins a directed graph with its transpose, in parallel, by counting sort.

use cellmill_matrix::{Error, Place, Result};
use rayon::prelude::*;

use super::ROWS;
use crate::{Connectivities, Distances};

/// The directed weights of [`ROWS`] consecutive rows.
struct Block {
    /// Row starts into `edges`: `(rows + 1,)`.
    starts: Vec<u32>,
    /// (column, weight), columns ascending within a row, no zeros.
    edges: Vec<(u32, f32)>,
    /// The same edges ordered by block of columns: (row, column, weight), rows ascending within a block of columns.
    turned: Vec<(u32, u32, f32)>,
    /// Starts of the blocks of columns in `turned`: `(n_blocks + 1,)`.
    turned_starts: Vec<u32>,
}

/// The symmetric graph `S_ij = join(A_ij, A_ji)`, where row i of A has the weights that `weigh(i, weights)` puts at
/// `distances.indices` and zeros elsewhere. `join` is symmetric to the bit; its zeros are not stored.
pub(super) fn symmetric(
    distances: &Distances,
    weigh: impl Fn(usize, &mut [f32]) + Sync,
    join: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Connectivities> {
    let (n, k) = (distances.n(), distances.k);
    let n_blocks = n.div_ceil(ROWS);
    let blocks = (0..n_blocks).into_par_iter().map(|b| directed(distances, &weigh, b, n_blocks)).collect::<Result<Vec<Block>>>()?;
    let parts: Vec<(Vec<u32>, Vec<u32>, Vec<f32>)> = (0..n_blocks).into_par_iter().map(|b| joined(&blocks, b, &join)).collect();
    drop(blocks);

    let nnz: usize = parts.iter().map(|part| part.1.len()).sum();
    debug_assert!(nnz <= 2 * n * k);
    let mut graph =
        Connectivities { indptr: Vec::with_capacity(n + 1), indices: Vec::with_capacity(nnz), weights: Vec::with_capacity(nnz) };
    graph.indptr.push(0);
    let mut end = 0u64;
    for (lengths, indices, weights) in parts {
        graph.indptr.extend(lengths.iter().map(|&length| {
            end += u64::from(length);
            end
        }));
        graph.indices.extend_from_slice(&indices);
        graph.weights.extend_from_slice(&weights);
    }
    Ok(graph)
}

/// Weighs the rows of block `b` and sorts their edges both ways.
fn directed(distances: &Distances, weigh: &impl Fn(usize, &mut [f32]), b: usize, n_blocks: usize) -> Result<Block> {
    let (n, k) = (distances.n(), distances.k);
    let rows = b * ROWS..n.min((b + 1) * ROWS);
    let mut weights = vec![0.0f32; k];
    let mut starts = vec![0u32];
    let mut edges: Vec<(u32, f32)> = Vec::with_capacity(rows.len() * k);
    let mut turned_starts = vec![0u32; n_blocks + 1];
    for i in rows.clone() {
        weigh(i, &mut weights);
        let start = edges.len();
        let indices = &distances.indices[i * k..(i + 1) * k];
        edges.extend(indices.iter().zip(&weights).filter(|edge| *edge.1 != 0.0).map(|(&j, &w)| (j, w)));
        let row = &mut edges[start..];
        row.sort_unstable_by_key(|edge| edge.0);
        if let Some(pair) = row.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let place = Place { element: Some("obsp/distances".into()), rows: Some(i as u64..i as u64 + 1), store: None };
            return Err(Error::invalid(place, format!("neighbour {} twice", pair[0].0), "the neighbours of a cell differ"));
        }
        for &(j, _) in edges[start..].iter() {
            turned_starts[j as usize / ROWS + 1] += 1;
        }
        starts.push(edges.len() as u32);
    }
    for c in 0..n_blocks {
        turned_starts[c + 1] += turned_starts[c];
    }
    let mut next = turned_starts.clone();
    let mut turned = vec![(0u32, 0u32, 0.0f32); edges.len()];
    for (r, i) in rows.enumerate() {
        for &(j, w) in &edges[starts[r] as usize..starts[r + 1] as usize] {
            let slot = &mut next[j as usize / ROWS];
            turned[*slot as usize] = (i as u32, j, w);
            *slot += 1;
        }
    }
    Ok(Block { starts, edges, turned, turned_starts })
}

/// Rows of block `b` joined with their transpose: lengths, columns, weights.
fn joined(blocks: &[Block], b: usize, join: &impl Fn(f32, f32) -> f32) -> (Vec<u32>, Vec<u32>, Vec<f32>) {
    let own = &blocks[b];
    let n_rows = own.starts.len() - 1;
    let pieces = || blocks.iter().flat_map(|block| &block.turned[block.turned_starts[b] as usize..block.turned_starts[b + 1] as usize]);
    // Counting sort of the incoming edges by their head; they come with ascending tails and stay so.
    let mut starts = vec![0usize; n_rows + 1];
    for &(_, j, _) in pieces() {
        starts[j as usize - b * ROWS + 1] += 1;
    }
    for r in 0..n_rows {
        starts[r + 1] += starts[r];
    }
    let mut next = starts.clone();
    let mut incoming = vec![(0u32, 0.0f32); starts[n_rows]];
    for &(i, j, w) in pieces() {
        let slot = &mut next[j as usize - b * ROWS];
        incoming[*slot] = (i, w);
        *slot += 1;
    }
    let mut lengths = Vec::with_capacity(n_rows);
    let mut indices = Vec::with_capacity(own.edges.len() + incoming.len());
    let mut weights = Vec::with_capacity(own.edges.len() + incoming.len());
    for r in 0..n_rows {
        let before = indices.len();
        let mut out = own.edges[own.starts[r] as usize..own.starts[r + 1] as usize].iter().copied().peekable();
        let mut back = incoming[starts[r]..starts[r + 1]].iter().copied().peekable();
        loop {
            let column = match (out.peek(), back.peek()) {
                (Some(a), Some(b)) => a.0.min(b.0),
                (Some(a), None) => a.0,
                (None, Some(b)) => b.0,
                (None, None) => break,
            };
            let a = out.next_if(|edge| edge.0 == column).map_or(0.0, |edge| edge.1);
            let b = back.next_if(|edge| edge.0 == column).map_or(0.0, |edge| edge.1);
            let weight = join(a, b);
            if weight != 0.0 {
                indices.push(column);
                weights.push(weight);
            }
        }
        lengths.push((indices.len() - before) as u32);
    }
    indices.shrink_to_fit();
    weights.shrink_to_fit();
    (lengths, indices, weights)
}

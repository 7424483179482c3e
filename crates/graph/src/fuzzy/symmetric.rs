//! Joins a directed graph with its transpose, in parallel, by counting sort.

use cellmill_matrix::{Error, Place, Result};
use rayon::prelude::*;

use super::ROWS;
use crate::{Connectivities, Distances};

/// An edge of one block of rows into one block of columns.
#[derive(Clone, Copy, Default)]
struct Edge {
    /// Row inside its block.
    row: u16,
    /// Column inside its block.
    column: u16,
    weight: f32,
}

/// Edges of a block of rows, by block of columns; rows ascend within each.
struct Block {
    edges: Vec<Edge>,
    /// `(blocks + 1,)`.
    starts: Vec<u32>,
}

/// Rows of the result.
struct Part {
    lengths: Vec<u32>,
    indices: Vec<u32>,
    weights: Vec<f32>,
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
    let mut weights = vec![0.0f32; n * k];
    let blocks: Vec<Block> = weights
        .par_chunks_mut(ROWS * k.max(1))
        .zip(distances.indices.par_chunks(ROWS * k.max(1)))
        .enumerate()
        .map(|(b, (weights, indices))| {
            weights.chunks_exact_mut(k).enumerate().for_each(|(r, weights)| weigh(b * ROWS + r, weights));
            turned(indices, weights, k, n_blocks)
        })
        .collect();
    let parts = (0..n_blocks).into_par_iter().map(|b| joined(distances, &weights, &blocks, b, &join)).collect::<Result<Vec<Part>>>()?;
    drop((blocks, weights));
    Ok(together(parts, n))
}

/// Sorts the edges of a block of rows by block of columns; weights of 0 are no edges.
fn turned(indices: &[u32], weights: &[f32], k: usize, n_blocks: usize) -> Block {
    let mut starts = vec![0u32; n_blocks + 1];
    for (&j, _) in indices.iter().zip(weights).filter(|edge| *edge.1 != 0.0) {
        starts[j as usize / ROWS + 1] += 1;
    }
    for c in 0..n_blocks {
        starts[c + 1] += starts[c];
    }
    let mut next = starts.clone();
    let mut edges = vec![Edge::default(); starts[n_blocks] as usize];
    for (r, (indices, weights)) in indices.chunks_exact(k).zip(weights.chunks_exact(k)).enumerate() {
        for (&j, &weight) in indices.iter().zip(weights).filter(|edge| *edge.1 != 0.0) {
            let slot = &mut next[j as usize / ROWS];
            edges[*slot as usize] = Edge { row: r as u16, column: (j as usize % ROWS) as u16, weight };
            *slot += 1;
        }
    }
    Block { edges, starts }
}

/// Rows of block `b` joined with their transpose.
fn joined(distances: &Distances, weights: &[f32], blocks: &[Block], b: usize, join: &impl Fn(f32, f32) -> f32) -> Result<Part> {
    let (n, k) = (distances.n(), distances.k);
    let rows = b * ROWS..n.min((b + 1) * ROWS);
    let pieces = || {
        blocks.iter().enumerate().flat_map(|(from, block)| {
            let span = block.starts[b] as usize..block.starts[b + 1] as usize;
            block.edges[span].iter().map(move |edge| (from * ROWS + edge.row as usize, edge))
        })
    };
    // Counting sort of the incoming edges by their head; they come with ascending tails and stay so.
    let mut starts = vec![0u32; rows.len() + 1];
    for (_, edge) in pieces() {
        starts[edge.column as usize + 1] += 1;
    }
    for r in 0..rows.len() {
        starts[r + 1] += starts[r];
    }
    let mut next = starts.clone();
    let mut incoming = vec![(0u32, 0.0f32); starts[rows.len()] as usize];
    for (i, edge) in pieces() {
        let slot = &mut next[edge.column as usize];
        incoming[*slot as usize] = (i as u32, edge.weight);
        *slot += 1;
    }
    let mut part = Part {
        lengths: Vec::with_capacity(rows.len()),
        indices: Vec::with_capacity(rows.len() * k + incoming.len()),
        weights: Vec::with_capacity(rows.len() * k + incoming.len()),
    };
    let mut own: Vec<(u32, f32)> = Vec::with_capacity(k);
    for (r, i) in rows.enumerate() {
        let span = i * k..(i + 1) * k;
        own.clear();
        own.extend(distances.indices[span.clone()].iter().copied().zip(weights[span].iter().copied()));
        own.sort_unstable_by_key(|edge| edge.0);
        if own.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(neighbor_twice(i, &distances.indices[i * k..(i + 1) * k]));
        }
        let before = part.indices.len();
        let back = &incoming[starts[r] as usize..starts[r + 1] as usize];
        let (mut a, mut b) = (0, 0);
        while a < own.len() || b < back.len() {
            let (out, into) = (own.get(a).map_or(u32::MAX, |e| e.0), back.get(b).map_or(u32::MAX, |e| e.0));
            let column = out.min(into);
            let (mut there, mut here) = (0.0, 0.0);
            if out == column {
                there = own[a].1;
                a += 1;
            }
            if into == column {
                here = back[b].1;
                b += 1;
            }
            let weight = join(there, here);
            if weight != 0.0 {
                part.indices.push(column);
                part.weights.push(weight);
            }
        }
        part.lengths.push((part.indices.len() - before) as u32);
    }
    part.indices.shrink_to_fit();
    part.weights.shrink_to_fit();
    Ok(part)
}

/// The error of cell `i`, which has a neighbour twice.
pub(super) fn neighbor_twice(i: usize, neighbors: &[u32]) -> Error {
    let mut sorted = neighbors.to_vec();
    sorted.sort_unstable();
    let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]).map_or(u32::MAX, |pair| pair[0]);
    let place = Place { element: Some("obsp/distances".into()), rows: Some(i as u64..i as u64 + 1), store: None };
    Error::invalid(place, format!("neighbour {twice} twice"), "the neighbours of a cell differ")
}

/// The parts' rows one after the other.
fn together(parts: Vec<Part>, n: usize) -> Connectivities {
    let nnz: usize = parts.iter().map(|part| part.indices.len()).sum();
    let mut graph = Connectivities { indptr: Vec::with_capacity(n + 1), indices: vec![0; nnz], weights: vec![0.0; nnz] };
    graph.indptr.push(0);
    let mut end = 0u64;
    graph.indptr.extend(parts.iter().flat_map(|part| &part.lengths).map(|&length| {
        end += u64::from(length);
        end
    }));
    let (mut indices, mut weights) = (&mut graph.indices[..], &mut graph.weights[..]);
    let mut places = Vec::with_capacity(parts.len());
    for part in parts {
        let (i, later) = std::mem::take(&mut indices).split_at_mut(part.indices.len());
        let (w, after) = std::mem::take(&mut weights).split_at_mut(part.weights.len());
        (indices, weights) = (later, after);
        places.push((part, i, w));
    }
    places.into_par_iter().for_each(|(part, indices, weights)| {
        indices.copy_from_slice(&part.indices);
        weights.copy_from_slice(&part.weights);
    });
    graph
}

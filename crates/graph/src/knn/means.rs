//! k-means with fixed starts: f64 folds over blocks of fixed size, ties to the lowest list.

use rayon::prelude::*;

use super::kernel::{Form, Simd};
use super::scan::{self, EMPTY, Key, Panels, Queries, scan};
use crate::Embedding;

/// Rows of one task.
const BLOCK: usize = 3840;

/// A number that depends on nothing but its arguments (splitmix64's finaliser, Steele et al. 2014).
pub(super) fn draw(seed: u64, at: u64) -> u64 {
    let mut z =
        seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x632b_e59b_d9b4_e019);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `m` of `n` numbers, one from each of `m` equal stretches: ascending, distinct for `m ≤ n`.
pub(super) fn stratified(n: usize, m: usize, seed: u64) -> Vec<u32> {
    (0..m)
        .map(|at| {
            let (from, to) = (n * at / m, n * (at + 1) / m);
            (from as u64 + draw(seed, at as u64) % (to - from).max(1) as u64) as u32
        })
        .collect()
}

/// The nearest of `centres` (`(m, d)`) for each row: `(n,)`.
pub(super) fn assign(simd: Simd, x: Embedding, centres: &[f32]) -> Vec<u32> {
    let d = x.d;
    let origin = mean(centres, d);
    let mut panels = Panels::default();
    panels.pack(simd, Form::Dot, centres.chunks_exact(d), &origin);
    let mut nearest = vec![0u32; x.n()];
    nearest.par_chunks_mut(BLOCK).enumerate().for_each_init(
        || (Queries::default(), Vec::<Key>::new()),
        |(queries, best), (block, out)| {
            queries.clear(Form::Dot, d);
            best.clear();
            best.resize(out.len(), EMPTY);
            for slot in 0..out.len() {
                queries.push(simd, x.row(block * BLOCK + slot), &origin, slot as u32, u32::MAX);
            }
            scan(simd, queries, &panels, 0..panels.len(), 0, best, 1);
            // Finite rows always find one.
            out.iter_mut().zip(best.iter()).for_each(|(out, &key)| *out = scan::id(key));
        },
    );
    nearest
}

/// `m ≤ n` centres after `rounds` of Lloyd's algorithm from rows drawn by `seed`: `(m, d)`.
///
/// A centre that loses all its rows is set on a row drawn anew.
pub(super) fn means(simd: Simd, x: Embedding, m: usize, rounds: usize, seed: u64) -> Vec<f32> {
    let d = x.d;
    let mut centres: Vec<f32> = stratified(x.n(), m, seed).iter().flat_map(|&row| x.row(row as usize)).copied().collect();
    for round in 0..rounds {
        let nearest = assign(simd, x, &centres);
        let parts: Vec<(Vec<f64>, Vec<u32>)> = nearest
            .par_chunks(BLOCK)
            .enumerate()
            .map(|(block, nearest)| {
                let (mut sums, mut counts) = (vec![0f64; m * d], vec![0u32; m]);
                for (at, &list) in nearest.iter().enumerate() {
                    let list = list as usize;
                    counts[list] += 1;
                    let sum = &mut sums[list * d..(list + 1) * d];
                    sum.iter_mut().zip(x.row(block * BLOCK + at)).for_each(|(sum, &x)| *sum += f64::from(x));
                }
                (sums, counts)
            })
            .collect();
        let (mut sums, mut counts) = (vec![0f64; m * d], vec![0u32; m]);
        for (part_sums, part_counts) in &parts {
            sums.iter_mut().zip(part_sums).for_each(|(sum, part)| *sum += part);
            counts.iter_mut().zip(part_counts).for_each(|(count, part)| *count += part);
        }
        for (list, centre) in centres.chunks_exact_mut(d).enumerate() {
            if counts[list] == 0 {
                let row = draw(seed ^ 0x5eed, (round * m + list) as u64) % x.n() as u64;
                centre.copy_from_slice(x.row(row as usize));
            } else {
                centre.iter_mut().zip(&sums[list * d..]).for_each(|(c, sum)| *c = (sum / f64::from(counts[list])) as f32);
            }
        }
    }
    centres
}

/// Mean of a few rows: `(d,)`, f64 sums in order.
pub(super) fn mean(rows: &[f32], d: usize) -> Vec<f32> {
    let mut sum = vec![0f64; d];
    for row in rows.chunks_exact(d) {
        sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let n = (rows.len() / d).max(1) as f64;
    sum.iter().map(|sum| (sum / n) as f32).collect()
}

//! umap-learn's local kernels: each cell's distance to its nearest neighbour and its scale, then the fuzzy union.

use cellmill_cuda::Processor;
use cellmill_matrix::Result;
use rayon::prelude::*;

use super::cuda::{self, Curve};
use super::exp::exp;
use super::{ROWS, symmetric};
use crate::{Connectivities, Distances};

/// Bisection stops when the sum of memberships is this near to its target.
const TOLERANCE: f64 = 1e-5;
/// A scale is at least this part of the mean distance.
const MIN_SCALE: f64 = 1e-3;
/// Steps of the bisection.
const STEPS: usize = 64;
/// "No upper bound yet": the largest f32, as in umap-learn.
const UNBOUNDED: f64 = f32::MAX as f64;

/// Fuzzy union (or its mixture with the intersection) of the cells' local kernels.
pub(super) fn umap(distances: &Distances, set_op_mix_ratio: f32, local_connectivity: f64, processor: &Processor) -> Result<Connectivities> {
    let k = distances.k;
    let curve = curve(distances, set_op_mix_ratio, local_connectivity);
    if let Some(device) = processor.device()
        && let Some(found) = cuda::umap(device, distances, curve)?
    {
        return Ok(found);
    }
    let weigh = |i: usize, weights: &mut [f32]| {
        let row = &distances.distances[i * k..(i + 1) * k];
        let (rho, sigma) = smooth_knn_dist(row, &curve);
        for (weight, &d) in weights.iter_mut().zip(row) {
            // umap-learn, compute_membership_strengths
            let beyond = f64::from(d - rho);
            *weight = if beyond <= 0.0 || sigma == 0.0 { 1.0 } else { exp(-(beyond / sigma)) as f32 };
        }
    };
    // Formulas in f32, in umap-learn's order; each is symmetric in (a, b) to the bit.
    let join = |a: f32, b: f32| {
        let both = a * b;
        set_op_mix_ratio * (a + b - both) + (1.0 - set_op_mix_ratio) * both
    };
    symmetric::symmetric(distances, weigh, join)
}

/// What all cells share.
pub(super) fn curve(distances: &Distances, set_op_mix_ratio: f32, local_connectivity: f64) -> Curve {
    let (n, k) = (distances.n(), distances.k);
    let total: f64 = distances
        .distances
        .par_chunks(ROWS * k.max(1))
        .map(|rows| rows.iter().map(|&d| f64::from(d)).sum::<f64>())
        .collect::<Vec<_>>()
        .iter()
        .sum();
    // umap-learn's rows hold the cell itself at distance 0: it counts in both means.
    let mean = total / (n.max(1) * (k + 1)) as f64;
    Curve { set_op_mix_ratio, local_connectivity, mean, target: ((k + 1) as f64).log2() }
}

/// A cell's distance to its `local_connectivity`-th neighbour (rho) and the scale (sigma) at which its memberships sum to
/// log2(k + 1): umap-learn, smooth_knn_dist. `row` ascends and lacks the cell itself.
///
/// Compiled for AVX2, too, where the processor has it: nothing is fused, so the bits are the same.
fn smooth_knn_dist(row: &[f32], curve: &Curve) -> (f32, f64) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2(row: &[f32], curve: &Curve) -> (f32, f64) {
            plain(row, curve)
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: this processor has AVX2, as has just been seen.
            return unsafe { avx2(row, curve) };
        }
    }
    plain(row, curve)
}

#[inline(always)]
fn plain(row: &[f32], &Curve { local_connectivity, mean, target, .. }: &Curve) -> (f32, f64) {
    let zeros = row.iter().take_while(|&&d| d == 0.0).count();
    let positive = &row[zeros..];
    let index = local_connectivity.floor() as usize;
    let rho = if positive.is_empty() {
        0.0
    } else if (positive.len() as f64) < local_connectivity {
        positive[positive.len() - 1]
    } else {
        let part = (local_connectivity - index as f64) as f32;
        if index == 0 {
            part * positive[0]
        } else if f64::from(part) > TOLERANCE && index < positive.len() {
            positive[index - 1] + part * (positive[index] - positive[index - 1])
        } else {
            positive[index - 1]
        }
    };
    let at_one = row.iter().take_while(|&&d| d - rho <= 0.0).count();
    let beyond = &row[at_one..];
    // Side by side, then added one by one.
    let mut terms = [0.0f64; 16];
    let (mut low, mut high, mut sigma) = (0.0f64, UNBOUNDED, 1.0f64);
    for _ in 0..STEPS {
        let mut sum = 0.0;
        for beyond in beyond.chunks(terms.len()) {
            terms.iter_mut().zip(beyond).for_each(|(term, &d)| *term = exp(-(f64::from(d - rho) / sigma)));
            terms[..beyond.len()].iter().for_each(|term| sum += term);
        }
        let sum = at_one as f64 + sum;
        if (sum - target).abs() < TOLERANCE {
            break;
        }
        if sum > target {
            high = sigma;
            sigma = (low + high) / 2.0;
        } else {
            low = sigma;
            sigma = if high >= UNBOUNDED { sigma * 2.0 } else { (low + high) / 2.0 };
        }
    }
    let floor = if rho > 0.0 { row.iter().map(|&d| f64::from(d)).sum::<f64>() / (row.len() + 1) as f64 } else { mean };
    // umap-learn keeps sigma in f32.
    (rho, f64::from((sigma.max(MIN_SCALE * floor)) as f32))
}

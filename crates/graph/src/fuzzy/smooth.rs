//! umap-learn's local kernels: each cell's distance to its nearest neighbour and its scale, then the fuzzy union.

use std::cell::RefCell;

use cellmill_matrix::Result;
use rayon::prelude::*;

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
pub(super) fn umap(distances: &Distances, set_op_mix_ratio: f32, local_connectivity: f64) -> Result<Connectivities> {
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
    let weigh = |i: usize, weights: &mut [f32]| {
        let row = &distances.distances[i * k..(i + 1) * k];
        let (rho, sigma) = SCALES.with_borrow_mut(|beyond| smooth_knn_dist(row, local_connectivity, mean, beyond));
        for (weight, &d) in weights.iter_mut().zip(row) {
            // umap-learn, compute_membership_strengths
            let beyond = f64::from(d - rho);
            *weight = if beyond <= 0.0 || sigma == 0.0 { 1.0 } else { (-(beyond / sigma)).exp() as f32 };
        }
    };
    // Formulas in f32, in umap-learn's order; each is symmetric in (a, b) to the bit.
    let join = |a: f32, b: f32| {
        let both = a * b;
        set_op_mix_ratio * (a + b - both) + (1.0 - set_op_mix_ratio) * both
    };
    symmetric::symmetric(distances, weigh, join)
}

thread_local! {
    /// Distances beyond the nearest of the cell at hand.
    static SCALES: RefCell<Vec<[f64; LANES]>> = const { RefCell::new(Vec::new()) };
}

/// Exponentials that are taken at a time.
const LANES: usize = 8;

/// A cell's distance to its `local_connectivity`-th neighbour (rho) and the scale (sigma) at which its memberships sum to
/// log2(k + 1): umap-learn, smooth_knn_dist. `row` ascends and lacks the cell itself; `mean` is that of all distances; `scratch` is used.
fn smooth_knn_dist(row: &[f32], local_connectivity: f64, mean: f64, scratch: &mut Vec<[f64; LANES]>) -> (f32, f64) {
    let target = ((row.len() + 1) as f64).log2();
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
    // Filled up with distances whose membership is next to nothing.
    scratch.clear();
    scratch.extend(row[at_one..].chunks(LANES).map(|some| std::array::from_fn(|l| some.get(l).map_or(f64::MAX, |&d| f64::from(d - rho)))));
    let (mut low, mut high, mut sigma) = (0.0f64, UNBOUNDED, 1.0f64);
    for _ in 0..STEPS {
        let sum = at_one as f64 + memberships(scratch, sigma);
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

/// Σ e^(−d / sigma), with the same bits on every machine.
fn memberships(distances: &[[f64; LANES]], sigma: f64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2(distances: &[[f64; LANES]], sigma: f64) -> f64 {
            sum(distances, sigma)
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: this processor has AVX2, as has just been seen. Nothing is fused, so the bits are those of the plain twin.
            return unsafe { avx2(distances, sigma) };
        }
    }
    sum(distances, sigma)
}

#[inline(always)]
fn sum(distances: &[[f64; LANES]], sigma: f64) -> f64 {
    let mut sums = [0.0; LANES];
    for some in distances {
        let powers = some.map(|d| exp(-(d / sigma)));
        (0..LANES).for_each(|l| sums[l] += powers[l]);
    }
    ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
}

/// 1.5 · 2⁵²: adding it rounds to a whole number, which then lies in the lowest bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts; the upper has zeros at its end, so that its multiples are exact.
const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];

/// e^x of a number up to 0, to two units in the last place; below −700, e^−700. No branch, so that several are taken at a time.
#[inline(always)]
fn exp(x: f64) -> f64 {
    let x = x.max(-700.0);
    let rounded = x * std::f64::consts::LOG2_E + ROUND;
    let whole = rounded - ROUND;
    let r = x - whole * LN_2[0] - whole * LN_2[1];
    // Taylor's series: at |r| ≤ ln 2 / 2 the next term is below 2⁻⁵⁷.
    let mut sum = 1.0 / 6_227_020_800.0;
    for k in [479_001_600.0, 39_916_800.0, 3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        sum = sum * r + 1.0 / k;
    }
    f64::from_bits(sum.to_bits().wrapping_add(rounded.to_bits() << 52))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_the_library() {
        for k in 0..200_000 {
            let x = -f64::from(k) * 3.3e-3;
            let (own, known) = (exp(x), x.exp());
            assert!((own - known).abs() <= 4.5e-16 * known, "{x}: {own} {known}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f64::NEG_INFINITY) < 1e-300 && exp(-f64::MAX) < 1e-300);
    }

    #[test]
    fn both_twins_have_the_same_bits() {
        let distances: Vec<[f64; LANES]> = (0..40).map(|g| std::array::from_fn(|l| f64::from(g * 8 + l as u32) * 0.013)).collect();
        for sigma in [1e-3, 0.1, 0.7, 3.0, 1e9] {
            assert_eq!(memberships(&distances, sigma).to_bits(), sum(&distances, sigma).to_bits());
        }
    }
}

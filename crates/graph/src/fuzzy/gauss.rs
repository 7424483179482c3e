//! A Gauss kernel whose width follows each cell's neighbours.

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::{ROWS, symmetric};
use crate::{Connectivities, Distances};

/// scanpy's `neighbors(method="gauss", knn=True)`: with s_i² the median of cell i's squared distances,
/// `w_ij = sqrt(2 s_i s_j / (s_i² + s_j²)) · exp(−d_ij² / (s_i² + s_j²))` where i or j is a neighbour of the other.
///
/// Two cells whose widths are both 0 (more than half of their neighbours are copies) get 1 at distance 0, else 0; scanpy gives NaN.
pub(super) fn gauss(distances: &Distances) -> Result<Connectivities> {
    let (n, k) = (distances.n(), distances.k);
    let widths: Vec<f64> =
        (0..n).into_par_iter().with_min_len(ROWS).map(|i| median_of_squares(&distances.distances[i * k..(i + 1) * k])).collect();
    let weigh = |i: usize, weights: &mut [f32]| {
        let span = i * k..(i + 1) * k;
        for ((weight, &j), &d) in weights.iter_mut().zip(&distances.indices[span.clone()]).zip(&distances.distances[span]) {
            let (own, other, d) = (widths[i], widths[j as usize], f64::from(d));
            let sum = own + other;
            *weight = if sum > 0.0 {
                ((2.0 * own.sqrt() * other.sqrt() / sum).sqrt() * (-d * d / sum).exp()) as f32
            } else {
                f32::from(d == 0.0)
            };
        }
    };
    // The formula is symmetric: both directions give the same weight but for the last bit of d.
    symmetric::symmetric(distances, weigh, f32::max)
}

/// Median of the squares of an ascending row.
fn median_of_squares(row: &[f32]) -> f64 {
    let square = |i: usize| f64::from(row[i]) * f64::from(row[i]);
    match row.len() {
        0 => 0.0,
        k if k % 2 == 1 => square(k / 2),
        k => (square(k / 2 - 1) + square(k / 2)) / 2.0,
    }
}

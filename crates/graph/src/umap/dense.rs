//! Eigenvalues of a small symmetric matrix.

/// Sweeps after which Jacobi's method ends in any case; it converges quadratically, 6–10 are usual.
const MAX_SWEEPS: usize = 60;

/// Eigenvalues, descending, and eigenvectors (column `c` of the row-major result belongs to value `c`) of the symmetric row-major
/// `(n, n)` matrix, by cyclic Jacobi rotations (Golub & Van Loan, 8.5).
pub(super) fn eigen(mut matrix: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; n * n];
    for i in 0..n {
        vectors[i * n + i] = 1.0;
    }
    let total: f64 = matrix.iter().map(|x| x * x).sum();
    for _ in 0..MAX_SWEEPS {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| matrix[i * n + j] * matrix[i * n + j]).sum();
        if off <= total * 1e-30 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = matrix[p * n + q];
                if apq == 0.0 {
                    continue;
                }
                let theta = (matrix[q * n + q] - matrix[p * n + p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for k in 0..n {
                    let (x, y) = (matrix[k * n + p], matrix[k * n + q]);
                    matrix[k * n + p] = c * x - s * y;
                    matrix[k * n + q] = s * x + c * y;
                }
                for k in 0..n {
                    let (x, y) = (matrix[p * n + k], matrix[q * n + k]);
                    matrix[p * n + k] = c * x - s * y;
                    matrix[q * n + k] = s * x + c * y;
                    let (x, y) = (vectors[k * n + p], vectors[k * n + q]);
                    vectors[k * n + p] = c * x - s * y;
                    vectors[k * n + q] = s * x + c * y;
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| matrix[b * n + b].total_cmp(&matrix[a * n + a]).then(a.cmp(&b)));
    let values = order.iter().map(|&c| matrix[c * n + c]).collect();
    let sorted = (0..n * n).map(|at| vectors[at / n * n + order[at % n]]).collect();
    (values, sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrix_times_vectors_is_vectors_times_values() {
        let n = 9;
        let a: Vec<f64> = (0..n * n).map(|at| (((at / n) * (at % n) + 3 * (at / n + at % n)) as f64).sin()).collect();
        let (values, vectors) = eigen(a.clone(), n);
        assert!(values.windows(2).all(|w| w[0] >= w[1]));
        for c in 0..n {
            for i in 0..n {
                let product: f64 = (0..n).map(|k| a[i * n + k] * vectors[k * n + c]).sum();
                assert!((product - values[c] * vectors[i * n + c]).abs() < 1e-12);
            }
            for d in 0..n {
                let dot: f64 = (0..n).map(|k| vectors[k * n + c] * vectors[k * n + d]).sum();
                assert!((dot - f64::from(c == d)).abs() < 1e-12);
            }
        }
    }
}

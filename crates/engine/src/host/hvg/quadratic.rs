//! A weighted quadratic by least squares: one vertex of the loess surface.

/// Coefficients of the local quadratic.
pub(super) const TERMS: usize = 3;
/// Singular values below this share of the largest count as 0 (dloess: 100 machine epsilons).
const SINGULAR: f64 = 100.0 * f64::EPSILON;

/// Value and slope at `q` of the weighted quadratic in (x - q), and whether it was singular.
pub(super) fn quadratic(q: f64, x: &[f64], y: &[f64], weights: &[f64]) -> (f64, f64, bool) {
    let mut columns: [Vec<f64>; TERMS] = [weights.to_vec(), Vec::new(), Vec::new()];
    columns[1] = x.iter().zip(weights).map(|(x, w)| w * (x - q)).collect();
    columns[2] = x.iter().zip(weights).map(|(x, w)| w * ((x - q) * (x - q))).collect();
    let mut target: Vec<f64> = y.iter().zip(weights).map(|(y, w)| w * y).collect();
    let mut norms = [1.0; TERMS];
    for (column, norm) in columns.iter_mut().zip(&mut norms) {
        let length = dot(column, column).sqrt();
        if length > 0.0 {
            column.iter_mut().for_each(|value| *value /= length);
            *norm = length;
        }
    }
    let mut r = [[0.0; TERMS]; TERMS];
    triangle(&mut columns, &mut target, &mut r);
    let (coefficients, singular) = least_norm(r, [target[0], target[1], target[2]]);
    (coefficients[0] / norms[0], coefficients[1] / norms[1], singular)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Householder QR: `r[j]` becomes column j of R, and the head of `target` Qᵀ target.
fn triangle(columns: &mut [Vec<f64>; TERMS], target: &mut [f64], r: &mut [[f64; TERMS]; TERMS]) {
    for j in 0..TERMS {
        let (done, rest) = columns.split_at_mut(j + 1);
        let axis = &mut done[j][j..];
        let length = dot(axis, axis).sqrt();
        if length > 0.0 {
            let head = if axis[0] < 0.0 { -length } else { length };
            axis[0] += head;
            let scale = 2.0 / dot(axis, axis);
            for other in rest.iter_mut().map(|column| &mut column[j..]).chain([&mut target[j..]]) {
                let t = scale * dot(axis, other);
                other.iter_mut().zip(axis.iter()).for_each(|(value, along)| *value -= t * along);
            }
            r[j][j] = -head;
        }
        for (k, column) in rest.iter().enumerate() {
            r[j + 1 + k][j] = column[j];
        }
    }
}

/// Solves R b = `target` by singular values (one-sided Jacobi), those near 0 left out: the solution of least norm.
///
/// `r[j]` is column j. Also says whether a singular value was left out.
fn least_norm(mut r: [[f64; TERMS]; TERMS], target: [f64; TERMS]) -> ([f64; TERMS], bool) {
    let mut v = [[0.0; TERMS]; TERMS];
    for (j, column) in v.iter_mut().enumerate() {
        column[j] = 1.0;
    }
    // Converges quadratically; 3 x 3 needs fewer than 10 sweeps.
    for _ in 0..40 {
        let mut turned = false;
        for (i, j) in [(0, 1), (0, 2), (1, 2)] {
            let (a, b, c) = (dot(&r[i], &r[i]), dot(&r[j], &r[j]), dot(&r[i], &r[j]));
            if c == 0.0 || c.abs() <= 1e-16 * (a * b).sqrt() {
                continue;
            }
            turned = true;
            let zeta = (b - a) / (2.0 * c);
            let t = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
            let cos = 1.0 / t.hypot(1.0);
            rotate(&mut r, i, j, cos, cos * t);
            rotate(&mut v, i, j, cos, cos * t);
        }
        if !turned {
            break;
        }
    }
    let sigma = [0, 1, 2].map(|j| dot(&r[j], &r[j]).sqrt());
    let largest = sigma.iter().copied().fold(0.0, f64::max);
    let mut solution = [0.0; TERMS];
    let mut singular = false;
    for j in 0..TERMS {
        if sigma[j] <= largest * SINGULAR {
            singular = true;
            continue;
        }
        let gamma = dot(&r[j], &target) / sigma[j] / sigma[j];
        solution.iter_mut().zip(v[j]).for_each(|(sum, along)| *sum += gamma * along);
    }
    (solution, singular)
}

/// Turns columns i and j in their plane.
fn rotate(columns: &mut [[f64; TERMS]; TERMS], i: usize, j: usize, cos: f64, sin: f64) {
    let (a, b) = (columns[i], columns[j]);
    columns[i] = std::array::from_fn(|row| cos * a[row] - sin * b[row]);
    columns[j] = std::array::from_fn(|row| sin * a[row] + cos * b[row]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovers_a_quadratic_under_any_weights() {
        let x: Vec<f64> = (0..12).map(f64::from).collect();
        let y: Vec<f64> = x.iter().map(|x| 4.0 - x + 0.3 * x * x).collect();
        let weights: Vec<f64> = x.iter().map(|x| 0.1 + (x * 1.7).sin().abs()).collect();
        let (value, slope, singular) = quadratic(2.5, &x, &y, &weights);
        assert!((value - (4.0 - 2.5 + 0.3 * 6.25)).abs() < 1e-12 && (slope - 0.5).abs() < 1e-12 && !singular);
    }

    #[test]
    fn takes_the_solution_of_least_norm_when_singular() {
        // x = q alone tells the value and nothing of slope or curvature.
        let (value, slope, singular) = quadratic(1.0, &[1.0; 5], &[2.0, 4.0, 3.0, 3.0, 3.0], &[1.0; 5]);
        assert!((value - 3.0).abs() < 1e-12 && slope == 0.0 && singular);
    }
}

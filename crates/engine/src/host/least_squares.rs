//! Normal equations of a few regressors and many responses.

/// Pivots below this share of their diagonal are taken for 0: the regressor depends on those before it.
const DEPENDENT: f64 = 1e-12;

/// Coefficients b of `gram` b = `cross`, `(width, n)`, by Gaussian elimination with the largest pivot first. A regressor that depends on
/// others gets the coefficient 0; what is fitted is the same. `gram`: `(width, width)`, symmetric; `cross`: `(width, n)`.
pub fn solve(mut gram: Vec<f64>, mut cross: Vec<f64>, width: usize) -> Vec<f64> {
    let n = cross.len().checked_div(width).unwrap_or(0);
    let diagonal: Vec<f64> = (0..width).map(|k| gram[k * width + k]).collect();
    let mut left: Vec<usize> = (0..width).collect();
    let mut used = Vec::new();
    while let Some(at) = (0..left.len()).max_by(|&a, &b| {
        let size = |k: usize| gram[left[k] * width + left[k]] / diagonal[left[k]].max(f64::MIN_POSITIVE);
        size(a).total_cmp(&size(b)).then(b.cmp(&a))
    }) {
        let k = left.remove(at);
        let pivot = gram[k * width + k];
        if pivot <= DEPENDENT * diagonal[k] || pivot <= 0.0 {
            // All that are left depend on those that were used.
            left.push(k);
            break;
        }
        // Jordan: the row is taken from all others, so that nothing is left to substitute.
        let row: Vec<f64> = gram[k * width..][..width].iter().map(|v| v / pivot).collect();
        let response: Vec<f64> = cross[k * n..][..n].iter().map(|v| v / pivot).collect();
        for i in (0..width).filter(|i| *i != k) {
            let factor = gram[i * width + k];
            gram[i * width..][..width].iter_mut().zip(&row).for_each(|(v, r)| *v -= factor * r);
            cross[i * n..][..n].iter_mut().zip(&response).for_each(|(v, r)| *v -= factor * r);
        }
        gram[k * width..][..width].copy_from_slice(&row);
        cross[k * n..][..n].copy_from_slice(&response);
        used.push(k);
    }
    for k in left {
        cross[k * n..][..n].fill(0.0);
    }
    cross
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_through_points() {
        // y = 2 + 3 t at t = 0, 1, 2, 5, and a third regressor 2 t that says nothing new.
        let rows: Vec<[f64; 3]> = [0.0, 1.0, 2.0, 5.0].iter().map(|&t| [1.0, t, 2.0 * t]).collect();
        let (mut gram, mut cross) = (vec![0.0; 9], vec![0.0; 3]);
        for r in &rows {
            for i in 0..3 {
                (0..3).for_each(|j| gram[i * 3 + j] += r[i] * r[j]);
                cross[i] += r[i] * (2.0 + 3.0 * r[1]);
            }
        }
        let b = solve(gram, cross, 3);
        for r in &rows {
            let fitted: f64 = r.iter().zip(&b).map(|(r, b)| r * b).sum();
            assert!((fitted - (2.0 + 3.0 * r[1])).abs() < 1e-10, "{b:?}");
        }
    }
}

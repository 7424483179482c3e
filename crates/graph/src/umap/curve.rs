//! The curve `1 / (1 + a d^{2b})` that stands for membership in the layout.

/// Points on which the curve is fitted.
const N_POINTS: usize = 300;
/// Steps after which the fit ends in any case.
const MAX_STEPS: usize = 500;

/// `(a, b)` for which `1 / (1 + a d^{2b})` is nearest, in least squares over 300 points of `[0, 3 spread]`, to 1 below `min_dist` and
/// `exp(−(d − min_dist) / spread)` above: umap-learn, find_ab_params. Levenberg-Marquardt from (1, 1).
pub fn find_ab(min_dist: f64, spread: f64) -> (f64, f64) {
    let points: Vec<(f64, f64)> = (0..N_POINTS)
        .map(|i| {
            let d = 3.0 * spread * i as f64 / (N_POINTS - 1) as f64;
            (d, if d < min_dist { 1.0 } else { (-(d - min_dist) / spread).exp() })
        })
        .collect();
    let cost = |a: f64, b: f64| points.iter().map(|&(d, y)| (1.0 / (1.0 + a * d.powf(2.0 * b)) - y).powi(2)).sum::<f64>();
    let (mut a, mut b, mut damping) = (1.0f64, 1.0f64, 1e-3f64);
    let mut error = cost(a, b);
    for _ in 0..MAX_STEPS {
        // Normal equations J'J and J'r of the residuals r = f − y.
        let (mut aa, mut ab, mut bb, mut ra, mut rb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &(d, y) in points.iter().filter(|point| point.0 > 0.0) {
            let power = d.powf(2.0 * b);
            let f = 1.0 / (1.0 + a * power);
            let by_a = -f * f * power;
            let by_b = -f * f * a * power * 2.0 * d.ln();
            aa += by_a * by_a;
            ab += by_a * by_b;
            bb += by_b * by_b;
            ra += by_a * (f - y);
            rb += by_b * (f - y);
        }
        let (p, q) = (aa * (1.0 + damping), bb * (1.0 + damping));
        let determinant = p * q - ab * ab;
        let (step_a, step_b) = ((ab * rb - q * ra) / determinant, (ab * ra - p * rb) / determinant);
        let trial = cost(a + step_a, b + step_b);
        if trial.is_finite() && trial <= error && a + step_a > 0.0 && b + step_b > 0.0 {
            let done = step_a.abs() <= 1e-10 * a && step_b.abs() <= 1e-10 * b;
            (a, b, error, damping) = (a + step_a, b + step_b, trial, damping / 10.0);
            if done {
                break;
            }
        } else {
            damping *= 10.0;
            if damping > 1e12 {
                break;
            }
        }
    }
    (a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_umap_learn() {
        // umap.umap_.find_ab_params(spread, min_dist), umap-learn 0.5.12.
        for (min_dist, spread, a, b) in
            [(0.5, 1.0, 0.5830300203, 1.334166992), (0.1, 1.0, 1.576943460, 0.8950608780), (0.0, 1.0, 1.932808397, 0.7904949667)]
        {
            let (x, y) = find_ab(min_dist, spread);
            assert!((x / a - 1.0).abs() < 1e-5 && (y / b - 1.0).abs() < 1e-5, "{min_dist} {spread}: {x} {y}");
        }
    }
}

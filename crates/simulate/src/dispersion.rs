//! Gamma noise of mean 1: what makes Poisson counts negative binomial.

/// Classes of genes by the shape r of their noise (variance 1/r).
pub(crate) const N_CLASSES: usize = 16;
/// Steps of equal probability by which each gamma distribution is represented.
pub(crate) const N_STEPS: usize = 256;
/// Smallest and largest shape.
const SHAPES: (f64, f64) = (0.5, 16.0);

/// Shape r of a class: spaced evenly in the log.
pub(crate) fn shape(class: usize) -> f64 {
    let (low, high) = SHAPES;
    low * libm::pow(high / low, class as f64 / (N_CLASSES - 1) as f64)
}

/// The class whose shape is nearest to `r` in the log.
pub(crate) fn class_of(r: f64) -> u8 {
    let (low, high) = SHAPES;
    let at = libm::log(r / low) / libm::log(high / low) * (N_CLASSES - 1) as f64;
    at.round().clamp(0.0, (N_CLASSES - 1) as f64) as u8
}

/// `(N_CLASSES * N_STEPS,)`: for each class the quantiles of Gamma(r, 1/r) in the middle of each step, scaled to mean 1.
pub(crate) fn gamma_steps() -> Vec<f32> {
    let mut out = Vec::with_capacity(N_CLASSES * N_STEPS);
    for class in 0..N_CLASSES {
        let r = shape(class);
        let quantiles: Vec<f64> = (0..N_STEPS).map(|i| gamma_quantile(r, (i as f64 + 0.5) / N_STEPS as f64)).collect();
        let mean = quantiles.iter().sum::<f64>() / N_STEPS as f64;
        out.extend(quantiles.iter().map(|q| (q / mean) as f32));
    }
    out
}

/// The `u`-quantile of Gamma(r, 1) by bisection.
fn gamma_quantile(r: f64, u: f64) -> f64 {
    let (mut low, mut high) = (0.0, r + 12.0 * r.sqrt() + 12.0);
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if gamma_below(r, middle) < u { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// P(r, x) = xʳ e⁻ˣ / Γ(r + 1) · Σₙ xⁿ / ((r + 1) … (r + n)) (Abramowitz & Stegun 6.5.29).
fn gamma_below(r: f64, x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (1.0, 1.0, 1.0);
    while term > 1e-12 * sum {
        term *= x / (r + n);
        sum += term;
        n += 1.0;
    }
    sum * libm::exp(r * libm::log(x) - x - libm::lgamma(r + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_mean_1_and_nearly_the_variance_of_the_gamma() {
        let steps = gamma_steps();
        for class in 0..N_CLASSES {
            let row = &steps[class * N_STEPS..(class + 1) * N_STEPS];
            let mean = row.iter().map(|&m| f64::from(m)).sum::<f64>() / N_STEPS as f64;
            let variance = row.iter().map(|&m| (f64::from(m) - mean).powi(2)).sum::<f64>() / N_STEPS as f64;
            assert!((mean - 1.0).abs() < 1e-6);
            assert!((variance * shape(class) - 1.0).abs() < 0.05, "class {class}: {}", variance * shape(class));
            assert!(row.windows(2).all(|w| w[0] <= w[1]) && row[0] >= 0.0);
            assert_eq!(class_of(shape(class)) as usize, class);
        }
    }

    #[test]
    fn shape_1_is_the_exponential_distribution() {
        for u in [0.01, 0.3, 0.5, 0.9, 0.999] {
            assert!((gamma_quantile(1.0, u) + libm::log(1.0 - u)).abs() < 1e-6);
        }
    }
}

//! Poisson counts by inversion of one uniform number.

use crate::random::normal_quantile;

/// From this rate on the quantile is computed from its expansion, below it by adding probabilities.
pub(crate) const LARGE: f32 = 24.0;

/// 1/k for k in 0..128 (0 for k = 0): more terms than a rate below [`LARGE`] can need at 24 random bits.
pub(crate) const INVERSE: [f32; 128] = {
    let mut table = [0.0; 128];
    let mut k = 1;
    while k < 128 {
        table[k] = 1.0 / k as f32;
        k += 1;
    }
    table
};

/// The smallest k whose cumulative probability exceeds `u`, for a rate below [`LARGE`]; `none` is e^-rate. Rounded
/// probabilities may never add up to `u`: beyond the mean a term below 1e-8 ends the search.
#[inline(always)]
pub(crate) fn small(rate: f32, none: f32, u: f32) -> u32 {
    // P(k) = P(k - 1) rate / k.
    let (mut k, mut p, mut left) = (0usize, none, u - none);
    while left >= 0.0 && (p > 1e-8 || (k as f32) < rate) && k < INVERSE.len() - 1 {
        k += 1;
        p *= rate * INVERSE[k];
        left -= p;
    }
    k as u32
}

/// The `u`-quantile for a large rate: floor(λ + √λ z + 1/3 + z²/6 - (z/36 + z³/72)/√λ), z the normal quantile
/// (Giles 2016, the normal asymptotic expansion).
pub(crate) fn large(rate: f64, u: f64) -> u32 {
    let z = normal_quantile(u);
    let root = rate.sqrt();
    let x = rate + root * z + (1.0 / 3.0 + z * z / 6.0) - z * (1.0 / 36.0 + z * z / 72.0) / root;
    x.max(0.0) as u32
}

/// The count of a rate of any size.
pub(crate) fn count(rate: f64, u: f64) -> u32 {
    if rate >= f64::from(LARGE) { large(rate, u) } else { small(rate as f32, libm::exp(-rate) as f32, u as f32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_agree_with_summed_probabilities() {
        for rate in [0.01, 0.5, 3.0, 23.0, 24.0, 60.0, 300.0] {
            for i in 1..500 {
                let u = f64::from(i) / 500.0 + 1e-4;
                let (mut k, mut sum) = (0u32, libm::exp(-rate));
                while sum <= u && k < 2000 {
                    k += 1;
                    sum += libm::exp(f64::from(k) * libm::log(rate) - rate - libm::lgamma(f64::from(k) + 1.0));
                }
                // Where the sum meets u almost exactly, rounding may go either way.
                let got = count(rate, u.min(0.999_999));
                assert!(got == k || (got.abs_diff(k) == 1 && (sum - u).abs() < 0.05), "{rate} {u}: {got} for {k}");
            }
        }
    }
}

//! Two-sided p-values of Student's and the normal distribution, good to about 1e-12 far into the tails.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// P(|T| ≥ |t|) of Student's distribution with `df` degrees of freedom, which need not be whole.
pub fn student_two_sided(t: f64, df: f64) -> f64 {
    if t.is_nan() || df.is_nan() || df <= 0.0 {
        return f64::NAN;
    }
    if df.is_infinite() {
        return normal_two_sided(t);
    }
    let square = t * t;
    if square.is_infinite() {
        return 0.0;
    }
    // Abramowitz & Stegun 26.7.1: P = I_x(df/2, 1/2) with x = df / (df + t²). 1 − x is taken as it is, not as a difference.
    let (x, rest) = (df / (df + square), square / (df + square));
    incomplete_beta(df / 2.0, x, rest)
}

/// P(|Z| ≥ |z|) of the standard normal distribution.
pub fn normal_two_sided(z: f64) -> f64 {
    libm::erfc(z.abs() * FRAC_1_SQRT_2)
}

/// I_x(a, 1/2), the regularised incomplete beta function; `rest` = 1 − x.
fn incomplete_beta(a: f64, x: f64, rest: f64) -> f64 {
    const B: f64 = 0.5;
    if rest <= 0.0 {
        return 1.0;
    }
    if x <= 0.0 {
        return 0.0;
    }
    // x^a (1 − x)^b / B(a, b); ln x as ln(1 − rest), which keeps its digits when t is small against df.
    let front = (a * (-rest).ln_1p() + B * rest.ln() + ln_gamma_step(a)).exp() / PI.sqrt();
    // The continued fraction converges fast below the mean of the distribution (DLMF 8.17.22).
    if x < (a + 1.0) / (a + B + 2.0) { front * fraction(a, B, x) / a } else { 1.0 - front * fraction(B, a, rest) / B }
}

/// ln Γ(a + ½) − ln Γ(a). By itself each is large, and their difference would lose digits.
fn ln_gamma_step(a: f64) -> f64 {
    if a < 20.0 {
        return libm::lgamma(a + 0.5) - libm::lgamma(a);
    }
    // DLMF 5.11.13, the series of Γ(a + ½) / Γ(a) in its logarithm: ½ ln a − 1/(8a) + 1/(192a³) − 1/(640a⁵) + 17/(14336a⁷).
    let (i, i2) = (1.0 / a, 1.0 / (a * a));
    0.5 * a.ln() - i * (0.125 - i2 * (1.0 / 192.0 - i2 * (1.0 / 640.0 - i2 * (17.0 / 14336.0))))
}

/// The continued fraction of I_x(a, b) by Lentz's method (DLMF 8.17.22).
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    const STEPS: usize = 100_000;
    let away = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut whole = d;
    for m in 1..STEPS {
        let m = m as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        whole *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        let step = d * c;
        whole *= step;
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    whole
}

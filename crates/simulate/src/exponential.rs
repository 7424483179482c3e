//! The exponential of many f32, from additions and multiplications alone: the same bits on every machine.

/// Replaces each `x` by eˣ for x in -80..=20 (others are clamped), relative error below 3e-7.
pub(crate) fn exponentials(values: &mut [f32]) {
    for x in values {
        *x = exponential(*x);
    }
}

/// eˣ = 2ⁿ eʳ with n = round(x / ln 2), r = x - n ln 2, and Cephes' polynomial (expf) for eʳ.
#[inline(always)]
fn exponential(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > 20.0 { 20.0 } else { x };
    let x = if x < -80.0 { -80.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first with few bits so that n times it is exact.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = ((((1.987_569_1e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_579_5e-2) * r + 1.666_666_5e-1) * r + 0.5;
    let y = p * r * r + r + 1.0;
    f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_double_precision() {
        for i in -80_000..=20_000 {
            let x = i as f32 * 1e-3;
            let want = libm::exp(f64::from(x));
            let got = f64::from(exponential(x));
            assert!((got / want - 1.0).abs() < 3e-7, "{x}: {got} for {want}");
        }
    }

    #[test]
    fn clamps() {
        assert_eq!(exponential(-1e9), exponential(-80.0));
        assert_eq!(exponential(1e9), exponential(20.0));
    }
}

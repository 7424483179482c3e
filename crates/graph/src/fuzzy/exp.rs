//! The exponential function, with the same bits on every machine and on a GPU (`fuzzy.cu`): additions and multiplications alone, each rounded
//! once.

/// Below it the result is 0: the smallest f32 is e^-103.
const LOWEST: f64 = -700.0;
/// A number to which a whole number is added exactly, in the lowest bits: 1.5 · 2^52.
const WHOLE: f64 = 6_755_399_441_055_744.0;
/// ln 2 as a sum; the first part times a number of 11 bits is exact (fdlibm, e_exp.c).
const LN_2: [f64; 2] = [f64::from_bits(0x3fe6_2e42_fee0_0000), f64::from_bits(0x3dea_39ef_3579_3c76)];
/// 1 / i!, from the last term on.
const TERMS: [f64; 14] = [
    1.0 / 6_227_020_800.0,
    1.0 / 479_001_600.0,
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// e^x for x ≤ 0 (−∞ too), within two units of the last place.
#[inline(always)]
pub(super) fn exp(x: f64) -> f64 {
    let inside = if x > LOWEST { x } else { LOWEST };
    // x = n ln 2 + r, and e^r by its series: |r| ≤ ln 2 / 2, so the first term left out is below 5e-18.
    let shifted = inside * std::f64::consts::LOG2_E + WHOLE;
    let n = shifted - WHOLE;
    let r = (inside - n * LN_2[0]) - n * LN_2[1];
    let series = TERMS[1..].iter().fold(TERMS[0], |sum, term| sum * r + term);
    // 2^n by way of the exponent: n stands in the lowest bits of `shifted`.
    let result = f64::from_bits(series.to_bits().wrapping_add(shifted.to_bits() << 52));
    if x > LOWEST { result } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn it_is_the_exponential_function() {
        let mut worst = 0.0f64;
        for i in 0..2_000_000 {
            let x = -f64::from(i) * 3.5e-4 - 1e-9 * f64::from(i % 7);
            let (found, wanted) = (exp(x), x.exp());
            if x > -700.0 {
                worst = worst.max((found - wanted).abs() / wanted);
            }
        }
        assert!(worst < 4e-16, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e-300), 1.0);
        assert_eq!(exp(-700.0).to_bits(), 0);
        assert_eq!(exp(f64::NEG_INFINITY).to_bits(), 0);
        assert_eq!(exp(-1e300).to_bits(), 0);
    }
}

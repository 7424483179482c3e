//! Floats as 64-bit fixed point, where addition is exact.

use super::panel::Instructions;

/// `totals += sums * 2^scale`, rounded toward zero. The products must fit in an i64.
pub(super) fn add(totals: &mut [i64], sums: &[f32], scale: i32, instructions: Instructions) {
    match instructions {
        Instructions::Portable => add_all(totals, sums, scale),
        // SAFETY: `Avx2` is only made by `detect`, after it has seen that this machine has AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { add_avx2(totals, sums, scale) },
    }
}

/// [`add_all`] with 256-bit shifts.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn add_avx2(totals: &mut [i64], sums: &[f32], scale: i32) {
    add_all(totals, sums, scale);
}

#[inline(always)]
fn add_all(totals: &mut [i64], sums: &[f32], scale: i32) {
    for (total, &sum) in totals.iter_mut().zip(sums) {
        *total = total.wrapping_add(from_f32(sum, scale));
    }
}

/// `value * 2^scale` rounded toward zero, as `(f64::from(value) * 2^scale) as i64` is, but in integer steps that fit wide registers.
#[inline(always)]
fn from_f32(value: f32, scale: i32) -> i64 {
    let bits = value.to_bits();
    let exponent = ((bits >> 23) & 0xff) as i32;
    // IEEE 754: value = +-1.fraction * 2^(exponent - 127) = +-(2^23 + fraction) * 2^(exponent - 150). A subnormal becomes 0 or +-1
    // whatever the scale, so it is taken as 0 (its exponent is 0).
    let mantissa = if exponent == 0 { 0 } else { u64::from((bits & 0x007f_ffff) | 0x0080_0000) };
    let shift = exponent - 150 + scale;
    let magnitude = ((mantissa << shift.clamp(0, 39) as u64) >> (-shift).clamp(0, 63) as u64) as i64;
    let sign = i64::from(bits as i32 >> 31);
    (magnitude ^ sign) - sign
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_the_cast(value in -1e9f32..1e9, down in 0i32..60, scale in -20i32..32) {
            let value = value * (2.0f32).powi(-down);
            prop_assert_eq!(from_f32(value, scale), (f64::from(value) * (2.0f64).powi(scale)) as i64);
        }

        #[test]
        fn both_instruction_sets_agree(values in prop::collection::vec(-1e9f32..1e9, 0..100), scale in -20i32..32) {
            let mut a = vec![1; values.len()];
            let mut b = a.clone();
            add(&mut a, &values, scale, Instructions::Portable);
            add(&mut b, &values, scale, Instructions::detect());
            prop_assert_eq!(a, b);
        }
    }
}

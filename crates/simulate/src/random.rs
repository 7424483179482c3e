//! Random numbers as a pure function of a key and a position: no state is carried from one cell to the next.

/// 2⁶⁴ divided by the golden ratio, odd: steps of it visit every 64-bit number once (Steele, Lea & Flood 2014, SplitMix).
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of SplitMix64 (Stafford's variant 13): every bit of the input changes every bit of the output.
#[inline(always)]
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What a stream of numbers is for, so that no two uses share their numbers.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// Order of the genes along the base profile.
    Order = 1,
    /// Base profile and gene dispersions.
    Base,
    /// Families of types.
    Family,
    /// Types.
    Type,
    /// Sizes of types.
    Weight,
    /// Gene programmes.
    Programme,
    /// Batch effects.
    Batch,
    /// Type, batch, library size and activities of a cell.
    Cell,
    /// Counts of the genes that are drawn one by one.
    Head,
    /// Counts of the genes that are drawn together.
    Tail,
}

/// Random numbers at positions 0, 1, 2, … under one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key(u64);

impl Key {
    /// The key of one purpose and its `item`-th object (type, batch, cell) under a seed.
    #[inline]
    pub(crate) fn new(seed: u64, purpose: Purpose, item: u64) -> Self {
        let seeded = mix(seed.wrapping_add(STEP));
        let purposed = mix(seeded.wrapping_add((purpose as u64).wrapping_mul(0xD134_2543_DE82_EF95)));
        Key(mix(purposed ^ item.wrapping_mul(0xA24B_AED4_963E_E407)))
    }

    /// 64 random bits at a position.
    #[inline(always)]
    pub(crate) fn bits(self, at: u64) -> u64 {
        mix(self.0.wrapping_add(at.wrapping_add(1).wrapping_mul(STEP)))
    }

    /// Uniform on the open interval (0, 1), 53 bits.
    #[inline]
    pub(crate) fn uniform(self, at: u64) -> f64 {
        ((self.bits(at) >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal.
    #[inline]
    pub(crate) fn normal(self, at: u64) -> f64 {
        normal_quantile(self.uniform(at))
    }
}

/// The `u`-quantile of the standard normal, 0 < u < 1: Acklam's rational approximation, relative error below 1.2e-9.
pub(crate) fn normal_quantile(u: f64) -> f64 {
    const LOW: f64 = 0.02425;
    if u < LOW {
        outer(u)
    } else if u > 1.0 - LOW {
        -outer(1.0 - u)
    } else {
        let q = u - 0.5;
        let r = q * q;
        let above =
            ((((-39.69683028665376 * r + 220.9460984245205) * r - 275.9285104469687) * r + 138.357751867269) * r - 30.66479806614716) * r
                + 2.506628277459239;
        let below =
            ((((-54.47609879822406 * r + 161.5858368580409) * r - 155.6989798598866) * r + 66.80131188771972) * r - 13.28068155288572) * r
                + 1.0;
        q * above / below
    }
}

/// The quantile in the lower tail.
fn outer(u: f64) -> f64 {
    let q = (-2.0 * libm::log(u)).sqrt();
    let above =
        ((((-0.007784894002430293 * q - 0.3223964580411365) * q - 2.400758277161838) * q - 2.549732539343734) * q + 4.374664141464968) * q
            + 2.938163982698783;
    let below = (((0.007784695709041462 * q + 0.3224671290700398) * q + 2.445134137142996) * q + 3.754408661907416) * q + 1.0;
    above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_inverts_the_normal_distribution() {
        for i in 1..2000 {
            let u = f64::from(i) / 2000.0;
            let back = 0.5 * libm::erfc(-normal_quantile(u) / std::f64::consts::SQRT_2);
            assert!((back - u).abs() < 1e-8, "{u} {back}");
        }
    }

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let key = Key::new(3, Purpose::Cell, 5);
        let n = 100_000u64;
        let (sum, square) = (0..n).map(|i| key.normal(i)).fold((0.0, 0.0), |(s, q), z| (s + z, q + z * z));
        assert!((sum / n as f64).abs() < 0.015);
        assert!((square / n as f64 - 1.0).abs() < 0.02);
    }

    #[test]
    fn neighbouring_keys_share_nothing() {
        let equal = (0..1000u64)
            .filter(|&i| Key::new(0, Purpose::Head, i).bits(7) >> 56 == Key::new(0, Purpose::Head, i + 1).bits(7) >> 56)
            .count();
        assert!(equal < 20, "{equal} of 1000, about 4 expected");
    }
}

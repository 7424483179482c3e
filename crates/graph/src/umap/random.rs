//! Random numbers that are a function of where they are used.

/// What a random number is for; two uses never share a stream.
#[derive(Clone, Copy)]
pub(super) enum Use {
    Start = 1,
    Noise,
    Place,
    Blocks,
    Negatives,
    Pool,
    Centres,
}

/// 64 random bits keyed by (seed, use, a, b): two rounds of the splitmix64 finaliser (Steele et al. 2014).
pub(super) fn bits(seed: u64, purpose: Use, a: u64, b: u64) -> u64 {
    let first = mix(seed.wrapping_add((purpose as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    mix(mix(first ^ a.wrapping_mul(0xd134_2543_de82_ef95)) ^ b.wrapping_mul(0x2545_f491_4f6c_dd1d))
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Uniform in [0, 1), 53 bits.
pub(super) fn uniform(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Normal with mean 0 and variance 1 (Box-Muller on the two halves of `bits`).
pub(super) fn normal(bits: u64) -> f64 {
    let radius = ((bits >> 32) as f64 + 1.0) / 4_294_967_296.0;
    let angle = (bits & 0xffff_ffff) as f64 / 4_294_967_296.0;
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

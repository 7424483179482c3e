//! Blocks by AVX2: integer work and exact conversions, so that the bits are those of the plain code.

mod encode;

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_add_epi64, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_loadu_si256,
    _mm256_mul_epu32, _mm256_permutevar8x32_epi32, _mm256_set_m128i, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setr_epi32,
    _mm256_shuffle_epi8, _mm256_shuffle_epi32, _mm256_slli_si256, _mm256_srli_epi64, _mm256_srlv_epi32, _mm256_storeu_ps,
    _mm256_storeu_si256, _mm256_xor_si256,
};

use super::checksum::{KEYS, STEP, STRIPE};
use super::{BLOCK, PAD, WIDEST, columns};
pub(super) use encode::{pack, whole};

/// How eight numbers of `width` bits are taken out of `width` bytes: the byte at which the upper four begin, the four bytes that
/// hold each number, and its first bit within them.
struct Pattern {
    upper: usize,
    bytes: [u8; 32],
    shifts: [i32; 8],
}

const PATTERNS: [Pattern; WIDEST as usize + 1] = {
    const EMPTY: Pattern = Pattern { upper: 0, bytes: [0; 32], shifts: [0; 8] };
    let mut patterns = [EMPTY; WIDEST as usize + 1];
    let mut width = 0;
    while width < patterns.len() {
        let upper = width * 4 / 8;
        patterns[width].upper = upper;
        let mut lane = 0;
        while lane < 8 {
            let bit = lane * width - if lane < 4 { 0 } else { upper * 8 };
            patterns[width].shifts[lane] = (bit % 8) as i32;
            let mut byte = 0;
            while byte < 4 {
                patterns[width].bytes[lane * 4 + byte] = (bit / 8 + byte) as u8;
                byte += 1;
            }
            lane += 1;
        }
        width += 1;
    }
    patterns
};

/// Eight vectors of low parts are handed to `put`, with their number.
#[inline]
#[target_feature(enable = "avx2")]
fn groups(bytes: &[u8], width: u32, put: impl Fn(usize, __m256i)) {
    let width = width as usize;
    let pattern = &PATTERNS[width];
    assert!(bytes.len() >= 16 * width + PAD);
    // SAFETY: both arrays are 32 bytes long.
    let (shuffle, shifts) = unsafe { (load(pattern.bytes.as_ptr().cast()), load(pattern.shifts.as_ptr().cast())) };
    let mask = _mm256_set1_epi32((1 << width) - 1);
    for g in 0..16 {
        // SAFETY: at most bytes 15 * width + width / 2 .. + 16 are read, and there are 16 * width + 16.
        let (lower, upper) = unsafe {
            let at = bytes.as_ptr().add(g * width);
            (_mm_loadu_si128(at.cast::<__m128i>()), _mm_loadu_si128(at.add(pattern.upper).cast::<__m128i>()))
        };
        let words = _mm256_shuffle_epi8(_mm256_set_m128i(upper, lower), shuffle);
        put(g, _mm256_and_si256(_mm256_srlv_epi32(words, shifts), mask));
    }
}

/// # Safety
/// 32 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(at: *const u8) -> __m256i {
    // SAFETY: as the caller promises.
    unsafe { _mm256_loadu_si256(at.cast()) }
}

#[target_feature(enable = "avx2")]
pub(super) fn numbers(bytes: &[u8], width: u32, out: &mut [u32; BLOCK]) {
    let out = out.as_mut_ptr();
    groups(bytes, width, |g, numbers| {
        // SAFETY: g < 16, and out has 16 vectors of eight.
        unsafe { _mm256_storeu_si256(out.add(8 * g).cast(), numbers) }
    });
}

#[target_feature(enable = "avx2")]
pub(super) fn values(bytes: &[u8], width: u32, base: u32, out: &mut [f32; BLOCK]) {
    let out = out.as_mut_ptr();
    let base = _mm256_set1_epi32(base as i32);
    groups(bytes, width, |g, numbers| {
        let values = _mm256_cvtepi32_ps(_mm256_add_epi32(numbers, base));
        // SAFETY: g < 16, and out has 16 vectors of eight.
        unsafe { _mm256_storeu_ps(out.add(8 * g), values) }
    });
}

#[target_feature(enable = "avx2")]
pub(super) fn sums(out: &mut [u32; BLOCK], carry: u32) {
    let one = _mm256_set1_epi32(1);
    let last = _mm256_set1_epi32(7);
    let middle = _mm256_set1_epi32(3);
    let above = _mm256_setr_epi32(0, 0, 0, 0, -1, -1, -1, -1);
    let mut carry = _mm256_set1_epi32(carry as i32);
    for g in 0..16 {
        let at = out[8 * g..8 * g + 8].as_mut_ptr();
        // SAFETY: `at` points at eight numbers.
        let mut x = _mm256_add_epi32(unsafe { load(at.cast()) }, one);
        x = _mm256_add_epi32(x, _mm256_slli_si256::<4>(x));
        x = _mm256_add_epi32(x, _mm256_slli_si256::<8>(x));
        // Both halves hold their own sums; the lower one's last goes onto the upper.
        x = _mm256_add_epi32(x, _mm256_and_si256(_mm256_permutevar8x32_epi32(x, middle), above));
        let total = _mm256_permutevar8x32_epi32(x, last);
        // SAFETY: `at` points at eight numbers.
        unsafe { _mm256_storeu_si256(at.cast(), _mm256_add_epi32(x, carry)) };
        carry = _mm256_add_epi32(carry, total);
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn stripes(acc: &mut [u64; 8], salt: u64, stripes: &[[u8; STRIPE]]) {
    // SAFETY: `acc` and `KEYS` are two vectors long each.
    let (mut a, mut b, mut keys_a, mut keys_b) = unsafe {
        (load(acc.as_ptr().cast()), load(acc.as_ptr().add(4).cast()), load(KEYS.as_ptr().cast()), load(KEYS.as_ptr().add(4).cast()))
    };
    let salt = _mm256_set1_epi64x(salt as i64);
    let step = _mm256_set1_epi64x(STEP as i64);
    keys_a = _mm256_add_epi64(keys_a, salt);
    keys_b = _mm256_add_epi64(keys_b, salt);
    for stripe in stripes {
        // SAFETY: a stripe is two vectors long.
        let (x, y) = unsafe { (load(stripe.as_ptr()), load(stripe.as_ptr().add(32))) };
        a = _mm256_add_epi64(a, taken(x, keys_a));
        b = _mm256_add_epi64(b, taken(y, keys_b));
        keys_a = _mm256_add_epi64(keys_a, step);
        keys_b = _mm256_add_epi64(keys_b, step);
    }
    // SAFETY: `acc` is two vectors long.
    unsafe {
        _mm256_storeu_si256(acc.as_mut_ptr().cast(), a);
        _mm256_storeu_si256(acc.as_mut_ptr().add(4).cast(), b);
    }
}

/// What four words add to their lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn taken(words: __m256i, keys: __m256i) -> __m256i {
    let keyed = _mm256_xor_si256(words, keys);
    let product = _mm256_mul_epu32(keyed, _mm256_srli_epi64::<32>(keyed));
    // The neighbours' words: 64-bit halves of each 128 bits exchanged.
    _mm256_add_epi64(product, _mm256_shuffle_epi32::<0b0100_1110>(words))
}

#[target_feature(enable = "avx2")]
pub(super) fn add(values: &[f32; BLOCK], sums: &mut [f64; 8]) {
    columns::add(values, sums);
}

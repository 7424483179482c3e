//! Numbers to bytes. A block of 128 costs about a cycle a number: lengths in bits are compared as bytes, 32 at a time, and eight numbers
//! of up to eight bits become one word by three shifts and unions.

use std::arch::x86_64::{
    __m256i, _mm_cvtsi32_si128, _mm256_and_si256, _mm256_castps_si256, _mm256_cmpgt_epi8, _mm256_cvtepi32_ps, _mm256_cvttps_epi32,
    _mm256_extract_epi64, _mm256_loadu_ps, _mm256_max_epu32, _mm256_min_epu32, _mm256_movemask_epi8, _mm256_or_si256, _mm256_packus_epi16,
    _mm256_packus_epi32, _mm256_permutevar8x32_epi32, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x,
    _mm256_setr_epi32, _mm256_setzero_si256, _mm256_sll_epi16, _mm256_sll_epi32, _mm256_sll_epi64, _mm256_srli_epi16, _mm256_srli_epi32,
    _mm256_srli_epi64, _mm256_storeu_si256, _mm256_sub_epi32, _mm256_subs_epu8, _mm256_xor_si256,
};

use super::super::{BLOCK, PAD, encode};
use super::load;

/// Vectors of a block.
const VECTORS: usize = BLOCK / 8;

/// See [`encode::whole`].
#[target_feature(enable = "avx2")]
pub fn whole(values: &[f32; BLOCK], out: &mut [u32; BLOCK]) -> Option<u32> {
    let mut differ = _mm256_setzero_si256();
    let (mut least, mut most) = (_mm256_set1_epi32(-1), _mm256_setzero_si256());
    for g in 0..VECTORS {
        // SAFETY: g < 16, and there are 16 vectors of eight values.
        let value = unsafe { _mm256_loadu_ps(values.as_ptr().add(8 * g)) };
        // What has no i32 becomes -2^31, which differs from it or is above the largest.
        let number = _mm256_cvttps_epi32(value);
        let back = _mm256_cvtepi32_ps(number);
        differ = _mm256_or_si256(differ, _mm256_xor_si256(_mm256_castps_si256(back), _mm256_castps_si256(value)));
        least = _mm256_min_epu32(least, number);
        most = _mm256_max_epu32(most, number);
        // SAFETY: g < 16, and out has 16 vectors of eight.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(8 * g).cast(), number) };
    }
    let (differ, least, most) = (lanes(differ), lanes(least), lanes(most));
    if differ.iter().any(|&d| d != 0) || most.iter().any(|&m| m > encode::LARGEST) {
        return None;
    }
    let less = least.iter().fold(1, |least, &l| least.min(l));
    if less > 0 {
        let one = _mm256_set1_epi32(1);
        for g in 0..VECTORS {
            let at = out[8 * g..8 * g + 8].as_mut_ptr();
            // SAFETY: `at` points at eight numbers.
            unsafe { _mm256_storeu_si256(at.cast(), _mm256_sub_epi32(load(at.cast()), one)) };
        }
    }
    Some(less)
}

/// See [`encode::pack_block`].
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
pub fn pack(numbers: &[u32; BLOCK], out: &mut [u8], at: &mut usize) -> [u8; 2] {
    let mut all = _mm256_setzero_si256();
    for g in 0..VECTORS {
        all = _mm256_or_si256(all, vector(numbers, g));
    }
    let bits = 32 - lanes(all).iter().fold(0, |all, n| all | n).leading_zeros();
    if bits > 24 {
        // Beyond 24 bits a float's exponent is not the length of the number that was rounded to it.
        return encode::pack_block(numbers, out, at);
    }
    let lengths = bytes(numbers, |n| _mm256_srli_epi32::<23>(_mm256_castps_si256(_mm256_cvtepi32_ps(n))));
    let lengths = lengths.map(|biased| _mm256_subs_epu8(biased, _mm256_set1_epi8(126)));
    let longer = |width: u32| {
        let width = _mm256_set1_epi8(width as i8);
        lengths.map(|l| _mm256_movemask_epi8(_mm256_cmpgt_epi8(l, width)) as u32)
    };
    let (width, exceptions, high) = encode::cheapest(bits, |width| longer(width).iter().map(|m| m.count_ones()).sum());
    let low = &mut out[*at..*at + 16 * width as usize + PAD];
    if width <= 8 {
        low_bytes(numbers, width, low)
    } else {
        encode::low_parts(numbers, width as usize, low)
    }
    *at += 16 * width as usize;
    if exceptions > 0 {
        let mut high_at = *at + exceptions as usize;
        let low = (1 << high) as usize;
        for (q, mut mask) in longer(width).into_iter().enumerate() {
            while mask != 0 {
                let k = 32 * q + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                out[*at] = k as u8;
                *at += 1;
                out[high_at..high_at + 4].copy_from_slice(&(numbers[k % BLOCK] >> width).to_le_bytes());
                high_at += low;
            }
        }
        *at = high_at;
    }
    [width as u8 | high << 5, exceptions as u8]
}

/// The low `width` bits of each number, at most eight, eight numbers in `width` bytes. `out`: `16 * width + PAD` or more.
#[inline]
#[target_feature(enable = "avx2")]
fn low_bytes(numbers: &[u32; BLOCK], width: u32, out: &mut [u8]) {
    let shift = |times: u32| _mm_cvtsi32_si128((times * width) as i32);
    let (one, two, four) = (shift(1), shift(2), shift(4));
    let kept = _mm256_set1_epi32((1 << width) - 1);
    let halves = (_mm256_set1_epi16(0xff), _mm256_set1_epi32(0xffff), _mm256_set1_epi64x(0xffff_ffff));
    for (q, x) in bytes(numbers, |n| _mm256_and_si256(n, kept)).into_iter().enumerate() {
        let x = _mm256_or_si256(_mm256_and_si256(x, halves.0), _mm256_sll_epi16(_mm256_srli_epi16::<8>(x), one));
        let x = _mm256_or_si256(_mm256_and_si256(x, halves.1), _mm256_sll_epi32(_mm256_srli_epi32::<16>(x), two));
        let x = _mm256_or_si256(_mm256_and_si256(x, halves.2), _mm256_sll_epi64(_mm256_srli_epi64::<32>(x), four));
        let words =
            [_mm256_extract_epi64::<0>(x), _mm256_extract_epi64::<1>(x), _mm256_extract_epi64::<2>(x), _mm256_extract_epi64::<3>(x)];
        for (g, word) in words.into_iter().enumerate() {
            // The bytes beyond `width` are zeros that the next word overwrites.
            let at = (4 * q + g) * width as usize;
            out[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// A block's numbers, each after `of` (then below 256), as bytes in their order.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes(numbers: &[u32; BLOCK], of: impl Fn(__m256i) -> __m256i) -> [__m256i; 4] {
    // Packing goes on within halves of 128 bits: this puts fours of bytes back into their order.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    std::array::from_fn(|q| {
        let [a, b, c, d] = std::array::from_fn(|g| of(vector(numbers, 4 * q + g)));
        _mm256_permutevar8x32_epi32(_mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d)), order)
    })
}

/// Numbers `8 * g ..` of a block.
#[inline]
#[target_feature(enable = "avx2")]
fn vector(numbers: &[u32; BLOCK], g: usize) -> __m256i {
    let eight = &numbers[8 * g..8 * g + 8];
    // SAFETY: eight numbers are 32 bytes.
    unsafe { load(eight.as_ptr().cast()) }
}

/// The eight numbers of a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes(vector: __m256i) -> [u32; 8] {
    let mut lanes = [0; 8];
    // SAFETY: eight numbers are 32 bytes.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector) };
    lanes
}

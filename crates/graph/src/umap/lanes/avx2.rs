//! Two registers of AVX2.

use std::arch::x86_64::*;

use super::{Avx2, Lanes, WIDTH, pair};

type F = [__m256; 2];
type U = [__m256i; 2];

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
/// Lanes of a register.
const HALF: usize = 8;

macro_rules! both {
    ($l:ident => $e:expr) => {{
        // SAFETY: `Avx2` is only used where AVX2 and FMA were found; loads and stores are unaligned and inside their array.
        #[allow(unused_unsafe)]
        let one = |$l: usize| unsafe { $e };
        [one(0), one(1)]
    }};
}

#[inline(always)]
fn half<T: Copy, const N: usize>(of: [[T; N]; 2]) -> [[T; 2]; N] {
    std::array::from_fn(|c| [of[0][c], of[1][c]])
}

impl Lanes for Avx2 {
    type F = F;
    type U = U;
    #[inline(always)]
    fn f(x: f32) -> F {
        both!(_l => _mm256_set1_ps(x))
    }
    #[inline(always)]
    fn load(x: &[f32; WIDTH]) -> F {
        both!(l => _mm256_loadu_ps(x[l * HALF..][..HALF].as_ptr()))
    }
    #[inline(always)]
    fn store(x: F, into: &mut [f32; WIDTH]) {
        for (x, into) in x.into_iter().zip(into.chunks_exact_mut(HALF)) {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(into.as_mut_ptr(), x) }
        }
    }
    #[inline(always)]
    fn u(x: u32) -> U {
        both!(_l => _mm256_set1_epi32(x as i32))
    }
    #[inline(always)]
    fn load_u(x: &[u32; WIDTH]) -> U {
        both!(l => _mm256_loadu_si256(x[l * HALF..][..HALF].as_ptr().cast()))
    }
    #[inline(always)]
    fn store_u(x: U, into: &mut [u32; WIDTH]) {
        for (x, into) in x.into_iter().zip(into.chunks_exact_mut(HALF)) {
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(into.as_mut_ptr().cast(), x) }
        }
    }
    #[inline(always)]
    fn add(a: F, b: F) -> F {
        both!(l => _mm256_add_ps(a[l], b[l]))
    }
    #[inline(always)]
    fn sub(a: F, b: F) -> F {
        both!(l => _mm256_sub_ps(a[l], b[l]))
    }
    #[inline(always)]
    fn mul(a: F, b: F) -> F {
        both!(l => _mm256_mul_ps(a[l], b[l]))
    }
    #[inline(always)]
    fn div(a: F, b: F) -> F {
        both!(l => _mm256_div_ps(a[l], b[l]))
    }
    #[inline(always)]
    fn fma(a: F, b: F, c: F) -> F {
        both!(l => _mm256_fmadd_ps(a[l], b[l], c[l]))
    }
    #[inline(always)]
    fn max(a: F, b: F) -> F {
        both!(l => _mm256_max_ps(a[l], b[l]))
    }
    #[inline(always)]
    fn min(a: F, b: F) -> F {
        both!(l => _mm256_min_ps(a[l], b[l]))
    }
    #[inline(always)]
    fn round(a: F) -> F {
        both!(l => _mm256_round_ps::<NEAREST>(a[l]))
    }
    #[inline(always)]
    fn where_differ(a: U, b: U, x: F) -> F {
        both!(l => _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a[l], b[l])), x[l]))
    }
    #[inline(always)]
    fn add_u(a: U, b: U) -> U {
        both!(l => _mm256_add_epi32(a[l], b[l]))
    }
    #[inline(always)]
    fn sub_u(a: U, b: U) -> U {
        both!(l => _mm256_sub_epi32(a[l], b[l]))
    }
    #[inline(always)]
    fn xor(a: U, b: U) -> U {
        both!(l => _mm256_xor_si256(a[l], b[l]))
    }
    #[inline(always)]
    fn mul_u(a: U, b: U) -> U {
        both!(l => _mm256_mullo_epi32(a[l], b[l]))
    }
    #[inline(always)]
    fn high(a: U, b: U) -> U {
        both!(l => {
            let even = _mm256_srli_epi64::<32>(_mm256_mul_epu32(a[l], b[l]));
            let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(a[l]), _mm256_srli_epi64::<32>(b[l]));
            _mm256_blend_epi32::<0b1010_1010>(even, odd)
        })
    }
    #[inline(always)]
    fn shr<const N: i32>(a: U) -> U {
        both!(l => _mm256_srli_epi32::<N>(a[l]))
    }
    #[inline(always)]
    fn shl<const N: i32>(a: U) -> U {
        both!(l => _mm256_slli_epi32::<N>(a[l]))
    }
    #[inline(always)]
    fn sar<const N: i32>(a: U) -> U {
        both!(l => _mm256_srai_epi32::<N>(a[l]))
    }
    #[inline(always)]
    fn bits(x: F) -> U {
        both!(l => _mm256_castps_si256(x[l]))
    }
    #[inline(always)]
    fn from_bits(x: U) -> F {
        both!(l => _mm256_castsi256_ps(x[l]))
    }
    #[inline(always)]
    fn to_f(x: U) -> F {
        both!(l => _mm256_cvtepi32_ps(x[l]))
    }
    #[inline(always)]
    fn to_i(x: F) -> U {
        both!(l => _mm256_cvtps_epi32(x[l]))
    }
    #[inline(always)]
    fn pairs(points: &[[f32; 2]], at: &[u32; WIDTH]) -> [F; 2] {
        half(both!(l => {
            let p: [f64; HALF] = std::array::from_fn(|i| pair(points, at[l * HALF + i]));
            // Halves of 128 bits: points 0 1 | 4 5 and 2 3 | 6 7; the shuffle takes x (or y) of both.
            let low = _mm256_castpd_ps(_mm256_setr_pd(p[0], p[1], p[4], p[5]));
            let high = _mm256_castpd_ps(_mm256_setr_pd(p[2], p[3], p[6], p[7]));
            [_mm256_shuffle_ps::<0b10_00_10_00>(low, high), _mm256_shuffle_ps::<0b11_01_11_01>(low, high)]
        }))
    }
    #[inline(always)]
    fn quads(points: &[[f32; 4]], at: &[u32; WIDTH]) -> [F; 4] {
        half(both!(l => {
            let p: [&[f32; 4]; HALF] = std::array::from_fn(|i| &points[at[l * HALF + i] as usize]);
            // A 4 x 4 transposition in each half of 128 bits: points 0–3 and 4–7.
            let a = _mm256_set_m128(_mm_loadu_ps(p[4].as_ptr()), _mm_loadu_ps(p[0].as_ptr()));
            let b = _mm256_set_m128(_mm_loadu_ps(p[5].as_ptr()), _mm_loadu_ps(p[1].as_ptr()));
            let c = _mm256_set_m128(_mm_loadu_ps(p[6].as_ptr()), _mm_loadu_ps(p[2].as_ptr()));
            let d = _mm256_set_m128(_mm_loadu_ps(p[7].as_ptr()), _mm_loadu_ps(p[3].as_ptr()));
            let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
            [
                _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd),
                _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd),
                _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
                _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
            ]
        }))
    }
}

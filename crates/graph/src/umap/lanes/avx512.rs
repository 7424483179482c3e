//! One register of AVX-512.

use std::arch::x86_64::*;

use super::{Avx512, Lanes, WIDTH, pair};

type F = __m512;
type U = __m512i;

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

macro_rules! avx {
    ($e:expr) => {{
        // SAFETY: `Avx512` is only used where AVX-512F was found; loads and stores are unaligned and as long as their array.
        #[allow(unused_unsafe)]
        unsafe {
            $e
        }
    }};
}

impl Lanes for Avx512 {
    type F = F;
    type U = U;
    #[inline(always)]
    fn f(x: f32) -> F {
        avx!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(x: &[f32; WIDTH]) -> F {
        avx!(_mm512_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn store(x: F, into: &mut [f32; WIDTH]) {
        avx!(_mm512_storeu_ps(into.as_mut_ptr(), x))
    }
    #[inline(always)]
    fn u(x: u32) -> U {
        avx!(_mm512_set1_epi32(x as i32))
    }
    #[inline(always)]
    fn load_u(x: &[u32; WIDTH]) -> U {
        avx!(_mm512_loadu_si512(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn store_u(x: U, into: &mut [u32; WIDTH]) {
        avx!(_mm512_storeu_si512(into.as_mut_ptr().cast(), x))
    }
    #[inline(always)]
    fn add(a: F, b: F) -> F {
        avx!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(a: F, b: F) -> F {
        avx!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(a: F, b: F) -> F {
        avx!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(a: F, b: F) -> F {
        avx!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(a: F, b: F, c: F) -> F {
        avx!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(a: F, b: F) -> F {
        avx!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(a: F, b: F) -> F {
        avx!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn round(a: F) -> F {
        avx!(_mm512_roundscale_ps::<NEAREST>(a))
    }
    #[inline(always)]
    fn where_differ(a: U, b: U, x: F) -> F {
        avx!(_mm512_maskz_mov_ps(_mm512_cmpneq_epi32_mask(a, b), x))
    }
    #[inline(always)]
    fn add_u(a: U, b: U) -> U {
        avx!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub_u(a: U, b: U) -> U {
        avx!(_mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn xor(a: U, b: U) -> U {
        avx!(_mm512_xor_si512(a, b))
    }
    #[inline(always)]
    fn mul_u(a: U, b: U) -> U {
        avx!(_mm512_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn high(a: U, b: U) -> U {
        avx!({
            let even = _mm512_srli_epi64::<32>(_mm512_mul_epu32(a, b));
            let odd = _mm512_mul_epu32(_mm512_srli_epi64::<32>(a), _mm512_srli_epi64::<32>(b));
            _mm512_mask_mov_epi32(even, 0b1010_1010_1010_1010, odd)
        })
    }
    #[inline(always)]
    fn shr<const N: i32>(a: U) -> U {
        avx!(_mm512_srlv_epi32(a, _mm512_set1_epi32(N)))
    }
    #[inline(always)]
    fn shl<const N: i32>(a: U) -> U {
        avx!(_mm512_sllv_epi32(a, _mm512_set1_epi32(N)))
    }
    #[inline(always)]
    fn sar<const N: i32>(a: U) -> U {
        avx!(_mm512_srav_epi32(a, _mm512_set1_epi32(N)))
    }
    #[inline(always)]
    fn bits(x: F) -> U {
        avx!(_mm512_castps_si512(x))
    }
    #[inline(always)]
    fn from_bits(x: U) -> F {
        avx!(_mm512_castsi512_ps(x))
    }
    #[inline(always)]
    fn to_f(x: U) -> F {
        avx!(_mm512_cvtepi32_ps(x))
    }
    #[inline(always)]
    fn to_i(x: F) -> U {
        avx!(_mm512_cvtps_epi32(x))
    }
    #[inline(always)]
    fn pairs(points: &[[f32; 2]], at: &[u32; WIDTH]) -> [F; 2] {
        let p: [f64; WIDTH] = std::array::from_fn(|i| pair(points, at[i]));
        avx!({
            // Quarters of 128 bits: points 0 1 | 4 5 | … and 2 3 | 6 7 | …; the shuffle takes x (or y) of both.
            let low = _mm512_castpd_ps(_mm512_setr_pd(p[0], p[1], p[4], p[5], p[8], p[9], p[12], p[13]));
            let high = _mm512_castpd_ps(_mm512_setr_pd(p[2], p[3], p[6], p[7], p[10], p[11], p[14], p[15]));
            [_mm512_shuffle_ps::<0b10_00_10_00>(low, high), _mm512_shuffle_ps::<0b11_01_11_01>(low, high)]
        })
    }
    #[inline(always)]
    fn quads(points: &[[f32; 4]], at: &[u32; WIDTH]) -> [F; 4] {
        let p: [&[f32; 4]; WIDTH] = std::array::from_fn(|i| &points[at[i] as usize]);
        avx!({
            // A 4 x 4 transposition in each quarter of 128 bits: points 0–3, 4–7, 8–11 and 12–15.
            let four = |i: usize| {
                let quarter = |j: usize| _mm_loadu_ps(p[i + 4 * j].as_ptr());
                let row = _mm512_insertf32x4::<1>(_mm512_castps128_ps512(quarter(0)), quarter(1));
                _mm512_insertf32x4::<3>(_mm512_insertf32x4::<2>(row, quarter(2)), quarter(3))
            };
            let (a, b, c, d) = (four(0), four(1), four(2), four(3));
            let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
            [
                _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd),
                _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd),
                _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
                _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
            ]
        })
    }
}

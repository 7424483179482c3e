//! Eight numbers at once, on AVX2 with FMA and, to the same bits, anywhere.
//!
//! Every operation is one IEEE rounding (`fma` too) or exact, so both kinds agree to the bit.

/// Lanes of a register.
pub(super) const WIDTH: usize = 8;

/// Eight f32 (`F`) or eight u32 (`U`).
pub(super) trait Lanes {
    type F: Copy;
    type U: Copy;
    fn f(x: f32) -> Self::F;
    fn load(x: &[f32; WIDTH]) -> Self::F;
    fn store(x: Self::F, into: &mut [f32; WIDTH]);
    fn add(a: Self::F, b: Self::F) -> Self::F;
    fn sub(a: Self::F, b: Self::F) -> Self::F;
    fn mul(a: Self::F, b: Self::F) -> Self::F;
    fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a b + c`, rounded once.
    fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn max(a: Self::F, b: Self::F) -> Self::F;
    fn min(a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(a: Self::F) -> Self::F;
    /// `x` where `a != b`, else 0.
    fn where_differ(a: Self::U, b: Self::U, x: Self::F) -> Self::F;
    fn u(x: u32) -> Self::U;
    fn load_u(x: &[u32; WIDTH]) -> Self::U;
    fn store_u(x: Self::U, into: &mut [u32; WIDTH]);
    fn add_u(a: Self::U, b: Self::U) -> Self::U;
    fn sub_u(a: Self::U, b: Self::U) -> Self::U;
    fn xor(a: Self::U, b: Self::U) -> Self::U;
    fn mul_u(a: Self::U, b: Self::U) -> Self::U;
    /// Upper 32 bits of the products.
    fn high(a: Self::U, b: Self::U) -> Self::U;
    fn shr<const N: i32>(a: Self::U) -> Self::U;
    fn shl<const N: i32>(a: Self::U) -> Self::U;
    /// Shift right of signed numbers.
    fn sar<const N: i32>(a: Self::U) -> Self::U;
    fn bits(x: Self::F) -> Self::U;
    fn from_bits(x: Self::U) -> Self::F;
    /// Signed integers to f32.
    fn to_f(x: Self::U) -> Self::F;
    /// Integral f32 to signed integers.
    fn to_i(x: Self::F) -> Self::U;
    /// The two coordinates of eight points.
    fn pairs(points: &[[f32; 2]], at: &[u32; WIDTH]) -> [Self::F; 2];
    /// The four coordinates of eight points.
    fn quads(points: &[[f32; 4]], at: &[u32; WIDTH]) -> [Self::F; 4];
}

/// A point of 2 or 4 coordinates.
pub(super) trait Point<const S: usize>: Sized {
    /// Coordinates of eight points.
    fn gather<L: Lanes>(points: &[Self], at: &[u32; WIDTH]) -> [L::F; S];
}

impl Point<2> for [f32; 2] {
    #[inline(always)]
    fn gather<L: Lanes>(points: &[Self], at: &[u32; WIDTH]) -> [L::F; 2] {
        L::pairs(points, at)
    }
}

impl Point<4> for [f32; 4] {
    #[inline(always)]
    fn gather<L: Lanes>(points: &[Self], at: &[u32; WIDTH]) -> [L::F; 4] {
        L::quads(points, at)
    }
}

/// Runs on every machine.
pub(super) struct Portable;

macro_rules! each {
    ($l:ident => $e:expr) => {{
        let mut out = [Default::default(); WIDTH];
        for $l in 0..WIDTH {
            out[$l] = $e;
        }
        out
    }};
}

impl Lanes for Portable {
    type F = [f32; WIDTH];
    type U = [u32; WIDTH];
    fn f(x: f32) -> Self::F {
        [x; WIDTH]
    }
    fn load(x: &[f32; WIDTH]) -> Self::F {
        *x
    }
    fn store(x: Self::F, into: &mut [f32; WIDTH]) {
        *into = x;
    }
    fn add(a: Self::F, b: Self::F) -> Self::F {
        each!(l => a[l] + b[l])
    }
    fn sub(a: Self::F, b: Self::F) -> Self::F {
        each!(l => a[l] - b[l])
    }
    fn mul(a: Self::F, b: Self::F) -> Self::F {
        each!(l => a[l] * b[l])
    }
    fn div(a: Self::F, b: Self::F) -> Self::F {
        each!(l => a[l] / b[l])
    }
    fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each!(l => a[l].mul_add(b[l], c[l]))
    }
    fn max(a: Self::F, b: Self::F) -> Self::F {
        each!(l => if a[l] > b[l] { a[l] } else { b[l] })
    }
    fn min(a: Self::F, b: Self::F) -> Self::F {
        each!(l => if a[l] < b[l] { a[l] } else { b[l] })
    }
    fn round(a: Self::F) -> Self::F {
        each!(l => a[l].round_ties_even())
    }
    fn where_differ(a: Self::U, b: Self::U, x: Self::F) -> Self::F {
        each!(l => if a[l] == b[l] { 0.0 } else { x[l] })
    }
    fn u(x: u32) -> Self::U {
        [x; WIDTH]
    }
    fn load_u(x: &[u32; WIDTH]) -> Self::U {
        *x
    }
    fn store_u(x: Self::U, into: &mut [u32; WIDTH]) {
        *into = x;
    }
    fn add_u(a: Self::U, b: Self::U) -> Self::U {
        each!(l => a[l].wrapping_add(b[l]))
    }
    fn sub_u(a: Self::U, b: Self::U) -> Self::U {
        each!(l => a[l].wrapping_sub(b[l]))
    }
    fn xor(a: Self::U, b: Self::U) -> Self::U {
        each!(l => a[l] ^ b[l])
    }
    fn mul_u(a: Self::U, b: Self::U) -> Self::U {
        each!(l => a[l].wrapping_mul(b[l]))
    }
    fn high(a: Self::U, b: Self::U) -> Self::U {
        each!(l => ((u64::from(a[l]) * u64::from(b[l])) >> 32) as u32)
    }
    fn shr<const N: i32>(a: Self::U) -> Self::U {
        each!(l => a[l] >> N)
    }
    fn shl<const N: i32>(a: Self::U) -> Self::U {
        each!(l => a[l] << N)
    }
    fn sar<const N: i32>(a: Self::U) -> Self::U {
        each!(l => ((a[l] as i32) >> N) as u32)
    }
    fn bits(x: Self::F) -> Self::U {
        each!(l => x[l].to_bits())
    }
    fn from_bits(x: Self::U) -> Self::F {
        each!(l => f32::from_bits(x[l]))
    }
    fn to_f(x: Self::U) -> Self::F {
        each!(l => x[l] as i32 as f32)
    }
    fn to_i(x: Self::F) -> Self::U {
        each!(l => x[l] as i32 as u32)
    }
    fn pairs(points: &[[f32; 2]], at: &[u32; WIDTH]) -> [Self::F; 2] {
        [each!(l => points[at[l] as usize][0]), each!(l => points[at[l] as usize][1])]
    }
    fn quads(points: &[[f32; 4]], at: &[u32; WIDTH]) -> [Self::F; 4] {
        let mut out = [[0.0; WIDTH]; 4];
        for (c, coordinate) in out.iter_mut().enumerate() {
            for l in 0..WIDTH {
                coordinate[l] = points[at[l] as usize][c];
            }
        }
        out
    }
}

/// AVX2 and FMA. Used only inside functions that are called after both were found at run time.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx;

#[cfg(target_arch = "x86_64")]
mod avx {
    use std::arch::x86_64::*;

    use super::{Avx, Lanes, WIDTH};

    macro_rules! avx {
        ($e:expr) => {{
            // SAFETY: `Avx` is only used where AVX2 and FMA were found; loads and stores are unaligned and as long as their array.
            #[allow(unused_unsafe)]
            unsafe {
                $e
            }
        }};
    }

    /// Both coordinates as one f64, so that one load and one insertion move a point.
    #[inline(always)]
    fn pair(points: &[[f32; 2]], at: u32) -> f64 {
        let [x, y] = points[at as usize];
        f64::from_bits(u64::from(x.to_bits()) | u64::from(y.to_bits()) << 32)
    }

    impl Lanes for Avx {
        type F = __m256;
        type U = __m256i;
        #[inline(always)]
        fn f(x: f32) -> __m256 {
            avx!(_mm256_set1_ps(x))
        }
        #[inline(always)]
        fn load(x: &[f32; WIDTH]) -> __m256 {
            avx!(_mm256_loadu_ps(x.as_ptr()))
        }
        #[inline(always)]
        fn store(x: __m256, into: &mut [f32; WIDTH]) {
            avx!(_mm256_storeu_ps(into.as_mut_ptr(), x))
        }
        #[inline(always)]
        fn add(a: __m256, b: __m256) -> __m256 {
            avx!(_mm256_add_ps(a, b))
        }
        #[inline(always)]
        fn sub(a: __m256, b: __m256) -> __m256 {
            avx!(_mm256_sub_ps(a, b))
        }
        #[inline(always)]
        fn mul(a: __m256, b: __m256) -> __m256 {
            avx!(_mm256_mul_ps(a, b))
        }
        #[inline(always)]
        fn div(a: __m256, b: __m256) -> __m256 {
            avx!(_mm256_div_ps(a, b))
        }
        #[inline(always)]
        fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            avx!(_mm256_fmadd_ps(a, b, c))
        }
        #[inline(always)]
        fn max(a: __m256, b: __m256) -> __m256 {
            avx!(_mm256_max_ps(a, b))
        }
        #[inline(always)]
        fn min(a: __m256, b: __m256) -> __m256 {
            avx!(_mm256_min_ps(a, b))
        }
        #[inline(always)]
        fn round(a: __m256) -> __m256 {
            avx!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
        }
        #[inline(always)]
        fn where_differ(a: __m256i, b: __m256i, x: __m256) -> __m256 {
            avx!(_mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)), x))
        }
        #[inline(always)]
        fn u(x: u32) -> __m256i {
            avx!(_mm256_set1_epi32(x as i32))
        }
        #[inline(always)]
        fn load_u(x: &[u32; WIDTH]) -> __m256i {
            avx!(_mm256_loadu_si256(x.as_ptr().cast()))
        }
        #[inline(always)]
        fn store_u(x: __m256i, into: &mut [u32; WIDTH]) {
            avx!(_mm256_storeu_si256(into.as_mut_ptr().cast(), x))
        }
        #[inline(always)]
        fn add_u(a: __m256i, b: __m256i) -> __m256i {
            avx!(_mm256_add_epi32(a, b))
        }
        #[inline(always)]
        fn sub_u(a: __m256i, b: __m256i) -> __m256i {
            avx!(_mm256_sub_epi32(a, b))
        }
        #[inline(always)]
        fn xor(a: __m256i, b: __m256i) -> __m256i {
            avx!(_mm256_xor_si256(a, b))
        }
        #[inline(always)]
        fn mul_u(a: __m256i, b: __m256i) -> __m256i {
            avx!(_mm256_mullo_epi32(a, b))
        }
        #[inline(always)]
        fn high(a: __m256i, b: __m256i) -> __m256i {
            avx!({
                let even = _mm256_srli_epi64::<32>(_mm256_mul_epu32(a, b));
                let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b));
                _mm256_blend_epi32::<0b1010_1010>(even, odd)
            })
        }
        #[inline(always)]
        fn shr<const N: i32>(a: __m256i) -> __m256i {
            avx!(_mm256_srli_epi32::<N>(a))
        }
        #[inline(always)]
        fn shl<const N: i32>(a: __m256i) -> __m256i {
            avx!(_mm256_slli_epi32::<N>(a))
        }
        #[inline(always)]
        fn sar<const N: i32>(a: __m256i) -> __m256i {
            avx!(_mm256_srai_epi32::<N>(a))
        }
        #[inline(always)]
        fn bits(x: __m256) -> __m256i {
            avx!(_mm256_castps_si256(x))
        }
        #[inline(always)]
        fn from_bits(x: __m256i) -> __m256 {
            avx!(_mm256_castsi256_ps(x))
        }
        #[inline(always)]
        fn to_f(x: __m256i) -> __m256 {
            avx!(_mm256_cvtepi32_ps(x))
        }
        #[inline(always)]
        fn to_i(x: __m256) -> __m256i {
            avx!(_mm256_cvtps_epi32(x))
        }
        #[inline(always)]
        fn pairs(points: &[[f32; 2]], at: &[u32; WIDTH]) -> [__m256; 2] {
            let p = [
                pair(points, at[0]),
                pair(points, at[1]),
                pair(points, at[2]),
                pair(points, at[3]),
                pair(points, at[4]),
                pair(points, at[5]),
                pair(points, at[6]),
                pair(points, at[7]),
            ];
            avx!({
                // Halves of 128 bits: points 0 1 | 4 5 and 2 3 | 6 7; the shuffle takes x (or y) of both.
                let low = _mm256_castpd_ps(_mm256_setr_pd(p[0], p[1], p[4], p[5]));
                let high = _mm256_castpd_ps(_mm256_setr_pd(p[2], p[3], p[6], p[7]));
                [_mm256_shuffle_ps::<0b10_00_10_00>(low, high), _mm256_shuffle_ps::<0b11_01_11_01>(low, high)]
            })
        }
        #[inline(always)]
        fn quads(points: &[[f32; 4]], at: &[u32; WIDTH]) -> [__m256; 4] {
            let p = [
                points[at[0] as usize],
                points[at[1] as usize],
                points[at[2] as usize],
                points[at[3] as usize],
                points[at[4] as usize],
                points[at[5] as usize],
                points[at[6] as usize],
                points[at[7] as usize],
            ];
            avx!({
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
            })
        }
    }
}

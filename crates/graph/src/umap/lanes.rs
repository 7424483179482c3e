//! Sixteen numbers at once, on AVX-512, on AVX2 with FMA and, to the same bits, anywhere.
//!
//! Every operation is one IEEE rounding (`fma` too) or exact, so all kinds agree to the bit.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// Lanes: one register of AVX-512, two of AVX2.
pub(super) const WIDTH: usize = 16;

/// AVX2 and FMA. Used only inside functions that are called after both were found at run time.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx2;

/// AVX-512F. Used only inside functions that are called after it was found at run time.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512;

/// Both coordinates as one f64, so that one load and one insertion move a point.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn pair(points: &[[f32; 2]], at: u32) -> f64 {
    let [x, y] = points[at as usize];
    f64::from_bits(u64::from(x.to_bits()) | u64::from(y.to_bits()) << 32)
}

/// Sixteen f32 (`F`) or u32 (`U`).
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
    /// The two coordinates of sixteen points.
    fn pairs(points: &[[f32; 2]], at: &[u32; WIDTH]) -> [Self::F; 2];
    /// The four coordinates of sixteen points.
    fn quads(points: &[[f32; 4]], at: &[u32; WIDTH]) -> [Self::F; 4];
}

/// A point of `S` coordinates.
pub(super) trait Point<const S: usize>: Sized {
    /// Coordinates of sixteen points.
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

/// Four coordinates after the other; `S` is a multiple of 4.
#[inline(always)]
fn by_quads<L: Lanes, const S: usize>(points: &[[f32; S]], at: &[u32; WIDTH]) -> [L::F; S] {
    let quads = points.as_flattened().as_chunks::<4>().0;
    let mut out = [L::f(0.0); S];
    for (q, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *out = L::quads(quads, &at.map(|i| i * (S / 4) as u32 + q as u32));
    }
    out
}

macro_rules! by_quads {
    ($($s:literal),*) => {
        $(impl Point<$s> for [f32; $s] {
            #[inline(always)]
            fn gather<L: Lanes>(points: &[Self], at: &[u32; WIDTH]) -> [L::F; $s] {
                by_quads::<L, $s>(points, at)
            }
        })*
    };
}

by_quads!(8, 16, 32);

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

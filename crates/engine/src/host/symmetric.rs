//! A symmetric matrix times a block of vectors, from its upper triangle alone: what an eigensolver does most. Each
//! entry above the diagonal is read once and used twice.
//!
//! Rows are dealt in strips to a fixed number of parts. A part has sums of its own, which are added up part by part, so the bits do not
//! depend on the number of threads; nor on the machine's registers, as every product is a fused multiply-add.

use cellmill_kernels::product::Lane;
use rayon::prelude::*;

use super::eigen::fused;

/// Parts of the work, each with sums of the size of the block.
const PARTS: usize = 32;
/// Rows of a strip. Its columns are walked through in tiles, so that block and sums are read from the second-level cache once a strip.
const STRIP: usize = 32;
/// Columns of a tile: block and sums of a tile (16 KiB) stay in the first-level cache.
const TILE: usize = 128;

/// `out = C block`. `c`: `(p, p)` row by row; block and out: `(p,)` lanes; `sums` is working memory.
pub(super) fn times(c: &[f64], p: usize, block: &[Lane], sums: &mut Vec<Lane>, out: &mut [Lane]) {
    sums.resize(PARTS * p, Lane::default());
    let instructions = Instructions::detect();
    sums.par_chunks_mut(p.max(1)).enumerate().with_max_len(1).for_each(|(part, sums)| match instructions {
        Instructions::Portable => add_part::<4>(c, p, part, block, sums),
        // SAFETY: `detect` has seen that this machine has AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { add_part_avx2(c, p, part, block, sums) },
        // SAFETY: `detect` has seen that this machine has AVX-512F.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => unsafe { add_part_avx512(c, p, part, block, sums) },
    });
    out.par_chunks_mut(TILE).enumerate().for_each(|(tile, out)| {
        let first = tile * TILE;
        out.fill(Lane::default());
        for part in sums.chunks(p) {
            for (out, sum) in out.as_flattened_mut().iter_mut().zip(part[first..].as_flattened()) {
                *out += sum;
            }
        }
    });
}

/// What the machine offers.
#[derive(Clone, Copy)]
enum Instructions {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Instructions {
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            return Instructions::Avx512;
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Instructions::Avx2;
        }
        Instructions::Portable
    }
}

/// [`add_part`] with 256-bit registers, two a lane: four rows' sums fill half of them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn add_part_avx2(c: &[f64], p: usize, part: usize, block: &[Lane], sums: &mut [Lane]) {
    add_part::<4>(c, p, part, block, sums);
}

/// [`add_part`] with 512-bit registers, one a lane.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn add_part_avx512(c: &[f64], p: usize, part: usize, block: &[Lane], sums: &mut [Lane]) {
    add_part::<8>(c, p, part, block, sums);
}

/// What the part's strips give to every row. `ROWS` at a time, which changes no bit: each sum goes through rows and columns in order.
#[inline(always)]
fn add_part<const ROWS: usize>(c: &[f64], p: usize, part: usize, block: &[Lane], sums: &mut [Lane]) {
    sums.fill(Lane::default());
    for first in (part * STRIP..p).step_by(PARTS * STRIP) {
        let last = (first + STRIP).min(p);
        // The square on the diagonal.
        for r in first..last {
            let row = &c[r * p + first..r * p + last];
            sums[r] = row.iter().zip(&block[first..last]).fold(sums[r], |sum, (a, x)| fused(*a, x, sum));
        }
        let (own, later) = sums[first..].split_at_mut(last - first);
        for start in (last..p).step_by(TILE) {
            let end = (start + TILE).min(p);
            let tile = Tile { c, p, start, block };
            let below = &mut later[start - last..end - last];
            let mut some = own.chunks_exact_mut(ROWS);
            let mut r = first;
            for own in &mut some {
                tile.add::<ROWS>(r, own, below);
                r += ROWS;
            }
            for (own, r) in some.into_remainder().chunks_mut(1).zip(r..) {
                tile.add::<1>(r, own, below);
            }
        }
    }
}

/// Columns from `start` on.
struct Tile<'a> {
    c: &'a [f64],
    p: usize,
    start: usize,
    block: &'a [Lane],
}

impl Tile<'_> {
    /// Rows `r..r + ROWS`, both ways: `own` are their sums, `below` those of the tile's columns.
    #[inline(always)]
    fn add<const ROWS: usize>(&self, r: usize, own: &mut [Lane], below: &mut [Lane]) {
        let n = below.len();
        let rows: [&[f64]; ROWS] = std::array::from_fn(|i| &self.c[(r + i) * self.p + self.start..][..n]);
        let weights: [Lane; ROWS] = std::array::from_fn(|i| self.block[r + i]);
        let mut sums: [Lane; ROWS] = std::array::from_fn(|i| own[i]);
        let x = &self.block[self.start..][..n];
        for j in 0..n {
            let mut sum = below[j];
            for i in 0..ROWS {
                sums[i] = fused(rows[i][j], &x[j], sums[i]);
                sum = fused(rows[i][j], &weights[i], sum);
            }
            below[j] = sum;
        }
        own.copy_from_slice(&sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(p: usize) -> Vec<f64> {
        let at = |i: usize, j: usize| (((i.min(j) * 31 + i.max(j) * 17) % 101) as f64 - 50.0) / 7.0;
        (0..p * p).map(|n| at(n / p, n % p)).collect()
    }

    fn block(p: usize) -> Vec<Lane> {
        (0..p).map(|i| std::array::from_fn(|lane| ((i * 13 + lane * 7) as f64).sin())).collect()
    }

    #[test]
    fn it_is_the_product() {
        for p in [1, 2, 15, 16, 17, 33, 300, 1037] {
            let (c, x) = (matrix(p), block(p));
            let mut out = vec![Lane::default(); p];
            times(&c, p, &x, &mut Vec::new(), &mut out);
            for (i, out) in out.iter().enumerate() {
                for (lane, out) in out.iter().enumerate() {
                    let expected: f64 = (0..p).map(|j| c[i * p + j] * x[j][lane]).sum();
                    assert!((out - expected).abs() < 1e-10 * p as f64, "{p}: row {i}, lane {lane}: {out} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn threads_and_registers_change_no_bit() {
        let p = 1037;
        let (c, x) = (matrix(p), block(p));
        let by = |threads: usize| {
            let mut out = vec![Lane::default(); p];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            // Working memory that has been used.
            pool.install(|| times(&c, p, &x, &mut vec![[7.0; 8]; 5], &mut out));
            out
        };
        let one = by(1);
        assert!([2, 3, 8].into_iter().all(|threads| by(threads) == one));
        let rows_at_a_time = |add: fn(&[f64], usize, usize, &[Lane], &mut [Lane])| {
            let mut all = vec![Lane::default(); p];
            for part in 0..PARTS {
                let mut sums = vec![Lane::default(); p];
                add(&c, p, part, &x, &mut sums);
                all.as_flattened_mut().iter_mut().zip(sums.as_flattened()).for_each(|(a, b)| *a += b);
            }
            all
        };
        assert_eq!(rows_at_a_time(add_part::<1>), one);
        assert_eq!(rows_at_a_time(add_part::<4>), one);
        assert_eq!(rows_at_a_time(add_part::<8>), one);
    }
}

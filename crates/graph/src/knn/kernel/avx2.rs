//! The loops with AVX2 and FMA.

use std::arch::x86_64::*;

use super::{CANDIDATES, LANES, QUERIES, Scores, portable};

/// Rows fetched ahead of the one in work.
const AHEAD: usize = 6;
/// Candidates whose scores fit in the registers.
const HALF: usize = 16;

#[target_feature(enable = "avx2,fma")]
pub(super) fn tile<const DIFFERENCE: bool>(
    queries: &[f32],
    panel: &[f32],
    start: &[f32; CANDIDATES],
    below: &[f32; QUERIES],
    scores: &mut Scores,
) -> [u32; QUERIES] {
    let d = panel.len() / CANDIDATES;
    assert!(queries.len() >= QUERIES * d);
    let mut masks = [0; QUERIES];
    let mut any = 0;
    for half in 0..CANDIDATES / HALF {
        let from = half * HALF;
        // SAFETY: `start` holds two halves.
        let (low, high) = unsafe { (_mm256_loadu_ps(start.as_ptr().add(from)), _mm256_loadu_ps(start.as_ptr().add(from + LANES))) };
        let mut sums = [[low, high]; QUERIES];
        for t in 0..d {
            // SAFETY: step `t` of `d` reads 16 of the 32 numbers from `panel[32 t]` on, and `queries[i d + t]`, both inside by the
            // lengths above.
            unsafe {
                let at = panel.as_ptr().add(t * CANDIDATES + from);
                let (low, high) = (_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(LANES)));
                for (i, sum) in sums.iter_mut().enumerate() {
                    let x = _mm256_broadcast_ss(&*queries.as_ptr().add(i * d + t));
                    if DIFFERENCE {
                        let (low, high) = (_mm256_sub_ps(low, x), _mm256_sub_ps(high, x));
                        sum[0] = _mm256_fmadd_ps(low, low, sum[0]);
                        sum[1] = _mm256_fmadd_ps(high, high, sum[1]);
                    } else {
                        sum[0] = _mm256_fmadd_ps(x, low, sum[0]);
                        sum[1] = _mm256_fmadd_ps(x, high, sum[1]);
                    }
                }
            }
        }
        let mut here = 0;
        for i in 0..QUERIES {
            let limit = _mm256_set1_ps(below[i]);
            let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(sums[i][0], limit)) as u32;
            let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(sums[i][1], limit)) as u32;
            masks[i] |= (low | high << LANES) << from;
            here |= low | high;
        }
        any |= here;
        // Scores of a half without a bit are never looked at.
        if here != 0 {
            for (row, sum) in scores.iter_mut().zip(&sums) {
                // SAFETY: a row of scores holds two halves.
                unsafe {
                    _mm256_storeu_ps(row.as_mut_ptr().add(from), sum[0]);
                    _mm256_storeu_ps(row.as_mut_ptr().add(from + LANES), sum[1]);
                }
            }
        }
    }
    debug_assert_eq!(any != 0, masks.iter().any(|&mask| mask != 0));
    masks
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn moved(row: &[f32], centre: &[f32], scale: f32, out: &mut [f32]) -> f32 {
    let d = out.len();
    assert!(row.len() == d && centre.len() == d);
    let scale = _mm256_set1_ps(scale);
    let mut sums = _mm256_setzero_ps();
    for t in (0..d).step_by(LANES) {
        let mask = first((d - t).min(LANES));
        // SAFETY: the mask lets only numbers before `d` be read and written.
        unsafe {
            let difference = _mm256_sub_ps(_mm256_maskload_ps(row.as_ptr().add(t), mask), _mm256_maskload_ps(centre.as_ptr().add(t), mask));
            let x = _mm256_mul_ps(scale, difference);
            _mm256_maskstore_ps(out.as_mut_ptr().add(t), mask, x);
            // Places beyond the row add the square of scale · 0.
            sums = _mm256_add_ps(sums, _mm256_mul_ps(x, x));
        }
    }
    let mut each = [0f32; LANES];
    // SAFETY: `each` holds 8 numbers.
    unsafe { _mm256_storeu_ps(each.as_mut_ptr(), sums) };
    each.iter().sum()
}

/// Lets the first `n` lanes through.
#[target_feature(enable = "avx2,fma")]
fn first(n: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn turn(rows: &[&[f32]; CANDIDATES], centre: &[f32], panel: &mut [f32], norms: &mut [f32; CANDIDATES]) {
    let d = centre.len();
    assert!(panel.len() == d * CANDIDATES && rows.iter().all(|row| row.len() == d));
    let whole = d / LANES * LANES;
    for first in (0..CANDIDATES).step_by(LANES) {
        // SAFETY: `norms` holds 32 numbers.
        let mut norm = unsafe { _mm256_loadu_ps(norms.as_ptr().add(first)) };
        for from in (0..whole).step_by(LANES) {
            let mut block = [_mm256_setzero_ps(); LANES];
            for (block, row) in block.iter_mut().zip(&rows[first..first + LANES]) {
                // SAFETY: rows hold `d ≥ from + 8` numbers.
                *block = unsafe { _mm256_loadu_ps(row.as_ptr().add(from)) };
            }
            for (t, column) in transposed(block).into_iter().enumerate() {
                let y = _mm256_sub_ps(column, _mm256_set1_ps(centre[from + t]));
                // SAFETY: row `from + t < d` of the panel holds 32 numbers.
                unsafe { _mm256_storeu_ps(panel.as_mut_ptr().add((from + t) * CANDIDATES + first), y) };
                norm = _mm256_add_ps(norm, _mm256_mul_ps(y, y));
            }
        }
        // SAFETY: as for the load.
        unsafe { _mm256_storeu_ps(norms.as_mut_ptr().add(first), norm) };
    }
    for (t, place) in panel.chunks_exact_mut(CANDIDATES).enumerate().skip(whole) {
        portable::column(rows, centre[t], t, place, norms);
    }
}

/// Columns of 8 rows of 8.
#[target_feature(enable = "avx2,fma")]
fn transposed(rows: [__m256; LANES]) -> [__m256; LANES] {
    let [a, b, c, d, e, f, g, h] = rows;
    // Pairs of rows, then fours, then both halves.
    let pairs = |x, y| (_mm256_unpacklo_ps(x, y), _mm256_unpackhi_ps(x, y));
    let ((ab0, ab1), (cd0, cd1), (ef0, ef1), (gh0, gh1)) = (pairs(a, b), pairs(c, d), pairs(e, f), pairs(g, h));
    let fours = |x, y| (_mm256_shuffle_ps::<0x44>(x, y), _mm256_shuffle_ps::<0xee>(x, y));
    let ((a0, a1), (a2, a3)) = (fours(ab0, cd0), fours(ab1, cd1));
    let ((e0, e1), (e2, e3)) = (fours(ef0, gh0), fours(ef1, gh1));
    let low = |x, y| _mm256_permute2f128_ps::<0x20>(x, y);
    let high = |x, y| _mm256_permute2f128_ps::<0x31>(x, y);
    [low(a0, e0), low(a1, e1), low(a2, e2), low(a3, e3), high(a0, e0), high(a1, e1), high(a2, e2), high(a3, e3)]
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn squared(x: &[f32], rows: &[f32], ids: &[u32], out: &mut Vec<f32>) {
    let d = x.len();
    let whole = d / LANES;
    let rest = d % LANES;
    let mask = first(rest);
    for (i, &id) in ids.iter().enumerate() {
        if let Some(&next) = ids.get(i + AHEAD) {
            let next = rows.as_ptr().wrapping_add(next as usize * d);
            for line in (0..d).step_by(16) {
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(line).cast());
            }
        }
        let y = &rows[id as usize * d..(id as usize + 1) * d];
        let mut sums = _mm256_setzero_ps();
        for t in 0..whole {
            // SAFETY: both rows hold `d ≥ 8 (t + 1)` numbers.
            let difference =
                unsafe { _mm256_sub_ps(_mm256_loadu_ps(x.as_ptr().add(t * LANES)), _mm256_loadu_ps(y.as_ptr().add(t * LANES))) };
            sums = _mm256_fmadd_ps(difference, difference, sums);
        }
        if rest > 0 {
            // SAFETY: the mask lets only the last `d % 8` numbers of both rows be read.
            let difference = unsafe {
                _mm256_sub_ps(
                    _mm256_maskload_ps(x.as_ptr().add(whole * LANES), mask),
                    _mm256_maskload_ps(y.as_ptr().add(whole * LANES), mask),
                )
            };
            sums = _mm256_fmadd_ps(difference, difference, sums);
        }
        // 0+4, 1+5, 2+6, 3+7; then (0+4)+(2+6) and (1+5)+(3+7); then both.
        let four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        out.push(_mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two))));
    }
}

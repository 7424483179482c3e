//! The loops with AVX-512F.

use std::arch::x86_64::*;

use super::{CANDIDATES, QUERIES, Scores};

/// Numbers of a register.
const WIDE: usize = 16;
/// Keys of a register.
const KEYS: usize = 8;

#[target_feature(enable = "avx512f")]
pub(super) fn tile<const DIFFERENCE: bool>(
    queries: &[f32],
    panel: &[f32],
    start: &[f32; CANDIDATES],
    below: &[f32; QUERIES],
    scores: &mut Scores,
) -> [u32; QUERIES] {
    let d = panel.len() / CANDIDATES;
    assert!(queries.len() >= QUERIES * d);
    // SAFETY: `start` holds 32 numbers.
    let (low, high) = unsafe { (_mm512_loadu_ps(start.as_ptr()), _mm512_loadu_ps(start.as_ptr().add(WIDE))) };
    let mut sums = [[low, high]; QUERIES];
    for t in 0..d {
        // SAFETY: step `t` of `d` reads `panel[32 t..32 t + 32]` and `queries[i d + t]`, both inside by the lengths above.
        unsafe {
            let at = panel.as_ptr().add(t * CANDIDATES);
            let (low, high) = (_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(WIDE)));
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*queries.as_ptr().add(i * d + t));
                if DIFFERENCE {
                    let (low, high) = (_mm512_sub_ps(low, x), _mm512_sub_ps(high, x));
                    sum[0] = _mm512_fmadd_ps(low, low, sum[0]);
                    sum[1] = _mm512_fmadd_ps(high, high, sum[1]);
                } else {
                    sum[0] = _mm512_fmadd_ps(x, low, sum[0]);
                    sum[1] = _mm512_fmadd_ps(x, high, sum[1]);
                }
            }
        }
    }
    let mut masks = [0; QUERIES];
    let mut any = 0;
    for i in 0..QUERIES {
        let limit = _mm512_set1_ps(below[i]);
        let low = u32::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(sums[i][0], limit));
        let high = u32::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(sums[i][1], limit));
        masks[i] = low | high << WIDE;
        any |= masks[i];
    }
    if any != 0 {
        for (row, sum) in scores.iter_mut().zip(&sums) {
            // SAFETY: a row of scores holds 32 numbers.
            unsafe {
                _mm512_storeu_ps(row.as_mut_ptr(), sum[0]);
                _mm512_storeu_ps(row.as_mut_ptr().add(WIDE), sum[1]);
            }
        }
    }
    masks
}

/// Each place becomes the greater of the one before and the lesser of itself and the key: no branch but one a register.
#[target_feature(enable = "avx512f")]
pub(super) fn insert(row: &mut [u64], key: u64) {
    let new = _mm512_set1_epi64(key as i64);
    let mut end = row.len();
    while end > 0 {
        let from = end.saturating_sub(KEYS);
        let places = 0xff >> (KEYS - (end - from));
        // SAFETY: the mask lets only places `from..end` be read and written.
        let here = unsafe { _mm512_maskz_loadu_epi64(places, row.as_ptr().add(from).cast()) };
        let before = if from == 0 {
            _mm512_alignr_epi64::<7>(here, _mm512_setzero_si512())
        } else {
            // SAFETY: the mask lets only places `from − 1..end − 1` be read.
            unsafe { _mm512_maskz_loadu_epi64(places, row.as_ptr().add(from - 1).cast()) }
        };
        let done = from > 0 && row[from - 1] <= key;
        // SAFETY: as for the load.
        unsafe {
            _mm512_mask_storeu_epi64(row.as_mut_ptr().add(from).cast(), places, _mm512_max_epu64(before, _mm512_min_epu64(here, new)));
        }
        if done {
            return;
        }
        end = from;
    }
}

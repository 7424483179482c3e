//! The two inner loops: a register tile of 6 queries by 16 candidates, and exact distances from one row to many.
//!
//! Each has an AVX2 + FMA form, chosen at run time, and a portable twin that gives the same bits: every accumulator takes the
//! same fused steps in the same order.

/// Queries of one tile.
pub(super) const QUERIES: usize = 6;
/// Candidates of one tile, and of one packed panel.
pub(super) const CANDIDATES: usize = 16;
/// Partial sums of an exact distance: coordinate `t` goes to sum `t % 8`.
const LANES: usize = 8;

/// Scores of one tile, query-major.
pub(super) type Scores = [[f32; CANDIDATES]; QUERIES];

/// What a score is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// `|y|² − 2 x·y`, for queries stored as `−2 x`: one fused step a coordinate. The distance is the score plus `|x|²`.
    #[default]
    Dot,
    /// `Σ (y − x)²`, for queries stored as they are: twice the work, no cancellation.
    Difference,
}

/// Which instructions run the loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Simd {
    /// AVX2 and FMA; made by [`Simd::detect`] only.
    #[cfg(target_arch = "x86_64")]
    Avx2(Detected),
    /// Plain Rust with `f32::mul_add`.
    Portable,
}

/// Proof that the processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Detected(());

impl Simd {
    /// The best that this processor has.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Simd::Avx2(Detected(()));
        }
        Simd::Portable
    }

    /// Scores of 6 queries against 16 candidates.
    ///
    /// `queries` is `(6, d)` row-major, `panel` `(d, 16)` row-major, `start` the score of each candidate before the first
    /// coordinate (`|y|²` or 0; +∞ for a place that holds no candidate). Bit `j` of `result[i]` is set where the score of (i, j)
    /// is below `below[i]`; `scores` is written only if any bit is set.
    #[inline]
    pub(super) fn tile(
        self,
        form: Form,
        queries: &[f32],
        panel: &[f32],
        start: &[f32; CANDIDATES],
        below: &[f32; QUERIES],
        scores: &mut Scores,
    ) -> [u32; QUERIES] {
        match (self, form) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Detected` is made only where AVX2 and FMA were found.
            (Simd::Avx2(_), Form::Dot) => unsafe { avx2::tile::<false>(queries, panel, start, below, scores) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Simd::Avx2(_), Form::Difference) => unsafe { avx2::tile::<true>(queries, panel, start, below, scores) },
            (Simd::Portable, _) => portable::tile(form, queries, panel, start, below, scores),
        }
    }

    /// Squared Euclidean distances from `x` to `rows[id * d..]` for each id, `Σ_t (x_t − y_t)²` in f32: 8 partial sums (coordinate
    /// `t` to sum `t % 8`, fused steps), added as `((0+4)+(2+6)) + ((1+5)+(3+7))`. Equal rows give 0.
    pub(super) fn squared(self, x: &[f32], rows: &[f32], ids: &[u32], out: &mut Vec<f32>) {
        out.clear();
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Detected` is made only where AVX2 and FMA were found.
            Simd::Avx2(_) => unsafe { avx2::squared(x, rows, ids, out) },
            Simd::Portable => {
                out.extend(ids.iter().map(|&id| portable::squared(x, &rows[id as usize * x.len()..(id as usize + 1) * x.len()])));
            }
        }
    }
}

mod portable {
    use super::{CANDIDATES, Form, LANES, QUERIES, Scores};

    pub(super) fn tile(
        form: Form,
        queries: &[f32],
        panel: &[f32],
        start: &[f32; CANDIDATES],
        below: &[f32; QUERIES],
        scores: &mut Scores,
    ) -> [u32; QUERIES] {
        let d = panel.len() / CANDIDATES;
        let mut masks = [0; QUERIES];
        for (i, row) in scores.iter_mut().enumerate() {
            *row = *start;
            for (&x, ys) in queries[i * d..(i + 1) * d].iter().zip(panel.chunks_exact(CANDIDATES)) {
                for (score, &y) in row.iter_mut().zip(ys) {
                    *score = match form {
                        Form::Dot => x.mul_add(y, *score),
                        Form::Difference => (y - x).mul_add(y - x, *score),
                    };
                }
            }
            for (j, &score) in row.iter().enumerate() {
                masks[i] |= u32::from(score < below[i]) << j;
            }
        }
        masks
    }

    pub(super) fn squared(x: &[f32], y: &[f32]) -> f32 {
        let mut sums = [0f32; LANES];
        for (t, (&x, &y)) in x.iter().zip(y).enumerate() {
            let difference = x - y;
            sums[t % LANES] = difference.mul_add(difference, sums[t % LANES]);
        }
        let pairs = [sums[0] + sums[4], sums[1] + sums[5], sums[2] + sums[6], sums[3] + sums[7]];
        (pairs[0] + pairs[2]) + (pairs[1] + pairs[3])
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{CANDIDATES, LANES, QUERIES, Scores};

    /// Rows fetched ahead of the one in work.
    const AHEAD: usize = 6;

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
        // SAFETY: `start` holds 16 numbers.
        let (low, high) = unsafe { (_mm256_loadu_ps(start.as_ptr()), _mm256_loadu_ps(start.as_ptr().add(LANES))) };
        let mut sums = [[low, high]; QUERIES];
        let (mut at, mut query) = (panel.as_ptr(), queries.as_ptr());
        for _ in 0..d {
            // SAFETY: step `t` of `d` reads `panel[16 t..16 t + 16]` and `queries[i d + t]`, both inside by the lengths above;
            // the pointers end one step past the last read, at most one past the slice.
            unsafe {
                let low = _mm256_loadu_ps(at);
                let high = _mm256_loadu_ps(at.add(LANES));
                for (i, sum) in sums.iter_mut().enumerate() {
                    let x = _mm256_broadcast_ss(&*query.add(i * d));
                    if DIFFERENCE {
                        let (low, high) = (_mm256_sub_ps(low, x), _mm256_sub_ps(high, x));
                        sum[0] = _mm256_fmadd_ps(low, low, sum[0]);
                        sum[1] = _mm256_fmadd_ps(high, high, sum[1]);
                    } else {
                        sum[0] = _mm256_fmadd_ps(x, low, sum[0]);
                        sum[1] = _mm256_fmadd_ps(x, high, sum[1]);
                    }
                }
                at = at.add(CANDIDATES);
                query = query.add(1);
            }
        }
        let mut masks = [0; QUERIES];
        let mut any = 0;
        for i in 0..QUERIES {
            let limit = _mm256_set1_ps(below[i]);
            let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(sums[i][0], limit)) as u32;
            let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(sums[i][1], limit)) as u32;
            masks[i] = low | high << LANES;
            any |= masks[i];
        }
        if any != 0 {
            for (row, sum) in scores.iter_mut().zip(&sums) {
                // SAFETY: a row of scores holds 16 numbers.
                unsafe {
                    _mm256_storeu_ps(row.as_mut_ptr(), sum[0]);
                    _mm256_storeu_ps(row.as_mut_ptr().add(LANES), sum[1]);
                }
            }
        }
        masks
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn squared(x: &[f32], rows: &[f32], ids: &[u32], out: &mut Vec<f32>) {
        let d = x.len();
        let whole = d / LANES;
        let rest = (d % LANES) as i32;
        let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(rest), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(n: usize) -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-100f32..100.0, n)
    }

    proptest! {
        #[test]
        fn both_twins_give_the_same_tile(
            (queries, panel) in (1usize..70).prop_flat_map(|d| (numbers(QUERIES * d), numbers(CANDIDATES * d))),
            start in proptest::array::uniform16(0f32..100.0),
            below in proptest::array::uniform6(-2000f32..2000.0),
        ) {
            for form in [Form::Dot, Form::Difference] {
                let (mut left, mut right) = ([[0.0; CANDIDATES]; QUERIES], [[0.0; CANDIDATES]; QUERIES]);
                let left_masks = Simd::detect().tile(form, &queries, &panel, &start, &below, &mut left);
                let right_masks = Simd::Portable.tile(form, &queries, &panel, &start, &below, &mut right);
                prop_assert_eq!(left_masks, right_masks);
                if left_masks.iter().any(|&mask| mask != 0) {
                    prop_assert_eq!(left.map(|row| row.map(f32::to_bits)), right.map(|row| row.map(f32::to_bits)));
                }
            }
        }

        #[test]
        fn both_twins_give_the_same_distances(rows in (1usize..70).prop_flat_map(|d| numbers(9 * d))) {
            let d = rows.len() / 9;
            let ids = [3, 0, 8, 3, 1, 2, 4, 5, 6, 7];
            let (mut left, mut right) = (Vec::new(), Vec::new());
            Simd::detect().squared(&rows[3 * d..4 * d], &rows, &ids, &mut left);
            Simd::Portable.squared(&rows[3 * d..4 * d], &rows, &ids, &mut right);
            prop_assert_eq!(left[0], 0.0);
            prop_assert_eq!(&left, &right);
            for (&id, &found) in ids.iter().zip(&left) {
                let direct: f64 = (0..d).map(|t| f64::from(rows[3 * d + t] - rows[id as usize * d + t]).powi(2)).sum();
                prop_assert!((f64::from(found) - direct).abs() <= 1e-5 * direct);
            }
        }
    }
}

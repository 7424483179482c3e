//! The inner loops: a register tile of 6 queries by 32 candidates, a sorted row that takes a key, and exact distances from one row to many.
//!
//! They have AVX-512 and AVX2 + FMA forms, chosen at run time, and portable twins that give the same bits: every accumulator takes the
//! same fused steps in the same order.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Queries of one tile.
pub(super) const QUERIES: usize = 6;
/// Candidates of one tile, and of one packed panel.
pub(super) const CANDIDATES: usize = 32;
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
    /// AVX-512F, AVX2 and FMA; made by [`Simd::detect`] only.
    #[cfg(target_arch = "x86_64")]
    Avx512(Detected),
    /// AVX2 and FMA; made by [`Simd::detect`] only.
    #[cfg(target_arch = "x86_64")]
    Avx2(Detected),
    /// Plain Rust with `f32::mul_add`.
    Portable,
}

/// Proof that the processor has what the variant says.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Detected(());

impl Simd {
    /// The best that this processor has.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return if is_x86_feature_detected!("avx512f") { Simd::Avx512(Detected(())) } else { Simd::Avx2(Detected(())) };
        }
        Simd::Portable
    }

    /// Scores of 6 queries against 32 candidates.
    ///
    /// `queries` is `(6, d)` row-major, `panel` `(d, 32)` row-major, `start` the score of each candidate before the first
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
            // SAFETY: `Detected` is made only where AVX-512F was found.
            (Simd::Avx512(_), Form::Dot) => unsafe { avx512::tile::<false>(queries, panel, start, below, scores) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Simd::Avx512(_), Form::Difference) => unsafe { avx512::tile::<true>(queries, panel, start, below, scores) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Detected` is made only where AVX2 and FMA were found.
            (Simd::Avx2(_), Form::Dot) => unsafe { avx2::tile::<false>(queries, panel, start, below, scores) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Simd::Avx2(_), Form::Difference) => unsafe { avx2::tile::<true>(queries, panel, start, below, scores) },
            (Simd::Portable, _) => portable::tile(form, queries, panel, start, below, scores),
        }
    }

    /// Turns 32 rows, moved by `−centre`, into a panel `(d, 32)`; `norms` gets the sums of their squares.
    pub(super) fn turn(self, rows: &[&[f32]; CANDIDATES], centre: &[f32], panel: &mut [f32], norms: &mut [f32; CANDIDATES]) {
        norms.fill(0.0);
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Detected` is made only where AVX2 was found.
            Simd::Avx512(_) | Simd::Avx2(_) => unsafe { avx2::turn(rows, centre, panel, norms) },
            Simd::Portable => portable::turn(rows, centre, panel, norms),
        }
    }

    /// `out = scale (row − centre)`; gives the sum of its squares: 8 partial sums (coordinate `t` to sum `t % 8`), added in order.
    pub(super) fn moved(self, row: &[f32], centre: &[f32], scale: f32, out: &mut [f32]) -> f32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Detected` is made only where AVX2 was found.
            Simd::Avx512(_) | Simd::Avx2(_) => unsafe { avx2::moved(row, centre, scale, out) },
            Simd::Portable => portable::moved(row, centre, scale, out),
        }
    }

    /// Puts `key` into an ascending row and drops the row's last.
    #[inline]
    pub(super) fn insert(self, row: &mut [u64], key: u64) {
        if row.last().is_none_or(|&last| key >= last) {
            return;
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Detected` is made only where AVX-512F was found.
            Simd::Avx512(_) => unsafe { avx512::insert(row, key) },
            _ => portable::insert(row, key),
        }
    }

    /// Squared Euclidean distances from `x` to `rows[id * d..]` for each id, `Σ_t (x_t − y_t)²` in f32: 8 partial sums (coordinate
    /// `t` to sum `t % 8`, fused steps), added as `((0+4)+(2+6)) + ((1+5)+(3+7))`. Equal rows give 0.
    pub(super) fn squared(self, x: &[f32], rows: &[f32], ids: &[u32], out: &mut Vec<f32>) {
        out.clear();
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Detected` is made only where AVX2 and FMA were found.
            Simd::Avx512(_) | Simd::Avx2(_) => unsafe { avx2::squared(x, rows, ids, out) },
            Simd::Portable => {
                out.extend(ids.iter().map(|&id| portable::squared(x, &rows[id as usize * x.len()..(id as usize + 1) * x.len()])));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every form that this processor has.
    fn forms() -> Vec<Simd> {
        let best = Simd::detect();
        #[cfg(target_arch = "x86_64")]
        if let Simd::Avx512(proof) = best {
            return vec![best, Simd::Avx2(proof), Simd::Portable];
        }
        vec![best, Simd::Portable]
    }

    fn numbers(n: usize) -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-100f32..100.0, n)
    }

    proptest! {
        #[test]
        fn both_twins_give_the_same_tile(
            (queries, panel) in (1usize..70).prop_flat_map(|d| (numbers(QUERIES * d), numbers(CANDIDATES * d))),
            start in proptest::array::uniform32(0f32..100.0),
            below in proptest::array::uniform6(-2000f32..2000.0),
        ) {
            for form in [Form::Dot, Form::Difference] {
                let mut right = [[0.0; CANDIDATES]; QUERIES];
                let right_masks = Simd::Portable.tile(form, &queries, &panel, &start, &below, &mut right);
                for simd in forms() {
                    let mut left = [[0.0; CANDIDATES]; QUERIES];
                    prop_assert_eq!(simd.tile(form, &queries, &panel, &start, &below, &mut left), right_masks);
                    for (i, &mask) in right_masks.iter().enumerate() {
                        for j in (0..CANDIDATES).filter(|j| mask >> j & 1 == 1) {
                            prop_assert_eq!(left[i][j].to_bits(), right[i][j].to_bits());
                        }
                    }
                }
            }
        }

        #[test]
        fn both_twins_turn_rows_alike((d, data) in (1usize..70).prop_flat_map(|d| (Just(d), numbers((CANDIDATES + 1) * d)))) {
            let rows: [&[f32]; CANDIDATES] = std::array::from_fn(|at| &data[at * d..(at + 1) * d]);
            let centre = &data[CANDIDATES * d..];
            let (mut left, mut right) = ((vec![0.0; CANDIDATES * d], [1.0; CANDIDATES]), (vec![0.0; CANDIDATES * d], [2.0; CANDIDATES]));
            Simd::detect().turn(&rows, centre, &mut left.0, &mut left.1);
            Simd::Portable.turn(&rows, centre, &mut right.0, &mut right.1);
            prop_assert_eq!(&left, &right);
            for (at, &y) in left.0.iter().enumerate() {
                prop_assert_eq!(y, rows[at % CANDIDATES][at / CANDIDATES] - centre[at / CANDIDATES]);
            }
        }

        #[test]
        fn both_twins_move_rows_alike(data in (1usize..70).prop_flat_map(|d| numbers(2 * d)), scale in -3f32..3.0) {
            let (row, centre) = data.split_at(data.len() / 2);
            let (mut left, mut right) = (vec![0.0; row.len()], vec![1.0; row.len()]);
            let sums = [Simd::detect().moved(row, centre, scale, &mut left), Simd::Portable.moved(row, centre, scale, &mut right)];
            prop_assert_eq!(sums[0].to_bits(), sums[1].to_bits());
            prop_assert_eq!(&left, &right);
            let direct: f64 = right.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            prop_assert!((f64::from(sums[0]) - direct).abs() <= 1e-5 * direct);
        }

        #[test]
        fn a_row_stays_sorted((mut row, keys) in (1usize..90).prop_flat_map(|n| (
            proptest::collection::vec(0u64..1000, n), proptest::collection::vec(0u64..1000, 1..40)
        ))) {
            row.sort_unstable();
            for simd in forms() {
                let (mut found, mut all) = (row.clone(), row.clone());
                for &key in &keys {
                    simd.insert(&mut found, key);
                }
                all.extend(&keys);
                all.sort_unstable();
                prop_assert_eq!(&found, &all[..row.len()]);
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

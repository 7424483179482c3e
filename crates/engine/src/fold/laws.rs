//! The laws of a fold, checked the same way for each: identity, chunk size, task cut, order of merging, and the wire.

use cellmill_matrix::Csr;

use super::Fold;
use crate::chunk::{Chunk, RowColumns};

/// Runs a fold over rows `x` (raw, at step 0) cut in several ways and says which law does not hold. `same` compares two answers of
/// which one was merged from more states than the other (rounding may differ); the other laws are checked on the bytes of the state.
pub fn check_laws<F: Fold>(fold: &F, x: &Csr, batch: Option<&[u32]>, same: impl Fn(&F::Output, &F::Output) -> bool) -> Result<(), String> {
    // Bytes, since NaN is not equal to itself.
    let wire = |rows: &RowColumns| postcard::to_stdvec(rows).map_err(|e| e.to_string());
    let bytes = |s: &F::State| postcard::to_stdvec(s).map_err(|e| e.to_string());
    let state = |rows: std::ops::Range<usize>, cut: usize| -> Result<(F::State, RowColumns), String> {
        let mut acc = fold.open();
        let mut columns = RowColumns::default();
        let mut start = rows.start;
        while start < rows.end {
            let end = (start + cut).min(rows.end);
            let mut part = Csr::empty(x.n_cols);
            (start..end).for_each(|i| part.push_row(x.row(i).0, x.row(i).1));
            let mut chunk = Chunk::new(start as u64..end as u64, part, batch.map(|b| b[start..end].to_vec()));
            fold.accumulate(&mut acc, 0, &mut chunk, &mut columns).map_err(|e| e.to_string())?;
            start = end;
        }
        Ok((fold.close(acc), columns))
    };
    let n = x.n_rows();
    let (whole, columns) = state(0..n, n.max(1))?;
    for cut in [1, 3, 7] {
        let (other, rows) = state(0..n, cut)?;
        if bytes(&other)? != bytes(&whole)? || wire(&rows)? != wire(&columns)? {
            return Err(format!("chunk size: chunks of {cut} rows give another state than one chunk"));
        }
    }
    let mut from_left = fold.init();
    fold.merge(&mut from_left, state(0..n, n.max(1))?.0);
    if bytes(&from_left)? != bytes(&whole)? {
        return Err("identity: init merged with a state is not that state".into());
    }
    let mut from_right = state(0..n, n.max(1))?.0;
    fold.merge(&mut from_right, fold.init());
    if bytes(&from_right)? != bytes(&whole)? {
        return Err("identity: a state merged with init is not that state".into());
    }
    let travelled: F::State = postcard::from_bytes(&bytes(&whole)?).map_err(|e| e.to_string())?;
    if bytes(&travelled)? != bytes(&whole)? {
        return Err("wire: a state that travels changes".into());
    }
    let expected = fold.finish(whole);
    let (a, b) = (n / 3, 2 * n / 3);
    let parts = || -> Result<[F::State; 3], String> { Ok([state(0..a, 5)?.0, state(a..b, 5)?.0, state(b..n, 5)?.0]) };
    let [mut first, second, third] = parts()?;
    fold.merge(&mut first, second);
    fold.merge(&mut first, third);
    if !same(&fold.finish(first), &expected) {
        return Err("associativity: (a b) c differs from abc".into());
    }
    let [mut first, mut second, third] = parts()?;
    fold.merge(&mut second, third);
    fold.merge(&mut first, second);
    if !same(&fold.finish(first), &expected) {
        return Err("associativity: a (b c) differs from abc".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cellmill_kernels::residual::Model;
    use cellmill_kernels::totals::{self, column_counts, row_totals, subset_totals};
    use proptest::prelude::*;

    use super::*;
    use crate::fold::{
        ByGene, Clipped, Collect, Counted, Cross, GeneMoments, Genes, GroupStats, Grouped, High, Largest, Logistic, Moments, Qc, Residuals,
        SetSums,
    };
    use crate::recipe::RowQc;

    fn rows() -> impl Strategy<Value = (Csr, Vec<u32>)> {
        prop::collection::vec((prop::collection::btree_map(0u32..30, 0u8..200, 0..30), 0u32..3), 0..40).prop_map(|rows| {
            let mut x = Csr::empty(30);
            let mut batch = Vec::new();
            for (row, b) in rows {
                let (columns, values): (Vec<u32>, Vec<f32>) = row.into_iter().map(|(c, v)| (c, f32::from(v))).unzip();
                x.push_row(&columns, &values);
                batch.push(b);
            }
            (x, batch)
        })
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
    }

    fn near_moments(a: &[GeneMoments], b: &[GeneMoments]) -> bool {
        a.iter().zip(b).all(|(a, b)| {
            a.n_obs == b.n_obs
                && a.mean.iter().zip(&b.mean).all(|(a, b)| near(*a, *b))
                && a.squares.iter().zip(&b.squares).all(|(a, b)| near(*a, *b))
        })
    }

    fn near_stats(a: &GroupStats, b: &GroupStats) -> bool {
        (a.n_obs, &a.sum, &a.n_cells) == (b.n_obs, &b.sum, &b.n_cells) && a.squares.iter().zip(&b.squares).all(|(a, b)| near(*a, *b))
    }

    /// The entries of gene `j`, whatever tasks they come from.
    fn gathered(parts: &[Genes], j: usize) -> (Vec<f32>, Vec<u16>) {
        parts.iter().fold(Default::default(), |(mut values, mut groups): (Vec<f32>, Vec<u16>), part| {
            values.extend_from_slice(part.gene(j).0);
            groups.extend_from_slice(part.gene(j).1);
            (values, groups)
        })
    }

    proptest! {
        #[test]
        fn qc((x, _) in rows()) {
            let mask = (0..30).map(|j| j % 4 == 0).collect();
            let fold = Qc { n_vars: 30, rows: RowQc { qc_vars: vec![("mt".into(), mask)], percent_top: vec![3], log1p: true }, counts: true };
            check_laws(&fold, &x, None, |a, b| a == b).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn qc_of_counted_rows((x, _) in rows()) {
            let masks: Vec<Vec<bool>> = (0..2).map(|s| (0..30).map(|j| j % (s + 3) == 0).collect()).collect();
            let qc_vars: Vec<_> = ["mt", "ribo"].map(String::from).into_iter().zip(masks.clone()).collect();
            let fold = Qc { n_vars: 30, rows: RowQc { qc_vars, percent_top: vec![], log1p: true }, counts: true };
            prop_assert!(fold.takes_counts());
            let mut genes = vec![0; 30];
            column_counts(&x, &mut genes);
            let sets = ["mt", "ribo"].map(String::from).into_iter().zip(subset_totals(&x, &masks)).collect();
            let counted = Counted { totals: row_totals(&x), sets, genes, largest: totals::largest(&x.data) };
            let (mut by_rows, mut by_counts) = ((fold.open(), RowColumns::default()), (fold.open(), RowColumns::default()));
            let n = x.n_rows() as u64;
            fold.accumulate(&mut by_rows.0, 0, &mut Chunk::new(0..n, x, None), &mut by_rows.1).unwrap();
            fold.count(&mut by_counts.0, 0, &counted, &mut by_counts.1);
            prop_assert_eq!(fold.close(by_rows.0), fold.close(by_counts.0));
            // Bytes, since a row without counts gives NaN.
            prop_assert_eq!(postcard::to_stdvec(&by_rows.1).unwrap(), postcard::to_stdvec(&by_counts.1).unwrap());
        }

        #[test]
        fn high((x, _) in rows()) {
            check_laws(&High { n_vars: 30, above: 0.2 }, &x, None, |a, b| a == b).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn largest((x, _) in rows()) {
            check_laws(&Largest, &x, None, |a, b| a == b).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn moments((x, batch) in rows()) {
            check_laws(&Moments { n_vars: 30, n_batches: 3 }, &x, Some(&batch), |a, b| near_moments(a, b)).map_err(TestCaseError::fail)?;
            check_laws(&Moments { n_vars: 30, n_batches: 1 }, &x, None, |a, b| near_moments(a, b)).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn clipped((x, batch) in rows()) {
            let clip = (0..3).map(|b| (0..30).map(|j| f64::from(b * 10 + j)).collect()).collect();
            check_laws(&Clipped { clip }, &x, Some(&batch), |a, b| a == b).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn collect((x, _) in rows()) {
            check_laws(&Collect::new(0, 30), &x, None, |a, b| a == b).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn grouped((x, batch) in rows()) {
            // Three batches for two groups: the third is the rest.
            let fold = Grouped { n_vars: 30, n_groups: 2 };
            check_laws(&fold, &x, Some(&batch), |a, b| {
                near_stats(&a.rest, &b.rest) && a.groups.iter().zip(&b.groups).all(|(a, b)| near_stats(a, b))
            })
            .map_err(TestCaseError::fail)?;
        }

        #[test]
        fn by_gene((x, batch) in rows()) {
            check_laws(&ByGene { n_vars: 30 }, &x, Some(&batch), |a, b| (0..30).all(|j| gathered(a, j) == gathered(b, j)))
                .map_err(TestCaseError::fail)?;
        }

        #[test]
        fn residuals((x, batch) in rows()) {
            let share = (0..3).map(|b| (0..30).map(|j| f64::from(1 + b + j) / 600.0).collect()).collect();
            let fold = Residuals { share, model: Model { theta: 100.0, clip: 5.0 } };
            check_laws(&fold, &x, Some(&batch), |a, b| {
                a.iter().zip(b).all(|(a, b)| {
                    let same = a.entries.iter().flatten().zip(b.entries.iter().flatten()).all(|(a, b)| near(*a, *b));
                    same && a.n_obs == b.n_obs && a.totals == b.totals
                })
            })
            .map_err(TestCaseError::fail)?;
        }

        #[test]
        fn logistic((x, batch) in rows(), n_groups in 2usize..4) {
            let k = if n_groups == 2 { 1 } else { n_groups };
            let weights = (0..31 * k).map(|i| (i as f64 * 0.37).sin() / 200.0).collect();
            check_laws(&Logistic { n_vars: 30, n_groups, weights }, &x, Some(&batch), |a, b| {
                a.n_obs == b.n_obs && near(a.loss, b.loss) && a.gradient.iter().zip(&b.gradient).all(|(a, b)| near(*a, *b))
            })
            .map_err(TestCaseError::fail)?;
        }

        #[test]
        fn the_gradient_is_the_slope_of_the_loss((x, batch) in rows(), n_groups in 2usize..4, at in 0usize..31) {
            let k = if n_groups == 2 { 1 } else { n_groups };
            let loss = |moved: f64| {
                let mut weights: Vec<f64> = (0..31 * k).map(|i| (i as f64 * 0.37).sin() / 200.0).collect();
                weights[at * k] += moved;
                let fold = Logistic { n_vars: 30, n_groups, weights };
                let mut acc = fold.open();
                let mut chunk = Chunk::new(0..x.n_rows() as u64, x.clone(), Some(batch.clone()));
                fold.accumulate(&mut acc, 0, &mut chunk, &mut RowColumns::default()).unwrap();
                acc
            };
            let step = 1e-5;
            let slope = (loss(step).loss - loss(-step).loss) / (2.0 * step);
            let found = loss(0.0).gradient[at * k];
            prop_assert!((slope - found).abs() <= 1e-3 * (1.0 + found.abs()), "{} {}", slope, found);
        }

        #[test]
        fn cross((x, _) in rows()) {
            let regressors = (0..80).map(|i| (f64::from(i) * 0.7).cos()).collect();
            check_laws(&Cross { n_vars: 30, width: 2, regressors }, &x, None, |a, b| {
                a.gram.iter().chain(&a.cross).zip(b.gram.iter().chain(&b.cross)).all(|(a, b)| near(*a, *b))
            })
            .map_err(TestCaseError::fail)?;
        }

        #[test]
        fn sets((x, _) in rows()) {
            let sets = vec![("a".to_string(), (0..30).map(|j| j % 2 == 0).collect()), ("b".into(), vec![true; 30])];
            check_laws(&SetSums { sets }, &x, None, |(), ()| true).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn moments_are_those_of_the_dense_matrix((x, batch) in rows()) {
            let fold = Moments { n_vars: 30, n_batches: 3 };
            let mut acc = fold.open();
            let mut chunk = Chunk::new(0..x.n_rows() as u64, x.clone(), Some(batch.clone()));
            fold.accumulate(&mut acc, 0, &mut chunk, &mut RowColumns::default()).unwrap();
            let out = fold.finish(fold.close(acc));
            for b in 0..3u32 {
                let members: Vec<usize> = (0..x.n_rows()).filter(|&i| batch[i] == b).collect();
                for j in 0..30u32 {
                    let column: Vec<f64> = members.iter().map(|&i| x.row(i).0.iter().position(|c| *c == j).map_or(0.0, |k| f64::from(x.row(i).1[k]))).collect();
                    let mean = if column.is_empty() { 0.0 } else { column.iter().sum::<f64>() / column.len() as f64 };
                    let squares: f64 = column.iter().map(|v| (v - mean).powi(2)).sum();
                    prop_assert!(near(out[b as usize].mean[j as usize], mean));
                    prop_assert!(near(out[b as usize].squares[j as usize], squares));
                }
            }
        }
    }

    /// A fold that breaks a law must be caught: the checks can fail.
    #[test]
    fn a_fold_that_counts_chunks_is_caught() {
        #[derive(Clone, serde::Serialize, serde::Deserialize)]
        struct Chunks;
        impl Fold for Chunks {
            type Acc = u32;
            type State = u32;
            type Output = u32;
            fn init(&self) -> u32 {
                0
            }
            fn open(&self) -> u32 {
                0
            }
            fn accumulate(&self, acc: &mut u32, _: usize, _: &mut Chunk, _: &mut RowColumns) -> cellmill_matrix::Result<()> {
                *acc += 1;
                Ok(())
            }
            fn close(&self, acc: u32) -> u32 {
                acc
            }
            fn merge(&self, into: &mut u32, later: u32) {
                *into += later;
            }
            fn finish(&self, state: u32) -> u32 {
                state
            }
        }
        let mut x = Csr::empty(1);
        (0..9).for_each(|_| x.push_row(&[0], &[1.0]));
        assert!(check_laws(&Chunks, &x, None, |a, b| a == b).unwrap_err().starts_with("chunk size"));
    }
}

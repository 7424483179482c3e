use cellmill_matrix::Csr;
use proptest::prelude::*;

use super::*;
use crate::totals::{look, row_totals};

/// Rows of whole numbers, small and huge, some long enough for a table, and rows of anything.
fn rows() -> impl Strategy<Value = Vec<Vec<f32>>> {
    let whole =
        prop_oneof![20 => (0u16..8).prop_map(f32::from), 4 => (8u16..60).prop_map(f32::from), 1 => (0u64..1 << 40).prop_map(|v| v as f32)];
    let any = prop_oneof![whole.clone(), 0f32..9.0];
    let row = prop_oneof![prop::collection::vec(whole, 0..90), prop::collection::vec(any, 0..90)];
    prop::collection::vec(row, 1..6)
}

proptest! {
    #[test]
    fn the_table_gives_the_same_bits_as_two_steps(rows in rows()) {
        let mut x = Csr::empty(90);
        for row in &rows {
            let columns: Vec<u32> = (0..row.len() as u32).collect();
            x.push_row(&columns, row);
        }
        let totals = row_totals(&x);
        let seen = look(&x.data);
        let mut once = x.clone();
        normalize_log1p(&mut once, seen.whole && seen.counts, &totals.total, 1e4, None);
        let mut twice = x.clone();
        normalize_total(&mut twice, &totals.total, 1e4);
        log1p(&mut twice, None);
        prop_assert_eq!(once.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), twice.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    }
}

#[test]
fn a_row_is_normalised_to_the_target_and_an_empty_one_left_alone() {
    let mut x = Csr::empty(3);
    x.push_row(&[0, 2], &[1.0, 3.0]);
    x.push_row(&[1], &[0.0]);
    let totals = row_totals(&x);
    normalize_total(&mut x, &totals.total, 100.0);
    assert_eq!(x.data, [25.0, 75.0, 0.0]);
    log1p(&mut x, Some(2.0));
    assert!((x.data[0] - 26f32.log2()).abs() < 1e-6);
}

#[test]
fn exponentials_and_roots_undo_logarithms_and_squares() {
    let values = [0.0, 0.5, 1.0, 7.0, 1000.0];
    for base in [None, Some(2.0), Some(10.0)] {
        let mut x = Csr::empty(5);
        x.push_row(&[0, 1, 2, 3, 4], &values);
        log1p(&mut x, base);
        expm1(&mut x, base);
        assert!(x.data.iter().zip(values).all(|(a, b)| (a - b).abs() <= 1e-5 * b.max(1e-3)), "{:?}", x.data);
    }
    let mut x = Csr::empty(2);
    x.push_row(&[0, 1], &[9.0, 0.25]);
    sqrt(&mut x);
    assert_eq!(x.data, [3.0, 0.5]);
}

#[test]
fn scaling_clips_only_the_upper_side() {
    let mut x = Csr::empty(2);
    x.push_row(&[0, 1], &[8.0, -9.0]);
    scale_columns(&mut x, &[0.5, 1.0], Some(3.0));
    assert_eq!(x.data, [3.0, -9.0]);
}

#[test]
fn a_centred_chunk_plus_its_base_row_is_the_dense_result() {
    let dense = [[0.0f32, 2.0], [8.0, 0.0], [4.0, 1.0]];
    let (mean, std) = ([4.0, 1.0], [2.0f64, 0.25]);
    let inverse: Vec<f64> = std.iter().map(|s| 1.0 / s).collect();
    let mut x = Csr::empty(2);
    dense.iter().for_each(|row| {
        let kept: Vec<u32> = (0..2).filter(|&j| row[j as usize] != 0.0).collect();
        let values: Vec<f32> = kept.iter().map(|&j| row[j as usize]).collect();
        x.push_row(&kept, &values);
    });
    center_columns(&mut x, &mean, &inverse, Some(1.5));
    let base = base_row(&mean, &inverse, Some(1.5));
    for (i, row) in dense.iter().enumerate() {
        for j in 0..2 {
            let (c, v) = x.row(i);
            let sparse = c.iter().position(|&k| k as usize == j).map_or(0.0, |k| f64::from(v[k]));
            let want = ((f64::from(row[j]) - mean[j]) / std[j]).clamp(-1.5, 1.5);
            assert!((sparse + base[j] - want).abs() < 1e-6, "{i} {j}");
        }
    }
}

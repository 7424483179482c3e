use cellmill_matrix::Csr;
use proptest::prelude::*;

use super::*;

fn rows() -> impl Strategy<Value = Csr> {
    prop::collection::vec(prop::collection::btree_map(0u32..40, 0u8..5, 0..40), 0..20).prop_map(|rows| {
        let mut x = Csr::empty(40);
        for row in rows {
            let (columns, values): (Vec<u32>, Vec<f32>) = row.into_iter().map(|(c, v)| (c, f32::from(v))).unzip();
            x.push_row(&columns, &values);
        }
        x
    })
}

proptest! {
    #[test]
    fn totals_are_those_of_the_dense_matrix(x in rows()) {
        let totals = row_totals(&x);
        let mut columns = vec![[0.0; 2]; x.n_cols];
        column_totals(&x, &mut columns);
        let mask: Vec<bool> = (0..40).map(|j| j % 3 == 0).collect();
        let subset = subset_totals(&x, std::slice::from_ref(&mask));
        let mut want_columns = vec![[0.0; 2]; x.n_cols];
        for (i, subset) in subset[0].iter().enumerate() {
            let mut dense = [0.0f64; 40];
            let (c, v) = x.row(i);
            for (c, v) in c.iter().zip(v) {
                dense[*c as usize] = f64::from(*v);
            }
            prop_assert_eq!(totals.n_genes[i] as usize, dense.iter().filter(|v| **v != 0.0).count());
            prop_assert_eq!(totals.total[i], dense.iter().sum::<f64>());
            prop_assert_eq!(*subset, dense.iter().zip(&mask).filter(|(_, m)| **m).map(|(v, _)| v).sum::<f64>());
            for j in 0..40 {
                want_columns[j][0] += dense[j];
                want_columns[j][1] += f64::from(u8::from(dense[j] != 0.0));
            }
        }
        let mut words = vec![0u64; x.n_cols];
        column_counts(&x, &mut words);
        let counts: Vec<[f64; 2]> = words.iter().map(|w| [(w >> COUNT_BITS) as f64, (w & 0xffff) as f64]).collect();
        prop_assert_eq!(&counts, &want_columns);
        prop_assert_eq!(columns, want_columns);
    }

    #[test]
    fn top_shares_are_those_of_the_sorted_row(x in rows(), n in 1usize..45) {
        let totals = row_totals(&x);
        let shares = top_shares(&x, &totals, &[n, 2]);
        for i in 0..x.n_rows() {
            let mut row: Vec<f32> = x.row(i).1.to_vec();
            row.sort_by(|a, b| b.total_cmp(a));
            for (share, n) in shares.iter().zip([n, 2]) {
                let want = row.iter().take(n).map(|v| f64::from(*v)).sum::<f64>() / totals.total[i] * 100.0;
                prop_assert!(share[i] == want || (share[i].is_nan() && want.is_nan()));
            }
        }
    }
}

#[test]
fn a_look_tells_counts_from_the_rest() {
    let at = |v: f32| (0..20).map(|i| if i == 13 { v } else { i as f32 }).collect::<Vec<f32>>();
    let of = |v: f32| {
        let seen = look(&at(v));
        (seen.whole, seen.counts, seen.largest)
    };
    assert_eq!(of(3.0), (true, true, 19.0));
    assert_eq!(of(3e9), (true, true, 3e9));
    assert_eq!(of(0.5), (false, true, 19.0));
    assert_eq!(of(-2.0), (true, false, 19.0));
    assert_eq!(of(f32::NAN), (false, false, 19.0));
    assert_eq!(of(f32::INFINITY), (true, false, f32::INFINITY));
    assert_eq!(look(&[]), Look { whole: true, counts: true, largest: 0.0 });
    assert_eq!([-30.0, 4.0].map(|v| largest(&at(v))), [30.0, 19.0]);
    assert!(largest(&at(-f32::NAN)).is_nan());
    assert_eq!(largest(&[]), 0.0);
}

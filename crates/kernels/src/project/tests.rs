use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

use super::*;

/// Numbers in 0..1 from a counter.
fn numbers(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn case(n: usize, p: usize, k: usize, density: f64, seed: u64) -> (Csr, Vec<f64>, Vec<f64>) {
    let mut next = numbers(seed);
    let mut csr = Csr::empty(p);
    for _ in 0..n {
        let columns: Vec<u32> = (0..p as u32).filter(|_| next() < density).collect();
        let values: Vec<f32> = columns.iter().map(|_| (8.0 * next()) as f32).collect();
        csr.push_row(&columns, &values);
    }
    let weights = (0..p * k).map(|_| next() - 0.5).collect();
    let offset = (0..k).map(|_| 10.0 * next() - 5.0).collect();
    (csr, weights, offset)
}

proptest! {
    #[test]
    fn equals_the_product_in_f64(n in 0usize..300, p in 0usize..60, k in 0usize..230, density in 0.0..1.0, seed: u64) {
        let (csr, weights, offset) = case(n, p, k, density, seed);
        let mut scores = vec![0.0; n * k];
        Projection::new(&weights, p, &offset).unwrap().scores(&csr, &mut scores).unwrap();
        for i in 0..n {
            let (columns, values) = csr.row(i);
            for c in 0..k {
                let terms = || columns.iter().zip(values).map(|(&j, &x)| f64::from(x) * weights[j as usize * k + c]);
                let (want, size) = (offset[c] + terms().sum::<f64>(), offset[c].abs() + terms().map(f64::abs).sum::<f64>());
                // Each of at most 60 additions rounds by 2^-24 of what it has, and so do the weights and the result.
                prop_assert!((f64::from(scores[i * k + c]) - want).abs() <= 64.0 * size * (2.0f64).powi(-24));
            }
        }
    }

    #[test]
    fn both_instruction_sets_give_the_same_bits(p in 1usize..80, n in 1usize..=WIDTH / 8, density in 0.0..1.0, seed: u64) {
        let (csr, weights, _) = case(1, p, 8 * n, density, seed);
        let panel: Vec<f32> = weights.iter().map(|&w| w as f32).collect();
        let (columns, values) = csr.row(0);
        let portable = row_times(columns, values, &panel, n, Instructions::Portable);
        let best = row_times(columns, values, &panel, n, Instructions::detect());
        prop_assert_eq!(portable.as_flattened().iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            best.as_flattened().iter().map(|x| x.to_bits()).collect::<Vec<_>>());
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let (csr, weights, offset) = case(1000, 70, 50, 0.3, 7);
    let projection = Projection::new(&weights, 70, &offset).unwrap();
    let scores = |threads: usize| {
        let mut out = vec![0.0; 1000 * 50];
        ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| projection.scores(&csr, &mut out)).unwrap();
        out
    };
    let one = scores(1);
    for threads in [2, 3, 8] {
        assert_eq!(scores(threads), one);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(Projection::new(&[0.0; 5], 2, &[0.0; 3]).is_err());
    let projection = Projection::new(&[0.0; 6], 2, &[0.0; 3]).unwrap();
    let mut rows = Csr::empty(2);
    rows.push_row(&[1], &[1.0]);
    assert!(projection.scores(&rows, &mut [0.0; 2]).is_err());
    rows.push_row(&[7], &[1.0]);
    assert!(projection.scores(&rows, &mut [0.0; 6]).is_err());
}

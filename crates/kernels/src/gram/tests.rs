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

/// Rows whose columns are detected at rates from `rate` down to `rate / p`, in mixed order.
fn rows(n: usize, p: usize, rate: f64, seed: u64) -> Csr {
    let mut next = numbers(seed);
    let mut csr = Csr::empty(p);
    for _ in 0..n {
        let columns: Vec<u32> = (0..p).filter(|j| next() < rate / (1 + j * 7 % p) as f64).map(|j| j as u32).collect();
        let values: Vec<f32> = columns.iter().map(|_| (0.3 + 7.7 * next() * next()) as f32).collect();
        csr.push_row(&columns, &values);
    }
    csr
}

/// Some of the rows.
fn part(csr: &Csr, rows: std::ops::Range<usize>) -> Csr {
    let mut out = Csr::empty(csr.n_cols);
    for i in rows {
        let (columns, values) = csr.row(i);
        out.push_row(columns, values);
    }
    out
}

/// `X'X` and the sums, the plain way.
fn reference(csr: &Csr) -> (Vec<f64>, Vec<f64>) {
    let p = csr.n_cols;
    let (mut gram, mut sums) = (vec![0.0; p * p], vec![0.0; p]);
    for i in 0..csr.n_rows() {
        let (columns, values) = csr.row(i);
        for (&a, &x) in columns.iter().zip(values) {
            sums[a as usize] += f64::from(x);
            for (&b, &y) in columns.iter().zip(values) {
                gram[a as usize * p + b as usize] += f64::from(x) * f64::from(y);
            }
        }
    }
    (gram, sums)
}

fn detection(csr: &Csr) -> Vec<f32> {
    let mut counts = vec![0.0f32; csr.n_cols];
    csr.indices.iter().for_each(|&j| counts[j as usize] += 1.0);
    counts.iter().map(|count| count / csr.n_rows().max(1) as f32).collect()
}

fn bound(csr: &Csr) -> f64 {
    let (gram, _) = reference(csr);
    (0..csr.n_cols).map(|j| gram[j * (csr.n_cols + 1)]).fold(0.0, f64::max)
}

/// The Gram matrix of blocks of `block` rows, in the order given.
fn gram_of(csr: &Csr, block: usize, start: &Gram, order: impl Iterator<Item = usize>) -> Gram {
    let (mut gram, mut work) = (start.clone(), Work::default());
    for i in order {
        let rows = part(csr, i * block..((i + 1) * block).min(csr.n_rows()));
        gram.add(&[&rows], &mut work).unwrap();
    }
    gram
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn equals_the_sums_in_f64(n in 0usize..2500, p in 0usize..150, rate in 0.0..40.0, block in 1usize..2600, seed: u64) {
        let csr = rows(n, p, rate, seed);
        let (want, sums) = reference(&csr);
        let start = Gram::new(&detection(&csr), bound(&csr)).unwrap();
        let gram = gram_of(&csr, block, &start, 0..n.div_ceil(block));
        prop_assert_eq!(gram.n_rows(), n as u64);
        for (got, want) in gram.sums().iter().zip(&sums) {
            prop_assert!((got - want).abs() <= 1e-12 * want.abs());
        }
        for i in 0..p {
            for j in 0..p {
                let size = (want[i * (p + 1)] * want[j * (p + 1)]).sqrt();
                prop_assert!((gram.product(i, j) - want[i * p + j]).abs() <= 1e-6 * size);
                prop_assert_eq!(gram.product(i, j), gram.product(j, i));
            }
        }
        if n >= 2 {
            let covariance = gram.covariance().unwrap();
            for i in 0..p {
                for j in 0..p {
                    let want = (gram.product(i, j) - gram.sums()[i] * gram.sums()[j] / n as f64) / (n as f64 - 1.0);
                    prop_assert_eq!(covariance[i * p + j], want);
                }
            }
        }
    }

    #[test]
    fn merging_is_associative_and_commutative_and_has_an_identity(n in 1usize..900, p in 1usize..130, block in 30usize..400, cut in 0.0..1.0, seed: u64) {
        let csr = rows(n, p, 10.0, seed);
        let empty = Gram::new(&detection(&csr), bound(&csr)).unwrap();
        let blocks = n.div_ceil(block);
        let all = gram_of(&csr, block, &empty, 0..blocks);
        prop_assert_eq!(&gram_of(&csr, block, &empty, (0..blocks).rev()), &all);

        let cut = (cut * blocks as f64) as usize;
        let (early, late) = (gram_of(&csr, block, &empty, 0..cut), gram_of(&csr, block, &empty, cut..blocks));
        for (a, b) in [(&early, &late), (&late, &early), (&all, &empty), (&empty, &all)] {
            let mut merged = a.clone();
            merged.merge(b).unwrap();
            prop_assert_eq!(&merged, &all);
        }
        let ones: Vec<Gram> = (0..blocks).map(|i| gram_of(&csr, block, &empty, i..i + 1)).collect();
        let left = ones.iter().skip(1).fold(ones[0].clone(), |mut sum, one| { sum.merge(one).unwrap(); sum });
        let right = ones.iter().rev().skip(1).fold(ones[blocks - 1].clone(), |sum, one| { let mut new = one.clone(); new.merge(&sum).unwrap(); new });
        prop_assert_eq!(&left, &all);
        prop_assert_eq!(&right, &all);
    }

    #[test]
    fn pieces_of_a_block_make_no_difference(n in 1usize..2500, p in 1usize..130, piece in 1usize..1500, seed: u64) {
        let csr = rows(n, p, 10.0, seed);
        let start = Gram::new(&detection(&csr), bound(&csr)).unwrap();
        let pieces: Vec<Csr> = (0..n).step_by(piece).map(|i| part(&csr, i..(i + piece).min(n))).collect();
        let mut gram = start.clone();
        gram.add(&pieces.iter().collect::<Vec<_>>(), &mut Work::default()).unwrap();
        prop_assert_eq!(gram, gram_of(&csr, n, &start, 0..1));
    }

    #[test]
    fn both_instruction_sets_give_the_same_bits(n in 1usize..1500, p in 1usize..200, rate in 0.0..20.0, seed: u64) {
        let csr = rows(n, p, rate, seed);
        let rank: Vec<u32> = (0..p as u32).collect();
        let mut slabs = vec![Slab::default(), Slab::default()];
        for (i, slab) in slabs.iter_mut().enumerate() {
            slab.fill(&[&csr], i * SLAB, &rank).unwrap();
        }
        for start in (0..p).step_by(WIDTH) {
            let (mut portable, mut best) = (Scratch::new(), Scratch::new());
            portable.product(&slabs, start, start..p, Instructions::Portable);
            best.product(&slabs, start, start..p, Instructions::detect());
            let bits = |scratch: &Scratch| scratch.acc.as_flattened().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&portable), bits(&best));
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let csr = rows(3000, 300, 40.0, 5);
    let start = Gram::new(&detection(&csr), bound(&csr)).unwrap();
    let run = |threads: usize| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let gram = gram_of(&csr, 1100, &start, 0..3);
            (gram.covariance().unwrap(), gram)
        })
    };
    let one = run(1);
    for threads in [2, 3, 8] {
        assert_eq!(run(threads), one);
    }
}

/// The error does not grow with the number of rows: 4,096 full blocks (eight different ones, doubled) are 67 million rows.
#[test]
fn many_blocks_keep_the_precision_of_few() {
    let p = 6;
    let csr = rows(8 * BLOCK, p, 3.0, 11);
    let (want, sums) = reference(&csr);
    let doublings = 9;
    let n = (2.0f64).powi(doublings);
    let largest = (0..p).map(|j| want[j * (p + 1)]).fold(0.0, f64::max);
    let mut gram = gram_of(&csr, BLOCK, &Gram::new(&detection(&csr), largest * n).unwrap(), 0..8);
    for _ in 0..doublings {
        let same = gram.clone();
        gram.merge(&same).unwrap();
    }
    assert_eq!(gram.n_rows(), 4096 * BLOCK as u64);
    for (got, want) in gram.sums().iter().zip(&sums) {
        assert!((got / n - want).abs() <= 1e-13 * want);
    }
    let mut worst = 0.0f64;
    for i in 0..p {
        for j in 0..p {
            let size = (want[i * (p + 1)] * want[j * (p + 1)]).sqrt();
            let error = (gram.product(i, j) / n - want[i * p + j]).abs() / size;
            worst = worst.max(error);
        }
    }
    assert!(worst <= 1e-7, "{worst}");
}

/// Blocks of different rows: their rounding errors average out.
#[test]
fn blocks_of_many_rows_agree_with_f64() {
    let p = 40;
    let csr = rows(4 * BLOCK, p, 30.0, 3);
    let (want, _) = reference(&csr);
    let gram = gram_of(&csr, BLOCK, &Gram::new(&detection(&csr), bound(&csr)).unwrap(), 0..4);
    let mut worst = 0.0f64;
    for i in 0..p {
        for j in 0..p {
            let size = (want[i * (p + 1)] * want[j * (p + 1)]).sqrt();
            let error = (gram.product(i, j) - want[i * p + j]).abs() / size;
            worst = worst.max(error);
        }
    }
    assert!(worst <= 1e-7, "{worst}");
}

#[test]
fn tiny_and_huge_numbers_keep_their_precision() {
    for size in [1e-15f32, 1e15] {
        let mut csr = rows(500, 30, 10.0, 9);
        csr.data.iter_mut().for_each(|x| *x *= size);
        let (want, _) = reference(&csr);
        let gram = gram_of(&csr, 500, &Gram::new(&detection(&csr), bound(&csr)).unwrap(), 0..1);
        for j in 0..30 {
            assert!((gram.product(j, j) - want[j * 31]).abs() <= 1e-6 * want[j * 31]);
        }
    }
}

#[test]
fn a_state_survives_the_wire() {
    let csr = rows(200, 90, 10.0, 2);
    let gram = gram_of(&csr, 100, &Gram::new(&detection(&csr), bound(&csr)).unwrap(), 0..2);
    let text = serde_json::to_string(&gram).unwrap();
    assert_eq!(serde_json::from_str::<Gram>(&text).unwrap(), gram);
}

#[test]
fn what_does_not_fit_is_refused() {
    let error = Gram::new(&vec![0.1; MAX_COLUMNS + 1], 1.0).unwrap_err().to_string();
    assert!(error.starts_with("n_top_genes: 16385, but a Gram matrix of so many genes needs 1028 MiB"), "{error}");
    assert!(Gram::new(&[0.1], f64::NAN).is_err());

    let one = |value: f32| {
        let mut csr = Csr::empty(2);
        csr.push_row(&[0], &[value]);
        csr
    };
    let empty = Gram::new(&[0.5, 0.5], 100.0).unwrap();
    assert!(empty.covariance().is_err());
    for value in [f32::NAN, f32::INFINITY, 100.0] {
        assert!(empty.clone().add(&[&one(value)], &mut Work::default()).is_err(), "{value}");
    }
    let mut full = empty.clone();
    full.add(&[&one(10.0)], &mut Work::default()).unwrap();
    assert_eq!(full.product(0, 0), 100.0);
    let mut other = Csr::empty(5);
    other.push_row(&[4], &[1.0]);
    assert!(full.add(&[&other], &mut Work::default()).is_err());
    assert!(full.merge(&Gram::new(&[0.5, 0.6], 100.0).unwrap()).is_err());
    assert!(full.clone().add(&vec![&one(0.0); BLOCK + 1], &mut Work::default()).is_err());
}

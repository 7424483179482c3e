//! The simulation as a source: the rows are a pure function of options and row number, and look like counts.

use cellmill_matrix::{Column, Csr, ErrorKind, Source, SourceRow};
use cellmill_simulate::{Options, Simulation};
use proptest::prelude::*;
use rayon::prelude::*;

fn simulation(n_obs: u64, n_vars: usize, n_batches: usize, seed: u64) -> Simulation {
    Simulation::new(Options { n_obs, n_vars, n_types: 12, n_batches, seed, ..Options::default() }).unwrap()
}

fn read(simulation: &Simulation, rows: std::ops::Range<u64>) -> Csr {
    let mut csr = Csr::empty(1);
    simulation.read(SourceRow(rows.start)..SourceRow(rows.end), &mut csr).unwrap();
    csr
}

fn append(whole: &mut Csr, part: &Csr) {
    for i in 0..part.n_rows() {
        let (columns, values) = part.row(i);
        whole.push_row(columns, values);
    }
}

fn codes(simulation: &Simulation, name: &str) -> Vec<i32> {
    match simulation.obs().column(name) {
        Some(Column::Categorical { codes, .. }) => codes.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_cut_is_one_read(seed in 0u64..1000, n_batches in 1usize..4, mut cuts in prop::collection::vec(0u64..=60, 0..6)) {
        let simulation = simulation(60, 400, n_batches, seed);
        cuts.extend([0, 60]);
        cuts.sort_unstable();
        let mut parts = Csr::empty(400);
        for cut in cuts.windows(2) {
            append(&mut parts, &read(&simulation, cut[0]..cut[1]));
        }
        prop_assert_eq!(parts, read(&simulation, 0..60));
    }

    #[test]
    fn rows_are_canonical_counts(seed in 0u64..1000, n_vars in 1usize..300, n_types in 1usize..40, n_batches in 1usize..4) {
        let options = Options { n_obs: 40, n_vars, n_types, n_batches, seed, ..Options::default() };
        let simulation = Simulation::new(options).unwrap();
        let mut csr = read(&simulation, 0..40);
        csr.check_indptr(0).unwrap();
        prop_assert!(!csr.canonicalise(0).unwrap());
        prop_assert!(csr.data.iter().all(|&x| x >= 1.0 && x.fract() == 0.0));
        prop_assert_eq!((csr.n_rows(), csr.n_cols), (40, n_vars));
        let mut names = simulation.var().index;
        prop_assert_eq!(names.len(), n_vars);
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(names.len(), n_vars);
    }

    #[test]
    fn a_longer_run_begins_with_a_shorter_one(seed in 0u64..1000, n in 1u64..50) {
        let (short, long) = (simulation(n, 300, 2, seed), simulation(500, 300, 2, seed));
        prop_assert_eq!(read(&short, 0..n), read(&long, 0..n));
        let (a, b) = (short.obs(), long.obs());
        prop_assert_eq!(&a.index[..], &b.index[..n as usize]);
        for name in ["cell_type", "batch"] {
            prop_assert_eq!(codes(&short, name), &codes(&long, name)[..n as usize]);
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let made = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let simulation = simulation(600, 2000, 2, 11);
            let parts: Vec<Csr> =
                (0..600u64).step_by(100).collect::<Vec<_>>().into_par_iter().map(|s| read(&simulation, s..s + 100)).collect();
            let mut whole = Csr::empty(2000);
            parts.iter().for_each(|part| append(&mut whole, part));
            (whole, simulation.obs(), simulation.var())
        })
    };
    let one = made(1);
    for threads in [2, 3, 8] {
        assert!(made(threads) == one, "{threads} threads");
    }
}

/// Fixes the model: a change of any number here changes every simulated set. Kept short of floating-point detail by hashing
/// whole counts (FNV-1a).
#[test]
fn the_numbers_are_those_of_this_version() {
    let csr = read(&simulation(200, 1000, 2, 7), 0..200);
    let words = csr.indptr.iter().copied().chain(csr.indices.iter().map(|&i| u64::from(i))).chain(csr.data.iter().map(|&x| x as u64));
    let hash = words.fold(0xCBF2_9CE4_8422_2325u64, |h, w| (h ^ w).wrapping_mul(0x0100_0000_01B3));
    assert_eq!(hash, 996_271_229_812_569_307);
}

#[test]
fn seeds_differ() {
    assert_ne!(read(&simulation(5, 500, 1, 0), 0..5), read(&simulation(5, 500, 1, 1), 0..5));
}

/// At full width: genes a cell, detection, share of ones, low-quality cells, mitochondrial share, sizes of types.
#[test]
fn moments_lie_in_the_bands_of_real_data() {
    let n = 1500u64;
    let simulation = Simulation::new(Options { n_obs: n, ..Options::default() }).unwrap();
    let n_vars = simulation.shape().n_vars;
    let csr = read(&simulation, 0..n);
    let mean = csr.nnz() as f64 / n as f64;
    assert!((mean / 2000.0 - 1.0).abs() < 0.05, "{mean} genes a cell");
    assert!(simulation.entries_before(SourceRow(n)) > csr.nnz() as u64);
    let mut seen = vec![0u32; n_vars];
    csr.indices.iter().for_each(|&g| seen[g as usize] += 1);
    let above = |share: f64| seen.iter().filter(|&&k| f64::from(k) > share * n as f64).count();
    assert!((50..150).contains(&above(0.9)), "{} genes in 90 % of the cells", above(0.9));
    assert!((600..1000).contains(&above(0.5)), "{} genes in half of the cells", above(0.5));
    let rare = 1.0 - above(0.01) as f64 / n_vars as f64;
    assert!((0.4..0.6).contains(&rare), "{rare} of the genes in under 1 %");
    let ones = csr.data.iter().filter(|&&x| x == 1.0).count() as f64 / csr.nnz() as f64;
    assert!((0.6..0.8).contains(&ones), "{ones} of the counts are 1");

    let totals: Vec<f64> = (0..csr.n_rows()).map(|i| csr.row(i).1.iter().map(|&x| f64::from(x)).sum()).collect();
    let low = totals.iter().filter(|&&t| t < 0.1 * simulation.mean_library()).count() as f64 / n as f64;
    assert!((0.01..0.03).contains(&low), "{low} of the cells are of low quality");
    let logs: Vec<f64> = totals.iter().filter(|&&t| t >= 0.1 * simulation.mean_library()).map(|t| t.ln()).collect();
    let centre = logs.iter().sum::<f64>() / logs.len() as f64;
    let sigma = (logs.iter().map(|l| (l - centre).powi(2)).sum::<f64>() / logs.len() as f64).sqrt();
    assert!((0.45..0.6).contains(&sigma), "library sigma {sigma}");
    let mitochondrial: f64 =
        csr.indices.iter().zip(&csr.data).filter(|(g, _)| **g as usize >= n_vars - 13).map(|(_, &x)| f64::from(x)).sum();
    let share = mitochondrial / totals.iter().sum::<f64>();
    assert!((0.05..0.08).contains(&share), "mitochondrial share {share}");
}

/// Counts scaled for depth inside one type vary more than Poisson counts, and the more so the larger their mean.
#[test]
fn variance_over_mean_rises_with_the_mean() {
    let options = Options { n_obs: 2000, n_types: 1, size_sigma: 0.0, low_quality: 0.0, ..Options::default() };
    let simulation = Simulation::new(options).unwrap();
    let n_vars = simulation.shape().n_vars;
    let csr = read(&simulation, 0..2000);
    let (mut sum, mut square) = (vec![0.0; n_vars], vec![0.0; n_vars]);
    for (&g, &x) in csr.indices.iter().zip(&csr.data) {
        sum[g as usize] += f64::from(x);
        square[g as usize] += f64::from(x) * f64::from(x);
    }
    let ratio = |low: f64, high: f64| {
        let mut ratios: Vec<f64> = (0..n_vars)
            .map(|g| (sum[g] / 2000.0, square[g] / 2000.0))
            .filter(|(m, _)| (low..high).contains(m))
            .map(|(m, q)| (q - m * m) / m)
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    };
    let bands = [ratio(0.01, 0.1), ratio(0.2, 0.5), ratio(1.0, 2.0), ratio(4.0, 20.0)];
    assert!((0.97..1.05).contains(&bands[0]) && bands.windows(2).all(|w| w[0] < w[1]) && bands[3] > 2.0, "{bands:?}");
}

#[test]
fn types_and_batches_have_their_sizes() {
    let simulation = Simulation::new(Options { n_obs: 50_000, n_vars: 50, n_batches: 4, ..Options::default() }).unwrap();
    let count = |name: &str, n: usize| {
        let mut sizes = vec![0usize; n];
        codes(&simulation, name).iter().for_each(|&c| sizes[c as usize] += 1);
        sizes
    };
    let types = count("cell_type", 30);
    assert!(types[28..].iter().all(|k| (25..90).contains(k)), "rare types: {types:?}");
    assert!(types.iter().max() > types[..28].iter().min().map(|m| m * 5).as_ref(), "{types:?}");
    assert!(count("batch", 4).iter().all(|k| (12_000..13_000).contains(k)));
}

/// Batches multiply a gene's mean by their effect, for genes drawn one by one and together.
#[test]
fn batches_move_the_means() {
    let options = Options { n_obs: 3000, n_vars: 3000, n_types: 1, n_batches: 2, batch_sigma: 0.5, ..Options::default() };
    let simulation = Simulation::new(options).unwrap();
    let (csr, batch) = (read(&simulation, 0..3000), codes(&simulation, "batch"));
    let mut sums = vec![[0.0f64; 2]; 3000];
    for i in 0..3000 {
        let (columns, values) = csr.row(i);
        columns.iter().zip(values).for_each(|(&g, &x)| sums[g as usize][batch[i] as usize] += f64::from(x));
    }
    for (low, high) in [(60.0, 250.0), (1500.0, 1e9)] {
        let changes: Vec<f64> =
            sums.iter().filter(|s| (low..high).contains(&(s[0] + s[1]))).map(|s| ((s[0] + 1.0) / (s[1] + 1.0)).ln()).collect();
        let sigma = (changes.iter().map(|c| c * c).sum::<f64>() / changes.len() as f64).sqrt();
        // The difference of two effects has standard deviation 0.5 √2 = 0.71, plus the noise of the counts.
        assert!(changes.len() > 50 && (0.6..0.85).contains(&sigma), "{} genes: {sigma}", changes.len());
    }
}

#[test]
fn options_and_ranges_are_checked() {
    let good = Options { n_obs: 10, n_vars: 100, ..Options::default() };
    let cases = [
        ("n_obs", Options { n_obs: u64::MAX, ..good.clone() }),
        ("n_vars", Options { n_vars: 0, ..good.clone() }),
        ("n_types", Options { n_types: 0, ..good.clone() }),
        ("n_types", Options { n_types: 1000, n_vars: 1_000_000, ..good.clone() }),
        ("n_batches", Options { n_batches: 0, ..good.clone() }),
        ("genes_per_cell", Options { genes_per_cell: Some(61.0), ..good.clone() }),
        ("genes_per_cell", Options { genes_per_cell: Some(f64::NAN), ..good.clone() }),
        ("size_sigma", Options { size_sigma: -0.1, ..good.clone() }),
        ("batch_sigma", Options { batch_sigma: f64::NAN, ..good.clone() }),
        ("low_quality", Options { low_quality: 1.5, ..good.clone() }),
    ];
    for (option, options) in cases {
        match Simulation::new(options).err().map(|e| e.kind().clone()) {
            Some(ErrorKind::Option { name, .. }) => assert_eq!(name, option),
            other => panic!("{option}: {other:?}"),
        }
    }
    let simulation = Simulation::new(good).unwrap();
    let mut csr = Csr::empty(100);
    assert!(simulation.read(SourceRow(8)..SourceRow(11), &mut csr).is_err());
    let empty = SourceRow(10)..SourceRow(10);
    simulation.read(empty, &mut csr).unwrap();
    assert_eq!(csr.n_rows(), 0);
}

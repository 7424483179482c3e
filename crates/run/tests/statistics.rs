//! Statistics over a view against their definitions, on dense numbers: markers, aggregates, residuals, regression. scanpy's numbers are
//! compared in tests/python; here are the parts that no command shows, and the laws: threads, memory and stages change no bit.

use std::ops::Range;

use cellmill_engine::exec::{Feed, THREAD_BYTES, cut};
use cellmill_engine::fold::NO_GROUP;
use cellmill_engine::recipe::{Rows, Step};
use cellmill_engine::stage::{Allowance, Stage};
use cellmill_matrix::{Csr, Result, Shape, Source, SourceRow};
use cellmill_run::aggregate::{Func, aggregate};
use cellmill_run::markers::{Markers, Method, Options, rank_genes_groups};
use cellmill_run::pearson::normalize_pearson_residuals;
use cellmill_run::regress::{Regressors, regress_out};
use cellmill_run::view::{Groups, View};

/// Rows in memory.
struct Memory(Csr);

impl Source for Memory {
    fn shape(&self) -> Shape {
        Shape { n_obs: self.0.n_rows() as u64, n_vars: self.0.n_cols }
    }
    fn entries_before(&self, row: SourceRow) -> u64 {
        self.0.indptr[row.index()]
    }
    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        into.clear(self.0.n_cols);
        (rows.start.index()..rows.end.index()).for_each(|i| into.push_row(self.0.row(i).0, self.0.row(i).1));
        Ok(())
    }
    fn bytes_read(&self) -> u64 {
        0
    }
    fn bytes_decoded(&self) -> u64 {
        0
    }
    fn overhead_bytes(&self, _: usize) -> u64 {
        0
    }
    fn location(&self) -> &str {
        "memory"
    }
}

const N_VARS: usize = 40;

/// Counts of cells in three groups (and some in none), from a fixed sequence.
fn cells(n: usize) -> (Memory, Vec<u32>) {
    let mut state = 12345u64;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32
    };
    let mut x = Csr::empty(N_VARS);
    let mut codes = Vec::new();
    for _ in 0..n {
        let group = next() % 4;
        let row: Vec<(u32, f32)> = (0..N_VARS as u32)
            .filter_map(|j| {
                let strong = u32::from(j % 4 == group) * 3;
                let count = (next() % 8).saturating_sub(5) + strong * u32::from(next() % 3 == 0);
                (count > 0).then_some((j, count as f32))
            })
            .collect();
        let (columns, values): (Vec<u32>, Vec<f32>) = row.into_iter().unzip();
        x.push_row(&columns, &values);
        codes.push(if group == 3 { NO_GROUP } else { group });
    }
    (Memory(x), codes)
}

fn names() -> Vec<String> {
    ["a", "b", "c"].map(String::from).to_vec()
}

fn dense(x: &Csr) -> Vec<Vec<f64>> {
    (0..x.n_rows())
        .map(|i| {
            let mut row = vec![0.0; x.n_cols];
            x.row(i).0.iter().zip(x.row(i).1).for_each(|(&c, &v)| row[c as usize] = f64::from(v));
            row
        })
        .collect()
}

fn on<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

const PLENTY: u64 = 1 << 30;

/// Beside the chunks on their way, room for the ranks of some genes only.
const TIGHT: u64 = THREAD_BYTES + (400 << 10);

/// Every score and p-value as bits.
fn bits(found: &Markers) -> Vec<u64> {
    let tests = |r: &cellmill_run::markers::Ranked| {
        r.tests.iter().flat_map(|t| t.pvals_adj.iter().chain(&t.log_fold_changes).copied()).collect::<Vec<f64>>()
    };
    found.ranked.iter().flat_map(|r| r.scores.iter().copied().chain(tests(r))).map(f64::to_bits).collect()
}

/// All of a source's rows and genes, as they are.
fn of_all(source: &dyn Source) -> View<'_> {
    View { feed: Feed::source(source), select: &[], values: &[], n_vars: N_VARS, memory: PLENTY, cluster: None, gpus: &[], wide: None }
}

#[test]
fn threads_stages_and_memory_change_no_bit_of_markers() {
    let (source, codes) = cells(9000);
    let names = names();
    let values = [Step::NormalizeTotal { target_sum: 100.0 }, Step::Log1p { base: None }];
    for method in [Method::TTest, Method::Wilcoxon] {
        let options = Options { method, tie_correct: true, pts: true, ..Options::default() };
        let mut found = Vec::new();
        for (threads, staged, memory) in [(1, false, PLENTY), (3, false, PLENTY), (2, true, PLENTY), (1, true, TIGHT)] {
            let stage = Stage::new(cut(9000).len(), &Allowance::new(PLENTY), None);
            let feed = Feed::new(&source, staged.then_some(&stage));
            let view = View { feed, values: &values, memory, ..of_all(&source) };
            let groups = Groups { codes: &codes, names: &names };
            found.push(on(threads, || rank_genes_groups(&view, &groups, &options, &())).unwrap());
        }
        found.iter().for_each(|f| assert_eq!(bits(f), bits(&found[0]), "{method:?}"));
        if method == Method::Wilcoxon {
            assert!(found[3].passes > 2, "{} passes", found[3].passes);
        }
        assert_eq!(found[3].reads, 1);
    }
}

#[test]
fn cells_that_are_dropped_count_nowhere() {
    let (source, codes) = cells(500);
    let names = names();
    let keep: Vec<bool> = (0..500).map(|i| i % 3 != 0).collect();
    let select = [Step::KeepObs { rows: Rows::Mask { keep: keep.clone(), first: 0 } }];
    let view = View { select: &select, ..of_all(&source) };
    let groups = Groups { codes: &codes, names: &names };
    let x = dense(&source.0);
    let found = on(2, || aggregate(&view, &groups, &[Func::Sum, Func::Mean, Func::Var, Func::CountNonzero], None, 1, &())).unwrap();
    for g in 0..3u32 {
        let members: Vec<&Vec<f64>> = (0..500).filter(|&i| keep[i] && codes[i] == g).map(|i| &x[i]).collect();
        let n = members.len() as f64;
        assert_eq!(found.n_obs[g as usize], members.len() as u64);
        for j in 0..N_VARS {
            let sum: f64 = members.iter().map(|row| row[j]).sum();
            let squares: f64 = members.iter().map(|row| (row[j] - sum / n).powi(2)).sum();
            let at = g as usize * N_VARS + j;
            assert_eq!(found.layers[0].1[at], sum);
            assert!((found.layers[1].1[at] - sum / n).abs() < 1e-12);
            assert!((found.layers[2].1[at] - squares / (n - 1.0)).abs() < 1e-9);
            assert_eq!(found.layers[3].1[at], members.iter().filter(|row| row[j] != 0.0).count() as f64);
        }
    }
    assert_eq!(view.sizes(&groups).unwrap()[..3], found.n_obs[..]);
}

#[test]
fn a_group_of_one_cell_is_refused_before_a_read() {
    let (source, mut codes) = cells(100);
    codes.iter_mut().filter(|c| **c == 1).skip(1).for_each(|c| *c = 0);
    let names = names();
    let view = of_all(&source);
    let error = on(1, || rank_genes_groups(&view, &Groups { codes: &codes, names: &names }, &Options::default(), &())).unwrap_err();
    assert_eq!(error.to_string(), "the group 'b' has 1 cell, but at least 2 are needed; choose others with --groups");
}

#[test]
fn residuals_are_those_of_the_formula() {
    let (source, _) = cells(300);
    let x = dense(&source.0);
    let genes: Vec<bool> = (0..N_VARS).map(|j| j % 3 == 0).collect();
    let chosen: Vec<usize> = (0..N_VARS).filter(|&j| genes[j]).collect();
    let select = [Step::KeepVar { mask: genes.clone() }];
    let view = View { select: &select, n_vars: chosen.len(), ..of_all(&source) };
    let mut found = Vec::new();
    let take = |rows: Vec<f32>| {
        found.extend(rows);
        Ok(())
    };
    on(2, || normalize_pearson_residuals(&view, 100.0, None, &(), take)).unwrap();
    let cells: Vec<f64> = x.iter().map(|row| chosen.iter().map(|&j| row[j]).sum()).collect();
    let all: f64 = cells.iter().sum();
    let clip = 300f64.sqrt();
    for (i, row) in x.iter().enumerate() {
        for (k, &j) in chosen.iter().enumerate() {
            let mu = cells[i] * x.iter().map(|r| r[j]).sum::<f64>() / all;
            let due = if mu > 0.0 { ((row[j] - mu) / (mu + mu * mu / 100.0).sqrt()).clamp(-clip, clip) } else { 0.0 };
            assert!((f64::from(found[i * chosen.len() + k]) - due).abs() < 1e-5 * (1.0 + due.abs()));
        }
    }
    let error = on(1, || normalize_pearson_residuals(&view, 0.0, None, &(), |_| Ok(()))).unwrap_err();
    assert!(error.to_string().starts_with("theta: 0"), "{error}");
}

#[test]
fn what_is_left_is_at_right_angles_to_what_explains() {
    let (source, _) = cells(400);
    let x = dense(&source.0);
    let depth: Vec<f64> = x.iter().map(|row| row.iter().sum()).collect();
    let day: Vec<f64> = (0..400).map(|i| f64::from(i % 5)).collect();
    let view = of_all(&source);
    let columns = [depth.clone(), day.clone()];
    let mut found: Vec<f32> = Vec::new();
    let take = |rows: Vec<f32>| {
        found.extend(rows);
        Ok(())
    };
    on(2, || regress_out(&view, Regressors::Numbers(&columns), &(), take)).unwrap();
    for j in 0..N_VARS {
        let left = |i: usize| f64::from(found[i * N_VARS + j]);
        for r in [&vec![1.0; 400], &depth, &day] {
            let product: f64 = (0..400).map(|i| left(i) * r[i]).sum();
            assert!(product.abs() < 1e-2, "gene {j}: {product}");
        }
    }
    let codes: Vec<u32> = (0..400).map(|i| i % 4).collect();
    let mut found: Vec<f32> = Vec::new();
    let take = |rows: Vec<f32>| {
        found.extend(rows);
        Ok(())
    };
    on(1, || regress_out(&view, Regressors::Categories(&codes), &(), take)).unwrap();
    for i in [0, 7, 399] {
        for j in 0..N_VARS {
            let mean = (0..400).filter(|k| k % 4 == i % 4).map(|k| x[k][j]).sum::<f64>() / 100.0;
            assert!((f64::from(found[i * N_VARS + j]) - (x[i][j] - mean)).abs() < 1e-5);
        }
    }
    let missing = [vec![f64::NAN; 400]];
    assert!(on(1, || regress_out(&view, Regressors::Numbers(&missing), &(), |_| Ok(()))).is_err());
}

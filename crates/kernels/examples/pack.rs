//! Times the codec of packed rows on one thread: `pack [SECONDS]`. Rows are like counts of 28,000 genes of which 2,000 are seen: gaps
//! and counts are geometric, a few are large.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use cellmill_kernels::pack::{pack, unpack, unpack_columns};
use cellmill_kernels::select::renumbering;
use cellmill_matrix::Csr;

const N_VARS: usize = 28_000;

/// Rows of a chunk.
fn rows(n: usize) -> Csr {
    let mut state = 1u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((state >> 33) as f64) + 0.5) / f64::from(1u32 << 31)
    };
    let mut x = Csr::empty(N_VARS);
    for _ in 0..n {
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        let mut column = (-uniform().ln() * 13.0) as usize;
        while column < N_VARS {
            columns.push(column as u32);
            let mean = if uniform() < 0.05 { 20.0 } else { 0.6 };
            values.push(1.0 + (-uniform().ln() * mean).floor() as f32);
            column += 1 + (-uniform().ln() * 13.0) as usize;
        }
        x.push_row(&columns, &values);
    }
    x
}

/// Repeats `work` for about `time` and prints the best of the rates that it reached.
fn time(what: &str, entries: usize, time: Duration, mut work: impl FnMut()) {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed() < time {
        let from = Instant::now();
        work();
        best = best.min(from.elapsed().as_secs_f64());
    }
    println!("{what:>16}: {:6.0} M entries/s at best", entries as f64 * 1e-6 / best);
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(2.0);
    let each = Duration::from_secs_f64(seconds);
    let x = rows(128);
    let (mut bytes, mut back) = (Vec::new(), Csr::default());
    time("pack", x.nnz(), each, || pack(&x, &mut bytes));
    println!("{:>16}  {:.2} bytes an entry", "", bytes.len() as f64 / x.nnz() as f64);
    time("unpack", x.nnz(), each, || unpack(&bytes, &mut back).unwrap_or_default());
    assert_eq!(back, x, "rows come back");
    let mask: Vec<bool> = (0..N_VARS).map(|j| j % 6 == 0).collect();
    let (map, n_kept) = renumbering(&mask);
    time("unpack a sixth", x.nnz(), each, || drop(unpack_columns(&bytes, &map, n_kept, &mut back)));
}

//! Times the eigensolver on a matrix like the covariance of highly variable genes: `eigen [GENES] [COMPONENTS]`. A few large eigenvalues
//! stand above a bulk whose upper edge falls off as that of noise (Marchenko and Pastur 1967).
#![allow(clippy::print_stdout)]

use std::time::Instant;

use cellmill_engine::host::eigen::top_eigenpairs;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let number = |i: usize, default: usize| std::env::args().nth(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (p, k) = (number(1, 5000), number(2, 100));
    let bulk = |i: usize| 1.0 + 0.25 * (1.0 - (i as f64 / p as f64).powf(2.0 / 3.0));
    let spectrum: Vec<f64> = (0..p).map(|i| if i < 30 { 60.0 / (1.0 + i as f64) } else { bulk(i) }).collect();
    let mut c = vec![0.0; p * p];
    (0..p).for_each(|i| c[i * (p + 1)] = spectrum[i]);
    let mut state = 7u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1u32 << 24) - 0.5
    };
    for _ in 0..3 {
        // A reflection on both sides keeps the eigenvalues.
        let v: Vec<f64> = (0..p).map(|_| uniform()).collect();
        let square: f64 = v.iter().map(|x| x * x).sum();
        let u: Vec<f64> = c.chunks_exact(p).map(|row| row.iter().zip(&v).map(|(a, b)| a * b).sum()).collect();
        let share = u.iter().zip(&v).map(|(a, b)| a * b).sum::<f64>() / square;
        let w: Vec<f64> = u.iter().zip(&v).map(|(u, v)| 2.0 * (u - share * v) / square).collect();
        for (i, row) in c.chunks_exact_mut(p).enumerate() {
            row.iter_mut().enumerate().for_each(|(j, x)| *x -= v[i] * w[j] + w[i] * v[j]);
        }
    }
    for threads in [1, 2, 16] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let from = Instant::now();
        let (values, _) = pool.install(|| top_eigenpairs(&c, p, k, &()))?;
        println!("{threads} threads: {:.2} s, the last value {:.9} of {:.9}", from.elapsed().as_secs_f64(), values[k - 1], spectrum[k - 1]);
    }
    Ok(())
}

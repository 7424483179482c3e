//! Neighbours on a GPU: `knn compile [80 90]` compiles the kernels with NVRTC alone; `knn CELLS [DIMENSIONS] [K]` finds neighbours of
//! cells in 30 clusters and compares 40 of them with plain loops.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../../graph/src/knn/cuda.rs"]
mod knn;

use std::process::ExitCode;
use std::time::Instant;

use cellmill_cuda::{Device, Options, compile};
use cellmill_matrix::Result;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let done = if args.first().is_some_and(|a| a == "compile") {
        let asked: Vec<u32> = args[1..].iter().filter_map(|a| a.parse().ok()).collect();
        knn::SOURCES
            .iter()
            .flat_map(|source| asked.iter().map(move |&c| (source, c)))
            .try_for_each(|(source, c)| compile(source, c).map(|image| println!("{} {c}: {} bytes", source.name, image.bytes().len())))
            .map(|()| true)
    } else {
        run(number(0, 100_000), number(1, 50), number(2, 14))
    };
    match done {
        Ok(fine) => ExitCode::from(u8::from(!fine)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(1)
        }
    }
}

/// Queries that are compared with plain loops.
const QUERIES: usize = 40;

fn run(n: usize, d: usize, k: usize) -> Result<bool> {
    let mut state = 7u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut normal = move || ((0..3).map(|_| uniform()).sum::<f32>() - 1.5) * 2.0;
    let spread = |t: usize| 12.0 / (1.0 + t as f32 * 0.5);
    let centres: Vec<f32> = (0..30 * d).map(|i| normal() * spread(i % d)).collect();
    let mut x = vec![0f32; n * d];
    for (i, row) in x.chunks_exact_mut(d).enumerate() {
        let centre = &centres[i * 7919 % 30 * d..][..d];
        row.iter_mut().zip(centre).for_each(|(x, c)| *x = c + normal());
    }
    let device = Device::open(&Options::default())?;
    let from = Instant::now();
    device.program(&knn::SOURCES[(d - 1) / 32])?;
    let compiled = from.elapsed().as_secs_f64();
    let mut times = Vec::new();
    let mut found = None;
    for _ in 0..2 {
        let from = Instant::now();
        let now = knn::neighbours(&device, &x, d, k, false, &())?;
        times.push(from.elapsed().as_secs_f64());
        if found.is_some() && found != now {
            println!("{{\"check\": \"knn again\", \"holds\": false}}");
            return Ok(false);
        }
        found = now;
    }
    let Some((ids, distances)) = found else {
        println!("{{\"knn\": \"not on this card\"}}");
        return Ok(false);
    };
    let (mut same, mut all, mut bits) = (0, 0, 0);
    for q in (0..n).step_by((n / QUERIES).max(1)) {
        let own = &x[q * d..(q + 1) * d];
        let mut keys: Vec<(u32, u32)> =
            (0..n).filter(|&i| i != q).map(|i| (distance(own, &x[i * d..(i + 1) * d]).to_bits(), i as u32)).collect();
        keys.select_nth_unstable(k - 1);
        keys.truncate(k);
        keys.sort_unstable();
        for (place, (bits_of, id)) in keys.iter().enumerate() {
            let span = q * k..(q + 1) * k;
            same += usize::from(ids[span.clone()].contains(id));
            bits += usize::from(distances[span.start + place].to_bits() == *bits_of);
            all += 1;
        }
    }
    let flops = 2.0 * (n as f64).powi(2) * d.next_multiple_of(32) as f64;
    println!(
        "{{\"knn\": {{\"cells\": {n}, \"d\": {d}, \"k\": {k}, \"compile_s\": {compiled:.3}, \"first_s\": {:.3}, \"again_s\": {:.3}, \"half_tflops\": {:.0}, \"recall\": {:.6}, \"distances_with_the_same_bits\": {:.6}}}}}",
        times[0],
        times[1],
        flops / times[1] / 1e12,
        same as f64 / all as f64,
        bits as f64 / all as f64,
    );
    Ok(same as f64 >= 0.999 * all as f64)
}

/// In the order of sums of the CPU.
fn distance(x: &[f32], y: &[f32]) -> f32 {
    let mut s = [0f32; 8];
    for (t, (x, y)) in x.iter().zip(y).enumerate() {
        s[t % 8] = (x - y).mul_add(x - y, s[t % 8]);
    }
    (((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))).sqrt()
}

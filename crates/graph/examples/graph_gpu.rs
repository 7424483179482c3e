//! Neighbours, layout and clusters on a GPU against the CPU: `gpu [CELLS]`. Prints JSON, one object a line; exit status 1 if they differ by more
//! than their contracts allow. Needs a GPU.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Instant;

use cellmill_cuda::{Device, Options, Processor};
use cellmill_graph::fuzzy::{Method, connectivities, connectivities_on};
use cellmill_graph::knn::{Metric, Mode, knn_on};
use cellmill_graph::leiden::{self, leiden_many, leiden_on};
use cellmill_graph::umap::umap_on;
use cellmill_graph::{Embedding, knn, umap};
use cellmill_matrix::Result;

fn main() -> ExitCode {
    let n = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(50_000);
    match all(n) {
        Ok(fine) => ExitCode::from(u8::from(!fine)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(1)
        }
    }
}

fn all(n: usize) -> Result<bool> {
    let gpu = Processor::Cuda(vec![Device::open(&Options::default())?]);
    let mut fine = true;
    let searches = [
        (50, 15, Metric::Euclidean),
        (20, 31, Metric::Cosine),
        (80, 10, Metric::Euclidean),
        (50, 15, Metric::SqEuclidean),
        (50, 15, Metric::Hellinger),
    ];
    for (d, k, metric) in searches {
        let mut x = cells(n.min(40_000), d);
        if metric == Metric::Hellinger {
            x.iter_mut().for_each(|x| *x = x.abs());
        }
        let exact = knn::Options { n_neighbors: k, mode: Mode::Exact, metric, seed: 0 };
        let here = knn_on(Embedding::new(&x, d)?, &exact, &Processor::Cpu, None, &())?.in_original_order();
        let there = knn_on(Embedding::new(&x, d)?, &exact, &gpu, None, &())?.in_original_order();
        let rows = here.indices.chunks(k - 1).zip(there.indices.chunks(k - 1));
        let found = rows.map(|(a, b)| b.iter().filter(|id| a.contains(id)).count()).sum::<usize>() as f64 / here.indices.len() as f64;
        let equal = here.distances.iter().zip(&there.distances).filter(|(a, b)| a.to_bits() == b.to_bits()).count();
        println!(
            "{{\"knn\": \"{metric:?}, {d} dimensions, {k} neighbours\", \"recall\": {found:.6}, \"equal_distances\": {:.6}}}",
            equal as f64 / here.distances.len() as f64
        );
        fine &= found >= 0.999;
    }
    let x = cells(n, 50);
    let mut times = Vec::new();
    let mut timed = |from: Instant| times.push(from.elapsed().as_secs_f64());
    let from = Instant::now();
    let found = knn_on(Embedding::new(&x, 50)?, &knn::Options::default(), &gpu, None, &())?;
    timed(from);
    let from = Instant::now();
    let graph = connectivities(&found.distances, Method::UMAP)?;
    timed(from);
    // The first call compiles.
    let there = connectivities_on(&found.distances, Method::UMAP, &gpu)?;
    let from = Instant::now();
    fine &= there == connectivities_on(&found.distances, Method::UMAP, &gpu)?;
    timed(from);
    println!("{{\"connectivities\": \"{n} cells\", \"same\": {}}}", graph == there);
    fine &= graph == there;
    for n_components in [2, 3] {
        let options = umap::Options { n_components, n_epochs: Some(if n_components == 2 { 200 } else { 20 }), ..umap::Options::default() };
        let from = Instant::now();
        let there = umap_on(&graph, &options, &gpu, &())?;
        timed(from);
        let from = Instant::now();
        let here = umap_on(&graph, &options, &Processor::Cpu, &())?;
        timed(from);
        let differ = here.iter().zip(&there).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        println!("{{\"umap\": \"{n} cells, {n_components} coordinates\", \"differ\": {differ}}}");
        fine &= differ == 0;
    }
    for resolution in [1.0, 30.0] {
        let options = leiden::Options::default();
        let from = Instant::now();
        let there = leiden_on(&graph, &[resolution], &options, &gpu, &())?.swap_remove(0);
        let there_s = from.elapsed().as_secs_f64();
        let from = Instant::now();
        let here = leiden_many(&graph, &[resolution], &options, &())?.swap_remove(0);
        println!(
            "{{\"leiden\": \"{n} cells, resolution {resolution}\", \"gpu\": {:.6}, \"cpu\": {:.6}, \"clusters_gpu\": {}, \"clusters_cpu\": {}, \"gpu_s\": {there_s:.3}, \"cpu_s\": {:.3}}}",
            there.modularity,
            here.modularity,
            there.n_clusters,
            here.n_clusters,
            from.elapsed().as_secs_f64()
        );
        fine &= there.modularity > here.modularity - 0.002;
    }
    println!(
        "{{\"cells\": {n}, \"knn_gpu_s\": {:.3}, \"connectivities_cpu_s\": {:.3}, \"connectivities_gpu_s\": {:.3}, \"umap_gpu_s\": {:.3}, \"umap_cpu_s\": {:.3}}}",
        times[0], times[1], times[2], times[3], times[4]
    );
    Ok(fine)
}

/// Rows in 30 clusters, spread as principal components are.
fn cells(n: usize, d: usize) -> Vec<f32> {
    let mut state = 7u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
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
    x
}

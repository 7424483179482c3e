//! Layout on a GPU: `umap compile [75 90]` compiles the kernels with NVRTC alone; `umap` compares a few epochs with the CPU's loops, bit
//! by bit, and times 200 epochs of 1.3 million cells.
#![allow(clippy::print_stdout, clippy::print_stderr, dead_code)]

#[path = "../../graph/src/umap/force.rs"]
mod force;
#[path = "../../graph/src/umap/cuda.rs"]
mod gpu;
#[path = "../../graph/src/umap/lanes.rs"]
mod lanes;
#[path = "../../graph/src/umap/random.rs"]
mod random;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use cellmill_cuda::{Device, Options, compile};
use cellmill_matrix::Result;
use force::{Forces, Job, Task};
use random::Use;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = if args.first().is_some_and(|a| a == "compile") {
        let asked: Vec<u32> = args[1..].iter().filter_map(|a| a.parse().ok()).collect();
        gpu::SOURCES
            .iter()
            .flat_map(|source| asked.iter().map(move |&c| (source, c)))
            .try_for_each(|(source, c)| compile(source, c).map(|image| println!("{} {c}: {} bytes", source.name, image.bytes().len())))
            .map(|()| true)
    } else {
        all()
    };
    match done {
        Ok(fine) => ExitCode::from(u8::from(!fine)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(1)
        }
    }
}

/// A graph of cells in 16 blocks: neighbours near by, a hub, weights of all sizes.
struct Graph {
    starts: Vec<usize>,
    indptr: Vec<u64>,
    targets: Vec<u32>,
    rates: Vec<u32>,
}

impl Graph {
    fn new(n: usize, degree: usize, hub: usize) -> Self {
        let starts = (0..=16).map(|b| b * n / 16).collect();
        let (mut indptr, mut targets, mut rates) = (vec![0u64], Vec::new(), Vec::new());
        for i in 0..n {
            let edges = if i == n / 3 {
                hub
            } else if i % 1001 == 0 {
                0
            } else {
                degree / 2 + i % (degree + 1)
            };
            for e in 0..edges {
                let draw = random::bits(1, Use::Start, i as u64, e as u64);
                targets.push(((i as u64 + draw % 4000) % n as u64) as u32);
                let weight = random::uniform(random::bits(2, Use::Start, i as u64, e as u64)).powi(2);
                rates.push((weight.max(0.005) * f64::from(1u32 << 31)) as u32);
            }
            indptr.push(targets.len() as u64);
        }
        Graph { starts, indptr, targets, rates }
    }

    fn edges(&self) -> gpu::Edges<'_> {
        gpu::Edges { starts: &self.starts, indptr: &self.indptr, targets: &self.targets, rates: &self.rates }
    }
}

fn plan(n_epochs: usize, pool: usize) -> gpu::Plan {
    gpu::Plan { a: 0.583_030, b: 1.334_167, gamma: 1.0, alpha: 1.0, negative_sample_rate: 5, n_epochs, seed: 42, pool }
}

fn start<const S: usize>(n: usize) -> Vec<[f32; S]> {
    let draw = |i: usize, c: usize| (random::uniform(random::bits(3, Use::Start, i as u64, c as u64)) * 20.0 - 10.0) as f32;
    (0..n).map(|i| std::array::from_fn(|c| draw(i, c))).collect()
}

fn all() -> Result<bool> {
    let device = Device::open(&Options::default())?;
    let from = Instant::now();
    gpu::SOURCES.iter().try_for_each(|source| device.program(source).map(drop))?;
    println!("{{\"umap_compile_s\": {:.3}}}", from.elapsed().as_secs_f64());
    let mut fine = same::<2>(&device, 5_000, 0)? & same::<4>(&device, 3_000, 0)? & same::<2>(&device, 20_000, 1 << 12)?;
    let n = 1_306_127;
    let graph = Graph::new(n, 20, 900);
    let mut times = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..2 {
        let mut points = start::<2>(n);
        let from = Instant::now();
        gpu::optimise(&device, &graph.edges(), &plan(200, 1 << 15), &mut points, 0..200, &())?;
        times.push(from.elapsed().as_secs_f64());
        ends.push(points);
    }
    fine &= ends[0] == ends[1];
    let epochs = 200.0 * graph.rates.iter().map(|&r| f64::from(r) / f64::from(1u32 << 31)).sum::<f64>();
    println!(
        "{{\"umap\": {{\"cells\": {n}, \"edges\": {}, \"epochs\": 200, \"first_s\": {:.3}, \"again_s\": {:.3}, \"forces_per_ns\": {:.1}, \"same_bits_again\": {}}}}}",
        graph.targets.len(),
        times[0],
        times[1],
        epochs * 7.0 / times[1] / 1e9,
        ends[0] == ends[1]
    );
    Ok(fine)
}

/// Twelve epochs here and there.
fn same<const S: usize>(device: &Arc<Device>, n: usize, pool: usize) -> Result<bool>
where
    [f32; S]: lanes::Point<S>,
{
    let graph = Graph::new(n, 14, 1300);
    let plan = plan(12, pool);
    let (mut there, mut here) = (start::<S>(n), start::<S>(n));
    gpu::optimise(device, &graph.edges(), &plan, &mut there, 0..12, &())?;
    for epoch in 0..12 {
        twin(&graph, &plan, &mut here, epoch);
    }
    let differ = there.as_flattened().iter().zip(here.as_flattened()).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    println!(
        "{{\"check\": \"umap {n} cells, {S} coordinates, pool {pool}\", \"holds\": {}, \"detail\": \"{differ} differ\"}}",
        differ == 0
    );
    Ok(differ == 0)
}

/// One epoch as layout.rs has it.
fn twin<const S: usize>(graph: &Graph, plan: &gpu::Plan, points: &mut [[f32; S]], epoch: usize)
where
    [f32; S]: lanes::Point<S>,
{
    let n = points.len();
    let alpha = plan.alpha * (1.0 - epoch.saturating_sub(1) as f32 / plan.n_epochs as f32);
    let forces = Forces { a: plan.a, b: plan.b, gamma: plan.gamma, alpha, negative_sample_rate: plan.negative_sample_rate };
    for (b, range) in graph.starts.windows(2).map(|w| w[0]..w[1]).enumerate() {
        let draw = |i: usize| {
            let bits = random::bits(plan.seed, Use::Pool, (epoch * 16 + b) as u64, i as u64);
            points[((u128::from(bits) * n as u128) >> 64) as usize]
        };
        let pool: Vec<[f32; S]> = if plan.pool > 0 { (0..plan.pool).map(draw).collect() } else { points.to_vec() };
        let mut moved = points[range.clone()].to_vec();
        let (mut jobs, mut targets) = (Vec::new(), Vec::new());
        for (slot, cell) in range.clone().enumerate() {
            let start = targets.len();
            let span = graph.indptr[cell] as usize..graph.indptr[cell + 1] as usize;
            let fires = |rate: u32| (rate.wrapping_mul(epoch as u32) & ((1 << 31) - 1)) < rate;
            let mut fired: Vec<u32> = span.filter(|&e| fires(graph.rates[e])).map(|e| graph.targets[e]).collect();
            if fired.len() > 512 {
                let turns = fired.len().div_ceil(512);
                let turn = random::bits(plan.seed, Use::Pool, u64::MAX - cell as u64, epoch as u64) as usize % turns;
                fired = fired.into_iter().skip(turn).step_by(turns).collect();
            }
            targets.extend(fired);
            if targets.len() > start {
                let key = random::bits(plan.seed, Use::Negatives, cell as u64, epoch as u64) as u32;
                jobs.push(Job { cell: cell as u32, start: start as u32, end: targets.len() as u32, key, slot: slot as u32 });
            }
        }
        let task = Task { forces, frozen: points, pool: &pool, pool_is_all: plan.pool == 0, jobs: &jobs, targets: &targets };
        force::run(&task, &mut moved);
        points[range].copy_from_slice(&moved);
    }
}

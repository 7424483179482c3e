//! Times each stage of the graph on one embedding and says how good its result is: `stages [key=value ...]`. Prints JSON, one object a line.
//!
//! Keys: cells (simulated, default 100000) or input (a .npy of f32, `(n, d)` in C order); d (dimensions, default 50; of a file, its first
//! so many); k (neighbours, the cell itself counted, default 15); threads (default 2); seed; through (knn, connectivities, umap or leiden,
//! default leiden); device (cpu or cuda, default cpu); quality (true or false, default true); epochs; resolution (several as 0.5,1); repeat (runs of each stage, default 1).
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::time::Instant;

use cellmill_cuda::{Device, Options, Processor};
use cellmill_graph::Embedding;
use cellmill_graph::fuzzy::{Method, connectivities_on};
use cellmill_graph::knn::{self, knn_on};
use cellmill_graph::leiden::{self, leiden_on};
use cellmill_graph::umap::{self, umap_on};
use rayon::prelude::*;

type Anything<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What was asked for.
struct Asked {
    cells: usize,
    input: Option<String>,
    d: usize,
    k: usize,
    threads: usize,
    seed: u64,
    through: String,
    device: String,
    quality: bool,
    epochs: Option<usize>,
    resolutions: Vec<f64>,
    repeat: usize,
}

fn main() -> Anything<()> {
    let mut asked = Asked {
        cells: 100_000,
        input: None,
        d: 50,
        k: 15,
        threads: 2,
        seed: 0,
        through: "leiden".into(),
        device: "cpu".into(),
        quality: true,
        epochs: None,
        resolutions: vec![1.0],
        repeat: 1,
    };
    for arg in std::env::args().skip(1) {
        match arg.split_once('=').ok_or("arguments are key=value")? {
            ("cells", v) => asked.cells = v.parse()?,
            ("input", v) => asked.input = Some(v.into()),
            ("d", v) => asked.d = v.parse()?,
            ("k", v) => asked.k = v.parse()?,
            ("threads", v) => asked.threads = v.parse()?,
            ("seed", v) => asked.seed = v.parse()?,
            ("through", v) => asked.through = v.into(),
            ("device", v) => asked.device = v.into(),
            ("quality", v) => asked.quality = v.parse()?,
            ("epochs", v) => asked.epochs = Some(v.parse()?),
            ("resolution", v) => asked.resolutions = v.split(',').map(str::parse).collect::<Result<Vec<f64>, _>>()?,
            ("repeat", v) => asked.repeat = v.parse()?,
            (key, _) => return Err(format!("unknown key {key}").into()),
        }
    }
    rayon::ThreadPoolBuilder::new().num_threads(asked.threads).build()?.install(|| all(&asked))
}

fn all(asked: &Asked) -> Anything<()> {
    let last = ["knn", "connectivities", "umap", "leiden"].iter().position(|&s| s == asked.through).ok_or("no such stage")?;
    let (x, d) = match &asked.input {
        Some(path) => read(path, asked.d)?,
        None => (cells(asked.cells, asked.d, asked.seed), asked.d),
    };
    let n = x.len() / d;
    println!("{{\"stage\": \"input\", \"cells\": {n}, \"d\": {d}, \"threads\": {}, \"rss_mib\": {:.0}}}", asked.threads, memory("VmRSS:"));
    let x = Embedding::new(&x, d)?;

    let processor = match asked.device.as_str() {
        "cpu" => Processor::Cpu,
        "cuda" => Processor::Cuda(vec![Device::open(&Options::default())?]),
        other => return Err(format!("no such device: {other}").into()),
    };

    let options = knn::Options { n_neighbors: asked.k, seed: asked.seed, ..knn::Options::default() };
    let found = timed("knn", asked, || Ok(knn_on(x, &options, &processor, None, &())?))?;
    if asked.quality {
        println!("{{\"quality\": \"knn\", \"recall\": {:.5}}}", recall(x, &found, 1000, asked.seed));
    }
    if last == 0 {
        return Ok(());
    }
    let graph = timed("connectivities", asked, || Ok(connectivities_on(&found.distances, Method::UMAP, &processor)?))?;
    println!("{{\"quality\": \"connectivities\", \"nnz\": {}}}", graph.indices.len());
    if last == 1 {
        return Ok(());
    }
    let options = umap::Options { n_epochs: asked.epochs, seed: asked.seed, ..umap::Options::default() };
    let layout = timed("umap", asked, || Ok(umap_on(&graph, &options, &processor, &())?))?;
    if asked.quality {
        let (kept, spearman) = faithful(x, &found, &layout, asked.seed)?;
        println!("{{\"quality\": \"umap\", \"knn_kept\": {kept:.4}, \"spearman\": {spearman:.4}}}");
    }
    if last == 2 {
        return Ok(());
    }
    let options = leiden::Options { seed: asked.seed, ..leiden::Options::default() };
    let clusters = timed("leiden", asked, || Ok(leiden_on(&graph, &asked.resolutions, &options, &processor, &())?))?;
    for (c, r) in clusters.iter().zip(&asked.resolutions) {
        println!(
            "{{\"quality\": \"leiden\", \"resolution\": {r}, \"modularity\": {:.6}, \"clusters\": {}, \"history\": {:?}}}",
            c.modularity, c.n_clusters, c.history
        );
    }
    Ok(())
}

/// Runs a stage, and says what it took: median and all wall-clock seconds, CPU seconds of all runs, and the highest memory meanwhile.
fn timed<T>(stage: &str, asked: &Asked, run: impl Fn() -> Anything<T>) -> Anything<T> {
    // Forgets the highest memory so far (proc(5), clear_refs).
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let mut seconds = Vec::new();
    let cpu = cpu_seconds();
    let mut result = None;
    for _ in 0..asked.repeat.max(1) {
        drop(result.take());
        let start = Instant::now();
        result = Some(run()?);
        seconds.push(start.elapsed().as_secs_f64());
    }
    let cpu = (cpu_seconds() - cpu) / seconds.len() as f64;
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    println!(
        "{{\"stage\": \"{stage}\", \"wall_s\": {:.3}, \"cpu_s\": {cpu:.2}, \"peak_rss_mib\": {:.0}, \"all_wall_s\": {seconds:.3?}}}",
        sorted[sorted.len() / 2],
        memory("VmHWM:")
    );
    result.ok_or_else(|| "the stage never ran".into())
}

/// User and system seconds of this process (Linux counts hundredths).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// A field of /proc/self/status in MiB.
fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|l| l.strip_prefix(field)).and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// The share of a sample's places that are as near as the true neighbours.
fn recall(x: Embedding, found: &knn::Knn, sample: usize, seed: u64) -> f64 {
    let (n, k) = (x.n(), found.distances.k);
    let rows: Vec<usize> = (0..sample.min(n)).map(|i| (bits(seed, 1, i as u64) % n as u64) as usize).collect();
    let hits: usize = rows
        .par_iter()
        .map(|&at| {
            let own = found.order[at] as usize;
            let mut all: Vec<f32> = (0..n).filter(|&j| j != own).map(|j| squared(x.row(own), x.row(j))).collect();
            let last = *all.select_nth_unstable_by(k - 1, f32::total_cmp).1;
            let limit = last.sqrt() * (1.0 + 1e-5);
            found.distances.distances[at * k..(at + 1) * k].iter().filter(|&&d| d <= limit).count()
        })
        .sum();
    hits as f64 / (rows.len() * k) as f64
}

/// The share of neighbours in the embedding that are neighbours in the layout (of a sample of cells), and Spearman's correlation of the
/// distances of 20,000 pairs.
fn faithful(x: Embedding, found: &knn::Knn, layout: &[f32], seed: u64) -> Anything<(f64, f64)> {
    let (n, k) = (x.n(), found.distances.k);
    let place = Embedding::new(layout, 2)?;
    let rows: Vec<usize> = (0..1000.min(n)).map(|i| (bits(seed, 2, i as u64) % n as u64) as usize).collect();
    let kept: usize = rows
        .par_iter()
        .map(|&at| {
            let mut all: Vec<(f32, u32)> = (0..n).filter(|&j| j != at).map(|j| (squared(place.row(at), place.row(j)), j as u32)).collect();
            all.select_nth_unstable_by(k - 1, |a, b| a.0.total_cmp(&b.0));
            let known = &found.distances.indices[at * k..(at + 1) * k];
            all[..k].iter().filter(|(_, j)| known.contains(j)).count()
        })
        .sum();
    let pairs: Vec<(f32, f32)> = (0..20_000u64)
        .map(|i| {
            let (a, b) = ((bits(seed, 3, i) % n as u64) as usize, (bits(seed, 4, i) % n as u64) as usize);
            let (p, q) = (found.order[a] as usize, found.order[b] as usize);
            (squared(x.row(p), x.row(q)), squared(place.row(a), place.row(b)))
        })
        .collect();
    let rank = |of: &dyn Fn(&(f32, f32)) -> f32| {
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by(|&a, &b| of(&pairs[a]).total_cmp(&of(&pairs[b])));
        let mut ranks = vec![0.0f64; pairs.len()];
        order.iter().enumerate().for_each(|(r, &i)| ranks[i] = r as f64);
        ranks
    };
    let (a, b) = (rank(&|p| p.0), rank(&|p| p.1));
    let mean = (pairs.len() as f64 - 1.0) / 2.0;
    let product: f64 = a.iter().zip(&b).map(|(a, b)| (a - mean) * (b - mean)).sum();
    let square: f64 = a.iter().map(|a| (a - mean) * (a - mean)).sum();
    Ok((kept as f64 / (rows.len() * k) as f64, product / square))
}

fn squared(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// Random bits of (seed, what, where): splitmix64's finaliser.
fn bits(seed: u64, what: u64, at: u64) -> u64 {
    let mut z = seed.wrapping_mul(0xd134_2543_de82_ef95) ^ what.wrapping_mul(0x2545_f491_4f6c_dd1d);
    for word in [what, at] {
        z = z.wrapping_add(word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    z
}

fn normal(seed: u64, what: u64, at: u64) -> f32 {
    let b = bits(seed, what, at);
    let radius = ((b >> 32) as f64 + 1.0) / 4_294_967_296.0;
    ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * (b & 0xffff_ffff) as f64 / 4_294_967_296.0).cos()) as f32
}

/// Cells as principal components show them: 30 types of different sizes in families, each spread along three curved directions of its
/// own, and noise in every dimension, which is all that the later dimensions hold.
fn cells(n: usize, d: usize, seed: u64) -> Vec<f32> {
    const TYPES: usize = 30;
    const SIGNAL: usize = 20;
    let spread = |t: usize| if t < SIGNAL { 8.0 / (1.0 + 0.27 * t as f32) } else { 0.0 };
    let centres: Vec<f32> = (0..TYPES * d)
        .map(|at| {
            let (kind, t) = (at / d, at % d);
            let family = normal(seed, 10, (kind / 4 * d + t) as u64);
            (family + 0.6 * normal(seed, 11, at as u64)) * spread(t)
        })
        .collect();
    // Three directions a type, and how each bends.
    let axis = |kind: usize, which: usize, t: usize| normal(seed, 12, ((kind * 6 + which) * d + t) as u64) * spread(t) * 0.3;
    let axes: Vec<f32> = (0..TYPES * 6 * d).map(|at| axis(at / (6 * d), at / d % 6, at % d)).collect();
    let mut x = vec![0f32; n * d];
    x.par_chunks_mut(d).enumerate().for_each(|(i, row)| {
        let i = i as u64;
        // Type t holds a share that falls with t.
        let u = (bits(seed, 13, i) >> 11) as f64 / (1u64 << 53) as f64;
        let kind = ((TYPES as f64) * u * u) as usize;
        let along: [f32; 3] = std::array::from_fn(|a| normal(seed, 14 + a as u64, i));
        for (t, x) in row.iter_mut().enumerate() {
            let at = |which: usize| axes[(kind * 6 + which) * d + t];
            let curve: f32 = (0..3).map(|a| along[a] * at(a) + (along[a] * along[a] - 1.0) * 0.4 * at(3 + a)).sum();
            *x = centres[kind * d + t] + curve + normal(seed, 20 + t as u64, i);
        }
    });
    x
}

/// A .npy file of f32 in C order: the first `d` columns.
fn read(path: &str, d: usize) -> Anything<(Vec<f32>, usize)> {
    let bytes = std::fs::read(path)?;
    let header = bytes.get(10..).ok_or("the file is too short")?;
    let length = if bytes[6] == 1 { u16::from_le_bytes([bytes[8], bytes[9]]) as usize } else { return Err("npy version 1 is read".into()) };
    let text = std::str::from_utf8(&header[..length])?;
    if !text.contains("'<f4'") || !text.contains("'fortran_order': False") {
        return Err(format!("f32 in C order is read, not {text}").into());
    }
    let shape = text.split_once("'shape': (").and_then(|(_, t)| t.split_once(')')).ok_or("no shape")?.0;
    let shape: Vec<usize> = shape.split(',').filter(|t| !t.trim().is_empty()).map(|t| t.trim().parse()).collect::<Result<_, _>>()?;
    let [_, wide] = shape[..] else { return Err("a matrix is read".into()) };
    let d = d.min(wide);
    let values: Vec<f32> = header[length..].as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    Ok((values.chunks_exact(wide).flat_map(|row| row[..d].iter().copied()).collect(), d))
}

//! The k nearest other cells of each cell.
//!
//! `exact` compares all pairs. `accurate` and `fast` cut the cells into lists of near ones, renumber the cells by list, search for
//! each cell the few lists nearest to it, and repair what lies across borders by neighbours of neighbours. How many lists are
//! searched is decided by the recall on a sample of cells whose neighbours are found exactly, so hard data cost more time and
//! not quality.

mod cuda;
mod descent;
mod exact;
mod join;
mod kernel;
mod lists;
mod means;
mod progress;
mod rank;
mod scan;
mod tune;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use cellmill_cuda::{Device, Processor};
use cellmill_matrix::{Error, Place, Result, Watch};
use rayon::prelude::*;

pub(crate) use self::cuda::SOURCES;
use self::kernel::Simd;
use self::progress::Progress;
use self::tune::Sample;
use crate::{Distances, Embedding};

/// How hard to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All pairs are compared.
    Exact,
    /// Recall of at least 0.99; exact on small data.
    #[default]
    Accurate,
    /// Recall of at least 0.95; exact on small data.
    Fast,
}

/// What near means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// `sqrt(Σ (x − y)²)`.
    #[default]
    Euclidean,
    /// `1 − x·y / (|x| |y|)`; a row of zeros is at distance 1 from every other row.
    Cosine,
}

impl Metric {
    /// The distance for a squared Euclidean distance (of rows of length 1 for the cosine: `1 − cos = |x − y|² / 2`).
    fn distance(self, squared: f32) -> f32 {
        match self {
            Metric::Euclidean => squared.sqrt(),
            Metric::Cosine => 0.5 * squared,
        }
    }

    /// The squared Euclidean distance for a distance.
    fn squared(self, distance: f32) -> f64 {
        match self {
            Metric::Euclidean => f64::from(distance) * f64::from(distance),
            Metric::Cosine => 2.0 * f64::from(distance),
        }
    }
}

/// What neighbours are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Neighbours of a cell, the cell itself counted, as in scanpy (default 15: 14 others a row). From 1 to the number of cells;
    /// more make the graph smoother and every later stage slower.
    pub n_neighbors: usize,
    /// How hard to look (default accurate).
    pub mode: Mode,
    /// What near means (default Euclidean).
    pub metric: Metric,
    /// Decides where lists start and which cells are sampled (default 0). Same seed, same bits.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { n_neighbors: 15, mode: Mode::default(), metric: Metric::default(), seed: 0 }
    }
}

/// Neighbours, with the cells renumbered so that near cells have near numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Knn {
    /// The cell at each position: `(n,)`, a permutation; the identity where all pairs were compared.
    pub order: Vec<u32>,
    /// Rows and indices are positions, not cells.
    pub distances: Distances,
}

impl Knn {
    /// Rows and indices as cells; rows ascending by (distance, cell).
    pub fn in_original_order(self) -> Distances {
        let Knn { order, distances: Distances { k, indices, distances } } = self;
        if k == 0 || order.iter().enumerate().all(|(at, &cell)| at == cell as usize) {
            return Distances { k, indices, distances };
        }
        let mut position = vec![0u32; order.len()];
        order.iter().zip(0..).for_each(|(&cell, at)| position[cell as usize] = at);
        let mut out = Distances { k, indices: vec![0; indices.len()], distances: vec![0.0; distances.len()] };
        out.indices.par_chunks_mut(k).zip(out.distances.par_chunks_mut(k)).zip(&position).for_each_init(
            Vec::new,
            |keys, ((ids, values), &at)| {
                let span = at as usize * k..(at as usize + 1) * k;
                keys.clear();
                keys.extend(indices[span.clone()].iter().zip(&distances[span]).map(|(&id, &d)| scan::key(d, order[id as usize])));
                keys.sort_unstable();
                exact::emit(keys, ids, values);
            },
        );
        out
    }
}

/// Up to this many cells, comparing all pairs is the faster way to 0.99.
const ALL_PAIRS: usize = 16_384;
/// Up to this many cells, a GPU that compares all pairs is faster than a search in lists.
const MOST_ON_GPU: usize = 6_000_000;
/// Largest magnitude of a coordinate: its square, times any number of dimensions in use, is finite in f32.
const LARGEST: f32 = 1e17;

/// Finds the `n_neighbors − 1` nearest other cells of each cell of `x`, `(n, d)`.
///
/// Distances are f32, `Σ (x − y)²` in a fixed order of sums, so equal rows are at distance 0; each row ascends by (distance,
/// position). The result has the same bits for any number of threads.
pub fn knn(x: Embedding, options: &Options, watch: &dyn Watch) -> Result<Knn> {
    knn_on(x, options, &Processor::Cpu, watch)
}

/// [`knn`] on a processor. A GPU compares all pairs (up to 6 million cells), so its recall is that of `exact` but for ties.
pub fn knn_on(x: Embedding, options: &Options, processor: &Processor, watch: &dyn Watch) -> Result<Knn> {
    run(&Engine { simd: Simd::detect(), processor, all_pairs: ALL_PAIRS }, x, options, watch)
}

/// What searches.
struct Engine<'a> {
    simd: Simd,
    processor: &'a Processor,
    /// Up to so many cells the CPU compares all pairs.
    all_pairs: usize,
}

/// [`knn`] by an engine.
fn run(engine: &Engine<'_>, x: Embedding, options: &Options, watch: &dyn Watch) -> Result<Knn> {
    let n = x.n();
    if options.n_neighbors == 0 || options.n_neighbors > n {
        return Err(Error::option(
            "n_neighbors",
            options.n_neighbors,
            format!("there are {n} cells, and a cell counts as its own neighbour: 1..={n}"),
        ));
    }
    if n >= 1 << 31 {
        return Err(Error::invalid(Place::default(), format!("{n} cells"), "neighbours can be found for up to 2147483647"));
    }
    check(x)?;
    let k = options.n_neighbors - 1;
    if k == 0 {
        return Ok(Knn { order: (0..n as u32).collect(), distances: Distances { k, indices: Vec::new(), distances: Vec::new() } });
    }
    match options.metric {
        Metric::Euclidean => search(engine, x, k, options, watch),
        Metric::Cosine => {
            let (rows, d, zero) = normalised(x);
            let mut found = search(engine, Embedding { data: &rows, d }, k, options, watch)?;
            drop(rows);
            level(&mut found, &zero);
            Ok(found)
        }
    }
}

/// Neighbours of rows as they are.
fn search(engine: &Engine<'_>, x: Embedding, k: usize, options: &Options, watch: &dyn Watch) -> Result<Knn> {
    let (n, metric, simd) = (x.n(), options.metric, engine.simd);
    if let Some(device) = engine.processor.device().filter(|_| n <= MOST_ON_GPU)
        && let Some(found) = on_gpu(device, simd, x, k, options, watch)?
    {
        return Ok(found);
    }
    if options.mode == Mode::Exact || n <= engine.all_pairs {
        let progress = Progress::new(watch, n as u64);
        let distances = exact::neighbours(simd, x, k, metric, &progress)?;
        return Ok(Knn { order: (0..n as u32).collect(), distances });
    }
    // Lists, sample, join and one repair pass over all cells.
    let progress = Progress::new(watch, 4 * n as u64);
    let lists = lists::cut(simd, x, options.seed, &progress)?;
    let rows = lists::gather(x, &lists.order);
    let x = Embedding { data: &rows, d: x.d };
    let list_of = lists.of_position();
    let sample = Sample::new(simd, x, k, metric, options.seed, &progress)?;
    let coverage = sample.coverage(simd, x, &lists, &list_of);

    let Goal { mut join, recall } = Goal::of(options.mode);
    let mut probes = lists.enough(k);
    loop {
        probes = probes.max(coverage.partition_point(|&share| share < join) + 1).min(lists.len());
        let mut joined = join::join(simd, x, &lists, k, probes, metric, &progress)?;
        let mut changed = vec![true; n];
        let mut found = sample.recall(&joined.distances);
        while found < recall {
            let updates = descent::pass(simd, x, &mut joined, &list_of, &mut changed, metric, &progress)?;
            found = sample.recall(&joined.distances);
            if (updates as f64) < STALLED * (n * k) as f64 {
                break;
            }
        }
        if found >= recall || probes == lists.len() {
            return Ok(Knn { order: lists.order, distances: joined.distances });
        }
        // The repair did not reach what is left: search so many lists that half as much is.
        probes += 1;
        join = 0.5 * (1.0 + join);
    }
}

/// All pairs on a GPU, the cells in the order in which the CPU would search them; `None` if they are beyond its kernels.
fn on_gpu(device: &Arc<Device>, simd: Simd, x: Embedding, k: usize, options: &Options, watch: &dyn Watch) -> Result<Option<Knn>> {
    let halve = options.metric == Metric::Cosine;
    let (order, rows) = if x.n() <= ALL_PAIRS {
        ((0..x.n() as u32).collect(), x.data.to_vec())
    } else {
        let lists = lists::cut(simd, x, options.seed, &Progress::new(watch, 4 * x.n() as u64))?;
        let rows = lists::gather(x, &lists.order);
        (lists.order, rows)
    };
    let found = cuda::neighbours(device, &rows, x.d, k, halve, watch)?;
    Ok(found.map(|(indices, distances)| Knn { order, distances: Distances { k, indices, distances } }))
}

/// What a mode must reach.
struct Goal {
    /// Share of the sample's neighbours that lie in the lists searched.
    join: f64,
    /// Recall of the sample after the repair: the mode's promise and two standard errors of the sample's recall.
    recall: f64,
}

impl Goal {
    fn of(mode: Mode) -> Self {
        match mode {
            // 0.986 in the lists becomes 0.993 to 0.996 by one repair pass, which costs as much as three more lists.
            Mode::Accurate | Mode::Exact => Goal { join: 0.986, recall: 0.993 },
            // No repair as a rule.
            Mode::Fast => Goal { join: 0.965, recall: 0.957 },
        }
    }
}

/// A repair pass that replaces a smaller share of the neighbours is the last.
const STALLED: f64 = 0.005;

/// Refuses what is not a finite number of a sensible size.
fn check(x: Embedding) -> Result<()> {
    let bad = x.data.par_chunks(65_536).enumerate().find_map_first(|(part, values)| {
        values.iter().position(|value| value.is_nan() || value.abs() > LARGEST).map(|at| part * 65_536 + at)
    });
    bad.map_or(Ok(()), |at| {
        let (cell, dimension) = (at / x.d, at % x.d);
        let place = Place::default().rows(cell as u64..cell as u64 + 1);
        Err(Error::invalid(
            place,
            format!("{} in dimension {dimension} of cell {cell}", x.data[at]),
            format!("coordinates are finite, up to {LARGEST:e}"),
        ))
    })
}

/// Rows of length 1, and which rows were zero. If any was, the rows get one more coordinate, 1 for the rows of zeros: these are
/// then at `|x − y|² / 2 = 1` from all others.
fn normalised(x: Embedding) -> (Vec<f32>, usize, Vec<u32>) {
    let zero: Vec<u32> = (0..x.n() as u32).into_par_iter().filter(|&at| x.row(at as usize).iter().all(|&x| x == 0.0)).collect();
    let d = x.d + usize::from(!zero.is_empty());
    let mut rows = vec![0f32; x.n() * d];
    rows.par_chunks_mut(d).zip(x.data.par_chunks(x.d)).for_each(|(out, row)| {
        let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if norm > 0.0 {
            out.iter_mut().zip(row).for_each(|(out, &x)| *out = (f64::from(x) / norm) as f32);
        } else {
            out[d - 1] = 1.0;
        }
    });
    (rows, d, zero)
}

/// Gives the rows of zeros (cells `zero`, ascending) their neighbours: all others are at distance 1, so the first by number.
fn level(found: &mut Knn, zero: &[u32]) {
    if zero.is_empty() {
        return;
    }
    let k = found.distances.k;
    let mut position = vec![0u32; found.order.len()];
    found.order.iter().zip(0..).for_each(|(&cell, at)| position[cell as usize] = at);
    for &cell in zero {
        let at = position[cell as usize] as usize;
        let mut ids: Vec<u32> = (0..=k as u32).filter(|&other| other != cell).take(k).map(|other| position[other as usize]).collect();
        ids.sort_unstable();
        found.distances.indices[at * k..(at + 1) * k].copy_from_slice(&ids);
        found.distances.distances[at * k..(at + 1) * k].fill(1.0);
    }
}

//! The k nearest other cells of each cell.
//!
//! `exact` compares all pairs, as is always done for metrics that are no function of the Euclidean distance. `accurate` and `fast` cut the
//! cells into lists of near ones, renumber the cells by list, search for each cell the few lists nearest to it, and repair what lies across
//! borders by neighbours of neighbours. How many lists are searched is decided by the recall on a sample of cells whose neighbours are found
//! exactly, so hard data cost more time and not quality.

mod crew;
mod cuda;
mod descent;
mod exact;
mod join;
mod kernel;
mod lists;
mod means;
mod metric;
mod pairs;
mod parts;
mod progress;
mod rank;
mod rows;
mod scan;
mod tune;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use cellmill_cuda::{Device, Processor};
use cellmill_matrix::{Error, Place, Result, Watch};
use rayon::prelude::*;

pub use self::crew::{Crew, Found, Order};
use self::cuda::Visits;
pub(crate) use self::cuda::{SOURCES, USUAL};
use self::join::{Joined, Reach};
use self::kernel::Simd;
pub use self::metric::Metric;
use self::metric::{Scale, Turned};
use self::parts::Cells;
use self::progress::Progress;
use self::rows::Shelf;
pub use self::rows::{RowFile, Rows};
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

/// What neighbours are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
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
        let Knn { order, distances } = self;
        if order.iter().enumerate().all(|(at, &cell)| at == cell as usize) {
            return distances;
        }
        let position = inverse(&order);
        renumbered(&distances, &position, &order)
    }
}

/// Where each cell is in an order.
fn inverse(order: &[u32]) -> Vec<u32> {
    let mut position = vec![0u32; order.len()];
    order.iter().zip(0..).for_each(|(&cell, at)| position[cell as usize] = at);
    position
}

/// Rows `from`, in this order, with every `id` called `names[id]`; rows ascend again.
fn renumbered(Distances { k, indices, distances }: &Distances, from: &[u32], names: &[u32]) -> Distances {
    let k = *k;
    let mut out = Distances { k, indices: vec![0; indices.len()], distances: vec![0.0; distances.len()] };
    if k == 0 {
        return out;
    }
    out.indices.par_chunks_mut(k).zip(out.distances.par_chunks_mut(k)).zip(from).for_each_init(Vec::new, |keys, ((ids, values), &at)| {
        let span = at as usize * k..(at as usize + 1) * k;
        keys.clear();
        keys.extend(indices[span.clone()].iter().zip(&distances[span]).map(|(&id, &d)| scan::key(d, names[id as usize])));
        keys.sort_unstable();
        exact::emit(keys, ids, values);
    });
    out
}

/// Up to this many cells, comparing all pairs is the faster way to 0.99.
pub const ALL_PAIRS: usize = 16_384;
/// Up to this many cells, a GPU that compares all pairs is faster than one that searches in lists, which the CPU cuts.
const ALL_PAIRS_ON_GPU: usize = 2_000_000;

/// Finds the `n_neighbors − 1` nearest other cells of each cell of `x`, `(n, d)`.
///
/// Distances are f32, `Σ (x − y)²` in a fixed order of sums, so equal rows are at distance 0; each row ascends by (distance,
/// position). The result has the same bits for any number of threads.
pub fn knn(x: Embedding, options: &Options, watch: &dyn Watch) -> Result<Knn> {
    knn_on(x, options, &Processor::Cpu, None, watch)
}

/// [`knn`] on a processor. A GPU compares all pairs of up to 2 million cells, and of any number with `exact`: its recall is that of `exact`
/// then but for ties. Of more it searches in lists, and in more of them than the CPU does, so that no repair is needed.
/// A crew gets the lists where this process has no GPU; what is found has the bits that CPUs, or GPUs, find in one process.
pub fn knn_on(x: Embedding, options: &Options, processor: &Processor, crew: Option<&dyn Crew>, watch: &dyn Watch) -> Result<Knn> {
    run(&Engine { processor, crew, ..Engine::new() }, x, options, watch)
}

/// What searches.
#[derive(Clone, Copy)]
struct Engine<'a> {
    simd: Simd,
    processor: &'a Processor,
    crew: Option<&'a dyn Crew>,
    /// Up to so many cells the CPU compares all pairs.
    all_pairs: usize,
    /// And up to so many a GPU.
    all_pairs_on_gpu: usize,
}

impl Engine<'_> {
    /// This process and its threads.
    fn new() -> Self {
        let (simd, processor) = (Simd::detect(), &Processor::Cpu);
        Engine { simd, processor, crew: None, all_pairs: ALL_PAIRS, all_pairs_on_gpu: ALL_PAIRS_ON_GPU }
    }
}

/// [`knn`] for rows that are never held together: they are put in order in temporary files in `scratch`, and the search reads the lists
/// that it compares. The same bits as [`knn`]'s on the CPU.
pub fn knn_streamed(rows: &dyn Rows, options: &Options, scratch: &Path, crew: Option<&dyn Crew>, watch: &dyn Watch) -> Result<Knn> {
    stream(&Engine { crew, ..Engine::new() }, rows, options, scratch, watch)
}

/// [`knn_streamed`] by an engine.
fn stream(engine: &Engine<'_>, rows: &dyn Rows, options: &Options, scratch: &Path, watch: &dyn Watch) -> Result<Knn> {
    let (n, d) = (rows.n(), rows.d());
    check_sizes(n, options)?;
    let Some(scale) = options.metric.scale().filter(|_| n > engine.all_pairs && options.mode != Mode::Exact) else {
        // All pairs are compared with everything at hand.
        let mut data = vec![0.0; n * d];
        rows.copy(0, &mut data)?;
        return run(engine, Embedding::of(&data, d), options, watch);
    };
    let turn = options.metric.turn();
    const BLOCK: usize = 1 << 12;
    let block = |at: usize| -> Result<Vec<u32>> {
        let mut data = vec![0.0; BLOCK.min(n - at * BLOCK) * d];
        rows.copy(at * BLOCK, &mut data)?;
        let x = Embedding::of(&data, d);
        check(x, at * BLOCK, options.metric)?;
        Ok(turn.map_or_else(Vec::new, |turn| turn.blanks(x)).into_iter().map(|row| row + (at * BLOCK) as u32).collect())
    };
    let blank: Vec<Vec<u32>> = (0..n.div_ceil(BLOCK)).into_par_iter().map(block).collect::<Result<_>>()?;
    let k = options.n_neighbors - 1;
    if k == 0 {
        return Ok(nobody(n));
    }
    match turn {
        None => by_lists(engine, Cells::Stream(rows, scratch), k, scale, options, watch),
        Some(turn) => {
            let blank = blank.concat();
            let rows = Turned { rows, turn, wider: !blank.is_empty() };
            let mut found = by_lists(engine, Cells::Stream(&rows, scratch), k, scale, options, watch)?;
            if turn.levels() {
                level(&mut found, &blank);
            }
            Ok(found)
        }
    }
}

/// Refuses what no search can do.
fn check_sizes(n: usize, options: &Options) -> Result<()> {
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
    Ok(())
}

/// No neighbours.
fn nobody(n: usize) -> Knn {
    Knn { order: (0..n as u32).collect(), distances: Distances { k: 0, indices: Vec::new(), distances: Vec::new() } }
}

/// [`knn`] by an engine.
fn run(engine: &Engine<'_>, x: Embedding, options: &Options, watch: &dyn Watch) -> Result<Knn> {
    let n = x.n();
    check_sizes(n, options)?;
    check(x, 0, options.metric)?;
    let k = options.n_neighbors - 1;
    if k == 0 {
        return Ok(nobody(n));
    }
    match options.metric.turn() {
        None => search(engine, x, k, options, watch),
        Some(turn) => {
            let blank = turn.blanks(x);
            let rows = Turned { rows: &x, turn, wider: !blank.is_empty() };
            let d = rows.d();
            let mut data = vec![0f32; n * d];
            data.par_chunks_mut(4096 * d).enumerate().try_for_each(|(at, out)| rows.copy(at * 4096, out))?;
            let mut found = search(engine, Embedding::of(&data, d), k, options, watch)?;
            drop(data);
            if turn.levels() {
                level(&mut found, &blank);
            }
            Ok(found)
        }
    }
}

/// Neighbours of rows as they are.
fn search(engine: &Engine<'_>, x: Embedding, k: usize, options: &Options, watch: &dyn Watch) -> Result<Knn> {
    let (n, simd) = (x.n(), engine.simd);
    let Some(scale) = options.metric.scale() else {
        let distances = pairs::neighbours(x, k, options.metric, &Progress::new(watch, n as u64))?;
        return Ok(Knn { order: nobody(n).order, distances });
    };
    let devices = engine.processor.devices();
    let mut engine = *engine;
    if !devices.is_empty() && (n <= engine.all_pairs_on_gpu || options.mode == Mode::Exact) {
        if let Some(found) = on_gpu(devices, simd, x, k, scale, options.seed, watch)? {
            return Ok(found);
        }
        engine.processor = &Processor::Cpu;
    }
    if options.mode == Mode::Exact || n <= engine.all_pairs {
        let progress = Progress::new(watch, n as u64);
        let rows = if x.whole().is_none() { lists::gather(x, &nobody(n).order) } else { Vec::new() };
        let x = if rows.is_empty() { x } else { Embedding::of(&rows, x.d) };
        let distances = exact::neighbours(simd, x, k, scale, &progress)?;
        return Ok(Knn { order: (0..n as u32).collect(), distances });
    }
    by_lists(&engine, Cells::Memory(x), k, scale, options, watch)
}

/// Neighbours by lists: sample, join and repair.
fn by_lists(engine: &Engine<'_>, cells: Cells<'_>, k: usize, scale: Scale, options: &Options, watch: &dyn Watch) -> Result<Knn> {
    let (n, simd) = (cells.n(), engine.simd);
    // Lists, sample, join and one repair pass over all cells.
    let progress = Progress::new(watch, 4 * n as u64);
    let (mut lists, parts) = lists::cut(simd, cells, options.seed, &progress)?;
    let (rows, file);
    let x = match cells {
        Cells::Memory(x) => {
            drop(parts);
            rows = lists::gather(x, &lists.order);
            Shelf::Memory(Embedding::of(&rows, x.d))
        }
        Cells::Stream(_, scratch) => {
            let mut position = vec![0u32; n];
            lists.order.iter().zip(0..).for_each(|(&cell, at)| position[cell as usize] = at);
            let of_place: Vec<u32> = parts.cells.iter().map(|&cell| position[cell as usize]).collect();
            drop(position);
            file = parts.in_order(&of_place, scratch)?;
            Shelf::File(&file)
        }
    };
    let list_of = lists.of_position();
    let sample = Sample::new(simd, x, k, scale, options.seed, &progress)?;

    let Goal { mut join, near, recall } = Goal::of(options.mode);
    let survey = sample.survey(simd, x, &lists, &list_of)?;
    let mut least = LOOK.max(2 * lists.enough(k));
    let mut wide = if n <= engine.all_pairs_on_gpu { lists.len() } else { survey.near(near) };
    let devices = engine.processor.devices();
    // What GPUs have begun, they go on with; what they can't do, they are not asked for again.
    let mut on_gpus = true;
    let mut joined = Joined::nothing(n, k);
    loop {
        let reach = survey.reach(join);
        let width = survey.width(reach).max(least).min(lists.len());
        wide = wide.max(width).min(lists.len());
        let theirs = on_gpus;
        on_gpus = theirs && !devices.is_empty() && join::wide(devices, simd, x, &lists, wide, &mut joined, scale, &progress)?;
        match engine.crew {
            _ if on_gpus => {}
            Some(crew) if theirs => {
                let order = Order { lists, k, width, reach, wide, scale };
                on_gpus = join::dealt(crew, simd, x, &order, &mut joined, &progress)?;
                lists = order.lists;
            }
            _ => join::join(simd, x, &lists, &mut joined, Reach { width, reach }, scale, &progress)?,
        }
        let before = sample.recall(&joined.distances);
        if on_gpus && before < recall && wide < lists.len() {
            // To look at twice as many is less than the repair.
            wide *= 2;
            continue;
        }
        let mut found = before;
        if before < recall {
            descent::pass(simd, x, &mut joined, &list_of, scale, &progress)?;
            found = sample.recall(&joined.distances);
        }
        if found >= recall || width == lists.len() && reach == f32::INFINITY || on_gpus && wide == lists.len() {
            return Ok(Knn { order: lists.order, distances: joined.distances });
        }
        // The repair did not reach what is left: find so much that what it leaves is little enough, three tenths of the rest at least.
        least = 2 * width;
        let left = (1.0 - found) / (1.0 - before).max(f64::EPSILON);
        let needed = 1.0 - 0.9 * (1.0 - recall) / left.max(f64::EPSILON);
        join = if join > 0.999 { 1.0 } else { needed.max(0.3 + 0.7 * join) };
    }
}

/// All pairs on a GPU; `None` if they are beyond its kernels. The CPU meanwhile cuts the cells into lists, as its own search would: what
/// comes after the search is faster where near cells have near numbers.
fn on_gpu(devices: &[Arc<Device>], simd: Simd, x: Embedding, k: usize, scale: Scale, seed: u64, watch: &dyn Watch) -> Result<Option<Knn>> {
    let cells = nobody(x.n()).order;
    let rows = if x.whole().is_none() { lists::gather(x, &cells) } else { Vec::new() };
    let rows = x.whole().unwrap_or(&rows);
    let all = [0, x.n() as u32];
    let compare = || cuda::neighbours(devices, (rows, x.d), &Visits::all_pairs(&all), k, scale, watch);
    let named = |found: Option<(Vec<u32>, Vec<f32>)>| found.map(|(indices, distances)| Distances { k, indices, distances });
    if x.n() <= ALL_PAIRS {
        return Ok(named(compare()?).map(|distances| Knn { order: cells, distances }));
    }
    let cut = || lists::cut(simd, Cells::Memory(x), seed, &Progress::new(&(), x.n() as u64)).map(|(lists, _)| lists.order);
    let (order, found) = rayon::join(cut, compare);
    let (order, found) = (order?, named(found?));
    Ok(found.map(|distances| Knn { distances: renumbered(&distances, &order, &inverse(&order)), order }))
}

/// What a mode must reach.
struct Goal {
    /// Share of the sample's neighbours that lie within reach, to begin with.
    join: f64,
    /// Share of them in the lists that a GPU looks at, to begin with: these are near means, whatever their margins.
    near: f64,
    /// Recall of the sample after the repair: the mode's promise and two standard errors of the sample's recall.
    recall: f64,
}

impl Goal {
    fn of(mode: Mode) -> Self {
        match mode {
            // The repair finds three quarters of what is left, as a rule; where it finds less, more lists are searched.
            Mode::Accurate | Mode::Exact => Goal { join: 0.975, near: 0.9975, recall: 0.993 },
            // No repair as a rule.
            Mode::Fast => Goal { join: 0.965, near: 0.97, recall: 0.957 },
        }
    }
}

/// Lists looked at around a list, at least.
const LOOK: usize = 64;

/// Refuses what the metric does not take: what is not finite, or too large. The first row is that of cell `first`.
fn check(x: Embedding, first: usize, metric: Metric) -> Result<()> {
    let taken = metric.takes();
    let wrong = |value: &f32| !taken.contains(value);
    let bad = (0..x.n()).into_par_iter().with_min_len(1024).find_first(|&row| x.row(row).iter().any(wrong));
    bad.map_or(Ok(()), |row| {
        let cell = first + row;
        let dimension = x.row(row).iter().position(wrong).unwrap_or(0);
        let place = Place::default().rows(cell as u64..cell as u64 + 1);
        Err(Error::invalid(
            place,
            format!("{} in dimension {dimension} of cell {cell}", x.row(row)[dimension]),
            format!("coordinates are numbers from {:e} to {:e}", taken.start(), taken.end()),
        ))
    })
}

/// Gives the blank rows (cells `blank`, ascending) their neighbours: all others are at distance 1, so the first by number.
fn level(found: &mut Knn, blank: &[u32]) {
    if blank.is_empty() {
        return;
    }
    let k = found.distances.k;
    let mut position = vec![0u32; found.order.len()];
    found.order.iter().zip(0..).for_each(|(&cell, at)| position[cell as usize] = at);
    for &cell in blank {
        let at = position[cell as usize] as usize;
        let mut ids: Vec<u32> = (0..=k as u32).filter(|&other| other != cell).take(k).map(|other| position[other as usize]).collect();
        ids.sort_unstable();
        found.distances.indices[at * k..(at + 1) * k].copy_from_slice(&ids);
        found.distances.distances[at * k..(at + 1) * k].fill(1.0);
    }
}

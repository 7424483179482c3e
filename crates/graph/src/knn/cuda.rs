//! All pairs on a GPU.
//!
//! Every row is compared with every other by tensor cores on half-precision coordinates around the centre of the data (11 significant
//! bits, sums in f32); the 32 or 64 nearest by these scores are ranked by exact distances in f32, `Σ (x − y)²` in the order of sums
//! of the CPU. So distances have the CPU's bits, and a neighbour is missed only where more than half of the kept candidates overtake it
//! by rounding: recall against the CPU's exact mode is 0.9999 or better on cells. The same card gives the same bits in every run.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cellmill_cuda::{Device, Grid, Source};
use cellmill_matrix::{Error, Result, Watch};
use rayon::prelude::*;

use super::metric::Scale;

/// The kernels for rows of so many times 32 dimensions and so many candidates. They need compute capability 8.0.
macro_rules! source {
    ($pairs:literal, $kept:literal) => {
        Source {
            name: concat!("knn_", $pairs, "_", $kept),
            parts: &[concat!("#define PAIRS ", $pairs, "\n#define KEPT ", $kept, "\n"), include_str!("knn.cu")],
            kernels: &["halves", "scan", "rank"],
        }
    };
}

/// All of them: 32, 64 and 96 dimensions with 32 candidates, then with 64.
pub const SOURCES: [Source; 6] = [source!(1, 32), source!(2, 32), source!(3, 32), source!(1, 64), source!(2, 64), source!(3, 64)];

/// For 50 dimensions and 15 neighbours.
pub const USUAL: Source = SOURCES[1];

/// Least compute capability, times ten.
pub const LEAST_CAPABILITY: u32 = 80;
/// Most dimensions: three pairs of tensor-core steps.
pub const MAX_DIMENSIONS: usize = 96;
/// Most neighbours: of 64 candidates, nine are left for rounding, and one is the row itself.
pub const MAX_NEIGHBORS: usize = 54;
/// Up to so many neighbours, 32 candidates will do.
const FEW: usize = 23;
/// Queries of a block, and candidates of a tile.
const BLOCK: usize = 256;
/// Rows that one task sums.
const ROWS: usize = 1 << 13;
/// Scaled coordinates are at most this large: norms of 96 of them stay far below the largest f32, products far above the least half.
const LARGEST: f32 = 256.0;

/// Neighbours of each row: ids and distances, `(n, k)`, ascending by (distance, id).
pub type Found = (Vec<u32>, Vec<f32>);

/// The `k` nearest other rows of each row of `x`, `(n, d)`, finite. Distances are what `scale` makes of squared Euclidean ones. Rows are
/// dealt to the devices, at least one. `Ok(None)`: these cards or these sizes are beyond the kernels.
pub fn neighbours(devices: &[Arc<Device>], x: &[f32], d: usize, k: usize, scale: Scale, watch: &dyn Watch) -> Result<Option<Found>> {
    let n = x.len().checked_div(d).unwrap_or(0);
    if !fit(devices, n, d, k)? {
        return Ok(None);
    }
    let task = Task::new((x, d), k, scale, watch)?;
    let share = n.div_ceil(devices.len()).next_multiple_of(BLOCK);
    let parts = devices.par_iter().enumerate().map(|(i, device)| task.search(device, (i * share).min(n)..((i + 1) * share).min(n)));
    let (ids, distances): (Vec<_>, Vec<_>) = parts.collect::<Result<Vec<Found>>>()?.into_iter().unzip();
    Ok(Some((joined(ids), joined(distances))))
}

/// [`neighbours`] of some of the rows, `(asked, k)`, on one device: the bits that they have among those of all.
pub fn neighbours_of(asked: Range<usize>, device: &Arc<Device>, (x, d): (&[f32], usize), k: usize, scale: Scale) -> Result<Option<Found>> {
    match fit(std::slice::from_ref(device), x.len().checked_div(d).unwrap_or(0), d, k)? {
        true => Task::new((x, d), k, scale, &())?.search(device, asked).map(Some),
        false => Ok(None),
    }
}

/// Whether the kernels can do it on these devices, and there is room.
fn fit(devices: &[Arc<Device>], n: usize, d: usize, k: usize) -> Result<bool> {
    let old = devices.iter().any(|device| device.capability() < LEAST_CAPABILITY);
    if d == 0 || d > MAX_DIMENSIONS || k == 0 || k > MAX_NEIGHBORS || old {
        if let Some(device) = devices.first() {
            device.leave(format!(
                "the search for {k} neighbours in {d} dimensions (a GPU of compute capability 8.0 finds {MAX_NEIGHBORS} in {MAX_DIMENSIONS})"
            ));
        }
        return Ok(false);
    }
    for device in devices {
        if !device.has_room(bytes(device, n, d, k), "finding neighbours")? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Multiples of 32 dimensions, and candidates that are kept.
fn sizes(d: usize, k: usize) -> (usize, usize) {
    (d.div_ceil(32), if k <= FEW { 32 } else { 64 })
}

/// Queries at a time, four blocks for each multiprocessor: often enough for the watch.
fn batch(device: &Device, n_pad: usize) -> usize {
    (device.multiprocessors() as usize * 4 * BLOCK).min(n_pad)
}

/// Device memory of a search.
fn bytes(device: &Device, n: usize, d: usize, k: usize) -> u64 {
    let ((pairs, keep), n_pad) = (sizes(d, k), n.next_multiple_of(BLOCK));
    (4 * n * d + n_pad * (64 * pairs + 4) + batch(device, n_pad) * 2 * keep * 8 + n * k * 8) as u64
}

/// Pieces end to end; one alone is not copied.
fn joined<T: Copy>(mut pieces: Vec<Vec<T>>) -> Vec<T> {
    match pieces.len() {
        1 => pieces.remove(0),
        _ => pieces.concat(),
    }
}

/// A search whose rows are dealt to devices.
struct Task<'a> {
    x: &'a [f32],
    d: usize,
    k: usize,
    scale: Scale,
    centre: Vec<f32>,
    unit: f32,
    /// Rows that are found.
    done: AtomicUsize,
    watch: &'a dyn Watch,
}

impl<'a> Task<'a> {
    fn new((x, d): (&'a [f32], usize), k: usize, scale: Scale, watch: &'a dyn Watch) -> Result<Self> {
        let n = x.len() / d;
        if n <= k || n >= 1 << 31 || x.len() != n * d {
            return Err(Error::bug(format!("{k} neighbours of {} numbers in rows of {d}", x.len())));
        }
        let (centre, unit) = scaling(x, d);
        Ok(Task { x, d, k, scale, centre, unit, done: AtomicUsize::new(0), watch })
    }

    /// The neighbours of some rows.
    fn search(&self, device: &Arc<Device>, asked: Range<usize>) -> Result<Found> {
        let Task { x, d, k, .. } = *self;
        let n = x.len() / d;
        let (pairs, keep) = sizes(d, k);
        let (width, n_pad) = (32 * pairs, n.next_multiple_of(BLOCK));
        let program = device.program(&SOURCES[pairs - 1 + if keep == 32 { 0 } else { 3 }])?;
        let (scan, rank) = (program.kernel("scan")?, program.kernel("rank")?);

        let stream = device.stream()?;
        let rows = stream.upload(x)?;
        let centre = stream.upload(&self.centre)?;
        let mut halves = stream.alloc::<u16>(n_pad * width)?;
        let mut norms = stream.alloc::<f32>(n_pad)?;
        let args = [
            (&rows).into(),
            (n as u32).into(),
            (n_pad as u32).into(),
            (d as u32).into(),
            (width as u32).into(),
            (&centre).into(),
            self.unit.into(),
            (&mut halves).into(),
            (&mut norms).into(),
        ];
        // SAFETY: the arguments of `halves`: `rows` is (n, d), `halves` (n_pad, width), `norms` (n_pad,).
        unsafe { stream.launch(&program.kernel("halves")?, Grid::new(n_pad.div_ceil(8), 256), &args)? };

        let batch = batch(device, n_pad);
        let mut lists = stream.alloc::<u64>(batch * 2 * keep)?;
        let mut ids = stream.alloc::<u32>(n * k)?;
        let mut distances = stream.alloc::<f32>(n * k)?;
        for first in asked.clone().step_by(batch) {
            let queries = batch.min(asked.end - first);
            let args = [(&halves).into(), (&norms).into(), (n_pad as u32).into(), (first as u32).into(), (&mut lists).into()];
            // SAFETY: the arguments of `scan`: queries beyond n_pad are read as the last row, and the lists have room for all of them.
            unsafe { stream.launch(&scan, Grid::new(queries.div_ceil(BLOCK), 256), &args)? };
            let args = [
                (&rows).into(),
                (n as u32).into(),
                (d as u32).into(),
                (first as u32).into(),
                (queries as u32).into(),
                (k as u32).into(),
                (self.scale as u32).into(),
                (&lists).into(),
                (&mut ids).into(),
                (&mut distances).into(),
            ];
            // SAFETY: the arguments of `rank`: it reads rows below n and writes k places of rows first .. first + queries.
            unsafe { stream.launch(&rank, Grid::new(queries.div_ceil(8), 256), &args)? };
            stream.synchronize()?;
            let done = self.done.fetch_add(queries, Ordering::Relaxed) + queries;
            self.watch.tick(done as u64, n as u64, "exact")?;
        }
        let places = asked.start * k..asked.end * k;
        Ok((stream.download_part(&ids, places.clone())?, stream.download_part(&distances, places)?))
    }
}

/// Mean of each coordinate, and the power of two that brings the centred coordinates near to [`LARGEST`].
fn scaling(x: &[f32], d: usize) -> (Vec<f32>, f32) {
    let n = (x.len() / d) as f64;
    let sum_of = |rows: &[f32]| {
        let mut sums = vec![0f64; d];
        for row in rows.chunks_exact(d) {
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        sums
    };
    // Added up in a fixed order, however many threads there are.
    let parts: Vec<Vec<f64>> = x.par_chunks(ROWS * d).map(sum_of).collect();
    let centre: Vec<f32> = (0..d).map(|c| (parts.iter().map(|part| part[c]).sum::<f64>() / n) as f32).collect();
    let farthest = |row: &[f32]| row.iter().zip(&centre).fold(0f32, |most, (x, c)| most.max((x - c).abs()));
    let most = x.par_chunks_exact(d).with_min_len(ROWS).map(farthest).reduce(|| 0.0, f32::max);
    let unit = if most > 0.0 { (2.0f32).powi((LARGEST / most).log2().floor().clamp(-100.0, 100.0) as i32) } else { 1.0 };
    (centre, unit)
}

//! All pairs, or the pairs of near lists, on a GPU.
//!
//! Every row is compared with every other, or with those of the lists that its own list visits, by tensor cores on half-precision
//! coordinates around the centre of the data (11 significant bits, sums in f32); the 32 or 64 nearest by these scores are ranked by exact
//! distances in f32, `Σ (x − y)²` in the order of sums of the CPU. So distances have the CPU's bits, and of the rows that are compared a
//! neighbour is missed only where more than half of the kept candidates overtake it by rounding: recall of all pairs against the CPU's exact
//! mode is 0.9999 or better on cells. The same card gives the same bits in every run.

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

/// Rows in lists, and which lists are compared.
pub struct Visits<'a> {
    /// Rows at which lists begin, and the end: `(lists + 1,)`.
    pub starts: &'a [u32],
    /// The lists with whose rows those of some lists are compared, nearest first: `(lists, width)`.
    pub near: &'a [u32],
    /// Those lists.
    pub lists: Range<usize>,
    pub width: usize,
}

impl<'a> Visits<'a> {
    /// One list of all rows: `starts` is 0 and how many there are.
    pub fn all_pairs(starts: &'a [u32; 2]) -> Self {
        Visits { starts, near: &[0], lists: 0..1, width: 1 }
    }

    /// Some of the rows of its lists, cut into blocks of one list each: first row, how many, place of the list in `near`.
    fn blocks(&self, asked: Range<usize>) -> Vec<[u32; 3]> {
        let cut = |(list, at): (usize, u32)| {
            let (first, end) = (self.starts[list] as usize, self.starts[list + 1] as usize);
            let (first, end) = (first.max(asked.start), end.min(asked.end));
            (first..end).step_by(BLOCK).map(move |first| [first as u32, BLOCK.min(end - first) as u32, at])
        };
        self.lists.clone().zip(0u32..).flat_map(cut).collect()
    }

    /// Whether it is about so many rows, and names no list that is not there.
    fn is_whole(&self, n: usize) -> bool {
        let lists = self.starts.len().saturating_sub(1);
        self.starts.is_sorted()
            && self.starts.last().is_some_and(|&end| end as usize == n)
            && self.lists.end <= lists
            && self.width > 0
            && self.near.len() == self.lists.len() * self.width
            && self.near.iter().all(|&list| (list as usize) < lists)
    }
}

/// The `k` nearest other rows of each row of `x`, `(n, d)`, finite, among those of the lists that its own visits; all lists have visits.
/// Distances are what `scale` makes of squared Euclidean ones. Rows are dealt to the devices, at least one. `Ok(None)`: these cards or
/// these sizes are beyond the kernels.
pub fn neighbours(
    devices: &[Arc<Device>],
    x: (&[f32], usize),
    visits: &Visits<'_>,
    k: usize,
    scale: Scale,
    watch: &dyn Watch,
) -> Result<Option<Found>> {
    if !fit(devices, x, k, visits)? {
        return Ok(None);
    }
    let task = Task::new(x, visits, k, scale, watch)?;
    let blocks = visits.blocks(0..x.0.len() / x.1);
    let share = blocks.len().div_ceil(devices.len()).max(1);
    let parts: Vec<_> = blocks.chunks(share).zip(devices).collect();
    let found = parts.into_par_iter().map(|(blocks, device)| task.search(device, blocks)).collect::<Result<Vec<Found>>>()?;
    let (ids, distances): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    Ok(Some((joined(ids), joined(distances))))
}

/// [`neighbours`] of some of the rows, `(asked, k)`, on one device: the bits that they have among those of all.
pub fn neighbours_of(
    asked: Range<usize>,
    device: &Arc<Device>,
    x: (&[f32], usize),
    visits: &Visits<'_>,
    k: usize,
    scale: Scale,
) -> Result<Option<Found>> {
    match fit(std::slice::from_ref(device), x, k, visits)? {
        true => Task::new(x, visits, k, scale, &())?.search(device, &visits.blocks(asked)).map(Some),
        false => Ok(None),
    }
}

/// Whether the kernels can do it on these devices, and there is room.
fn fit(devices: &[Arc<Device>], (x, d): (&[f32], usize), k: usize, visits: &Visits<'_>) -> Result<bool> {
    let n = x.len().checked_div(d).unwrap_or(0);
    let old = devices.iter().any(|device| device.capability() < LEAST_CAPABILITY);
    if d == 0 || d > MAX_DIMENSIONS || k == 0 || k > MAX_NEIGHBORS || old {
        if let Some(device) = devices.first() {
            device.leave(format!(
                "the search for {k} neighbours in {d} dimensions (a GPU of compute capability 8.0 finds {MAX_NEIGHBORS} in {MAX_DIMENSIONS})"
            ));
        }
        return Ok(false);
    }
    let of_lists = 4 * visits.near.len() + 16 * visits.starts.len() + 12 * n.div_ceil(BLOCK);
    for device in devices {
        if !device.has_room(bytes(device, n, d, k) + of_lists as u64, "finding neighbours")? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Multiples of 32 dimensions, and candidates that are kept.
fn sizes(d: usize, k: usize) -> (usize, usize) {
    (d.div_ceil(32), if k <= FEW { 32 } else { 64 })
}

/// Blocks of queries at a time: two rounds of the three that a multiprocessor has room for. Often enough for the watch.
fn batch(device: &Device) -> usize {
    device.multiprocessors() as usize * 6
}

/// Rows with those that a tile may reach beyond the last.
fn padded(n: usize) -> usize {
    n.next_multiple_of(BLOCK) + BLOCK
}

/// Device memory of a search.
fn bytes(device: &Device, n: usize, d: usize, k: usize) -> u64 {
    let (pairs, keep) = sizes(d, k);
    let queries = (batch(device) * BLOCK).min(padded(n));
    (4 * n * d + padded(n) * (64 * pairs + 4) + queries * 2 * keep * 8 + n * k * 8) as u64
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
    visits: &'a Visits<'a>,
    k: usize,
    scale: Scale,
    centre: Vec<f32>,
    unit: f32,
    /// Rows that are found.
    done: AtomicUsize,
    watch: &'a dyn Watch,
}

impl<'a> Task<'a> {
    fn new((x, d): (&'a [f32], usize), visits: &'a Visits<'a>, k: usize, scale: Scale, watch: &'a dyn Watch) -> Result<Self> {
        let n = x.len() / d;
        if n <= k || n >= 1 << 31 || x.len() != n * d {
            return Err(Error::bug(format!("{k} neighbours of {} numbers in rows of {d}", x.len())));
        }
        if !visits.is_whole(n) {
            return Err(Error::bug(format!("lists of {n} rows that visit {} each", visits.width)));
        }
        let (centre, unit) = scaling(x, d);
        Ok(Task { x, d, visits, k, scale, centre, unit, done: AtomicUsize::new(0), watch })
    }

    /// The neighbours of the rows of some blocks, which follow one another.
    fn search(&self, device: &Arc<Device>, blocks: &[[u32; 3]]) -> Result<Found> {
        let Task { x, d, k, visits, .. } = *self;
        let (Some(&[first, ..]), Some(&[last, count, _])) = (blocks.first(), blocks.last()) else { return Ok(Found::default()) };
        let n = x.len() / d;
        let (pairs, keep) = sizes(d, k);
        let (width, n_pad) = (32 * pairs, padded(n));
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

        let batch = batch(device).min(blocks.len());
        let mut lists = stream.alloc::<u64>(batch * BLOCK * 2 * keep)?;
        let mut ids = stream.alloc::<u32>(n * k)?;
        let mut distances = stream.alloc::<f32>(n * k)?;
        let (starts, near) = (stream.upload(visits.starts)?, stream.upload(visits.near)?);
        let on_device = stream.upload(blocks.as_flattened())?;
        for (blocks, at) in blocks.chunks(batch).zip((0u32..).step_by(batch)) {
            let args = [
                (&halves).into(),
                (&norms).into(),
                (n_pad as u32).into(),
                (&on_device).into(),
                at.into(),
                (&starts).into(),
                (&near).into(),
                (visits.width as u32).into(),
                (&mut lists).into(),
            ];
            // SAFETY: the arguments of `scan`: blocks and visits name rows below n and lists that there are (`new`), tiles reach less than
            // n_pad, and the candidates have room for all queries.
            unsafe { stream.launch(&scan, Grid::new(blocks.len(), 256), &args)? };
            let args = [
                (&rows).into(),
                (n as u32).into(),
                (d as u32).into(),
                (&on_device).into(),
                at.into(),
                (blocks.len() as u32).into(),
                (k as u32).into(),
                (self.scale as u32).into(),
                (&lists).into(),
                (&mut ids).into(),
                (&mut distances).into(),
            ];
            // SAFETY: the arguments of `rank`: it reads rows below n and writes k places of the blocks' rows.
            unsafe { stream.launch(&rank, Grid::new(blocks.len() * BLOCK / 8, 256), &args)? };
            stream.synchronize()?;
            let queries = blocks.iter().map(|block| block[1] as usize).sum();
            let done = self.done.fetch_add(queries, Ordering::Relaxed) + queries;
            self.watch.tick(done as u64, n as u64, if visits.starts.len() > 2 { "join" } else { "exact" })?;
        }
        let places = first as usize * k..(last + count) as usize * k;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_hold_what_is_asked_for_once_and_stay_in_their_lists(
            sizes in proptest::collection::vec(0u32..700, 1..12),
            (from, to) in (0f64..1.0, 0f64..1.0),
            (first, last) in (0usize..12, 0usize..12),
        ) {
            let mut starts = vec![0];
            starts.extend(sizes.iter().scan(0, |end, size| { *end += size; Some(*end) }));
            let n = starts[sizes.len()] as usize;
            let (first, last) = (first.min(last).min(sizes.len() - 1), first.max(last).min(sizes.len() - 1));
            let asked = (from.min(to) * n as f64) as usize..(from.max(to) * n as f64) as usize;
            let near: Vec<u32> = (first as u32..=last as u32).collect();
            let visits = Visits { starts: &starts, near: &near, lists: first..last + 1, width: 1 };
            prop_assert!(visits.is_whole(n));
            let mut rows = Vec::new();
            for [row, count, at] in visits.blocks(asked.clone()) {
                prop_assert!(count >= 1 && count as usize <= BLOCK);
                let list = first + at as usize;
                prop_assert!(row >= starts[list] && row + count <= starts[list + 1]);
                rows.extend(row as usize..(row + count) as usize);
            }
            let of_lists = starts[first] as usize..starts[last + 1] as usize;
            let wanted: Vec<usize> = asked.filter(|row| of_lists.contains(row)).collect();
            prop_assert_eq!(rows, wanted);
        }
    }

    #[test]
    fn visits_of_lists_that_are_not_there_are_refused() {
        let visits = |starts: &[u32], near: &[u32], width| Visits { starts, near, lists: 0..2, width }.is_whole(9);
        assert!(visits(&[0, 4, 9], &[0, 1], 1) && visits(&[0, 4, 9], &[0, 1, 1, 0], 2));
        assert!(!visits(&[0, 4, 9], &[0, 2], 1) && !visits(&[0, 4, 8], &[0, 1], 1) && !visits(&[0, 9], &[0, 1], 1));
        assert!(!visits(&[0, 10, 9], &[0, 1], 1) && !visits(&[0, 4, 9], &[0, 1], 2) && !visits(&[0, 4, 9], &[], 0));
    }
}

//! The covariance and the scores by GPUs. Rows travel to it packed; it unpacks, selects, transforms and multiplies them, while the threads
//! of the CPU do no more than copy bytes into page-locked memory.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use cellmill_cuda::{Blas, Buffer, Device, Lent, Pinned, Solver, Stream};
use cellmill_kernels::gram::{MAX_COLUMNS, Totals, cuda::Gram};
use cellmill_kernels::pack::cuda::{Batch, Rows, Unpack};
use cellmill_kernels::pack::pack;
use cellmill_kernels::project::cuda::Projection;
use cellmill_kernels::transform::cuda::{Logged, Transform};
use cellmill_matrix::{Error, Result, Source, SourceRow, Watch};

use super::arriving::{Arriving, pages};
use super::route::Route;
use super::{Columns, Fit, Part, Pass};
use crate::chunk::Chunk;
use crate::exec::{Feed, Scratch, Task, cut, in_order, sliced, task_of};
use crate::fold::Collect;
use crate::host::eigen;
use crate::recipe::{Step, apply_all};
use crate::stage::{Allowance, Piece, Resident, Stage};

/// What a pass over the rows finds.
pub(super) struct Found {
    /// Covariance, ddof 1: `(p, p)`.
    pub covariance: Covariance,
    /// Sum of each column: `(p,)`.
    pub sums: Vec<f64>,
    /// Rows.
    pub n_obs: u64,
    /// Entries.
    pub nnz: u64,
}

/// Where a covariance is.
pub(super) enum Covariance {
    Host(Vec<f64>),
    Device(Buffer<f64>, Stream),
}

/// Tasks that are unpacked on the device at a time, each on a stream of its own.
pub(super) const LANES: u64 = 4;

/// Most entries of a task: packed, at 8 bytes at worst, they fit in what a kernel can address.
pub(crate) const MOST_ENTRIES: u64 = 1 << 27;

/// Loads libraries, so that [`super::pca`] finds them there. What fails is said when it is needed.
pub fn prepare(device: &Arc<Device>) {
    if let Ok(stream) = device.stream() {
        let _ = (Blas::new(&stream), Solver::new(&stream));
    }
}

/// Takes the covariance of all rows; `None` if these GPUs or these columns are not fit for it. Tasks are dealt to the GPUs in turn.
pub(super) fn covariance(
    devices: &[Arc<Device>],
    pass: Pass<'_>,
    columns: &Columns,
    selected: &Stage,
    watch: &dyn Watch,
) -> Result<Option<Found>> {
    let all = 0..cut(pass.rows.feed.source.shape().n_obs).len();
    let Some((mut grams, nnz)) = summed(devices, pass, columns, all, selected, watch)? else { return Ok(None) };
    let (mut gram, stream) = grams.remove(0);
    for (mut other, _) in grams {
        gram.merge(&mut other)?;
    }
    let n_obs = gram.n_rows();
    let (covariance, sums) = gram.covariance()?;
    let sums = stream.download(&sums, columns.detection.len())?;
    Ok(Some(Found { covariance: Covariance::Device(covariance, stream), sums, n_obs, nnz }))
}

/// Sums of products of the rows of some tasks, and their entries; `None` if this GPU or these columns are not fit for it.
pub(super) fn products(
    device: &Arc<Device>,
    pass: Pass<'_>,
    columns: &Columns,
    part: Range<usize>,
    selected: &Stage,
    watch: &dyn Watch,
) -> Result<Option<(Totals, u64)>> {
    match summed(std::slice::from_ref(device), pass, columns, part, selected, watch)? {
        Some((mut grams, nnz)) => Ok(Some((grams.remove(0).0.on_host()?, nnz))),
        None => Ok(None),
    }
}

/// The sums of each GPU, with their streams, and the entries of all.
#[allow(clippy::type_complexity)] // two callers
fn summed(
    devices: &[Arc<Device>],
    pass: Pass<'_>,
    columns: &Columns,
    part: Range<usize>,
    selected: &Stage,
    watch: &dyn Watch,
) -> Result<Option<(Vec<(Gram, Stream)>, u64)>> {
    let Some(largest) = &columns.largest else { return Ok(None) };
    let p = largest.len();
    if p >= MAX_COLUMNS {
        return Ok(None);
    }
    let Some(feeder) = Feeder::new(devices, pass, Gram::bytes(p) + 8 * (p * p) as u64)? else { return Ok(None) };
    let streams = devices.iter().map(Device::stream).collect::<Result<Vec<_>>>()?;
    let mut grams = streams.iter().map(|stream| Gram::new(stream, largest)).collect::<Result<Vec<_>>>()?;
    let mut lanes = feeder.lanes()?;
    let tasks = &feeder.tasks;
    let n_source = pass.rows.feed.source.shape().n_obs;
    let first = part.start;
    in_order(
        part.len(),
        1,
        |i| {
            let i = first + i;
            feeder.load(i, || {
                let mut chunk = pass.selected(&tasks[i])?;
                pass.keep(selected, i, &chunk);
                apply_all(pass.rows.transform, &mut chunk)?;
                Ok(chunk)
            })
        },
        |i, loaded| {
            let i = first + i;
            let turn = turn(i, devices.len());
            let stream = &streams[turn];
            lanes[turn].rows(loaded, |lane, rows| {
                stream.wait(&lane.record()?)?;
                grams[turn].add(rows)?;
                // The rows are freed in the order of their own stream, after this one has read them.
                lane.wait(&stream.record()?)
            })?;
            watch.tick(tasks[i].end, n_source, "")
        },
    )?;
    lanes.into_iter().try_for_each(Lanes::finish)?;
    let nnz = grams.iter().map(Gram::check).sum::<Result<u64>>()?;
    Ok(Some((grams.into_iter().zip(streams).collect(), nnz)))
}

impl Covariance {
    /// The same on a device.
    pub fn onto(self, device: &Arc<Device>) -> Result<Self> {
        match self {
            Covariance::Host(numbers) => {
                let stream = device.stream()?;
                Ok(Covariance::Device(stream.upload(&numbers)?, stream))
            }
            there => Ok(there),
        }
    }

    /// The numbers: `(p, p)`.
    pub fn into_host(self) -> Result<Vec<f64>> {
        match self {
            Covariance::Host(numbers) => Ok(numbers),
            Covariance::Device(buffer, stream) => stream.download(&buffer, buffer.len()),
        }
    }
}

/// The trace and the `k` largest eigenvalues of a covariance of `p` columns with their eigenvectors, as
/// [`eigen::top_eigenpairs`] gives them; the covariance again where the device has no room for that or lacks cuSOLVER, or where the
/// CPU is as fast.
#[allow(clippy::type_complexity)] // one caller
pub(super) fn eigenpairs(
    covariance: Covariance,
    p: usize,
    k: usize,
) -> Result<std::result::Result<(f64, (Vec<f64>, Vec<f64>)), Covariance>> {
    let (mut buffer, stream) = match covariance {
        Covariance::Device(buffer, stream) if p > eigen::SMALL && stream.device().has_room(Solver::bytes(p), "finding eigenvectors")? => {
            (buffer, stream)
        }
        other => return Ok(Err(other)),
    };
    let Ok(mut solver) = Solver::new(&stream) else { return Ok(Err(Covariance::Device(buffer, stream))) };
    let values = solver.eigenpairs(&mut buffer, p)?;
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Error::bug("the covariance has entries that are not finite"));
    }
    // Values are ascending, and vectors lie in their order.
    let trace = values.iter().sum();
    let ascending = stream.download_part(&buffer, (p - k) * p..p * p)?;
    let vectors = ascending.chunks_exact(p).rev().flatten().copied().collect();
    Ok(Ok((trace, eigen::by_row((values.into_iter().rev().take(k).collect(), vectors), p, k))))
}

/// X V + shift of the rows of some tasks, of which `n_rows` stay: `(n_rows, k)`; `None` if these GPUs are not fit for it. `watch` hears of
/// tasks.
pub(super) fn scores(
    devices: &[Arc<Device>],
    pass: Pass<'_>,
    (part, n_rows): (&Part, usize),
    selected: &Stage,
    fit: &Fit,
    watch: &dyn Watch,
) -> Result<Option<Vec<f32>>> {
    let (components, shift) = (&fit.components[..], &fit.shift()[..]);
    let (p, k) = (pass.rows.n_genes, shift.len());
    let Some(feeder) = Feeder::new(devices, pass, Projection::bytes(p, k))? else { return Ok(None) };
    let mut lanes = feeder.lanes()?;
    let streams = devices.iter().map(Device::stream).collect::<Result<Vec<_>>>()?;
    let projections = streams.iter().map(|stream| Projection::new(stream, components, p, shift)).collect::<Result<Vec<_>>>()?;
    let mut staying = match (pass.rows.stay, &streams[..]) {
        (Some(stay), [stream]) => Some((stay, stream.alloc::<f32>(n_rows * k)?, 0)),
        _ => None,
    };
    streams.iter().try_for_each(Stream::synchronize)?;
    let mut scores = match staying {
        Some(_) => Vec::new(),
        None => Some(pass.memory.scores.take()).filter(|scores| scores.len() == n_rows * k).unwrap_or_else(|| pages(n_rows * k)),
    };
    let mut arriving = Arriving::new(&mut scores);
    let tasks = &feeder.tasks;
    let done = in_order(
        part.tasks.len(),
        1,
        |i| {
            let i = part.tasks.start + i;
            let loaded = feeder.load(i, || pass.transformed(selected, i, &tasks[i]))?;
            if part.is_last(i) {
                selected.forget(i);
                if let Some(stage) = pass.rows.feed.stage.filter(|_| pass.rows.last) {
                    stage.forget(i);
                }
            }
            Ok(loaded)
        },
        |i, loaded| {
            let i = part.tasks.start + i;
            let turn = turn(i, devices.len());
            lanes[turn].rows(loaded, |lane, rows| {
                let scores = projections[turn].scores(lane, rows)?;
                if let Some((_, all, at)) = &mut staying {
                    lane.copy(&scores, all, *at)?;
                    *at += scores.len();
                    return Ok(());
                }
                let target = match arriving.free.pop().filter(|pinned| pinned.len() >= scores.len()) {
                    Some(pinned) => pinned,
                    None => devices[turn].pinned(scores.len())?,
                };
                arriving.waiting.push_back((scores.len(), lane.download_later(&scores, target)?));
                if arriving.waiting.len() > 2 * LANES as usize * devices.len() { arriving.take() } else { Ok(()) }
            })?;
            watch.tick(i as u64 + 1, tasks.len() as u64, "projection")
        },
    );
    // What was queued ends before what it writes to is gone, also after an error.
    lanes.into_iter().map(Lanes::finish).fold(done, Result::and)?;
    while !arriving.waiting.is_empty() {
        arriving.take()?;
    }
    let short = match &staying {
        Some((_, all, at)) => *at < all.len(),
        None => !arriving.rest.is_empty(),
    };
    projections.iter().zip(&streams).try_for_each(|(projection, stream)| projection.check(stream))?;
    if short {
        return Err(Error::bug("fewer rows in the projection than in the covariance"));
    }
    if let Some((stay, all, _)) = staying {
        // Nobody else sets it.
        let _ = stay.set(all);
        return Ok(Some(Vec::new()));
    }
    Ok(Some(scores))
}

/// Puts the packed rows of tasks into page-locked memory: what the threads do.
pub(super) struct Feeder<'a> {
    devices: &'a [Arc<Device>],
    pass: Pass<'a>,
    route: Route<'a>,
    pub tasks: Vec<Range<u64>>,
    n_lanes: u64,
    memory: Mutex<Vec<Pinned<u8>>>,
}

/// A task that waits for its upload, or is there already.
pub(super) enum Loaded {
    Here(Laid),
    There(Arc<Resident>),
}

/// Packed chunks side by side in page-locked memory.
pub(crate) struct Laid {
    pub memory: Pinned<u8>,
    pub batch: Batch,
}

/// Lays packed chunks side by side, into `free` if that is large enough.
pub(crate) fn lay<T>(
    device: &Arc<Device>,
    free: Option<Pinned<u8>>,
    chunks: &[T],
    len: impl Fn(&T) -> usize,
    read: impl Fn(&T, &mut [u8]) -> Result<()>,
) -> Result<Laid> {
    let places = Batch::places(chunks.iter().map(len));
    let bytes = places.last().map_or(0, |place| place.end);
    let mut memory = match free.filter(|memory| memory.len() >= bytes) {
        Some(memory) => memory,
        None => device.pinned(bytes.next_multiple_of(4 << 20))?,
    };
    for (chunk, place) in chunks.iter().zip(&places) {
        read(chunk, &mut memory[place.clone()])?;
    }
    let batch = Batch::new(&mut memory, &places)?;
    Ok(Laid { memory, batch })
}

/// Packs the rows of a task that the stage has no room for once more, decoded from the source.
pub(crate) fn again(source: &dyn Source, filters: &[Step], rows: &Range<u64>) -> Result<Arc<[Piece]>> {
    let task = task_of(rows.start);
    let stage = Stage::new(task + 1, &Allowance::new(u64::MAX), None);
    let nothing = Collect::new(usize::MAX, 0);
    let feed = Feed::new(source, Some(&stage));
    Task { recipe: &sliced(filters, rows), fold: &nothing, rows: rows.clone(), batch: None }.run(feed, &mut Scratch::default())?;
    stage.task(task).ok_or_else(|| Error::bug("rows that were packed are gone"))
}

/// The GPU, of so many, that a task is for. Neighbours stay together, since a chunk of the store may reach across them.
pub(crate) fn turn(task: usize, n_devices: usize) -> usize {
    task / 8 % n_devices
}

/// Entries of the task that has most.
pub(crate) fn most_entries(source: &dyn Source, tasks: &[Range<u64>]) -> u64 {
    let entries = |rows: &Range<u64>| source.entries_before(SourceRow(rows.end)) - source.entries_before(SourceRow(rows.start));
    tasks.iter().map(entries).max().unwrap_or(0)
}

impl<'a> Feeder<'a> {
    /// `None` if there is no device, or one has no room for a task beside `bytes` bytes.
    pub(super) fn new(devices: &'a [Arc<Device>], pass: Pass<'a>, bytes: u64) -> Result<Option<Self>> {
        let source = pass.rows.feed.source;
        let tasks = cut(source.shape().n_obs);
        let most = most_entries(source, &tasks);
        // What the GPUs hold already must not be in the way.
        if let Some(stage) = pass.rows.feed.stage {
            for device in devices {
                if device.room()? < bytes + LANES * Batch::device_bytes(most) {
                    stage.leave_devices();
                }
            }
        }
        let a_lane = Batch::device_bytes(most);
        let mut n_lanes = if devices.is_empty() { 0 } else { LANES };
        for device in devices {
            if most > MOST_ENTRIES {
                device.leave(format!("a task has {most} entries, and the kernels can address {MOST_ENTRIES}"));
                return Ok(None);
            }
            if !device.has_room(bytes + a_lane, "finding principal components")? {
                return Ok(None);
            }
            n_lanes = n_lanes.min(device.room()?.saturating_sub(bytes) / a_lane).max(1);
        }
        if n_lanes == 0 {
            return Ok(None);
        }
        Ok(Some(Feeder { devices, pass, route: Route::of(&pass.rows), tasks, n_lanes, memory: Mutex::default() }))
    }

    /// The packed rows of a task. `chosen` gives its chosen columns, transformed, where the device is not to do that.
    pub(super) fn load(&self, task: usize, chosen: impl FnOnce() -> Result<Chunk>) -> Result<Loaded> {
        let Some(filters) = self.route.staged else {
            let mut bytes = Vec::new();
            pack(&chosen()?.x, &mut bytes);
            let copy = |bytes: &Vec<u8>, to: &mut [u8]| {
                to.copy_from_slice(bytes);
                Ok(())
            };
            return self.lay(&[bytes], Vec::len, copy);
        };
        let turn = &self.devices[turn(task, self.devices.len())];
        let resident = self.pass.rows.feed.stage.and_then(|stage| stage.resident(task));
        if let Some(resident) = resident.filter(|resident| Arc::ptr_eq(&resident.device, turn)) {
            return Ok(Loaded::There(resident));
        }
        let pieces = match self.pass.rows.feed.stage.and_then(|stage| stage.task(task)) {
            Some(pieces) => pieces,
            None => {
                self.pass.decoded.store(true, Ordering::Relaxed);
                again(self.pass.rows.feed.source, filters, &self.tasks[task])?
            }
        };
        self.lay(&pieces, Piece::bytes, Piece::read)
    }

    /// Lays packed chunks side by side.
    fn lay<T>(&self, chunks: &[T], len: impl Fn(&T) -> usize, read: impl Fn(&T, &mut [u8]) -> Result<()>) -> Result<Loaded> {
        let free = self.memory.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Loaded::Here(lay(&self.devices[0], free, chunks, len, read)?))
    }

    /// The lanes of each device.
    pub(super) fn lanes(&self) -> Result<Vec<Lanes<'_>>> {
        self.devices.iter().map(|device| self.lanes_of(device)).collect()
    }

    fn lanes_of(&self, device: &Arc<Device>) -> Result<Lanes<'_>> {
        let streams = (0..self.n_lanes).map(|_| device.stream()).collect::<Result<Vec<_>>>()?;
        Ok(Lanes {
            map: streams[0].upload(&self.route.map)?,
            unpack: Unpack::new(device)?,
            transform: Transform::new(device)?,
            how: self.route.how,
            scale: match self.route.scale {
                Some((inverse_std, most)) => Some((streams[0].upload(inverse_std)?, most)),
                None => None,
            },
            n_genes: self.pass.rows.n_genes,
            uploads: VecDeque::new(),
            memory: &self.memory,
            next: 0,
            streams,
        })
    }
}

/// Streams in turn: while one task travels, another is unpacked and a third is multiplied.
pub(super) struct Lanes<'a> {
    streams: Vec<Stream>,
    unpack: Unpack,
    transform: Transform,
    map: Buffer<u32>,
    how: Logged,
    scale: Option<(Buffer<f64>, Option<f64>)>,
    n_genes: usize,
    uploads: VecDeque<Lent<Pinned<u8>>>,
    memory: &'a Mutex<Vec<Pinned<u8>>>,
    next: usize,
}

impl Lanes<'_> {
    /// Queues the upload of a task's rows and what makes them the chosen columns, transformed; then what `then` queues on the same stream.
    pub(super) fn rows(&mut self, loaded: Loaded, then: impl FnOnce(&Stream, &Rows) -> Result<()>) -> Result<()> {
        let stream = &self.streams[self.next % self.streams.len()];
        self.next += 1;
        let mut rows = match loaded {
            Loaded::Here(Laid { memory, batch }) if batch.n_rows() == 0 => {
                self.give_back(memory);
                return Ok(());
            }
            Loaded::Here(Laid { memory, batch }) => {
                let (bytes, lent) = stream.upload_later(memory, 0..batch.bytes())?;
                self.uploads.push_back(lent);
                self.unpack.columns(stream, &bytes, &batch, &self.map, self.n_genes)?
            }
            // The stage holds it until the last of its readers is done.
            Loaded::There(resident) => self.unpack.columns(stream, &resident.bytes, &resident.batch, &self.map, self.n_genes)?,
        };
        if self.how != Logged::IDENTITY {
            self.transform.apply_own(stream, &mut rows, &self.how)?;
        }
        if let Some((inverse_std, most)) = &self.scale {
            self.transform.scale_columns(stream, &mut rows, inverse_std, *most)?;
        }
        then(stream, &rows)?;
        if self.uploads.len() > 2 * self.streams.len()
            && let Some(lent) = self.uploads.pop_front()
        {
            self.give_back(lent.wait()?);
        }
        Ok(())
    }

    fn give_back(&self, memory: Pinned<u8>) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }

    /// Waits for all that was queued.
    pub(super) fn finish(self) -> Result<()> {
        self.streams.iter().try_for_each(Stream::synchronize)
    }
}

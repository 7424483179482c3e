//! Tasks that GPUs read: they undo the compression of the store's chunks and look at the rows. In a first read they take sums and moments,
//! too, and pack the rows that stay; the threads fetch stored chunks and take packed rows away, and decode nothing.
//!
//! A task that is not as it should be (chunks that are missing, damaged or compressed otherwise, columns out of order, values that are no
//! counts) is left to the thread, which reads it from the source with the result, or the error, that it would have had without a GPU. So
//! is a task for which no lane is free. Both ways give the same bits.

mod lane;
mod shared;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cellmill_cuda::{Buffer, Device, Tray};
use cellmill_kernels::decode::cuda::{MOST_SETS, Vector};
use cellmill_kernels::decode::zstd::Frames;
use cellmill_kernels::pack::cuda::Rows;
use cellmill_kernels::transform::cuda::Logged;
use cellmill_matrix::{Compression, DType, Part, Result, Source, Stored};

use self::lane::Lane;
use self::shared::Shared;
use crate::exec::{cut, task_of};
use crate::fold::{Counted, GeneMoments};
use crate::pca::{MOST_ENTRIES, most_entries, turn};
use crate::recipe::{RowQc, Step};
use crate::stage::{Resident, Stage, There};

/// Lanes of a GPU at most: tasks that are on it at a time.
const MOST_LANES: u64 = 16;
/// Page-locked bytes of half a lane's tray at most.
const MOST_TRAY: usize = 8 << 20;
/// Stored bytes at most that are decoded at once.
const MOST_UP: usize = 256 << 20;
/// Bytes at most that zstd frames take at a time, beside what is stored and what is decoded.
const MOST_SCRATCH: u64 = 256 << 20;
/// Entries of a chunk at most: a few dozen are decoded at a time.
const MOST_CHUNK: u64 = 1 << 24;

/// Whoever reads whole tasks on GPUs, once these are open.
pub struct Reader<'a> {
    source: &'a dyn Source,
    stored: &'a dyn Stored,
    /// The sets of genes whose sums are taken of each row.
    sets: &'a [(String, Vec<bool>)],
    /// Bytes of a stored chunk of columns and of values.
    stored_len: [usize; 2],
    /// Bytes that decoding one takes beside.
    scratch_len: [u64; 2],
    first: Option<First<'a>>,
    cards: Arc<Cards>,
}

/// What the GPUs of a reader hold, and what they have found out: for one reader, or for several of the same rows that ask the same, one
/// after the other or at the same time.
#[derive(Default)]
pub struct Cards {
    desks: OnceLock<Vec<Desk>>,
    /// Moments of tasks that were read, until their turn comes.
    moments: Mutex<BTreeMap<usize, GeneMoments>>,
}

/// What a first read does besides.
struct First<'a> {
    /// Where it puts packed rows.
    stage: &'a Stage,
    /// What is done to values before their moments are taken.
    how: Logged,
    /// Of values after it.
    bound: f64,
}

/// What was read of a task.
pub struct Read {
    /// Of all its rows.
    pub all: Counted,
    /// Of those that stay, if that was asked for.
    pub kept: Option<Counted>,
    /// Stored entries.
    pub entries: u64,
}

/// A GPU and what all its lanes need.
struct Desk {
    /// Its number among those that read.
    number: usize,
    device: Arc<Device>,
    /// Those that are free.
    lanes: Mutex<Vec<Lane>>,
    n_lanes: u64,
    /// The sets of each gene, as bits: `(n_vars,)`.
    member: Buffer<u8>,
    shared: Shared,
    /// Bytes that lanes may take.
    reserved: u64,
    /// Bytes that packed rows may still take.
    room: AtomicU64,
}

fn lock<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Reader<'a> {
    /// A reader for a first read, which reads nothing before [`Reader::open`]. `None` if the matrix or what is asked of it is not fit for
    /// GPUs: `qc`, of each row, and moments of the rows that stay, after `how`.
    pub fn first(source: &'a dyn Source, stage: &'a Stage, qc: &'a RowQc, how: Logged) -> Option<Self> {
        let bound = how.bound()?;
        let fit = qc.qc_vars.len() <= MOST_SETS && qc.percent_top.is_empty();
        let reader = if fit { Reader::of(source, &qc.qc_vars)? } else { return None };
        Some(Reader { first: Some(First { stage, how, bound }), ..reader })
    }

    /// A reader of rows alone: see [`Reader::rows`].
    pub fn new(source: &'a dyn Source) -> Option<Self> {
        Reader::of(source, &[])
    }

    fn of(source: &'a dyn Source, sets: &'a [(String, Vec<bool>)]) -> Option<Self> {
        let stored = source.stored()?;
        let fit = |part| {
            let (dtype, chunk) = stored.vector(part);
            Vector::reads(dtype) && chunk <= MOST_CHUNK && (part == Part::Values || !matches!(dtype, DType::F32 | DType::F64))
        };
        let shape = source.shape();
        let small = most_entries(source, &cut(shape.n_obs)) <= MOST_ENTRIES && shape.n_vars < 1 << 24;
        let fit = small && fit(Part::Columns) && fit(Part::Values);
        // Whether chunks can be decoded, and how long they are, shows in the first of them.
        let mut bytes = Vec::new();
        let mut lens = |part| {
            let (streams, mut frames) = (stored.read_stored(part, 0, &mut bytes)?, Frames::default());
            frames.add(&bytes, &streams, 0, 0)?;
            // Others may be denser than the first.
            let (dtype, len) = stored.vector(part);
            let decoded = if streams.compression == Compression::Zstd { len * dtype.size().unwrap_or(1) as u64 } else { 0 };
            Some((bytes.len(), frames.bytes().max(decoded)))
        };
        let lens = [Part::Columns, Part::Values].map(|part| if fit && shape.n_obs > 0 { lens(part) } else { None });
        let [Some(columns), Some(values)] = lens else { return None };
        Some(Reader {
            source,
            stored,
            sets,
            stored_len: [columns.0, values.0],
            scratch_len: [columns.1, values.1],
            first: None,
            cards: Arc::default(),
        })
    }

    /// The same with these cards.
    pub fn with(self, cards: Arc<Cards>) -> Self {
        Reader { cards, ..self }
    }

    /// Begins to read on these GPUs, for `n_threads` threads, if each has the room.
    pub fn open(&self, devices: &[Arc<Device>], n_threads: usize) -> Result<()> {
        let n_vars = self.source.shape().n_vars;
        let size = |part| self.stored.vector(part).0.size().unwrap_or(1) as u64;
        let most = most_entries(self.source, &cut(self.source.shape().n_obs));
        // Stored and decoded entries, what decoding takes beside, rows, packed rows; chunks that reach into other tasks.
        let of = |part| size(part) * (2 * most + 4 * self.stored.vector(part).1);
        let chunk = self.stored_len.into_iter().max().unwrap_or(0);
        let tray = (chunk + chunk / 4).clamp(1 << 20, MOST_TRAY);
        // A quarter more than chunks like the first would take.
        let chunks = |part: Part| most / self.stored.vector(part).1 + 2;
        let all = |lens: [u64; 2]| (chunks(Part::Columns) * lens[0] + chunks(Part::Values) * lens[1]) / 4 * 5;
        let up = (all(self.stored_len.map(|len| len as u64)) as usize).clamp(1 << 20, MOST_UP);
        // At least two of them.
        let least = 2 * self.scratch_len[0].max(self.scratch_len[1]);
        let scratch = all(self.scratch_len).min(MOST_SCRATCH).max(least);
        let a_lane = of(Part::Columns) + of(Part::Values) + scratch + 12 * most + 48 * n_vars as u64 + (4 << 20);
        let mut member = vec![0u8; n_vars];
        for (s, (_, mask)) in self.sets.iter().enumerate() {
            member.iter_mut().zip(mask).for_each(|(bits, &inside)| *bits |= u8::from(inside) << s);
        }
        let mut desks = Vec::new();
        for (number, device) in devices.iter().enumerate() {
            let room = device.room()?;
            let n_lanes = (room / 4 / a_lane).min(MOST_LANES).min(n_threads.div_ceil(devices.len()) as u64);
            if n_lanes == 0 {
                return Ok(());
            }
            desks.push(Desk {
                number,
                device: device.clone(),
                member: device.stream()?.upload(&member)?,
                lanes: Mutex::default(),
                n_lanes,
                shared: Shared::new(2 * n_lanes as usize + 4),
                reserved: n_lanes * a_lane,
                room: AtomicU64::new((room - n_lanes * a_lane) / 2),
            });
        }
        // Page-locked memory takes its time: what is there is used at once.
        let desks = self.cards.desks.get_or_init(|| desks);
        for i in 0..desks.iter().map(|desk| desk.n_lanes).max().unwrap_or(0) {
            for desk in desks.iter().filter(|desk| i < desk.n_lanes) {
                let lane = Lane::new(&desk.device, n_vars, self.first.as_ref().map(|first| first.bound), tray, up, scratch)?;
                lock(&desk.lanes).push(lane);
            }
        }
        Ok(())
    }

    /// Reads a task of a first read, if it can be read here: rows that stay after `filters`, at most one, are staged. `kept`: whether their
    /// sums are wanted.
    pub fn read(&self, rows: &Range<u64>, filters: &[Step], kept: bool) -> Result<Option<Read>> {
        let Some(first) = &self.first else { return Ok(None) };
        self.on_lane(rows, |desk, lane| self.read_on(first, desk, lane, rows, filters, kept))
    }

    /// Reads the rows of a task, if it can be read here. `then` gets them, and the number of the GPU; what it queues may go on when it has
    /// returned.
    pub fn rows<T>(&self, rows: &Range<u64>, then: impl FnOnce(usize, &mut Tray, &mut Rows) -> Result<T>) -> Result<Option<T>> {
        self.on_lane(rows, |desk, lane| lane.only_rows(self, desk, rows, then))
    }

    /// Does something on a lane of the GPU that a task is for, if one is free.
    fn on_lane<T>(&self, rows: &Range<u64>, work: impl FnOnce(&Desk, &mut Lane) -> Result<Option<T>>) -> Result<Option<T>> {
        let Some(desks) = self.cards.desks.get().filter(|desks| !desks.is_empty()) else { return Ok(None) };
        let desk = &desks[turn(task_of(rows.start), desks.len())];
        let Some(mut lane) = lock(&desk.lanes).pop() else { return Ok(None) };
        let done = work(desk, &mut lane);
        lane.rest()?;
        lock(&desk.lanes).push(lane);
        done
    }

    /// Moments of the rows of a task that stay, if it was read here; they are forgotten.
    pub fn moments(&self, task: usize) -> Option<GeneMoments> {
        lock(&self.cards.moments).remove(&task)
    }

    /// Bytes of a GPU that are not there for others while this reads: of all lanes, and a share of what is left for packed rows.
    pub fn reserved(&self, device: usize) -> u64 {
        self.cards.desks.get().and_then(|desks| desks.get(device)).map_or(0, |desk| desk.reserved + desk.room.load(Ordering::Relaxed))
    }
}

impl First<'_> {
    /// Remembers the moments of a task, then its packed rows: on the device as far as there is room.
    fn finish(&self, cards: &Cards, desk: &Desk, task: usize, moments: GeneMoments, pieces: Vec<There>, resident: Resident) {
        lock(&cards.moments).insert(task, moments);
        let bytes = resident.batch.bytes() as u64;
        let stay = desk.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(bytes)).is_ok();
        self.stage.keep_there(task, pieces, resident, stay);
    }
}

//! Rows kept for later passes, so that the source is not decoded again: bit-packed, in memory as long as an allowance lasts, then in a
//! spill file. A stage is a cache of tasks: what it lacks is read from the source once more, with the same result.

mod spill;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cellmill_cuda::{Buffer, Device};
use cellmill_kernels::pack::cuda::Batch;
use cellmill_kernels::pack::{pack, seal, unpack, unpack_columns};
use cellmill_matrix::{Csr, Result};
use rayon::prelude::*;

use crate::chunk::{Chunk, Known};
use crate::exec::TASK_ROWS;
pub use spill::Spill;

/// Bytes that stages may hold in memory, shared by all that take from it.
#[derive(Clone, Debug, Default)]
pub struct Allowance(Arc<AtomicU64>);

impl Allowance {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        Allowance(Arc::new(AtomicU64::new(bytes)))
    }

    fn take(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Packed rows of some or all tasks.
#[derive(Debug)]
pub struct Stage {
    /// The pieces of each task, in row order; `None` where a task is not kept.
    tasks: Vec<Mutex<Option<Arc<[Piece]>>>>,
    /// Tasks that GPUs have in their memory, too.
    there: Vec<Mutex<Option<Arc<Resident>>>>,
    allowance: Allowance,
    spill: Option<Arc<Spill>>,
    unfiltered: bool,
}

/// Rows of one chunk, packed: about 1.4 bytes an entry where these are counts.
#[derive(Debug)]
pub struct Piece {
    /// Source rows that were read.
    source: Range<u64>,
    /// Stored entries.
    entries: u64,
    /// Rows that are left, as offsets from `source.start`; `None` if all are.
    rows: Option<Box<[u16]>>,
    /// Sums that normalisation needs, where columns have been dropped since.
    normalizer: Option<Box<[f64]>>,
    known: Known,
    packed: Packed,
}

/// Where the bytes are.
#[derive(Debug)]
enum Packed {
    Memory {
        bytes: Box<[u8]>,
        allowance: Allowance,
    },
    Spilled {
        at: u64,
        len: usize,
        file: Arc<Spill>,
    },
    /// In a GPU's memory alone, without its header.
    There {
        place: Range<usize>,
        resident: Arc<Resident>,
    },
}

impl Drop for Packed {
    fn drop(&mut self) {
        if let Packed::Memory { bytes, allowance } = self {
            allowance.give_back(bytes.len() as u64);
        }
    }
}

const _: () = assert!(TASK_ROWS <= 1 << 16, "offsets of rows are 16 bits wide");

impl Stage {
    /// An empty stage for `n_tasks` tasks.
    pub fn new(n_tasks: usize, allowance: &Allowance, spill: Option<Arc<Spill>>) -> Self {
        let there = (0..n_tasks).map(|_| Mutex::default()).collect();
        Stage { tasks: (0..n_tasks).map(|_| Mutex::default()).collect(), there, allowance: allowance.clone(), spill, unfiltered: false }
    }

    /// The same for rows as the source has them: filters come behind it, so that passes may differ in them.
    pub fn unfiltered(self) -> Self {
        Stage { unfiltered: true, ..self }
    }

    /// Whether rows are staged before any filter, not behind those that a recipe begins with.
    pub fn is_unfiltered(&self) -> bool {
        self.unfiltered
    }

    /// Packs the rows of a chunk, if there is room. `scratch` keeps its memory.
    pub fn pack(&self, chunk: &Chunk, scratch: &mut Vec<u8>) -> Option<Piece> {
        pack(&chunk.x, scratch);
        let normalizer = chunk.normalizer.as_deref().map(Into::into);
        Some(Piece { normalizer, ..self.admit(&chunk.source, &chunk.rows, chunk.x.nnz() as u64, scratch)? })
    }

    /// Takes in packed rows, if there is room: `rows` of a range, as offsets from its start.
    pub fn admit(&self, source: &Range<u64>, rows: &[u32], entries: u64, bytes: &[u8]) -> Option<Piece> {
        let len = bytes.len();
        let packed = if self.allowance.take(len as u64) {
            Packed::Memory { bytes: bytes.into(), allowance: self.allowance.clone() }
        } else {
            let file = self.spill.as_ref()?;
            Packed::Spilled { at: file.append(bytes)?, len, file: file.clone() }
        };
        Some(Piece { source: source.clone(), entries, rows: some_rows(source, rows), normalizer: None, known: Known::default(), packed })
    }

    /// Keeps a task whose packed rows a GPU has: there if they `stay`, else they are copied here, if there is room.
    pub fn keep_there(&self, task: usize, pieces: Vec<There>, resident: Resident, stay: bool) {
        let resident = Arc::new(resident);
        let piece = |There { source, rows, entries, place }| {
            let packed = Packed::There { place, resident: resident.clone() };
            Piece { rows: some_rows(&source, &rows), source, entries, normalizer: None, known: Known::default(), packed }
        };
        let pieces = pieces.into_iter().map(piece);
        if stay {
            self.settle(task, resident.clone());
            self.keep(task, pieces.collect());
        } else if let Some(pieces) = pieces.map(|piece| piece.home(self)).collect() {
            self.keep(task, pieces);
        }
    }

    /// Keeps all pieces of a task.
    pub fn keep(&self, task: usize, pieces: Vec<Piece>) {
        *self.slot(task) = Some(pieces.into());
    }

    /// The pieces of a task, if it is kept.
    pub fn task(&self, task: usize) -> Option<Arc<[Piece]>> {
        self.slot(task).clone()
    }

    /// Forgets a task that nobody will ask for again.
    pub fn forget(&self, task: usize) {
        *self.slot(task) = None;
    }

    /// Tasks that are kept.
    pub fn n_kept(&self) -> usize {
        (0..self.tasks.len()).filter(|&i| self.slot(i).is_some()).count()
    }

    /// Packed rows of a task in the memory of a GPU.
    pub fn resident(&self, task: usize) -> Option<Arc<Resident>> {
        lock(&self.there[task]).clone()
    }

    /// Remembers where a GPU has the packed rows of a task.
    pub fn settle(&self, task: usize, resident: Arc<Resident>) {
        *lock(&self.there[task]) = Some(resident);
    }

    /// Frees what GPUs hold, once their work on it is done. Tasks that they alone have are copied here first, as far as there is room;
    /// others are forgotten.
    pub fn leave_devices(&self) {
        self.there.par_iter().enumerate().for_each(|(task, slot)| {
            *lock(slot) = None;
            let Some(pieces) = self.task(task) else { return };
            if pieces.iter().any(|piece| matches!(piece.packed, Packed::There { .. })) {
                let home: Option<Vec<Piece>> = pieces.iter().map(|piece| piece.home(self)).collect();
                *self.slot(task) = home.map(Into::into);
            }
        });
    }

    fn slot(&self, task: usize) -> std::sync::MutexGuard<'_, Option<Arc<[Piece]>>> {
        lock(&self.tasks[task])
    }
}

/// Packed rows of a task in the memory of a GPU.
#[derive(Debug)]
pub struct Resident {
    /// Table and chunks.
    pub bytes: Buffer<u8>,
    /// What they are.
    pub batch: Batch,
    /// The GPU.
    pub device: Arc<Device>,
}

/// A piece that a GPU has packed.
#[derive(Clone, Debug)]
pub struct There {
    /// Source rows that were read.
    pub source: Range<u64>,
    /// Rows that are left, as offsets from `source.start`.
    pub rows: Vec<u32>,
    /// Stored entries.
    pub entries: u64,
    /// Where it is on the device.
    pub place: Range<usize>,
}

/// Offsets of the rows of a range that are left; `None` if all are.
fn some_rows(source: &Range<u64>, rows: &[u32]) -> Option<Box<[u16]>> {
    (rows.len() as u64 != source.end - source.start).then(|| rows.iter().map(|&r| r as u16).collect())
}

fn lock<T>(slot: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Piece {
    /// Unpacks the rows. `buffer` is used for them and comes back inside the chunk.
    pub fn chunk(&self, mut buffer: Csr) -> Result<Chunk> {
        self.with_bytes(|bytes| unpack(bytes, &mut buffer))?;
        let mut chunk = Chunk::part(self.source.clone(), self.offsets(buffer.n_rows()), buffer).knowing(self.known.clone());
        chunk.normalizer = self.normalizer.as_deref().map(Into::into);
        Ok(chunk)
    }

    /// The same rows, of which this is known.
    pub fn knowing(self, known: Known) -> Self {
        Piece { known, ..self }
    }

    /// Unpacks the rows, keeps the columns that `map` gives a number, and with `take_totals` the sums of the whole rows for
    /// normalisation: what [`Piece::chunk`], `TakeTotals` and `KeepVar` give.
    pub fn chunk_of_columns(&self, map: &[u32], n_kept: usize, take_totals: bool, mut buffer: Csr) -> Result<Chunk> {
        let totals = self.with_bytes(|bytes| unpack_columns(bytes, map, n_kept, &mut buffer))?;
        let mut chunk = Chunk::part(self.source.clone(), self.offsets(buffer.n_rows()), buffer);
        chunk.normalizer = if take_totals { Some(totals.total) } else { self.normalizer.as_deref().map(Into::into) };
        Ok(chunk)
    }

    /// Bytes of the packed rows.
    pub fn bytes(&self) -> usize {
        match &self.packed {
            Packed::Memory { bytes, .. } => bytes.len(),
            Packed::Spilled { len, .. } => *len,
            Packed::There { place, .. } => place.len(),
        }
    }

    /// Copies the packed rows: `bytes()` bytes.
    pub fn read(&self, to: &mut [u8]) -> Result<()> {
        match &self.packed {
            Packed::Memory { bytes, .. } => to.copy_from_slice(bytes),
            Packed::Spilled { at, file, .. } => file.read(*at, to)?,
            Packed::There { place, resident } => {
                let bytes = resident.device.stream()?.download_part(&resident.bytes, place.clone())?;
                to.copy_from_slice(&bytes);
                seal(self.n_rows(), resident.batch.n_cols(), self.entries as usize, to)?;
            }
        }
        Ok(())
    }

    fn n_rows(&self) -> usize {
        self.rows.as_ref().map_or((self.source.end - self.source.start) as usize, |rows| rows.len())
    }

    /// The same in the machine's own memory, or spilled.
    fn home(&self, stage: &Stage) -> Option<Piece> {
        let rows = self.offsets(self.n_rows());
        self.with_bytes(|bytes| Ok(stage.admit(&self.source, &rows, self.entries, bytes))).ok()?
    }

    /// Stored entries.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Source rows.
    pub fn source(&self) -> &Range<u64> {
        &self.source
    }

    fn offsets(&self, n_rows: usize) -> Vec<u32> {
        match &self.rows {
            None => (0..n_rows as u32).collect(),
            Some(rows) => rows.iter().map(|&r| u32::from(r)).collect(),
        }
    }

    fn with_bytes<T>(&self, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        match &self.packed {
            Packed::Memory { bytes, .. } => read(bytes),
            Packed::Spilled { .. } | Packed::There { .. } => {
                let mut bytes = vec![0; self.bytes()];
                self.read(&mut bytes)?;
                read(&bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(n_cols: usize) -> Chunk {
        let mut x = Csr::empty(n_cols);
        x.push_row(&[1, 6], &[0.5, 300.0]);
        x.push_row(&[], &[]);
        x.push_row(&[n_cols as u32 - 1], &[-1.0]);
        let mut chunk = Chunk::part(100..105, vec![0, 3, 4], x);
        chunk.normalizer = Some(vec![1.0, 0.0, 2.5]);
        chunk
    }

    fn same(stage: &Stage, chunk: &Chunk) {
        let piece = stage.pack(chunk, &mut Vec::new()).unwrap();
        let back = piece.chunk(Csr::default()).unwrap();
        assert_eq!((&back.source, &back.rows, &back.x, &back.normalizer), (&chunk.source, &chunk.rows, &chunk.x, &chunk.normalizer));
        let mut bytes = vec![0; piece.bytes()];
        piece.read(&mut bytes).unwrap();
        let mut x = Csr::default();
        unpack(&bytes, &mut x).unwrap();
        assert_eq!(x, chunk.x);
    }

    #[test]
    fn rows_come_back_as_they_went_in() {
        let dir = tempfile::tempdir().unwrap();
        for n_cols in [7, 70_000] {
            same(&Stage::new(1, &Allowance::new(1 << 20), None), &chunk(n_cols));
            let spill = Arc::new(Spill::new(dir.path()));
            same(&Stage::new(1, &Allowance::new(0), Some(spill)), &chunk(n_cols));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a spill file has no name");
    }

    #[test]
    fn memory_is_given_back() {
        let allowance = Allowance::new(1000);
        let stage = Stage::new(2, &allowance, None);
        for _ in 0..100 {
            let piece = stage.pack(&chunk(7), &mut Vec::new()).unwrap();
            stage.keep(1, vec![piece]);
            assert_eq!(stage.n_kept(), 1);
            stage.forget(1);
        }
        assert_eq!(allowance.0.load(Ordering::Relaxed), 1000);
    }

    #[test]
    fn a_full_allowance_without_a_spill_file_keeps_nothing() {
        assert!(Stage::new(1, &Allowance::new(10), None).pack(&chunk(7), &mut Vec::new()).is_none());
    }

    #[test]
    fn a_spill_folder_that_is_not_there_keeps_nothing_and_says_why() {
        let spill = Arc::new(Spill::new(std::path::Path::new("/nowhere/at/all")));
        assert!(Stage::new(1, &Allowance::new(0), Some(spill.clone())).pack(&chunk(7), &mut Vec::new()).is_none());
        assert!(spill.trouble().unwrap().to_string().contains("/nowhere/at/all"));
    }

    #[test]
    fn chosen_columns_are_those_of_the_steps() {
        let stage = Stage::new(1, &Allowance::new(1 << 20), None);
        let chunk = chunk(7);
        let piece = stage.pack(&chunk, &mut Vec::new()).unwrap();
        let mask = [false, true, false, false, false, false, true];
        let mut expected = chunk.clone();
        crate::recipe::apply_all(&[crate::recipe::Step::TakeTotals, crate::recipe::Step::KeepVar { mask: mask.to_vec() }], &mut expected)
            .unwrap();
        let (map, n) = cellmill_kernels::select::renumbering(&mask);
        let found = piece.chunk_of_columns(&map, n, true, Csr::default()).unwrap();
        assert_eq!((found.x, found.normalizer, found.rows), (expected.x, expected.normalizer, expected.rows));
    }
}

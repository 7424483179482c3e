//! Where rows lie: in memory, or in a file that is read piece by piece.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use cellmill_matrix::{Error, Place, Result};

use super::kernel::Simd;
use crate::Embedding;

/// Rows of an embedding, for a search that never holds all of them.
pub trait Rows: Sync {
    /// Number of cells.
    fn n(&self) -> usize;
    /// Dimensions.
    fn d(&self) -> usize;
    /// Copies whole rows, from row `first` on, into `out`.
    fn copy(&self, first: usize, out: &mut [f32]) -> Result<()>;
}

impl Rows for Embedding<'_> {
    fn n(&self) -> usize {
        Embedding::n(self)
    }

    fn d(&self) -> usize {
        self.d
    }

    fn copy(&self, first: usize, out: &mut [f32]) -> Result<()> {
        out.chunks_exact_mut(self.d).enumerate().for_each(|(at, out)| out.copy_from_slice(self.row(first + at)));
        Ok(())
    }
}

/// A file of `n` rows of `wide` f32, temporary and nameless unless it was opened, of which the first `d` are looked at.
pub struct RowFile {
    file: File,
    place: Place,
    n: usize,
    wide: usize,
    d: usize,
}

impl RowFile {
    /// An empty file in this folder; it is gone when it is dropped.
    pub fn create(folder: &Path, n: usize, wide: usize) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!(".cellmill-rows-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let (path, place) = (folder.join(name), Place::store(folder.display().to_string()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(|e| Error::io(place.clone(), &e))?;
        std::fs::remove_file(&path).map_err(|e| Error::io(place.clone(), &e))?;
        Ok(RowFile { file, place, n, wide, d: wide })
    }

    /// A file of such rows that somebody has written.
    pub fn open(path: &Path, n: usize, d: usize) -> Result<Self> {
        let place = Place::store(path.display().to_string());
        let file = File::open(path).map_err(|e| Error::io(place.clone(), &e))?;
        let bytes = file.metadata().map_err(|e| Error::io(place.clone(), &e))?.len();
        let whole = (n * d * size_of::<f32>()) as u64;
        if bytes != whole {
            return Err(Error::invalid(place, format!("a file of {bytes} bytes"), format!("{n} rows of {d} numbers have {whole}")));
        }
        Ok(RowFile { file, place, n, wide: d, d })
    }

    /// The same file, of whose rows the first `d` columns are looked at.
    pub fn columns(mut self, d: usize) -> Self {
        self.d = d.min(self.wide);
        self
    }

    /// Writes whole rows (all columns) from row `first` on; from any thread.
    pub fn write(&self, first: usize, rows: &[f32]) -> Result<()> {
        self.file.write_all_at(bytemuck::cast_slice(rows), self.at(first)).map_err(|e| Error::io(self.place.clone(), &e))
    }

    /// Reads whole rows, all columns.
    pub fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        self.file.read_exact_at(bytemuck::cast_slice_mut(out), self.at(first)).map_err(|e| Error::io(self.place.clone(), &e))
    }

    fn at(&self, row: usize) -> u64 {
        (row * self.wide * size_of::<f32>()) as u64
    }
}

impl Rows for RowFile {
    fn n(&self) -> usize {
        self.n
    }

    fn d(&self) -> usize {
        self.d
    }

    fn copy(&self, first: usize, out: &mut [f32]) -> Result<()> {
        if self.d == self.wide {
            return self.read(first, out);
        }
        let mut whole = vec![0.0; out.len() / self.d * self.wide];
        self.read(first, &mut whole)?;
        out.chunks_exact_mut(self.d).zip(whole.chunks_exact(self.wide)).for_each(|(out, row)| out.copy_from_slice(&row[..self.d]));
        Ok(())
    }
}

/// Rows in order of position.
#[derive(Clone, Copy)]
pub(super) enum Shelf<'a> {
    Memory(Embedding<'a>),
    File(&'a RowFile),
}

impl<'a> Shelf<'a> {
    pub(super) fn n(self) -> usize {
        match self {
            Shelf::Memory(x) => x.n(),
            Shelf::File(file) => file.n,
        }
    }

    pub(super) fn d(self) -> usize {
        match self {
            Shelf::Memory(x) => x.d,
            Shelf::File(file) => file.d,
        }
    }

    pub(super) fn rows(&self) -> &dyn Rows {
        match self {
            Shelf::Memory(x) => x,
            Shelf::File(file) => *file,
        }
    }

    /// Reads for one thread.
    pub(super) fn reader(self) -> Reader<'a> {
        let pages = match self {
            Shelf::Memory(_) => 0,
            Shelf::File(file) => file.n.div_ceil(PAGE),
        };
        Reader { shelf: self, slots: vec![ABSENT; pages], held: Vec::new(), rows: Vec::new(), own: Vec::new(), local: Vec::new() }
    }
}

/// Rows of a page of a file.
const PAGE: usize = 512;
/// No slot.
const ABSENT: u32 = u32::MAX;
/// Numbers that a reader keeps from one task to the next: 64 MiB.
const KEEP: usize = 1 << 24;

/// One thread's view of a shelf: of a file, the pages that it has asked for.
pub(super) struct Reader<'a> {
    shelf: Shelf<'a>,
    /// Where each page lies in `rows`, in pages: `(pages,)`.
    slots: Vec<u32>,
    /// The pages in `rows`, in order.
    held: Vec<u32>,
    rows: Vec<f32>,
    own: Vec<f32>,
    local: Vec<u32>,
}

impl Reader<'_> {
    /// Starts a task: forgets pages if there are many.
    pub(super) fn start(&mut self) {
        if self.rows.len() > KEEP {
            self.held.drain(..).for_each(|page| self.slots[page as usize] = ABSENT);
            self.rows.clear();
        }
    }

    /// Has row `at` at hand.
    fn fetch(&mut self, at: usize) -> Result<()> {
        let Shelf::File(file) = self.shelf else { return Ok(()) };
        let page = at / PAGE;
        if self.slots[page] == ABSENT {
            let from = self.rows.len();
            let rows = PAGE.min(file.n - page * PAGE);
            self.rows.resize(from + PAGE * file.d, 0.0);
            file.copy(page * PAGE, &mut self.rows[from..from + rows * file.d])?;
            self.slots[page] = self.held.len() as u32;
            self.held.push(page as u32);
        }
        Ok(())
    }

    /// A row that is at hand.
    fn at_hand(&self, at: usize) -> &[f32] {
        match self.shelf {
            Shelf::Memory(x) => x.row(at),
            Shelf::File(file) => {
                let row = self.slots[at / PAGE] as usize * PAGE + at % PAGE;
                &self.rows[row * file.d..(row + 1) * file.d]
            }
        }
    }

    /// Row `at`.
    pub(super) fn row(&mut self, at: usize) -> Result<&[f32]> {
        self.fetch(at)?;
        Ok(self.at_hand(at))
    }

    /// Rows of a stretch of positions.
    pub(super) fn stretch(&mut self, span: Range<usize>) -> Result<impl ExactSizeIterator<Item = &[f32]>> {
        if !span.is_empty() {
            span.clone().step_by(PAGE).chain([span.end - 1]).try_for_each(|at| self.fetch(at))?;
        }
        let held = &*self;
        Ok(span.map(move |at| held.at_hand(at)))
    }

    /// Squared distances from row `own` to rows `ids`, as [`Simd::squared`] sums them.
    pub(super) fn squared(&mut self, simd: Simd, own: usize, ids: &[u32], out: &mut Vec<f32>) -> Result<()> {
        if let Shelf::Memory(x) = self.shelf
            && let Some(rows) = x.whole()
        {
            simd.squared(x.row(own), rows, ids, out);
            return Ok(());
        }
        self.fetch(own)?;
        ids.iter().try_for_each(|&id| self.fetch(id as usize))?;
        let mut own_row = std::mem::take(&mut self.own);
        own_row.clear();
        own_row.extend_from_slice(self.at_hand(own));
        let mut local = std::mem::take(&mut self.local);
        local.clear();
        match self.shelf {
            Shelf::File(_) => {
                local.extend(ids.iter().map(|&id| self.slots[id as usize / PAGE] * PAGE as u32 + id % PAGE as u32));
                simd.squared(&own_row, &self.rows, &local, out);
            }
            Shelf::Memory(x) => {
                out.clear();
                let mut one = Vec::new();
                for &id in ids {
                    simd.squared(&own_row, x.row(id as usize), &[0], &mut one);
                    out.extend_from_slice(&one);
                }
            }
        }
        (self.own, self.local) = (own_row, local);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_the_rows_and_distances_of_memory() {
        let (n, d) = (1700, 7);
        let data: Vec<f32> = (0..n * d).map(|at| ((at * at) as f32 * 0.37).sin()).collect();
        let file = RowFile::create(&std::env::temp_dir(), n, d).unwrap();
        for first in (0..n).step_by(300) {
            file.write(first, &data[first * d..(first + 300).min(n) * d]).unwrap();
        }
        let x = Embedding::of(&data, d);
        let (mut far, mut near) = (Shelf::File(&file).reader(), Shelf::Memory(x).reader());
        for span in [0..1, 500..530, 1690..1700, 3..3] {
            let rows: Vec<Vec<f32>> = far.stretch(span.clone()).unwrap().map(<[f32]>::to_vec).collect();
            assert_eq!(rows, span.map(|at| x.row(at).to_vec()).collect::<Vec<_>>());
        }
        let ids: Vec<u32> = (0..200).map(|i| i * 977 % n as u32).collect();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        far.squared(Simd::detect(), 1600, &ids, &mut a).unwrap();
        near.squared(Simd::detect(), 1600, &ids, &mut b).unwrap();
        assert_eq!(a, b);
        assert_eq!(far.row(1699).unwrap(), x.row(1699));
        // The first columns of wider rows.
        let file = RowFile::create(&std::env::temp_dir(), n, d).unwrap();
        file.write(0, &data).unwrap();
        let narrow = file.columns(3);
        let mut out = vec![0.0; 6];
        narrow.copy(5, &mut out).unwrap();
        assert_eq!(out, [&x.row(5)[..3], &x.row(6)[..3]].concat());
    }
}

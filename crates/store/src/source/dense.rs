//! A dense matrix, streamed by blocks of rows; zeros are dropped.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use cellmill_matrix::{Csr, DType, Error, Result, Shape, Source, SourceRow};

use super::cache::{self, Cache};
use super::csr::{check_rows, n_vars};
use crate::element::place;
use crate::numbers;
use crate::tree::{Chunks, Tree};

thread_local! {
    static STORED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A dense `X` of a store.
pub struct DenseSource {
    location: String,
    shape: Shape,
    chunks: Box<dyn Chunks>,
    dtype: DType,
    /// Rows and columns of a chunk.
    chunk: [u64; 2],
    cache: Cache,
    read: AtomicU64,
    decoded: AtomicU64,
}

impl DenseSource {
    /// Opens the array at `path`, which has two axes.
    pub fn open(tree: &dyn Tree, path: &str) -> Result<DenseSource> {
        let place = place(tree, path);
        let chunks = tree.chunks(path)?;
        let info = chunks.info();
        let (Some(dtype), [rows, columns], [r, c]) = (info.dtype.filter(|d| *d != DType::Str), &info.shape[..], &info.chunk[..]) else {
            return Err(Error::invalid(place, format!("{} of shape {:?}", info.dtype_name, info.shape), "a matrix of numbers is expected"));
        };
        let shape = Shape { n_obs: *rows, n_vars: n_vars(place, *columns)? };
        let chunk = [*r, *c];
        let bytes = r * c * dtype.size().unwrap_or(1) as u64;
        // Blocks of rows come back to every chunk beside them: two bands of chunks stay.
        let cache = Cache::across(bytes, columns.div_ceil(*c));
        let (read, decoded) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(DenseSource { location: tree.location().to_string(), shape, chunks, dtype, chunk, cache, read, decoded })
    }

    fn size(&self) -> usize {
        self.dtype.size().unwrap_or(1)
    }

    fn across(&self) -> u64 {
        (self.shape.n_vars as u64).div_ceil(self.chunk[1])
    }

    /// Chunks with these rows.
    fn chunks_of(&self, rows: &Range<SourceRow>) -> Range<u64> {
        let slabs = rows.start.0 / self.chunk[0]..rows.end.0.min(self.shape.n_obs).div_ceil(self.chunk[0]);
        slabs.start * self.across()..slabs.end * self.across()
    }

    /// Puts the columns of one chunk into their places of a block of whole rows.
    fn columns(&self, slab: u64, c: u64, rows: Range<u64>, block: &mut [f32]) -> Result<()> {
        let [height, width] = self.chunk;
        let n_vars = self.shape.n_vars as u64;
        let (from, to) = (c * width, ((c + 1) * width).min(n_vars));
        let present = ((slab + 1) * height).min(self.shape.n_obs) - slab * height;
        let i = slab * self.across() + c;
        let size = self.size();
        let decode = |bytes: &mut Vec<u8>| {
            let read = STORED.with_borrow_mut(|stored| self.chunks.decode(i, stored, bytes))?;
            self.read.fetch_add(read, Ordering::Relaxed);
            self.decoded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(())
        };
        self.cache.with(i, rows.end - rows.start, present, decode, |bytes| {
            for (row, out) in rows.clone().zip(block.chunks_exact_mut(n_vars as usize)) {
                let start = ((row - slab * height) * width) as usize * size;
                let bytes = &bytes[start..start + (to - from) as usize * size];
                numbers::to_f32(self.dtype, bytes, &mut out[from as usize..to as usize]);
            }
        })
    }
}

/// Rows that are put together at once.
const ROWS: u64 = 64;

impl Source for DenseSource {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn entries_before(&self, row: SourceRow) -> u64 {
        row.0.min(self.shape.n_obs) * self.shape.n_vars as u64
    }

    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        check_rows(&rows, self.shape)?;
        into.clear(self.shape.n_vars);
        self.chunks.gather(self.cache.lacks(self.chunks_of(&rows)));
        let n_vars = self.shape.n_vars;
        let mut block = Vec::new();
        let mut at = rows.start.0;
        while at < rows.end.0 {
            let slab = at / self.chunk[0];
            let end = ((slab + 1) * self.chunk[0]).min(rows.end.0).min(at + ROWS);
            block.resize((end - at) as usize * n_vars, 0.0);
            if n_vars > 0 {
                for c in 0..self.across() {
                    self.columns(slab, c, at..end, &mut block)?;
                }
            }
            for i in 0..(end - at) as usize {
                let row = &block[i * n_vars..(i + 1) * n_vars];
                for (j, x) in row.iter().enumerate() {
                    if *x != 0.0 {
                        into.indices.push(j as u32);
                        into.data.push(*x);
                    }
                }
                into.indptr.push(into.indices.len() as u64);
            }
            at = end;
        }
        Ok(())
    }

    fn will_read(&self, rows: Range<SourceRow>) {
        self.chunks.will_decode(self.cache.lacks(self.chunks_of(&rows)));
    }

    fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn bytes_decoded(&self) -> u64 {
        self.decoded.load(Ordering::Relaxed)
    }

    fn overhead_bytes(&self, n_threads: usize) -> u64 {
        let chunk = self.chunk[0] * self.chunk[1] * self.size() as u64;
        let cached = cache::kept(chunk, self.across(), n_threads).min(self.chunks.n_chunks()) + 4;
        chunk * (cached + 2 * n_threads as u64) + n_threads as u64 * ROWS * self.shape.n_vars as u64 * 4 + self.chunks.held_bytes()
    }

    fn location(&self) -> &str {
        &self.location
    }
}

//! Compressed columns, turned into rows out of core: entries are dealt out to files of consecutive rows, then each is sorted.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use cellmill_matrix::{Csr, DType, Error, Place, Result, Shape, Source, SourceRow, Watch};

use super::csr::{check_rows, make_room, n_vars, offsets};
use super::offsets::Offsets;
use super::vector::Vector;
use crate::element::{SparseInfo, place};
use crate::numbers;
use crate::tree::Tree;

/// Bytes of an entry while it is dealt out: row inside the bucket, column, value.
const RECORD: u64 = 12;
/// Bytes of an entry while its bucket is sorted: the record and the result.
const SORTED: u64 = RECORD + 8;
/// Entries that are read at once, at most.
const SLAB: u64 = 4 << 20;
/// A bucket's buffer holds at least so many entries.
const LEAST_BUFFER: u64 = 512;

/// A `csc_matrix` of a store, which can't be streamed by rows before [`CscMatrix::to_rows`].
pub struct CscMatrix {
    location: String,
    shape: Shape,
    offsets: Offsets,
    indices: Vector,
    data: Vector,
}

/// Records of one range of rows: what waits in memory, and where the rest lies in the spill file.
#[derive(Default)]
struct Bucket {
    waiting: Vec<u32>,
    written: Vec<Range<u64>>,
}

impl CscMatrix {
    /// Opens the matrix at `path`, whose metadata are `info`. Reads `indptr` and nothing else.
    pub fn open(tree: &dyn Tree, path: &str, info: &SparseInfo) -> Result<CscMatrix> {
        let shape = Shape { n_obs: info.shape[0], n_vars: n_vars(place(tree, path), info.shape[1])? };
        if shape.n_obs >= u64::from(u32::MAX) {
            return Err(Error::invalid(place(tree, path), format!("{} rows", shape.n_obs), "compressed columns have fewer than 2^32 rows"));
        }
        Ok(CscMatrix {
            location: tree.location().to_string(),
            shape,
            offsets: offsets(tree, path, info)?,
            indices: Vector::open(tree, path, "indices")?,
            data: Vector::open(tree, path, "data")?,
        })
    }

    /// Cells and genes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Stored entries.
    pub fn nnz(&self) -> u64 {
        self.data.len()
    }

    /// Bytes of disk that the conversion takes at its height.
    pub fn scratch_bytes(&self) -> u64 {
        self.nnz() * SORTED
    }

    /// Turns columns into rows with about `memory_bytes` of memory and [`CscMatrix::scratch_bytes`] of disk in `scratch_dir`,
    /// whose files go when the result is dropped. Every entry is decoded once.
    pub fn to_rows(&self, scratch_dir: &Path, memory_bytes: u64, watch: &dyn Watch) -> Result<Box<dyn Source>> {
        let scratch = Place::store(scratch_dir.display().to_string());
        let spill = || tempfile::tempfile_in(scratch_dir).map_err(|e| Error::io(scratch.clone(), &e));
        let nnz = self.nnz();
        let memory = memory_bytes.max(8 << 20);
        let n_buckets = (nnz * SORTED * 3).div_ceil(memory).clamp(1, self.shape.n_obs.max(1)).min(1 << 16);
        let height = self.shape.n_obs.div_ceil(n_buckets).max(1);
        let mut buckets: Vec<Bucket> = Vec::new();
        buckets.resize_with(self.shape.n_obs.div_ceil(height) as usize, Bucket::default);
        let room = (memory / 4 / n_buckets / RECORD).clamp(LEAST_BUFFER, 1 << 20) as usize;
        let slab = (memory / 32).clamp(1 << 16, SLAB);

        let mut records = spill()?;
        let io = |e: std::io::Error| Error::io(scratch.clone(), &e);
        let (mut rows, mut values) = (Vec::new(), Vec::new());
        let (mut column, mut column_end) = (0usize, if self.shape.n_vars > 0 { self.offsets.len(0) } else { 0 });
        let (mut at, mut end_of_file) = (0, 0u64);
        while at < nnz {
            let end = (at + slab).min(nnz);
            self.slab(at..end, &mut rows, &mut values)?;
            for (k, (&row, &value)) in rows.iter().zip(&values).enumerate() {
                while at + k as u64 >= column_end {
                    column += 1;
                    column_end += self.offsets.len(column);
                }
                if u64::from(row) >= self.shape.n_obs {
                    let entry = at + k as u64;
                    let place = self.indices.place().clone().rows(entry..entry + 1);
                    return Err(Error::invalid(
                        place,
                        format!("row {row}"),
                        format!("the store has {} cells (0..{})", self.shape.n_obs, self.shape.n_obs),
                    ));
                }
                let bucket = &mut buckets[(u64::from(row) / height) as usize];
                bucket.waiting.extend_from_slice(&[(u64::from(row) % height) as u32, column as u32, value.to_bits()]);
                if bucket.waiting.len() >= 3 * room {
                    bucket.flush(&mut records, &mut end_of_file).map_err(io)?;
                }
            }
            at = end;
            watch.tick(at, 2 * nnz, "columns to rows")?;
        }

        let (mut indices, mut data) = (spill()?, spill()?);
        let mut offsets = Offsets::default();
        let (mut done, mut record) = (0u64, Vec::new());
        for (b, bucket) in buckets.into_iter().enumerate() {
            let first = b as u64 * height;
            let n_rows = height.min(self.shape.n_obs - first) as usize;
            record.clear();
            for span in &bucket.written {
                let from = record.len();
                record.resize(from + (span.end - span.start) as usize / 4, 0);
                read_at(&records, bytemuck::cast_slice_mut(&mut record[from..]), span.start).map_err(io)?;
            }
            record.extend_from_slice(&bucket.waiting);
            let mut csr = sort(&record, n_rows, self.shape.n_vars);
            csr.canonicalise(first)?;
            for i in 0..n_rows {
                let entries = csr.span(i).len() as u64;
                offsets.push(entries).ok_or_else(|| Error::bug("a row of 2^32 entries"))?;
            }
            indices.write_all(bytemuck::cast_slice(&csr.indices)).map_err(io)?;
            data.write_all(bytemuck::cast_slice(&csr.data)).map_err(io)?;
            done += record.len() as u64 / 3;
            watch.tick(nnz + done, 2 * nnz, "columns to rows")?;
        }
        let (bytes_read, bytes_decoded) =
            (self.indices.bytes_read() + self.data.bytes_read(), self.indices.bytes_decoded() + self.data.bytes_decoded());
        let location = self.location.clone();
        let shape = self.shape;
        Ok(Box::new(Rows { location, shape, offsets, indices, data, bytes_read: AtomicU64::new(bytes_read), bytes_decoded }))
    }

    /// Entries `range` in the order of the store.
    fn slab(&self, range: Range<u64>, rows: &mut Vec<u32>, values: &mut Vec<f32>) -> Result<()> {
        let n = (range.end - range.start) as usize;
        rows.resize(n, 0);
        values.resize(n, 0.0);
        let (a, b) = rayon::join(
            || self.indices.read(range.clone(), rows, &[DType::I32, DType::U32], numbers::to_u32),
            || self.data.read(range.clone(), values, &[DType::F32], numbers::to_f32),
        );
        a.and(b)
    }
}

impl Bucket {
    fn flush(&mut self, file: &mut File, end: &mut u64) -> std::io::Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.waiting);
        file.seek(SeekFrom::Start(*end))?;
        file.write_all(bytes)?;
        self.written.push(*end..*end + bytes.len() as u64);
        *end += bytes.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

/// Records into rows by a counting sort that keeps the order of columns.
fn sort(record: &[u32], n_rows: usize, n_vars: usize) -> Csr {
    let records = record.as_chunks::<3>().0;
    let mut csr = Csr { n_cols: n_vars, indptr: vec![0; n_rows + 1], indices: vec![0; records.len()], data: vec![0.0; records.len()] };
    for r in records {
        csr.indptr[r[0] as usize + 1] += 1;
    }
    for i in 0..n_rows {
        csr.indptr[i + 1] += csr.indptr[i];
    }
    let mut next = csr.indptr.clone();
    for r in records {
        let place = &mut next[r[0] as usize];
        csr.indices[*place as usize] = r[1];
        csr.data[*place as usize] = f32::from_bits(r[2]);
        *place += 1;
    }
    csr
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, bytes, at)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[n..];
        at += n as u64;
    }
    Ok(())
}

/// The result: rows in two files without a name.
struct Rows {
    location: String,
    shape: Shape,
    offsets: Offsets,
    indices: File,
    data: File,
    bytes_read: AtomicU64,
    bytes_decoded: u64,
}

impl Source for Rows {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn entries_before(&self, row: SourceRow) -> u64 {
        self.offsets.before(row.index())
    }

    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        check_rows(&rows, self.shape)?;
        into.n_cols = self.shape.n_vars;
        into.indptr.clear();
        into.indptr.push(0);
        let mut n = 0;
        for row in rows.start.index()..rows.end.index() {
            n += self.offsets.len(row);
            into.indptr.push(n);
        }
        let place = || Place::store(&self.location).rows(rows.start.0..rows.end.0);
        make_room(into, n, place)?;
        let at = 4 * self.offsets.before(rows.start.index());
        read_at(&self.indices, bytemuck::cast_slice_mut(&mut into.indices), at).map_err(|e| Error::io(place(), &e))?;
        read_at(&self.data, bytemuck::cast_slice_mut(&mut into.data), at).map_err(|e| Error::io(place(), &e))?;
        self.bytes_read.fetch_add(8 * n, Ordering::Relaxed);
        Ok(())
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    fn bytes_decoded(&self) -> u64 {
        self.bytes_decoded
    }

    fn overhead_bytes(&self, _: usize) -> u64 {
        self.offsets.heap_bytes() as u64
    }

    fn location(&self) -> &str {
        &self.location
    }
}

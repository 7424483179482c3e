//! Compressed rows, streamed.

use std::ops::Range;

use cellmill_matrix::{Csr, DType, Encoding, Error, ErrorKind, Part, Place, Result, Shape, Source, SourceRow, Stored, Streams};

use super::offsets::Offsets;
use super::vector::Vector;
use crate::element::{SparseInfo, join, place};
use crate::numbers;
use crate::tree::Tree;

/// `indptr` up to this size is read without a question.
const FREE: u64 = 2 << 30;

/// A `csr_matrix` of a store.
pub struct CsrSource {
    location: String,
    path: String,
    shape: Shape,
    offsets: Offsets,
    indices: Vector,
    data: Vector,
}

/// Reads and checks `indptr`: from 0, never decreasing, to the number of entries.
pub(super) fn offsets(tree: &dyn Tree, path: &str, info: &SparseInfo) -> Result<Offsets> {
    let vector = Vector::open(tree, path, "indptr")?;
    let bytes = vector.len().saturating_mul(8);
    if bytes > FREE && tree.stored_bytes(&join(path, "indptr"))?.is_some_and(|stored| bytes > stored.saturating_mul(1000)) {
        let found = format!("{} entries, far more than is stored", vector.len());
        return Err(Error::invalid(vector.place().clone(), found, "the shape fits the chunks on disk; the metadata are damaged"));
    }
    let nnz = info.nnz();
    let mut offsets = Offsets::default();
    let mut before: Option<u64> = None;
    vector.each_u64(|first, numbers| {
        for (k, &end) in numbers.iter().enumerate() {
            let row = (first + k as u64).saturating_sub(1);
            let at = || vector.place().clone().rows(row..row + 1);
            match before {
                None if end != 0 => return Err(Error::invalid(at(), format!("a first entry of {end}"), "indptr starts at 0")),
                Some(start) if end < start => {
                    return Err(Error::invalid(at(), format!("row ends at {end} before its start {start}"), "indptr never decreases"));
                }
                Some(_) if end > nnz => {
                    return Err(Error::invalid(at(), format!("row ends at {end}"), format!("there are {nnz} entries in indices and data")));
                }
                Some(start) => {
                    offsets
                        .push(end - start)
                        .ok_or_else(|| Error::invalid(at(), format!("a row of {} entries", end - start), "a row has fewer than 2^32"))?;
                }
                None => {}
            }
            before = Some(end);
        }
        Ok(())
    })?;
    if before.unwrap_or(0) != nnz {
        let found = format!("indptr ends at {}", before.unwrap_or(0));
        return Err(Error::invalid(vector.place().clone(), found, format!("there are {nnz} entries in indices and data")));
    }
    Ok(offsets)
}

/// The number of genes, which must fit a column index.
pub(super) fn n_vars(place: Place, columns: u64) -> Result<usize> {
    if columns >= u64::from(u32::MAX) {
        return Err(Error::invalid(place, format!("{columns} columns"), "at most 2^32 - 2 are supported"));
    }
    Ok(columns as usize)
}

impl CsrSource {
    /// Opens the matrix at `path`, whose metadata are `info`. Reads `indptr` and nothing else.
    pub fn open(tree: &dyn Tree, path: &str, info: &SparseInfo) -> Result<CsrSource> {
        let shape = Shape { n_obs: info.shape[0], n_vars: n_vars(place(tree, path), info.shape[1])? };
        Ok(CsrSource {
            location: tree.location().to_string(),
            path: path.to_string(),
            shape,
            offsets: offsets(tree, path, info)?,
            indices: Vector::open(tree, path, "indices")?,
            data: Vector::open(tree, path, "data")?,
        })
    }

    /// How the matrix lies on disk.
    pub fn encoding(&self) -> Encoding {
        Encoding::Csr
    }

    /// Whole numbers from 2²⁴ on are not all float32 numbers; they are refused, never rounded.
    fn check_exact(&self, rows: &Range<SourceRow>, into: &Csr) -> Result<()> {
        const FIRST_INEXACT: f32 = 16_777_216.0;
        let wide = matches!(self.data.dtype(), DType::I32 | DType::I64 | DType::U32 | DType::U64);
        if !wide || into.data.iter().all(|v| v.abs() < FIRST_INEXACT) {
            return Ok(());
        }
        let at = into.data.iter().position(|v| v.abs() >= FIRST_INEXACT).unwrap_or(0);
        let row = rows.start.0 + (into.indptr.partition_point(|&p| p as usize <= at) as u64).saturating_sub(1);
        let found = format!("a whole number of about {}", into.data[at]);
        Err(Error::invalid(
            self.data.place().clone().rows(row..row + 1),
            found,
            "values are held as float32, whose whole numbers end at 2^24",
        ))
    }

    /// A place that names this matrix and not `X`.
    fn at(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Invalid { place, found, expected } => {
                let element = place.element.as_deref().map(|e| e.strip_prefix("X/").map_or(e.to_string(), |name| join(&self.path, name)));
                let place = Place { store: Some(self.location.clone()), element, rows: place.rows.clone() };
                Error::invalid(place, found.clone(), expected.clone())
            }
            _ => error,
        }
    }
}

/// Checks a range of rows against the shape.
pub(super) fn check_rows(rows: &Range<SourceRow>, shape: Shape) -> Result<()> {
    if rows.start > rows.end || rows.end.0 > shape.n_obs {
        return Err(Error::bug(format!("rows {}..{} of {}", rows.start, rows.end, shape.n_obs)));
    }
    Ok(())
}

/// Makes room for `n` entries without clearing what will be overwritten.
pub(super) fn make_room(into: &mut Csr, n: u64, place: impl FnOnce() -> Place) -> Result<()> {
    let n = n as usize;
    let more = |len: usize| n.saturating_sub(len);
    let (columns, values) = (more(into.indices.len()), more(into.data.len()));
    if into.indices.try_reserve(columns).is_err() || into.data.try_reserve(values).is_err() {
        return Err(Error::invalid(place(), format!("{n} entries at once"), "fewer fit into memory; the store may be damaged"));
    }
    into.indices.resize(n, 0);
    into.data.resize(n, 0.0);
    Ok(())
}

impl Source for CsrSource {
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
        let first = self.offsets.before(rows.start.index());
        make_room(into, n, || Place::element(&self.location, &self.path).rows(rows.start.0..rows.end.0))?;
        self.data.gather(&(first..first + n));
        self.indices.read(first..first + n, &mut into.indices, &[DType::I32, DType::U32], numbers::to_u32)?;
        self.data.read(first..first + n, &mut into.data, &[DType::F32], numbers::to_f32)?;
        self.check_exact(&rows, into)?;
        into.canonicalise(rows.start.0).map_err(|e| self.at(e))?;
        Ok(())
    }

    fn will_read(&self, rows: Range<SourceRow>) {
        let entries = self.offsets.before(rows.start.index())..self.offsets.before(rows.end.index());
        self.indices.will_read(entries.clone());
        self.data.will_read(entries);
    }

    fn bytes_read(&self) -> u64 {
        self.indices.bytes_read() + self.data.bytes_read()
    }

    fn bytes_decoded(&self) -> u64 {
        self.indices.bytes_decoded() + self.data.bytes_decoded()
    }

    fn overhead_bytes(&self, n_threads: usize) -> u64 {
        self.offsets.heap_bytes() as u64
            + self.indices.overhead_bytes(n_threads)
            + self.data.overhead_bytes(n_threads)
            + self.data.held_bytes()
    }

    fn location(&self) -> &str {
        &self.location
    }

    fn stored(&self) -> Option<&dyn Stored> {
        Some(self)
    }
}

impl CsrSource {
    fn part(&self, part: Part) -> &Vector {
        match part {
            Part::Columns => &self.indices,
            Part::Values => &self.data,
        }
    }
}

impl Stored for CsrSource {
    fn vector(&self, part: Part) -> (DType, u64) {
        let vector = self.part(part);
        (vector.dtype(), vector.chunk())
    }

    fn read_stored(&self, part: Part, chunk: u64, bytes: &mut Vec<u8>) -> Option<Streams> {
        self.part(part).read_stored(chunk, bytes)
    }
}

//! An array of a zarr store, all at once or a few rows at a time.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use cellmill_matrix::{DType, Error, Result, Values};
use rayon::prelude::*;

use super::super::text;
use super::Shared;
use crate::numbers;
use crate::tree::{ArrayStream, Attrs};

/// Chunks that a stream gathers and compresses side by side.
const BATCH: usize = 8;

/// Entries that have not filled a chunk yet.
enum Waiting {
    Bytes(Vec<u8>),
    Strings(Vec<String>),
}

/// An array of a zarr store that grows along its first axis.
pub(super) struct ZarrStream {
    shared: Arc<Shared>,
    path: String,
    folder: PathBuf,
    dtype: DType,
    shape: Vec<u64>,
    chunk: Vec<u64>,
    /// Entries of a row.
    row: usize,
    attrs: Attrs,
    waiting: Waiting,
    entries: u64,
    /// The next chunk to write.
    next: u64,
    /// The rows that a whole array has; a stream learns them from its entries.
    rows: Option<u64>,
}

impl ZarrStream {
    /// Begins an array.
    pub fn open(shared: Arc<Shared>, path: &str, dtype: DType, shape: &[u64], chunk: Vec<u64>, attrs: Attrs) -> Result<Self> {
        let folder = shared.folder(path)?;
        std::fs::create_dir_all(&folder).map_err(|e| shared.io(path, &e))?;
        let row = shape[1..].iter().product::<u64>() as usize;
        let waiting = if dtype == DType::Str { Waiting::Strings(Vec::new()) } else { Waiting::Bytes(Vec::new()) };
        let (path, shape) = (path.to_string(), shape.to_vec());
        Ok(ZarrStream { shared, path, folder, dtype, shape, chunk, row, attrs, waiting, entries: 0, next: 0, rows: None })
    }

    /// Writes all of an array of so many rows, from where its values lie.
    pub fn whole(&mut self, values: &Values, rows: u64) -> Result<()> {
        (self.rows, self.entries) = (Some(rows), values.len() as u64);
        let len = self.chunk_len().max(1);
        let count = values.len().div_ceil(len);
        let part = |k: usize| k * len..values.len().min((k + 1) * len);
        match values {
            Values::Str(strings) => self.chunks(count, 1, |k| {
                let mut chunk: Vec<&str> = strings[part(k)].iter().map(String::as_str).collect();
                chunk.resize(len, "");
                Cow::Owned(text::encode(chunk.into_iter()))
            }),
            other => {
                let (bytes, size) = (numbers::to_le(other), self.size());
                self.chunks(count, size, |k| {
                    let mut chunk = Cow::Borrowed(&bytes[part(k).start * size..part(k).end * size]);
                    if chunk.len() < len * size {
                        chunk.to_mut().resize(len * size, 0);
                    }
                    chunk
                })
            }
        }
    }

    fn size(&self) -> usize {
        self.dtype.size().unwrap_or(1)
    }

    /// Entries of a chunk.
    fn chunk_len(&self) -> usize {
        (self.chunk[0] as usize) * self.row
    }

    /// Compresses and writes the next chunks, side by side.
    fn chunks<'b>(&mut self, count: usize, size: usize, bytes: impl Fn(usize) -> Cow<'b, [u8]> + Sync) -> Result<()> {
        let (shared, next, axes) = (&self.shared, self.next, self.shape.len());
        let write = |k: usize| shared.chunk(&self.path, &self.folder, next + k as u64, axes, &bytes(k), size);
        // The folder of the first chunk must be there before others are put into it.
        let first = usize::from(next == 0).min(count);
        (0..first).try_for_each(write)?;
        (first..count).into_par_iter().try_for_each(write)?;
        self.next += count as u64;
        Ok(())
    }

    /// Writes all full chunks (or, at the end, the last one too, padded).
    fn flush(&mut self, last: bool) -> Result<()> {
        let (len, size) = (self.chunk_len(), self.size());
        if len == 0 {
            return Ok(());
        }
        match std::mem::replace(&mut self.waiting, Waiting::Bytes(Vec::new())) {
            Waiting::Bytes(mut bytes) => {
                let chunk = len * size;
                if last {
                    bytes.resize(bytes.len().next_multiple_of(chunk), 0);
                }
                let count = bytes.len() / chunk;
                self.chunks(count, size, |k| Cow::Borrowed(&bytes[k * chunk..][..chunk]))?;
                bytes.drain(..count * chunk);
                self.waiting = Waiting::Bytes(bytes);
            }
            Waiting::Strings(mut strings) => {
                if last {
                    strings.resize(strings.len().next_multiple_of(len), String::new());
                }
                let count = strings.len() / len;
                self.chunks(count, 1, |k| Cow::Owned(text::encode(strings[k * len..][..len].iter().map(String::as_str))))?;
                strings.drain(..count * len);
                self.waiting = Waiting::Strings(strings);
            }
        }
        Ok(())
    }
}

impl ArrayStream for ZarrStream {
    fn append(&mut self, values: &Values) -> Result<()> {
        if values.dtype() != self.dtype {
            return Err(Error::bug(format!("{}: {} appended to {}", self.path, values.dtype(), self.dtype)));
        }
        self.entries += values.len() as u64;
        let batch = (BATCH * self.chunk_len()).max(1);
        if let (Waiting::Strings(strings), Values::Str(more)) = (&mut self.waiting, values) {
            strings.extend_from_slice(more);
            return if strings.len() >= batch { self.flush(false) } else { Ok(()) };
        }
        // Some chunks at a time, so that a large array is not held twice.
        let batch = batch * self.size();
        for part in numbers::to_le(values).chunks(batch) {
            if let Waiting::Bytes(bytes) = &mut self.waiting {
                bytes.extend_from_slice(part);
                if bytes.len() >= batch {
                    self.flush(false)?;
                }
            }
        }
        Ok(())
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.flush(true)?;
        let rows = match (self.rows, self.row as u64) {
            (Some(rows), _) => rows,
            (None, 0) => 0,
            (None, row) if self.entries.is_multiple_of(row) => self.entries / row,
            (None, row) => return Err(Error::bug(format!("{}: {} entries are no whole rows of {row}", self.path, self.entries))),
        };
        let mut shape = self.shape.clone();
        shape[0] = rows;
        self.shared.array_documents(&self.path, self.dtype, &shape, &self.chunk, std::mem::take(&mut self.attrs))
    }
}

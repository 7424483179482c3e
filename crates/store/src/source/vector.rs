//! A vector of numbers on disk, read by ranges from any thread.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Pod;
use cellmill_matrix::{DType, Error, Place, Result, Streams};

use super::cache::{self, Cache};
use crate::element::{join, place};
use crate::numbers;
use crate::tree::{Chunks, Tree};

thread_local! {
    /// Compressed bytes, and one decoded chunk that has to be converted.
    static SCRATCH: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Chunks of a vector that is read from its start to its end that are asked for at a time, where requests take their time.
const AHEAD: u64 = 64;

/// Writes numbers of a type into `out`, from their little-endian bytes.
type Convert<T> = fn(DType, &[u8], &mut [T]);

pub(crate) struct Vector {
    chunks: Box<dyn Chunks>,
    place: Place,
    dtype: DType,
    len: u64,
    chunk: u64,
    cache: Cache,
    read: AtomicU64,
    decoded: AtomicU64,
}

impl Vector {
    /// A vector of a group.
    pub fn open(tree: &dyn Tree, group: &str, name: &str) -> Result<Vector> {
        let path = join(group, name);
        let place = place(tree, &path);
        let chunks = tree.chunks(&path)?;
        let info = chunks.info();
        let (Some(dtype), [len], [chunk]) = (info.dtype, &info.shape[..], &info.chunk[..]) else {
            return Err(Error::invalid(place, format!("{} of shape {:?}", info.dtype_name, info.shape), "a vector of numbers is expected"));
        };
        if dtype == DType::Str || *chunk == 0 {
            return Err(Error::invalid(place, format!("entries of type {dtype}"), "a vector of numbers is expected"));
        }
        let (len, chunk) = (*len, *chunk);
        let bytes = chunk * dtype.size().unwrap_or(1) as u64;
        let (read, decoded) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Vector { chunks, place, dtype, len, chunk, cache: Cache::new(bytes), read, decoded })
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub fn bytes_decoded(&self) -> u64 {
        self.decoded.load(Ordering::Relaxed)
    }

    fn size(&self) -> usize {
        self.dtype.size().unwrap_or(1)
    }

    fn chunk_bytes(&self) -> u64 {
        self.chunk * self.size() as u64
    }

    /// Memory besides the results: kept chunks, and a compressed and a decoded one for each thread.
    pub fn overhead_bytes(&self, n_threads: usize) -> u64 {
        let chunk = self.chunk_bytes();
        let cached = cache::kept(chunk, 1, n_threads).min(self.chunks.n_chunks()) + 4;
        chunk * (cached + 2 * n_threads as u64)
    }

    fn count(&self, read: u64, decoded: u64) {
        self.read.fetch_add(read, Ordering::Relaxed);
        self.decoded.fetch_add(decoded, Ordering::Relaxed);
    }

    /// Chunks of entries that are not at hand.
    fn lacks(&self, range: &Range<u64>) -> Range<u64> {
        self.cache.lacks(range.start / self.chunk..range.end.min(self.len).div_ceil(self.chunk))
    }

    /// Entries that will be read soon.
    pub fn will_read(&self, range: Range<u64>) {
        if range.start < range.end {
            self.chunks.will_decode(self.lacks(&range));
        }
    }

    /// Entries that are read next.
    pub fn gather(&self, range: &Range<u64>) {
        if range.start < range.end && self.chunks.held_bytes() > 0 {
            self.chunks.gather(self.lacks(range));
        }
    }

    /// Bytes that are held at most of what was fetched ahead, over all arrays of the store.
    pub fn held_bytes(&self) -> u64 {
        self.chunks.held_bytes()
    }

    /// Reads entries `range` into `out`, which is as long. `same` lists the types whose bytes are `T`'s own.
    pub fn read<T: Pod>(&self, range: Range<u64>, out: &mut [T], same: &[DType], convert: Convert<T>) -> Result<()> {
        if range.end > self.len || range.end < range.start || out.len() as u64 != range.end - range.start {
            return Err(Error::bug(format!("entries {range:?} of {} into {}", self.len, out.len())));
        }
        self.gather(&range);
        let direct = cfg!(target_endian = "little") && same.contains(&self.dtype);
        let size = self.size();
        let mut at = range.start;
        while at < range.end {
            let i = at / self.chunk;
            let (first, last) = (i * self.chunk, (i + 1) * self.chunk);
            let end = last.min(range.end);
            let part = &mut out[(at - range.start) as usize..(end - range.start) as usize];
            if at == first && end == last.min(self.len) {
                SCRATCH.with_borrow_mut(|(stored, decoded)| -> Result<()> {
                    let read = if direct && end == last {
                        self.chunks.decode_into(i, stored, bytemuck::cast_slice_mut(part))?
                    } else {
                        let read = self.chunks.decode(i, stored, decoded)?;
                        convert(self.dtype, &decoded[..part.len() * size], part);
                        read
                    };
                    self.count(read, self.chunk_bytes());
                    Ok(())
                })?;
            } else {
                let decode = |bytes: &mut Vec<u8>| {
                    let read = SCRATCH.with_borrow_mut(|(stored, _)| self.chunks.decode(i, stored, bytes))?;
                    self.count(read, self.chunk_bytes());
                    Ok(())
                };
                let span = (at - first) as usize * size..(end - first) as usize * size;
                let entries = last.min(self.len) - first;
                self.cache.with(i, end - at, entries, decode, |bytes| convert(self.dtype, &bytes[span], part))?;
            }
            at = end;
        }
        Ok(())
    }

    /// Entries of a chunk.
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Reads a chunk as it is stored; whoever asks decodes it.
    pub fn read_stored(&self, i: u64, bytes: &mut Vec<u8>) -> Option<Streams> {
        let streams = self.chunks.read_stored(i, bytes)?;
        self.count(bytes.len() as u64, self.chunk_bytes());
        Some(streams)
    }

    /// Hands the whole vector on as u64, a chunk at a time and in order.
    pub fn each_u64(&self, mut take: impl FnMut(u64, &[u64]) -> Result<()>) -> Result<()> {
        let (mut stored, mut bytes, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        let n = self.chunks.n_chunks();
        for i in 0..n {
            if self.chunks.held_bytes() > 0 && i.is_multiple_of(AHEAD / 2) {
                self.chunks.will_decode(i..(i + AHEAD).min(n));
            }
            let first = i * self.chunk;
            let entries = (self.chunk.min(self.len - first)) as usize;
            let read = self.chunks.decode(i, &mut stored, &mut bytes)?;
            self.count(read, bytes.len() as u64);
            numbers.clear();
            if numbers::to_u64(self.dtype, &bytes[..entries * self.size()], &mut numbers).is_none() {
                let rows = first..first + entries as u64;
                let found = format!("a negative number, or numbers of type {}", self.dtype);
                return Err(Error::invalid(self.place.clone().rows(rows), found, "whole numbers from 0 on are expected"));
            }
            take(first, &numbers)?;
        }
        Ok(())
    }
}

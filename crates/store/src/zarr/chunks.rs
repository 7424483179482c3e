//! An array decoded chunk by chunk; inner chunks of shards are read by the shard's index, never whole shards.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cellmill_matrix::{Array, DType, Error, Place, Result, Streams, Values};
use rayon::prelude::*;
use zarrs::array::{ArrayBytes, CodecOptions};

use super::codec::{checked, plausible};
use super::foreign::{Foreign, Keyed};
use super::metadata::{Entry, Layout};
use super::size::stored_bytes;
use super::{stored, text};
use crate::element::join;
use crate::numbers;
use crate::objects::{Found, Objects, Span, When};
use crate::tree::{ArrayInfo, Chunks};

/// Decodes one chunk and hands its entries on.
type Decode<'a, T> = dyn Fn(u64, &mut dyn FnMut(&[T])) -> Result<()> + Sync + 'a;

/// Arrays and chunks up to this size may consist of missing chunks alone.
const FREE: u64 = 2 << 30;
/// A larger array may be so many times larger than what is stored of it.
const MOST_PADDING: u64 = 1000;
/// Shard indexes kept.
const INDEXES: usize = 32;
/// In a shard's index: no such chunk (zarr 3.0, sharding codec).
const NO_CHUNK: u64 = u64::MAX;

/// Offsets and lengths of a shard's inner chunks, C order; empty when the shard is missing.
type ShardIndex = Arc<Vec<[u64; 2]>>;

/// One array of a zarr store.
pub struct ZarrChunks {
    objects: Arc<dyn Objects>,
    place: Place,
    path: String,
    layout: Layout,
    grid: Vec<u64>,
    indexes: Mutex<Vec<(u64, ShardIndex)>>,
    foreign: OnceLock<std::result::Result<Foreign, String>>,
}

thread_local! {
    static BUFFERS: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl ZarrChunks {
    pub(crate) fn new(objects: Arc<dyn Objects>, place: Place, path: &str, layout: Layout) -> Self {
        let grid = layout.grid();
        let path = path.to_string();
        let (indexes, foreign) = (Mutex::new(Vec::new()), OnceLock::new());
        ZarrChunks { objects, place, path, layout, grid, indexes, foreign }
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self.layout.entry, Entry::Number(_) | Entry::Half)
    }

    /// Bytes of a chunk as its codecs leave it.
    fn chunk_bytes(&self) -> u64 {
        self.layout.chunk_len() * self.layout.entry.size().unwrap_or(1) as u64
    }

    fn coordinates(&self, mut i: u64) -> Vec<u64> {
        let mut at = vec![0; self.grid.len()];
        for (place, n) in at.iter_mut().zip(&self.grid).rev() {
            *place = i % n.max(&1);
            i /= n.max(&1);
        }
        at
    }

    /// Where chunk `i` lies, for messages.
    fn chunk_place(&self, i: u64) -> Place {
        let at = self.coordinates(i);
        match (at.first(), self.layout.info.chunk.first(), self.layout.info.shape.first()) {
            (Some(at), Some(chunk), Some(n)) => self.place.clone().rows(at * chunk..((at + 1) * chunk).min(*n)),
            _ => self.place.clone(),
        }
    }

    fn damaged(&self, i: u64, what: impl Into<String>) -> Error {
        let codec = &self.layout.info.codec;
        let expected = format!("a whole chunk ({codec}) is expected; the store is damaged, copy it again from its source");
        Error::invalid(self.chunk_place(i), what, expected)
    }

    fn io(&self, i: u64, error: &std::io::Error) -> Error {
        Error::io(self.chunk_place(i), error)
    }

    /// Where chunk `i` is stored; `None` when its shard's index has no place for it.
    fn stored(&self, i: u64) -> Result<Option<(String, Span)>> {
        let Some(shard) = &self.layout.info.shard else {
            // A chunk that is stored much larger than what is in it is none.
            let most = if self.layout.entry.size().is_some() { self.chunk_bytes().saturating_mul(2) + (1 << 16) } else { u64::MAX };
            return Ok(Some((self.object(&self.coordinates(i)), Span::All { most })));
        };
        let (shards, number, inner) = self.in_shard(i, shard);
        let name = self.object(&shards);
        let index = self.index(i, number, &name)?;
        let there = index.get(inner as usize).filter(|found| **found != [NO_CHUNK, NO_CHUNK]);
        Ok(there.map(|&[at, len]| (name, Span::Part { at, len })))
    }

    /// The object of a chunk, or of a shard.
    fn object(&self, at: &[u64]) -> String {
        join(&self.path, &self.layout.keys.key(at))
    }

    /// Reads the stored bytes of chunk `i`; `false` when there are none.
    fn fetch(&self, i: u64, into: &mut Vec<u8>) -> Result<bool> {
        into.clear();
        let Some((name, span)) = self.stored(i)? else { return Ok(false) };
        match (self.objects.read(&name, span, into).map_err(|e| self.io(i, &e))?, span) {
            (Found::Whole, _) => Ok(true),
            (Found::Absent, Span::All { .. }) => Ok(false),
            (Found::Absent, _) => Err(self.damaged(i, "a shard that is gone")),
            (Found::Other(size), Span::Part { at, len }) => {
                Err(self.damaged(i, format!("a shard of {size} bytes whose index points to {at} + {len}")))
            }
            (Found::Other(size), _) => Err(self.damaged(i, format!("{size} bytes on disk for a chunk of {}", self.chunk_bytes()))),
        }
    }

    /// The grid coordinates of a chunk's shard, the shard's number, and the number of the chunk inside it (zarr 3.0, sharding codec: C
    /// order both).
    fn in_shard(&self, i: u64, shard: &[u64]) -> (Vec<u64>, u64, u64) {
        let at = self.coordinates(i);
        let (mut number, mut inner, mut shards) = (0, 0, Vec::with_capacity(at.len()));
        for ((a, s), (c, n)) in at.iter().zip(shard).zip(self.layout.info.chunk.iter().zip(&self.layout.info.shape)) {
            let per = s / c;
            shards.push(a / per);
            number = number * n.div_ceil(*s) + a / per;
            inner = inner * per + a % per;
        }
        (shards, number, inner)
    }

    /// A shard's index, read once while it is in use.
    fn index(&self, i: u64, number: u64, name: &str) -> Result<ShardIndex> {
        let lock = || self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, index)) = lock().iter().find(|(n, _)| *n == number) {
            return Ok(index.clone());
        }
        let index = Arc::new(self.read_index(i, name)?);
        let mut kept = lock();
        if kept.len() >= INDEXES {
            kept.remove(0);
        }
        kept.push((number, index.clone()));
        Ok(index)
    }

    fn read_index(&self, i: u64, name: &str) -> Result<Vec<[u64; 2]>> {
        let (Some(sharding), Some(shard)) = (&self.layout.sharding, &self.layout.info.shard) else { return Ok(Vec::new()) };
        let inner = shard.iter().product::<u64>() / self.layout.chunk_len();
        let len = 16 * inner + if sharding.index_crc { 4 } else { 0 };
        let span = if sharding.index_at_end { Span::Last(len) } else { Span::Part { at: 0, len } };
        let mut bytes = Vec::new();
        match self.objects.read(name, span, &mut bytes).map_err(|e| self.io(i, &e))? {
            Found::Whole => {}
            Found::Absent => return Ok(Vec::new()),
            Found::Other(size) => return Err(self.damaged(i, format!("a shard of {size} bytes, its index alone needs {len}"))),
        }
        let body = if sharding.index_crc { checked(&bytes).map_err(|e| self.damaged(i, format!("shard index: {e}")))? } else { &bytes };
        let pairs = body.as_chunks::<16>().0.iter();
        Ok(pairs
            .map(|pair| {
                let number = |at: usize| pair[at..at + 8].iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
                [number(0), number(8)]
            })
            .collect())
    }

    /// Says that chunks will be decoded. Whatever fails here fails again, with its message, when they are.
    fn announce(&self, chunks: Range<u64>, when: When) {
        let mut shard: Option<(String, Vec<Span>)> = None;
        for i in chunks {
            let Ok(Some((name, span))) = self.stored(i) else { continue };
            match &mut shard {
                Some((same, spans)) if *same == name => spans.push(span),
                other => {
                    if let Some((name, spans)) = other.replace((name, vec![span])) {
                        self.objects.will_read(&name, &spans, when);
                    }
                }
            }
        }
        if let Some((name, spans)) = shard {
            self.objects.will_read(&name, &spans, when);
        }
    }

    /// The array as `zarrs` sees it, for the codecs that are not ours.
    fn foreign(&self) -> Result<&Foreign> {
        let open = || Foreign::open(Arc::new(Keyed(self.objects.clone())), &format!("/{}", self.path)).map_err(|e| e.to_string());
        self.foreign.get_or_init(open).as_ref().map_err(|e| {
            Error::invalid(
                self.place.clone(),
                e.as_str(),
                "blosc, zstd, lz4, gzip, zlib and uncompressed chunks can be read; write the store anew with one of them",
            )
        })
    }

    fn options() -> CodecOptions {
        CodecOptions::default().with_concurrent_target(1)
    }

    fn decode_foreign(&self, i: u64, out: &mut [u8]) -> Result<u64> {
        let fail = |e: String| self.damaged(i, e);
        let bytes = self.foreign()?.retrieve_chunk_opt::<ArrayBytes<'static>>(&self.coordinates(i), &Self::options());
        let bytes = bytes.map_err(|e| fail(e.to_string()))?.into_fixed().map_err(|e| fail(e.to_string()))?;
        if bytes.len() != out.len() {
            return Err(fail(format!("{} bytes where {} are due", bytes.len(), out.len())));
        }
        out.copy_from_slice(&bytes);
        if cfg!(target_endian = "big") && self.is_number() {
            out.chunks_exact_mut(self.layout.entry.size().unwrap_or(1)).for_each(<[u8]>::reverse);
        }
        Ok(bytes.len() as u64)
    }

    fn fill(&self, out: &mut [u8]) {
        if self.layout.fill.iter().all(|b| *b == 0) {
            out.fill(0);
        } else {
            out.chunks_exact_mut(self.layout.fill.len()).for_each(|entry| entry.copy_from_slice(&self.layout.fill));
        }
    }

    /// Decodes fetched bytes (or fills), into memory of the right size.
    fn finish(&self, i: u64, there: bool, stored: &[u8], out: &mut [u8]) -> Result<()> {
        match &self.layout.chain {
            Some(chain) if there => chain.decode_exact(stored, out).map_err(|e| self.damaged(i, e)),
            _ => {
                self.fill(out);
                Ok(())
            }
        }
    }

    /// Decodes chunk `i` into memory of the size in which its codecs leave it.
    fn decode_plain(&self, i: u64, scratch: &mut Vec<u8>, out: &mut [u8]) -> Result<u64> {
        if self.layout.chain.is_none() {
            return self.decode_foreign(i, out);
        }
        let there = self.fetch(i, scratch)?;
        self.finish(i, there, scratch, out)?;
        Ok(if there { scratch.len() as u64 } else { 0 })
    }

    /// Decodes chunk `i` of strings of any kind.
    fn decode_text(&self, i: u64) -> Result<Vec<String>> {
        let len = self.layout.chunk_len() as usize;
        if self.layout.entry != Entry::Text {
            let (mut scratch, mut bytes) = (Vec::new(), Vec::new());
            self.decode(i, &mut scratch, &mut bytes)?;
            let mut strings = text::fixed(self.layout.entry, &bytes);
            strings.resize(len, String::new());
            return Ok(strings);
        }
        let Some(chain) = &self.layout.chain else {
            let strings = self.foreign()?.retrieve_chunk_opt::<Vec<String>>(&self.coordinates(i), &Self::options());
            return strings.map_err(|e| self.damaged(i, e.to_string()));
        };
        let mut stored = Vec::new();
        if self.fetch(i, &mut stored)? {
            let bytes = chain.decode_any(&stored).map_err(|e| self.damaged(i, e))?;
            return text::decode(&bytes, len).map_err(|e| self.damaged(i, e));
        }
        let fill = String::from_utf8_lossy(&self.layout.fill).into_owned();
        let mut strings = Vec::new();
        strings.try_reserve(len).map_err(|_| self.damaged(i, format!("a chunk of {len} strings")))?;
        strings.resize(len, fill);
        Ok(strings)
    }

    /// The whole array.
    pub(crate) fn read(&self) -> Result<Array> {
        let shape = self.layout.info.shape.iter().map(|n| *n as usize).collect();
        let values = self.read_rows(0..self.layout.info.shape.first().copied().unwrap_or(1))?;
        Ok(Array { shape, values })
    }

    /// Rows of the first axis; a scalar has one.
    pub(crate) fn read_rows(&self, rows: Range<u64>) -> Result<Values> {
        let info = &self.layout.info;
        let Some(dtype) = info.dtype else {
            return Err(Error::invalid(
                self.place.clone(),
                format!("entries of type {}", info.dtype_name),
                "numbers, booleans or strings are expected",
            ));
        };
        let n_rows = info.shape.first().copied().unwrap_or(1);
        if rows.start > rows.end || rows.end > n_rows {
            return Err(Error::bug(format!("{}: rows {rows:?} of {n_rows}", self.path)));
        }
        if let Some(&chunk) = info.chunk.first() {
            let across: u64 = self.grid.iter().skip(1).product();
            self.gather(rows.start / chunk * across..rows.end.div_ceil(chunk) * across);
        }
        let row: u64 = info.shape.iter().skip(1).product();
        let len = (rows.end - rows.start) * row;
        let size = if dtype == DType::Str { size_of::<String>() } else { dtype.size().unwrap_or(1) };
        let bytes = len.checked_mul(size as u64);
        let refuse = || {
            let found = format!("shape {:?} of {}, far more than is stored", info.shape, info.dtype_name);
            Error::invalid(self.place.clone(), found, "the shape fits the chunks on disk; the metadata are damaged")
        };
        let bytes = bytes
            .filter(|b| {
                *b <= FREE
                    || *b - FREE <= stored_bytes(&*self.objects, &self.path, &self.layout, 4096).unwrap_or(0).saturating_mul(MOST_PADDING)
            })
            .ok_or_else(refuse)?;
        if len == 0 {
            return Ok(if dtype == DType::Str { Values::Str(Vec::new()) } else { numbers::from_le(dtype, &[]) });
        }
        if dtype == DType::Str {
            let mut out: Vec<String> = Vec::new();
            out.try_reserve_exact(len as usize).map_err(|_| refuse())?;
            out.resize(len as usize, String::new());
            self.assemble(&mut out, rows, row as usize, 1, &|i, use_chunk| {
                let strings = self.decode_text(i)?;
                use_chunk(&strings);
                Ok(())
            })?;
            return Ok(Values::Str(out));
        }
        let mut out: Vec<u8> = Vec::new();
        out.try_reserve_exact(bytes as usize).map_err(|_| refuse())?;
        out.resize(bytes as usize, 0);
        self.assemble(&mut out, rows, row as usize * size, size, &|i, use_chunk| {
            let (mut scratch, mut chunk) = BUFFERS.take();
            self.decode(i, &mut scratch, &mut chunk)?;
            use_chunk(&chunk);
            BUFFERS.set((scratch, chunk));
            Ok(())
        })?;
        Ok(numbers::from_le(dtype, &out))
    }

    /// Puts the chunks that cover `rows` together: `row` items a row, `unit` items an entry.
    fn assemble<T: Clone + Send + Sync>(
        &self,
        out: &mut [T],
        rows: Range<u64>,
        row: usize,
        unit: usize,
        decode: &Decode<'_, T>,
    ) -> Result<()> {
        let info = &self.layout.info;
        if info.shape.is_empty() {
            return decode(0, &mut |chunk| out.clone_from_slice(&chunk[..out.len()]));
        }
        let across: u64 = self.grid.iter().skip(1).product();
        let mut slabs = Vec::new();
        let mut rest = out;
        let mut at = rows.start;
        while at < rows.end {
            let slab = at / info.chunk[0];
            let end = ((slab + 1) * info.chunk[0]).min(rows.end);
            let (here, there) = rest.split_at_mut((end - at) as usize * row);
            slabs.push((slab, at..end, here));
            rest = there;
            at = end;
        }
        slabs.into_par_iter().try_for_each(|(slab, rows, out)| {
            for i in slab * across..(slab + 1) * across {
                let corner = self.coordinates(i);
                decode(i, &mut |chunk| place(chunk, &info.chunk, &corner, &info.shape, &rows, out, unit))?;
            }
            Ok(())
        })
    }
}

/// Copies the part of a chunk that lies in `rows` to its place among those rows.
fn place<T: Clone>(chunk: &[T], lengths: &[u64], corner: &[u64], shape: &[u64], rows: &Range<u64>, out: &mut [T], unit: usize) {
    let axes = shape.len();
    let last = axes - 1;
    // First and past-the-last index of this chunk on each axis.
    let bounds: Vec<(u64, u64)> = (0..axes)
        .map(|a| {
            let from = corner[a] * lengths[a];
            let to = (from + lengths[a]).min(shape[a]);
            if a == 0 { (from.max(rows.start), to.min(rows.end)) } else { (from, to) }
        })
        .collect();
    if bounds.iter().any(|(from, to)| from >= to) {
        return;
    }
    let run = (bounds[last].1 - bounds[last].0) as usize * unit;
    let mut at: Vec<u64> = bounds.iter().map(|b| b.0).collect();
    loop {
        let (mut source, mut target) = (0u64, 0u64);
        for a in 0..axes {
            source = source * lengths[a] + at[a] - corner[a] * lengths[a];
            target = target * shape[a] + at[a] - if a == 0 { rows.start } else { 0 };
        }
        let (source, target) = (source as usize * unit, target as usize * unit);
        out[target..target + run].clone_from_slice(&chunk[source..source + run]);
        let mut axis = last;
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            at[axis] += 1;
            if at[axis] < bounds[axis].1 {
                break;
            }
            at[axis] = bounds[axis].0;
        }
    }
}

impl Chunks for ZarrChunks {
    fn info(&self) -> &ArrayInfo {
        &self.layout.info
    }

    fn n_chunks(&self) -> u64 {
        self.grid.iter().product()
    }

    fn will_decode(&self, chunks: Range<u64>) {
        self.announce(chunks, When::Soon);
    }

    fn gather(&self, chunks: Range<u64>) {
        if self.objects.is_far() {
            self.announce(chunks, When::Now);
        }
    }

    fn held_bytes(&self) -> u64 {
        self.objects.held_bytes()
    }

    fn decode(&self, i: u64, scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<u64> {
        let bytes = self.chunk_bytes();
        let there = self.layout.chain.is_some() && self.fetch(i, scratch)?;
        let refuse = || self.damaged(i, format!("{} bytes on disk for a chunk of {bytes}", scratch.len()));
        if bytes > FREE && !(there && plausible(bytes, scratch.len() as u64)) {
            return Err(refuse());
        }
        let more = (bytes as usize).saturating_sub(out.len());
        out.try_reserve(more).map_err(|_| refuse())?;
        out.resize(bytes as usize, 0);
        let read = if self.layout.chain.is_none() {
            self.decode_foreign(i, out)?
        } else {
            self.finish(i, there, scratch, out)?;
            if there { scratch.len() as u64 } else { 0 }
        };
        if self.layout.entry == Entry::Half {
            numbers::widen_all(out);
        }
        Ok(read)
    }

    fn decode_into(&self, i: u64, scratch: &mut Vec<u8>, out: &mut [u8]) -> Result<u64> {
        let half = self.layout.entry == Entry::Half;
        let due = self.chunk_bytes() * if half { 2 } else { 1 };
        if out.len() as u64 != due {
            return Err(Error::bug(format!("chunk {i} of {} needs {due} bytes, not {}", self.path, out.len())));
        }
        if half {
            let narrow = out.len() / 2;
            let read = self.decode_plain(i, scratch, &mut out[..narrow])?;
            numbers::widen(out);
            return Ok(read);
        }
        self.decode_plain(i, scratch, out)
    }
    fn read_stored(&self, i: u64, bytes: &mut Vec<u8>) -> Option<Streams> {
        let (chain, size) = (self.layout.chain.as_ref().filter(|chain| chain.swap == 1)?, self.layout.entry.size()?);
        let len = usize::try_from(self.chunk_bytes()).ok().filter(|_| matches!(self.layout.entry, Entry::Number(_)))?;
        if !stored::fit(&chain.codecs) || !self.fetch(i, bytes).ok()? {
            return None;
        }
        stored::streams(&chain.codecs, bytes, len, size)
    }
}

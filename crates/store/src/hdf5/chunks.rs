//! The stored bytes of a dataset, chunk by chunk.

use std::ops::Range;
use std::sync::Arc;

use cellmill_matrix::{Error, Place, Result};
use hdf5_pure::{ChunkIndex, Dataset, Filter, Layout};

use super::filter;
use super::kind::{Kind, swap_bytes};
use super::raw::RawFile;
use super::tree::guard;
use crate::numbers::widen_all;
use crate::objects::When;
use crate::tree::{ArrayInfo, Chunks};

/// Bytes of a piece of an array that is stored in one run.
const PIECE: u64 = 1 << 20;

/// Where one chunk lies.
#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    size: u64,
    mask: u32,
}

#[derive(Debug)]
enum Stored {
    /// The object header holds the bytes.
    Inline(Vec<u8>),
    /// One run at this address.
    Run(u64),
    /// Chunks, in C order over the grid.
    Grid(Vec<Entry>),
}

/// A dataset of an HDF5 file, decoded chunk by chunk from any thread. No lock is taken.
#[derive(Debug)]
pub struct Hdf5Chunks {
    info: ArrayInfo,
    path: String,
    file: Arc<RawFile>,
    filters: Vec<Filter>,
    stored: Stored,
    /// Bytes an entry, as stored.
    size: usize,
    /// Bytes a chunk, as its filters leave it.
    chunk_bytes: usize,
    kind: Kind,
}

impl Hdf5Chunks {
    /// Finds the chunks of a dataset. Reads the chunk list, no data.
    pub(super) fn new(file: &Arc<RawFile>, path: &str, dataset: &Dataset, info: ArrayInfo, kind: Kind) -> Result<Self> {
        let place = || file.place(path);
        let size = guard(place, || dataset.element_size())?;
        let layout = guard(place, || dataset.layout())?;
        let filters = dataset.filter_pipeline();
        if let Some(name) = filter::unknown(&filters) {
            return Err(Error::invalid(
                place(),
                format!("compressed by {name}"),
                "only gzip, lzf, zstd, lz4, blosc, shuffle and fletcher32 can be read; rewrite the file with gzip",
            ));
        }
        let too_big = || Error::invalid(place(), format!("shape {:?} of {size} bytes", info.shape), "an array fits into 2^63 bytes");
        let product = |lengths: &[u64]| {
            lengths.iter().try_fold(size, |all, &n| all.checked_mul(n)).filter(|&b| b <= i64::MAX as u64).ok_or_else(too_big)
        };
        let total = product(&info.shape)?;
        let chunk_bytes = product(&info.chunk)?;
        let stored = match layout {
            _ if total == 0 => Stored::Grid(Vec::new()),
            Layout::Compact { size: inline } => {
                if inline < total {
                    return Err(short(place(), inline, total));
                }
                Stored::Inline(guard(place, || dataset.read_raw())?)
            }
            Layout::Contiguous { address: Some(address), size: run } => {
                if run < total {
                    return Err(short(place(), run, total));
                }
                file.check(address, total, place)?;
                Stored::Run(address)
            }
            Layout::Contiguous { address: None, .. } => {
                return Err(Error::invalid(place(), "an array that was never written", "its bytes are stored"));
            }
            Layout::Chunked { index: ChunkIndex::BTreeV2, .. } => {
                return Err(Error::invalid(
                    place(),
                    "a list of chunks (a version 2 B-tree) that can't be understood",
                    "it is sound and has fewer than 4 million chunks; rewrite the file with anndata (`adata.write_h5ad`) or `h5repack`",
                ));
            }
            Layout::Chunked { .. } => {
                let listed = guard(place, || dataset.chunks())?;
                Stored::Grid(grid(&info, file, place, listed)?)
            }
            _ => {
                return Err(Error::invalid(
                    place(),
                    "an array that lies in other files (virtual or external)",
                    "its bytes are in this file; copy it with `h5repack`",
                ));
            }
        };
        if chunk_bytes > u64::from(u32::MAX) && !filters.is_empty() {
            return Err(Error::invalid(place(), format!("chunks of {chunk_bytes} bytes"), "an HDF5 chunk has at most 2^32 - 1 bytes"));
        }
        let chunk_bytes = usize::try_from(chunk_bytes).map_err(|_| too_big())?;
        let size = usize::try_from(size).map_err(|_| too_big())?;
        let chunks = Hdf5Chunks { info, path: path.to_string(), file: file.clone(), filters, stored, size, chunk_bytes, kind };
        if let Stored::Grid(entries) = &chunks.stored
            && chunks.filters.is_empty()
            && let Some(i) = entries.iter().position(|e| e.size != chunk_bytes as u64)
        {
            return Err(short(chunks.place(i as u64), entries[i].size, chunk_bytes as u64));
        }
        Ok(chunks)
    }

    /// Bytes on disk.
    pub(super) fn stored_bytes(&self) -> u64 {
        match &self.stored {
            Stored::Inline(bytes) => bytes.len() as u64,
            Stored::Run(_) => self.info.stored_bytes.unwrap_or(0),
            Stored::Grid(entries) => entries.iter().fold(0, |all, e| all + e.size),
        }
    }

    /// Lengths of the axes.
    pub(super) fn info_shape(&self) -> &[u64] {
        &self.info.shape
    }

    /// What the entries mean.
    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Bytes an entry, as stored.
    pub(super) fn entry_bytes(&self) -> usize {
        self.size
    }

    /// Lengths of the grid of chunks.
    fn grid_shape(&self) -> Vec<u64> {
        self.info.shape.iter().zip(&self.info.chunk).map(|(&n, &c)| n.div_ceil(c)).collect()
    }

    /// Rows that chunk `i` covers.
    fn rows(&self, i: u64) -> Range<u64> {
        let (Some(&n), Some(&c)) = (self.info.shape.first(), self.info.chunk.first()) else { return 0..1 };
        let across: u64 = self.grid_shape()[1..].iter().product::<u64>().max(1);
        let start = (i / across).saturating_mul(c).min(n);
        start..start.saturating_add(c).min(n)
    }

    fn place(&self, i: u64) -> Place {
        self.file.place(&self.path).rows(self.rows(i))
    }

    /// Bytes of one row (one entry of the first axis).
    pub(super) fn row_bytes(&self) -> usize {
        self.info.shape.get(1..).unwrap_or(&[]).iter().product::<u64>() as usize * self.size
    }

    /// The entries of these rows, C order, as bytes (little-endian numbers, float16 as it is).
    pub(super) fn read_rows(&self, rows: Range<u64>) -> Result<Vec<u8>> {
        let n_rows = self.info.shape.first().copied().unwrap_or(1);
        if rows.start > rows.end || rows.end > n_rows {
            return Err(Error::invalid(self.file.place(&self.path).rows(rows), "rows out of range", format!("there are {n_rows} rows")));
        }
        let row_bytes = self.row_bytes();
        let mut out = Vec::new();
        if rows.is_empty() || row_bytes == 0 {
            return Ok(out);
        }
        let grid = self.grid_shape();
        let across: u64 = grid.get(1..).unwrap_or(&[]).iter().product();
        let chunk_rows = self.info.chunk.first().copied().unwrap_or(1);
        let total = (rows.end - rows.start) as usize * row_bytes;
        // Memory is taken at once where the stored bytes can hold that much, else as it is filled.
        if total as u64 <= self.most_bytes() {
            out.try_reserve_exact(total).map_err(|_| self.too_large(total))?;
        }
        let (mut scratch, mut chunk) = (Vec::new(), Vec::new());
        let bands = rows.start / chunk_rows..rows.end.div_ceil(chunk_rows);
        self.gather(bands.start * across..bands.end * across);
        for band in bands {
            let first = band * chunk_rows;
            let within = rows.start.max(first) - first..rows.end.min(first + chunk_rows) - first;
            let n = (within.end - within.start) as usize;
            if across == 1 && self.info.chunk.get(1..) == self.info.shape.get(1..) {
                self.decode_plain(band, &mut scratch, &mut chunk)?;
                out.extend_from_slice(&chunk[within.start as usize * row_bytes..within.end as usize * row_bytes]);
                continue;
            }
            let start = out.len();
            let mut filled = false;
            for i in 0..across {
                self.decode_plain(band * across + i, &mut scratch, &mut chunk)?;
                if !filled {
                    out.try_reserve(n * row_bytes).map_err(|_| self.too_large(total))?;
                    out.resize(start + n * row_bytes, 0);
                    filled = true;
                }
                self.place_chunk(i, &grid, &chunk, within.clone(), &mut out[start..]);
            }
        }
        Ok(out)
    }

    /// Decodes chunk `i` as little-endian entries of the size that they have in the file.
    fn decode_plain(&self, i: u64, scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<u64> {
        let place = || self.place(i);
        if i >= self.n_chunks() {
            return Err(Error::bug(format!("chunk {i} of {} in {}", self.n_chunks(), self.path)));
        }
        let read = match &self.stored {
            Stored::Grid(entries) => {
                let entry = entries[i as usize];
                if self.filters.is_empty() {
                    self.file.read_chunk(entry.address, entry.size, out, place)?;
                } else {
                    self.file.read_chunk(entry.address, entry.size, scratch, place)?;
                    filter::undo(&self.filters, entry.mask, scratch, out, self.chunk_bytes).map_err(|found| {
                        Error::invalid(place(), found, "chunks hold what their shape says; the file is damaged, fetch it again")
                    })?;
                }
                entry.size
            }
            Stored::Run(_) | Stored::Inline(_) => {
                // Pieces are cut along the first axis alone.
                let rows = self.rows(i);
                let row_bytes = self.row_bytes();
                let bytes = (rows.end - rows.start) as usize * row_bytes;
                let at = rows.start * row_bytes as u64;
                if out.len() < bytes {
                    out.try_reserve(bytes - out.len()).map_err(|_| self.too_large(bytes))?;
                }
                out.resize(bytes, 0);
                match &self.stored {
                    Stored::Run(address) => self.file.fill(address + at, out, place)?,
                    Stored::Inline(all) => {
                        let from = all.get(at as usize..at as usize + bytes);
                        out.copy_from_slice(from.ok_or_else(|| short(place(), all.len() as u64, at + bytes as u64))?);
                    }
                    Stored::Grid(_) => {}
                }
                out.resize(self.chunk_bytes, 0);
                bytes as u64
            }
        };
        if matches!(self.kind, Kind::Number { big: true, .. } | Kind::Half { big: true }) {
            swap_bytes(out, self.size);
        }
        Ok(read)
    }

    /// Copies a chunk of a band into its place among the band's rows.
    fn place_chunk(&self, i: u64, grid: &[u64], chunk: &[u8], within: Range<u64>, out: &mut [u8]) {
        let rank = self.info.shape.len();
        // Coordinates of the chunk in the grid, first axis left out.
        let mut corner = vec![0u64; rank];
        let mut rest = i;
        for axis in (1..rank).rev() {
            corner[axis] = rest % grid[axis] * self.info.chunk[axis];
            rest /= grid[axis];
        }
        let lengths: Vec<u64> = (0..rank)
            .map(|a| if a == 0 { within.end - within.start } else { self.info.chunk[a].min(self.info.shape[a] - corner[a]) })
            .collect();
        let run = lengths[rank - 1] as usize * self.size;
        let lines: u64 = lengths[..rank - 1].iter().product();
        let mut at = vec![0u64; rank];
        for _ in 0..lines {
            let (mut from, mut to) = (0u64, 0u64);
            for a in 0..rank {
                from = from * self.info.chunk[a] + at[a] + if a == 0 { within.start } else { 0 };
                to = if a == 0 { at[0] } else { to * self.info.shape[a] + corner[a] + at[a] };
            }
            let (from, to) = (from as usize * self.size, to as usize * self.size);
            out[to..to + run].copy_from_slice(&chunk[from..from + run]);
            for a in (0..rank - 1).rev() {
                at[a] += 1;
                if at[a] < lengths[a] {
                    break;
                }
                at[a] = 0;
            }
        }
    }

    /// The most bytes that what is stored can decode to.
    fn most_bytes(&self) -> u64 {
        match &self.stored {
            Stored::Inline(bytes) => bytes.len() as u64,
            Stored::Run(_) => self.file.len,
            Stored::Grid(entries) => {
                let stored = entries.iter().fold(0u64, |all, e| all.saturating_add(e.size));
                if self.filters.is_empty() { stored } else { stored.saturating_mul(filter::MOST_EXPANSION) }
            }
        }
    }

    fn too_large(&self, bytes: usize) -> Error {
        Error::invalid(self.file.place(&self.path), format!("an array of {bytes} bytes"), "fewer fit into memory; the file may be damaged")
    }
}

fn short(place: Place, found: u64, expected: u64) -> Error {
    Error::invalid(place, format!("{found} bytes stored"), format!("the shape needs {expected}; the file is damaged"))
}

/// Address and length of some chunks.
fn stretches(entries: &[Entry], chunks: Range<u64>) -> Vec<(u64, u64)> {
    let chunks = (chunks.start as usize).min(entries.len())..(chunks.end as usize).min(entries.len());
    entries[chunks].iter().map(|e| (e.address, e.size)).collect()
}

/// Puts the chunks of a list in C order over the grid; every chunk has to be there.
fn grid(info: &ArrayInfo, file: &RawFile, place: impl Fn() -> Place, listed: Vec<hdf5_pure::Chunk>) -> Result<Vec<Entry>> {
    let shape: Vec<u64> = info.shape.iter().zip(&info.chunk).map(|(&n, &c)| n.div_ceil(c)).collect();
    let needed = shape.iter().try_fold(1u64, |all, &n| all.checked_mul(n)).unwrap_or(u64::MAX);
    if (listed.len() as u64) < needed {
        return Err(Error::invalid(
            place(),
            format!("{} chunks stored", listed.len()),
            format!(
                "shape {:?} in chunks of {:?} needs {needed}; the file is damaged or was not written to its end",
                info.shape, info.chunk
            ),
        ));
    }
    let mut entries = vec![Entry { address: u64::MAX, size: 0, mask: 0 }; needed as usize];
    for chunk in listed {
        let mut number = Some(0u64);
        for (axis, &offset) in chunk.offset.iter().enumerate() {
            if axis >= shape.len() || offset % info.chunk[axis] != 0 || offset / info.chunk[axis] >= shape[axis] {
                number = None;
                break;
            }
            number = number.map(|n| n * shape[axis] + offset / info.chunk[axis]);
        }
        // Chunks outside the shape are what is left of a larger array.
        if let Some(entry) = number.and_then(|n| entries.get_mut(n as usize)) {
            *entry = Entry { address: chunk.address, size: chunk.storage_size, mask: chunk.filter_mask };
        }
    }
    let across = shape.get(1..).unwrap_or(&[]).iter().product::<u64>().max(1);
    for (i, entry) in entries.iter().enumerate() {
        let rows = || {
            let start = i as u64 / across * info.chunk[0];
            place().rows(start..start.saturating_add(info.chunk[0]).min(info.shape[0]))
        };
        if entry.address == u64::MAX {
            return Err(Error::invalid(
                rows(),
                "a chunk that is missing",
                "every chunk is stored; the file is damaged or was not written to its end",
            ));
        }
        file.check(entry.address, entry.size, rows)?;
    }
    Ok(entries)
}

/// Lengths of the piece in which an array that lies in one run is decoded: whole rows, about 1 MiB.
pub(super) fn piece(shape: &[u64], size: u64) -> Vec<u64> {
    let row = shape.get(1..).unwrap_or(&[]).iter().fold(size.max(1), |all, &n| all.saturating_mul(n)).max(1);
    shape.iter().enumerate().map(|(axis, &n)| if axis == 0 { n.min((PIECE / row).max(1)).max(1) } else { n.max(1) }).collect()
}

impl Chunks for Hdf5Chunks {
    fn info(&self) -> &ArrayInfo {
        &self.info
    }

    fn will_decode(&self, chunks: Range<u64>) {
        match &self.stored {
            Stored::Inline(_) => {}
            Stored::Run(at) => {
                let row_bytes = self.row_bytes() as u64;
                let rows = self.rows(chunks.start).start..self.rows(chunks.end.max(1) - 1).end;
                self.file.ask(&[(at + rows.start * row_bytes, rows.end.saturating_sub(rows.start) * row_bytes)], When::Soon);
            }
            Stored::Grid(entries) => self.file.ask(&stretches(entries, chunks), When::Soon),
        }
    }

    fn gather(&self, chunks: Range<u64>) {
        if let Stored::Grid(entries) = &self.stored {
            self.file.ask(&stretches(entries, chunks), When::Now);
        }
    }

    fn held_bytes(&self) -> u64 {
        self.file.held_bytes()
    }

    fn n_chunks(&self) -> u64 {
        match &self.stored {
            Stored::Grid(entries) => entries.len() as u64,
            Stored::Inline(_) | Stored::Run(_) => self.grid_shape().iter().product(),
        }
    }

    fn decode(&self, i: u64, scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<u64> {
        let read = self.decode_plain(i, scratch, out)?;
        if matches!(self.kind, Kind::Half { .. }) {
            widen_all(out);
        }
        Ok(read)
    }

    fn decode_into(&self, i: u64, scratch: &mut Vec<u8>, out: &mut [u8]) -> Result<u64> {
        // anndata's chunks are gzip alone: they need no copy.
        if let (Stored::Grid(entries), Kind::Number { big: false, .. }) = (&self.stored, &self.kind)
            && let Some(entry) = entries.get(usize::try_from(i).unwrap_or(usize::MAX))
            && filter::is_deflate(&self.filters)
            && entry.mask == 0
            && out.len() == self.chunk_bytes
        {
            self.file.read_chunk(entry.address, entry.size, scratch, || self.place(i))?;
            filter::inflate(scratch, out).map_err(|found| {
                Error::invalid(self.place(i), found, "chunks hold what their shape says; the file is damaged, fetch it again")
            })?;
            return Ok(entry.size);
        }
        let mut copy = Vec::new();
        let read = self.decode(i, scratch, &mut copy)?;
        if copy.len() != out.len() {
            return Err(Error::bug(format!("chunk {i} has {} bytes, {} are due", copy.len(), out.len())));
        }
        out.copy_from_slice(&copy);
        Ok(read)
    }
}

//! Arrays that are written chunk by chunk.

use std::sync::Arc;

use cellmill_matrix::{DType, Error, Result, Values};
use libdeflater::{CompressionLvl, Compressor};
use rayon::prelude::*;

use super::{Child, Hdf5Writer, Shared};
use crate::hdf5::message::{self, ChunkAt, Message, Space, chunk_tree, entry_size, kind};
use crate::tree::{ArrayStream, Attrs};

/// gzip level of chunks: anndata's and h5py's default.
const LEVEL: u32 = 4;
/// Bytes of a chunk that nobody wished otherwise.
const CHUNK: u64 = 256 << 10;
/// The most bytes of a chunk that a wish can get.
const LARGEST_CHUNK: u64 = 16 << 20;
/// Chunks compressed at once.
const BATCH: usize = 16;
/// Bytes of entries that are turned into chunks at once.
const AT_ONCE: usize = 8 << 20;

/// An array that grows along its first axis, chunk by chunk.
pub(super) struct Stream {
    shared: Arc<Shared>,
    path: String,
    dtype: DType,
    shape: Vec<u64>,
    chunk: Vec<u64>,
    attrs: Vec<Message>,
    /// Rows that are not compressed yet, as bytes.
    pending: Vec<u8>,
    chunks: Vec<ChunkAt>,
}

impl Stream {
    pub(super) fn open(writer: &Hdf5Writer, path: &str, dtype: DType, shape: &[u64], wish: Option<&[u64]>, attrs: Attrs) -> Result<Stream> {
        let attrs = writer.shared.attrs(path, &attrs)?;
        writer.dataset(path)?;
        writer.shared.lock().open += 1;
        let mut shape = shape.to_vec();
        let length = shape[0];
        shape[0] = 0;
        let size = entry_size(dtype) as u64;
        let row = shape[1..].iter().fold(size, |all, &n| all.saturating_mul(n)).max(1);
        let mut chunk = match wish {
            Some(wish) => wish.iter().zip(&shape).enumerate().map(|(a, (&w, &n))| if a == 0 { w } else { w.min(n) }.max(1)).collect(),
            None => {
                let mut chunk: Vec<u64> = shape.clone();
                chunk[0] = (CHUNK / row).clamp(1, length.max(1));
                chunk
            }
        };
        // A chunk has less than 4 GiB, and is decoded in one go: cut the axes, the last one last, until it is small enough.
        for axis in 0..chunk.len() {
            let bytes = chunk.iter().fold(size, |all, &n| all.saturating_mul(n));
            if bytes > LARGEST_CHUNK {
                chunk[axis] = (chunk[axis] / bytes.div_ceil(LARGEST_CHUNK)).max(1);
            }
        }
        let (shared, path) = (writer.shared.clone(), path.to_string());
        Ok(Stream { shared, path, dtype, shape, chunk, attrs, pending: Vec::new(), chunks: Vec::new() })
    }

    fn row_bytes(&self) -> usize {
        self.shape[1..].iter().product::<u64>() as usize * entry_size(self.dtype)
    }

    /// Compresses and writes bands of chunks: all of the full ones, or what is left as well.
    fn flush(&mut self, all: bool) -> Result<()> {
        let band_bytes = self.chunk[0] as usize * self.row_bytes();
        let across: Vec<u64> = self.shape[1..].iter().zip(&self.chunk[1..]).map(|(&n, &c)| n.div_ceil(c)).collect();
        let per_band = across.iter().product::<u64>() as usize;
        let mut at = 0;
        while at < self.pending.len() && (all || self.pending.len() - at >= band_bytes) {
            let bands = ((self.pending.len() - at) / band_bytes).clamp(1, BATCH.div_ceil(per_band));
            let rows = &self.pending[at..(at + bands * band_bytes).min(self.pending.len())];
            let packed: Vec<std::result::Result<Vec<u8>, Error>> = (0..bands * per_band)
                .into_par_iter()
                .map_init(
                    || (Vec::new(), compressor()),
                    |(raw, compressor), i| {
                        let band = &rows[i / per_band * band_bytes..rows.len().min((i / per_band + 1) * band_bytes)];
                        self.cut(band, i % per_band, &across, raw);
                        deflate(compressor, raw)
                    },
                )
                .collect();
            at += rows.len();
            let mut state = self.shared.lock();
            for bytes in packed {
                let bytes = bytes?;
                let address = state.put(&bytes).map_err(|e| self.shared.io(&self.path, &e))?;
                self.chunks.push(ChunkAt { size: bytes.len() as u32, mask: 0, address, number: self.chunks.len() as u64 });
            }
        }
        self.pending.drain(..at);
        Ok(())
    }

    /// Cuts chunk `i` out of a band of rows; what lies beyond the shape is zero.
    fn cut(&self, band: &[u8], i: usize, across: &[u64], raw: &mut Vec<u8>) {
        let size = entry_size(self.dtype);
        raw.clear();
        raw.resize(self.chunk.iter().product::<u64>() as usize * size, 0);
        if across.iter().all(|&n| n == 1) && self.chunk[1..] == self.shape[1..] {
            raw[..band.len()].copy_from_slice(band);
            return;
        }
        let rank = self.shape.len();
        let mut corner = vec![0u64; rank];
        let mut rest = i as u64;
        for axis in (1..rank).rev() {
            corner[axis] = rest % across[axis - 1] * self.chunk[axis];
            rest /= across[axis - 1];
        }
        let mut lengths: Vec<u64> = (0..rank).map(|a| self.chunk[a].min(self.shape[a].saturating_sub(corner[a]))).collect();
        lengths[0] = (band.len() / self.row_bytes()) as u64;
        let run = lengths[rank - 1] as usize * size;
        let mut at = vec![0u64; rank];
        for _ in 0..lengths[..rank - 1].iter().product::<u64>() {
            let (mut from, mut to) = (0u64, 0u64);
            for a in 0..rank {
                from = if a == 0 { at[0] } else { from * self.shape[a] + corner[a] + at[a] };
                to = to * self.chunk[a] + at[a];
            }
            let (from, to) = (from as usize * size, to as usize * size);
            raw[to..to + run].copy_from_slice(&band[from..from + run]);
            for a in (0..rank - 1).rev() {
                at[a] += 1;
                if at[a] < lengths[a] {
                    break;
                }
                at[a] = 0;
            }
        }
    }

    /// Writes what is left, the list of chunks and the header.
    pub(super) fn finish(mut self, grows: bool) -> Result<()> {
        self.flush(true)?;
        let grid: Vec<u64> = self.shape.iter().zip(&self.chunk).map(|(&n, &c)| n.div_ceil(c)).collect();
        let mut state = self.shared.lock();
        let mut write = || -> std::io::Result<()> {
            let tree = chunk_tree(&self.chunks, &grid, &self.chunk, |bytes| state.put(bytes))?;
            let space = Space::Axes(&self.shape, grows);
            let mut messages = vec![(kind::DATASPACE, message::dataspace(&space)), (kind::DATATYPE, message::datatype(self.dtype))];
            messages.extend([message::fill(true), message::deflate(LEVEL), message::chunked(tree, &self.chunk, entry_size(self.dtype))]);
            messages.append(&mut self.attrs);
            let header = state.put(&message::header(&messages))?;
            if let Some((group, name)) = state.parent(&self.path) {
                group.children.insert(name.to_string(), Child::Dataset(Some(header)));
            }
            state.open -= 1;
            Ok(())
        };
        write().map_err(|e| self.shared.io(&self.path, &e))?;
        Ok(())
    }
}

impl ArrayStream for Stream {
    fn append(&mut self, values: &Values) -> Result<()> {
        let row = self.shape[1..].iter().product::<u64>() as usize;
        if values.dtype() != self.dtype || row == 0 || !values.len().is_multiple_of(row) {
            return Err(Error::bug(format!(
                "'{}': {} entries of {} appended to rows of {row} {}",
                self.path,
                values.len(),
                values.dtype(),
                self.dtype
            )));
        }
        // Some chunks at a time, so that a large array is not held twice.
        let step = (AT_ONCE / (row * entry_size(self.dtype))).max(1) * row;
        for start in (0..values.len()).step_by(step) {
            let bytes = self.shared.bytes(&self.path, values, start..values.len().min(start + step))?;
            self.pending.extend_from_slice(&bytes);
            self.shape[0] += (bytes.len() / self.row_bytes()) as u64;
            self.flush(false)?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.finish(true)
    }
}

fn compressor() -> Compressor {
    Compressor::new(CompressionLvl::new(LEVEL as i32).unwrap_or_default())
}

/// One chunk as a zlib stream.
fn deflate(compressor: &mut Compressor, raw: &[u8]) -> Result<Vec<u8>> {
    let mut out = vec![0; compressor.zlib_compress_bound(raw.len())];
    let n = compressor.zlib_compress(raw, &mut out).map_err(|e| Error::bug(format!("libdeflate: {e:?}")))?;
    out.truncate(n);
    Ok(out)
}

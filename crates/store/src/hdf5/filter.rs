//! The filter pipeline of a chunk: from stored bytes to entries.

use std::cell::RefCell;

use hdf5_pure::Filter;
use libdeflater::Decompressor;

use super::lzf;
use crate::zarr::blosc;

const DEFLATE: u16 = 1;
const SHUFFLE: u16 = 2;
const FLETCHER32: u16 = 3;
const LZF: u16 = 32000;
const BLOSC: u16 = 32001;
const LZ4: u16 = 32004;
const ZSTD: u16 = 32015;

/// Deflate can't shrink more than this (RFC 1951: 258 bytes in 2 bits).
pub(super) const MOST_EXPANSION: u64 = 1032;

thread_local! {
    // A decompressor takes some 10 µs to make, and a chunk some 200 µs to decode.
    static INFLATE: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// The pipeline's name as people say it.
pub(super) fn name(filters: &[Filter]) -> String {
    let mut words = Vec::new();
    let mut shuffle = false;
    for filter in filters {
        match filter.id {
            DEFLATE => words.push(match filter.client_data.first() {
                Some(level) => format!("gzip-{level}"),
                None => "gzip".into(),
            }),
            SHUFFLE => shuffle = true,
            FLETCHER32 => words.push("fletcher32".into()),
            LZF => words.push("lzf".into()),
            BLOSC => {
                const NAMES: [&str; 6] = ["blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd"];
                let code = filter.client_data.get(6).and_then(|&c| NAMES.get(c as usize)).unwrap_or(&"blosclz");
                words.push(format!("blosc-{code}"));
                shuffle |= filter.client_data.get(5).is_some_and(|&s| s != 0);
            }
            LZ4 => words.push("lz4".into()),
            ZSTD => words.push("zstd".into()),
            id => words.push(format!("filter {id}")),
        }
    }
    if words.is_empty() {
        words.push("none".into());
    }
    if shuffle {
        words.push("shuffle".into());
    }
    words.join(" ")
}

/// The filter that we can't undo, if there is one.
pub(super) fn unknown(filters: &[Filter]) -> Option<String> {
    const KNOWN: [u16; 7] = [DEFLATE, SHUFFLE, FLETCHER32, LZF, BLOSC, LZ4, ZSTD];
    filters.iter().find(|f| !KNOWN.contains(&f.id)).map(ToString::to_string)
}

/// Undoes `filters` (in reverse) on the stored bytes in `stored`, so that `out` holds `expected` bytes. Both buffers keep
/// their capacity; what they hold besides is arbitrary. The error says what is wrong with the bytes.
pub(super) fn undo(filters: &[Filter], mask: u32, stored: &mut Vec<u8>, out: &mut Vec<u8>, expected: usize) -> Result<(), String> {
    if filters.len() < 32 && mask >> filters.len() != 0 {
        return Err(format!("filter mask {mask:#x} for {} filters", filters.len()));
    }
    // `stored` holds the bytes as they are so far; each filter moves them to `out`, and the two change places.
    for (i, filter) in filters.iter().enumerate().rev() {
        if i < 32 && mask >> i & 1 == 1 {
            continue;
        }
        // A checksum that was taken first covers the entries and adds 4 bytes to them.
        let inner = filters[..i].iter().enumerate().filter(|(j, f)| f.id == FLETCHER32 && mask >> (*j).min(31) & 1 == 0).count();
        let length = expected + 4 * inner;
        match filter.id {
            FLETCHER32 => {
                let body = stored.len().checked_sub(4).ok_or("a checksum is missing")?;
                let found = u32::from_le_bytes([stored[body], stored[body + 1], stored[body + 2], stored[body + 3]]);
                let sum = fletcher32(&stored[..body]);
                // Files written by HDF5 before 1.6.3 on little-endian machines hold the bytes of each half exchanged.
                let old = (sum & 0x00ff_00ff) << 8 | (sum >> 8) & 0x00ff_00ff;
                if found != sum && found != old {
                    return Err(format!("checksum {found:#010x} where the bytes give {sum:#010x}"));
                }
                stored.truncate(body);
                continue;
            }
            DEFLATE => {
                bound(stored.len(), length)?;
                out.resize(length, 0);
                inflate(stored, out)?;
            }
            LZF => {
                bound(stored.len(), length)?;
                out.resize(length, 0);
                lzf::decode(stored, out).ok_or_else(|| format!("{} bytes of LZF that don't decompress", stored.len()))?;
            }
            SHUFFLE => {
                let size = filter.client_data.first().map_or(1, |&s| s as usize);
                out.resize(stored.len(), 0);
                unshuffle(stored, out, size);
            }
            ZSTD => {
                out.clear();
                // A forged length costs no memory: the frame says its own, and it is checked before.
                if let Ok(Some(says)) = zstd::zstd_safe::get_frame_content_size(stored) {
                    same(usize::try_from(says).unwrap_or(usize::MAX), length)?;
                }
                // A block of 128 KiB takes at least 4 bytes (RFC 8878).
                if length as u64 > stored.len() as u64 * (1 << 15) + 64 {
                    return Err(format!("{} compressed bytes for a chunk of {length}", stored.len()));
                }
                out.resize(length, 0);
                let written = zstd::bulk::decompress_to_buffer(stored, out.as_mut_slice())
                    .map_err(|e| format!("{} bytes of zstd that don't decompress ({e})", stored.len()))?;
                same(written, length)?;
            }
            LZ4 => lz4(stored, out, length)?,
            BLOSC => {
                same(blosc::decoded_len(stored)?, length)?;
                if length as u64 > stored.len() as u64 * (1 << 15) + 64 {
                    return Err(format!("{} compressed bytes for a chunk of {length}", stored.len()));
                }
                out.resize(length, 0);
                blosc::decode(stored, out, &mut Vec::new())?;
            }
            id => return Err(format!("filter {id}, which we can't undo")),
        }
        std::mem::swap(stored, out);
    }
    same(stored.len(), expected)?;
    std::mem::swap(stored, out);
    Ok(())
}

/// Whether the pipeline is gzip alone, which [`inflate`] undoes without a copy.
pub(super) fn is_deflate(filters: &[Filter]) -> bool {
    matches!(filters, [one] if one.id == DEFLATE)
}

/// Undoes gzip into memory of the chunk's size.
pub(super) fn inflate(stored: &[u8], out: &mut [u8]) -> Result<(), String> {
    let written = INFLATE
        .with_borrow_mut(|d| d.zlib_decompress(stored, out))
        .map_err(|e| format!("{} bytes of gzip that don't decompress ({e:?})", stored.len()))?;
    same(written, out.len())
}

fn same(found: usize, expected: usize) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("a chunk of {found} bytes where its shape says {expected}")) }
}

/// Refuses a length that no stream of `stored` bytes can reach, before memory is taken for it.
fn bound(stored: usize, length: usize) -> Result<(), String> {
    if length as u64 > stored as u64 * MOST_EXPANSION + 64 {
        return Err(format!("{stored} compressed bytes for a chunk of {length}"));
    }
    Ok(())
}

/// The LZ4 filter of the HDF Group: length (8 bytes, big-endian), block length (4), then each block after its own (4).
fn lz4(stored: &[u8], out: &mut Vec<u8>, length: usize) -> Result<(), String> {
    let bad = || "LZ4 blocks that don't decompress".to_string();
    let number = |at: usize| Some(u32::from_be_bytes(stored.get(at..at + 4)?.try_into().ok()?) as usize);
    let total = stored.get(..8).and_then(|b| Some(u64::from_be_bytes(b.try_into().ok()?))).ok_or_else(bad)?;
    same(usize::try_from(total).unwrap_or(usize::MAX), length)?;
    bound(stored.len(), length)?;
    let block = number(8).filter(|&b| b > 0).ok_or_else(bad)?;
    out.resize(length, 0);
    let mut at = 12;
    for piece in out.chunks_mut(block) {
        let size = number(at).ok_or_else(bad)?;
        let bytes = stored.get(at + 4..at + 4 + size).ok_or_else(bad)?;
        if size == piece.len() {
            piece.copy_from_slice(bytes);
        } else if lz4_flex::block::decompress_into(bytes, piece).ok() != Some(piece.len()) {
            return Err(bad());
        }
        at += 4 + size;
    }
    Ok(())
}

/// Undoes the shuffle of entries of `size` bytes: byte `k` of entry `i` lies at `k * n + i`. Bytes beyond the last whole
/// entry stay as they are.
pub(super) fn unshuffle(from: &[u8], to: &mut [u8], size: usize) {
    let n = from.len() / size.max(1);
    if size <= 1 || n == 0 {
        to.copy_from_slice(from);
        return;
    }
    let (planes, rest) = from.split_at(n * size);
    let (entries, tail) = to.split_at_mut(n * size);
    tail.copy_from_slice(rest);
    match size {
        4 => weave::<4>(planes, entries, n),
        8 => weave::<8>(planes, entries, n),
        2 => weave::<2>(planes, entries, n),
        _ => {
            for (i, entry) in entries.chunks_exact_mut(size).enumerate() {
                for (k, byte) in entry.iter_mut().enumerate() {
                    *byte = planes[k * n + i];
                }
            }
        }
    }
}

fn weave<const S: usize>(planes: &[u8], entries: &mut [u8], n: usize) {
    let plane: [&[u8]; S] = std::array::from_fn(|k| &planes[k * n..(k + 1) * n]);
    for (i, entry) in entries.as_chunks_mut::<S>().0.iter_mut().enumerate().take(n) {
        for k in 0..S {
            entry[k] = plane[k][i];
        }
    }
}

/// Fletcher's checksum of 16-bit big-endian words, as HDF5 takes it (`H5checksum.c`, `H5_checksum_fletcher32`).
fn fletcher32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (0u32, 0u32);
    let (words, last) = bytes.as_chunks::<2>();
    // 360 words are the most that 32 bits hold without overflow.
    for block in words.chunks(360) {
        for word in block {
            a += u32::from(u16::from_be_bytes(*word));
            b += a;
        }
        a = (a & 0xffff) + (a >> 16);
        b = (b & 0xffff) + (b >> 16);
    }
    if let [byte] = last {
        a += u32::from(*byte) << 8;
        b += a;
        a = (a & 0xffff) + (a >> 16);
        b = (b & 0xffff) + (b >> 16);
    }
    a = (a & 0xffff) + (a >> 16);
    b = (b & 0xffff) + (b >> 16);
    b << 16 | a
}

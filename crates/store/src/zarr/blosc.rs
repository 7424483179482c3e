//! Blosc 1 buffers (c-blosc 1.21, `README_CHUNK_FORMAT.rst`), decoded into memory of the caller.
//!
//! A buffer is a header of 16 bytes, the starts of its blocks and the blocks. A block is one stream, or one a byte of the entry;
//! each stream has its length before it. Every offset is checked, so a damaged buffer is an error and nothing worse.

use std::ops::Range;

use cellmill_matrix::{Compression, Streams, Stretch};

use super::shuffle;
use super::stored::plain;

const HEADER: usize = 16;
/// Blocks of entries wider than this are not split (`MAX_SPLITS`).
const MOST_SPLITS: usize = 16;
/// Blocks of fewer entries than this are not split (`MIN_BUFFERSIZE`).
const LEAST_SPLIT: usize = 128;
/// The block of the encoder: fits the second-level cache.
const BLOCK: usize = 256 << 10;

const SHUFFLE: u8 = 1;
const COPIED: u8 = 2;
const BITSHUFFLE: u8 = 4;
const NO_SPLIT: u8 = 16;

struct Header {
    flags: u8,
    size: usize,
    bytes: usize,
    block: usize,
}

fn u32_at(buffer: &[u8], at: usize) -> Option<usize> {
    let four = buffer.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?) as usize)
}

fn header(buffer: &[u8]) -> Result<Header, String> {
    let numbers = (u32_at(buffer, 4), u32_at(buffer, 8), u32_at(buffer, 12));
    let (Some(bytes), Some(block), Some(stored)) = numbers else {
        return Err(format!("a blosc buffer of {} bytes has no header", buffer.len()));
    };
    if buffer[0] == 0 || buffer[0] > 2 {
        return Err(format!("blosc version {}", buffer[0]));
    }
    if stored != buffer.len() {
        return Err(format!("a blosc buffer of {stored} bytes is {} bytes long", buffer.len()));
    }
    if buffer[3] == 0 || (bytes > 0 && block == 0) {
        return Err("a damaged blosc header".into());
    }
    Ok(Header { flags: buffer[2], size: usize::from(buffer[3]), bytes, block })
}

/// Bytes that a buffer holds, by its header.
pub(crate) fn decoded_len(buffer: &[u8]) -> Result<usize, String> {
    header(buffer).map(|h| h.bytes)
}

/// Decodes a buffer that must hold exactly `out.len()` bytes. `scratch` keeps one block.
pub(crate) fn decode(buffer: &[u8], out: &mut [u8], scratch: &mut Vec<u8>) -> Result<(), String> {
    let header = header(buffer)?;
    let Header { flags, size, bytes, block } = header;
    if bytes != out.len() {
        return Err(format!("a blosc buffer of {bytes} bytes where {} are due", out.len()));
    }
    if flags & COPIED != 0 {
        let body = &buffer[HEADER..];
        if body.len() != bytes {
            return Err(format!("a blosc copy of {} bytes where {bytes} are due", body.len()));
        }
        out.copy_from_slice(body);
        return Ok(());
    }
    if bytes == 0 {
        return Ok(());
    }
    let shuffled = flags & BITSHUFFLE != 0 || (flags & SHUFFLE != 0 && size > 1);
    for (i, piece) in out.chunks_mut(block).enumerate() {
        let target: &mut [u8] = if shuffled {
            scratch.resize(piece.len(), 0);
            scratch
        } else {
            &mut *piece
        };
        each_stream(buffer, &header, i, target.len(), |stored, part| {
            let (body, part) = (&buffer[stored], &mut target[part]);
            if body.len() == part.len() {
                part.copy_from_slice(body);
                return Ok(());
            }
            unpack(flags >> 5, body, part)
        })?;
        if flags & BITSHUFFLE != 0 {
            shuffle::bits_back(scratch, piece, size);
        } else if shuffled {
            shuffle::bytes_back(scratch, piece, size);
        }
    }
    Ok(())
}

/// The streams of block `i`, which is of `len` bytes: where each is stored in the buffer, and where in the block it belongs.
fn each_stream(
    buffer: &[u8],
    header: &Header,
    i: usize,
    len: usize,
    mut each: impl FnMut(Range<usize>, Range<usize>) -> Result<(), String>,
) -> Result<(), String> {
    let &Header { flags, size, block, .. } = header;
    let mut at = u32_at(buffer, HEADER + 4 * i).ok_or("a blosc buffer without block starts")?;
    let split = flags & NO_SPLIT == 0 && size <= MOST_SPLITS && block / size >= LEAST_SPLIT && len == block;
    let streams = if split { size } else { 1 };
    let stream = len / streams;
    if stream * streams != len {
        return Err("a blosc block that can't be split".into());
    }
    for to in (0..len).step_by(stream.max(1)) {
        let stored = u32_at(buffer, at).ok_or("a blosc stream without a length")?;
        at += 4;
        let end = at.checked_add(stored).filter(|&end| end <= buffer.len()).ok_or("a blosc stream that is cut off")?;
        each(at..end, to..to + stream)?;
        at = end;
    }
    Ok(())
}

/// How a buffer that must hold `bytes` bytes, entries of `size`, becomes them. `None` if it is damaged or compressed by other means than
/// LZ4 and zstd.
pub(crate) fn streams(buffer: &[u8], bytes: usize, size: usize) -> Option<Streams> {
    let header = header(buffer).ok().filter(|h| h.bytes == bytes)?;
    if header.flags & COPIED != 0 {
        return (buffer.len() == HEADER + bytes).then(|| plain(HEADER, bytes, size));
    }
    let shuffled = header.flags & SHUFFLE != 0 && header.size > 1;
    // Other entries are shuffled otherwise.
    let odd = header.flags & BITSHUFFLE != 0 || header.block % size != 0 || (shuffled && header.size != size);
    let compression = match header.flags >> 5 {
        1 => Compression::Lz4,
        4 => Compression::Zstd,
        _ => return None,
    };
    if odd {
        return None;
    }
    let mut streams = Vec::new();
    for (i, first) in (0..bytes).step_by(header.block).enumerate() {
        let stretch = |stored: Range<usize>, part: Range<usize>| {
            let (from, to) = (stored.start as u64, (first + part.start) as u64);
            streams.push(Stretch { from, stored: stored.len() as u32, to, len: part.len() as u32 });
            Ok(())
        };
        each_stream(buffer, &header, i, header.block.min(bytes - first), stretch).ok()?;
    }
    Some(Streams { block: (header.block / size) as u64, shuffled, compression, streams })
}

fn unpack(code: u8, body: &[u8], out: &mut [u8]) -> Result<(), String> {
    let len = match code {
        0 => return blosclz(body, out).ok_or_else(|| "a damaged blosclz stream".into()),
        1 => return lz4(body, out),
        3 => {
            let mut tool = flate2::Decompress::new(true);
            tool.decompress(body, out, flate2::FlushDecompress::Finish).map_err(|e| format!("zlib: {e}"))?;
            tool.total_out() as usize
        }
        4 => zstd::bulk::decompress_to_buffer(body, out).map_err(|e| format!("zstd: {e}"))?,
        other => return Err(format!("blosc code {other}")),
    };
    if len != out.len() {
        return Err(format!("{len} bytes where {} are due", out.len()));
    }
    Ok(())
}

/// One lz4 block that must fill `out`.
pub(crate) fn lz4(body: &[u8], out: &mut [u8]) -> Result<(), String> {
    let size = i32::try_from(out.len()).map_err(|_| "lz4: too long")?;
    let len = lz4::block::decompress_to_buffer(body, Some(size), out).map_err(|e| format!("lz4: {e}"))?;
    if len != out.len() {
        return Err(format!("{len} bytes where {} are due", out.len()));
    }
    Ok(())
}

/// BloscLZ (`blosclz.c`): a control byte below 32 starts `control + 1` literals; otherwise its upper bits are a length less 2
/// (7: more bytes follow), its lower bits and the next byte a distance less 1 (all ones: 16 bits follow, beyond 8191).
fn blosclz(src: &[u8], out: &mut [u8]) -> Option<()> {
    const FAR: usize = 8191;
    let (mut at, mut to) = (0usize, 0usize);
    let mut control = usize::from(*src.first()?) & 31;
    loop {
        at += 1;
        if control >= 32 {
            let mut len = (control >> 5) + 2;
            if control >> 5 == 7 {
                loop {
                    let more = usize::from(*src.get(at)?);
                    at += 1;
                    len += more;
                    if more != 255 {
                        break;
                    }
                }
            }
            let low = usize::from(*src.get(at)?);
            at += 1;
            let mut distance = ((control & 31) << 8) + low + 1;
            if distance == FAR + 1 {
                distance += (usize::from(*src.get(at)?) << 8) + usize::from(*src.get(at + 1)?);
                at += 2;
            }
            let from = to.checked_sub(distance)?;
            if to + len > out.len() {
                return None;
            }
            for k in 0..len {
                out[to + k] = out[from + k];
            }
            to += len;
        } else {
            let run = control + 1;
            out.get_mut(to..to + run)?.copy_from_slice(src.get(at..at + run)?);
            at += run;
            to += run;
        }
        match src.get(at) {
            Some(next) => control = usize::from(*next),
            None => break,
        }
    }
    (to == out.len()).then_some(())
}

/// Encodes entries of `size` bytes with shuffle and lz4, as numcodecs' default does.
pub(crate) fn encode(bytes: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let total = u32::try_from(bytes.len()).map_err(|_| "a chunk above 4 GiB")?;
    let size = if (1..=255).contains(&size) { size } else { 1 };
    let block = (BLOCK / size * size).min(bytes.len()).max(1);
    let mut out = vec![2, 1, SHUFFLE | (1 << 5), size as u8];
    out.extend_from_slice(&total.to_le_bytes());
    out.extend_from_slice(&(block as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.resize(HEADER + 4 * bytes.len().div_ceil(block), 0);
    let (mut scratch, mut packed) = (Vec::new(), Vec::new());
    for (i, piece) in bytes.chunks(block).enumerate() {
        let start = out.len() as u32;
        out[HEADER + 4 * i..HEADER + 4 * i + 4].copy_from_slice(&start.to_le_bytes());
        let split = size <= MOST_SPLITS && block / size >= LEAST_SPLIT && piece.len() == block && block.is_multiple_of(size);
        let source = if size > 1 {
            scratch.resize(piece.len(), 0);
            shuffle::bytes(piece, &mut scratch, size);
            &scratch[..]
        } else {
            piece
        };
        let stream = if split { block / size } else { piece.len() };
        for part in source.chunks(stream) {
            packed.resize(lz4::block::compress_bound(part.len()).map_err(|e| e.to_string())?, 0);
            let len = lz4::block::compress_to_buffer(part, None, false, &mut packed).map_err(|e| e.to_string())?;
            let body = if len < part.len() { &packed[..len] } else { part };
            out.extend_from_slice(&(body.len() as u32).to_le_bytes());
            out.extend_from_slice(body);
        }
    }
    if out.len() >= bytes.len() + HEADER {
        out.truncate(HEADER);
        out[2] |= COPIED;
        out.extend_from_slice(bytes);
    }
    let stored = (out.len() as u32).to_le_bytes();
    out[12..16].copy_from_slice(&stored);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What whoever decodes the streams makes of them.
    fn by_streams(buffer: &[u8], bytes: usize, size: usize) -> Vec<u8> {
        let found = streams(buffer, bytes, size).unwrap();
        let mut out = vec![0; bytes];
        for s in &found.streams {
            let (body, part) = (&buffer[s.from as usize..][..s.stored as usize], &mut out[s.to as usize..][..s.len as usize]);
            if s.stored == s.len { part.copy_from_slice(body) } else { lz4(body, part).unwrap() }
        }
        if found.shuffled {
            for piece in out.chunks_mut(found.block as usize * size) {
                let planes = piece.to_vec();
                shuffle::bytes_back(&planes, piece, size);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn streams_make_the_entries(seed in prop::collection::vec(0u8..40, 0..400), repeat in 1usize..2000, wide in any::<bool>()) {
            let size = if wide { 8 } else { 4 };
            let bytes: Vec<u8> = seed.iter().copied().cycle().take(seed.len() * repeat / size * size).collect();
            prop_assert_eq!(by_streams(&encode(&bytes, size).unwrap(), bytes.len(), size), &bytes[..]);
        }

        #[test]
        fn streams_may_be_zstd_frames(seed in prop::collection::vec(0u8..40, 1..400), repeat in 20usize..2000) {
            let bytes: Vec<u8> = seed.iter().copied().cycle().take(seed.len() * repeat / 4 * 4).collect();
            let mut planes = vec![0; bytes.len()];
            shuffle::bytes(&bytes, &mut planes, 4);
            let frame = zstd::bulk::compress(&planes, 3).unwrap();
            prop_assume!(frame.len() < bytes.len());
            let (len, stored) = (bytes.len() as u32, frame.len() as u32);
            let head = [[2, 1, SHUFFLE | NO_SPLIT | 4 << 5, 4], len.to_le_bytes(), len.to_le_bytes(), (HEADER as u32 + 8 + stored).to_le_bytes()];
            let buffer = [&head.concat()[..], &20u32.to_le_bytes(), &stored.to_le_bytes(), &frame].concat();
            let mut out = vec![0; bytes.len()];
            decode(&buffer, &mut out, &mut Vec::new()).unwrap();
            prop_assert_eq!(out, bytes);
            let stretch = Stretch { from: 24, stored, to: 0, len };
            let expected = Streams { block: u64::from(len) / 4, shuffled: true, compression: Compression::Zstd, streams: vec![stretch] };
            prop_assert_eq!(streams(&buffer, len as usize, 4), Some(expected));
        }

        #[test]
        fn what_goes_in_comes_out(seed in prop::collection::vec(0u8..40, 0..400), repeat in 1usize..2000, size in 1usize..17) {
            // Whole entries, as arrays have them.
            let bytes: Vec<u8> = seed.iter().copied().cycle().take(seed.len() * repeat / size * size).collect();
            let packed = encode(&bytes, size).unwrap();
            let mut out = vec![0; bytes.len()];
            decode(&packed, &mut out, &mut Vec::new()).unwrap();
            prop_assert_eq!(out, bytes);
        }

        #[test]
        fn damage_never_panics(flips in prop::collection::vec((0usize..5000, 0u8..=255), 1..6), cut in 0usize..5000) {
            let bytes: Vec<u8> = (0..20_000u32).flat_map(|i| (i % 37).to_le_bytes()).collect();
            let mut packed = encode(&bytes, 4).unwrap();
            let mut out = vec![0; bytes.len()];
            prop_assert!(decode(&packed[..cut % packed.len()], &mut out, &mut Vec::new()).is_err());
            for (at, value) in flips {
                let n = packed.len();
                packed[at % n] = value;
            }
            let _ = decode(&packed, &mut out, &mut Vec::new());
            packed.truncate(cut);
            let _ = decode(&packed, &mut out, &mut Vec::new());
        }
    }
}

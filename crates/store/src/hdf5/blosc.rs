//! Blosc 1 frames, as the HDF5 filter 32001 stores them, in safe code.
//!
//! A frame is a header of 16 bytes, the starts of its blocks, and the blocks. A block is one stream, or one a byte of the
//! entry; each stream has its length before it (c-blosc 1.21, `README_HEADER.rst`, `blosc.c`).

use std::cell::RefCell;

use libdeflater::Decompressor;

use super::filter::unshuffle;

const HEADER: usize = 16;
/// Blocks of entries wider than this are not split (`MAX_SPLITS`).
const MOST_SPLITS: usize = 16;
/// Blocks of fewer entries than this are not split (`MIN_BUFFERSIZE`).
const LEAST_SPLIT: usize = 128;

thread_local! {
    static INFLATE: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// Decodes one frame into `out`, which gets `expected` bytes.
pub(super) fn decode(frame: &[u8], out: &mut Vec<u8>, expected: usize) -> Result<(), String> {
    let bad = |what: &str| format!("a blosc frame of {} bytes {what}", frame.len());
    let number = |at: usize| -> Option<usize> {
        usize::try_from(i32::from_le_bytes(frame.get(at..at + 4)?.try_into().ok()?)).ok()
    };
    if frame.len() < HEADER {
        return Err(bad("without a header"));
    }
    let (flags, size) = (frame[2], usize::from(frame[3]).max(1));
    let (Some(bytes), Some(block)) = (number(4), number(8)) else { return Err(bad("with a damaged header")) };
    if bytes != expected {
        return Err(bad(&format!("that holds {bytes} bytes where the chunk's shape says {expected}")));
    }
    if flags & 2 != 0 {
        out.clear();
        out.extend_from_slice(frame.get(HEADER..HEADER + bytes).ok_or_else(|| bad("that is cut off"))?);
        return Ok(());
    }
    if bytes == 0 {
        out.clear();
        return Ok(());
    }
    // A block has a start of 4 bytes, so a forged length is caught before memory is taken.
    let blocks = if block == 0 { 0 } else { bytes.div_ceil(block) };
    if blocks == 0 || HEADER + 4 * blocks > frame.len() || (block.min(bytes) as u64) > frame.len() as u64 * (1 << 16) {
        return Err(bad("with a damaged header"));
    }
    out.resize(bytes, 0);
    let mut shuffled = Vec::new();
    for (i, piece) in out.chunks_mut(block).enumerate() {
        let whole = piece.len() == block;
        let splits = if flags & 0x10 == 0 && size <= MOST_SPLITS && block / size >= LEAST_SPLIT && whole { size } else { 1 };
        let mut at = number(HEADER + 4 * i).ok_or_else(|| bad("with a damaged block start"))?;
        let part = piece.len() / splits;
        if part == 0 || part * splits != piece.len() {
            return Err(bad("with blocks that can't be split"));
        }
        let shuffle = size > 1 && flags & 1 != 0 || flags & 4 != 0;
        shuffled.resize(piece.len(), 0);
        let target: &mut [u8] = if shuffle { &mut shuffled } else { piece };
        for stream in target.chunks_mut(part) {
            let length = number(at).ok_or_else(|| bad("that is cut off"))?;
            let packed = frame.get(at + 4..at + 4 + length).ok_or_else(|| bad("that is cut off"))?;
            if length == stream.len() {
                stream.copy_from_slice(packed);
            } else {
                unpack(flags >> 5, packed, stream).ok_or_else(|| bad("with a damaged block, or in a code that we can't read"))?;
            }
            at += 4 + length;
        }
        if shuffle && flags & 4 != 0 {
            bit_unshuffle(&shuffled, piece, size);
        } else if shuffle {
            unshuffle(&shuffled, piece, size);
        }
    }
    Ok(())
}

/// One stream, by the format number of the frame's flags.
fn unpack(format: u8, packed: &[u8], into: &mut [u8]) -> Option<()> {
    let written = match format {
        0 => return blosclz(packed, into),
        1 => lz4_flex::block::decompress_into(packed, into).ok()?,
        3 => INFLATE.with_borrow_mut(|d| d.zlib_decompress(packed, into).ok())?,
        4 => zstd::bulk::decompress_to_buffer(packed, into).ok()?,
        _ => return None,
    };
    (written == into.len()).then_some(())
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
            let mut len = (control >> 5) - 1;
            let high = (control & 31) << 8;
            if len == 6 {
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
            len += 3;
            let mut distance = high + low + 1;
            if low == 255 && high == 31 << 8 {
                distance = (usize::from(*src.get(at)?) << 8) + usize::from(*src.get(at + 1)?) + FAR + 1;
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
            Some(&next) => control = usize::from(next),
            None => break,
        }
    }
    (to == out.len()).then_some(())
}

/// Undoes bitshuffle: bit `b` of byte `k` of entry `i` lies at bit `i % 8` of byte `(8 k + b) n / 8 + i / 8`. Blocks whose
/// number of entries is no multiple of 8 were left alone.
fn bit_unshuffle(from: &[u8], to: &mut [u8], size: usize) {
    let n = from.len() / size;
    if n % 8 != 0 {
        to.copy_from_slice(from);
        return;
    }
    let row = n / 8;
    to[n * size..].copy_from_slice(&from[n * size..]);
    for k in 0..size {
        for g in 0..row {
            let bits: [u8; 8] = std::array::from_fn(|b| from[(8 * k + b) * row + g]);
            for (i, byte) in transpose(u64::from_le_bytes(bits)).to_le_bytes().into_iter().enumerate() {
                to[(8 * g + i) * size + k] = byte;
            }
        }
    }
}

/// Transposes a square of 8 x 8 bits (Warren, Hacker's Delight, section 7-3).
fn transpose(mut x: u64) -> u64 {
    let mut t = (x ^ (x >> 7)) & 0x00aa_00aa_00aa_00aa;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000_cccc_0000_cccc;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x0000_0000_f0f0_f0f0;
    x ^ t ^ (t << 28)
}

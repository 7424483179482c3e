//! Rows to bytes.

use std::ops::Range;

use cellmill_matrix::{Csr, Error, Result};

use super::block::Lanes;
use super::checksum::Running;
use super::header::{HEADER_BYTES, Header};
use super::{BLOCK, PAD, WIDEST};

/// Room that one block of columns and values never exceeds: twice 128 numbers of 24 bits and 128 exceptions of 5 bytes.
const ROOM: usize = 4096;
/// What an exception costs beyond its bytes, in bytes, so that a tie goes to the block without. 4 instead gave 6 % more bytes
/// on the counts that were measured, and no gain in speed that stood out from the noise.
const PATCH: u32 = 1;
/// Largest whole number that is packed as such; above it floats skip whole numbers.
pub(super) const LARGEST: u32 = 1 << 24;
/// Width in the control byte that stands for 128 raw floats.
pub(super) const RAW: u8 = 31;

/// Packs canonical rows (columns strictly increasing in a row and below `x.n_cols`, which is below 2^32). Replaces `out`, keeps
/// its capacity.
pub fn pack(x: &Csr, out: &mut Vec<u8>) {
    pack_with(Lanes::best(), x, out);
}

pub(super) fn pack_with(lanes: Lanes, x: &Csr, out: &mut Vec<u8>) {
    let mut header = Header {
        n_rows: x.n_rows() as u64,
        n_cols: x.n_cols as u64,
        nnz: x.nnz() as u64,
        index_bytes: 0,
        value_bytes: 0,
        len: 0,
        checksum: 0,
    };
    let mut at = header.payload();
    let mut control = HEADER_BYTES;
    let mut numbers = [0u32; BLOCK];
    for first in (0..x.n_rows()).step_by(BLOCK) {
        let rows = first..(first + BLOCK).min(x.n_rows());
        numbers = [0; BLOCK];
        for (number, row) in numbers.iter_mut().zip(x.indptr[rows.start..=rows.end].windows(2)) {
            *number = (row[1] - row[0]) as u32;
        }
        make_room(out, at);
        let shape = lanes.pack(&numbers, out, &mut at);
        out[control..control + 2].copy_from_slice(&shape);
        control += 2;
    }
    let mut row = 0;
    let mut values = [0f32; BLOCK];
    for first in (0..x.nnz()).step_by(BLOCK) {
        let span = first..(first + BLOCK).min(x.nnz());
        make_room(out, at);
        let start = at;
        gaps(x, span.clone(), &mut row, &mut numbers);
        let shape = lanes.pack(&numbers, out, &mut at);
        out[control..control + 2].copy_from_slice(&shape);
        header.index_bytes += (at - start) as u64 + 2;

        let start = at;
        values[..span.len()].copy_from_slice(&x.data[span.clone()]);
        // Filled up with what is there, so that the last block is as the others are.
        values[span.len()..].fill(x.data[first]);
        let shape = match lanes.whole(&values, &mut numbers) {
            Some(less) => {
                let [width, exceptions] = lanes.pack(&numbers, out, &mut at);
                [width | (less as u8) << 7, exceptions]
            }
            None => {
                let (places, _) = out[at..at + 4 * BLOCK].as_chunks_mut::<4>();
                for (place, value) in places.iter_mut().zip(&values) {
                    *place = value.to_bits().to_le_bytes();
                }
                at += 4 * BLOCK;
                [RAW, 0]
            }
        };
        out[control + 2..control + 4].copy_from_slice(&shape);
        header.value_bytes += (at - start) as u64 + 2;
        control += 4;
    }
    make_room(out, at);
    out[at..at + PAD].fill(0);
    out.truncate(at + PAD);
    close(lanes, header, out);
}

/// Writes the header before the bytes that it is of.
fn close(lanes: Lanes, mut header: Header, out: &mut [u8]) {
    header.len = out.len() as u64;
    let rest = &out[HEADER_BYTES..];
    header.checksum = Running::new(lanes).finish(rest, rest.len());
    out[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
}

/// Writes the header of a chunk that was packed elsewhere, into its first bytes. Its control bytes must tell its length.
pub fn seal(n_rows: usize, n_cols: usize, nnz: usize, out: &mut [u8]) -> Result<()> {
    let mut header =
        Header { n_rows: n_rows as u64, n_cols: n_cols as u64, nnz: nnz as u64, index_bytes: 0, value_bytes: 0, len: 0, checksum: 0 };
    let payload = header.payload();
    let Some(controls) = out.get(HEADER_BYTES..payload) else {
        return Err(Error::bug(format!("{} bytes of a packed chunk with {payload} before its blocks", out.len())));
    };
    let (rows, entries) = controls.split_at(2 * header.row_blocks());
    let bytes_of = |&[width, exceptions]: &[u8; 2]| match width & 0x7f {
        RAW => 4 * BLOCK as u64,
        width => 16 * u64::from(width & 31) + u64::from(exceptions) * (1 + (1 << (width >> 5))),
    };
    let lengths: u64 = rows.as_chunks::<2>().0.iter().map(bytes_of).sum();
    for [columns, values] in entries.as_chunks::<2>().0.as_chunks::<2>().0 {
        header.index_bytes += 2 + bytes_of(columns);
        header.value_bytes += 2 + bytes_of(values);
    }
    let len = payload as u64 + lengths + header.index_bytes + header.value_bytes - 4 * header.blocks() as u64 + PAD as u64;
    if len != out.len() as u64 {
        return Err(Error::bug(format!("{} bytes of a packed chunk whose blocks say {len}", out.len())));
    }
    close(Lanes::best(), header, out);
    Ok(())
}

/// Grows `out` so that a block fits at `at`. What an earlier chunk left there is overwritten, so only growth is filled with zeros.
fn make_room(out: &mut Vec<u8>, at: usize) {
    if out.len() < at + ROOM {
        out.resize((at + 2 * ROOM).max(out.capacity().min(at + 64 * ROOM)), 0);
    }
}

/// Distances between the columns at `span`, filled up with zeros; `row` holds or precedes the span's first entry.
fn gaps(x: &Csr, span: Range<usize>, row: &mut usize, out: &mut [u32; BLOCK]) {
    let columns = &x.indices[span.clone()];
    for (out, pair) in out[1..].iter_mut().zip(columns.windows(2)) {
        *out = pair[1].wrapping_sub(pair[0]).wrapping_sub(1);
    }
    out[columns.len()..].fill(0);
    out[0] = if span.start > 0 { columns[0].wrapping_sub(x.indices[span.start - 1]).wrapping_sub(1) } else { columns[0] };
    while *row < x.n_rows() && (x.indptr[*row] as usize) < span.end {
        let start = x.indptr[*row] as usize;
        if start >= span.start {
            out[start - span.start] = columns[start - span.start];
        }
        *row += 1;
    }
}

/// The values as whole numbers, less one if none is zero (then `Some(1)`, else `Some(0)`), if they all are whole numbers in
/// `0..=2^24` and +0.0.
#[inline(always)]
pub(super) fn whole(values: &[f32; BLOCK], out: &mut [u32; BLOCK]) -> Option<u32> {
    let mut differ = 0;
    let (mut least, mut most) = (u32::MAX, 0);
    for (out, value) in out.iter_mut().zip(values) {
        let number = *value as i32;
        differ |= (number as f32).to_bits() ^ value.to_bits();
        *out = number as u32;
        least = least.min(*out);
        most = most.max(*out);
    }
    if differ != 0 || most > LARGEST {
        return None;
    }
    let less = least.min(1);
    for out in out {
        *out -= less;
    }
    Some(less)
}

/// Packs a block at `at`, which moves on; returns its control bytes. Writes up to 16 bytes more than it keeps.
#[inline(always)]
pub(super) fn pack_block(numbers: &[u32; BLOCK], out: &mut [u8], at: &mut usize) -> [u8; 2] {
    let (width, exceptions, high) = shape(numbers);
    let bytes = &mut out[*at..*at + 16 * width as usize + PAD];
    low_parts(numbers, width as usize, bytes);
    *at += 16 * width as usize;
    if exceptions > 0 {
        let (groups, _) = numbers.as_chunks::<8>();
        let mut high_at = *at + exceptions as usize;
        for (g, group) in groups.iter().enumerate() {
            let mut mask = 0u32;
            for (i, number) in group.iter().enumerate() {
                mask |= u32::from(number >> width != 0) << i;
            }
            while mask != 0 {
                let k = 8 * g + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                out[*at] = k as u8;
                *at += 1;
                out[high_at..high_at + 4].copy_from_slice(&(numbers[k % BLOCK] >> width).to_le_bytes());
                high_at += 1 << high;
            }
        }
        *at = high_at;
    }
    [width as u8 | high << 5, exceptions as u8]
}

/// [`cheapest`] of these numbers.
#[inline(always)]
fn shape(numbers: &[u32; BLOCK]) -> (u32, u32, u8) {
    let bits = 32 - numbers.iter().fold(0, |all, n| all | n).leading_zeros();
    cheapest(bits, |width| numbers.iter().map(|n| u32::from(n >> width != 0)).sum())
}

/// Width of the low parts, number of exceptions and logarithm (base 2) of the bytes of a high part that cost least. `bits`: of the
/// largest number; `longer(width)`: how many numbers have more bits.
#[inline(always)]
pub(super) fn cheapest(bits: u32, longer: impl Fn(u32) -> u32) -> (u32, u32, u8) {
    let mut best = (WIDEST, 0, 0u8);
    let mut least = u32::MAX;
    if bits <= WIDEST {
        best = (bits, 0, 0);
        least = 16 * bits;
    }
    for width in (0..bits.min(WIDEST + 1)).rev() {
        let exceptions = longer(width);
        let high = match bits - width {
            0..=8 => 0u8,
            9..=16 => 1,
            _ => 2,
        };
        let cost = 16 * width + exceptions * (1 + (1 << high) + PATCH);
        if cost < least {
            (best, least) = ((width, exceptions, high), cost);
        }
        // One bit less saves 16 bytes and can't cost fewer exceptions: with so many it has not paid and won't.
        if exceptions * (2 + PATCH) > least {
            break;
        }
    }
    best
}

/// The low `width` bits of each number, eight numbers in `width` bytes.
#[inline(always)]
pub(super) fn low_parts(numbers: &[u32; BLOCK], width: usize, out: &mut [u8]) {
    let mask = ((1u64 << width) - 1) as u32;
    let (groups, _) = numbers.as_chunks::<8>();
    for (g, group) in groups.iter().enumerate() {
        let n = |i: usize| u64::from(group[i] & mask);
        let pair = |i: usize| n(i) | n(i + 1) << width;
        let out = &mut out[g * width..];
        if width <= 8 {
            let four = |i: usize| pair(i) | pair(i + 2) << (2 * width);
            let eight = four(0) | four(4) << (4 * width);
            out[..8].copy_from_slice(&eight.to_le_bytes());
        } else if width <= 16 {
            let four = |i: usize| u128::from(pair(i) | pair(i + 2) << (2 * width));
            let eight = four(0) | four(4) << (4 * width);
            out[..16].copy_from_slice(&eight.to_le_bytes());
        } else {
            // 4 * width <= 96 bits each, 128 and the rest.
            let four = |i: usize| u128::from(pair(i)) | u128::from(pair(i + 2)) << (2 * width);
            let (lower, upper) = (four(0), four(4));
            let rest = (upper >> (128 - 4 * width)) as u64;
            out[..16].copy_from_slice(&(lower | upper << (4 * width)).to_le_bytes());
            out[16..24].copy_from_slice(&rest.to_le_bytes());
        }
    }
}

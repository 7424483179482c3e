//! A chunk of whole rows in few bytes: the form in which a pass leaves rows for later passes, in memory or in a spill file.
//!
//! Contract: [`unpack`] of [`pack`] gives the same rows bit for bit, whatever the values are (fractions, NaN payloads, -0.0,
//! explicit zeros). The bytes are the same on every machine. Any flipped bit and any missing byte is an error, found by a
//! 64-bit checksum; bytes that were made to deceive give an error or some canonical rows, never a panic, and memory of at most
//! 2,048 times their own length. Tolerance: none, every back end gives the same bytes and the same rows.
//!
//! # Layout
//!
//! All numbers are little-endian.
//!
//! | part | bytes |
//! |---|---|
//! | [`Header`] | 64 |
//! | two control bytes for each block of row lengths | 2 ⌈n_rows/128⌉ |
//! | four control bytes for each block of entries: two for columns, two for values | 4 ⌈nnz/128⌉ |
//! | the blocks of row lengths | |
//! | the blocks of entries: columns, then values | |
//! | zeros, so that a vector may be loaded at the last byte | 16 |
//!
//! A block holds 128 whole numbers (the last one is filled up with zeros) and may reach across rows. A number's low `b` bits lie
//! at bit `k * b` of the block, `b <= 24`; numbers that need more are *exceptions*: their positions (one byte each) and high parts
//! (1, 2 or 4 bytes each) follow the 16 `b` bytes. This is the patched frame of reference of Zukowski et al. 2006 (PFOR), with the
//! width that gives the fewest bytes. Eight numbers fill `b` whole bytes, so that one byte shuffle and one shift for each
//! lane take them apart at any width.
//!
//! * Columns: `column - previous column - 1` inside a row; a row's first column as it is. Both are small, so row starts cost nothing.
//! * Values: where all 128 are whole numbers in `0..=2^24`, as numbers (less one where none is zero); else their 128 raw `f32`.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod block;
mod checksum;
mod columns;
pub mod compact;
pub mod cuda;
mod decode;
mod encode;
mod header;
#[cfg(test)]
mod tests;

pub use columns::unpack_columns;
pub use decode::unpack;
pub use encode::{pack, seal};
pub use header::{Header, header};

/// Numbers in a block.
pub(crate) const BLOCK: usize = 128;
/// Bytes after the last block, so that a vector may be loaded at its last byte.
const PAD: usize = 16;
/// Widest low part: a number at any bit of a byte still lies within 32 bits.
const WIDEST: u32 = 24;

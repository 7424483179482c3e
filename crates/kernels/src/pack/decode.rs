//! Bytes to rows.

use cellmill_matrix::{Csr, Result};

use super::block::Lanes;
use super::checksum::{Running, STRIPE};
use super::encode::RAW;
use super::header::{HEADER_BYTES, Header, damaged, header};
use super::{BLOCK, PAD, WIDEST};

/// The checksum runs ahead of the decoder by about this many bytes, so that they are read from memory once.
const AHEAD: usize = 8192;

/// Unpacks what [`super::pack`] wrote. Replaces `into`, keeps its capacity; after an error `into` has no rows. The rows are
/// canonical: columns strictly increasing, below `n_cols`.
pub fn unpack(bytes: &[u8], into: &mut Csr) -> Result<()> {
    unpack_with(Lanes::best(), bytes, into)
}

pub(super) fn unpack_with(lanes: Lanes, bytes: &[u8], into: &mut Csr) -> Result<()> {
    let done = rows(lanes, bytes, into);
    if done.is_err() {
        into.clear(into.n_cols);
    }
    done
}

fn rows(lanes: Lanes, bytes: &[u8], into: &mut Csr) -> Result<()> {
    let mut reader = Reader::new(lanes, bytes, &mut into.indptr)?;
    let nnz = reader.header.nnz as usize;
    into.n_cols = reader.header.n_cols as usize;
    // Not cleared: all entries are overwritten, so only growth is filled with zeros.
    into.indices.resize(nnz, 0);
    into.data.resize(nnz, 0.0);
    let (columns, last_columns) = into.indices.as_chunks_mut::<BLOCK>();
    let (values, last_values) = into.data.as_chunks_mut::<BLOCK>();
    for (columns, values) in columns.iter_mut().zip(values) {
        reader.block(&into.indptr, columns, values)?;
    }
    if !last_columns.is_empty() {
        let (mut columns, mut values) = ([0; BLOCK], [0.0; BLOCK]);
        reader.block(&into.indptr, &mut columns, &mut values)?;
        last_columns.copy_from_slice(&columns[..last_columns.len()]);
        last_values.copy_from_slice(&values[..last_values.len()]);
    }
    reader.finish()
}

/// Reads blocks one after the other.
pub(super) struct Reader<'a> {
    pub(super) header: Header,
    pub(super) lanes: Lanes,
    bytes: &'a [u8],
    /// Control bytes of the next block of entries.
    control: usize,
    /// The next block.
    at: usize,
    checksum: Running,
    /// Bytes that the checksum has taken in.
    summed: usize,
    /// Number of the next block's first entry.
    entry: usize,
    /// The row of that entry.
    row: usize,
    /// Column of the entry before.
    column: u32,
}

/// What [`Reader::block`] has read.
pub(super) struct Read {
    /// Number of its first entry.
    pub(super) entry: usize,
    /// How many entries it holds.
    pub(super) len: usize,
    /// The row of its first entry.
    pub(super) row: usize,
    /// Whether a value may be zero.
    pub(super) zeros: bool,
}

impl<'a> Reader<'a> {
    /// Checks the header and reads the row lengths into `indptr`.
    pub(super) fn new(lanes: Lanes, bytes: &'a [u8], indptr: &mut Vec<u64>) -> Result<Self> {
        let header = header(bytes)?;
        if header.len != bytes.len() as u64 {
            return Err(damaged(format!("{} bytes", bytes.len()), format!("the header says {}", header.len)));
        }
        let mut reader = Reader {
            header,
            lanes,
            bytes,
            control: HEADER_BYTES,
            at: header.payload(),
            checksum: Running::new(lanes),
            summed: HEADER_BYTES,
            entry: 0,
            row: 0,
            column: 0,
        };
        reader.row_lengths(indptr)?;
        Ok(reader)
    }

    fn row_lengths(&mut self, indptr: &mut Vec<u64>) -> Result<()> {
        let n_rows = self.header.n_rows as usize;
        indptr.clear();
        indptr.reserve(n_rows + 1);
        indptr.push(0);
        let mut end = 0u64;
        let mut lengths = [0; BLOCK];
        for first in (0..n_rows).step_by(BLOCK) {
            self.advance_checksum();
            let shape = Shape::read(self.control_bytes()?)?;
            self.lanes.numbers(self.low_parts(shape)?, shape.width, &mut lengths);
            self.high_parts(shape, |k, high| lengths[k] |= high as u32)?;
            for length in &lengths[..BLOCK.min(n_rows - first)] {
                end += u64::from(*length);
                indptr.push(end);
            }
        }
        if end != self.header.nnz {
            return Err(damaged(format!("rows of {end} entries"), format!("the header says {}", self.header.nnz)));
        }
        Ok(())
    }

    /// Reads the next block. `indptr`: as [`Reader::new`] left it. Behind the block's length numbers are arbitrary.
    #[inline]
    pub(super) fn block(&mut self, indptr: &[u64], columns: &mut [u32; BLOCK], values: &mut [f32; BLOCK]) -> Result<Read> {
        self.advance_checksum();
        let entry = self.entry;
        let len = BLOCK.min(self.header.nnz as usize - entry);

        let shape = Shape::read(self.control_bytes()?)?;
        self.lanes.numbers(self.low_parts(shape)?, shape.width, columns);
        // No gap is larger than the widest low part, apart from the exceptions.
        let mut reach = (BLOCK as u64) << shape.width;
        self.high_parts(shape, |k, high| {
            columns[k] |= high as u32;
            reach += high;
        })?;

        let [control, exceptions] = self.control_bytes()?;
        let less = u32::from(control >> 7);
        if [control, exceptions] == [RAW, 0] {
            let (raw, _) = self.take(4 * BLOCK, 0)?.as_chunks::<4>();
            for (value, raw) in values.iter_mut().zip(raw) {
                *value = f32::from_bits(u32::from_le_bytes(*raw));
            }
        } else {
            let shape = Shape::read([control & 0x7F, exceptions])?;
            self.lanes.values(self.low_parts(shape)?, shape.width, less, values);
            // Sums of whole numbers up to 2^24: exact.
            self.high_parts(shape, |k, high| values[k] += high as f32)?;
        }

        while self.row + 1 < indptr.len() && indptr[self.row + 1] <= entry as u64 {
            self.row += 1;
        }
        let read = Read { entry, len, row: self.row, zeros: less == 0 };
        if u64::from(self.column) + reach < 1 << 32 {
            self.sums(indptr, &read, columns)?;
        } else {
            self.careful_sums(indptr, &read, columns)?;
        }
        self.column = columns[len - 1];
        self.entry += len;
        Ok(read)
    }

    /// Gaps to columns, where no sum over the block exceeds 32 bits: one running sum, from which each row that starts in the block
    /// then takes away what it began with.
    #[inline]
    fn sums(&self, indptr: &[u64], read: &Read, columns: &mut [u32; BLOCK]) -> Result<()> {
        let mut row = read.row;
        let carry = if indptr[row] == read.entry as u64 { u32::MAX } else { self.column };
        self.lanes.sums(columns, carry);
        let (mut start, mut base) = (0, 0u32);
        loop {
            let end = (indptr[row + 1] as usize - read.entry).min(read.len);
            let sum = columns[end - 1];
            if base != 0 {
                for column in &mut columns[start..end] {
                    *column = column.wrapping_sub(base);
                }
            }
            self.in_range(columns[end - 1])?;
            if end == read.len {
                return Ok(());
            }
            (start, base) = (end, sum.wrapping_add(1));
            row += 1;
            while indptr[row + 1] <= (read.entry + start) as u64 {
                row += 1;
            }
        }
    }

    /// Gaps to columns, one by one: nearly 2^32 columns, or bytes that were made to deceive.
    #[cold]
    fn careful_sums(&self, indptr: &[u64], read: &Read, columns: &mut [u32; BLOCK]) -> Result<()> {
        let mut row = read.row;
        let mut column = u64::from(self.column);
        for (k, out) in columns[..read.len].iter_mut().enumerate() {
            let entry = (read.entry + k) as u64;
            while indptr[row + 1] <= entry {
                row += 1;
            }
            column = u64::from(*out) + if indptr[row] == entry { 0 } else { column + 1 };
            *out = u32::try_from(column).unwrap_or(u32::MAX);
            self.in_range(*out)?;
        }
        Ok(())
    }

    #[inline]
    fn in_range(&self, column: u32) -> Result<()> {
        if u64::from(column) < self.header.n_cols {
            return Ok(());
        }
        Err(damaged(format!("column {column}"), format!("the chunk has {} columns", self.header.n_cols)))
    }

    /// Checks that all bytes were used and that they are those that were written.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.at + PAD != self.bytes.len() {
            return Err(damaged(format!("blocks that end at byte {}", self.at), format!("the chunk ends at {}", self.bytes.len())));
        }
        self.summed += self.checksum.stripes(&self.bytes[self.summed..]);
        let found = self.checksum.finish(&self.bytes[self.summed..], self.bytes.len() - HEADER_BYTES);
        if !cfg!(fuzzing) && found != self.header.checksum {
            return Err(damaged(format!("checksum {found:016x}"), format!("the header says {:016x}", self.header.checksum)));
        }
        Ok(())
    }

    #[inline]
    fn advance_checksum(&mut self) {
        if self.summed <= self.at {
            let end = (self.at + AHEAD).min(self.bytes.len()) - self.summed;
            let end = end - end % STRIPE;
            self.summed += self.checksum.stripes(&self.bytes[self.summed..self.summed + end]);
        }
    }

    #[inline]
    fn control_bytes(&mut self) -> Result<[u8; 2]> {
        let control = self.bytes[self.control..].first_chunk::<2>().copied();
        self.control += 2;
        control.ok_or_else(|| damaged("no control bytes", "each block has two"))
    }

    /// The next `len` bytes and `more` beyond them.
    #[inline]
    fn take(&mut self, len: usize, more: usize) -> Result<&'a [u8]> {
        match self.bytes.get(self.at..self.at + len + more) {
            Some(bytes) => {
                self.at += len;
                Ok(bytes)
            }
            None => Err(damaged("a block that reaches beyond the end", format!("the chunk ends at byte {}", self.bytes.len()))),
        }
    }

    #[inline]
    fn low_parts(&mut self, shape: Shape) -> Result<&'a [u8]> {
        self.take(16 * shape.width as usize, PAD)
    }

    /// Gives `put` each exception's position and high part, where it belongs in the number.
    #[inline]
    fn high_parts(&mut self, shape: Shape, put: impl FnMut(usize, u64)) -> Result<()> {
        if shape.exceptions == 0 {
            return Ok(());
        }
        let positions = self.take(shape.exceptions, 0)?;
        let highs = self.take(shape.exceptions << shape.high, 0)?;
        match shape.high {
            0 => each(positions, highs, |[a]: [u8; 1]| u64::from(a), shape.width, put),
            1 => each(positions, highs, |b| u64::from(u16::from_le_bytes(b)), shape.width, put),
            _ => each(positions, highs, |b| u64::from(u32::from_le_bytes(b)), shape.width, put),
        }
    }
}

#[inline(always)]
fn each<const N: usize>(
    positions: &[u8],
    highs: &[u8],
    number: impl Fn([u8; N]) -> u64,
    width: u32,
    mut put: impl FnMut(usize, u64),
) -> Result<()> {
    let (highs, _) = highs.as_chunks::<N>();
    for (position, high) in positions.iter().zip(highs) {
        put(usize::from(*position) % BLOCK, number(*high) << width);
    }
    Ok(())
}

/// How a block is packed: its two control bytes.
#[derive(Clone, Copy)]
struct Shape {
    width: u32,
    exceptions: usize,
    /// Logarithm (base 2) of the bytes of a high part.
    high: u8,
}

impl Shape {
    #[inline]
    fn read([control, exceptions]: [u8; 2]) -> Result<Self> {
        let shape = Shape { width: u32::from(control & 31), exceptions: usize::from(exceptions), high: control >> 5 };
        if shape.width > WIDEST || shape.high > 2 {
            return Err(damaged(format!("control byte {control}"), "a width is at most 24 and a high part 4 bytes"));
        }
        Ok(shape)
    }
}

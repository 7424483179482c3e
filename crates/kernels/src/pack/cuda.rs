//! Packed chunks to rows in device memory. The packed bytes are the form in which rows travel to a GPU: 1.35 bytes an entry of counts.
//! Chunks travel together, behind a table of them, so that a kernel that is started has enough to do.

use std::ops::Range;
use std::sync::Arc;

use cellmill_cuda::{Buffer, Device, Grid, Kernel, Source, Stream};
use cellmill_matrix::{Csr, Error, Result};

use super::header::{Header, damaged, header};
use super::{BLOCK, PAD};
use crate::select::DROPPED;
use crate::totals::RowTotals;

/// The kernels.
pub const SOURCE: Source =
    Source { name: "unpack", parts: &[include_str!("unpack.cu")], kernels: &["checksum", "index_rows", "unpack", "unpack_columns"] };

/// In a map of columns: a column that leaves and is not counted in the rows' totals either.
pub const ABSENT: u32 = DROPPED - 1;

/// Most columns: sums of a block's gaps fit in 32 bits.
const MAX_COLUMNS: u64 = 1 << 24;
/// Most entries and bytes at once: their addresses fit in 32 bits.
const MAX_AT_ONCE: u64 = 1 << 31;
/// Threads of a block of `unpack`: eight warps, a row each.
const THREADS: u32 = 256;
const ROWS: usize = 8;
/// Bytes of a line of the table, and what the chunks are aligned to.
const LINE: usize = 64;

/// Packed chunks that are uploaded at once: a table with a line for each, then their bytes.
#[derive(Clone, Debug)]
pub struct Batch {
    chunks: usize,
    bytes: usize,
    n_rows: usize,
    n_cols: u64,
    /// Entries, each chunk's filled up to whole blocks.
    entries: usize,
    blocks: usize,
    row_blocks: usize,
    /// Most rows of a chunk, and bytes of the longest.
    most_rows: usize,
    longest: usize,
    /// Whether the chunks were packed on the device, without checksums.
    made_here: bool,
}

impl Batch {
    /// Where the bytes of chunks of these lengths go.
    pub fn places(lens: impl ExactSizeIterator<Item = usize>) -> Vec<Range<usize>> {
        let mut at = LINE * lens.len();
        lens.map(|len| {
            let place = at..at + len;
            at = place.end.next_multiple_of(LINE);
            place
        })
        .collect()
    }

    fn empty(places: &[Range<usize>], made_here: bool) -> Batch {
        Batch {
            chunks: places.len(),
            bytes: places.last().map_or(0, |place| place.end),
            n_rows: 0,
            n_cols: 0,
            entries: 0,
            blocks: 0,
            row_blocks: 0,
            most_rows: 0,
            longest: 0,
            made_here,
        }
    }

    /// Chunks that were packed on the device, each of so many rows and entries, and the table before them, which is to be copied there.
    pub fn made_here(shapes: &[(usize, usize)], n_cols: usize, places: &[Range<usize>]) -> Result<(Batch, Vec<u8>)> {
        let mut batch = Batch::empty(places, true);
        let mut table = Vec::with_capacity(LINE * places.len());
        for (i, (place, &(n_rows, nnz))) in places.iter().zip(shapes).enumerate() {
            let header = Header {
                n_rows: n_rows as u64,
                n_cols: n_cols as u64,
                nnz: nnz as u64,
                index_bytes: 0,
                value_bytes: 0,
                len: place.len() as u64,
                checksum: 0,
            };
            table.extend(batch.line(i, place, &header)?);
        }
        Ok((batch, table))
    }

    /// Reads the headers of chunks that lie at their places, and writes the table before them.
    pub fn new(bytes: &mut [u8], places: &[Range<usize>]) -> Result<Batch> {
        let mut batch = Batch::empty(places, false);
        for (i, place) in places.iter().enumerate() {
            let Some(chunk) = bytes.get(place.clone()) else {
                return Err(Error::bug(format!("a packed chunk at {place:?} of {} bytes", bytes.len())));
            };
            let header = header(chunk)?;
            let line = batch.line(i, place, &header)?;
            bytes[LINE * i..LINE * (i + 1)].copy_from_slice(&line);
        }
        Ok(batch)
    }

    /// Rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Columns.
    pub fn n_cols(&self) -> usize {
        self.n_cols as usize
    }

    /// Bytes of table and chunks.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of device memory that chunks of `entries` entries take at most, packed and unpacked.
    pub fn device_bytes(entries: u64) -> u64 {
        17 * entries + (1 << 20)
    }

    /// The table's line of the next chunk, which is counted.
    fn line(&mut self, i: usize, place: &Range<usize>, header: &Header) -> Result<[u8; LINE]> {
        let (n_cols, len) = (header.n_cols, header.len);
        if len != place.len() as u64 || (len as usize) < header.payload() + PAD {
            return Err(damaged(format!("{} bytes", place.len()), format!("the header says {len}")));
        }
        if i > 0 && n_cols != self.n_cols {
            return Err(Error::bug(format!("chunks of {n_cols} and of {} columns for a GPU at once", self.n_cols)));
        }
        let entries = self.entries as u64 + header.nnz + BLOCK as u64;
        if n_cols > MAX_COLUMNS || n_cols == 0 && header.nnz > 0 || entries >= MAX_AT_ONCE || place.end as u64 >= MAX_AT_ONCE {
            return Err(damaged(format!("{entries} entries of {n_cols} columns in {} bytes", place.end), "a GPU takes 2 GiB at once"));
        }
        let mut line = [0; LINE];
        let words = [place.start as u64, header.checksum, self.entries as u64];
        let made_here = u64::from(self.made_here);
        let numbers = [len, header.n_rows, header.nnz, self.n_rows as u64, self.blocks as u64, self.row_blocks as u64, made_here];
        let longs = words.iter().flat_map(|word| word.to_le_bytes());
        let bytes = longs.chain(numbers.iter().flat_map(|&number| (number as u32).to_le_bytes()));
        line.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        self.n_cols = n_cols;
        self.n_rows += header.n_rows as usize;
        self.entries += (header.nnz as usize).next_multiple_of(BLOCK);
        self.blocks += header.blocks();
        self.row_blocks += header.row_blocks();
        self.most_rows = self.most_rows.max(header.n_rows as usize);
        self.longest = self.longest.max(len as usize);
        Ok(line)
    }
}

/// Rows in device memory: row `i` is `columns[starts[i]..ends[i]]` with values at the same positions, ascending.
#[derive(Debug)]
pub struct Rows {
    /// Number of rows.
    pub n_rows: usize,
    /// Number of columns.
    pub n_cols: usize,
    /// Where rows start: `(n_rows,)`.
    pub starts: Buffer<u32>,
    /// Where rows end: `(n_rows,)`.
    pub ends: Buffer<u32>,
    /// Column of each entry.
    pub columns: Buffer<u32>,
    /// Value of each entry.
    pub values: Buffer<f32>,
    /// Non-zero entries of each whole row: `(n_rows,)`.
    pub n_genes: Buffer<u32>,
    /// Sum of each whole row: `(n_rows,)`.
    pub total: Buffer<f64>,
    /// What was noticed: see [`Found::new`].
    pub found: Buffer<u32>,
}

/// What kernels notice about a chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Whether every value was a whole number.
    pub whole: bool,
    /// Whether every value could be a count: neither negative nor infinite nor NaN.
    pub counts: bool,
    /// The largest value, 0 if none is above.
    pub largest: f32,
}

impl Found {
    /// From the two numbers of `Rows::found`, as they were downloaded. Bytes that are not those of [`super::pack`] are an error.
    pub fn new(found: [u32; 2]) -> Result<Self> {
        let [flags, largest] = found;
        if flags & 4 != 0 {
            return Err(damaged("a wrong checksum on the device", "packed rows are those that were written"));
        }
        if flags & 2 != 0 {
            return Err(damaged("a column beyond the last", "columns lie in the chunk"));
        }
        if flags & 1 != 0 {
            return Err(damaged("blocks that contradict the header", "packed rows are those that were written"));
        }
        if flags & 32 != 0 {
            return Err(Error::bug("a value on the device is beyond its bound"));
        }
        Ok(Found { whole: flags & 8 == 0, counts: flags & 16 == 0, largest: f32::from_bits(largest) })
    }
}

impl Rows {
    /// Addresses of starts and ends for a kernel.
    pub(crate) fn spans(&self) -> [cellmill_cuda::Arg; 2] {
        [(&self.starts).into(), (&self.ends).into()]
    }

    /// Waits and says what was noticed so far.
    pub fn found(&self, stream: &Stream) -> Result<Found> {
        let found = stream.download(&self.found, 2)?;
        Found::new([found[0], found[1]])
    }

    /// Waits and brings totals of the whole rows to the host.
    pub fn totals(&self, stream: &Stream) -> Result<RowTotals> {
        self.found(stream)?;
        Ok(RowTotals { n_genes: stream.download(&self.n_genes, self.n_rows)?, total: stream.download(&self.total, self.n_rows)? })
    }

    /// Waits and brings the rows to the host.
    pub fn to_csr(&self, stream: &Stream) -> Result<Csr> {
        self.found(stream)?;
        let (starts, ends) = (stream.download(&self.starts, self.n_rows)?, stream.download(&self.ends, self.n_rows)?);
        let columns = stream.download(&self.columns, self.columns.len())?;
        let values = stream.download(&self.values, self.values.len())?;
        let mut csr = Csr::empty(self.n_cols);
        for (&start, &end) in starts.iter().zip(&ends) {
            let span = start as usize..end as usize;
            csr.push_row(&columns[span.clone()], &values[span]);
        }
        Ok(csr)
    }
}

/// The kernels on one device.
#[derive(Clone, Debug)]
pub struct Unpack {
    checksum: Kernel,
    index: Kernel,
    unpack: Kernel,
    unpack_columns: Kernel,
    multiprocessors: usize,
}

impl Unpack {
    /// Compiles them, if that was not done before.
    pub fn new(device: &Arc<Device>) -> Result<Self> {
        let program = device.program(&SOURCE)?;
        Ok(Unpack {
            checksum: program.kernel("checksum")?,
            index: program.kernel("index_rows")?,
            unpack: program.kernel("unpack")?,
            unpack_columns: program.kernel("unpack_columns")?,
            multiprocessors: device.multiprocessors() as usize,
        })
    }

    /// What [`super::unpack`] does, with the totals of the rows. `bytes`: the batch in device memory. Damage shows in
    /// [`Rows::found`]; the other kernels leave such rows alone.
    pub fn rows(&self, stream: &Stream, bytes: &Buffer<u8>, batch: &Batch) -> Result<Rows> {
        let (mut rows, index) = self.index(stream, bytes, batch)?;
        let args = [
            bytes.into(),
            (batch.n_cols as u32).into(),
            (&index.starts).into(),
            (&index.indptr).into(),
            (&mut rows.columns).into(),
            (&mut rows.values).into(),
            (&mut rows.starts).into(),
            (&mut rows.ends).into(),
            (&mut rows.n_genes).into(),
            (&mut rows.total).into(),
            (&mut rows.found).into(),
        ];
        // SAFETY: the arguments of `unpack`; `index_rows` has checked that blocks lie in the chunks and rows in their entries, or it has
        // set a flag at which the kernel returns; all have as many elements as `index` says.
        unsafe { stream.launch(&self.unpack, rows_of(batch), &args)? };
        Ok(rows)
    }

    /// What [`super::unpack_columns`] does. `map`: `(n_cols,)`, its numbers below `n_kept`, [`DROPPED`] or [`ABSENT`].
    pub fn columns(&self, stream: &Stream, bytes: &Buffer<u8>, batch: &Batch, map: &Buffer<u32>, n_kept: usize) -> Result<Rows> {
        if map.len() as u64 != batch.n_cols && batch.chunks > 0 {
            return Err(Error::bug(format!("a map of {} columns for packed rows of {}", map.len(), batch.n_cols)));
        }
        let (mut rows, index) = self.index(stream, bytes, batch)?;
        let args = [
            bytes.into(),
            (batch.n_cols as u32).into(),
            (&index.starts).into(),
            (&index.indptr).into(),
            map.into(),
            (&mut rows.columns).into(),
            (&mut rows.values).into(),
            (&mut rows.starts).into(),
            (&mut rows.ends).into(),
            (&mut rows.n_genes).into(),
            (&mut rows.total).into(),
            (&mut rows.found).into(),
        ];
        // SAFETY: as in `rows`; `map` has `n_cols` elements, and the kernel reads it at columns below that.
        unsafe { stream.launch(&self.unpack_columns, rows_of(batch), &args)? };
        rows.n_cols = n_kept;
        Ok(rows)
    }

    /// Where rows and blocks begin, after the checksums.
    fn index(&self, stream: &Stream, bytes: &Buffer<u8>, batch: &Batch) -> Result<(Rows, Index)> {
        if bytes.len() < batch.bytes {
            return Err(Error::bug(format!("{} bytes for a batch of {}", bytes.len(), batch.bytes)));
        }
        let chunks = batch.chunks as u32;
        let mut acc = stream.zeros::<u64>(8 * batch.chunks)?;
        let mut found = stream.zeros::<u32>(2)?;
        let mut starts = stream.alloc::<u32>(batch.blocks)?;
        let mut indptr = stream.alloc::<u32>(batch.n_rows + batch.chunks)?;
        let mut scratch = stream.alloc::<u32>(batch.row_blocks)?;
        let most = (8 * self.multiprocessors).div_ceil(batch.chunks.max(1)).max(1);
        let blocks = (batch.longest / 8).div_ceil(THREADS as usize).min(most) as u32;
        let grid = Grid { blocks: (blocks, chunks), threads: THREADS, shared: 0 };
        if !batch.made_here {
            // SAFETY: the arguments of `checksum`, which reads the table and the bytes of each chunk, all inside `bytes`.
            unsafe { stream.launch(&self.checksum, grid, &[bytes.into(), (&mut acc).into()])? };
        }
        let args = [bytes.into(), (&acc).into(), (&mut scratch).into(), (&mut starts).into(), (&mut indptr).into(), (&mut found).into()];
        // SAFETY: the arguments of `index_rows`, with buffers as long as the table says; control bytes lie in the chunks (`Batch::line`),
        // and it reads blocks only after it has seen that they end where their chunk does.
        unsafe { stream.launch(&self.index, Grid { blocks: (1, chunks), threads: 1024, shared: 0 }, &args)? };
        let rows = Rows {
            n_rows: batch.n_rows,
            n_cols: batch.n_cols as usize,
            starts: stream.alloc(batch.n_rows)?,
            ends: stream.alloc(batch.n_rows)?,
            // A vector of four may be stored at the last block's end.
            columns: stream.alloc(batch.entries)?,
            values: stream.alloc(batch.entries)?,
            n_genes: stream.alloc(batch.n_rows)?,
            total: stream.alloc(batch.n_rows)?,
            found,
        };
        Ok((rows, Index { starts, indptr }))
    }
}

/// Where blocks of entries and rows begin in their chunk.
struct Index {
    starts: Buffer<u32>,
    indptr: Buffer<u32>,
}

/// A warp for each row of the chunk that has most.
fn rows_of(batch: &Batch) -> Grid {
    Grid { blocks: (batch.most_rows.div_ceil(ROWS) as u32, batch.chunks as u32), threads: THREADS, shared: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::pack;

    fn packed(rows: u32) -> Vec<u8> {
        let mut csr = Csr::empty(9);
        (0..rows).for_each(|i| csr.push_row(&[i % 9], &[1.0 + i as f32]));
        let mut bytes = Vec::new();
        pack(&csr, &mut bytes);
        bytes
    }

    #[test]
    fn chunks_lie_aligned_behind_a_table_that_says_where() {
        let chunks = [packed(300), packed(0), packed(5)];
        let places = Batch::places(chunks.iter().map(Vec::len));
        let mut bytes = vec![0; places[2].end];
        chunks.iter().zip(&places).for_each(|(chunk, place)| bytes[place.clone()].copy_from_slice(chunk));
        let batch = Batch::new(&mut bytes, &places).unwrap();
        assert_eq!((batch.n_rows(), batch.bytes(), batch.entries), (305, bytes.len(), 384 + 128));
        let long = |line: usize, at: usize| u64::from_le_bytes(bytes[LINE * line + at..][..8].try_into().unwrap());
        let number = |line: usize, at: usize| u32::from_le_bytes(bytes[LINE * line + 24 + 4 * at..][..4].try_into().unwrap());
        for (i, (entry, row, start, scratch)) in [(0, 0, 0, 0), (384, 300, 3, 3), (384, 300, 3, 3)].into_iter().enumerate() {
            assert_eq!(long(i, 0) % LINE as u64, 0);
            assert_eq!((long(i, 0), long(i, 16)), (places[i].start as u64, entry));
            assert_eq!([number(i, 0), number(i, 3), number(i, 4), number(i, 5)], [chunks[i].len() as u32, row, start, scratch]);
        }
        assert_eq!([number(0, 1), number(0, 2), number(2, 1), number(2, 2)], [300, 300, 5, 5]);
    }

    #[test]
    fn damaged_and_unlike_chunks_are_refused() {
        let one = packed(40);
        let mut bytes = [vec![0; LINE], one.clone()].concat();
        let place = Batch::places([one.len()].into_iter());
        bytes[LINE + 9] ^= 1;
        assert!(Batch::new(&mut bytes, &place).is_err());
        bytes[LINE + 9] ^= 1;
        assert!(Batch::new(&mut bytes, &Batch::places([one.len() - 1].into_iter())).is_err(), "cut short");
        let mut other = Vec::new();
        pack(&Csr::empty(10), &mut other);
        let places = Batch::places([one.len(), other.len()].into_iter());
        let mut bytes = vec![0; places[1].end];
        bytes[places[0].clone()].copy_from_slice(&one);
        bytes[places[1].clone()].copy_from_slice(&other);
        assert!(Batch::new(&mut bytes, &places).unwrap_err().to_string().contains("9 columns"));
    }
}

//! Packed chunks to rows in device memory. The packed bytes are the form in which rows travel to a GPU: 1.35 bytes an entry of counts.

use std::sync::Arc;

use cellmill_cuda::{Buffer, Device, Grid, Kernel, Source, Stream};
use cellmill_matrix::{Csr, Error, Result};

use super::header::{Header, damaged};
use super::{BLOCK, PAD};
use crate::totals::RowTotals;

/// The kernels.
pub const SOURCE: Source =
    Source { name: "unpack", parts: &[include_str!("unpack.cu")], kernels: &["checksum", "index_rows", "unpack", "unpack_columns"] };

/// Most columns: sums of a block's gaps fit in 32 bits.
const MAX_COLUMNS: u64 = 1 << 24;
/// Threads of a block of `unpack`: eight warps, a row each.
const THREADS: u32 = 256;
const ROWS: usize = 8;

/// Rows in device memory: row `i` is `columns[starts[i]..end(i)]` with values at the same positions, ascending.
#[derive(Debug)]
pub struct Rows {
    /// Number of rows.
    pub n_rows: usize,
    /// Number of columns.
    pub n_cols: usize,
    /// Where rows start; without `ends`, where they end as well: `(n_rows + 1,)`.
    pub starts: Buffer<u32>,
    /// Where rows end, if entries have been left out: `(n_rows,)`.
    pub ends: Option<Buffer<u32>>,
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
    /// Copies rows of the host into device memory and waits. Their totals are left 0: nobody normalises them again.
    pub fn upload(stream: &Stream, x: &Csr) -> Result<Rows> {
        let beyond = |_| Error::bug(format!("{} entries for a GPU at once", x.nnz()));
        let starts = x.indptr.iter().map(|&p| u32::try_from(p)).collect::<std::result::Result<Vec<u32>, _>>().map_err(beyond)?;
        Ok(Rows {
            n_rows: x.n_rows(),
            n_cols: x.n_cols,
            starts: stream.upload(&starts)?,
            ends: None,
            columns: stream.upload(&x.indices)?,
            values: stream.upload(&x.data)?,
            n_genes: stream.zeros(0)?,
            total: stream.zeros(0)?,
            found: stream.zeros(2)?,
        })
    }

    /// Addresses of starts and ends for a kernel.
    pub(crate) fn spans(&self) -> [cellmill_cuda::Arg; 2] {
        let ends = self.ends.as_ref().map_or(self.starts.address() + 4, Buffer::address);
        [(&self.starts).into(), ends.into()]
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
        let starts = stream.download(&self.starts, self.n_rows + 1)?;
        let ends = match &self.ends {
            Some(ends) => stream.download(ends, self.n_rows)?,
            None => starts[1..].to_vec(),
        };
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

    /// What [`super::unpack`] does, with the totals of the rows. `bytes`: the packed chunk in device memory; `header`: its header.
    /// Damage shows in [`Rows::found`]; the other kernels leave such rows alone.
    pub fn rows(&self, stream: &Stream, bytes: &Buffer<u8>, header: &Header) -> Result<Rows> {
        let (mut rows, starts) = self.index(stream, bytes, header)?;
        let args = [
            bytes.into(),
            (header.n_rows as u32).into(),
            (header.n_cols as u32).into(),
            (&starts).into(),
            (&rows.starts).into(),
            (&mut rows.columns).into(),
            (&mut rows.values).into(),
            (&mut rows.n_genes).into(),
            (&mut rows.total).into(),
            (&mut rows.found).into(),
        ];
        // SAFETY: the arguments of `unpack`; `index_rows` has checked that blocks lie in the chunk and rows in `nnz`, or it has set a
        // flag at which the kernel returns; columns and values have `nnz` elements, the others `n_rows`.
        unsafe { stream.launch(&self.unpack, Grid::new(rows.n_rows.div_ceil(ROWS), THREADS), &args)? };
        Ok(rows)
    }

    /// What [`super::unpack_columns`] does. `map`: `(n_cols,)`, its numbers below `n_kept` or `DROPPED`.
    pub fn columns(&self, stream: &Stream, bytes: &Buffer<u8>, header: &Header, map: &Buffer<u32>, n_kept: usize) -> Result<Rows> {
        if map.len() as u64 != header.n_cols {
            return Err(Error::bug(format!("a map of {} columns for packed rows of {}", map.len(), header.n_cols)));
        }
        let (mut rows, starts) = self.index(stream, bytes, header)?;
        let mut ends = stream.alloc(rows.n_rows)?;
        let args = [
            bytes.into(),
            (header.n_rows as u32).into(),
            (header.n_cols as u32).into(),
            (&starts).into(),
            (&rows.starts).into(),
            map.into(),
            (&mut rows.columns).into(),
            (&mut rows.values).into(),
            (&mut ends).into(),
            (&mut rows.n_genes).into(),
            (&mut rows.total).into(),
            (&mut rows.found).into(),
        ];
        // SAFETY: as in `rows`; `map` has `n_cols` elements, and the kernel reads it at columns below that.
        unsafe { stream.launch(&self.unpack_columns, Grid::new(rows.n_rows.div_ceil(ROWS), THREADS), &args)? };
        rows.ends = Some(ends);
        rows.n_cols = n_kept;
        Ok(rows)
    }

    /// Row starts and block starts, after the checksum.
    fn index(&self, stream: &Stream, bytes: &Buffer<u8>, header: &Header) -> Result<(Rows, Buffer<u32>)> {
        let (n_rows, nnz, len) = (header.n_rows as usize, header.nnz as usize, header.len);
        // Block ends and word addresses fit in 32 bits.
        if len > u64::from(u32::MAX) - 4096 || header.n_cols > MAX_COLUMNS || header.n_cols == 0 && nnz > 0 || header.nnz >= 1 << 31 {
            return Err(damaged(format!("{len} bytes of {} columns", header.n_cols), "a chunk for a GPU has at most 4 GiB"));
        }
        if bytes.len() as u64 != len || (len as usize) < header.payload() + PAD {
            return Err(damaged(format!("{} bytes", bytes.len()), format!("the header says {len}")));
        }
        let mut acc = stream.zeros::<u64>(8)?;
        let mut found = stream.zeros::<u32>(2)?;
        let mut starts = stream.alloc::<u32>(header.blocks())?;
        let mut indptr = stream.alloc::<u32>(n_rows + 1)?;
        let mut scratch = stream.alloc::<u32>(header.row_blocks())?;
        let blocks = (len as usize / 8).div_ceil(THREADS as usize).min(8 * self.multiprocessors);
        // SAFETY: the arguments of `checksum`, which reads the chunk's `len` bytes.
        unsafe { stream.launch(&self.checksum, Grid::new(blocks, THREADS), &[bytes.into(), (len as u32).into(), (&mut acc).into()])? };
        let args = [
            bytes.into(),
            (n_rows as u32).into(),
            (nnz as u32).into(),
            (len as u32).into(),
            header.checksum.into(),
            (&acc).into(),
            (&mut scratch).into(),
            (&mut starts).into(),
            (&mut indptr).into(),
            (&mut found).into(),
        ];
        // SAFETY: the arguments of `index_rows`, with buffers as long as it wants them; control bytes lie in the chunk (checked above),
        // and it reads blocks only after it has seen that they end where the chunk does.
        unsafe { stream.launch(&self.index, Grid::new(1, 1024), &args)? };
        let rows = Rows {
            n_rows,
            n_cols: header.n_cols as usize,
            starts: indptr,
            ends: None,
            // A vector of four may be stored at the last block's end.
            columns: stream.alloc(nnz.next_multiple_of(BLOCK))?,
            values: stream.alloc(nnz.next_multiple_of(BLOCK))?,
            n_genes: stream.alloc(n_rows)?,
            total: stream.alloc(n_rows)?,
            found,
        };
        Ok((rows, starts))
    }
}

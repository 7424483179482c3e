//! The kernels, and the order in which they are started.

use std::sync::Arc;

use cellmill_cuda::{Arg, Buffer, Device, Grid, Kernel, Source, Stream, Tray};
use cellmill_matrix::{DType, Error, Result, Stretch};

use super::zstd::Frames;
use super::zstd::cuda::Zstd;
use crate::pack::cuda::Rows;
use crate::totals::COUNT_BITS;

/// Streams to bytes.
pub const LZ4: Source = Source { name: "lz4", parts: &[include_str!("lz4.cu")], kernels: &["lz4"] };
/// Bytes to rows.
pub const ROWS: Source = Source { name: "rows", parts: &[include_str!("rows.cu")], kernels: &["read_rows", "gene_counts"] };
/// Rows to packed chunks.
pub const PACK: Source = Source { name: "pack", parts: &[include_str!("pack.cu")], kernels: &["measure", "place", "pack_rows"] };

/// Most sets of genes whose sums are taken of each row.
pub const MOST_SETS: usize = 8;
/// Bytes behind the last stream that must be there, too.
pub const SLACK: usize = 16;
/// Most entries and bytes at once: their addresses fit in 32 bits.
const MAX_AT_ONCE: u64 = 1 << 31;
const _: () = assert!(COUNT_BITS == 16, "the shift in gene_counts");

/// The kernels on one device.
#[derive(Clone, Debug)]
pub struct Decode {
    lz4: Kernel,
    zstd: Zstd,
    read_rows: Kernel,
    gene_counts: Kernel,
    measure: Kernel,
    place: Kernel,
    pack_rows: Kernel,
}

/// A decoded chunk in device memory, padded to its whole length.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Where it is.
    pub memory: Arc<Buffer<u8>>,
    /// Its first byte there.
    pub at: usize,
    /// Entries of a block.
    pub block: u64,
    /// Whether byte k of all entries of a block lies before byte k + 1 of them.
    pub shuffled: bool,
}

/// A vector of entries that lies in chunks.
#[derive(Clone, Debug)]
pub struct Vector {
    /// Chunks one after the other.
    pub chunks: Vec<Chunk>,
    /// Entries of a chunk.
    pub chunk: u64,
    /// The first entry that is wanted, in the first chunk.
    pub first: u64,
    /// What entries are.
    pub dtype: DType,
}

/// Where the rows of a task start and end among its entries, on the host.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    /// `(n_rows + 1,)`, from 0 on.
    pub offsets: Vec<u32>,
}

/// Rows in device memory, and what was asked of each.
#[derive(Debug)]
pub struct ReadRows {
    /// The rows; `found` is as it is for unpacked ones.
    pub rows: Rows,
    /// Non-zero entries, sums, and sums over each set of genes: `(2 + n_sets, n_rows)`.
    pub facts: Buffer<f64>,
}

/// Rows that stay, cut into chunks, measured: what [`Decode::pack`] needs.
#[derive(Debug)]
pub struct Measured {
    tables: Buffer<u32>,
    /// Where each table begins in `tables`.
    from: usize,
    piece_rows: usize,
    piece_units: usize,
    controls: Buffer<u32>,
    starts: Buffer<u32>,
    most_units: usize,
    n_pieces: usize,
    lens: Buffer<u32>,
    known: Vec<u32>,
}

impl Vector {
    fn kind(&self) -> Option<(u32, u32)> {
        Some(match self.dtype {
            DType::F32 => (0, 4),
            DType::F64 => (1, 8),
            DType::I32 => (2, 4),
            DType::I64 => (2, 8),
            DType::U32 => (3, 4),
            DType::U64 => (3, 8),
            _ => return None,
        })
    }

    /// Whether entries of this type can be read.
    pub fn reads(dtype: DType) -> bool {
        Vector { chunks: Vec::new(), chunk: 1, first: 0, dtype }.kind().is_some()
    }

    /// The table of its chunks, of which `entries` entries are wanted; kind and size of an entry.
    fn table(&self, tray: &mut Tray, entries: u64) -> Result<(Buffer<u64>, u32, u32)> {
        let bad = |what: &str| Err(Error::bug(format!("{what} in {} chunks of {} entries", self.chunks.len(), self.chunk)));
        let Some((kind, size)) = self.kind() else { return bad("entries of another type") };
        if self.chunk == 0
            || self.chunk > MAX_AT_ONCE
            || self.first >= self.chunk
            || self.first + entries > self.chunk * self.chunks.len() as u64
        {
            return bad("entries beyond the last");
        }
        let bytes = self.chunk * u64::from(size);
        if self.chunks.iter().any(|c| c.block == 0 || c.at as u64 + bytes > c.memory.len() as u64) {
            return bad("bytes beyond the last");
        }
        let words = self.chunks.iter().flat_map(|c| {
            let block = c.block.min(self.chunk);
            [c.memory.address() + c.at as u64, block | u64::from(c.shuffled) << 32]
        });
        Ok((tray.upload(&words.collect::<Vec<u64>>())?, kind, size))
    }
}

impl Decode {
    /// Compiles them, if that was not done before.
    pub fn new(device: &Arc<Device>) -> Result<Self> {
        let (lz4, rows, pack) = (device.program(&LZ4)?, device.program(&ROWS)?, device.program(&PACK)?);
        Ok(Decode {
            lz4: lz4.kernel("lz4")?,
            zstd: Zstd::new(device)?,
            read_rows: rows.kernel("read_rows")?,
            gene_counts: rows.kernel("gene_counts")?,
            measure: pack.kernel("measure")?,
            place: pack.kernel("place")?,
            pack_rows: pack.kernel("pack_rows")?,
        })
    }

    /// Undoes the compression of `streams`, LZ4 blocks or bytes as they are, from `bytes` to `out`. `found[0]` is raised to 1 by a damaged one.
    pub fn streams(
        &self,
        tray: &mut Tray,
        bytes: &Buffer<u8>,
        streams: &[Stretch],
        out: &mut Buffer<u8>,
        found: &Buffer<u32>,
    ) -> Result<()> {
        if streams.is_empty() {
            return Ok(());
        }
        let end = (bytes.len() as u64).saturating_sub(SLACK as u64);
        let beyond = |s: &Stretch| s.from + u64::from(s.stored) > end || s.to + u64::from(s.len) > out.len() as u64;
        if streams.iter().any(beyond) || found.is_empty() {
            return Err(Error::bug(format!("streams beyond {} bytes, or beyond {}", bytes.len(), out.len())));
        }
        // Those that take longest first, and beside others that take as long.
        let mut ordered = streams.to_vec();
        ordered.sort_by_key(|s| std::cmp::Reverse(if s.stored == s.len { 0 } else { s.stored }));
        let words = ordered.iter().flat_map(|s| [s.from, s.to, u64::from(s.stored) | u64::from(s.len) << 32]);
        let table = tray.upload(&words.collect::<Vec<u64>>())?;
        let args = [bytes.into(), (&table).into(), (streams.len() as u32).into(), out.into(), found.into()];
        // SAFETY: the arguments of `lz4`; streams lie in `bytes` and go to `out`, as was seen above, and the kernel stays inside each.
        unsafe { tray.stream().launch(&self.lz4, Grid::new(streams.len().div_ceil(4), 128), &args) }
    }

    /// Undoes the compression of zstd frames, from `bytes` to `out`. `found[0]` is raised to 1 by a damaged one.
    pub fn frames(&self, tray: &mut Tray, bytes: &Buffer<u8>, frames: &Frames, out: &mut Buffer<u8>, found: &Buffer<u32>) -> Result<()> {
        self.zstd.decode(tray, bytes, frames, out, found)
    }

    /// Reads rows from decoded chunks. `member`: the sets of each gene as bits, `(n_cols,)`.
    #[expect(clippy::too_many_arguments, reason = "what a kernel takes")]
    pub fn rows(
        &self,
        tray: &mut Tray,
        columns: &Vector,
        values: &Vector,
        spans: &Spans,
        n_cols: usize,
        member: &Buffer<u8>,
        n_sets: usize,
    ) -> Result<ReadRows> {
        let n_rows = spans.offsets.len().saturating_sub(1);
        let entries = u64::from(spans.offsets.last().copied().unwrap_or(0));
        if n_sets > MOST_SETS || member.len() < n_cols || spans.offsets.windows(2).any(|w| w[0] > w[1]) {
            return Err(Error::bug(format!("{n_sets} sets of {} genes, of {n_cols}", member.len())));
        }
        let (column_table, _, column_size) = columns.table(tray, entries)?;
        let (value_table, kind, value_size) = values.table(tray, entries)?;
        let (starts, ends) = (tray.upload(&spans.offsets[..n_rows])?, tray.upload(&spans.offsets[spans.offsets.len() - n_rows..])?);
        let stream = tray.stream();
        let mut rows = Rows {
            n_rows,
            n_cols,
            starts,
            ends,
            columns: stream.alloc(entries as usize)?,
            values: stream.alloc(entries as usize)?,
            n_genes: stream.alloc(n_rows)?,
            total: stream.alloc(n_rows)?,
            found: stream.zeros(2)?,
        };
        let mut facts = stream.alloc::<f64>((2 + n_sets) * n_rows)?;
        let args = [
            (&column_table).into(),
            (columns.first as u32).into(),
            (columns.chunk as u32).into(),
            column_size.into(),
            (&value_table).into(),
            (values.first as u32).into(),
            (values.chunk as u32).into(),
            value_size.into(),
            kind.into(),
            (&rows.starts).into(),
            (&rows.ends).into(),
            (n_rows as u32).into(),
            (n_cols as u32).into(),
            member.into(),
            (n_sets as u32).into(),
            (&mut rows.columns).into(),
            (&mut rows.values).into(),
            (&mut rows.n_genes).into(),
            (&mut rows.total).into(),
            (&mut facts).into(),
            (&mut rows.found).into(),
        ];
        // SAFETY: the arguments of `read_rows`; tables and spans were checked, and it reads `member` at columns below `n_cols`.
        unsafe { stream.launch(&self.read_rows, Grid::new(n_rows.div_ceil(8), 256), &args)? };
        Ok(ReadRows { rows, facts })
    }

    /// Adds [`crate::totals::column_counts`] of the rows that `keep` does not hold 0 for, `(n_rows,)`, or of all, to `words`, `(n_cols,)`.
    /// Nothing if the rows have shown disorder.
    pub fn gene_counts(&self, stream: &Stream, rows: &Rows, keep: Option<&Buffer<u8>>, words: &mut Buffer<u64>) -> Result<()> {
        if words.len() < rows.n_cols || keep.is_some_and(|k| k.len() < rows.n_rows) {
            return Err(Error::bug(format!("{} words for {} genes", words.len(), rows.n_cols)));
        }
        let [starts, ends] = rows.spans();
        let n_rows = (rows.n_rows as u32).into();
        let (columns, values, found) = ((&rows.columns).into(), (&rows.values).into(), (&rows.found).into());
        let args = [starts, ends, columns, values, n_rows, keep.into(), words.into(), found];
        // SAFETY: the arguments of `gene_counts`; columns lie below `n_cols`, or a flag is set at which it returns.
        unsafe { stream.launch(&self.gene_counts, Grid::new(rows.n_rows.div_ceil(8), 256), &args) }
    }

    /// How long the packed chunks get. `kept`: numbers of the rows that stay, ascending; `pieces`: the first kept row of each chunk, and
    /// one more.
    pub fn measure(&self, tray: &mut Tray, rows: &Rows, spans: &Spans, kept: &[u32], pieces: &[u32]) -> Result<Measured> {
        const BLOCK: u32 = super::super::pack::BLOCK as u32;
        let n_pieces = pieces.len().saturating_sub(1);
        let inside = spans.offsets.len() == rows.n_rows + 1 && spans.offsets.iter().all(|&at| at as usize <= rows.columns.len());
        let fits = inside && kept.iter().all(|&row| (row as usize) < rows.n_rows);
        if !fits || pieces.first() != Some(&0) || pieces.last() != Some(&(kept.len() as u32)) || pieces.windows(2).any(|w| w[0] > w[1]) {
            return Err(Error::bug(format!("{n_pieces} chunks of {} rows of {}", kept.len(), rows.n_rows)));
        }
        // Tables side by side: where kept rows go, where they lie, pieces by rows and by blocks.
        let mut tables = vec![0u32];
        tables.extend(kept.iter().scan(0, |at, &row| {
            *at += spans.offsets[row as usize + 1] - spans.offsets[row as usize];
            Some(*at)
        }));
        let from = tables.len();
        tables.extend(kept.iter().map(|&row| spans.offsets[row as usize]));
        let piece_rows = tables.len();
        tables.extend(pieces);
        let piece_units = tables.len();
        let (mut units, mut most_units) = (0u32, 0);
        tables.push(0);
        for piece in pieces.windows(2) {
            let entries = tables[piece[1] as usize] - tables[piece[0] as usize];
            let here = (piece[1] - piece[0]).div_ceil(BLOCK) + entries.div_ceil(BLOCK);
            units += here;
            most_units = most_units.max(here as usize);
            tables.push(units);
        }
        let tables = tray.upload(&tables)?;
        let stream = tray.stream();
        let mut measured = Measured {
            from,
            piece_rows,
            piece_units,
            controls: stream.alloc(units as usize)?,
            starts: stream.alloc(units as usize)?,
            most_units,
            n_pieces,
            lens: stream.alloc(n_pieces)?,
            known: Vec::new(),
            tables,
        };
        let [to, from, columns, values, piece_rows, piece_units] = measured.args(rows);
        let (controls, starts) = ((&mut measured.controls).into(), (&mut measured.starts).into());
        let args = [to, from, columns, values, piece_rows, piece_units, controls, starts];
        let grid = measured.grid();
        // SAFETY: the arguments of `measure`; the tables lead to entries of rows and to as many blocks as were taken memory for.
        unsafe { stream.launch(&self.measure, grid, &args)? };
        let args = [to, piece_rows, piece_units, starts, (&mut measured.lens).into()];
        // SAFETY: the arguments of `place`, with the same tables.
        unsafe { stream.launch(&self.place, Grid { blocks: (1, n_pieces as u32), threads: 256, shared: 0 }, &args)? };
        Ok(measured)
    }

    /// Packs the rows that were measured; the header of each chunk is left zero. `places`: where each begins in the `len` bytes.
    pub fn pack(&self, tray: &mut Tray, rows: &Rows, measured: &Measured, places: &[u32], len: usize) -> Result<Buffer<u8>> {
        let ends = places.iter().skip(1).map(|&next| next as usize).chain([len]);
        let fit = measured.known.len() == places.len()
            && places.iter().zip(&measured.known).zip(ends).all(|((&at, &bytes), end)| at as usize + bytes as usize <= end);
        if !fit || len as u64 >= MAX_AT_ONCE {
            return Err(Error::bug(format!("{} places for {} packed chunks in {len} bytes", places.len(), measured.n_pieces)));
        }
        let places = tray.upload(places)?;
        let stream = tray.stream();
        let mut out = stream.zeros::<u8>(len)?;
        let [to, from, columns, values, piece_rows, piece_units] = measured.args(rows);
        let (controls, starts) = ((&measured.controls).into(), (&measured.starts).into());
        let args = [to, from, columns, values, piece_rows, piece_units, controls, starts, (&places).into(), (&mut out).into()];
        // SAFETY: the arguments of `pack_rows`; no chunk of the length that was measured reaches into the next.
        unsafe { stream.launch(&self.pack_rows, measured.grid(), &args)? };
        Ok(out)
    }
}

impl Measured {
    /// Waits; bytes of each packed chunk: `(n_pieces,)`.
    pub fn lens(&mut self, stream: &Stream) -> Result<&[u32]> {
        self.known = stream.download(&self.lens, self.n_pieces)?;
        Ok(&self.known)
    }

    /// Tables and rows in the order of the kernels.
    fn args(&self, rows: &Rows) -> [Arg; 6] {
        let table = |at: usize| Arg::from(self.tables.address() + 4 * at as u64);
        let (columns, values) = ((&rows.columns).into(), (&rows.values).into());
        [table(0), table(self.from), columns, values, table(self.piece_rows), table(self.piece_units)]
    }

    /// A warp for each block of the chunk that has most.
    fn grid(&self) -> Grid {
        Grid { blocks: (self.most_units.div_ceil(8) as u32, self.n_pieces as u32), threads: 256, shared: 0 }
    }
}

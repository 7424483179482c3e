//! The port through which a matrix comes in.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Csr, DType, Result, SourceRow};

/// Lengths of a matrix's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Cells.
    pub n_obs: u64,
    /// Genes.
    pub n_vars: usize,
}

/// How a matrix lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// Compressed rows: streamed.
    Csr,
    /// Compressed columns: turned into rows once, out of core.
    Csc,
    /// Dense: streamed, zeros dropped.
    Dense,
}

/// A matrix of cells by genes that can be read by ranges of whole rows, from any thread.
pub trait Source: Send + Sync {
    /// Cells and genes.
    fn shape(&self) -> Shape;

    /// Stored entries of each row range boundary: entries before row `row` (row `n_obs` gives the total). For a dense matrix,
    /// an upper bound. Used to cut work and memory; must be cheap (no decoding of `X/data`).
    fn entries_before(&self, row: SourceRow) -> u64;

    /// Replaces `into` by these rows: canonical ([`Csr::canonicalise`]), values as f32. Explicit zeros may remain.
    /// Compressed chunks that two calls share are decoded once where memory allows.
    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()>;

    /// These rows will be read soon: their bytes may be fetched from the disk while others are decoded. The default does nothing.
    fn will_read(&self, _rows: Range<SourceRow>) {}

    /// Bytes of compressed input read so far.
    fn bytes_read(&self) -> u64;

    /// Bytes of decompressed chunks produced so far.
    fn bytes_decoded(&self) -> u64;

    /// Bytes of memory that reading needs on top of what `into` holds, for `n_threads` concurrent callers.
    fn overhead_bytes(&self, n_threads: usize) -> u64;

    /// The name by which errors call this store.
    fn location(&self) -> &str;

    /// The names of all stores that rows come from.
    fn locations(&self) -> Vec<&str> {
        vec![self.location()]
    }

    /// Its chunks as they are stored, where someone else than [`Source::read`] can undo their compression. The default has none.
    fn stored(&self) -> Option<&dyn Stored> {
        None
    }
}

/// The two vectors of entries of a matrix by rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Column of each entry.
    Columns,
    /// Value of each entry.
    Values,
}

/// A matrix by rows whose entries lie in compressed chunks that can be handed out. What is not as expected is no error here: whoever gets
/// nothing reads the rows from the [`Source`], which knows how to say what is wrong.
pub trait Stored: Sync {
    /// Type of the entries, and entries of a chunk (the last one is padded).
    fn vector(&self, part: Part) -> (DType, u64);

    /// Reads chunk `chunk` as it is stored. `None` if it is not there, or compressed in another way than [`Streams`] can tell.
    fn read_stored(&self, part: Part, chunk: u64, bytes: &mut Vec<u8>) -> Option<Streams>;
}

/// How the bytes of a stored chunk become its entries: by undoing the compression of streams, then a shuffle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Entries of a block; the last block may be shorter.
    pub block: u64,
    /// Whether byte k of all entries of a block lies before byte k + 1 of them.
    pub shuffled: bool,
    /// What streams are.
    pub compression: Compression,
    /// One behind the other they make up the chunk.
    pub streams: Vec<Stretch>,
}

/// What compressed streams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// LZ4 blocks.
    Lz4,
    /// zstd frames.
    Zstd,
}

/// A compressed stream, or bytes as they are if `stored` is `len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// First byte as it is stored.
    pub from: u64,
    /// Bytes as they are stored.
    pub stored: u32,
    /// First byte once decoded.
    pub to: u64,
    /// Bytes once decoded.
    pub len: u32,
}

/// Someone who is told how far a stage has come, and who may stop it.
pub trait Watch: Sync {
    /// `done` of `total` units of the stage; `note` is a short word on its state (`""` for none). An error
    /// ([`crate::ErrorKind::Interrupted`]) stops the stage. Cheap enough to call a few times a second.
    fn tick(&self, done: u64, total: u64, note: &str) -> Result<()>;
}

/// Nobody watches.
impl Watch for () {
    fn tick(&self, _: u64, _: u64, _: &str) -> Result<()> {
        Ok(())
    }
}

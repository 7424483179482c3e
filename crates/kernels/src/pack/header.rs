//! What a packed chunk says about itself.

use cellmill_matrix::{Error, Place, Result};

use super::{BLOCK, PAD, checksum};

/// Length of the header in bytes.
pub(super) const HEADER_BYTES: usize = 64;
/// The last byte is the version of the layout.
const MAGIC: [u8; 4] = *b"CMP\x01";

/// The first 64 bytes of a packed chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of rows.
    pub n_rows: u64,
    /// Number of columns (genes).
    pub n_cols: u64,
    /// Number of entries, explicit zeros included.
    pub nnz: u64,
    /// Bytes of the columns, control bytes included.
    pub index_bytes: u64,
    /// Bytes of the values, control bytes included.
    pub value_bytes: u64,
    /// Bytes of the whole chunk, header included.
    pub len: u64,
    /// Checksum of all bytes after the header.
    pub checksum: u64,
}

impl Header {
    /// Blocks of row lengths.
    pub(super) fn row_blocks(&self) -> usize {
        (self.n_rows as usize).div_ceil(BLOCK)
    }

    /// Blocks of entries.
    pub(super) fn blocks(&self) -> usize {
        (self.nnz as usize).div_ceil(BLOCK)
    }

    /// Where the blocks begin, behind all control bytes.
    pub(super) fn payload(&self) -> usize {
        HEADER_BYTES + 2 * self.row_blocks() + 4 * self.blocks()
    }

    /// The header as it is stored.
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let fields = [self.n_rows, self.n_cols, self.nnz, self.index_bytes, self.value_bytes, self.len, self.checksum];
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        for (place, field) in bytes[8..].chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let check = checksum::of(&bytes) as u32;
        bytes[4..8].copy_from_slice(&check.to_le_bytes());
        bytes
    }
}

/// Reads and checks the header alone: the rest of the chunk may be absent, and is not verified.
pub fn header(bytes: &[u8]) -> Result<Header> {
    let Some(stored) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(damaged(format!("{} bytes", bytes.len()), "a packed chunk has a header of 64 bytes"));
    };
    if stored[..4] != MAGIC {
        return Err(damaged(format!("a chunk that begins with {:?}", &stored[..4]), format!("a packed chunk begins with {MAGIC:?}")));
    }
    let (fields, _) = stored[8..].as_chunks::<8>();
    let field = |i: usize| u64::from_le_bytes(fields[i]);
    let header = Header {
        n_rows: field(0),
        n_cols: field(1),
        nnz: field(2),
        index_bytes: field(3),
        value_bytes: field(4),
        len: field(5),
        checksum: field(6),
    };
    // A fuzzer does not guess checksums; what lies behind them is what it is for.
    if !cfg!(fuzzing) && header.to_bytes() != *stored {
        return Err(damaged("a header with a wrong checksum", "a packed chunk is read as it was written"));
    }
    // Two control bytes a block of 128 rows and four a block of 128 entries: what the length allows. Also keeps sums below 2^64.
    let controls = header.n_rows.div_ceil(BLOCK as u64) * 2 + header.nnz.div_ceil(BLOCK as u64) * 4;
    if header.len > 1 << 48 || controls + (HEADER_BYTES + PAD) as u64 > header.len || header.n_cols > u64::from(u32::MAX) {
        return Err(damaged(
            format!("{} rows, {} columns and {} entries in {} bytes", header.n_rows, header.n_cols, header.nnz, header.len),
            "a chunk has room for its blocks",
        ));
    }
    Ok(header)
}

/// A chunk that is not what [`super::pack`] wrote.
pub(super) fn damaged(found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::invalid(Place { element: Some("packed rows".into()), ..Place::default() }, found, expected)
}

//! What a zarr store and an HDF5 file have in common: a tree of groups and arrays with attributes.
//!
//! AnnData's elements (`element/`) are read and written through these traits, so each encoding is spelled once.

use std::ops::Range;
use std::path::PathBuf;

use cellmill_matrix::{Array, DType, Error, Place, Result, Streams, Values};

use crate::zarr::RowChunks;

/// The attribute by which [`crate::tree::Node`] names the fields of a dataset of records.
pub const COMPOUND: &str = "cellmill-compound";

/// Attributes of a node.
pub type Attrs = serde_json::Map<String, serde_json::Value>;

/// A group or an array.
#[derive(Clone, Debug)]
pub enum Node {
    /// A group.
    Group(Attrs),
    /// An array.
    Array(ArrayInfo),
}

impl Node {
    /// Its attributes.
    pub fn attrs(&self) -> &Attrs {
        match self {
            Node::Group(attrs) => attrs,
            Node::Array(info) => &info.attrs,
        }
    }
}

/// An array as its metadata describe it; nothing of it has been decoded.
#[derive(Clone, Debug)]
pub struct ArrayInfo {
    /// Attributes.
    pub attrs: Attrs,
    /// Lengths of the axes.
    pub shape: Vec<u64>,
    /// Type of the entries; `None` when it is one that we can't hold (compound, object, …).
    pub dtype: Option<DType>,
    /// The type as the store names it, for messages.
    pub dtype_name: String,
    /// Lengths of the smallest piece that can be decoded by itself (a zarr inner chunk, an HDF5 chunk).
    pub chunk: Vec<u64>,
    /// Lengths of a shard, if chunks are packed into shards.
    pub shard: Option<Vec<u64>>,
    /// The compression as people say it: `blosc-lz4 shuffle`, `zstd`, `gzip-4`, `none`.
    pub codec: String,
    /// Bytes on disk, where that is cheap to know.
    pub stored_bytes: Option<u64>,
}

/// A link that does not lead to anything in this store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostLink {
    /// Its name in its group.
    pub name: String,
    /// What it is.
    pub found: String,
    /// Why that leads nowhere.
    pub expected: String,
}

impl LostLink {
    /// The error of whoever needs what is not there.
    pub fn error(self, place: Place) -> Error {
        Error::invalid(place, self.found, self.expected)
    }
}

/// A store that can be read, from any thread.
pub trait Tree: Send + Sync {
    /// The name by which errors call this store.
    fn location(&self) -> &str;
    /// The node at a path (`""` is the root, `"X/data"`), or nothing.
    fn node(&self, path: &str) -> Result<Option<Node>>;
    /// Names of a group's children, sorted; no order is kept on disk.
    fn children(&self, path: &str) -> Result<Vec<String>>;
    /// Links of a group that lead nowhere, sorted by name; they are none of its children. The default has none.
    fn lost(&self, _path: &str) -> Vec<LostLink> {
        Vec::new()
    }
    /// A whole array. Shapes are checked against what is stored before memory is taken.
    fn read(&self, path: &str) -> Result<Array>;
    /// Rows (first axis) of an array.
    fn read_rows(&self, path: &str, rows: Range<u64>) -> Result<Values>;
    /// Arrays that will be read whole: where each request takes its time, they are asked for at once. The default does nothing.
    fn will_read(&self, _paths: &[String]) {}
    /// The hot path: an array chunk by chunk.
    fn chunks(&self, path: &str) -> Result<Box<dyn Chunks>>;
    /// Bytes of an array on disk; for very many chunks an estimate from some of them.
    fn stored_bytes(&self, path: &str) -> Result<Option<u64>> {
        Ok(match self.node(path)? {
            Some(Node::Array(info)) => info.stored_bytes,
            _ => None,
        })
    }
    /// Names of the objects whose versions tell a store at a URL from its other versions. The default is that of a single object.
    fn objects(&self) -> Result<Vec<String>> {
        Ok(vec![String::new()])
    }
    /// The fields of an array of records (compound entries), in order; `None` where entries are no records or can't be read.
    fn fields(&self, _path: &str) -> Result<Option<Vec<(String, Array)>>> {
        Ok(None)
    }
}

/// A numeric array that is decoded chunk by chunk, from any thread, into memory that the caller owns.
/// Chunks are numbered in C order over the grid of chunks.
pub trait Chunks: Send + Sync {
    /// Its metadata.
    fn info(&self) -> &ArrayInfo;
    /// Number of chunks.
    fn n_chunks(&self) -> u64;
    /// Decodes chunk `i` as little-endian entries, always the full chunk size (a last chunk is padded), into `out` (whose
    /// old contents are dropped, capacity kept). `scratch` keeps the compressed bytes. Returns compressed bytes read.
    fn decode(&self, i: u64, scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<u64>;
    /// As [`Chunks::decode`], into memory of exactly the chunk's size. The default goes through a copy.
    fn decode_into(&self, i: u64, scratch: &mut Vec<u8>, out: &mut [u8]) -> Result<u64> {
        let mut copy = Vec::new();
        let read = self.decode(i, scratch, &mut copy)?;
        if copy.len() != out.len() {
            return Err(Error::bug(format!("chunk {i} has {} bytes, {} are due", copy.len(), out.len())));
        }
        out.copy_from_slice(&copy);
        Ok(read)
    }
    /// Chunks that will be decoded soon: their stored bytes may be fetched meanwhile. The default does nothing.
    fn will_decode(&self, _chunks: Range<u64>) {}
    /// Chunks that are decoded next, one after the other: where each request takes its time, all are asked for at once. The default does
    /// nothing.
    fn gather(&self, _chunks: Range<u64>) {}
    /// Bytes that are held at most of what was fetched ahead, over all arrays of the store.
    fn held_bytes(&self) -> u64 {
        0
    }
    /// Reads chunk `i` as it is stored, where streams tell how it is decoded: [`cellmill_matrix::Stored`]. The default can't.
    fn read_stored(&self, _i: u64, _bytes: &mut Vec<u8>) -> Option<Streams> {
        None
    }
}

/// A store that is being written. Nothing appears under its final name before [`TreeWriter::finish`].
pub trait TreeWriter: Send + Sync {
    /// Makes a group (parents exist already).
    fn group(&self, path: &str, attrs: Attrs) -> Result<()>;
    /// Writes a whole array. `shape` `[]` is a scalar.
    fn array(&self, path: &str, array: &Array, attrs: Attrs) -> Result<()>;
    /// Writes an array of records, `(n,)`, of these fields of n entries each; at least one field.
    fn records(&self, path: &str, fields: &[(String, Values)], attrs: Attrs) -> Result<()>;
    /// Opens an array that grows along its first axis. `shape[0]` is ignored; `chunk` is a wish.
    fn stream(&self, path: &str, dtype: DType, shape: &[u64], chunk: &[u64], attrs: Attrs) -> Result<Box<dyn ArrayStream>>;
    /// Takes over a matrix whose chunks others have made, each in a file: by a second name where the file system knows such. The default
    /// can't.
    fn chunks(&self, path: &str, _chunks: &RowChunks, _file: &(dyn Fn(u64) -> PathBuf + Sync), _attrs: Attrs) -> Result<()> {
        Err(Error::bug(format!("'{path}': chunks that others have made go into a zarr store")))
    }
    /// Elements that may be written at a time. One where they lie in the store in the order in which they are written.
    fn at_a_time(&self) -> usize {
        1
    }
    /// Makes the store appear whole under its name.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// An array that grows along its first axis.
pub trait ArrayStream: Send {
    /// Appends whole rows.
    fn append(&mut self, values: &Values) -> Result<()>;
    /// Writes what is left and the final shape.
    fn close(self: Box<Self>) -> Result<()>;
}

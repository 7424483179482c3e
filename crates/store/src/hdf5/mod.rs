//! HDF5 files: h5ad and 10x Genomics h5.
//!
//! The structure (groups, attributes, chunk lists) is read by `hdf5-pure`. Soft links are followed here; stored bytes are read and
//! decoded here, chunk by chunk, from any thread and without a lock. Files are written by our own writer, which holds no array in memory.

mod attrs;
mod blocks;
mod chunks;
mod compound;
mod filter;
mod heap;
mod kind;
mod links;
mod lzf;
mod message;
mod newer;
pub(crate) mod raw;
#[cfg(test)]
mod tests;
mod tree;
mod write;

pub use chunks::Hdf5Chunks;
pub use compound::COMPOUND;
#[cfg(test)]
pub(crate) use tests::data as test_data;
pub use tree::Hdf5Tree;
pub use write::Hdf5Writer;

//! The nouns of cellmill: a sparse matrix of whole rows, the two kinds of row number, the vocabulary of recipes, the
//! ports that a store implements, AnnData's keys (each written once), and one error type that knows its place.
//!
//! Nothing here reads a file, knows a device or computes a statistic.

mod csr;
mod element;
mod error;
pub mod keys;
mod port;
mod rows;
mod select;

pub use csr::Csr;
pub use element::{Array, Column, DType, Element, Frame, Sparse, SparseFormat, Table, Values};
pub use error::{Error, ErrorKind, Place, Result};
pub use port::{Compression, Encoding, Part, Shape, Source, Stored, Streams, Stretch, Watch};
pub use rows::{Row, SourceRow};

//! Matrices on disk as [`cellmill_matrix::Source`]: rows of CSR and dense arrays are streamed, CSC is turned into rows first.

mod cache;
pub mod csc;
mod csr;
mod dense;
mod offsets;
mod vector;

pub use csc::CscMatrix;
pub use csr::CsrSource;
pub use dense::DenseSource;

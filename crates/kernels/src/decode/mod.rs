//! Stored chunks of a matrix by rows to packed chunks, on a GPU: LZ4, zstd and shuffling undone, rows looked at, sums taken, rows packed.
//!
//! Contract: columns rise in each row and values are whole numbers in `0..2^23`, or [`cuda::Decode`] says that they do not, and nothing
//! else that it gives means anything. If they do: the rows are those that the store's own decoder gives, row totals those of
//! [`crate::totals::row_totals`], sums of genes those of [`crate::totals::column_counts`], packed bytes those of [`crate::pack::pack`].
//! Tolerance: none.

pub mod cuda;
pub mod zstd;

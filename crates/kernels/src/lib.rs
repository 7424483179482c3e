//! What is done to one chunk of whole rows, one folder a kernel: contract and formula in `mod.rs`, the plain CPU version in
//! `cpu.rs`, which is the oracle for any other.
//!
//! Kernels know rows and columns; they know no recipe, no store and no thread count.

pub mod cuda;
pub mod gram;
pub mod moments;
pub mod pack;
pub mod product;
pub mod project;
pub mod residual;
pub mod select;
pub mod totals;
pub mod transform;

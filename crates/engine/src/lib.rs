//! The engine: recipes (data), folds (monoids over rows), and the executor that runs folds over row ranges on threads.
//!
//! `exec` decides who calls; `fold` decides what is summed; `recipe` decides what happens to a chunk on the way; `host` does the small
//! dense mathematics at the end. None of them knows a file format.

pub mod chunk;
pub mod exec;
pub mod fold;
pub mod groups;
pub mod host;
pub mod journal;
pub mod pca;
pub mod reader;
pub mod recipe;
pub mod stage;

pub use chunk::Chunk;

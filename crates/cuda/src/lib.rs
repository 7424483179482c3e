//! The device layer: find and open a GPU, its memory pool, streams, pinned memory, kernels compiled at run time. No mathematics.
//!
//! Libraries of CUDA are loaded when a GPU is asked for, so a program that uses this crate builds without CUDA and runs on machines
//! without a GPU. What can go wrong (no driver, a driver that is too old, a library that is missing, a card that was lost, no device
//! memory left) comes back as one sentence.
//!
//! Work is asynchronous and ordered inside a [`Stream`]; between streams, [`Event`]s order it. Memory is freed in stream order too.

mod blas;
mod buffer;
mod compile;
mod device;
mod fault;
mod find;
mod launch;
mod pinned;
mod pool;
mod processor;
mod program;
mod solver;
mod stream;
#[cfg(test)]
mod tests;

pub use blas::{Blas, Operand};
pub use buffer::{Buffer, Plain};
pub use compile::{Compiled, compile};
pub use device::{Device, Options};
pub use find::{LEAST_DRIVER, count};
pub use launch::{Arg, Grid};
pub use pinned::{Lent, Pending, Pinned, Tray};
pub use pool::{Memory, Usage};
pub use processor::Processor;
pub use program::{Kernel, Program, Source};
pub use solver::Solver;
pub use stream::{Event, Stream};

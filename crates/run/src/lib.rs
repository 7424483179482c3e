//! The main job as one call: open a store, analyse it, write what was found. The command line and the Python package are thin over this.

pub mod analysis;
pub mod budget;
pub mod carry;
pub mod convert;
pub mod device;
pub mod fingerprint;
mod graph;
pub mod job;
pub mod methods;
pub mod observe;
pub mod output;
pub mod plan;
pub mod recipe;
pub mod survey;

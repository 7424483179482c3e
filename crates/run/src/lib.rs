//! The main job as one call: open a store, analyse it, write what was found. The command line and the Python package are thin over this.

pub mod aggregate;
pub mod analysis;
pub mod budget;
pub mod carry;
mod chunked;
pub mod cluster;
pub mod convert;
pub mod delimited;
pub mod device;
pub mod fingerprint;
mod graph;
pub mod grouped;
pub mod job;
pub mod markers;
pub mod methods;
pub mod observe;
pub mod output;
pub mod pearson;
pub mod plan;
pub mod recipe;
pub mod regress;
pub mod score;
pub mod subject;
pub mod survey;
pub mod view;
pub mod wide;

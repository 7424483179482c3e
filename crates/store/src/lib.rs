//! Formats behind the ports: AnnData in zarr and h5ad, 10x Genomics h5 and mtx.

mod ahead;
pub mod anndata;
pub mod copy;
pub mod dataset;
pub mod element;
pub mod hdf5;
pub mod mtx;
pub mod numbers;
mod objects;
pub mod source;
pub mod tenx;
pub mod tree;
pub mod write;
pub mod zarr;

pub use objects::is_url;

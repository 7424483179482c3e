//! Formats behind the ports: AnnData in zarr and h5ad, 10x Genomics h5 and mtx.

pub mod element;
pub mod hdf5;
pub mod numbers;
pub mod tree;
pub mod zarr;

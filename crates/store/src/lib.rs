//! Formats behind the ports: AnnData in zarr and h5ad, 10x Genomics h5 and mtx.

pub mod tree;

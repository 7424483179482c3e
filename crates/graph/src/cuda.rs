//! The kernels for NVIDIA GPUs, beside their CPU twins in each algorithm's folder.

use cellmill_cuda::Source;

/// Every CUDA source of this crate, to be compiled where a GPU or NVRTC is.
pub fn sources() -> impl Iterator<Item = Source> {
    crate::knn::SOURCES
        .into_iter()
        .chain(crate::umap::SOURCES)
        .chain([crate::umap::FILTER, crate::umap::START, crate::fuzzy::SOURCE])
        .chain(crate::leiden::SOURCES)
        .chain(crate::contract::SOURCES)
}

/// Those that a run with the usual options needs, in the order in which it does.
pub fn usual() -> impl Iterator<Item = Source> {
    [crate::knn::USUAL, crate::fuzzy::SOURCE, crate::umap::START, crate::umap::FILTER]
        .into_iter()
        .chain(crate::contract::SOURCES)
        .chain(crate::leiden::SOURCES)
        .chain(crate::umap::SOURCES.into_iter().take(1))
}

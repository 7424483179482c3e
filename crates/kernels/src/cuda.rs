//! The kernels for NVIDIA GPUs, beside their CPU twins in each kernel's folder. The CPU is the oracle: each contract names the tolerance.

use cellmill_cuda::Source;

/// What a run needs, in the order in which it does.
pub const USUAL: [Source; 9] = [
    crate::decode::cuda::LZ4,
    crate::decode::zstd::cuda::SOURCE,
    crate::decode::cuda::ROWS,
    crate::decode::cuda::PACK,
    crate::moments::cuda::SOURCE,
    crate::pack::cuda::SOURCE,
    crate::transform::cuda::SOURCE,
    crate::gram::cuda::SOURCE,
    crate::project::cuda::SOURCE,
];

/// What statistics of groups need.
pub const OF_GROUPS: [Source; 6] = [
    crate::decode::cuda::LZ4,
    crate::decode::zstd::cuda::SOURCE,
    crate::decode::cuda::ROWS,
    crate::pack::cuda::SOURCE,
    crate::grouped::cuda::SOURCE,
    crate::ranked::cuda::SOURCE,
];

/// Every CUDA source of this crate, to be compiled where a GPU or NVRTC is.
pub fn sources() -> impl Iterator<Item = Source> {
    USUAL.into_iter().chain([crate::grouped::cuda::SOURCE, crate::ranked::cuda::SOURCE, crate::pack::compact::SOURCE])
}

//! The kernels for NVIDIA GPUs, beside their CPU twins in each kernel's folder. The CPU is the oracle: each contract names the tolerance.

use cellmill_cuda::Source;

/// Every CUDA source of this crate, to be compiled where a GPU or NVRTC is; in the order in which a run needs them. Those of [`USUAL`] come first.
pub const SOURCES: [Source; 12] = [
    crate::decode::cuda::LZ4,
    crate::decode::zstd::cuda::SOURCE,
    crate::decode::cuda::ROWS,
    crate::decode::cuda::PACK,
    crate::moments::cuda::SOURCE,
    crate::pack::cuda::SOURCE,
    crate::transform::cuda::SOURCE,
    crate::gram::cuda::SOURCE,
    crate::project::cuda::SOURCE,
    crate::grouped::cuda::SOURCE,
    crate::pack::compact::SOURCE,
    crate::ranked::cuda::SOURCE,
];

/// So many of them are what a run needs.
pub const USUAL: usize = 9;

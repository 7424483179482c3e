//! Every CUDA source of the program compiles for old and new cards, without a GPU. Where NVRTC is missing there is nothing to see, unless
//! `CELLMILL_NVRTC=needed` says that it must be there (`LD_LIBRARY_PATH` names its folder; the PyPI package `nvidia-cuda-nvrtc-cu12` will do).

use cellmill_cuda::{Source, compile};

/// Compute capabilities, times ten: the oldest that is taken, and those of the A100 and the H100.
const CAPABILITIES: [u32; 3] = [70, 80, 90];

/// The neighbour search asks for tensor cores of this capability and newer.
const TENSOR_CORES: u32 = 80;

#[test]
fn every_source_compiles_with_all_its_kernels() {
    let needed = std::env::var_os("CELLMILL_NVRTC").is_some();
    let probe = Source { name: "probe", parts: &["extern \"C\" __global__ void probe() {}"], kernels: &["probe"] };
    if let Err(error) = compile(&probe, 90) {
        assert!(!needed, "{error}");
        return;
    }
    for source in cellmill_kernels::cuda::sources().chain(cellmill_graph::cuda::sources()) {
        for capability in CAPABILITIES {
            if source.name.starts_with("knn") && capability < TENSOR_CORES {
                continue;
            }
            let image = compile(&source, capability).unwrap();
            assert!(image.is_machine_code(), "{} for {capability}", source.name);
            for kernel in source.kernels {
                let there = image.bytes().windows(kernel.len()).any(|bytes| bytes == kernel.as_bytes());
                assert!(there, "{} for {capability} lacks {kernel}", source.name);
            }
        }
    }
}

//! What is said on a machine without a GPU; on one with, the same calls succeed.

use crate::{Device, Memory, Options, Source, compile, count};

#[test]
fn a_machine_without_a_gpu_says_so_in_one_sentence() {
    if let Err(error) = count() {
        let said = error.to_string();
        assert!(said.starts_with("device: cuda, but "), "{said}");
        assert!(said.contains("NVIDIA driver"), "{said}");
        assert!(!error.is_ours(), "exit status 1");
        assert_eq!(Device::open(&Options::default()).unwrap_err().to_string(), said);
    }
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    let asked = Device::open(&Options { ordinal: 4096, ..Options::default() }).unwrap_err().to_string();
    assert!(asked.starts_with("device: cuda"), "{asked}");
    if count().is_ok() {
        assert!(asked.contains("cuda:4096"), "{asked}");
    }
}

#[test]
fn a_pool_smaller_than_its_start_is_refused() {
    let memory = Memory { initial: 2 << 30, max: Some(1 << 30) };
    let said = Device::open(&Options { memory, ..Options::default() }).unwrap_err().to_string();
    if count().is_ok() {
        assert_eq!(said, "gpu-memory: 2.0 GiB, but gpu-memory-max is 1.0 GiB");
    }
}

const TWICE: Source = Source {
    name: "twice",
    parts: &["extern \"C\" __global__ void twice(float* x, unsigned n) {", "if (threadIdx.x < n) x[threadIdx.x] *= 2; }"],
    kernels: &["twice"],
};

#[test]
fn nvrtc_compiles_or_is_missed() {
    match compile(&TWICE, 90) {
        Ok(image) => assert!(image.is_machine_code() && image.bytes().len() > 500),
        Err(error) => assert!(error.to_string().contains("NVRTC"), "{error}"),
    }
}

#[test]
fn a_mistake_in_a_kernel_is_ours_and_is_shown() {
    let source = Source { name: "broken", parts: &["nonsense;"], kernels: &[] };
    let error = compile(&source, 90).unwrap_err();
    if compile(&TWICE, 90).is_ok() {
        assert!(error.is_ours());
        assert!(error.to_string().contains("broken.cu"), "{error}");
    }
}

#[test]
fn images_are_kept_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let Ok(first) = crate::compile::cached(&TWICE, 90, Some(folder.path())) else { return };
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    assert_eq!(crate::compile::cached(&TWICE, 90, Some(folder.path())).unwrap(), first);
    std::fs::write(&files[0], b"half").unwrap();
    assert_eq!(crate::compile::cached(&TWICE, 90, Some(folder.path())).unwrap(), first);
}

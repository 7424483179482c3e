//! Compiles every CUDA source for some architectures with NVRTC, without a GPU: `compile_kernels [75 90 ...]`. NVRTC is found as the
//! run-time linker finds it (`LD_LIBRARY_PATH`); the PyPI package `nvidia-cuda-nvrtc` will do. Exit status 1 if a source does not compile.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let asked: Vec<u32> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let capabilities = if asked.is_empty() { vec![75, 90] } else { asked };
    let mut failed = false;
    for source in cellmill_kernels::cuda::SOURCES {
        for &capability in &capabilities {
            match cellmill_cuda::compile(&source, capability) {
                Ok(image) => {
                    let lacks = source.kernels.iter().find(|name| !image.bytes().windows(name.len()).any(|w| w == name.as_bytes()));
                    failed |= lacks.is_some();
                    let verdict = lacks.map_or("fine".to_owned(), |name| format!("lacks {name}"));
                    println!("{} {capability}: {} bytes, {verdict}", source.name, image.bytes().len());
                }
                Err(error) => {
                    failed = true;
                    println!("{} {capability}: {error}", source.name);
                }
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

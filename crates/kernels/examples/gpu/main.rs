//! Kernels on a GPU: `gpu check` compares each with its CPU oracle, `gpu time CELLS` times them and a pipelined run of both reads on
//! simulated counts, `gpu frames` times frames as anndata writes them. Prints JSON, one object a line. Needs a GPU.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod check;
mod decode;
mod frames;
mod time;

use std::process::ExitCode;
use std::sync::Arc;

use cellmill_cuda::{Device, Memory, Options};
use cellmill_matrix::Result;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("check") => open().and_then(|device| check::all(&device)),
        Some("time") => {
            let n = args.get(1).and_then(|n| n.parse().ok()).unwrap_or(130_000);
            open().and_then(|device| time::all(&device, n)).map(|()| true)
        }
        Some("frames") => open().and_then(|device| frames::time(&device)).map(|()| true),
        _ => {
            eprintln!("usage: gpu check | gpu time CELLS | gpu frames");
            return ExitCode::from(1);
        }
    };
    match done {
        Ok(fine) => ExitCode::from(u8::from(!fine)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(if error.is_ours() { 2 } else { 1 })
        }
    }
}

fn open() -> Result<Arc<Device>> {
    let from = std::time::Instant::now();
    let device = Device::open(&Options { memory: Memory { initial: 1 << 30, max: None }, ..Options::default() })?;
    println!("{{\"device\": \"{device}\", \"open_s\": {:.3}}}", from.elapsed().as_secs_f64());
    Ok(device)
}

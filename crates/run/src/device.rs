//! Which processor a run is given.

use std::path::PathBuf;
use std::str::FromStr;

use cellmill_cuda::{Device, Memory, Options, Processor};
use cellmill_matrix::{Error, Result};

use crate::observe::Listener;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The device.
    pub device: Word,
    /// Its memory.
    pub memory: Memory,
}

/// `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Word {
    /// A GPU if there is one and the input is worth it, else the CPU.
    Auto,
    /// The CPU.
    #[default]
    Cpu,
    /// This GPU, or an error.
    Cuda(usize),
}

impl FromStr for Word {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |n: &str| n.parse().ok().map(Word::Cuda);
        match text {
            "auto" => Some(Word::Auto),
            "cpu" => Some(Word::Cpu),
            "cuda" => Some(Word::Cuda(0)),
            other => other.strip_prefix("cuda:").and_then(number),
        }
        .ok_or_else(|| Error::option("--device", text, "it is auto, cpu, cuda or cuda:N"))
    }
}

/// Entries from which a GPU makes up for the second in which it is opened and its kernels are compiled.
const WORTH: u64 = 50_000_000;

impl Choice {
    /// Opens it. With `auto`, a GPU that can't be used is no error, and nobody hears of one that is not there.
    pub fn open(&self, nnz: u64, listener: &dyn Listener) -> Result<Processor> {
        let open = |ordinal| Device::open(&Options { ordinal, memory: self.memory, cache: cache() }).map(Processor::Cuda);
        match self.device {
            Word::Cpu => Ok(Processor::Cpu),
            Word::Cuda(ordinal) => open(ordinal),
            Word::Auto if nnz < WORTH || cellmill_cuda::count().is_err() => Ok(Processor::Cpu),
            Word::Auto => open(0).or_else(|error| {
                listener.warn(&format!("{error}; the CPU computes alone"));
                Ok(Processor::Cpu)
            }),
        }
    }
}

/// Where compiled kernels are kept between runs: the user's cache folder.
fn cache() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    base.is_absolute().then(|| base.join("cellmill"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (text, word) in [("auto", Word::Auto), ("cpu", Word::Cpu), ("cuda", Word::Cuda(0)), ("cuda:3", Word::Cuda(3))] {
            assert_eq!(text.parse::<Word>().unwrap(), word);
        }
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA"] {
            let said = text.parse::<Word>().unwrap_err().to_string();
            assert!(said.contains("auto, cpu, cuda or cuda:N"), "{said}");
        }
    }
}

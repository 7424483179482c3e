//! Which processor a run is given.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

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
    /// Opens it on a thread of its own, which takes half a second or more. What is seen at once is an error at once: no driver, or no such
    /// GPU. With `auto`, a GPU that can't be used is no error, and nobody hears of one that is not there.
    pub fn open<'a>(&self, nnz: u64, listener: &'a dyn Listener) -> Result<Opening<'a>> {
        let auto = self.device == Word::Auto;
        let ordinal = match self.device {
            Word::Cuda(ordinal) => {
                Device::known(ordinal)?;
                Some(ordinal)
            }
            Word::Auto if nnz >= WORTH => Some(0),
            Word::Auto | Word::Cpu => None,
        };
        let memory = self.memory;
        let open = move |ordinal| {
            if auto && cellmill_cuda::count().is_err() {
                return Ok(Processor::Cpu);
            }
            let device = Device::open(&Options { ordinal, memory, cache: cache() })?;
            cellmill_engine::pca::prepare(&device);
            Ok(Processor::Cuda(device))
        };
        let state = match ordinal {
            None => State::Open(Processor::Cpu),
            Some(ordinal) => State::Opening(std::thread::spawn(move || open(ordinal))),
        };
        Ok(Opening { auto, listener, state: Mutex::new(state) })
    }
}

/// A processor that is opened while other work is done.
pub struct Opening<'a> {
    auto: bool,
    listener: &'a dyn Listener,
    state: Mutex<State>,
}

enum State {
    Opening(JoinHandle<Result<Processor>>),
    Open(Processor),
    Failed,
}

impl Opening<'_> {
    /// Waits for it.
    pub fn get(&self) -> Result<Processor> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let processor = match std::mem::replace(&mut *state, State::Failed) {
            State::Open(processor) => processor,
            State::Failed => return Err(Error::bug("a processor that could not be opened")),
            State::Opening(thread) => match thread.join() {
                Err(_) => return Err(Error::bug("the thread that opens the GPU has panicked")),
                Ok(Err(error)) if self.auto => {
                    self.listener.warn(&format!("{error}; the CPU computes alone"));
                    Processor::Cpu
                }
                Ok(opened) => opened?,
            },
        };
        *state = State::Open(processor.clone());
        Ok(processor)
    }
}

/// A run that ends early leaves no thread behind that talks to the driver.
impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Opening(thread) = std::mem::replace(state, State::Failed) {
            let _ = thread.join();
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

    struct Silent(Mutex<Vec<String>>);

    impl Listener for Silent {
        fn begin(&self, _: &str, _: &str) {}
        fn progress(&self, _: u64, _: u64, _: &str) {}
        fn end(&self, _: &crate::observe::StageTrace) {}
        fn warn(&self, message: &str) {
            self.0.lock().unwrap().push(message.into());
        }
        fn stopped(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_at_once_and_none_with_auto() {
        let listener = Silent(Mutex::default());
        let choice = |device| Choice { device, memory: Memory::default() };
        let error = choice(Word::Cuda(4096)).open(u64::MAX, &listener).err().unwrap().to_string();
        assert!(error.starts_with("device: cuda"), "{error}");
        let auto = choice(Word::Auto).open(u64::MAX, &listener).unwrap();
        let (first, second) = (auto.get().unwrap(), auto.get().unwrap());
        assert_eq!(first.device().is_some(), second.device().is_some());
        if cellmill_cuda::count().is_err() {
            assert!(first.device().is_none() && listener.0.lock().unwrap().is_empty());
        }
    }
}

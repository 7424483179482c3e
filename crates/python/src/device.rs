//! The device that verbs compute on: the CPU, or GPUs that are opened when the first of them is asked for.

use std::sync::{Mutex, PoisonError};

use cellmill_cuda::Processor;
use cellmill_matrix::Result;
use cellmill_run::device::{Choice, Word};
use pyo3::prelude::*;

use crate::error::raised;
use crate::pool::Call;

/// What was asked for, and what was opened for it: by which process, since a GPU does not survive a fork.
static DEVICE: Mutex<(Word, Option<(u32, Processor)>)> = Mutex::new((Word::Cpu, None));

/// Chooses `cpu`, `auto`, `cuda`, `cuda:N` or `cuda:N,M` for the verbs that follow.
#[pyfunction]
pub fn choose_device(word: &str) -> PyResult<()> {
    let word: Word = word.parse().map_err(raised)?;
    let mut device = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    if device.0 != word {
        *device = (word, None);
    }
    Ok(())
}

/// The chosen processor. `auto` is a GPU if there is one that can be used: whoever chooses it has said that the work is worth it.
pub fn processor(call: &Call) -> Result<Processor> {
    let mut device = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    match device.1.take() {
        Some((owner, processor)) if owner == process => {
            device.1 = Some((owner, processor.clone()));
            return Ok(processor);
        }
        // The parent's: forgotten here, never closed.
        Some((_, processor)) => std::mem::forget(processor),
        None => {}
    }
    let processor = Choice { device: device.0.clone(), ..Choice::default() }.open(u64::MAX, call)?.get()?;
    device.1 = Some((process, processor.clone()));
    Ok(processor)
}

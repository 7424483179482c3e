//! Dask's side of a run on workers: a dispatcher that asks a Python object, and what a worker calls.

use std::path::PathBuf;

use cellmill_matrix::{Error, ErrorKind, Place, Result};
use cellmill_run::budget;
use cellmill_run::cluster::{self, Dispatcher, Order, Worker};
use cellmill_run::device::no_gpu as no_gpu_here;
use pyo3::exceptions::{PyKeyboardInterrupt, PyValueError};
use pyo3::prelude::*;

use crate::error::raised;

/// `cellmill._crew.Crew`.
pub struct Crew(pub Py<PyAny>);

impl Crew {
    fn ask<T>(&self, question: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>) -> Result<T> {
        Python::attach(|py| question(self.0.bind(py)).map_err(|error| said(py, &self.0, &error)))
    }
}

/// What Python says of workers and their scheduler. All of it may be better the next time.
fn said(py: Python<'_>, crew: &Py<PyAny>, error: &PyErr) -> Error {
    if error.is_instance_of::<PyKeyboardInterrupt>(py) {
        return ErrorKind::Interrupted.into();
    }
    let scheduler = crew.bind(py).getattr("scheduler").map_or_else(|_| "dask".into(), |s| s.to_string());
    let message = error.value(py).str().map_or_else(|_| "an error that can't be told".into(), |s| s.to_string());
    ErrorKind::Io { place: Place::store(scheduler), message }.into()
}

impl Dispatcher for Crew {
    fn n_workers(&self) -> Result<usize> {
        self.ask(|crew| crew.call_method0("n_workers")?.extract())
    }

    fn rooms(&self) -> Result<Vec<(String, u64)>> {
        self.ask(|crew| crew.call_method0("rooms")?.extract())
    }

    fn gpus(&self) -> Result<Vec<(String, Option<String>)>> {
        self.ask(|crew| crew.call_method0("gpus")?.extract())
    }

    fn submit(&self, orders: &[Order]) -> Result<()> {
        self.ask(|crew| {
            let of = |o: &Order| (o.key.clone(), o.message.clone(), o.tasks.start, o.tasks.end, o.n_tasks, o.needs);
            crew.call_method1("submit", (orders.iter().map(of).collect::<Vec<_>>(),)).map(drop)
        })
    }

    fn carried_out(&self) -> Result<Vec<usize>> {
        let (done, refused): (Vec<usize>, Option<String>) = self.ask(|crew| crew.call_method0("carried_out")?.extract())?;
        match refused {
            None => Ok(done),
            Some(text) => Err(serde_json::from_str(&text).unwrap_or_else(|_| Error::bug(text))),
        }
    }

    fn cancel(&self) {
        // Orders that can't be taken back are carried out in vain.
        let _ = self.ask(|crew| crew.call_method0("cancel").map(drop));
    }

    fn leave(&self, run: &str) {
        // A worker that does not hear of it forgets the run when the next one comes.
        let _ = self.ask(|crew| crew.call_method1("leave", (run,)).map(drop));
    }
}

/// Share of a worker's memory that the engine takes: Dask holds a worker up at 80 %, and Python needs some.
const SHARE: f64 = 0.6;

/// Bytes that the engine takes on a worker of `memory` bytes (0: what is free).
#[pyfunction]
pub fn room(memory: u64) -> u64 {
    let memory = if memory == 0 { budget::available_bytes() } else { memory };
    (memory as f64 * SHARE) as u64
}

/// Why the engine finds no GPU here, if it finds none.
#[pyfunction]
pub fn no_gpu(py: Python<'_>) -> Option<String> {
    py.detach(no_gpu_here)
}

/// Carries out an order on a worker of `threads` threads and `memory` bytes (0: what is free). An error that would come again on any worker
/// is returned as JSON; one that another worker may not run into is raised.
#[pyfunction]
pub fn work(py: Python<'_>, order: &str, name: String, threads: usize, memory: u64, scratch: PathBuf) -> PyResult<Option<String>> {
    let worker = Worker { name, threads, memory: room(memory), scratch };
    match py.detach(|| cluster::carry_out(order, &worker)) {
        Ok(()) => Ok(None),
        Err(error) if cluster::may_pass(&error) => Err(raised(error)),
        Err(error) => serde_json::to_string(&error).map(Some).map_err(|e| PyValueError::new_err(e.to_string())),
    }
}

/// Forgets a run on a worker.
#[pyfunction]
pub fn leave(py: Python<'_>, run: &str) {
    py.detach(|| cluster::leave(run));
}

//! Threads, memory, and how a long call runs: on the pool, without the interpreter, while the calling thread minds signals and progress.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cellmill_matrix::{Error, ErrorKind, Result, Watch};
use cellmill_run::budget;
use cellmill_run::observe::{Listener, StageTrace};
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::raised;

/// Threads that are wanted; 0: as many as the machine has.
static THREADS: AtomicUsize = AtomicUsize::new(0);
/// Memory ceiling in bytes; 0: a share of what is free.
static MEMORY: AtomicU64 = AtomicU64::new(0);
/// The pool, made at first use: the process that made it, its threads, and the pool.
static POOL: Mutex<Option<(u32, usize, Arc<ThreadPool>)>> = Mutex::new(None);

/// Time between two looks at signals and progress.
const PULSE: Duration = Duration::from_millis(60);
/// A call that is over sooner shows no progress.
const PATIENCE: Duration = Duration::from_millis(700);

/// Sets the number of threads and the memory ceiling in bytes; 0 stands for the machine's.
#[pyfunction]
pub fn configure(n_threads: usize, memory: u64) {
    THREADS.store(n_threads, Ordering::Relaxed);
    MEMORY.store(memory, Ordering::Relaxed);
}

/// Bytes of memory that this process may take now.
#[pyfunction]
pub fn available_memory() -> u64 {
    budget::available_bytes()
}

/// Bytes from text such as `4GiB`.
#[pyfunction]
pub fn parse_memory(text: &str) -> PyResult<u64> {
    budget::parse_bytes(text).map_err(raised)
}

/// Threads in use.
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// The memory ceiling in bytes.
pub fn memory() -> u64 {
    match MEMORY.load(Ordering::Relaxed) {
        0 => (budget::available_bytes() as f64 * budget::DEFAULT_SHARE) as u64,
        bytes => bytes,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pool of this process. Threads don't survive a fork, so a child makes its own; the parent's is forgotten there, never joined.
fn pool() -> Result<Arc<ThreadPool>> {
    let (process, n) = (std::process::id(), threads());
    let mut slot = lock(&POOL);
    match slot.take() {
        Some((owner, size, pool)) if owner == process && size == n => {
            *slot = Some((owner, size, pool.clone()));
            return Ok(pool);
        }
        Some((owner, _, pool)) if owner != process => std::mem::forget(pool),
        _ => {}
    }
    let pool = threads_of_their_own(n)?;
    *slot = Some((process, n, pool.clone()));
    Ok(pool)
}

fn threads_of_their_own(n: usize) -> Result<Arc<ThreadPool>> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(n)
        .thread_name(|i| format!("cellmill-{i}"))
        .build()
        .map_err(|e| Error::bug(format!("no threads: {e}")))?;
    Ok(Arc::new(pool))
}

/// What the working threads and the calling thread tell each other.
#[derive(Default)]
pub struct Call {
    stopped: AtomicBool,
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Default)]
struct State {
    stage: String,
    done: u64,
    total: u64,
    finished: bool,
    warnings: Vec<String>,
}

impl Watch for Call {
    fn tick(&self, done: u64, total: u64, _: &str) -> Result<()> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(ErrorKind::Interrupted.into());
        }
        let mut state = lock(&self.state);
        (state.done, state.total) = (done, total);
        Ok(())
    }
}

impl Listener for Call {
    fn begin(&self, stage: &str, _: &str) {
        let mut state = lock(&self.state);
        (state.stage, state.done, state.total) = (stage.to_string(), 0, 0);
    }
    fn progress(&self, done: u64, total: u64, _: &str) {
        let mut state = lock(&self.state);
        (state.done, state.total) = (done, total);
    }
    fn end(&self, _: &StageTrace) {}
    fn warn(&self, message: &str) {
        lock(&self.state).warnings.push(message.to_string());
    }
    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// Says at its end, whatever that is, that the work is over.
struct Over<'a>(&'a Call);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).finished = true;
        self.0.over.notify_all();
    }
}

/// Runs `work` on the pool. The interpreter is free meanwhile; Ctrl-C stops the work at its next tick. Warnings go to Python's `warnings`.
pub fn run<T: Send>(py: Python<'_>, stage: &str, work: impl FnOnce(&Call) -> Result<T> + Send) -> PyResult<T> {
    let call = Call::default();
    lock(&call.state).stage = stage.to_string();
    // A block that Python computes for one of our threads may ask us in turn: that thread must not wait for its own pool.
    let inner = rayon::current_thread_index().is_some();
    let (result, signal) = py.detach(|| {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let _over = Over(&call);
                let pool = if inner { threads_of_their_own(1)? } else { pool()? };
                pool.install(|| work(&call))
            });
            let signal = mind(&call, inner);
            let result = worker.join().unwrap_or_else(|_| Err(Error::bug("a thread panicked")));
            (result, signal)
        })
    });
    let warnings = std::mem::take(&mut lock(&call.state).warnings);
    if !warnings.is_empty() {
        py.import("cellmill._report")?.call_method1("warn", (warnings,))?;
    }
    match signal {
        Some(error) => Err(error),
        None => result.map_err(raised),
    }
}

/// Waits for the work; runs Python's signal handlers and shows progress meanwhile. Returns what a handler raised.
fn mind(call: &Call, silent: bool) -> Option<PyErr> {
    let start = Instant::now();
    let mut shown = false;
    let mut raised = None;
    loop {
        let state = lock(&call.state);
        let (state, _) = call.over.wait_timeout_while(state, PULSE, |s| !s.finished).unwrap_or_else(PoisonError::into_inner);
        let (finished, stage, done, total) = (state.finished, state.stage.clone(), state.done, state.total);
        drop(state);
        if finished {
            break;
        }
        if raised.is_some() {
            continue;
        }
        let heard = Python::attach(|py| {
            py.check_signals()?;
            if !silent && start.elapsed() > PATIENCE {
                shown = true;
                py.import("cellmill._report")?.call_method1("progress", (stage, done, total))?;
            }
            Ok(())
        });
        if let Err(error) = heard {
            call.stopped.store(true, Ordering::Relaxed);
            raised = Some(error);
        }
    }
    if shown {
        // A bar that can't be taken away is no reason to lose the result.
        let _ = Python::attach(|py| py.import("cellmill._report")?.call_method0("done").map(drop));
    }
    raised
}

//! Who watches a run: a listener that shows progress and may stop it, and the trace that keeps the figures of each stage.

use std::sync::Mutex;
use std::time::Instant;

use cellmill_matrix::{ErrorKind, Result, Source, Watch};
use serde::Serialize;

/// Hears of a run as it goes. Methods are called from worker threads.
pub trait Listener: Sync {
    /// A stage begins; `unit` is what its progress counts.
    fn begin(&self, stage: &str, unit: &str);
    /// A stage has come this far.
    fn progress(&self, done: u64, total: u64, note: &str);
    /// A stage has ended.
    fn end(&self, stage: &StageTrace);
    /// Something that the user should know.
    fn warn(&self, message: &str);
    /// Whether the user wants the run to stop.
    fn stopped(&self) -> bool;
}

/// Nobody listens.
pub struct Silence;

impl Listener for Silence {
    fn begin(&self, _: &str, _: &str) {}
    fn progress(&self, _: u64, _: u64, _: &str) {}
    fn end(&self, _: &StageTrace) {}
    fn warn(&self, _: &str) {}
    fn stopped(&self) -> bool {
        false
    }
}

/// Figures of one stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageTrace {
    /// Its name.
    pub stage: String,
    /// Seconds from the start of the run to its own.
    pub start_s: f64,
    /// Wall-clock seconds.
    pub wall_s: f64,
    /// CPU seconds of all threads, those of stages beside it counted.
    pub cpu_s: f64,
    /// Rows (cells) that it went through.
    pub rows: u64,
    /// Stored entries that it went through.
    pub nnz: u64,
    /// Compressed bytes read from the source.
    pub bytes_read: u64,
    /// Bytes decoded from the source.
    pub bytes_decoded: u64,
    /// Reads of the source.
    pub source_reads: u32,
    /// Largest resident memory of the process so far, in bytes.
    pub peak_rss_bytes: u64,
}

/// Times stages and passes what happens to a listener.
pub struct Observer<'a> {
    listener: &'a dyn Listener,
    source: Option<&'a dyn Source>,
    start: Instant,
    stages: Mutex<Vec<StageTrace>>,
}

/// One stage that runs.
pub struct StageWatch<'a> {
    observer: &'a Observer<'a>,
    stage: String,
    start: Instant,
    cpu: f64,
    bytes_read: u64,
    bytes_decoded: u64,
    /// Whether the listener hears of its end alone: another stage that runs at the same time shows its progress.
    silent: bool,
}

impl<'a> Observer<'a> {
    /// An observer of a run over a source, which begins now.
    pub fn new(listener: &'a dyn Listener, source: &'a dyn Source) -> Self {
        Observer { source: Some(source), ..Self::without_source(listener) }
    }

    /// An observer of what reads no rows.
    pub fn without_source(listener: &'a dyn Listener) -> Self {
        Observer { listener, source: None, start: Instant::now(), stages: Mutex::new(Vec::new()) }
    }

    /// Bytes read from the source and decoded, so far.
    fn bytes(&self) -> (u64, u64) {
        self.source.map_or((0, 0), |source| (source.bytes_read(), source.bytes_decoded()))
    }

    /// The run began earlier.
    pub fn since(self, start: Instant) -> Self {
        Observer { start, ..self }
    }

    /// Begins a stage.
    pub fn stage(&'a self, stage: &str, unit: &str) -> StageWatch<'a> {
        self.listener.begin(stage, unit);
        self.watch(stage, false)
    }

    /// Begins a stage beside another, whose progress is shown.
    pub fn silent(&'a self, stage: &str) -> StageWatch<'a> {
        self.watch(stage, true)
    }

    fn watch(&'a self, stage: &str, silent: bool) -> StageWatch<'a> {
        let (bytes_read, bytes_decoded) = self.bytes();
        StageWatch {
            observer: self,
            stage: stage.to_string(),
            start: Instant::now(),
            cpu: cpu_seconds(),
            bytes_read,
            bytes_decoded,
            silent,
        }
    }

    /// Passes a warning on.
    pub fn warn(&self, message: &str) {
        self.listener.warn(message);
    }

    /// The stages so far.
    pub fn stages(&self) -> Vec<StageTrace> {
        self.stages.lock().map(|s| s.clone()).unwrap_or_default()
    }
}

impl StageWatch<'_> {
    /// Ends the stage.
    pub fn finish(self, rows: u64, nnz: u64, source_reads: u32) {
        let (bytes_read, bytes_decoded) = self.observer.bytes();
        let trace = StageTrace {
            stage: self.stage,
            start_s: (self.start - self.observer.start).as_secs_f64(),
            wall_s: self.start.elapsed().as_secs_f64(),
            cpu_s: cpu_seconds() - self.cpu,
            rows,
            nnz,
            bytes_read: bytes_read - self.bytes_read,
            bytes_decoded: bytes_decoded - self.bytes_decoded,
            source_reads,
            peak_rss_bytes: peak_rss_bytes(),
        };
        self.observer.listener.end(&trace);
        if let Ok(mut stages) = self.observer.stages.lock() {
            stages.push(trace);
        }
    }
}

impl Watch for StageWatch<'_> {
    fn tick(&self, done: u64, total: u64, note: &str) -> Result<()> {
        if self.observer.listener.stopped() {
            return Err(ErrorKind::Interrupted.into());
        }
        if !self.silent {
            self.observer.listener.progress(done, total, note);
        }
        Ok(())
    }
}

/// A listener as a watch of something that is no stage of a run (a conversion before it).
pub struct Plain<'a>(pub &'a dyn Listener);

impl Watch for Plain<'_> {
    fn tick(&self, done: u64, total: u64, note: &str) -> Result<()> {
        if self.0.stopped() {
            return Err(ErrorKind::Interrupted.into());
        }
        self.0.progress(done, total, note);
        Ok(())
    }
}

/// CPU seconds (user and system) of this process so far; 0 where the system doesn't tell.
pub fn cpu_seconds() -> f64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return 0.0 };
    // Fields 14 and 15, counted after the name in brackets, in ticks of 1/100 s (USER_HZ, fixed on Linux).
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// Largest resident memory of this process so far, in bytes; 0 where the system doesn't tell.
pub fn peak_rss_bytes() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

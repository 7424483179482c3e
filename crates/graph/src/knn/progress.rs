//! Progress that many tasks report to one watcher.

use std::sync::atomic::{AtomicU64, Ordering};

use cellmill_matrix::{Result, Watch};

/// Reports are thinned to this many a stage.
const REPORTS: u64 = 512;

/// Rows done of all rows of a stage, which may be passed over several times.
pub(super) struct Progress<'a> {
    watch: &'a dyn Watch,
    done: AtomicU64,
    total: u64,
}

impl<'a> Progress<'a> {
    /// `total` rows to do, passes counted apart.
    pub(super) fn new(watch: &'a dyn Watch, total: u64) -> Self {
        Progress { watch, done: AtomicU64::new(0), total }
    }

    /// `rows` more are done, in the pass called `note`.
    pub(super) fn add(&self, rows: usize, note: &str) -> Result<()> {
        let step = self.total / REPORTS + 1;
        let before = self.done.fetch_add(rows as u64, Ordering::Relaxed);
        let now = before + rows as u64;
        // Extra repair passes may run over the total: they are still reported, as all but done.
        if before / step != now / step { self.watch.tick(now.min(self.total), self.total, note) } else { Ok(()) }
    }
}

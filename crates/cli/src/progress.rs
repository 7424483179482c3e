//! Progress on the terminal, interrupts, and how errors end the program.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use cellmill_matrix::{Error, ErrorKind};
use cellmill_run::budget::say_bytes;
use cellmill_run::observe::{Listener, StageTrace};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

static STOPPED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The first Ctrl-C (or SIGTERM, or SIGHUP: batch systems and terminals that end) asks the run to stop; a second one ends the program at once.
pub fn listen_for_interrupt() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::flag::{register, register_conditional_shutdown};
    let stopped = Arc::clone(&STOPPED);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if signal == SIGHUP && !listens(SIGHUP) {
            continue;
        }
        // In this order: the first signal finds the flag down. Without listeners a signal ends the program, as ever.
        let _ = register_conditional_shutdown(signal, 130, Arc::clone(&stopped)).and_then(|_| register(signal, Arc::clone(&stopped)));
    }
}

/// Whether a signal is not ignored, as `nohup` has SIGHUP ignored, where this can be told.
fn listens(signal: i32) -> bool {
    let ignored = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?.trim();
        u64::from_str_radix(mask, 16).ok()
    });
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 0)
}

/// Prints an error and says how the program ends.
pub fn report(error: &anyhow::Error) -> ExitCode {
    // A reader that has gone (`cellmill info | head`) is no error of anybody.
    if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    to_stderr(&format!("cellmill: {error:#}"));
    match error.downcast_ref::<Error>() {
        Some(e) if e.is_ours() => ExitCode::from(2),
        Some(e) if matches!(e.kind(), ErrorKind::Interrupted) => ExitCode::from(130),
        _ => ExitCode::from(1),
    }
}

/// A log that is full or closed stops no run.
fn to_stderr(line: &str) {
    _ = writeln!(std::io::stderr(), "{line}");
}

/// Progress bars on a terminal, one line a stage elsewhere, nothing when quiet.
pub struct Terminal {
    bar: Mutex<Option<(ProgressBar, Instant)>>,
    quiet: bool,
    drawn: bool,
}

impl Terminal {
    /// A listener for stderr.
    pub fn new(quiet: bool) -> Self {
        let drawn = !quiet && std::io::IsTerminal::is_terminal(&std::io::stderr());
        Terminal { bar: Mutex::new(None), quiet, drawn }
    }

    fn say(&self, line: &str) {
        if self.quiet {
            return;
        }
        let bar = self.bar.lock();
        match bar.as_ref().map(|b| b.as_ref()) {
            Ok(Some((bar, _))) if self.drawn => bar.suspend(|| to_stderr(line)),
            _ => to_stderr(line),
        }
    }
}

impl Listener for Terminal {
    fn begin(&self, stage: &str, unit: &str) {
        if !self.drawn {
            return;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
        let template = format!("{{prefix:>22}} {{bar:32}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left {{msg}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.set_prefix(stage.to_string());
        if let Ok(mut slot) = self.bar.lock() {
            *slot = Some((bar, Instant::now()));
        }
    }

    fn progress(&self, done: u64, total: u64, note: &str) {
        if let Ok(slot) = self.bar.lock()
            && let Some((bar, start)) = slot.as_ref()
            // A stage that is over in a moment needs no bar.
            && start.elapsed() > Duration::from_millis(700)
        {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(note.to_string());
        }
    }

    fn end(&self, t: &StageTrace) {
        if let Ok(mut slot) = self.bar.lock()
            && let Some((bar, _)) = slot.take()
        {
            bar.finish_and_clear();
        }
        self.say(&format!("{:>22}  {:>8.2} s  {:>10} cells  peak {}", t.stage, t.wall_s, t.rows, say_bytes(t.peak_rss_bytes)));
    }

    fn warn(&self, message: &str) {
        self.say(&format!("cellmill: note: {message}"));
    }

    fn stopped(&self) -> bool {
        STOPPED.load(Ordering::Relaxed)
    }
}

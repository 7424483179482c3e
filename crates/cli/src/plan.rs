//! `cellmill plan`: what a run would read, need and take.

use std::io::Write;

use cellmill_run::budget::say_bytes;
use cellmill_run::job::Job;

use crate::Voice;
use crate::progress::Terminal;

/// Prints the plan of a job; fails if it doesn't fit.
pub fn show(job: &Job, voice: Voice) -> anyhow::Result<()> {
    let plan = job.plan(&Terminal::new(true))?;
    let mut out = std::io::stdout();
    if voice.json {
        writeln!(out, "{}", serde_json::to_string(&plan)?)?;
    } else {
        let [n_obs, n_vars] = plan.shape;
        writeln!(out, "input    {} ({}), {n_obs} cells x {n_vars} genes, {} entries", job.input.display(), plan.format, plan.nnz)?;
        for (i, read) in plan.reads.iter().enumerate() {
            writeln!(out, "read {}   {read}", i + 1)?;
        }
        writeln!(out, "decode   {} in all", say_bytes(plan.bytes_decoded))?;
        writeln!(out, "memory   about {} at most, of {} allowed", say_bytes(plan.peak_bytes), say_bytes(plan.ceiling_bytes))?;
        for (what, bytes) in &plan.memory {
            writeln!(out, "           {:>10}  {what}", say_bytes(*bytes))?;
        }
        if plan.reads.len() > 1 {
            let (room, spilled) = (say_bytes(plan.stage_bytes), say_bytes(plan.spill_bytes));
            writeln!(out, "packed   rows for later reads: room for {room} in memory, at most {spilled} in a spill file")?;
        }
        if plan.aside {
            let bytes = say_bytes(plan.aside_bytes);
            writeln!(out, "aside    components and lists of neighbours lie in temporary files ({bytes}) while the graph is made")?;
        }
        let total: f64 = plan.seconds.iter().map(|(_, s)| s).sum();
        writeln!(out, "time     about {} on {} threads", seconds(total), plan.threads)?;
        for (what, s) in &plan.seconds {
            writeln!(out, "           {:>10}  {what}", seconds(*s))?;
        }
    }
    Ok(plan.check(job.memory)?)
}

fn seconds(s: f64) -> String {
    if s < 90.0 { format!("{s:.1} s") } else { format!("{:.1} min", s / 60.0) }
}

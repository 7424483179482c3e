//! `cargo xtask bench [CELLS]`: simulates a data set, analyses it a few times, prints medians, and puts scanpy beside them.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{cargo, python, root, say, target};

/// Runs of each command; the median is printed.
const RUNS: usize = 3;

/// Options: `[CELLS] [--threads N] [--scanpy]`.
pub fn run(args: &[String]) -> Result<()> {
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    let cells: u64 = match args.first().filter(|a| !a.starts_with('-')) {
        Some(text) => text.parse().with_context(|| format!("'{text}' is not a number of cells"))?,
        None => 130_000,
    };
    let threads = value("--threads").unwrap_or_else(|| "2".into());
    cargo(&["build", "--release", "--locked", "--package", "cellmill"], &[])?;
    let binary = target().join("release").join("cellmill");
    let folder = target().join("bench");
    std::fs::create_dir_all(&folder)?;
    let input = folder.join(format!("{cells}.zarr"));
    if !input.exists() {
        timed(&binary, &["simulate", &path(&input), "--cells", &cells.to_string(), "--format", "zarr2"])?;
    }
    for through in ["pca", "leiden"] {
        let output = folder.join("out.zarr");
        let trace = folder.join("trace.json");
        let mut seconds = Vec::new();
        for _ in 0..RUNS {
            let arguments = [
                "run",
                &path(&input),
                "-o",
                &path(&output),
                "-y",
                "--quiet",
                "--through",
                through,
                "--threads",
                &threads,
                "--trace",
                &path(&trace),
            ];
            seconds.push(timed(&binary, &arguments)?);
        }
        seconds.sort_by(f64::total_cmp);
        say(&format!("cellmill, {cells} cells, {threads} threads, through {through}: median {:.2} s of {RUNS}", seconds[RUNS / 2]));
        say(&std::fs::read_to_string(&trace)?);
    }
    if args.iter().any(|a| a == "--scanpy") {
        let python = python::environment()?;
        let script = root().join("xtask").join("scanpy_reference.py");
        let wall = timed(&python, &[&path(&script), &path(&input)])?;
        say(&format!("scanpy in memory, {cells} cells, through pca: {wall:.2} s"));
    }
    Ok(())
}

fn path(p: &Path) -> String {
    p.display().to_string()
}

/// Wall-clock seconds of a command.
fn timed(program: &Path, args: &[&str]) -> Result<f64> {
    let start = Instant::now();
    let status = Command::new(program).args(args).env_remove("OPENBLAS_CORETYPE").env_remove("OPENBLAS_L2_SIZE").status()?;
    if !status.success() {
        bail!("{} {} failed ({status})", program.display(), args.join(" "));
    }
    Ok(start.elapsed().as_secs_f64())
}

//! `cellmill bench`: what this machine does, on simulated cells.

use std::io::Write;
use std::path::PathBuf;

use cellmill_matrix::{Error, Place};
use cellmill_report::{Axis, Chart, Figure, Series, chart};
use cellmill_run::budget::say_bytes;
use cellmill_run::convert::Rows;
use cellmill_run::job::{Job, Summary};
use cellmill_run::recipe::{Recipe, Stage};
use cellmill_simulate::{Options, Simulation};
use cellmill_store::write::Format;
use clap::Args;

use crate::Voice;
use crate::options::{Machine, OutFormat, Through};
use crate::progress::Terminal;

/// Time the default recipe on simulated cells.
#[derive(Args)]
pub struct Bench {
    /// Cells; several sizes as 50000,100000,200000
    #[arg(long, value_delimiter = ',', default_value = "100000", value_name = "N")]
    cells: Vec<u64>,
    /// Genes
    #[arg(long, default_value_t = Options::default().n_vars)]
    genes: usize,
    /// How far to go
    #[arg(long, value_enum, default_value = "leiden")]
    through: Through,
    /// Format of the simulated store
    #[arg(long, value_enum, default_value = "zarr3")]
    format: OutFormat,
    /// Folder for simulated and analysed stores, which are removed [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Draw time and memory against cells (PNG or SVG)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

impl Bench {
    /// Simulates, runs and prints.
    pub fn run(&self, voice: Voice) -> anyhow::Result<()> {
        let parent = self.folder.clone().unwrap_or_else(std::env::temp_dir);
        let io = |e: &std::io::Error| Error::io(Place::store(parent.display().to_string()), e);
        std::fs::create_dir_all(&parent).map_err(|e| io(&e))?;
        let folder = tempfile::Builder::new().prefix("cellmill-bench-").tempdir_in(&parent).map_err(|e| io(&e))?;
        let mut runs = Vec::new();
        let mut out = std::io::stdout();
        for &cells in &self.cells {
            let summary = self.one(cells, folder.path(), voice)?;
            if voice.json {
                writeln!(out, "{}", serde_json::to_string(&summary)?)?;
            } else {
                table(&mut out, cells, &summary)?;
            }
            runs.push((cells, summary));
        }
        if let Some(path) = &self.plot {
            growth(&runs)?.save(path, Figure::DPI)?;
        }
        Ok(())
    }

    /// One size: a simulated store, the whole job on it.
    fn one(&self, cells: u64, folder: &std::path::Path, voice: Voice) -> anyhow::Result<Summary> {
        let format = Format::from(self.format);
        let input = folder.join(if matches!(format, Format::H5ad) { "cells.h5ad" } else { "cells.zarr" });
        let output = folder.join("analysed.zarr");
        let simulation = Simulation::new(Options { n_obs: cells, n_vars: self.genes, ..Options::default() })?;
        let listener = Terminal::new(voice.quiet);
        rayon::ThreadPoolBuilder::new().num_threads(self.machine.threads()?).build()?.install(|| {
            let (obs, var) = (simulation.obs(), simulation.var());
            Rows { source: &simulation, obs: &obs, var: &var }.save(&input, format, true, &listener)
        })?;
        let job = Job {
            input,
            output,
            format: None,
            overwrite: true,
            in_place: false,
            with_x: None,
            recipe: Recipe::default(),
            through: Stage::from(self.through),
            threads: self.machine.threads()?,
            memory: self.machine.memory()?,
            genome: None,
            spill_dir: None,
            resume: false,
            device: self.machine.device()?,
        };
        Ok(job.run(&listener)?)
    }
}

/// The stages of a run, one a line.
fn table(out: &mut impl Write, cells: u64, summary: &Summary) -> std::io::Result<()> {
    writeln!(out, "{cells} cells x {} genes, {} threads", summary.shape[1], summary.threads)?;
    writeln!(out, "{:>24} {:>9} {:>9} {:>12} {:>10}", "stage", "wall s", "CPU s", "cells/s", "peak")?;
    for s in &summary.stages {
        let rate = cells as f64 / s.wall_s.max(1e-3);
        writeln!(out, "{:>24} {:>9.2} {:>9.2} {:>12.0} {:>10}", s.stage, s.wall_s, s.cpu_s, rate, say_bytes(s.peak_rss_bytes))?;
    }
    let cpu: f64 = summary.stages.iter().map(|s| s.cpu_s).sum();
    let rate = cells as f64 / summary.wall_s.max(1e-3);
    writeln!(out, "{:>24} {:>9.2} {:>9.2} {:>12.0} {:>10}", "all", summary.wall_s, cpu, rate, say_bytes(summary.peak_rss_bytes))
}

/// Time and memory against cells.
fn growth(runs: &[(u64, Summary)]) -> anyhow::Result<Figure> {
    let cells: Vec<f64> = runs.iter().map(|(n, _)| *n as f64).collect();
    let of = |value: &dyn Fn(&Summary) -> f64| runs.iter().map(|(_, s)| value(s)).collect::<Vec<f64>>();
    let mut series = vec![Series::new("all (s)", cells.clone(), of(&|s| s.wall_s))];
    let Some((_, first)) = runs.first() else { return Err(Error::option("--cells", "nothing", "at least one size is needed").into()) };
    for stage in &first.stages {
        let seconds = of(&|s| s.stages.iter().find(|t| t.stage == stage.stage).map_or(f64::MIN_POSITIVE, |t| t.wall_s.max(1e-3)));
        series.push(Series::new(format!("{} (s)", stage.stage), cells.clone(), seconds));
    }
    series.push(Series::new("peak memory (GiB)", cells, of(&|s| s.peak_rss_bytes as f64 / f64::from(1 << 30))));
    let title = format!("Growth with the number of cells, {} threads", first.threads);
    Ok(chart(&Chart { title, x: Axis::log("cells"), y: Axis::log("seconds, GiB"), series, size: (360.0, 240.0) })?)
}

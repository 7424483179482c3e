//! `cellmill run`, and `cellmill plan` which takes the same options.

use std::io::Write;
use std::path::PathBuf;

use cellmill_matrix::{Error, Place};
use cellmill_run::budget::say_bytes;
use cellmill_run::cluster::Dispatcher;
use cellmill_run::job::{Job, Summary};
use cellmill_run::output::WithX;
use cellmill_run::recipe::Stage;
use clap::{Args, ValueEnum};

use crate::Voice;
use crate::options::{Machine, OutFormat, RecipeOptions, Through};
use crate::progress::Terminal;
use crate::scheduler::Scheduler;

/// Which X the output gets.
#[derive(Clone, Copy, ValueEnum)]
pub enum XValues {
    /// Counts of kept cells and genes
    Raw,
    /// After normalisation and logarithm
    Normalized,
    /// After normalisation and logarithm, highly variable genes alone
    Hvg,
}

/// Analyse a store.
#[derive(Args, Clone)]
pub struct Run {
    /// AnnData zarr or h5ad, or 10x h5: a path or a URL (s3, gs, az, http, https); or a 10x mtx folder or its matrix.mtx
    #[arg(required_unless_present = "print_recipe")]
    pub input: Option<PathBuf>,
    /// The new store (.zarr or .h5ad)
    #[arg(long, short, value_name = "STORE")]
    pub output: Option<PathBuf>,
    /// Format of the output [default: by its name]
    #[arg(long, value_enum)]
    pub format: Option<OutFormat>,
    /// Replace an output that exists
    #[arg(long, short = 'y')]
    pub overwrite: bool,
    /// Add the results to the input (zarr) instead of writing a new store
    #[arg(long, conflicts_with = "output")]
    pub in_place: bool,
    /// Write X too, streamed
    #[arg(long, value_enum, value_name = "WHICH")]
    pub with_x: Option<XValues>,
    /// How far to go
    #[arg(long, value_enum, default_value = "leiden")]
    pub through: Through,
    /// Go on where an earlier run of the same input and recipe was stopped
    #[arg(long)]
    pub resume: bool,
    /// Folder for packed rows that memory has no room for [default: beside the output]
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Option<PathBuf>,
    /// Show the plan and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Print the recipe as TOML and stop
    #[arg(long)]
    pub print_recipe: bool,
    /// Write the figures of each stage as JSON
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Genome of a 10x h5 file that holds several
    #[arg(long, value_name = "NAME")]
    pub genome: Option<String>,
    /// Let the workers of a Dask scheduler read the rows, search for neighbours, lay out and cluster: tcp://HOST:8786
    #[arg(long, value_name = "ADDRESS")]
    pub scheduler: Option<String>,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    recipe: RecipeOptions,
}

impl Run {
    fn job(&self, needs_output: bool) -> anyhow::Result<Job> {
        let input = self.input.clone().unwrap_or_default();
        let output = match (&self.output, self.in_place) {
            (Some(output), _) => output.clone(),
            (None, true) => input.clone(),
            (None, false) if needs_output => return Err(Error::option("--output", "nothing", "run needs -o STORE or --in-place").into()),
            (None, false) => {
                let mut name = input.file_stem().unwrap_or_default().to_os_string();
                name.push(".cellmill.zarr");
                std::env::temp_dir().join(name)
            }
        };
        Ok(Job {
            input,
            output,
            format: self.format.map(Into::into),
            overwrite: self.overwrite || !needs_output,
            in_place: self.in_place,
            with_x: self.with_x.map(|x| match x {
                XValues::Raw => WithX::Raw,
                XValues::Normalized => WithX::Normalized,
                XValues::Hvg => WithX::Hvg,
            }),
            recipe: self.recipe.recipe()?,
            through: Stage::from(self.through),
            threads: self.machine.threads()?,
            memory: self.machine.memory()?,
            genome: self.genome.clone(),
            spill_dir: self.spill_dir.clone(),
            resume: self.resume,
            device: self.machine.device()?,
        })
    }

    fn prints_recipe(&self) -> anyhow::Result<bool> {
        if self.print_recipe {
            write!(std::io::stdout(), "{}", self.recipe.recipe()?.to_toml()?)?;
        }
        Ok(self.print_recipe)
    }

    /// `cellmill plan`.
    pub fn plan(&self, voice: Voice) -> anyhow::Result<()> {
        if self.prints_recipe()? {
            return Ok(());
        }
        crate::plan::show(&self.job(false)?, voice)
    }

    /// `cellmill run`.
    pub fn run(&self, voice: Voice) -> anyhow::Result<()> {
        if self.prints_recipe()? {
            return Ok(());
        }
        if self.dry_run {
            return crate::plan::show(&self.job(false)?, voice);
        }
        let job = self.job(true)?;
        let scheduler = self.scheduler.as_deref().map(Scheduler::connect).transpose()?;
        let dispatcher = scheduler.as_ref().map(|s| s as &dyn Dispatcher);
        let summary = job.run_with(dispatcher, &Terminal::new(voice.quiet))?;
        if let Some(path) = &self.trace {
            let text = serde_json::to_string_pretty(&summary)?;
            std::fs::write(path, text + "\n").map_err(|e| Error::io(Place::store(path.display().to_string()), &e))?;
        }
        say(&summary, voice)
    }
}

/// Prints what a run did.
pub fn say(summary: &Summary, voice: Voice) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if voice.json {
        writeln!(out, "{}", serde_json::to_string(summary)?)?;
    } else if !voice.quiet {
        let [n_obs, n_vars] = summary.kept;
        let mut line = format!("{}: {n_obs} cells x {n_vars} genes", summary.output);
        for (n, what) in [(summary.n_hvg, "highly variable genes"), (summary.n_comps, "components"), (summary.n_clusters, "clusters")] {
            if n > 0 {
                line += &format!(", {n} {what}");
            }
        }
        let reads = if summary.source_reads == 1 { "1 read" } else { &format!("{} reads", summary.source_reads) };
        writeln!(out, "{line} ({:.1} s, {reads}, peak {})", summary.wall_s, say_bytes(summary.peak_rss_bytes))?;
    }
    Ok(())
}

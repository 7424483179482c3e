//! What commands over an analysed matrix take: where it is, where its labels are, how its values are made.

use std::path::{Path, PathBuf};

use cellmill_matrix::Error;
use cellmill_run::recipe::{Target, TargetWord};
use cellmill_run::subject::{Ask, Made, beside};
use clap::Args;

use crate::options::Machine;
use crate::scheduler::Scheduler;

/// The matrix and its labels.
#[derive(Args, Clone)]
pub struct Subject {
    /// The matrix: AnnData zarr or h5ad, or 10x h5: a path or a URL (s3, gs, az, http, https); or a 10x mtx folder or its matrix.mtx
    pub input: PathBuf,
    /// Store whose obs has the labels: a run's output. Its cells and genes are found in the input by name, and its recipe says how values
    /// are made of the counts [default: the input]
    #[arg(long, value_name = "STORE")]
    pub obs: Option<PathBuf>,
    /// Matrix to read: X, layers/NAME or raw/X [default: that of the recipe, or X]
    #[arg(long, value_name = "NAME")]
    pub matrix: Option<String>,
    /// Genome of a 10x h5 file that holds several
    #[arg(long, value_name = "NAME")]
    pub genome: Option<String>,
    /// Sum that cells are normalised to: a number, 'median' or 'none' [default: as the recipe says; else 10000 if the matrix holds counts]
    #[arg(long, value_name = "X")]
    pub target_sum: Option<String>,
    /// Take no logarithm
    #[arg(long)]
    pub no_log1p: bool,
    /// Folder for packed rows that memory has no room for [default: beside the output]
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Option<PathBuf>,
    /// Let the workers of a Dask scheduler read the rows: tcp://HOST:8786
    #[arg(long, value_name = "ADDRESS")]
    scheduler: Option<String>,
    #[command(flatten)]
    machine: Machine,
}

impl Subject {
    /// What to open. `output`: temporary files go beside it.
    pub fn ask(&self, output: Option<&Path>) -> anyhow::Result<Ask> {
        let labelled = self.obs.as_ref().unwrap_or(&self.input);
        Ok(Ask {
            input: self.input.clone(),
            labels: self.obs.clone(),
            matrix: self.matrix.clone(),
            genome: self.genome.clone(),
            values: self.made()?,
            threads: self.machine.threads()?,
            memory: self.machine.memory()?,
            device: self.machine.device()?,
            scratch: self.spill_dir.clone().unwrap_or_else(|| beside(output.unwrap_or(labelled))),
        })
    }

    /// The scheduler whose workers read the rows.
    pub fn scheduler(&self) -> cellmill_matrix::Result<Option<Scheduler>> {
        self.scheduler.as_deref().map(Scheduler::connect).transpose()
    }

    /// How values are made, if flags say it.
    fn made(&self) -> anyhow::Result<Option<Made>> {
        if self.target_sum.is_none() && !self.no_log1p {
            return Ok(None);
        }
        let target_sum = match self.target_sum.as_deref() {
            None => Target::Sum(1e4),
            Some("median") => Target::Word(TargetWord::Median),
            Some("none") => Target::Word(TargetWord::None),
            Some(number) => match number.parse::<f64>() {
                Ok(x) if x > 0.0 && x.is_finite() => Target::Sum(x),
                _ => {
                    let expected = "a number above 0, 'median' or 'none' is needed";
                    return Err(Error::option("--target-sum", format!("'{number}'"), expected).into());
                }
            },
        };
        Ok(Some(Made { target_sum, log1p: !self.no_log1p, base: None }))
    }
}

/// What an output is, by its name.
pub enum Named {
    /// A table of text.
    Text(cellmill_run::delimited::Delimiter),
    /// A store.
    Store(cellmill_store::write::Format),
}

impl Named {
    /// Looks at a name: `.csv`, `.tsv`, `.zarr` or `.h5ad`.
    pub fn of(path: &Path) -> anyhow::Result<Named> {
        if let Some(delimiter) = cellmill_run::delimited::Delimiter::of_path(path) {
            return Ok(Named::Text(delimiter));
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("zarr" | "h5ad" | "h5") => Ok(Named::Store(cellmill_store::write::Format::of_path(path))),
            _ => Err(Error::option("--output", path.display(), "a name that ends in .csv, .tsv, .zarr or .h5ad is needed").into()),
        }
    }
}

/// The end of a line that says what was done: seconds, reads, memory.
pub fn cost(wall_s: f64, reads: u32, peak: u64) -> String {
    let reads = if reads == 1 { "1 read".to_string() } else { format!("{reads} reads") };
    format!("({wall_s:.1} s, {reads}, peak {})", cellmill_run::budget::say_bytes(peak))
}

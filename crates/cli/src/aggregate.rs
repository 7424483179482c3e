//! `cellmill aggregate`: sums, means, variances and counts over groups of cells.

use std::io::Write;
use std::path::PathBuf;

use cellmill_run::aggregate::{Func, Job, Summary};
use cellmill_run::cluster::Dispatcher;
use cellmill_store::write::Format;
use clap::Args;

use crate::Voice;
use crate::options::OutFormat;
use crate::progress::Terminal;
use crate::subject::{Subject, cost};

/// What help says after the options.
const EXAMPLES: &str = "\
Sums of counts for a bulk test want the counts themselves:

  cellmill aggregate atlas.h5ad --obs atlas.cellmill.zarr --by sample,leiden --func sum --target-sum none --no-log1p -o bulk.zarr

Without these flags values are made as for 'cellmill markers': by the recipe of the labels, or by what X looks like.";

/// Aggregate cells by labels (pseudobulk), as scanpy.get.aggregate: a store of groups by genes with one layer a function.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Aggregate {
    #[command(flatten)]
    subject: Subject,
    /// Columns of obs, such as leiden,sample
    #[arg(long, value_delimiter = ',', required = true, value_name = "COLUMN")]
    by: Vec<String>,
    /// What is taken over each group: sum, mean, var, count_nonzero, sq_sum
    #[arg(long, value_delimiter = ',', default_value = "sum", value_name = "NAME")]
    func: Vec<String>,
    /// Column of obs (bool) of the cells that count
    #[arg(long, value_name = "COLUMN")]
    mask: Option<String>,
    /// Degrees of freedom that a variance loses
    #[arg(long, default_value_t = 1, value_name = "N")]
    dof: u32,
    /// The new store (.zarr or .h5ad)
    #[arg(long, short, value_name = "STORE")]
    output: PathBuf,
    /// Format of the output [default: by its name]
    #[arg(long, value_enum)]
    format: Option<OutFormat>,
    /// Replace an output that exists
    #[arg(long, short = 'y')]
    overwrite: bool,
}

impl Aggregate {
    /// Aggregates.
    pub fn run(&self, voice: Voice) -> anyhow::Result<()> {
        let job = Job {
            ask: self.subject.ask(Some(&self.output))?,
            by: self.by.clone(),
            funcs: self.func.iter().map(|name| Func::of_name(name)).collect::<Result<_, _>>()?,
            mask: self.mask.clone(),
            dof: self.dof,
            output: self.output.clone(),
            format: self.format.map_or_else(|| Format::of_path(&self.output), Into::into),
            overwrite: self.overwrite,
        };
        let scheduler = self.subject.scheduler()?;
        say(&job.run_with(scheduler.as_ref().map(|s| s as &dyn Dispatcher), &Terminal::new(voice.quiet))?, voice)
    }
}

/// Prints what was written.
fn say(done: &Summary, voice: Voice) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if voice.json {
        writeln!(out, "{}", serde_json::to_string(done)?)?;
    } else if !voice.quiet {
        let [n_groups, n_vars] = done.shape;
        let cost = cost(done.wall_s, done.source_reads, done.peak_rss_bytes);
        let layers = done.layers.join(", ");
        writeln!(out, "{}: {n_groups} groups x {n_vars} genes of {} cells, {layers} of {} {cost}", done.output, done.n_obs, done.values)?;
    }
    Ok(())
}

//! `cellmill score`: scores of cells for sets of genes.

use std::io::Write;
use std::path::{Path, PathBuf};

use cellmill_matrix::{Error, Place};
use cellmill_run::cluster::Dispatcher;
use cellmill_run::score::{Job, Options, Output, Summary};
use clap::Args;

use crate::Voice;
use crate::progress::Terminal;
use crate::subject::{Named, Subject, cost};

/// What help says after the options.
const EXAMPLES: &str = "\
  cellmill score atlas.h5ad --obs atlas.cellmill.zarr --set T=CD3D,CD3E,CD3G --set B=b_cells.txt -o scores.csv

A list of genes is a file with one name a line, or names between commas. Values are made as for 'cellmill markers'.";

/// Score each cell for sets of genes, as scanpy's score_genes and score_genes_cell_cycle
/// the mean of the set less that of control genes of like expression. The same seed draws the same control genes as scanpy.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Score {
    #[command(flatten)]
    subject: Subject,
    /// A score's name and its genes; may be given several times
    #[arg(long = "set", value_name = "NAME=GENES")]
    sets: Vec<String>,
    /// Genes of the S phase; with --g2m-genes gives S_score, G2M_score and phase
    #[arg(long, value_name = "GENES", requires = "g2m_genes")]
    s_genes: Option<String>,
    /// Genes of the G2M phase
    #[arg(long, value_name = "GENES", requires = "s_genes")]
    g2m_genes: Option<String>,
    /// Control genes from each bin of expression
    #[arg(long, default_value_t = 50, value_name = "N")]
    ctrl_size: usize,
    /// Bins of expression
    #[arg(long, default_value_t = 25, value_name = "N")]
    n_bins: usize,
    /// Draw control genes from genes outside of the set alone
    #[arg(long)]
    no_ctrl_as_ref: bool,
    /// Genes that control genes are drawn from [default: all]
    #[arg(long, value_name = "GENES")]
    gene_pool: Option<String>,
    /// Where drawing starts, as scanpy's random_state
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u32,
    /// Table (.csv, .tsv), or a new store with obs and var (.zarr, .h5ad)
    #[arg(long, short, value_name = "FILE", required_unless_present = "in_place")]
    output: Option<PathBuf>,
    /// Add the scores to obs of the store (zarr) that has the labels
    #[arg(long, conflicts_with = "output")]
    in_place: bool,
    /// Replace an output that exists
    #[arg(long, short = 'y')]
    overwrite: bool,
}

impl Score {
    /// Scores cells.
    pub fn run(&self, voice: Voice) -> anyhow::Result<()> {
        let mut sets = Vec::new();
        for pair in &self.sets {
            let (name, genes) = pair
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| Error::option("--set", format!("'{pair}'"), "it reads like T=CD3D,CD3E or T=genes.txt"))?;
            sets.push((name.to_string(), list(genes)?));
        }
        let cell_cycle = match (&self.s_genes, &self.g2m_genes) {
            (Some(s), Some(g2m)) => Some([list(s)?, list(g2m)?]),
            _ => None,
        };
        let output = match &self.output {
            None => Output::InPlace,
            Some(path) => match Named::of(path)? {
                Named::Text(delimiter) => Output::Text(path.clone(), delimiter),
                Named::Store(format) => Output::Store(path.clone(), format),
            },
        };
        let job = Job {
            ask: self.subject.ask(self.output.as_deref())?,
            sets,
            cell_cycle,
            options: Options {
                ctrl_size: self.ctrl_size,
                n_bins: self.n_bins,
                ctrl_as_ref: !self.no_ctrl_as_ref,
                gene_pool: None,
                random_state: self.seed,
            },
            gene_pool: self.gene_pool.as_deref().map(list).transpose()?,
            output,
            overwrite: self.overwrite,
        };
        let scheduler = self.subject.scheduler()?;
        say(&job.run_with(scheduler.as_ref().map(|s| s as &dyn Dispatcher), &Terminal::new(voice.quiet))?, voice)
    }
}

/// Names of genes: the lines of a file, or between commas.
fn list(text: &str) -> anyhow::Result<Vec<String>> {
    let path = Path::new(text);
    let names = |text: &str, between: &[char]| {
        text.split(between).map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect::<Vec<String>>()
    };
    if !path.is_file() {
        return Ok(names(text, &[',']));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(Place::store(path.display().to_string()), &e))?;
    Ok(names(&text, &['\n', ',']))
}

/// Prints what was written.
fn say(done: &Summary, voice: Voice) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if voice.json {
        writeln!(out, "{}", serde_json::to_string(done)?)?;
    } else if !voice.quiet {
        let sets: Vec<String> =
            done.scores.iter().map(|(name, [genes, control])| format!("{name} ({genes} genes, {control} control)")).collect();
        let cost = cost(done.wall_s, done.source_reads, done.peak_rss_bytes);
        writeln!(out, "{}: {} of {} cells, {} {cost}", done.output, sets.join(", "), done.shape[0], done.values)?;
    }
    Ok(())
}

//! `cellmill markers`: the genes that mark each group of cells.

use std::io::Write;
use std::path::PathBuf;

use cellmill_matrix::Error;
use cellmill_run::cluster::Dispatcher;
use cellmill_run::markers::{Correction, Job, Method, Options, Output, Summary};
use clap::{Args, ValueEnum};

use crate::Voice;
use crate::progress::Terminal;
use crate::subject::{Named, Subject, cost};

/// How groups are compared.
#[derive(Clone, Copy, ValueEnum)]
pub enum MethodName {
    /// Welch's t-test; one read
    #[value(name = "t-test")]
    TTest,
    /// The same, overestimating the variance of small groups
    #[value(name = "t-test_overestim_var", alias = "t-test-overestim-var")]
    TTestOverestimVar,
    /// Wilcoxon's rank sum test, exact ranks; a pass more for each part of the genes that fits in memory
    #[value(name = "wilcoxon")]
    Wilcoxon,
    /// Logistic regression: coefficients, no p-values; many passes
    #[value(name = "logreg")]
    LogReg,
}

/// How p-values are corrected.
#[derive(Clone, Copy, ValueEnum)]
pub enum CorrectionName {
    /// False discovery rate
    #[value(name = "benjamini-hochberg")]
    BenjaminiHochberg,
    /// p times the number of genes
    #[value(name = "bonferroni")]
    Bonferroni,
}

/// What help says after the options.
const EXAMPLES: &str = "\
A run's output has the clusters but, unless it was made with --with-x, no X. Give the store that it was made from, and the output as --obs:

  cellmill markers atlas.h5ad --obs atlas.cellmill.zarr -o markers.csv

Cells and genes of the output are found in the store by name, and values are made of the counts as the output's recipe says. A store with
X and labels of its own needs no --obs:

  cellmill markers labelled.h5ad --groupby cell_type --method wilcoxon -o markers.csv

Whole numbers are taken for counts, normalised to 10,000 a cell and logged; other values are taken as they are.";

/// Rank the genes of each group of cells, as scanpy's rank_genes_groups.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Markers {
    #[command(flatten)]
    subject: Subject,
    /// Column of obs with the groups
    #[arg(long, default_value = "leiden", value_name = "COLUMN")]
    groupby: String,
    /// How groups are compared
    #[arg(long, value_enum, default_value = "t-test")]
    method: MethodName,
    /// Groups to test, such as 0,1,5 [default: all]; may be given several times; names may have commas
    #[arg(long, value_name = "NAME,…")]
    groups: Vec<String>,
    /// What groups are compared with: 'rest' (all other cells), or the name of a group
    #[arg(long, default_value = "rest", value_name = "NAME")]
    reference: String,
    /// Genes listed for each group [default: all]
    #[arg(long, value_name = "N")]
    n_genes: Option<usize>,
    /// Order genes by the size of the score, whatever its sign
    #[arg(long)]
    rankby_abs: bool,
    /// Give the shares of cells that express each gene too
    #[arg(long)]
    pts: bool,
    /// How p-values are corrected
    #[arg(long, value_enum, default_value = "benjamini-hochberg", value_name = "METHOD")]
    corr_method: CorrectionName,
    /// wilcoxon: correct the variance for ties
    #[arg(long)]
    tie_correct: bool,
    /// wilcoxon: rank values in so many steps rather than themselves (approximate)
    #[arg(long, value_name = "N")]
    n_bins: Option<usize>,
    /// Key in uns
    #[arg(long, default_value = "rank_genes_groups", value_name = "KEY")]
    key_added: String,
    /// Table (.csv, .tsv), or a new store with obs, var and uns (.zarr, .h5ad)
    #[arg(long, short, value_name = "FILE", required_unless_present = "in_place")]
    output: Option<PathBuf>,
    /// Add the result to uns of the store (zarr) that has the labels
    #[arg(long, conflicts_with = "output")]
    in_place: bool,
    /// Replace an output that exists
    #[arg(long, short = 'y')]
    overwrite: bool,
}

impl Markers {
    /// Ranks genes.
    pub fn run(&self, voice: Voice) -> anyhow::Result<()> {
        if self.n_genes == Some(0) {
            return Err(Error::option("--n-genes", 0, "at least 1 is needed").into());
        }
        let output = match &self.output {
            None => Output::InPlace,
            Some(path) => match Named::of(path)? {
                Named::Text(delimiter) => Output::Text(path.clone(), delimiter),
                Named::Store(format) => Output::Store(path.clone(), format),
            },
        };
        let job = Job {
            ask: self.subject.ask(self.output.as_deref())?,
            groupby: self.groupby.clone(),
            groups: self.groups.clone(),
            reference: self.reference.clone(),
            options: Options {
                method: match self.method {
                    MethodName::TTest => Method::TTest,
                    MethodName::TTestOverestimVar => Method::TTestOverestimVar,
                    MethodName::Wilcoxon => Method::Wilcoxon,
                    MethodName::LogReg => Method::LogReg,
                },
                n_genes: self.n_genes,
                rankby_abs: self.rankby_abs,
                pts: self.pts,
                correction: match self.corr_method {
                    CorrectionName::BenjaminiHochberg => Correction::BenjaminiHochberg,
                    CorrectionName::Bonferroni => Correction::Bonferroni,
                },
                tie_correct: self.tie_correct,
                n_bins: self.n_bins,
                ..Options::default()
            },
            key_added: self.key_added.clone(),
            output,
            overwrite: self.overwrite,
        };
        let scheduler = self.subject.scheduler()?;
        say(&job.run_with(scheduler.as_ref().map(|s| s as &dyn Dispatcher), &Terminal::new(voice.quiet))?, voice)
    }
}

/// Genes of each group on the terminal.
const SHOWN: usize = 5;

/// Prints what was found.
fn say(done: &Summary, voice: Voice) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if voice.json {
        writeln!(out, "{}", serde_json::to_string(done)?)?;
    } else if !voice.quiet {
        for group in &done.groups {
            let genes: Vec<&str> = group.genes.iter().take(SHOWN).map(|g| g.name.as_str()).collect();
            writeln!(out, "{:>12}  {:>9} cells  {}", group.name, group.n_obs, genes.join(", "))?;
        }
        let [n_obs, n_vars] = done.shape;
        let cost = cost(done.wall_s, done.source_reads, done.peak_rss_bytes);
        writeln!(
            out,
            "{}: {} groups of {}, {n_obs} cells x {n_vars} genes, {} {cost}",
            done.output,
            done.groups.len(),
            done.groupby,
            done.values
        )?;
    }
    Ok(())
}

//! cellmill on the command line. Data go to stdout, talk to stderr; exit 0, 1 (your input) or 2 (our fault).

mod aggregate;
mod bench;
mod convert;
mod demo;
mod figures;
mod info;
mod markers;
mod options;
mod plan;
mod plot;
mod progress;
mod run;
mod scheduler;
mod score;
mod simulate;
mod subject;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Memory that is free goes back at once. By default it stays resident for a second, in which the next stage takes as much again: a run
/// of 40,000 cells with 200 neighbours peaked at 475 MiB instead of 343.
fn give_back_free_memory() {
    // SAFETY: the option is one of the allocator's, and no thread but this one runs yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 0) };
}

/// `mi_option_purge_delay` in mimalloc's `mi_option_e`.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Single-cell RNA analysis of any size on any machine: from an AnnData store to clusters and pictures.
#[derive(Parser)]
#[command(name = "cellmill", version, arg_required_else_help = true, args_override_self = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say nothing on stderr but errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Print the result as JSON on stdout
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Show what a store holds, without reading the data
    Info(info::Info),
    /// Show what a run would read, need and take
    Plan(run::Run),
    /// Analyse: QC, filter, normalise, highly variable genes, PCA, neighbours, UMAP, Leiden
    Run(run::Run),
    /// Rank the genes that mark each group of cells
    Markers(markers::Markers),
    /// Sums, means, variances and counts over groups of cells (pseudobulk)
    Aggregate(aggregate::Aggregate),
    /// Score each cell for sets of genes
    Score(score::Score),
    /// Draw a figure from a store
    Plot(plot::Plot),
    /// Rewrite a store in another format
    Convert(convert::Convert),
    /// Write a realistic simulated data set, to size a machine with
    Simulate(simulate::Simulate),
    /// Time a run on simulated cells: what this machine does
    Bench(bench::Bench),
    /// Run everything on a small real data set that comes with cellmill
    Demo(demo::Demo),
}

/// How a command talks.
#[derive(Clone, Copy)]
pub struct Voice {
    /// Nothing on stderr but errors.
    pub quiet: bool,
    /// The result as JSON.
    pub json: bool,
}

fn main() -> ExitCode {
    give_back_free_memory();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap's own status for a wrong option is 2; here 2 means our fault.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(1) } else { ExitCode::SUCCESS };
        }
    };
    let voice = Voice { quiet: cli.quiet, json: cli.json };
    progress::listen_for_interrupt();
    let work = || match cli.command {
        Command::Info(c) => c.run(voice),
        Command::Plan(c) => c.plan(voice),
        Command::Run(c) => c.run(voice),
        Command::Markers(c) => c.run(voice),
        Command::Aggregate(c) => c.run(voice),
        Command::Score(c) => c.run(voice),
        Command::Plot(c) => c.run(voice),
        Command::Convert(c) => c.run(voice),
        Command::Simulate(c) => c.run(voice),
        Command::Bench(c) => c.run(voice),
        Command::Demo(c) => c.run(voice),
    };
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => progress::report(&error),
    }
}

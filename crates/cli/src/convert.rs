//! `cellmill convert`: any readable format to AnnData zarr or h5ad, streaming X.

use std::io::Write;
use std::path::PathBuf;

use cellmill_run::convert::{Conversion, Converted, convert};
use cellmill_store::write::Format;
use clap::Args;

use crate::Voice;
use crate::options::{Machine, OutFormat};
use crate::progress::Terminal;

/// Rewrite a store.
#[derive(Args)]
pub struct Convert {
    /// AnnData zarr or h5ad, or 10x h5: a path or a URL (s3, gs, az, http, https); or a 10x mtx folder or its matrix.mtx
    input: PathBuf,
    /// The new store (.zarr or .h5ad)
    output: PathBuf,
    /// Format of the output [default: by its name]
    #[arg(long, value_enum)]
    format: Option<OutFormat>,
    /// Replace an output that exists
    #[arg(long, short = 'y')]
    overwrite: bool,
    /// Genome of a 10x h5 file that holds several
    #[arg(long, value_name = "NAME")]
    genome: Option<String>,
    #[command(flatten)]
    machine: Machine,
}

impl Convert {
    /// Converts.
    pub fn run(&self, voice: Voice) -> anyhow::Result<()> {
        let job = Conversion {
            input: self.input.clone(),
            output: self.output.clone(),
            format: self.format.map_or_else(|| Format::of_path(&self.output), Into::into),
            overwrite: self.overwrite,
            genome: self.genome.clone(),
            threads: self.machine.threads()?,
            memory: self.machine.memory()?,
        };
        let done = convert(&job, &Terminal::new(voice.quiet))?;
        say(&done, voice)
    }
}

/// Prints what was written.
pub fn say(done: &Converted, voice: Voice) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if voice.json {
        writeln!(out, "{}", serde_json::to_string(done)?)?;
    } else if !voice.quiet {
        writeln!(out, "{}: {} cells x {} genes, {} entries", done.output, done.shape[0], done.shape[1], done.nnz)?;
    }
    Ok(())
}

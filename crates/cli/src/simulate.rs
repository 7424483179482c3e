//! `cellmill simulate`: realistic counts of any size, the same for any number of threads.

use std::path::PathBuf;

use cellmill_run::convert::Rows;
use cellmill_simulate::{Options, Simulation};
use cellmill_store::write::Format;
use clap::Args;

use crate::Voice;
use crate::options::{Machine, OutFormat};
use crate::progress::Terminal;

/// Write a simulated data set; the truth (cell_type, batch) is in obs.
#[derive(Args)]
pub struct Simulate {
    /// The new store (.zarr or .h5ad)
    output: PathBuf,
    /// Cells
    #[arg(long, default_value_t = Options::default().n_obs)]
    cells: u64,
    /// Genes
    #[arg(long, default_value_t = Options::default().n_vars)]
    genes: usize,
    /// Cell types
    #[arg(long, default_value_t = Options::default().n_types)]
    types: usize,
    /// Batches
    #[arg(long, default_value_t = Options::default().n_batches)]
    batches: usize,
    /// Mean number of genes seen in a cell [default: 2000, or a quarter of the genes]
    #[arg(long, value_name = "N")]
    genes_per_cell: Option<f64>,
    /// Where random numbers start
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Format of the output [default: by its name]
    #[arg(long, value_enum)]
    format: Option<OutFormat>,
    /// Replace an output that exists
    #[arg(long, short = 'y')]
    overwrite: bool,
    #[command(flatten)]
    machine: Machine,
}

impl Simulate {
    /// Simulates.
    pub fn run(&self, voice: Voice) -> anyhow::Result<()> {
        let options = Options {
            n_obs: self.cells,
            n_vars: self.genes,
            n_types: self.types,
            n_batches: self.batches,
            genes_per_cell: self.genes_per_cell,
            seed: self.seed,
            ..Options::default()
        };
        let simulation = Simulation::new(options)?;
        let format = self.format.map_or_else(|| Format::of_path(&self.output), Into::into);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.machine.threads()?).build()?;
        let done = pool.install(|| {
            let (obs, var) = (simulation.obs(), simulation.var());
            let rows = Rows { source: &simulation, obs: &obs, var: &var };
            rows.save(&self.output, format, self.overwrite, &Terminal::new(voice.quiet))
        })?;
        crate::convert::say(&done, voice)
    }
}

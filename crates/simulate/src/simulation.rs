//! The simulation as a source of rows.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use cellmill_matrix::{Column, Csr, Error, Place, Result, Shape, Source, SourceRow, Table, Values};
use rayon::prelude::*;

use crate::Options;
use crate::cell::{Cell, Population};
use crate::counts::{Batches, Bench};
use crate::dispersion::gamma_steps;
use crate::expression::{Expression, MITOCHONDRIAL, n_mitochondrial};
use crate::library::mean_library;
use crate::profile::Profile;

/// What [`Source::entries_before`] adds to the mean: ranges of 256 cells and more stay below it.
const ESTIMATE_MARGIN: f64 = 1.15;

/// Simulated counts. Shared by threads; [`Source::read`] computes its rows anew each time.
pub struct Simulation {
    options: Options,
    target_genes: f64,
    mean_library: f64,
    population: Population,
    types: Vec<Profile>,
    gradients: Vec<Profile>,
    batches: Batches,
    gamma: Vec<f32>,
    location: String,
    bytes: AtomicU64,
}

impl Simulation {
    /// Builds the model: about a second for 30 types of 28,000 genes, in the caller's rayon pool.
    pub fn new(options: Options) -> Result<Self> {
        options.check()?;
        let mut expression = Expression::new(&options);
        let target_genes = options.target_genes();
        let mean_library = mean_library(&expression, &options, target_genes);
        let lay_out = |types: &[usize]| Profile::new(&expression, types, mean_library);
        let types = (0..options.n_types).into_par_iter().map(|t| lay_out(&[t])).collect();
        let gradients = expression.gradients.par_iter().map(|&(a, b)| lay_out(&[a, b])).collect();
        let population = Population::new(&expression, &options, mean_library);
        let batches = Batches::new(std::mem::take(&mut expression.batches));
        let location = format!("simulation of {} genes, seed {}", options.n_vars, options.seed);
        let (gamma, bytes) = (gamma_steps(), AtomicU64::new(0));
        Ok(Simulation { options, target_genes, mean_library, population, types, gradients, batches, gamma, location, bytes })
    }

    /// The options it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Mean number of counts in a cell of good quality.
    pub fn mean_library(&self) -> f64 {
        self.mean_library
    }

    /// The truth about each cell: `cell_type` and `batch` (categorical), index `cell_0000000`, `cell_0000001`, … A cell on
    /// a gradient has the nearer type.
    pub fn obs(&self) -> Table {
        let n = self.options.n_obs;
        let (types, batches): (Vec<i32>, Vec<i32>) = (0..n)
            .into_par_iter()
            .map(|row| {
                let cell = self.population.cell(row);
                (cell.cell_type as i32, cell.batch as i32)
            })
            .unzip();
        let mut obs = Table::of_index((0..n).into_par_iter().map(|row| format!("cell_{row:07}")).collect());
        obs.set("cell_type", categorical("type", types, self.options.n_types));
        obs.set("batch", categorical("batch", batches, self.options.n_batches));
        obs
    }

    /// Names of the genes: `gene_00000`, `gene_00001`, …, at the end up to 13 mitochondrial ones (`MT-ND1`, …; an eighth of
    /// the genes at most).
    pub fn var(&self) -> Table {
        let n_mitochondrial = n_mitochondrial(self.options.n_vars);
        let nuclear = (0..self.options.n_vars - n_mitochondrial).map(|g| format!("gene_{g:05}"));
        Table::of_index(nuclear.chain(MITOCHONDRIAL[..n_mitochondrial].iter().map(|name| name.to_string())).collect())
    }

    /// The genes of a cell's type or gradient.
    fn profile(&self, cell: &Cell) -> &Profile {
        match cell.between {
            Some((gradient, _)) => &self.gradients[gradient],
            None => &self.types[cell.cell_type],
        }
    }
}

/// A categorical column with categories `stem_0`, `stem_1`, … padded to one width.
fn categorical(stem: &str, codes: Vec<i32>, n: usize) -> Column {
    let width = (n - 1).to_string().len();
    let categories = Values::Str((0..n).map(|i| format!("{stem}_{i:0width$}")).collect());
    Column::Categorical { codes, categories, ordered: false }
}

impl Source for Simulation {
    fn shape(&self) -> Shape {
        Shape { n_obs: self.options.n_obs, n_vars: self.options.n_vars }
    }

    /// An estimate, since the rows are not known before they are drawn: the wanted mean number of genes and 15 % more.
    /// Ranges of at least 256 cells hold fewer entries (at the default `size_sigma`); single cells may hold more.
    fn entries_before(&self, row: SourceRow) -> u64 {
        (row.0 as f64 * (self.target_genes * ESTIMATE_MARGIN).min(self.options.n_vars as f64)).ceil() as u64
    }

    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        let (start, end) = (rows.start.0, rows.end.0);
        if start > end || end > self.options.n_obs {
            let place = Place { store: Some(self.location.clone()), element: Some("X".into()), rows: Some(start..end) };
            return Err(Error::invalid(place, "a range outside the matrix", format!("there are {} cells", self.options.n_obs)));
        }
        into.clear(self.options.n_vars);
        let mut bench = Bench::new(self.options.n_vars);
        for row in start..end {
            let cell = self.population.cell(row);
            bench.draw((self.options.seed, row), &cell, self.profile(&cell), &self.gamma, &self.batches, into);
        }
        self.bytes.fetch_add(into.nnz() as u64 * 8, Ordering::Relaxed);
        Ok(())
    }

    /// Nothing is read.
    fn bytes_read(&self) -> u64 {
        0
    }

    /// Eight bytes for each entry drawn.
    fn bytes_decoded(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The model (already held) and each thread's work space.
    fn overhead_bytes(&self, n_threads: usize) -> u64 {
        let profiles: usize = self.types.iter().chain(&self.gradients).map(Profile::heap_bytes).sum();
        let batches = self.batches.logs.len() * self.options.n_vars * 8;
        (profiles + batches + self.gamma.len() * 4 + n_threads * Bench::bytes(self.options.n_vars)) as u64
    }

    fn location(&self) -> &str {
        &self.location
    }
}

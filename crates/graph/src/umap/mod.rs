//! UMAP (McInnes, Healy and Melville 2018): a layout of the graph in a few dimensions.
//!
//! Semantics and constants are umap-learn's; the optimiser gives the same bits for any number of threads.

mod coarsen;
mod components;
mod cuda;
mod curve;
mod dense;
mod filter;
mod force;
mod init;
mod lanes;
mod layout;
mod placing;
mod random;
mod spectral;
mod start;
#[cfg(test)]
mod tests;

use cellmill_cuda::Processor;
use cellmill_matrix::{Error, Place, Result, Watch};
use rayon::prelude::*;

pub(crate) use self::cuda::SOURCES;
pub use self::curve::find_ab;
pub(crate) use self::filter::SOURCE as FILTER;
use self::layout::Plan;
pub(crate) use self::start::SOURCE as START;
use crate::{Connectivities, Embedding};

/// The most dimensions of a layout.
const MOST: usize = 32;

/// Where the cells stand before the first epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Init<'a> {
    /// First eigenvectors of the graph's normalised Laplacian, for each connected part.
    #[default]
    Spectral,
    /// Uniform in a box.
    Random,
    /// First principal components: `(n, n_components)` row-major; scaled to 10, with a little noise.
    Pca(&'a [f32]),
    /// Any coordinates, for example an `obsm` key: `(n, n_components)` row-major.
    Given(&'a [f32]),
    /// Around the places of groups.
    Paga {
        /// Places of the groups: `(n_groups, n_components)` row-major.
        positions: &'a [f32],
        /// The group to which each group is most strongly connected, itself if there is none: `(n_groups,)`.
        nearest: &'a [u32],
        /// Group of each cell: `(n,)`.
        groups: &'a [u32],
    },
}

/// What can be chosen. The defaults are scanpy's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options<'a> {
    /// Dimensions of the layout, 1 to 32. Default 2. A GPU lays out up to 4.
    pub n_components: usize,
    /// Distance below which two cells count as touching; larger: looser clumps. ≥ 0. Default 0.5.
    pub min_dist: f64,
    /// Scale of the layout. > 0. Default 1.
    pub spread: f64,
    /// Epochs; default 500 up to 10,000 cells, 200 beyond. More: better settled, at proportional cost. ≥ 1.
    pub n_epochs: Option<usize>,
    /// First learning rate. > 0. Default 1.
    pub alpha: f64,
    /// Weight of repulsion. ≥ 0. Default 1.
    pub gamma: f64,
    /// Cells that push for each neighbour that attracts; more: better separated, at proportional cost. Default 5.
    pub negative_sample_rate: usize,
    /// Curve `1 / (1 + a d^{2b})`; default: fitted to `min_dist` and `spread`. > 0.
    pub a: Option<f64>,
    /// See `a`.
    pub b: Option<f64>,
    /// Start. Default spectral.
    pub init: Init<'a>,
    /// Where the cells lie, `(n, any)`, one row a cell: a spectral start puts parts of the graph that no edge joins where their cells lie.
    /// Without (the default), on rings around the largest.
    pub coordinates: Option<Embedding<'a>>,
    /// Seed of every random number. Default 0.
    pub seed: u64,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            n_components: 2,
            min_dist: 0.5,
            spread: 1.0,
            n_epochs: None,
            alpha: 1.0,
            gamma: 1.0,
            negative_sample_rate: 5,
            a: None,
            b: None,
            init: Init::Spectral,
            coordinates: None,
            seed: 0,
        }
    }
}

impl Options<'_> {
    /// Epochs for `n` cells.
    pub fn n_epochs(&self, n: usize) -> usize {
        self.n_epochs.unwrap_or(default_epochs(n))
    }

    /// The curve's `(a, b)`.
    pub fn curve(&self) -> (f64, f64) {
        match (self.a, self.b) {
            (Some(a), Some(b)) => (a, b),
            _ => find_ab(self.min_dist, self.spread),
        }
    }

    /// Checked once, before any work.
    fn check(&self) -> Result<()> {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        if !(1..=MOST).contains(&self.n_components) {
            return Err(Error::option("n_components", self.n_components, format!("layouts have 1 to {MOST} dimensions")));
        }
        if !(self.min_dist >= 0.0 && self.min_dist.is_finite()) {
            return Err(Error::option("min_dist", self.min_dist, "it is a distance of 0 or more"));
        }
        if self.n_epochs == Some(0) || self.n_epochs.is_some_and(|e| e > 1 << 24) {
            return Err(Error::option("n_epochs", self.n_epochs.unwrap_or(0), "it is between 1 and 16777216"));
        }
        if !(self.gamma >= 0.0 && self.gamma.is_finite()) {
            return Err(Error::option("gamma", self.gamma, "it is a weight of 0 or more"));
        }
        if self.a.is_some() != self.b.is_some() {
            return Err(Error::option("a, b", "only one of them", "they are given together or not at all"));
        }
        let (a, b) = self.curve();
        for (name, value) in [("spread", self.spread), ("alpha", self.alpha), ("a", a), ("b", b)] {
            if !positive(value) {
                return Err(Error::option(name, value, "it is a finite number above 0"));
            }
        }
        Ok(())
    }
}

/// umap-learn's and scanpy's number of epochs.
fn default_epochs(n: usize) -> usize {
    if n <= 10_000 { 500 } else { 200 }
}

/// Layout of the graph: `(n, n_components)` row-major f32.
pub fn umap(graph: &Connectivities, options: &Options, watch: &dyn Watch) -> Result<Vec<f32>> {
    umap_on(graph, options, &Processor::Cpu, watch)
}

/// [`umap`] on a processor, with the same bits on each.
pub fn umap_on(graph: &Connectivities, options: &Options, processor: &Processor, watch: &dyn Watch) -> Result<Vec<f32>> {
    options.check()?;
    let (n, d) = (graph.n(), options.n_components);
    let place = || Place { element: Some("obsp/connectivities".into()), ..Place::default() };
    if let Some(w) = graph.weights.par_iter().find_first(|w| !(w.is_finite() && **w > 0.0)) {
        return Err(Error::invalid(place(), format!("weight {w}"), "weights are finite and above 0"));
    }
    if let Some(j) = graph.indices.par_iter().find_first(|&&j| j as usize >= n) {
        return Err(Error::invalid(place(), format!("column {j}"), format!("there are {n} cells")));
    }
    if let Some(x) = options.coordinates.filter(|x| x.n() != n) {
        return Err(Error::option("coordinates", format!("{} rows", x.n()), format!("there are {n} cells")));
    }
    let n_epochs = options.n_epochs(n);
    // umap-learn drops edges that would not be sampled once.
    let most = graph.weights.par_iter().copied().reduce(|| 0.0, f32::max);
    let least = most / if n_epochs > 10 { n_epochs } else { default_epochs(n) } as f32;
    let (a, b) = options.curve();
    let plan = Plan {
        a: a as f32,
        b: b as f32,
        gamma: options.gamma as f32,
        alpha: options.alpha as f32,
        negative_sample_rate: options.negative_sample_rate,
        n_epochs,
        seed: options.seed,
        least,
        most,
    };
    let start = || init::start(graph, least, d, options, processor, watch);
    let blocks = || layout::Blocks::new(graph, &plan);
    // While a GPU makes the start, the CPU lays out the blocks.
    let (start, blocks) = match processor.device() {
        Some(_) => rayon::join(start, blocks),
        None => (start(), blocks()),
    };
    match d {
        1..=2 => optimise::<2>(&blocks, &plan, &start?, d, processor, watch),
        3..=4 => optimise::<4>(&blocks, &plan, &start?, d, processor, watch),
        5..=8 => optimise::<8>(&blocks, &plan, &start?, d, processor, watch),
        9..=16 => optimise::<16>(&blocks, &plan, &start?, d, processor, watch),
        _ => optimise::<MOST>(&blocks, &plan, &start?, d, processor, watch),
    }
}

/// Optimises in rows of `S` coordinates, of which the first `d` are used.
fn optimise<const S: usize>(
    blocks: &layout::Blocks,
    plan: &Plan,
    start: &[f32],
    d: usize,
    processor: &Processor,
    watch: &dyn Watch,
) -> Result<Vec<f32>>
where
    [f32; S]: lanes::Point<S>,
{
    let padded = start.chunks(d).map(|row| std::array::from_fn(|c| row.get(c).copied().unwrap_or(0.0))).collect();
    let layout = layout::optimise::<S>(blocks, plan, padded, 0..plan.n_epochs, processor, watch)?;
    Ok(layout.iter().flat_map(|row| row[..d].iter().copied()).collect())
}

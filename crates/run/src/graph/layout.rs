//! UMAP's layout of a graph from a start: by whoever has both, this process or a worker.

use std::borrow::Cow;

use cellmill_cuda::Processor;
use cellmill_graph::{Connectivities, Embedding, umap};
use cellmill_matrix::{Result, Watch};
use serde::{Deserialize, Serialize};

use crate::recipe::Recipe;

/// What UMAP is told of the cells beside their graph, by position.
#[derive(Serialize, Deserialize)]
pub(crate) struct Layout<'a> {
    /// First components: `(n, wide)`.
    pub head: Cow<'a, [f32]>,
    pub wide: usize,
    pub start: Start,
}

/// [`umap::Init`] with what it looks at.
#[derive(Serialize, Deserialize)]
pub(crate) enum Start {
    Spectral,
    Random,
    Pca(Vec<f32>),
    Given(Vec<f32>),
    Paga { positions: Vec<f32>, nearest: Vec<u32>, groups: Vec<u32> },
}

impl Layout<'_> {
    /// Places of the cells: `(n, n_components)`.
    pub fn place(&self, graph: &Connectivities, recipe: &Recipe, processor: &Processor, watch: &dyn Watch) -> Result<Vec<f32>> {
        let init = match &self.start {
            Start::Spectral => umap::Init::Spectral,
            Start::Random => umap::Init::Random,
            Start::Pca(rows) => umap::Init::Pca(rows),
            Start::Given(rows) => umap::Init::Given(rows),
            Start::Paga { positions, nearest, groups } => umap::Init::Paga { positions, nearest, groups },
        };
        let options = umap::Options { init, coordinates: Some(Embedding::new(&self.head, self.wide)?), ..umap_options(recipe) };
        umap::umap_on(graph, &options, processor, watch)
    }
}

/// What a recipe says of UMAP, but for its start.
pub(super) fn umap_options(recipe: &Recipe) -> umap::Options<'_> {
    let u = &recipe.umap;
    umap::Options {
        n_components: u.n_components,
        min_dist: u.min_dist,
        spread: u.spread,
        n_epochs: u.maxiter,
        alpha: u.alpha,
        gamma: u.gamma,
        negative_sample_rate: u.negative_sample_rate,
        a: u.a,
        b: u.b,
        init: umap::Init::Spectral,
        coordinates: None,
        seed: recipe.seed,
    }
}

//! The second half of the main job: neighbours → weights → UMAP, clusters and PAGA, under AnnData's names.

mod clusters;
mod layout;
mod scores;

use std::borrow::Cow;

use bytemuck::cast_slice;
use cellmill_cuda::Processor;
use cellmill_engine::journal::Journal;
use cellmill_engine::pca::keep_scores;
use cellmill_graph::knn::Knn;
use cellmill_graph::{Connectivities, Distances, Embedding, fuzzy, knn, knn_streamed};
use cellmill_matrix::{Array, Element, Error, Result, Sparse, SparseFormat, Values, keys};

pub(crate) use self::clusters::{Clusters, partition};
use self::clusters::{of_groups, restricted};
pub(crate) use self::layout::Layout;
use self::layout::{Start, umap_options};
use self::scores::{Scores, numbers, set_aside};
use crate::analysis::{Analysis, Input, Waiting, kept, while_kept};
use crate::cluster::Cluster;
use crate::observe::Observer;
use crate::plan::elsewhere_bytes;
use crate::recipe::{DEFAULT_PCS, INIT_POS, Recipe, Stage as Through};

/// UMAP's places of the cells and the clusters, as far as they are asked for.
type Parts = (Option<Vec<f32>>, Option<Vec<Clusters>>);

/// What the later stages share.
struct Made {
    /// By position, or by cell where workers have made it.
    graph: Connectivities,
    by_cell: bool,
    /// Rows and indices are positions.
    found: Knn,
    /// The first components of each position: `(n, wide)`.
    head: Vec<f32>,
    wide: usize,
}

impl Made {
    /// Rows by position as rows by cell.
    fn by_cell<T: Copy + Default>(&self, rows: &[T], d: usize) -> Vec<T> {
        let mut out = vec![T::default(); rows.len()];
        rows.chunks_exact(d).zip(&self.found.order).for_each(|(row, &cell)| out[cell as usize * d..][..d].copy_from_slice(row));
        out
    }

    /// Rows by cell as rows by position.
    fn by_position<T: Copy>(&self, rows: &[T], d: usize) -> Vec<T> {
        self.found.order.iter().flat_map(|&cell| rows[cell as usize * d..][..d].iter().copied()).collect()
    }
}

impl Analysis {
    /// Neighbours, UMAP and clusters of `X_pca`.
    pub(crate) fn graph(&mut self, recipe: &Recipe, through: Through, input: &Input<'_>, observer: &Observer<'_>) -> Result<()> {
        let (n, n_comps) = (self.outcome.n_obs, self.outcome.n_comps);
        let options = &recipe.neighbors;
        if n < options.n_neighbors {
            return Err(Error::option("n_neighbors", options.n_neighbors, format!("only {n} cells are kept")));
        }
        let n_pcs = match options.n_pcs {
            None => DEFAULT_PCS.min(n_comps),
            Some(k) if k >= 1 && k <= n_comps => k,
            Some(k) => return Err(Error::option("n_pcs", k, format!("X_pca has {n_comps} components"))),
        };
        self.outcome.n_pcs = n_pcs;
        let at = self.obsm.iter().position(|(name, _)| name == keys::X_PCA);
        if let (Some(at), Some(folder)) = (at, input.scratch) {
            let (name, Array { values, .. }) = self.obsm.remove(at);
            let scores = numbers(&values)?;
            input.journal.into_iter().for_each(|journal| keep_scores(journal, scores));
            self.waiting.push((name, Waiting::File(set_aside(scores, n_comps, folder)?.columns(n_pcs), n_comps)));
        }
        let waiting = self.waiting.iter().find(|(name, _)| name == keys::X_PCA).map(|(_, waiting)| waiting);
        let (aside, read);
        let scores = match (waiting, at, input.scratch) {
            (Some(Waiting::File(file, _)), ..) => Scores::File(file),
            (Some(Waiting::Chunks(chunks)), _, Some(folder)) => {
                aside = chunks.set_aside(n_pcs, folder)?;
                Scores::File(&aside)
            }
            (Some(Waiting::Chunks(chunks)), _, None) => {
                read = chunks.read(n_pcs)?;
                Scores::Kept(&read, n_pcs)
            }
            (None, Some(at), _) => Scores::Memory(numbers(&self.obsm[at].1.values)?, n_comps, n_pcs),
            (None, None, _) => return Err(Error::bug("X_pca is not there")),
        };
        let needs = elsewhere_bytes(n as u64, recipe, input.cluster.is_some_and(Cluster::has_gpus));
        let crew = elsewhere(recipe, needs, through, input)?;
        let (made, new) = neighbors(recipe, &scores, input, crew.map(|crew| (crew, needs)), observer)?;
        let journal = input.journal.filter(|_| new);
        let (placed, clusters) = match crew {
            Some(crew) => {
                if new {
                    crew.keep_graph(&made.graph)?;
                }
                self.dealt((crew, needs), recipe, &made, through, input, observer)?
            }
            None => {
                let keep = |journal: &Journal| journal.save_arrays(JOINED, &graph_bytes(&made.graph));
                while_kept(journal, keep, || self.place_and_cluster(recipe, &made, through, input, observer))?
            }
        };
        self.uns.push((options.key_added.clone().unwrap_or_else(|| keys::NEIGHBORS.into()), neighbors_params(recipe, n_pcs)));
        if let Some(placed) = placed {
            self.keep_layout(recipe, &made, &placed);
        }
        if let Some(clusters) = clusters {
            self.keep_clusters(recipe, &made, clusters)?;
            if recipe.leiden.louvain {
                self.louvain(recipe, &made, input.journal, observer)?;
            }
        }
        let Made { graph, found, by_cell, .. } = made;
        let connectivities = if by_cell { graph } else { graph.in_original_order(&found.order) };
        self.obsp.push((named(&options.key_added, keys::CONNECTIVITIES), sparse(connectivities)));
        self.obsp.push((named(&options.key_added, keys::DISTANCES), rows(found.in_original_order())));
        Ok(())
    }

    /// The layout and the clusters, as far as they are asked for.
    fn place_and_cluster(
        &self,
        recipe: &Recipe,
        made: &Made,
        through: Through,
        input: &Input<'_>,
        observer: &Observer<'_>,
    ) -> Result<Parts> {
        if through < Through::Umap {
            return Ok((None, None));
        }
        let place = |clusters| self.layout(recipe, made, clusters, input, observer);
        let cluster = |watch| self.clusters(recipe, made, input, watch);
        let watch = || observer.stage("leiden", "iterations");
        // A start from PAGA needs the clusters first.
        let early = if recipe.umap.init_pos == "paga" { Some(cluster(watch())?) } else { None };
        let (placed, clusters) = match (early, through >= Through::Leiden) {
            (early, false) => (place(early.as_ref())?, None),
            (Some(clusters), true) => (place(Some(&clusters))?, Some(clusters)),
            (None, true) if input.beside && input.processor.get()?.device().is_some() => {
                // A GPU does a part of both: while one has it, the other has the CPU.
                let (clusters, placed) = rayon::join(|| cluster(observer.silent("leiden")), || place(None));
                (placed?, Some(clusters?))
            }
            (None, true) => (place(None)?, Some(cluster(watch())?)),
        };
        Ok((Some(placed), clusters))
    }

    /// The same on workers, each part on one: both at a time, but for a start from PAGA, which needs the clusters first.
    fn dealt(
        &self,
        (crew, needs): (&Cluster<'_>, u64),
        recipe: &Recipe,
        made: &Made,
        through: Through,
        input: &Input<'_>,
        observer: &Observer<'_>,
    ) -> Result<Parts> {
        let watch = observer.stage("umap and leiden", "orders");
        let known = |name: &str| input.journal.is_some_and(|journal| journal.is_whole(name));
        let within = self.within(recipe, made)?;
        let paga = recipe.umap.init_pos == "paga";
        let early = match paga && !known(LAID_OUT) {
            true => Some(kept(input.journal, CLUSTERED, || crew.clusters(&within, needs, &watch))?),
            false => None,
        };
        let layout = if known(LAID_OUT) { None } else { Some(self.start(recipe, made, early.as_ref(), input)?) };
        if let Some(layout) = layout.as_ref().filter(|_| through >= Through::Leiden && !paga && !known(CLUSTERED)) {
            crew.both(layout, &within, needs, &watch)?;
        }
        let placed = kept(input.journal, LAID_OUT, || {
            let layout = layout.ok_or_else(|| Error::bug("a layout that was there"))?;
            crew.layout(&layout, needs, &watch)
        })?;
        let clusters = match (early, through >= Through::Leiden) {
            (_, false) => None,
            (Some(clusters), true) => Some(clusters),
            (None, true) => Some(kept(input.journal, CLUSTERED, || crew.clusters(&within, needs, &watch))?),
        };
        watch.finish(made.found.order.len() as u64, made.graph.indices.len() as u64, 0);
        Ok((Some(placed), clusters))
    }

    /// UMAP's places of the cells, by position.
    fn layout(
        &self,
        recipe: &Recipe,
        made: &Made,
        clusters: Option<&Vec<Clusters>>,
        input: &Input<'_>,
        observer: &Observer<'_>,
    ) -> Result<Vec<f32>> {
        let start = self.start(recipe, made, clusters, input)?;
        let watch = observer.stage("umap", "epochs");
        let placed = kept(input.journal, LAID_OUT, || start.place(&made.graph, recipe, &input.processor.get()?, &watch))?;
        watch.finish(made.found.order.len() as u64, made.graph.indices.len() as u64, 0);
        Ok(placed)
    }

    /// Where UMAP begins.
    fn start<'a>(&self, recipe: &Recipe, made: &'a Made, clusters: Option<&Vec<Clusters>>, input: &Input<'_>) -> Result<Layout<'a>> {
        let (d, wide) = (recipe.umap.n_components, made.wide);
        let columns =
            |rows: &[f32], wide: usize| -> Vec<f32> { rows.chunks_exact(wide).flat_map(|row| row[..d].iter().copied()).collect() };
        let start = match recipe.umap.init_pos.as_str() {
            "spectral" => Start::Spectral,
            "random" => Start::Random,
            "pca" if wide < d => {
                return Err(Error::option("umap.init_pos", "'pca'", format!("it needs {d} components, but the neighbours use {wide}")));
            }
            "pca" => Start::Pca(columns(&made.head, wide)),
            "paga" => {
                let clusters = clusters.and_then(|all| all.first()).ok_or_else(|| Error::bug("a start from PAGA without clusters"))?;
                let (positions, nearest) = of_groups(made, clusters, d, recipe.seed)?;
                Start::Paga { positions, nearest, groups: clusters.labels.clone() }
            }
            key => {
                let (rows, wide) = given(input, self, key)?;
                if wide < d {
                    return Err(Error::option("umap.init_pos", format!("'{key}'"), format!("it has {wide} columns, and {d} are needed")));
                }
                Start::Given(made.by_position(&columns(&rows, wide), d))
            }
        };
        Ok(Layout { head: Cow::Borrowed(&made.head), wide, start })
    }

    /// Puts the places into obsm.
    fn keep_layout(&mut self, recipe: &Recipe, made: &Made, placed: &[f32]) {
        let u = &recipe.umap;
        let (a, b) = umap_options(recipe).curve();
        let key = u.key_added.clone().unwrap_or_else(|| keys::X_UMAP.into());
        let shape = vec![made.found.order.len(), u.n_components];
        self.obsm.push((key, Array { shape, values: Values::F32(made.by_cell(placed, u.n_components)) }));
        let mut params = vec![("a".to_string(), Element::float(a)), ("b".into(), Element::float(b))];
        if recipe.seed != 0 {
            params.push(("random_state".into(), Element::int(recipe.seed as i64)));
        }
        let key = u.key_added.clone().unwrap_or_else(|| keys::UMAP.into());
        self.uns.push((key, Element::Dict(vec![("params".into(), Element::Dict(params))])));
    }
}

/// Names of the notes in a journal.
pub(crate) const SEARCHED: &str = "neighbors";
pub(crate) const JOINED: &str = "connectivities";
const LAID_OUT: &str = "umap";
const CLUSTERED: &str = "leiden";

/// The workers, if they are to lay out and cluster the cells: one has room for it, and this process has no GPU. Where this process lacks the
/// memory, they make the weights too.
fn elsewhere<'a>(recipe: &Recipe, needs: u64, through: Through, input: &Input<'a>) -> Result<Option<&'a Cluster<'a>>> {
    let Some(crew) = input.cluster.filter(|_| through >= Through::Umap && !recipe.leiden.louvain) else { return Ok(None) };
    if input.alone && input.processor.get()?.device().is_some() {
        return Ok(None);
    }
    crew.has_room(needs, input.alone).map(|room| room.then_some(crew))
}

/// Weights between neighbours.
pub(crate) fn weights(distances: &Distances, recipe: &Recipe, processor: &Processor) -> Result<Connectivities> {
    fuzzy::connectivities_on(&metric(recipe)?.for_weights(distances), method(recipe), processor)
}

/// Neighbours and the weights between them; whether the weights are new to the journal.
fn neighbors(
    recipe: &Recipe,
    scores: &Scores<'_>,
    input: &Input<'_>,
    elsewhere: Option<(&Cluster<'_>, u64)>,
    observer: &Observer<'_>,
) -> Result<(Made, bool)> {
    let watch = observer.stage("neighbors", "cells");
    let options = search(recipe)?;
    let known = input.journal.and_then(found_of);
    let journal = input.journal.filter(|_| known.is_none());
    let crew = input.cluster.map(|c| c as &dyn knn::Crew);
    let found = match (known, scores) {
        (Some(found), _) => found,
        (None, Scores::Memory(all, wide, d)) => {
            let x = Embedding::columns(all, *wide, *d)?;
            let processor = input.processor.get()?;
            while_kept(input.journal, |journal| keep_scores(journal, all), || knn::knn_on(x, &options, &processor, crew, &watch))?
        }
        (None, Scores::Kept(all, d)) => knn::knn_on(Embedding::columns(all, *d, *d)?, &options, &input.processor.get()?, crew, &watch)?,
        (None, Scores::File(file)) => {
            let folder = input.scratch.ok_or_else(|| Error::bug("a file of components and no folder"))?;
            knn_streamed(*file, &options, folder, crew, &watch)?
        }
    };
    watch.finish(found.order.len() as u64, found.distances.indices.len() as u64, 0);

    let watch = observer.stage("connectivities", "cells");
    let (head, wide) = scores.head(&found.order)?;
    if let Some((crew, needs)) = elsewhere.filter(|_| !input.alone) {
        let graph = crew.weights(&found, needs, &watch)?;
        watch.finish(found.order.len() as u64, graph.indices.len() as u64, 0);
        return Ok((Made { graph, by_cell: true, found, head, wide }, false));
    }
    let known = input.journal.and_then(graph_of);
    let new = known.is_none();
    let keep = |journal: &Journal| journal.save_arrays(SEARCHED, &found_bytes(&found));
    let graph = while_kept(journal, keep, || match known {
        Some(graph) => Ok(graph),
        None => weights(&found.distances, recipe, &input.processor.get()?),
    })?;
    watch.finish(found.order.len() as u64, graph.indices.len() as u64, 0);
    Ok((Made { graph, by_cell: false, found, head, wide }, new))
}

/// Neighbours as a journal keeps them.
pub(crate) fn found_bytes(found: &Knn) -> [&[u8]; 3] {
    [cast_slice(&found.order), cast_slice(&found.distances.indices), cast_slice(&found.distances.distances)]
}

/// The neighbours that a journal has.
pub(crate) fn found_of(journal: &Journal) -> Option<Knn> {
    let mut arrays = journal.load_arrays(SEARCHED, 3)?;
    let (order, indices, distances): (Vec<u32>, Vec<u32>, Vec<f32>) = (arrays.next()?, arrays.next()?, arrays.next()?);
    let k = indices.len() / order.len().max(1);
    Some(Knn { order, distances: Distances { k, indices, distances } })
}

/// A graph as a journal keeps it.
pub(crate) fn graph_bytes(graph: &Connectivities) -> [&[u8]; 3] {
    [cast_slice(&graph.indptr), cast_slice(&graph.indices), cast_slice(&graph.weights)]
}

/// The graph that a journal has.
pub(crate) fn graph_of(journal: &Journal) -> Option<Connectivities> {
    let mut arrays = journal.load_arrays(JOINED, 3)?;
    Some(Connectivities { indptr: arrays.next()?, indices: arrays.next()?, weights: arrays.next()? })
}

/// What a recipe says of the search.
fn search(recipe: &Recipe) -> Result<knn::Options> {
    let options = &recipe.neighbors;
    Ok(knn::Options {
        n_neighbors: options.n_neighbors,
        mode: match options.mode.as_str() {
            "exact" => knn::Mode::Exact,
            "fast" => knn::Mode::Fast,
            _ => knn::Mode::Accurate,
        },
        metric: metric(recipe)?,
        seed: recipe.seed,
    })
}

/// What near means to a recipe.
pub(crate) fn metric(recipe: &Recipe) -> Result<knn::Metric> {
    knn::Metric::named(&recipe.neighbors.metric, recipe.neighbors.p)
}

/// What a recipe says of the weights.
fn method(recipe: &Recipe) -> fuzzy::Method {
    match recipe.neighbors.method.as_str() {
        "gauss" => fuzzy::Method::Gauss,
        "jaccard" => fuzzy::Method::Jaccard,
        _ => fuzzy::Method::UMAP,
    }
}

/// Refuses, before any work, a start or a restriction that the input doesn't have.
pub(crate) fn check_input(input: &Input<'_>, recipe: &Recipe, through: Through) -> Result<()> {
    let key = &recipe.umap.init_pos;
    if through >= Through::Umap && !["spectral", "pca", "random", "paga", keys::X_PCA].contains(&key.as_str()) {
        let known = input.store.map_or_else(|| Ok(Vec::new()), |store| store.names("obsm"))?;
        if !known.contains(key) {
            let known = if known.is_empty() { "there is none".into() } else { known.join(", ") };
            return Err(Error::option("umap.init_pos", format!("'{key}'"), format!("{INIT_POS} ({known})")));
        }
    }
    if let Some((column, categories)) = &recipe.leiden.restrict_to
        && through >= Through::Leiden
        && input.obs.column(column).is_some()
    {
        restricted(input.obs, column, categories)?;
    }
    Ok(())
}

/// A matrix of obsm for the kept cells, and its width: one that was computed, or one of the input.
fn given(input: &Input<'_>, analysis: &Analysis, key: &str) -> Result<(Vec<f32>, usize)> {
    let keep = &analysis.keep;
    let numbers = |a: &Array| -> Vec<f32> { (0..a.values.len()).map(|i| a.values.number(i).unwrap_or(f64::NAN) as f32).collect() };
    if let Some((_, waiting)) = analysis.waiting.iter().find(|(name, _)| name == key) {
        return waiting.read();
    }
    if let Some((_, array)) = analysis.obsm.iter().find(|(name, a)| name == key && !a.values.is_empty()) {
        return Ok((numbers(array), array.shape[1]));
    }
    let element = match input.store {
        Some(store) => store.element(&format!("obsm/{key}"), &mut Vec::new())?,
        None => None,
    };
    match element {
        Some(Element::Array(array)) if array.shape.len() == 2 && array.shape[0] == keep.len() => {
            let array = array.select(keep);
            Ok((numbers(&array), array.shape[1]))
        }
        _ => Err(Error::option("umap.init_pos", format!("'{key}'"), "obsm has no such matrix of all cells")),
    }
}

/// A name, or scanpy's composition of a key and a name.
fn named(key: &Option<String>, name: &str) -> String {
    key.as_ref().map_or_else(|| name.to_string(), |key| format!("{key}_{name}"))
}

fn neighbors_params(recipe: &Recipe, n_pcs: usize) -> Element {
    let n = &recipe.neighbors;
    let mut params = vec![
        ("n_neighbors".to_string(), Element::int(n.n_neighbors as i64)),
        ("method".into(), Element::string(n.method.clone())),
        ("random_state".into(), Element::int(recipe.seed as i64)),
        ("metric".into(), Element::string(n.metric.clone())),
        ("n_pcs".into(), Element::int(n_pcs as i64)),
        ("use_rep".into(), Element::string(keys::X_PCA)),
    ];
    if let Some(p) = n.p {
        params.push(("metric_kwds".into(), Element::Dict(vec![("p".into(), Element::float(p))])));
    }
    Element::Dict(vec![
        ("connectivities_key".into(), Element::string(named(&n.key_added, keys::CONNECTIVITIES))),
        ("distances_key".into(), Element::string(named(&n.key_added, keys::DISTANCES))),
        ("params".into(), Element::Dict(params)),
    ])
}

fn sparse(graph: Connectivities) -> Sparse {
    let n = graph.n();
    Sparse { format: SparseFormat::Csr, shape: [n, n], indptr: graph.indptr, indices: graph.indices, values: Values::F32(graph.weights) }
}

fn rows(distances: Distances) -> Sparse {
    let n = distances.n();
    let indptr = (0..=n as u64).map(|i| i * distances.k as u64).collect();
    Sparse { format: SparseFormat::Csr, shape: [n, n], indptr, indices: distances.indices, values: Values::F32(distances.distances) }
}

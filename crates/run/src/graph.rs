//! The second half of the main job: neighbours → weights → UMAP, clusters and PAGA, under AnnData's names.

use std::path::Path;

use cellmill_engine::journal::Journal;
use cellmill_graph::knn::{Knn, RowFile, Rows};
use cellmill_graph::leiden::{self, Clustering};
use cellmill_graph::{Connectivities, Distances, Embedding, fuzzy, knn, knn_streamed, louvain, paga, umap};
use cellmill_matrix::{Array, Column, Element, Error, Place, Result, Sparse, SparseFormat, Table, Values, keys};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::analysis::{Analysis, Input, kept};
use crate::observe::{Observer, StageWatch};
use crate::recipe::{DEFAULT_PCS, INIT_POS, Recipe, Resolutions, Stage as Through};

/// Rows that are copied at a time.
const BLOCK: usize = 1 << 14;
/// Components that say where parts of the graph lie, and where a start from components begins.
const HEAD: usize = 8;

/// `X_pca` while the graph is made.
enum Scores {
    Memory(Vec<f32>),
    File(RowFile),
}

/// What the later stages share.
struct Made {
    graph: Connectivities,
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

/// A clustering, as a journal keeps it: labels by position.
#[derive(Clone, Serialize, Deserialize)]
struct Clusters {
    labels: Vec<u32>,
    n_clusters: usize,
    modularity: f64,
}

impl From<Clustering> for Clusters {
    fn from(c: Clustering) -> Self {
        Clusters { labels: c.labels, n_clusters: c.n_clusters, modularity: c.modularity }
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
        let place = self.obsm.iter().position(|(name, _)| name == keys::X_PCA);
        let place = place.ok_or_else(|| Error::bug("X_pca is not there"))?;
        let Values::F32(scores) = std::mem::replace(&mut self.obsm[place].1.values, Values::F32(Vec::new())) else {
            return Err(Error::bug("X_pca is not f32"));
        };
        let scores = match input.scratch {
            None => Scores::Memory(scores),
            Some(folder) => Scores::File(set_aside(&scores, n_comps, folder)?.columns(n_pcs)),
        };
        let made = self.neighbors(recipe, &scores, (n_comps, n_pcs), input, observer)?;
        match scores {
            Scores::Memory(scores) => self.obsm[place].1.values = Values::F32(scores),
            Scores::File(file) => {
                let (name, Array { shape, .. }) = self.obsm.remove(place);
                self.waiting.push((name, shape, file));
            }
        }

        let journal = input.journal;
        if through >= Through::Umap {
            let place = |clusters| self.layout(recipe, &made, clusters, input, observer);
            let cluster = |watch| self.clusters(recipe, &made, journal, watch);
            let watch = || observer.stage("leiden", "iterations");
            // A start from PAGA needs the clusters first.
            let early = if recipe.umap.init_pos == "paga" { Some(cluster(watch())?) } else { None };
            let (placed, found) = match (early, through >= Through::Leiden) {
                (early, false) => (place(early.as_ref())?, None),
                (Some(found), true) => (place(Some(&found))?, Some(found)),
                (None, true) if input.beside && input.processor.get()?.device().is_some() => {
                    // A GPU places the cells while the CPU clusters them.
                    let (found, placed) = rayon::join(|| cluster(observer.silent("leiden")), || place(None));
                    (placed?, Some(found?))
                }
                (None, true) => (place(None)?, Some(cluster(watch())?)),
            };
            self.keep_layout(recipe, &made, &placed);
            if let Some(found) = found {
                self.keep_clusters(recipe, &made, found)?;
                if recipe.leiden.louvain {
                    self.louvain(recipe, &made, journal, observer)?;
                }
            }
        }
        let Made { graph, found, .. } = made;
        let connectivities = graph.in_original_order(&found.order);
        self.obsp.push((named(&options.key_added, keys::CONNECTIVITIES), weights(connectivities)));
        self.obsp.push((named(&options.key_added, keys::DISTANCES), rows(found.in_original_order())));
        Ok(())
    }

    /// Neighbours and the weights between them.
    fn neighbors(
        &mut self,
        recipe: &Recipe,
        scores: &Scores,
        (n_comps, n_pcs): (usize, usize),
        input: &Input<'_>,
        observer: &Observer<'_>,
    ) -> Result<Made> {
        let options = &recipe.neighbors;
        let watch = observer.stage("neighbors", "cells");
        let search = knn::Options {
            n_neighbors: options.n_neighbors,
            mode: match options.mode.as_str() {
                "exact" => knn::Mode::Exact,
                "fast" => knn::Mode::Fast,
                _ => knn::Mode::Accurate,
            },
            metric: if options.metric == "cosine" { knn::Metric::Cosine } else { knn::Metric::Euclidean },
            seed: recipe.seed,
        };
        let (order, k, indices, distances) = kept(input.journal, "neighbors", || {
            let found = match (scores, input.scratch) {
                (Scores::File(file), Some(folder)) => knn_streamed(file, &search, folder, &watch)?,
                (Scores::File(_), None) => return Err(Error::bug("a file of components and no folder")),
                (Scores::Memory(x), _) => knn::knn_on(Embedding::columns(x, n_comps, n_pcs)?, &search, &input.processor.get()?, &watch)?,
            };
            let Knn { order, distances: Distances { k, indices, distances } } = found;
            Ok((order, k, indices, distances))
        })?;
        let found = Knn { order, distances: Distances { k, indices, distances } };
        watch.finish(found.order.len() as u64, found.distances.indices.len() as u64, 0);
        let watch = observer.stage("connectivities", "cells");
        let method = match options.method.as_str() {
            "gauss" => fuzzy::Method::Gauss,
            "jaccard" => fuzzy::Method::Jaccard,
            _ => fuzzy::Method::UMAP,
        };
        let (indptr, indices, values) = kept(input.journal, "connectivities", || {
            let Connectivities { indptr, indices, weights } = fuzzy::connectivities(&found.distances, method)?;
            Ok((indptr, indices, weights))
        })?;
        let graph = Connectivities { indptr, indices, weights: values };
        watch.finish(found.order.len() as u64, graph.indices.len() as u64, 0);
        self.uns.push((options.key_added.clone().unwrap_or_else(|| keys::NEIGHBORS.into()), neighbors_params(recipe, n_pcs)));
        let wide = HEAD.min(n_pcs);
        let head = match scores {
            Scores::Memory(x) => head(&Embedding::columns(x, n_comps, n_pcs)?, &found.order, wide)?,
            Scores::File(file) => head(file, &found.order, wide)?,
        };
        Ok(Made { graph, found, head, wide })
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
        let u = &recipe.umap;
        let (d, wide) = (u.n_components, made.wide);
        let columns =
            |rows: &[f32], wide: usize| -> Vec<f32> { rows.chunks_exact(wide).flat_map(|row| row[..d].iter().copied()).collect() };
        let mut options = umap::Options { coordinates: Some(Embedding::new(&made.head, wide)?), ..umap_options(recipe) };
        let (start, groups);
        match u.init_pos.as_str() {
            "spectral" => {}
            "random" => options.init = umap::Init::Random,
            "pca" if wide < d => {
                return Err(Error::option("umap.init_pos", "'pca'", format!("it needs {d} components, but the neighbours use {wide}")));
            }
            "pca" => {
                start = columns(&made.head, wide);
                options.init = umap::Init::Pca(&start);
            }
            "paga" => {
                let clusters = clusters.and_then(|all| all.first()).ok_or_else(|| Error::bug("a start from PAGA without clusters"))?;
                groups = of_groups(made, clusters, d, recipe.seed)?;
                options.init = umap::Init::Paga { positions: &groups.0, nearest: &groups.1, groups: &clusters.labels };
            }
            key => {
                let (rows, wide) = given(input, &self.obsm, &self.keep, key)?;
                if wide < d {
                    return Err(Error::option("umap.init_pos", format!("'{key}'"), format!("it has {wide} columns, and {d} are needed")));
                }
                start = made.by_position(&columns(&rows, wide), d);
                options.init = umap::Init::Given(&start);
            }
        }
        let watch = observer.stage("umap", "epochs");
        let placed = kept(input.journal, "umap", || umap::umap_on(&made.graph, &options, &input.processor.get()?, &watch))?;
        watch.finish(made.found.order.len() as u64, made.graph.indices.len() as u64, 0);
        Ok(placed)
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

    /// Leiden's clusters at each resolution; of the restricted cells alone, if there is a restriction.
    fn clusters(&self, recipe: &Recipe, made: &Made, journal: Option<&Journal>, watch: StageWatch<'_>) -> Result<Vec<Clusters>> {
        let l = &recipe.leiden;
        let options = leiden::Options { n_iterations: l.n_iterations, seed: recipe.seed, ..leiden::Options::default() };
        let within = match &l.restrict_to {
            None => None,
            Some((column, categories)) => Some(made.by_position(&restricted(&self.obs, column, categories)?, 1)),
        };
        let all: Vec<Clusters> = kept(journal, "leiden", || {
            let all = match &within {
                None => leiden::leiden_many(&made.graph, &l.resolution.list(), &options, &watch)?,
                Some(keep) => leiden::leiden_many(&leiden::within(&made.graph, keep)?, &l.resolution.list(), &options, &watch)?,
            };
            Ok(all.into_iter().map(Clusters::from).collect())
        })?;
        watch.finish(made.found.order.len() as u64, made.graph.indices.len() as u64, 0);
        Ok(all)
    }

    /// Puts Leiden's clusters into obs, and PAGA's graph of them into uns.
    fn keep_clusters(&mut self, recipe: &Recipe, made: &Made, all: Vec<Clusters>) -> Result<()> {
        let l = &recipe.leiden;
        self.outcome.n_clusters = all.first().map_or(0, |c| c.n_clusters);
        let base = match (&l.key_added, &l.restrict_to) {
            (Some(key), _) => key.clone(),
            (None, Some(_)) => format!("{}_R", keys::LEIDEN),
            (None, None) => keys::LEIDEN.to_string(),
        };
        for (at, (clusters, resolution)) in all.into_iter().zip(l.resolution.list()).enumerate() {
            let key = at_resolution(&base, &l.resolution, resolution);
            let column = match &l.restrict_to {
                None => numbered(made, &clusters),
                Some((column, categories)) => within_others(&self.obs, column, categories, made, &clusters)?,
            };
            if l.paga && at == 0 {
                self.paga(made, &key, &column)?;
            }
            self.obs.set(&key, column);
            self.uns.push((key, said(resolution, l.n_iterations, recipe.seed, clusters.modularity)));
        }
        Ok(())
    }

    fn louvain(&mut self, recipe: &Recipe, made: &Made, journal: Option<&Journal>, observer: &Observer<'_>) -> Result<()> {
        let l = &recipe.leiden;
        let watch = observer.stage("louvain", "iterations");
        let all: Vec<Clusters> = kept(journal, "louvain", || {
            let one = |resolution| {
                let options = leiden::Options { resolution, n_iterations: l.n_iterations, seed: recipe.seed, ..leiden::Options::default() };
                louvain(&made.graph, &options, &watch).map(Clusters::from)
            };
            l.resolution.list().into_iter().map(one).collect()
        })?;
        watch.finish(made.found.order.len() as u64, made.graph.indices.len() as u64, 0);
        for (clusters, resolution) in all.into_iter().zip(l.resolution.list()) {
            let key = at_resolution(keys::LOUVAIN, &l.resolution, resolution);
            self.obs.set(&key, numbered(made, &clusters));
            self.uns.push((key, said(resolution, l.n_iterations, recipe.seed, clusters.modularity)));
        }
        Ok(())
    }

    /// scanpy's `uns['paga']` for the groups of a column.
    fn paga(&mut self, made: &Made, key: &str, column: &Column) -> Result<()> {
        let Column::Categorical { codes, categories, .. } = column else { return Err(Error::bug("clusters are not categories")) };
        let labels: Vec<u32> = codes.iter().map(|&code| code as u32).collect();
        let found = paga(&made.found.distances, &made.by_position(&labels, 1), categories.len())?;
        let sizes = Values::I64(found.sizes.iter().map(|&s| s as i64).collect());
        self.uns.push((
            keys::PAGA.into(),
            Element::Dict(vec![
                ("connectivities".into(), Element::Sparse(found.connectivities)),
                ("connectivities_tree".into(), Element::Sparse(found.connectivities_tree)),
                ("groups".into(), Element::string(key)),
            ]),
        ));
        self.uns.push((format!("{key}_sizes"), Element::Array(Array::vector(sizes))));
        Ok(())
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

/// Writes `X_pca` to a temporary file.
fn set_aside(scores: &[f32], wide: usize, folder: &Path) -> Result<RowFile> {
    let file = RowFile::create(folder, scores.len() / wide, wide)?;
    scores.par_chunks(BLOCK * wide).enumerate().try_for_each(|(at, rows)| file.write(at * BLOCK, rows))?;
    Ok(file)
}

/// The first `wide` coordinates of the cell at each position.
fn head(rows: &dyn Rows, order: &[u32], wide: usize) -> Result<Vec<f32>> {
    let (n, d) = (rows.n(), rows.d());
    let mut position = vec![0u32; n];
    order.iter().zip(0..).for_each(|(&cell, at)| position[cell as usize] = at);
    let mut head = vec![0.0; n * wide];
    let mut block = Vec::new();
    for first in (0..n).step_by(BLOCK) {
        block.resize(BLOCK.min(n - first) * d, 0.0);
        rows.copy(first, &mut block)?;
        for (row, &at) in block.chunks_exact(d).zip(&position[first..]) {
            head[at as usize * wide..][..wide].copy_from_slice(&row[..wide]);
        }
    }
    Ok(head)
}

/// What a recipe says of UMAP, but for its start.
fn umap_options(recipe: &Recipe) -> umap::Options<'_> {
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

/// A matrix of obsm for the kept cells, and its width: one that was computed, or one of the input.
fn given(input: &Input<'_>, own: &[(String, Array)], keep: &[bool], key: &str) -> Result<(Vec<f32>, usize)> {
    let numbers = |a: &Array| -> Vec<f32> { (0..a.values.len()).map(|i| a.values.number(i).unwrap_or(f64::NAN) as f32).collect() };
    if let Some((_, array)) = own.iter().find(|(name, a)| name == key && !a.values.is_empty()) {
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

/// Places of the clusters for a start from PAGA, a layout of PAGA's own graph, and to which each is tied most strongly.
fn of_groups(made: &Made, clusters: &Clusters, d: usize, seed: u64) -> Result<(Vec<f32>, Vec<u32>)> {
    let found = paga(&made.found.distances, &clusters.labels, clusters.n_clusters)?;
    let Sparse { indptr, indices, values, .. } = found.connectivities;
    let weights: Vec<f32> = (0..values.len()).map(|i| values.number(i).unwrap_or(0.0) as f32).collect();
    let graph = Connectivities { indptr, indices, weights };
    // Means of the clusters' cells tell where parts of that graph lie.
    let wide = made.wide;
    let mut means = vec![0f32; clusters.n_clusters * wide];
    for (row, &label) in made.head.chunks_exact(wide).zip(&clusters.labels) {
        let size = found.sizes[label as usize] as f32;
        means[label as usize * wide..][..wide].iter_mut().zip(row).for_each(|(mean, x)| *mean += x / size);
    }
    let options = umap::Options { n_components: d, seed, coordinates: Some(Embedding::new(&means, wide)?), ..umap::Options::default() };
    let positions = umap::umap(&graph, &options, &())?;
    let nearest = (0..clusters.n_clusters)
        .map(|group| {
            let (others, weights) = graph.row(group);
            others.iter().zip(weights).fold((group as u32, 0.0), |best, (&o, &w)| if w > best.1 { (o, w) } else { best }).0
        })
        .collect();
    Ok((positions, nearest))
}

/// A name, or scanpy's composition of a key and a name.
fn named(key: &Option<String>, name: &str) -> String {
    key.as_ref().map_or_else(|| name.to_string(), |key| format!("{key}_{name}"))
}

/// `base`, or `base_{resolution}` where there are several.
fn at_resolution(base: &str, all: &Resolutions, resolution: f64) -> String {
    match all {
        Resolutions::One(_) => base.to_string(),
        Resolutions::Many(_) => format!("{base}_{}", Values::F64(vec![resolution]).text(0)),
    }
}

/// What uns says of a clustering.
fn said(resolution: f64, n_iterations: i32, seed: u64, modularity: f64) -> Element {
    let params = vec![
        ("resolution".to_string(), Element::float(resolution)),
        ("random_state".into(), Element::int(seed as i64)),
        ("n_iterations".into(), Element::int(i64::from(n_iterations))),
    ];
    Element::Dict(vec![("params".into(), Element::Dict(params)), ("modularity".into(), Element::float(modularity))])
}

/// Clusters as categories '0', '1', … by size.
fn numbered(made: &Made, clusters: &Clusters) -> Column {
    let codes = by_size(&made.by_cell(&clusters.labels, 1), clusters.n_clusters);
    Column::Categorical { codes, categories: Values::Str((0..clusters.n_clusters).map(|c| c.to_string()).collect()), ordered: false }
}

/// Which cells have one of these categories.
fn restricted(obs: &Table, column: &str, categories: &[String]) -> Result<Vec<bool>> {
    let values = obs.column(column).ok_or_else(|| Error::missing(Place::element("", "obs"), column, obs.names()))?;
    let keep: Vec<bool> = (0..values.len()).map(|i| values.text(i).is_some_and(|text| categories.contains(&text))).collect();
    for category in categories {
        if !(0..values.len()).any(|i| values.text(i).as_deref() == Some(category)) {
            return Err(Error::option("leiden.restrict_to", format!("'{category}'"), format!("no kept cell has it in obs['{column}']")));
        }
    }
    Ok(keep)
}

/// scanpy's `rename_groups`: restricted cells are called after the categories and their cluster, as `a-b,0`; the others stay what they were.
fn within_others(obs: &Table, column: &str, categories: &[String], made: &Made, clusters: &Clusters) -> Result<Column> {
    let keep = restricted(obs, column, categories)?;
    // Labels are of the kept positions, in their order.
    let mut sub = vec![u32::MAX; keep.len()];
    let inside = made.found.order.iter().filter(|&&cell| keep[cell as usize]);
    inside.zip(&clusters.labels).for_each(|(&cell, &label)| sub[cell as usize] = label);
    let inner: Vec<u32> = sub.iter().copied().filter(|&label| label != u32::MAX).collect();
    let mut numbers = by_size(&inner, clusters.n_clusters).into_iter();
    let values = obs.column(column).ok_or_else(|| Error::missing(Place::element("", "obs"), column, obs.names()))?;
    let prefix = categories.join("-");
    let names: Vec<Option<String>> = keep
        .iter()
        .enumerate()
        .map(|(cell, &keep)| if keep { numbers.next().map(|number| format!("{prefix},{number}")) } else { values.text(cell) })
        .collect();
    let mut known: Vec<&String> = names.iter().flatten().collect();
    known.sort_by_cached_key(|name| natural(name));
    known.dedup();
    let code: std::collections::HashMap<&String, i32> = known.iter().copied().zip(0..).collect();
    let codes = names.iter().map(|name| name.as_ref().map_or(-1, |name| code[name])).collect();
    Ok(Column::Categorical { codes, categories: Values::Str(known.into_iter().cloned().collect()), ordered: false })
}

/// A key by which names sort as people read them: runs of digits as numbers.
fn natural(name: &str) -> Vec<(u8, u64, String)> {
    let mut parts: Vec<(u8, u64, String)> = Vec::new();
    for c in name.chars() {
        match (c.to_digit(10), parts.last_mut()) {
            (Some(digit), Some((0, number, _))) => *number = number.saturating_mul(10).saturating_add(u64::from(digit)),
            (Some(digit), _) => parts.push((0, u64::from(digit), String::new())),
            (None, Some((1, _, text))) => text.push(c),
            (None, _) => parts.push((1, 0, c.to_string())),
        }
    }
    parts
}

/// Labels renumbered by size, descending, ties by the smallest member.
fn by_size(labels: &[u32], n_clusters: usize) -> Vec<i32> {
    let mut size = vec![(0usize, usize::MAX); n_clusters];
    for (cell, &label) in labels.iter().enumerate() {
        let entry = &mut size[label as usize];
        entry.0 += 1;
        entry.1 = entry.1.min(cell);
    }
    let mut order: Vec<usize> = (0..n_clusters).collect();
    order.sort_by_key(|&c| (std::cmp::Reverse(size[c].0), size[c].1));
    let mut number = vec![0i32; n_clusters];
    order.iter().zip(0..).for_each(|(&c, i)| number[c] = i);
    labels.iter().map(|&label| number[label as usize]).collect()
}

fn neighbors_params(recipe: &Recipe, n_pcs: usize) -> Element {
    let n = &recipe.neighbors;
    let params = vec![
        ("n_neighbors".to_string(), Element::int(n.n_neighbors as i64)),
        ("method".into(), Element::string(n.method.clone())),
        ("random_state".into(), Element::int(recipe.seed as i64)),
        ("metric".into(), Element::string(n.metric.clone())),
        ("n_pcs".into(), Element::int(n_pcs as i64)),
        ("use_rep".into(), Element::string(keys::X_PCA)),
    ];
    Element::Dict(vec![
        ("connectivities_key".into(), Element::string(named(&n.key_added, keys::CONNECTIVITIES))),
        ("distances_key".into(), Element::string(named(&n.key_added, keys::DISTANCES))),
        ("params".into(), Element::Dict(params)),
    ])
}

fn weights(graph: Connectivities) -> Sparse {
    let n = graph.n();
    Sparse { format: SparseFormat::Csr, shape: [n, n], indptr: graph.indptr, indices: graph.indices, values: Values::F32(graph.weights) }
}

fn rows(distances: Distances) -> Sparse {
    let n = distances.n();
    let indptr = (0..=n as u64).map(|i| i * distances.k as u64).collect();
    Sparse { format: SparseFormat::Csr, shape: [n, n], indptr, indices: distances.indices, values: Values::F32(distances.distances) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_read_them() {
        let mut names = ["10", "9", "B,10", "B,2", "A", "1"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["1", "9", "10", "A", "B,2", "B,10"]);
    }
}

//! The main job on an open matrix: survey → components → neighbours → UMAP → clusters, as plain values under AnnData's names.

use cellmill_cuda::Processor;
use cellmill_engine::exec::Feed;
use cellmill_engine::journal::Journal;
use cellmill_engine::pca::{Columns, Rows, pca};
use cellmill_engine::recipe::Step;
use cellmill_engine::stage::Stage;
use cellmill_graph::{Connectivities, Distances, Embedding, knn, leiden, umap};
use cellmill_kernels::transform::cuda::Logged;
use cellmill_matrix::{Array, Column, Element, Error, Place, Result, Sparse, SparseFormat, Table, Values, keys};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::methods::{Outcome, methods};
use crate::observe::Observer;
use crate::recipe::{DEFAULT_COMPS, DEFAULT_PCS, Recipe, Resolutions, Stage as Through};
use crate::survey::{Survey, kept_steps, survey};

/// Everything that a run found out, ready to be written.
pub struct Analysis {
    /// Kept cells.
    pub obs: Table,
    /// Kept genes.
    pub var: Table,
    /// `(n_obs, …)` arrays.
    pub obsm: Vec<(String, Array)>,
    /// `(n_vars, …)` arrays.
    pub varm: Vec<(String, Array)>,
    /// `(n_obs, n_obs)` sparse matrices.
    pub obsp: Vec<(String, Sparse)>,
    /// Unstructured annotation.
    pub uns: Vec<(String, Element)>,
    /// Which source rows are kept.
    pub keep: Vec<bool>,
    /// Which source genes are kept; `None` if all.
    pub keep_genes: Option<Vec<bool>>,
    /// The sum that cells were normalised to.
    pub target_sum: Option<f64>,
    /// The numbers of the Methods paragraph.
    pub outcome: Outcome,
    /// Reads of the source.
    pub source_reads: u32,
}

/// What is analysed, and what helps.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The matrix, and the stage that keeps its rows for later passes.
    pub feed: Feed<'a>,
    /// All cells.
    pub obs: &'a Table,
    /// All genes.
    pub var: &'a Table,
    /// Keeps the chosen columns for the projection.
    pub selected: &'a Stage,
    /// Whether nobody reads all genes again after the components.
    pub last: bool,
    /// What an earlier run has finished, and where this one leaves what it finishes.
    pub journal: Option<&'a Journal>,
    /// What computes the heavy parts.
    pub processor: &'a Processor,
}

/// Runs a recipe as far as `through`. Work happens in the installed rayon pool.
pub fn analyse(input: &Input<'_>, recipe: &Recipe, through: Through, observer: &Observer<'_>) -> Result<Analysis> {
    recipe.check()?;
    let source = input.feed.source;
    let found = survey(input, recipe, through, observer)?;
    found.warnings.iter().for_each(|w| observer.warn(w));
    let mut a = Analysis {
        obsm: Vec::new(),
        varm: Vec::new(),
        obsp: Vec::new(),
        uns: Vec::new(),
        keep: found.keep.clone(),
        keep_genes: found.keep_genes.clone(),
        target_sum: found.target_sum,
        outcome: Outcome {
            n_source: source.shape().n_obs,
            n_source_vars: source.shape().n_vars,
            n_obs: found.obs.n_rows(),
            n_vars: found.var.n_rows(),
            n_hvg: 0,
            n_comps: 0,
            n_pcs: 0,
            n_clusters: 0,
            target_sum: found.target_sum,
        },
        source_reads: found.reads,
        obs: Table::default(),
        var: Table::default(),
    };
    if through >= Through::Hvg {
        if recipe.log1p.enabled {
            // scanpy writes {'base': None} for the natural logarithm; readers before anndata 0.12 know no None, and take a missing base for it.
            let base = recipe.log1p.base.map(|b| ("base".to_string(), Element::float(b)));
            a.uns.push((keys::LOG1P.into(), Element::Dict(base.into_iter().collect())));
        }
        a.uns.push((keys::HVG.into(), Element::Dict(vec![("flavor".into(), Element::string(recipe.hvg.flavor.name()))])));
        if let Some(Column::Plain(Values::Bool(chosen))) = found.var.column(keys::HIGHLY_VARIABLE) {
            a.outcome.n_hvg = chosen.iter().filter(|c| **c).count();
        }
    }
    if through >= Through::Pca {
        a.components(input, &found, recipe, observer)?;
    }
    (a.obs, a.var) = (found.obs, found.var);
    if through >= Through::Neighbors {
        a.graph(recipe, through, input, observer)?;
    }
    let text = methods(recipe, through, &a.outcome);
    a.uns.push((
        keys::CELLMILL.into(),
        Element::Dict(vec![
            ("methods".into(), Element::string(text)),
            ("recipe".into(), Element::string(recipe.to_toml()?)),
            ("through".into(), Element::string(through.name())),
            ("version".into(), Element::string(env!("CARGO_PKG_VERSION"))),
        ]),
    ));
    Ok(a)
}

/// The steps from raw rows to the values that `normalize` and `log1p` leave.
pub fn value_steps(recipe: &Recipe, target_sum: Option<f64>) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(target_sum) = target_sum {
        steps.push(Step::NormalizeTotal { target_sum });
    }
    if recipe.log1p.enabled {
        steps.push(Step::Log1p { base: recipe.log1p.base });
    }
    steps
}

/// No value of a chosen gene is larger, where that is known: for rows that were counts and had a given sum.
fn largest(recipe: &Recipe, target_sum: Option<f64>, inverse_std: &[f64]) -> Option<Vec<f32>> {
    let most = Logged { target_sum, log1p: recipe.log1p.enabled, base: recipe.log1p.base }.bound()?;
    // Rounding to f32 may lift it by one unit.
    Some(inverse_std.iter().map(|inverse| (most * inverse * (1.0 + 1e-6)) as f32).collect())
}

impl Analysis {
    /// Principal components of the chosen genes.
    fn components(&mut self, input: &Input<'_>, found: &Survey, recipe: &Recipe, observer: &Observer<'_>) -> Result<()> {
        let source = input.feed.source;
        let place = Place::element(source.location(), "var");
        let name = &recipe.pca.mask_var;
        let column = found.var.column(name).ok_or_else(|| Error::missing(place.clone(), name, found.var.names()))?;
        let mask: Vec<bool> = (0..found.var.n_rows()).map(|j| column.number(j).is_some_and(|x| x != 0.0)).collect();
        let p = mask.iter().filter(|m| **m).count();
        let n_obs = found.obs.n_rows();
        let most = n_obs.min(p).saturating_sub(1);
        let n_comps = recipe.pca.n_comps.unwrap_or_else(|| DEFAULT_COMPS.min(most));
        if most == 0 {
            let found = format!("{n_obs} cells and {p} genes of '{name}'");
            return Err(Error::invalid(place, found, "components need two of each at least; --through hvg stops before them"));
        }
        if n_comps == 0 || n_comps > most {
            return Err(Error::option("n_comps", n_comps, format!("{n_obs} cells and {p} genes of '{name}' allow 1 to {most}")));
        }
        let moments = found.moments.as_ref().ok_or_else(|| Error::bug("moments were not taken"))?;
        let pick = |values: Vec<f64>| -> Vec<f64> { values.into_iter().zip(&mask).filter(|(_, m)| **m).map(|(v, _)| v).collect() };
        let (mean, variance, squares) = (pick(moments.mean.clone()), pick(moments.variance()), pick(moments.sum_of_squares()));
        let inverse_std: Vec<f64> = variance.iter().map(|v| if recipe.scale.enabled && *v > 0.0 { 1.0 / v.sqrt() } else { 1.0 }).collect();
        let n_cells: Vec<u64> = match &found.keep_genes {
            None => found.totals.n_cells.clone(),
            Some(keep) => found.totals.n_cells.iter().zip(keep).filter(|(_, k)| **k).map(|(c, _)| *c).collect(),
        };
        let n = found.totals.n_obs.max(1) as f32;
        let detection = n_cells.iter().zip(&mask).filter(|(_, m)| **m).map(|(&c, _)| (c as f32 / n).min(1.0)).collect();
        let largest = largest(recipe, found.target_sum, &inverse_std);
        let bound = squares.iter().zip(&inverse_std).map(|(s, i)| s * i * i).fold(1.0, f64::max) * 1.001;
        let mut select = kept_steps(&found.keep, found.keep_genes.as_deref());
        if found.target_sum.is_some() {
            select.push(Step::TakeTotals);
        }
        select.push(Step::KeepVar { mask: mask.clone() });
        let mut transform = value_steps(recipe, found.target_sum);
        if recipe.scale.enabled {
            let mean = recipe.scale.zero_center.then_some(mean);
            transform.push(Step::Scale { mean, inverse_std, max_value: recipe.scale.max_value });
        }
        let watch = observer.stage("principal components", "cells");
        let columns = Columns { detection, bound, largest };
        let rows = Rows { feed: input.feed, select: &select, n_genes: p, transform: &transform, last: input.last };
        let result = kept(input.journal, "pca", || pca(rows, &columns, n_comps, input.selected, input.journal, input.processor, &watch))
            .map_err(|e| e.at(&Place::store(source.location())))?;
        watch.finish(n_obs as u64, result.nnz, result.source_reads);
        self.source_reads += result.source_reads;
        self.outcome.n_comps = n_comps;
        let mut loadings = vec![0f64; mask.len() * n_comps];
        let chosen = loadings.chunks_exact_mut(n_comps).zip(&mask).filter(|(_, m)| **m).map(|(row, _)| row);
        chosen.zip(result.components.chunks_exact(n_comps)).for_each(|(row, from)| row.copy_from_slice(from));
        self.obsm.push((keys::X_PCA.into(), Array { shape: vec![n_obs, n_comps], values: Values::F32(result.scores) }));
        self.varm.push((keys::PCS.into(), Array { shape: vec![mask.len(), n_comps], values: Values::F64(loadings) }));
        let params = vec![
            ("zero_center".to_string(), Element::bool(true)),
            ("use_highly_variable".into(), Element::bool(name == keys::HIGHLY_VARIABLE)),
            ("mask_var".into(), Element::string(name.clone())),
        ];
        let vector = |v: Vec<f64>| Element::Array(Array::vector(Values::F64(v)));
        self.uns.push((
            keys::PCA.into(),
            Element::Dict(vec![
                ("params".into(), Element::Dict(params)),
                ("variance".into(), vector(result.variance)),
                ("variance_ratio".into(), vector(result.variance_ratio)),
            ]),
        ));
        Ok(())
    }

    /// Neighbours, UMAP and clusters of `X_pca`.
    fn graph(&mut self, recipe: &Recipe, through: Through, input: &Input<'_>, observer: &Observer<'_>) -> Result<()> {
        let journal = input.journal;
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
        let Some((_, Array { values: Values::F32(scores), .. })) = self.obsm.iter().find(|(name, _)| name == keys::X_PCA) else {
            return Err(Error::bug("X_pca is not there"));
        };
        let x: Vec<f32> = if n_pcs == n_comps {
            scores.clone()
        } else {
            scores.chunks_exact(n_comps).flat_map(|row| row[..n_pcs].iter().copied()).collect()
        };

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
        let (order, k, indices, distances) = kept(journal, "neighbors", || {
            let knn::Knn { order, distances: Distances { k, indices, distances } } =
                knn::knn_on(Embedding::new(&x, n_pcs)?, &search, input.processor, &watch)?;
            Ok((order, k, indices, distances))
        })?;
        let found = knn::Knn { order, distances: Distances { k, indices, distances } };
        let entries = found.distances.indices.len() as u64;
        watch.finish(n as u64, entries, 0);
        let watch = observer.stage("connectivities", "cells");
        let method = match options.method.as_str() {
            "gauss" => cellmill_graph::fuzzy::Method::Gauss,
            "jaccard" => cellmill_graph::fuzzy::Method::Jaccard,
            _ => cellmill_graph::fuzzy::Method::UMAP,
        };
        let (indptr, indices, values) = kept(journal, "connectivities", || {
            let Connectivities { indptr, indices, weights } = cellmill_graph::fuzzy::connectivities(&found.distances, method)?;
            Ok((indptr, indices, weights))
        })?;
        let graph = Connectivities { indptr, indices, weights: values };
        watch.finish(n as u64, graph.indices.len() as u64, 0);
        self.uns.push((keys::NEIGHBORS.into(), neighbors_params(recipe, n_pcs)));

        if through >= Through::Umap {
            let placed = (&found.order[..], &x[..], n_pcs);
            self.layout(recipe, &graph, placed, input, observer)?;
        }
        if through >= Through::Leiden {
            self.clusters(recipe, &graph, &found.order, journal, observer)?;
        }
        let connectivities = graph.in_original_order(&found.order);
        let distances = found.in_original_order();
        self.obsp.push((keys::CONNECTIVITIES.into(), weights(connectivities)));
        self.obsp.push((keys::DISTANCES.into(), rows(distances)));
        Ok(())
    }

    fn layout(
        &mut self,
        recipe: &Recipe,
        graph: &Connectivities,
        (order, x, n_pcs): (&[u32], &[f32], usize),
        input: &Input<'_>,
        observer: &Observer<'_>,
    ) -> Result<()> {
        let u = &recipe.umap;
        let d = u.n_components;
        if u.init_pos == "pca" && n_pcs < d {
            return Err(Error::option("umap.init_pos", "'pca'", format!("it needs {d} components, but the neighbours use {n_pcs}")));
        }
        let start: Vec<f32> = order.iter().flat_map(|&cell| x[cell as usize * n_pcs..][..d.min(n_pcs)].iter().copied()).collect();
        let options = umap::Options {
            n_components: d,
            min_dist: u.min_dist,
            spread: u.spread,
            n_epochs: u.maxiter,
            alpha: u.alpha,
            gamma: u.gamma,
            negative_sample_rate: u.negative_sample_rate,
            a: None,
            b: None,
            init: match u.init_pos.as_str() {
                "random" => umap::Init::Random,
                "pca" => umap::Init::Pca(&start),
                _ => umap::Init::Spectral,
            },
            seed: recipe.seed,
        };
        let (a, b) = options.curve();
        let watch = observer.stage("umap", "epochs");
        let placed = kept(input.journal, "umap", || umap::umap_on(graph, &options, input.processor, &watch))?;
        watch.finish(order.len() as u64, graph.indices.len() as u64, 0);
        let mut layout = vec![0f32; placed.len()];
        placed.chunks_exact(d).zip(order).for_each(|(row, &cell)| layout[cell as usize * d..][..d].copy_from_slice(row));
        self.obsm.push((keys::X_UMAP.into(), Array { shape: vec![order.len(), d], values: Values::F32(layout) }));
        let mut params = vec![("a".to_string(), Element::float(a)), ("b".into(), Element::float(b))];
        if recipe.seed != 0 {
            params.push(("random_state".into(), Element::int(recipe.seed as i64)));
        }
        self.uns.push((keys::UMAP.into(), Element::Dict(vec![("params".into(), Element::Dict(params))])));
        Ok(())
    }

    fn clusters(
        &mut self,
        recipe: &Recipe,
        graph: &Connectivities,
        order: &[u32],
        journal: Option<&Journal>,
        observer: &Observer<'_>,
    ) -> Result<()> {
        let l = &recipe.leiden;
        let resolutions = l.resolution.list();
        let watch = observer.stage("leiden", "cells");
        let options = leiden::Options { n_iterations: l.n_iterations, seed: recipe.seed, ..leiden::Options::default() };
        let all: Vec<Clusters> = kept(journal, "leiden", || {
            let all = leiden::leiden_many(graph, &resolutions, &options, &watch)?;
            Ok(all.into_iter().map(|c| Clusters { labels: c.labels, n_clusters: c.n_clusters, modularity: c.modularity }).collect())
        })?;
        watch.finish(order.len() as u64, graph.indices.len() as u64, 0);
        self.outcome.n_clusters = all.first().map_or(0, |c| c.n_clusters);
        for (clustering, &resolution) in all.iter().zip(&resolutions) {
            let key = match &l.resolution {
                Resolutions::One(_) => keys::LEIDEN.to_string(),
                Resolutions::Many(_) => format!("{}_{}", keys::LEIDEN, Values::F64(vec![resolution]).text(0)),
            };
            let mut labels = vec![0u32; order.len()];
            clustering.labels.iter().zip(order).for_each(|(&label, &cell)| labels[cell as usize] = label);
            let codes = by_size(&labels, clustering.n_clusters);
            let categories = Values::Str((0..clustering.n_clusters).map(|c| c.to_string()).collect());
            self.obs.set(&key, Column::Categorical { codes, categories, ordered: false });
            let params = vec![
                ("resolution".to_string(), Element::float(resolution)),
                ("random_state".into(), Element::int(recipe.seed as i64)),
                ("n_iterations".into(), Element::int(i64::from(l.n_iterations))),
            ];
            self.uns.push((
                key,
                Element::Dict(vec![("params".into(), Element::Dict(params)), ("modularity".into(), Element::float(clustering.modularity))]),
            ));
        }
        Ok(())
    }
}

/// A clustering, as a journal keeps it.
#[derive(Serialize, Deserialize)]
struct Clusters {
    labels: Vec<u32>,
    n_clusters: usize,
    modularity: f64,
}

/// What the journal has under this name, or else what `make` makes, which it has from then on.
fn kept<T: Serialize + DeserializeOwned>(journal: Option<&Journal>, name: &str, make: impl FnOnce() -> Result<T>) -> Result<T> {
    if let Some(value) = journal.and_then(|j| j.load(name)) {
        return Ok(value);
    }
    let value = make()?;
    if let Some(journal) = journal {
        journal.save(name, &value);
    }
    Ok(value)
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
        ("connectivities_key".into(), Element::string(keys::CONNECTIVITIES)),
        ("distances_key".into(), Element::string(keys::DISTANCES)),
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

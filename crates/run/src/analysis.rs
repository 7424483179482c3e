//! The main job on an open matrix: survey → components → graph (`graph.rs`), as plain values under AnnData's names.

use std::path::Path;

use cellmill_engine::exec::Feed;
use cellmill_engine::host::hvg::Flavor;
use cellmill_engine::journal::Journal;
use cellmill_engine::pca::{Columns, Crew, Rows, keep_scores, pca};
use cellmill_engine::recipe::Step;
use cellmill_engine::stage::Stage;
use cellmill_graph::knn::{RowFile, Rows as _};
use cellmill_kernels::transform::cuda::Logged;
use cellmill_matrix::{Array, Column, Element, Error, Place, Result, Sparse, Table, Values, keys};
use cellmill_store::anndata::AnnData;
use serde::{Serialize, de::DeserializeOwned};

use crate::chunked::Chunked;
use crate::cluster::Cluster;
use crate::device::Opening;
use crate::methods::{Outcome, methods};
use crate::observe::Observer;
use crate::recipe::{DEFAULT_COMPS, Recipe, Stage as Through};
use crate::survey::{Survey, kept_steps, survey};

/// Everything that a run found out, ready to be written.
pub struct Analysis {
    /// Kept cells.
    pub obs: Table,
    /// Kept genes.
    pub var: Table,
    /// `(n_obs, …)` arrays.
    pub obsm: Vec<(String, Array)>,
    /// `(n_obs, …)` arrays that lie on disk.
    pub waiting: Vec<(String, Waiting)>,
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

/// Where an array waits to be written.
pub enum Waiting {
    /// In a temporary file, with its columns.
    File(RowFile, usize),
    /// As chunks of the output.
    Chunks(Chunked),
}

impl Waiting {
    /// All of it, and its columns.
    pub(crate) fn read(&self) -> Result<(Vec<f32>, usize)> {
        match self {
            Waiting::File(file, wide) => {
                let mut all = vec![0.0; file.n() * wide];
                file.read(0, &mut all)?;
                Ok((all, *wide))
            }
            Waiting::Chunks(chunks) => {
                let [_, wide] = chunks.shape();
                Ok((chunks.read(wide)?, wide))
            }
        }
    }
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
    /// Who reads the rows, if it is not this process.
    pub cluster: Option<&'a Cluster<'a>>,
    /// What computes the heavy parts.
    pub processor: &'a Opening<'a>,
    /// The AnnData store that the input is, if it is one.
    pub store: Option<&'a AnnData>,
    /// A folder for temporary files, where memory has no room for the components beside the graph.
    pub scratch: Option<&'a Path>,
    /// Whether memory has room for the layout and the clusters at the same time.
    pub beside: bool,
    /// Whether memory has room for the layout and the clusters at all: workers do them otherwise.
    pub alone: bool,
}

/// Runs a recipe as far as `through`. Work happens in the installed rayon pool.
pub fn analyse(input: &Input<'_>, recipe: &Recipe, through: Through, observer: &Observer<'_>) -> Result<Analysis> {
    recipe.check()?;
    crate::graph::check_input(input, recipe, through)?;
    let source = input.feed.source;
    let found = survey(input, recipe, through, observer)?;
    found.warnings.iter().for_each(|w| observer.warn(w));
    let mut a = Analysis {
        obsm: Vec::new(),
        waiting: Vec::new(),
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
        let mut about = vec![("flavor".to_string(), Element::string(recipe.hvg.flavor.name()))];
        if recipe.hvg.flavor == Flavor::PearsonResiduals {
            let matrix = &recipe.input.matrix;
            let computed_on = matrix.strip_prefix("layers/").map_or_else(|| format!("adata.{matrix}"), String::from);
            about.push(("computed_on".into(), Element::string(computed_on)));
        }
        a.uns.push((keys::HVG.into(), Element::Dict(about)));
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
    } else if through == Through::Pca && !input.last {
        // Without X, writing them takes no longer than keeping them.
        a.keep_scores(input.journal);
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
    /// Keeps `X_pca` in the journal.
    fn keep_scores(&self, journal: Option<&Journal>) {
        let values = self.obsm.iter().find(|(name, _)| name == keys::X_PCA).map(|(_, array)| &array.values);
        if let (Some(journal), Some(Values::F32(scores))) = (journal, values) {
            keep_scores(journal, scores);
        }
    }

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
        // Workers that there are no more have left them.
        if let (Some(journal), None) = (input.journal, input.cluster)
            && let Some(left) = Chunked::of(journal)
        {
            keep_scores(journal, &left.read(n_comps)?);
        }
        let columns = Columns { detection, bound, largest, centred: true };
        let crew = input.cluster.map(|c| c as &dyn Crew);
        let rows = Rows { feed: input.feed, select: &select, n_genes: p, transform: &transform, last: input.last, crew, stay: None };
        let result = pca(rows, &columns, n_comps, input.selected, input.journal, &input.processor.get()?, &watch)
            .map_err(|e| e.at(&Place::store(source.location())))?;
        watch.finish(n_obs as u64, result.nnz, result.source_reads);
        self.source_reads += result.source_reads;
        self.outcome.n_comps = n_comps;
        let mut loadings = vec![0f64; mask.len() * n_comps];
        let chosen = loadings.chunks_exact_mut(n_comps).zip(&mask).filter(|(_, m)| **m).map(|(row, _)| row);
        chosen.zip(result.components.chunks_exact(n_comps)).for_each(|(row, from)| row.copy_from_slice(from));
        match input.cluster.and_then(Cluster::chunked) {
            Some(left) => self.waiting.push((keys::X_PCA.into(), Waiting::Chunks(left))),
            None => self.obsm.push((keys::X_PCA.into(), Array { shape: vec![n_obs, n_comps], values: Values::F32(result.scores) })),
        }
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
}

/// Does `work` while the journal is given what it lacks.
pub(crate) fn while_kept<R: Send>(journal: Option<&Journal>, keep: impl FnOnce(&Journal) + Send, work: impl FnOnce() -> R + Send) -> R {
    match journal {
        None => work(),
        Some(journal) if rayon::current_num_threads() == 1 => {
            keep(journal);
            work()
        }
        Some(journal) => rayon::join(work, || keep(journal)).0,
    }
}

/// What the journal has under this name, or else what `make` makes, which it has from then on.
pub(crate) fn kept<T: Serialize + DeserializeOwned>(journal: Option<&Journal>, name: &str, make: impl FnOnce() -> Result<T>) -> Result<T> {
    if let Some(value) = journal.and_then(|j| j.load(name)) {
        return Ok(value);
    }
    let value = make()?;
    if let Some(journal) = journal {
        journal.save(name, &value);
    }
    Ok(value)
}

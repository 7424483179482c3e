//! What a run does, as the user writes it: TOML sections named after scanpy's functions, every key with a default.
//! The default recipe is that of rapids-singlecell's notebook 'Out-of-core analysis using Dask'.

use std::collections::BTreeMap;

use cellmill_engine::host::hvg::Flavor;
use cellmill_engine::recipe::Expression;
use cellmill_graph::knn::Metric;
use cellmill_matrix::{Error, Place, Result};
use serde::{Deserialize, Serialize};

/// Genes when the recipe doesn't say how many: the notebook's number.
pub const DEFAULT_TOP_GENES: usize = 5000;

/// Components when the recipe doesn't say: the notebook's number.
pub const DEFAULT_COMPS: usize = 100;

/// Components for the neighbour search when the recipe doesn't say: the notebook's number.
pub const DEFAULT_PCS: usize = 50;

/// How far a run goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Quality control and filters.
    Qc,
    /// Highly variable genes, means and standard deviations.
    Hvg,
    /// Principal components.
    Pca,
    /// Neighbours and connectivities.
    Neighbors,
    /// UMAP.
    Umap,
    /// Clusters.
    #[default]
    Leiden,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Stage; 6] = [Stage::Qc, Stage::Hvg, Stage::Pca, Stage::Neighbors, Stage::Umap, Stage::Leiden];

    /// The name by which the command line knows it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Qc => "qc",
            Stage::Hvg => "hvg",
            Stage::Pca => "pca",
            Stage::Neighbors => "neighbors",
            Stage::Umap => "umap",
            Stage::Leiden => "leiden",
        }
    }
}

/// A whole recipe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Which matrix is analysed.
    pub input: Input,
    /// `calculate_qc_metrics`.
    pub qc: Qc,
    /// Which cells and genes are kept.
    pub filter: Filter,
    /// `normalize_total`.
    pub normalize: Normalize,
    /// `log1p`.
    pub log1p: Log1p,
    /// `highly_variable_genes`.
    pub hvg: Hvg,
    /// `scale`.
    pub scale: Scale,
    /// `pca`.
    pub pca: Pca,
    /// `neighbors`.
    pub neighbors: Neighbors,
    /// `umap`.
    pub umap: Umap,
    /// `leiden`.
    pub leiden: Leiden,
    /// Where every random choice starts.
    pub seed: u64,
}

/// Which matrix is analysed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Input {
    /// `X`, `layers/NAME` or `raw/X`.
    pub matrix: String,
}

/// Quality control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Qc {
    /// Gene sets by name: `prefix:MT-`, `regex:^MT-`, `column:is_mito`, or a bare prefix.
    pub qc_vars: BTreeMap<String, String>,
    /// Sizes of the lists of most expressed genes whose share is wanted.
    pub percent_top: Vec<usize>,
    /// Whether `log1p_` columns are written.
    pub log1p: bool,
}

/// Which cells and genes are kept. Everything that is given must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// An expression over QC columns and columns of obs; empty keeps every cell.
    pub cells: String,
    /// An expression over QC columns and columns of var; empty keeps every gene.
    pub genes: String,
    /// `filter_cells`: smallest number of genes; writes `n_genes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_genes: Option<u64>,
    /// `filter_cells`: largest number of genes; writes `n_genes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_genes: Option<u64>,
    /// `filter_cells`: smallest total count; writes `n_counts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_counts: Option<f64>,
    /// `filter_cells`: largest total count; writes `n_counts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_counts: Option<f64>,
    /// `filter_genes` on the kept cells: smallest number of cells; writes `n_cells`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_cells: Option<u64>,
    /// `filter_genes` on the kept cells: largest number of cells; writes `n_cells`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cells: Option<u64>,
}

/// The sum that each cell is normalised to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Target {
    /// A number.
    Sum(f64),
    /// `"median"` of the kept cells' totals, or `"none"` to leave X as it is.
    Word(TargetWord),
}

/// A target that isn't a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetWord {
    /// Median of the totals of cells with counts; costs a further read.
    Median,
    /// No normalisation: X holds normalised data already.
    None,
}

/// Normalisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Normalize {
    /// A number, `"median"` or `"none"`.
    pub target_sum: Target,
}

/// Logarithm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log1p {
    /// Whether it is taken; false when X holds logarithms already.
    pub enabled: bool,
    /// Its base; natural without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<f64>,
}

/// Highly variable genes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hvg {
    /// `seurat`, `cell_ranger`, `seurat_v3`, `seurat_v3_paper` or `pearson_residuals`.
    pub flavor: Flavor,
    /// How many; 0 selects by the bounds on mean and dispersion. Without, 5000 or all genes if there are fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_top_genes: Option<usize>,
    /// Smallest mean, if n_top_genes is 0.
    pub min_mean: f64,
    /// Largest mean, if n_top_genes is 0.
    pub max_mean: f64,
    /// Smallest normalised dispersion, if n_top_genes is 0.
    pub min_disp: f64,
    /// Largest normalised dispersion, if n_top_genes is 0.
    pub max_disp: f64,
    /// Bins of `seurat`.
    pub n_bins: usize,
    /// Span of the loess fit of `seurat_v3`.
    pub span: f64,
    /// Column of obs with the batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_key: Option<String>,
    /// Overdispersion of `pearson_residuals`; 100 without. Larger: nearer to Poisson.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theta: Option<f64>,
    /// Largest residual of `pearson_residuals`; without, the root of the number of cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
}

/// Scaling to unit variance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scale {
    /// Whether genes are scaled.
    pub enabled: bool,
    /// Whether the mean is taken away too (the matrix stays sparse all the same).
    pub zero_center: bool,
    /// Largest value that is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_value: Option<f64>,
}

/// Principal components.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pca {
    /// How many. Without, 100 or as many as the data allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_comps: Option<usize>,
    /// Column of var (bool) with the genes to use; `highly_variable` by default.
    pub mask_var: String,
}

/// Neighbours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Neighbors {
    /// Neighbours of a cell, itself counted.
    pub n_neighbors: usize,
    /// Components used. Without, 50 or as many as there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_pcs: Option<usize>,
    /// What near means: a metric by scanpy's or rapids-singlecell's name ([`Metric::named`]).
    pub metric: String,
    /// Exponent of `minkowski`; 2 without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// `exact`, `accurate` (recall at least 0.99) or `fast` (0.95).
    pub mode: String,
    /// `umap`, `gauss` or `jaccard`.
    pub method: String,
    /// Written to `uns[key]`, `obsp["{key}_distances"]` and `obsp["{key}_connectivities"]` instead of the usual names of scanpy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_added: Option<String>,
}

/// UMAP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Umap {
    /// Smallest distance of points in the picture.
    pub min_dist: f64,
    /// Scale of the picture.
    pub spread: f64,
    /// Dimensions: 2 or 3.
    pub n_components: usize,
    /// Epochs. Without, 500 up to 10,000 cells, else 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maxiter: Option<usize>,
    /// Step size at the start.
    pub alpha: f64,
    /// Weight of repulsion.
    pub gamma: f64,
    /// Repulsions for each attraction.
    pub negative_sample_rate: usize,
    /// `spectral`, `pca`, `paga`, `random`, or a key of the input's obsm.
    pub init_pos: String,
    /// The curve 1 / (1 + a d^2b); by min_dist and spread without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<f64>,
    /// See a.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<f64>,
    /// Written to `obsm[key]` and `uns[key]` instead of X_umap and umap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_added: Option<String>,
}

/// Clusters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Leiden {
    /// One resolution or several; larger values give more clusters. Several are written as `leiden_{r}`.
    pub resolution: Resolutions,
    /// Rounds; −1 until nothing changes.
    pub n_iterations: i32,
    /// Whether Louvain's clusters are found too, at the same resolutions: obs['louvain'].
    pub louvain: bool,
    /// Whether PAGA's graph of the clusters (of the first resolution) is made: uns['paga'].
    pub paga: bool,
    /// Only cells of these categories of a column of obs are clustered, as `["batch", ["a", "b"]]`; the others keep their category.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restrict_to: Option<(String, Vec<String>)>,
    /// Written to `obs[key]` instead of leiden (leiden_R with a restriction).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_added: Option<String>,
}

/// One number or a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Resolutions {
    /// Written to obs['leiden'].
    One(f64),
    /// Each written to obs['leiden_{r}'].
    Many(Vec<f64>),
}

impl Resolutions {
    /// All of them.
    pub fn list(&self) -> Vec<f64> {
        match self {
            Resolutions::One(r) => vec![*r],
            Resolutions::Many(r) => r.clone(),
        }
    }
}

impl Default for Input {
    fn default() -> Self {
        Input { matrix: "X".into() }
    }
}

impl Default for Qc {
    fn default() -> Self {
        Qc { qc_vars: BTreeMap::new(), percent_top: Vec::new(), log1p: true }
    }
}

impl Default for Filter {
    fn default() -> Self {
        Filter {
            cells: "200 <= n_genes_by_counts <= 10000".into(),
            genes: String::new(),
            min_genes: None,
            max_genes: None,
            min_counts: None,
            max_counts: None,
            min_cells: None,
            max_cells: None,
        }
    }
}

impl Default for Normalize {
    fn default() -> Self {
        Normalize { target_sum: Target::Sum(1e4) }
    }
}

impl Default for Log1p {
    fn default() -> Self {
        Log1p { enabled: true, base: None }
    }
}

impl Default for Hvg {
    fn default() -> Self {
        let scanpy = cellmill_engine::host::hvg::Options::default();
        Hvg {
            flavor: Flavor::CellRanger,
            n_top_genes: None,
            min_mean: scanpy.min_mean,
            max_mean: scanpy.max_mean,
            min_disp: scanpy.min_disp,
            max_disp: scanpy.max_disp,
            n_bins: scanpy.n_bins,
            span: scanpy.span,
            batch_key: None,
            theta: None,
            clip: None,
        }
    }
}

impl Default for Scale {
    fn default() -> Self {
        Scale { enabled: true, zero_center: false, max_value: None }
    }
}

impl Default for Pca {
    fn default() -> Self {
        Pca { n_comps: None, mask_var: cellmill_matrix::keys::HIGHLY_VARIABLE.into() }
    }
}

impl Default for Neighbors {
    fn default() -> Self {
        Neighbors {
            n_neighbors: 15,
            n_pcs: None,
            metric: "euclidean".into(),
            p: None,
            mode: "accurate".into(),
            method: "umap".into(),
            key_added: None,
        }
    }
}

impl Default for Umap {
    fn default() -> Self {
        Umap {
            min_dist: 0.5,
            spread: 1.0,
            n_components: 2,
            maxiter: None,
            alpha: 1.0,
            gamma: 1.0,
            negative_sample_rate: 5,
            init_pos: "spectral".into(),
            a: None,
            b: None,
            key_added: None,
        }
    }
}

impl Default for Leiden {
    fn default() -> Self {
        Leiden { resolution: Resolutions::One(1.0), n_iterations: 2, louvain: false, paga: false, restrict_to: None, key_added: None }
    }
}

impl Recipe {
    /// Reads a recipe from TOML. `name` is what errors call the file. Unknown keys are errors that suggest the nearest key.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let toml: toml::Table =
            text.parse().map_err(|e: toml::de::Error| Error::invalid(Place::store(name), e.message(), "a recipe is TOML"))?;
        let every = every_key();
        for (section, value) in &toml {
            let Some(keys) = every.get(section) else {
                return Err(Error::missing(Place::store(name), section, every.keys().cloned()));
            };
            for key in value.as_table().into_iter().flat_map(|t| t.keys()) {
                if !keys.is_empty() && !keys.contains(key) {
                    return Err(Error::missing(Place::element(name, format!("[{section}]")), key, keys.iter().cloned()));
                }
            }
        }
        // Said in full, the error names the key.
        let wrong = |e: toml::de::Error| e.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let recipe: Recipe =
            toml.try_into().map_err(|e| Error::invalid(Place::store(name), wrong(e), "each key has a value of its kind"))?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The recipe as TOML. Numbers that follow the data unless they are given stand in comments.
    pub fn to_toml(&self) -> Result<String> {
        let mut text = toml::to_string(self).map_err(|e| Error::bug(format!("a recipe can't be written as TOML: {e}")))?;
        let open = [
            ("hvg", self.hvg.n_top_genes.is_none(), format!("n_top_genes = {DEFAULT_TOP_GENES}  # or all genes, if there are fewer")),
            ("pca", self.pca.n_comps.is_none(), format!("n_comps = {DEFAULT_COMPS}  # or as many as the data allow")),
            ("neighbors", self.neighbors.n_pcs.is_none(), format!("n_pcs = {DEFAULT_PCS}  # or as many as there are")),
        ];
        for (section, _, line) in open.iter().filter(|(_, open, _)| *open) {
            text = text.replace(&format!("[{section}]\n"), &format!("[{section}]\n# {line}\n"));
        }
        Ok(text)
    }

    /// Checks every option once; nothing behind this function looks again.
    pub fn check(&self) -> Result<()> {
        for filter in [&self.filter.cells, &self.filter.genes] {
            if !filter.is_empty() {
                Expression::parse(filter)?;
            }
        }
        let positive =
            |name: &str, x: f64| if x > 0.0 && x.is_finite() { Ok(()) } else { Err(Error::option(name, x, "a number above 0 is needed")) };
        if let Target::Sum(x) = self.normalize.target_sum {
            positive("normalize.target_sum", x)?;
        }
        if let Some(base) = self.log1p.base {
            positive("log1p.base", base)?;
            if base == 1.0 {
                return Err(Error::option("log1p.base", base, "the base of a logarithm isn't 1"));
            }
        }
        if let Some(theta) = self.hvg.theta {
            positive("hvg.theta", theta)?;
        }
        if let Some(clip) = self.hvg.clip.filter(|c| c.is_nan() || *c < 0.0) {
            return Err(Error::option("hvg.clip", clip, "a number from 0 on is needed"));
        }
        if let Some(max) = self.scale.max_value {
            positive("scale.max_value", max)?;
        }
        if self.pca.n_comps == Some(0) {
            return Err(Error::option("pca.n_comps", 0, "at least 1 is needed"));
        }
        if self.neighbors.n_neighbors < 2 {
            return Err(Error::option(
                "neighbors.n_neighbors",
                self.neighbors.n_neighbors,
                "a cell counts itself, so at least 2 are needed",
            ));
        }
        Metric::named(&self.neighbors.metric, self.neighbors.p)?;
        one_of("neighbors.mode", &self.neighbors.mode, &["exact", "accurate", "fast"])?;
        one_of("neighbors.method", &self.neighbors.method, &["umap", "gauss", "jaccard"])?;
        if self.umap.init_pos.is_empty() {
            return Err(Error::option("umap.init_pos", "''", INIT_POS));
        }
        if self.umap.a.is_some() != self.umap.b.is_some() {
            return Err(Error::option("umap.a, umap.b", "only one of them", "they are given together or not at all"));
        }
        for (name, x) in [("umap.a", self.umap.a), ("umap.b", self.umap.b), ("umap.alpha", Some(self.umap.alpha))] {
            x.map_or(Ok(()), |x| positive(name, x))?;
        }
        if !(self.umap.gamma >= 0.0 && self.umap.gamma.is_finite()) {
            return Err(Error::option("umap.gamma", self.umap.gamma, "it is a weight of 0 or more"));
        }
        if self.umap.maxiter == Some(0) {
            return Err(Error::option("umap.maxiter", 0, "at least 1 is needed"));
        }
        if self.leiden.n_iterations == 0 {
            return Err(Error::option("leiden.n_iterations", 0, "it is a number above 0, or -1 to run until nothing changes"));
        }
        if let Some((column, categories)) = &self.leiden.restrict_to
            && (column.is_empty() || categories.is_empty())
        {
            return Err(Error::option(
                "leiden.restrict_to",
                format!("'{column}', {categories:?}"),
                "it is a column of obs and some of its categories",
            ));
        }
        for (name, key) in [("neighbors", &self.neighbors.key_added), ("umap", &self.umap.key_added), ("leiden", &self.leiden.key_added)] {
            if let Some(key) = key.as_ref().filter(|key| key.is_empty() || key.contains('/')) {
                return Err(Error::option(format!("{name}.key_added"), format!("'{key}'"), "a name without slashes is needed"));
            }
        }
        positive("umap.spread", self.umap.spread)?;
        if !(0.0..=self.umap.spread).contains(&self.umap.min_dist) {
            return Err(Error::option("umap.min_dist", self.umap.min_dist, format!("it lies between 0 and spread ({})", self.umap.spread)));
        }
        if !(2..=3).contains(&self.umap.n_components) {
            return Err(Error::option("umap.n_components", self.umap.n_components, "2 or 3 dimensions can be drawn"));
        }
        let resolutions = self.leiden.resolution.list();
        if resolutions.is_empty() {
            return Err(Error::option("leiden.resolution", "an empty list", "at least one is needed"));
        }
        resolutions.iter().try_for_each(|&r| positive("leiden.resolution", r))
    }
}

/// What a layout may start from.
pub const INIT_POS: &str = "it is spectral, pca, random, paga or a key of obsm";

fn one_of(name: &str, found: &str, allowed: &[&str]) -> Result<()> {
    if allowed.contains(&found) {
        Ok(())
    } else {
        Err(Error::option(name, format!("'{found}'"), format!("it is one of {}", allowed.join(", "))))
    }
}

/// Every section with its keys; a section whose keys are free, or that is a plain value, has none.
fn every_key() -> BTreeMap<String, Vec<String>> {
    // Optional keys are absent from a default recipe's TOML, so one with all of them is spelled here.
    let full = Recipe {
        filter: Filter {
            min_genes: Some(1),
            max_genes: Some(1),
            min_counts: Some(1.0),
            max_counts: Some(1.0),
            min_cells: Some(1),
            max_cells: Some(1),
            ..Filter::default()
        },
        log1p: Log1p { base: Some(2.0), ..Log1p::default() },
        hvg: Hvg { n_top_genes: Some(1), batch_key: Some(String::new()), theta: Some(1.0), clip: Some(1.0), ..Hvg::default() },
        scale: Scale { max_value: Some(1.0), ..Scale::default() },
        pca: Pca { n_comps: Some(1), ..Pca::default() },
        neighbors: Neighbors { n_pcs: Some(1), p: Some(2.0), key_added: Some(String::new()), ..Neighbors::default() },
        umap: Umap { maxiter: Some(1), a: Some(1.0), b: Some(1.0), key_added: Some(String::new()), ..Umap::default() },
        leiden: Leiden { restrict_to: Some(Default::default()), key_added: Some(String::new()), ..Leiden::default() },
        ..Recipe::default()
    };
    let Ok(table) = toml::Table::try_from(&full) else { return BTreeMap::new() };
    table
        .into_iter()
        .map(|(section, value)| {
            let keys = value.as_table().map(|t| t.keys().cloned().collect()).unwrap_or_default();
            (section, keys)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_recipe_survives_its_toml() {
        let text = Recipe::default().to_toml().unwrap();
        assert_eq!(Recipe::parse(&text, "r.toml").unwrap(), Recipe::default());
        assert_eq!(Recipe::parse("", "r.toml").unwrap(), Recipe::default());
    }

    #[test]
    fn an_unknown_key_suggests_the_nearest() {
        let text = |t: &str| Recipe::parse(t, "r.toml").unwrap_err().to_string();
        assert_eq!(text("[hvg]\nn_top_gene = 3"), "r.toml: [hvg]: there is no 'n_top_gene'; did you mean 'n_top_genes'?");
        assert_eq!(text("[neighbours]\n"), "r.toml: there is no 'neighbours'; did you mean 'neighbors'?");
        assert!(text("[pca]\nn_comps = 'x'").contains("n_comps"), "{}", text("[pca]\nn_comps = 'x'"));
        assert!(text("[umap]\ninit_pos = ''").contains("spectral, pca, random"));
        assert!(text("[umap]\na = 1.5").contains("together"));
        assert!(text("[leiden]\nrestrict_to = ['batch', []]").contains("categories"));
        assert!(text("[filter]\ncells = 'n >'").contains("filter 'n >'"));
    }

    #[test]
    fn words_and_lists_are_taken() {
        let r =
            Recipe::parse("[normalize]\ntarget_sum = 'median'\n[leiden]\nresolution = [0.5, 1.0]\n[qc.qc_vars]\nmt = 'prefix:MT-'", "r")
                .unwrap();
        assert_eq!(r.normalize.target_sum, Target::Word(TargetWord::Median));
        assert_eq!(r.leiden.resolution.list(), [0.5, 1.0]);
        assert_eq!(r.qc.qc_vars["mt"], "prefix:MT-");
        let r = Recipe::parse("[leiden]\nrestrict_to = ['batch', ['a', 'b']]\npaga = true", "r").unwrap();
        assert_eq!(r.leiden.restrict_to, Some(("batch".into(), vec!["a".into(), "b".into()])));
        assert_eq!(Recipe::parse(&r.to_toml().unwrap(), "r").unwrap(), r);
    }
}

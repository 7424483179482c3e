//! The run as a paragraph that a paper's Methods section can take over.

use cellmill_engine::host::hvg::Flavor;

use crate::recipe::{Recipe, Stage, Target, TargetWord};

/// Numbers that came out of the run.
pub struct Outcome {
    /// Cells read.
    pub n_source: u64,
    /// Genes read.
    pub n_source_vars: usize,
    /// Cells kept.
    pub n_obs: usize,
    /// Genes kept.
    pub n_vars: usize,
    /// Genes chosen.
    pub n_hvg: usize,
    /// Components.
    pub n_comps: usize,
    /// Components that entered the neighbour search.
    pub n_pcs: usize,
    /// Clusters at the first resolution.
    pub n_clusters: usize,
    /// The target sum that was used.
    pub target_sum: Option<f64>,
}

/// The Methods paragraph.
pub fn methods(recipe: &Recipe, through: Stage, o: &Outcome) -> String {
    let mut text =
        format!("Counts of {} cells and {} genes were analysed with cellmill {}.", o.n_source, o.n_source_vars, env!("CARGO_PKG_VERSION"));
    let mut rules: Vec<String> = Vec::new();
    let f = &recipe.filter;
    if !f.cells.is_empty() {
        rules.push(format!("'{}'", f.cells));
    }
    for (bound, what) in [
        (f.min_genes.map(|x| x as f64), "at least {} genes"),
        (f.max_genes.map(|x| x as f64), "at most {} genes"),
        (f.min_counts, "at least {} counts"),
        (f.max_counts, "at most {} counts"),
    ] {
        if let Some(x) = bound {
            rules.push(what.replace("{}", &x.to_string()));
        }
    }
    match rules.is_empty() {
        true => text += " All cells were kept.",
        false => text += &format!(" Cells with {} were kept ({} cells).", rules.join(", "), o.n_obs),
    }
    if o.n_vars != o.n_source_vars {
        text += &format!(" {} genes passed the gene filter.", o.n_vars);
    }
    if through >= Stage::Hvg {
        match (recipe.normalize.target_sum, o.target_sum) {
            (Target::Word(TargetWord::Median), Some(t)) => {
                text += &format!(" Counts of each cell were normalised to the median total of {t}")
            }
            (_, Some(t)) => text += &format!(" Counts of each cell were normalised to a total of {t}"),
            (_, None) => text += " Values were taken as normalised",
        }
        text += match (recipe.log1p.enabled, recipe.log1p.base) {
            (true, None) => " and log-transformed, ln(1 + x).".to_string(),
            (true, Some(b)) => format!(" and log-transformed, log(1 + x) to base {b}."),
            (false, _) => ".".to_string(),
        }
        .as_str();
        let flavor = match recipe.hvg.flavor {
            Flavor::Seurat => "by normalised dispersion (flavour 'seurat')",
            Flavor::CellRanger => "by normalised dispersion (flavour 'cell_ranger')",
            Flavor::SeuratV3 => "by standardised variance of the counts (flavour 'seurat_v3')",
            Flavor::SeuratV3Paper => "by standardised variance of the counts (flavour 'seurat_v3_paper')",
            Flavor::PearsonResiduals => "by the variance of the Pearson residuals of the counts (flavour 'pearson_residuals')",
        };
        text += &format!(" {} highly variable genes were selected {flavor}", o.n_hvg);
        text += match &recipe.hvg.batch_key {
            Some(key) => format!(", in each batch ('{key}') and combined."),
            None => ".".to_string(),
        }
        .as_str();
    }
    if through >= Stage::Pca {
        if recipe.scale.enabled {
            text += if recipe.scale.zero_center {
                " Genes were centred and scaled to unit variance"
            } else {
                " Genes were scaled to unit variance without centring"
            };
            text += &recipe.scale.max_value.map_or(".".to_string(), |m| format!(", clipped at {m}."));
        }
        text += &format!(" {} principal components were computed exactly from the covariance matrix.", o.n_comps);
    }
    if through >= Stage::Neighbors {
        text += &format!(
            " A graph of the {} nearest neighbours of each cell ({} distance, {} components, the cell itself counted) was built and weighted with the method '{}'.",
            recipe.neighbors.n_neighbors, recipe.neighbors.metric, o.n_pcs, recipe.neighbors.method
        );
    }
    if through >= Stage::Umap {
        text += &format!(
            " UMAP was run with min_dist {} and spread {}, starting from '{}'.",
            recipe.umap.min_dist, recipe.umap.spread, recipe.umap.init_pos
        );
    }
    if through >= Stage::Leiden {
        let resolutions: Vec<String> = recipe.leiden.resolution.list().iter().map(f64::to_string).collect();
        let among = match &recipe.leiden.restrict_to {
            Some((column, categories)) => format!(" among the cells with {} in '{column}'", categories.join(", ")),
            None => String::new(),
        };
        text += &format!(" The Leiden algorithm (resolution {}) found {} clusters{among}.", resolutions.join(", "), o.n_clusters);
        if recipe.leiden.louvain {
            text += " The Louvain algorithm was run at the same resolution.";
        }
        if recipe.leiden.paga {
            text += " Connections between clusters were measured by PAGA.";
        }
    }
    text + &format!(" The random seed was {}.", recipe.seed)
}

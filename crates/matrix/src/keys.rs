//! AnnData's names, each written once. They are scanpy's.

/// obs: non-zero genes of a cell, int32.
pub const N_GENES_BY_COUNTS: &str = "n_genes_by_counts";
/// obs and var: sum of counts, float32.
pub const TOTAL_COUNTS: &str = "total_counts";
/// var: cells with a non-zero entry, int64.
pub const N_CELLS_BY_COUNTS: &str = "n_cells_by_counts";
/// var: mean count over cells, float64.
pub const MEAN_COUNTS: &str = "mean_counts";
/// var: percentage of cells without the gene, float64.
pub const PCT_DROPOUT_BY_COUNTS: &str = "pct_dropout_by_counts";
/// obs: written by `filter_cells(min_genes)`, int64.
pub const N_GENES: &str = "n_genes";
/// obs and var: written by `filter_cells(min_counts)`, `filter_genes(min_counts)`.
pub const N_COUNTS: &str = "n_counts";
/// var: written by `filter_genes(min_cells)`.
pub const N_CELLS: &str = "n_cells";
/// var: genes chosen by `highly_variable_genes`, bool.
pub const HIGHLY_VARIABLE: &str = "highly_variable";
/// var: mean expression used for the choice, float64.
pub const MEANS: &str = "means";
/// var: dispersion, float64.
pub const DISPERSIONS: &str = "dispersions";
/// var: dispersion normalised within its bin, float32.
pub const DISPERSIONS_NORM: &str = "dispersions_norm";
/// var: variance (`seurat_v3`), float64.
pub const VARIANCES: &str = "variances";
/// var: variance after standardisation (`seurat_v3`), float64.
pub const VARIANCES_NORM: &str = "variances_norm";
/// var: variance of the Pearson residuals (`pearson_residuals`), float64.
pub const RESIDUAL_VARIANCES: &str = "residual_variances";
/// var: median rank over batches (`seurat_v3`), float32.
pub const HIGHLY_VARIABLE_RANK: &str = "highly_variable_rank";
/// var: in how many batches the gene was chosen, int64.
pub const HIGHLY_VARIABLE_NBATCHES: &str = "highly_variable_nbatches";
/// var: whether every batch chose the gene, bool.
pub const HIGHLY_VARIABLE_INTERSECTION: &str = "highly_variable_intersection";
/// var: mean used by `scale`, float64.
pub const MEAN: &str = "mean";
/// var: standard deviation used by `scale`, float64.
pub const STD: &str = "std";
/// obsm: scores, float32.
pub const X_PCA: &str = "X_pca";
/// varm: loadings.
pub const PCS: &str = "PCs";
/// obsm: UMAP coordinates, float32.
pub const X_UMAP: &str = "X_umap";
/// obsp: distances to the neighbours.
pub const DISTANCES: &str = "distances";
/// obsp: weights of the fuzzy graph.
pub const CONNECTIVITIES: &str = "connectivities";
/// obs and uns: clusters.
pub const LEIDEN: &str = "leiden";
/// obs and uns: clusters without refinement.
pub const LOUVAIN: &str = "louvain";
/// uns: how strongly clusters are connected.
pub const PAGA: &str = "paga";
/// uns: what `neighbors` did.
pub const NEIGHBORS: &str = "neighbors";
/// uns: what `pca` did.
pub const PCA: &str = "pca";
/// uns: what `umap` did.
pub const UMAP: &str = "umap";
/// uns: what `highly_variable_genes` did.
pub const HVG: &str = "hvg";
/// uns: that and how the logarithm was taken.
pub const LOG1P: &str = "log1p";
/// uns: the run itself: recipe, versions, methods text.
pub const CELLMILL: &str = "cellmill";

/// The name of a log-transformed QC column.
pub fn log1p_of(column: &str) -> String {
    format!("log1p_{column}")
}

//! What several commands take, and how it becomes a recipe.

use std::path::PathBuf;

use anyhow::Context;
use cellmill_cuda::Memory;
use cellmill_engine::host::hvg::Flavor;
use cellmill_matrix::Error;
use cellmill_run::device::Choice;
use cellmill_run::recipe::{Recipe, Resolutions, Stage, Target, TargetWord};
use cellmill_store::write::Format;
use clap::{Args, ValueEnum};

/// Formats that can be written.
#[derive(Clone, Copy, ValueEnum)]
pub enum OutFormat {
    /// AnnData zarr, version 3
    Zarr3,
    /// AnnData zarr, version 2
    Zarr2,
    /// AnnData HDF5
    H5ad,
}

impl From<OutFormat> for Format {
    fn from(f: OutFormat) -> Format {
        match f {
            OutFormat::Zarr3 => Format::Zarr3,
            OutFormat::Zarr2 => Format::Zarr2,
            OutFormat::H5ad => Format::H5ad,
        }
    }
}

/// Where a run ends.
#[derive(Clone, Copy, ValueEnum)]
#[allow(missing_docs)]
pub enum Through {
    Qc,
    Hvg,
    Pca,
    Neighbors,
    Umap,
    Leiden,
}

impl From<Through> for Stage {
    fn from(t: Through) -> Stage {
        match t {
            Through::Qc => Stage::Qc,
            Through::Hvg => Stage::Hvg,
            Through::Pca => Stage::Pca,
            Through::Neighbors => Stage::Neighbors,
            Through::Umap => Stage::Umap,
            Through::Leiden => Stage::Leiden,
        }
    }
}

/// Flavours of highly_variable_genes.
#[derive(Clone, Copy, ValueEnum)]
#[allow(missing_docs)]
pub enum FlavorName {
    #[value(name = "seurat")]
    Seurat,
    #[value(name = "cell_ranger", alias = "cell-ranger")]
    CellRanger,
    #[value(name = "seurat_v3", alias = "seurat-v3")]
    SeuratV3,
    #[value(name = "seurat_v3_paper", alias = "seurat-v3-paper")]
    SeuratV3Paper,
    #[value(name = "pearson_residuals", alias = "pearson-residuals")]
    PearsonResiduals,
}

/// The machine's share.
#[derive(Args, Clone)]
pub struct Machine {
    /// Threads [default: all cores]
    #[arg(long, short = 't', value_name = "N")]
    pub threads: Option<usize>,
    /// Memory ceiling, such as 4GiB [default: 80 % of what is available]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// What computes: cpu, cuda (the first NVIDIA GPU), cuda:N, cuda:N,M (several GPUs), or auto (a GPU if there is one and it pays)
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Device memory that is taken at once and kept, such as 10GB
    #[arg(long, value_name = "SIZE")]
    pub gpu_memory: Option<String>,
    /// Device memory that is never exceeded, such as 20GB [default: what the card has]
    #[arg(long, value_name = "SIZE")]
    pub gpu_memory_max: Option<String>,
}

impl Machine {
    /// Number of threads.
    pub fn threads(&self) -> anyhow::Result<usize> {
        match self.threads {
            Some(0) => Err(Error::option("--threads", 0, "at least 1 is needed").into()),
            Some(n) => Ok(n),
            None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        }
    }

    /// The processor.
    pub fn device(&self) -> anyhow::Result<Choice> {
        let bytes = |text: &Option<String>| text.as_deref().map(cellmill_run::budget::parse_bytes).transpose();
        let memory = Memory { initial: bytes(&self.gpu_memory)?.unwrap_or(0), max: bytes(&self.gpu_memory_max)? };
        Ok(Choice { device: self.device.parse()?, memory })
    }

    /// Ceiling in bytes.
    pub fn memory(&self) -> anyhow::Result<u64> {
        match &self.memory {
            Some(text) => Ok(cellmill_run::budget::parse_bytes(text)?),
            None => Ok((cellmill_run::budget::available_bytes() as f64 * cellmill_run::budget::DEFAULT_SHARE) as u64),
        }
    }
}

/// The recipe, by file and by flags; flags win.
#[derive(Args, Clone)]
#[command(next_help_heading = "Recipe")]
pub struct RecipeOptions {
    /// Recipe file (TOML); see --print-recipe
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Matrix to analyse: X, layers/NAME or raw/X
    #[arg(long, value_name = "NAME")]
    pub matrix: Option<String>,
    /// Gene set for QC, as NAME=prefix:MT-, NAME=regex:^MT- or NAME=column:is_mito; may be given several times
    #[arg(long = "qc-var", value_name = "NAME=GENES")]
    pub qc_vars: Vec<String>,
    /// Sizes of the lists of most expressed genes, such as 50,100
    #[arg(long, value_delimiter = ',', value_name = "N")]
    pub percent_top: Vec<usize>,
    /// Cells to keep, such as 'n_genes_by_counts >= 200 & pct_counts_mt < 10'; '' keeps all
    #[arg(long, value_name = "EXPR")]
    pub filter_cells: Option<String>,
    /// Genes to keep, such as 'n_cells_by_counts >= 3'
    #[arg(long, value_name = "EXPR")]
    pub filter_genes: Option<String>,
    /// Keep cells with at least this many genes (bounds replace the recipe's default cell filter)
    #[arg(long, value_name = "N")]
    pub min_genes: Option<u64>,
    /// Keep cells with at most this many genes
    #[arg(long, value_name = "N")]
    pub max_genes: Option<u64>,
    /// Keep cells with at least this total count
    #[arg(long, value_name = "X")]
    pub min_counts: Option<f64>,
    /// Keep cells with at most this total count
    #[arg(long, value_name = "X")]
    pub max_counts: Option<f64>,
    /// Keep genes seen in at least this many kept cells
    #[arg(long, value_name = "N")]
    pub min_cells: Option<u64>,
    /// Keep genes seen in at most this many kept cells
    #[arg(long, value_name = "N")]
    pub max_cells: Option<u64>,
    /// Sum that each cell is normalised to: a number, 'median' or 'none'
    #[arg(long, value_name = "X")]
    pub target_sum: Option<String>,
    /// X holds logarithms already
    #[arg(long)]
    pub no_log1p: bool,
    /// Base of the logarithm [default: e]
    #[arg(long, value_name = "X")]
    pub log_base: Option<f64>,
    /// How highly variable genes are chosen
    #[arg(long, value_enum)]
    pub flavor: Option<FlavorName>,
    /// Highly variable genes; 0 selects by bounds on mean and dispersion
    #[arg(long, alias = "hvg", value_name = "N")]
    pub n_top_genes: Option<usize>,
    /// Column of obs with batches, for highly variable genes
    #[arg(long, value_name = "COLUMN")]
    pub batch_key: Option<String>,
    /// Don't scale genes to unit variance
    #[arg(long)]
    pub no_scale: bool,
    /// Centre genes when scaling
    #[arg(long)]
    pub zero_center: bool,
    /// Largest scaled value
    #[arg(long, value_name = "X")]
    pub max_value: Option<f64>,
    /// Principal components
    #[arg(long, alias = "pcs", value_name = "N")]
    pub n_comps: Option<usize>,
    /// Column of var with the genes for PCA [default: highly_variable]
    #[arg(long, value_name = "COLUMN")]
    pub mask_var: Option<String>,
    /// Neighbours of a cell, itself counted
    #[arg(long, value_name = "N")]
    pub n_neighbors: Option<usize>,
    /// Components used for neighbours
    #[arg(long, value_name = "N")]
    pub n_pcs: Option<usize>,
    /// What near means: euclidean, cosine, correlation, manhattan or others; an unknown name lists them
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// Exponent of the metric minkowski
    #[arg(long, value_name = "P")]
    pub minkowski_p: Option<f64>,
    /// Neighbour search: exact, accurate or fast
    #[arg(long, value_name = "NAME")]
    pub knn: Option<String>,
    /// Weights between neighbours: umap, gauss or jaccard
    #[arg(long, value_name = "NAME")]
    pub method: Option<String>,
    /// Neighbours: name in uns, and prefix in obsp
    #[arg(long, value_name = "KEY")]
    pub neighbors_key: Option<String>,
    /// UMAP: smallest distance of points
    #[arg(long, value_name = "X")]
    pub min_dist: Option<f64>,
    /// UMAP: scale
    #[arg(long, value_name = "X")]
    pub spread: Option<f64>,
    /// UMAP: epochs
    #[arg(long, value_name = "N")]
    pub maxiter: Option<usize>,
    /// UMAP: start from spectral, pca, random, paga or a key of obsm
    #[arg(long, value_name = "NAME")]
    pub init_pos: Option<String>,
    /// UMAP: dimensions, 2 or 3
    #[arg(long, value_name = "N")]
    pub n_components: Option<usize>,
    /// UMAP: step size at the start
    #[arg(long, value_name = "X")]
    pub alpha: Option<f64>,
    /// UMAP: weight of repulsion
    #[arg(long, value_name = "X")]
    pub gamma: Option<f64>,
    /// UMAP: repulsions for each attraction
    #[arg(long, value_name = "N")]
    pub negative_sample_rate: Option<usize>,
    /// UMAP: the curve 1 / (1 + a d^2b), together with --umap-b
    #[arg(long, value_name = "X")]
    pub umap_a: Option<f64>,
    /// UMAP: see --umap-a
    #[arg(long, value_name = "X")]
    pub umap_b: Option<f64>,
    /// UMAP: name in obsm and uns
    #[arg(long, value_name = "KEY")]
    pub umap_key: Option<String>,
    /// Leiden: resolution, or several as 0.5,1,2
    #[arg(long, value_delimiter = ',', value_name = "X")]
    pub resolution: Vec<f64>,
    /// Leiden: rounds; -1 until nothing changes
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub n_iterations: Option<i32>,
    /// Leiden: only cells of these categories of a column of obs, as batch=a,b
    #[arg(long, value_name = "COLUMN=CATEGORIES")]
    pub restrict_to: Option<String>,
    /// Leiden: name in obs and uns
    #[arg(long, value_name = "KEY")]
    pub leiden_key: Option<String>,
    /// Find Louvain's clusters too
    #[arg(long)]
    pub louvain: bool,
    /// Make PAGA's graph of the clusters
    #[arg(long)]
    pub paga: bool,
    /// Where random choices start [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

impl RecipeOptions {
    /// The recipe that file and flags ask for.
    pub fn recipe(&self) -> anyhow::Result<Recipe> {
        let mut r = match &self.recipe {
            None => Recipe::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
                Recipe::parse(&text, &path.display().to_string())?
            }
        };
        set(&mut r.input.matrix, &self.matrix);
        for pair in &self.qc_vars {
            let (name, genes) =
                pair.split_once('=').ok_or_else(|| Error::option("--qc-var", format!("'{pair}'"), "it reads like mt=prefix:MT-"))?;
            r.qc.qc_vars.insert(name.to_string(), genes.to_string());
        }
        if !self.percent_top.is_empty() {
            r.qc.percent_top.clone_from(&self.percent_top);
        }
        let f = &mut r.filter;
        let bounds = self.min_genes.is_some() || self.max_genes.is_some() || self.min_counts.is_some() || self.max_counts.is_some();
        if bounds && self.recipe.is_none() {
            f.cells = String::new();
        }
        set(&mut f.cells, &self.filter_cells);
        set(&mut f.genes, &self.filter_genes);
        set_some(&mut f.min_genes, self.min_genes);
        set_some(&mut f.max_genes, self.max_genes);
        set_some(&mut f.min_counts, self.min_counts);
        set_some(&mut f.max_counts, self.max_counts);
        set_some(&mut f.min_cells, self.min_cells);
        set_some(&mut f.max_cells, self.max_cells);
        if let Some(target) = &self.target_sum {
            r.normalize.target_sum = match target.as_str() {
                "median" => Target::Word(TargetWord::Median),
                "none" => Target::Word(TargetWord::None),
                number => Target::Sum(
                    number
                        .parse()
                        .map_err(|_| Error::option("--target-sum", format!("'{number}'"), "a number, 'median' or 'none' is needed"))?,
                ),
            };
        }
        r.log1p.enabled &= !self.no_log1p;
        set_some(&mut r.log1p.base, self.log_base);
        if let Some(flavor) = self.flavor {
            r.hvg.flavor = match flavor {
                FlavorName::Seurat => Flavor::Seurat,
                FlavorName::CellRanger => Flavor::CellRanger,
                FlavorName::SeuratV3 => Flavor::SeuratV3,
                FlavorName::SeuratV3Paper => Flavor::SeuratV3Paper,
                FlavorName::PearsonResiduals => Flavor::PearsonResiduals,
            };
        }
        set_some(&mut r.hvg.n_top_genes, self.n_top_genes);
        set_some(&mut r.hvg.batch_key, self.batch_key.clone());
        r.scale.enabled &= !self.no_scale;
        r.scale.zero_center |= self.zero_center;
        set_some(&mut r.scale.max_value, self.max_value);
        set_some(&mut r.pca.n_comps, self.n_comps);
        set(&mut r.pca.mask_var, &self.mask_var);
        set(&mut r.neighbors.n_neighbors, &self.n_neighbors);
        set_some(&mut r.neighbors.n_pcs, self.n_pcs);
        set(&mut r.neighbors.metric, &self.metric);
        set_some(&mut r.neighbors.p, self.minkowski_p);
        set(&mut r.neighbors.mode, &self.knn);
        set(&mut r.neighbors.method, &self.method);
        set_some(&mut r.neighbors.key_added, self.neighbors_key.clone());
        set(&mut r.umap.min_dist, &self.min_dist);
        set(&mut r.umap.spread, &self.spread);
        set_some(&mut r.umap.maxiter, self.maxiter);
        set(&mut r.umap.init_pos, &self.init_pos);
        set(&mut r.umap.n_components, &self.n_components);
        set(&mut r.umap.alpha, &self.alpha);
        set(&mut r.umap.gamma, &self.gamma);
        set(&mut r.umap.negative_sample_rate, &self.negative_sample_rate);
        set_some(&mut r.umap.a, self.umap_a);
        set_some(&mut r.umap.b, self.umap_b);
        set_some(&mut r.umap.key_added, self.umap_key.clone());
        match self.resolution[..] {
            [] => {}
            [one] => r.leiden.resolution = Resolutions::One(one),
            _ => r.leiden.resolution = Resolutions::Many(self.resolution.clone()),
        }
        set(&mut r.leiden.n_iterations, &self.n_iterations);
        if let Some(text) = &self.restrict_to {
            let (column, categories) =
                text.split_once('=').ok_or_else(|| Error::option("--restrict-to", format!("'{text}'"), "it reads like batch=a,b"))?;
            r.leiden.restrict_to = Some((column.to_string(), categories.split(',').map(str::to_string).collect()));
        }
        set_some(&mut r.leiden.key_added, self.leiden_key.clone());
        r.leiden.louvain |= self.louvain;
        r.leiden.paga |= self.paga;
        set(&mut r.seed, &self.seed);
        r.check()?;
        Ok(r)
    }
}

fn set<T: Clone>(slot: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        slot.clone_from(value);
    }
}

fn set_some<T>(slot: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *slot = value;
    }
}

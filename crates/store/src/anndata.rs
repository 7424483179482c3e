//! An AnnData store, opened: what is in it, its data frames, its elements, and its matrices as sources.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use cellmill_matrix::{Array, DType, Element, Encoding, Error, Place, Result, Shape, Source, SparseFormat, Table, Values, Watch};

use crate::element::{self, Lengths, SparseInfo, join, text};
use crate::hdf5::raw::RawFile;
use crate::hdf5::{COMPOUND, Hdf5Tree};
use crate::objects::{Remote, is_url};
use crate::source::{CscMatrix, CsrSource, DenseSource};
use crate::tree::{ArrayInfo, Chunks, LostLink, Node, Tree};
use crate::zarr::ZarrTree;

/// An AnnData store that has been opened for reading. Nothing but metadata has been read.
pub struct AnnData {
    tree: Arc<dyn Tree>,
    obs: Lengths,
    var: Lengths,
}

/// What the metadata say of a matrix.
#[derive(Clone, Debug)]
pub struct MatrixInfo {
    /// How it lies on disk.
    pub encoding: Encoding,
    /// Cells and genes.
    pub shape: Shape,
    /// Stored entries; all of them for a dense matrix.
    pub nnz: u64,
    /// The array of values.
    pub data: ArrayInfo,
    /// Columns (or rows) and starts of a sparse matrix.
    pub sparse: Option<SparseInfo>,
    /// Bytes on disk, where that is cheap to know.
    pub stored_bytes: Option<u64>,
}

/// A matrix that has been opened.
pub enum Matrix {
    /// It can be streamed by rows.
    Rows(Box<dyn Source>),
    /// Compressed columns: [`CscMatrix::to_rows`] makes rows of it, once and out of core.
    Columns(Box<CscMatrix>),
}

impl Matrix {
    /// The matrix by rows; columns are converted with `memory_bytes` of memory and files in `scratch_dir`.
    pub fn into_rows(self, scratch_dir: &Path, memory_bytes: u64, watch: &dyn Watch) -> Result<Box<dyn Source>> {
        match self {
            Matrix::Rows(source) => Ok(source),
            Matrix::Columns(matrix) => matrix.to_rows(scratch_dir, memory_bytes, watch),
        }
    }
}

/// Opens a zarr store or an HDF5 file, by its content: a path, or a URL.
pub fn open_tree(path: &Path) -> Result<Arc<dyn Tree>> {
    if is_url(path) {
        return Ok(match open_url(path)? {
            AtUrl::Zarr(tree) => Arc::new(tree),
            AtUrl::Hdf5(tree) => Arc::new(H5ad(tree)),
        });
    }
    let place = Place::store(path.display().to_string());
    let meta = std::fs::metadata(path).map_err(|e| Error::io(place.clone(), &e))?;
    if meta.is_dir() {
        return Ok(Arc::new(ZarrTree::open(path)?));
    }
    if !is_hdf5(path)? {
        return Err(Error::invalid(place, "neither a zarr folder nor an HDF5 file", "an AnnData store is one of them (.zarr or .h5ad)"));
    }
    Ok(Arc::new(H5ad(Hdf5Tree::open(path)?)))
}

/// What lies at a URL.
pub(crate) enum AtUrl {
    Zarr(ZarrTree),
    Hdf5(Hdf5Tree),
}

/// Looks what lies at a URL, and opens it: an object, or a store below it. By its name one of them is looked for first.
pub(crate) fn open_url(url: &Path) -> Result<AtUrl> {
    let remote = Remote::open(url).map_err(|e| Error::io(Place::store(url.display().to_string()), &e))?;
    let remote = Arc::new(remote);
    let file = || -> Result<Option<AtUrl>> { Ok(Hdf5Tree::open_remote(&remote)?.map(AtUrl::Hdf5)) };
    let store = || -> Result<Option<AtUrl>> { Ok(ZarrTree::open_remote(remote.clone())?.map(AtUrl::Zarr)) };
    let is_file = remote.shown().rsplit('.').next().is_some_and(|ending| ["h5ad", "h5", "hdf5"].contains(&ending));
    let found = match is_file {
        true => file()?.map_or_else(store, |found| Ok(Some(found))),
        false => store()?.map_or_else(file, |found| Ok(Some(found))),
    };
    found?.ok_or_else(|| {
        let found = "404: there is no such object, and no zarr.json, .zmetadata, .zgroup or .zarray below it";
        Error::invalid(Place::store(remote.shown()), found, "an AnnData store (.zarr, .h5ad) or a 10x h5 file is expected")
    })
}

/// An HDF5 file whose arrays of records are the data frames of anndata 0.6 and before.
pub(crate) struct H5ad(pub Hdf5Tree);

impl Tree for H5ad {
    fn location(&self) -> &str {
        self.0.location()
    }

    fn node(&self, path: &str) -> Result<Option<Node>> {
        self.0.node(path)
    }

    fn children(&self, path: &str) -> Result<Vec<String>> {
        self.0.children(path)
    }

    fn lost(&self, path: &str) -> Vec<LostLink> {
        self.0.lost(path)
    }

    fn read(&self, path: &str) -> Result<Array> {
        self.0.read(path)
    }

    fn read_rows(&self, path: &str, rows: Range<u64>) -> Result<Values> {
        self.0.read_rows(path, rows)
    }

    fn chunks(&self, path: &str) -> Result<Box<dyn Chunks>> {
        self.0.chunks(path)
    }

    fn stored_bytes(&self, path: &str) -> Result<Option<u64>> {
        self.0.stored_bytes(path)
    }

    fn fields(&self, path: &str) -> Result<Option<Vec<(String, Array)>>> {
        match self.0.node(path)? {
            Some(Node::Array(info)) if info.attrs.contains_key(COMPOUND) => self.0.read_compound_arrays(path).map(Some),
            _ => Ok(None),
        }
    }
}

/// Whether a file is HDF5, by its signature.
pub fn is_hdf5(path: &Path) -> Result<bool> {
    RawFile::open(path)?.is_hdf5()
}

impl AnnData {
    /// Names of the objects whose versions tell a store at a URL from its other versions: [`crate::dataset::versions`].
    pub fn objects(&self) -> Result<Vec<String>> {
        self.tree.objects()
    }

    /// Opens a zarr store or an h5ad file: a path, or a URL.
    pub fn open(path: &Path) -> Result<AnnData> {
        AnnData::of_tree(open_tree(path)?)
    }

    /// Takes a tree for an AnnData store, if its root is one.
    pub fn of_tree(tree: Arc<dyn Tree>) -> Result<AnnData> {
        let place = Place::store(tree.location());
        let expected = "an AnnData store has obs and var; was it written by anndata?";
        let Some(Node::Group(attrs)) = tree.node("")? else {
            return Err(Error::invalid(place, "an array", expected));
        };
        if let Some(kind) = text(&attrs, "encoding-type").filter(|k| *k != "anndata") {
            return Err(Error::invalid(place, format!("a store of encoding '{kind}'"), expected));
        }
        for name in ["obs", "var"] {
            if tree.node(name)?.is_none() {
                if let Some(lost) = element::lost(&*tree, name) {
                    return Err(lost);
                }
                return Err(Error::invalid(place, format!("no '{name}'"), expected));
            }
        }
        let (obs, var) = (element::table_lengths(&*tree, "obs")?, element::table_lengths(&*tree, "var")?);
        Ok(AnnData { tree, obs, var })
    }

    /// The tree behind it.
    pub fn tree(&self) -> &Arc<dyn Tree> {
        &self.tree
    }

    /// The name by which errors call this store.
    pub fn location(&self) -> &str {
        self.tree.location()
    }

    /// Cells.
    pub fn n_obs(&self) -> u64 {
        self.obs.rows
    }

    /// Genes.
    pub fn n_vars(&self) -> u64 {
        self.var.rows
    }

    /// Names of the columns of obs.
    pub fn obs_columns(&self) -> &[String] {
        &self.obs.columns
    }

    /// Names of the columns of var.
    pub fn var_columns(&self) -> &[String] {
        &self.var.columns
    }

    /// obs, whole. Columns that can't be held are left out and named in `warnings`.
    pub fn obs(&self, warnings: &mut Vec<String>) -> Result<Table> {
        element::read_table(&*self.tree, "obs", warnings)
    }

    /// var, whole.
    pub fn var(&self, warnings: &mut Vec<String>) -> Result<Table> {
        element::read_table(&*self.tree, "var", warnings)
    }

    /// The data frame that names the columns of a matrix: `raw/var` for `raw/X`, else `var`.
    pub fn var_of(&self, matrix: &str, warnings: &mut Vec<String>) -> Result<Table> {
        element::read_table(&*self.tree, self.var_path(matrix)?, warnings)
    }

    /// Where the genes of a matrix are described. `raw.X`, `raw.var` are the names of anndata 0.6.
    fn var_path(&self, matrix: &str) -> Result<&'static str> {
        Ok(match matrix {
            "raw/X" | "raw" if self.tree.node("raw/var")?.is_none() && self.tree.node("raw.var")?.is_some() => "raw.var",
            "raw/X" | "raw" => "raw/var",
            _ => "var",
        })
    }

    /// The element at a path; `None` when it is not there, or passed over (then `warnings` says so).
    pub fn element(&self, path: &str, warnings: &mut Vec<String>) -> Result<Option<Element>> {
        element::read_element(&*self.tree, path, warnings)
    }

    /// Names in a mapping (`layers`, `obsm`, `varm`, `obsp`, `varp`, `uns`), sorted; none if it is not there.
    pub fn names(&self, group: &str) -> Result<Vec<String>> {
        let mut names = match self.tree.node(group)? {
            Some(Node::Group(_)) => self.tree.children(group)?,
            _ => Vec::new(),
        };
        if group == "uns" && matches!(self.tree.node("obs")?, Some(Node::Array(_))) {
            // anndata 0.6: categories of columns, which are read with these.
            let coded = |name: &str| self.obs.columns.iter().chain(&self.var.columns).any(|c| name.strip_suffix("_categories") == Some(c));
            names.retain(|name| !coded(name));
        }
        Ok(names)
    }

    /// The matrices that [`AnnData::source`] opens: `X`, `layers/…`, `raw/X`.
    pub fn matrices(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        if self.is_matrix("X")? {
            found.push("X".to_string());
        }
        found.extend(self.names("layers")?.into_iter().map(|name| join("layers", &name)));
        if self.is_matrix("raw/X")? || self.is_matrix("raw.X")? {
            found.push("raw/X".into());
        }
        Ok(found)
    }

    fn is_matrix(&self, path: &str) -> Result<bool> {
        Ok(self.tree.node(path)?.is_some_and(|node| text(node.attrs(), "encoding-type") != Some("null")))
    }

    /// The path of a matrix as it lies in the store, and its node.
    fn matrix_node(&self, matrix: &str) -> Result<(String, Node)> {
        let path = match matrix {
            "raw" | "raw/X" if self.tree.node("raw/X")?.is_none() => "raw.X",
            "raw" => "raw/X",
            other => other,
        };
        match self.tree.node(path)? {
            Some(node) if text(node.attrs(), "encoding-type") != Some("null") => Ok((path.to_string(), node)),
            _ => {
                if let Some(lost) = element::lost(&*self.tree, path) {
                    return Err(lost);
                }
                let place = Place::store(self.location());
                match self.matrices()? {
                    known if known.is_empty() => {
                        let expected = "counts lie in X, in layers/NAME or in raw/X (a run's result has X with --with-x)";
                        Err(Error::invalid(place, "no matrix at all", expected))
                    }
                    known => Err(Error::missing(place, matrix, known)),
                }
            }
        }
    }

    /// Where a matrix lies: `raw.X` in files of anndata 0.6.
    pub fn matrix_path(&self, matrix: &str) -> Result<String> {
        self.matrix_node(matrix).map(|(path, _)| path)
    }

    /// What the metadata say of a matrix (`X`, `layers/NAME`, `raw/X`, also `obsp/NAME`); nothing of it is decoded.
    pub fn matrix_info(&self, matrix: &str) -> Result<MatrixInfo> {
        let (path, node) = self.matrix_node(matrix)?;
        let place = || Place::element(self.location(), &path);
        let narrow = |n: u64| usize::try_from(n).map_err(|_| Error::invalid(place(), format!("{n} columns"), "fewer are expected"));
        match node {
            Node::Array(info) => {
                let [n_obs, columns] = info.shape[..] else {
                    return Err(Error::invalid(place(), format!("shape {:?}", info.shape), "a matrix has two axes"));
                };
                if info.dtype.is_none_or(|d| d == DType::Str) {
                    return Err(Error::invalid(place(), format!("entries of type {}", info.dtype_name), "numbers are expected"));
                }
                let shape = Shape { n_obs, n_vars: narrow(columns)? };
                let stored_bytes = self.tree.stored_bytes(&path)?;
                Ok(MatrixInfo {
                    encoding: Encoding::Dense,
                    shape,
                    nnz: n_obs.saturating_mul(columns),
                    data: info,
                    sparse: None,
                    stored_bytes,
                })
            }
            Node::Group(attrs) => {
                let info = element::sparse_info(&*self.tree, &path, &attrs)?;
                let Some(info) = info else {
                    let kind = text(&attrs, "encoding-type").unwrap_or("none").to_string();
                    return Err(Error::invalid(
                        place(),
                        format!("a group of encoding '{kind}'"),
                        "a matrix is csr_matrix, csc_matrix or array",
                    ));
                };
                let encoding = if info.format == SparseFormat::Csr { Encoding::Csr } else { Encoding::Csc };
                let shape = Shape { n_obs: info.shape[0], n_vars: narrow(info.shape[1])? };
                let mut stored_bytes = Some(0);
                for name in ["indptr", "indices", "data"] {
                    let bytes = self.tree.stored_bytes(&join(&path, name))?;
                    stored_bytes = stored_bytes.zip(bytes).map(|(a, b)| a + b);
                }
                Ok(MatrixInfo { encoding, shape, nnz: info.nnz(), data: info.data.clone(), sparse: Some(info), stored_bytes })
            }
        }
    }

    /// Opens a matrix of cells by genes: `X`, `layers/NAME` or `raw/X`. Its shape must be that of obs and var.
    pub fn matrix(&self, matrix: &str) -> Result<Matrix> {
        let (path, _) = self.matrix_node(matrix)?;
        let info = self.matrix_info(matrix)?;
        let frame = self.var_path(matrix)?;
        let n_vars = if frame == "var" { self.var.rows } else { element::table_lengths(&*self.tree, frame)?.rows };
        let shape = info.shape;
        let place = || Place::element(self.location(), &path);
        let found = format!("{} x {}", shape.n_obs, shape.n_vars);
        if shape.n_obs != self.obs.rows {
            return Err(Error::invalid(place(), found, format!("obs has {} rows", self.obs.rows)));
        }
        if shape.n_vars as u64 != n_vars {
            return Err(Error::invalid(place(), found, format!("{frame} has {n_vars} rows")));
        }
        let tree = &*self.tree;
        Ok(match (info.encoding, &info.sparse) {
            (Encoding::Csr, Some(sparse)) => Matrix::Rows(Box::new(CsrSource::open(tree, &path, sparse)?)),
            (Encoding::Csc, Some(sparse)) => Matrix::Columns(Box::new(CscMatrix::open(tree, &path, sparse)?)),
            _ => Matrix::Rows(Box::new(DenseSource::open(tree, &path)?)),
        })
    }

    /// Opens a matrix that is streamed by rows; for compressed columns take [`AnnData::matrix`] and convert.
    pub fn source(&self, matrix: &str) -> Result<Box<dyn Source>> {
        match self.matrix(matrix)? {
            Matrix::Rows(source) => Ok(source),
            Matrix::Columns(_) => {
                let place = Place::element(self.location(), matrix);
                Err(Error::invalid(place, "compressed columns (csc_matrix)", "rows are needed here; convert it once"))
            }
        }
    }
}

//! Any input that can be analysed, opened: AnnData in zarr or h5ad, 10x Genomics h5 and mtx.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cellmill_matrix::{Csr, Error, Place, Result, Shape, Source, SourceRow, SparseFormat, Table, Watch};

use crate::anndata::{AnnData, AtUrl, H5ad, Matrix, is_hdf5, open_tree, open_url};
use crate::element::{self, SparseInfo};
use crate::hdf5::Hdf5Tree;
use crate::mtx::{Mtx, MtxFiles, MtxOptions};
use crate::objects::{Remote, is_url};
use crate::source::CsrSource;
use crate::tenx::{self, TenX, TenXOptions};
use crate::tree::{Node, Tree};

/// What to read of an input, and what it may cost.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// `X`, `layers/NAME` or `raw/X`.
    pub matrix: String,
    /// The genome of a 10x h5 file that has several.
    pub genome: Option<String>,
    /// Keeps gene expression features of a 10x input alone (default), or all of them.
    pub gex_only: bool,
    /// Where a matrix that lies by columns is turned into rows.
    pub scratch: PathBuf,
    /// Memory for that.
    pub memory_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { matrix: "X".into(), genome: None, gex_only: true, scratch: std::env::temp_dir(), memory_bytes: 1 << 30 }
    }
}

/// Which format an input has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputFormat {
    /// AnnData in a zarr folder.
    Zarr,
    /// AnnData in an HDF5 file.
    H5ad,
    /// 10x Genomics HDF5.
    TenXH5,
    /// 10x Genomics Matrix Market: a folder, or its matrix.
    Mtx,
}

impl InputFormat {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            InputFormat::Zarr => "AnnData zarr",
            InputFormat::H5ad => "AnnData h5ad",
            InputFormat::TenXH5 => "10x Genomics h5",
            InputFormat::Mtx => "10x Genomics mtx",
        }
    }

    /// Looks at a path, or at what lies at a URL.
    pub fn of(path: &Path) -> Result<InputFormat> {
        Ok(InputFormat::look(path)?.0)
    }

    /// The same, and the AnnData store at a URL: opening it costs requests.
    fn look(path: &Path) -> Result<(InputFormat, Option<Arc<dyn Tree>>)> {
        if is_url(path) {
            return Ok(match open_url(path)? {
                AtUrl::Zarr(tree) => (InputFormat::Zarr, Some(Arc::new(tree))),
                AtUrl::Hdf5(tree) if tenx::is_tenx(&tree)? => (InputFormat::TenXH5, None),
                AtUrl::Hdf5(tree) => (InputFormat::H5ad, Some(Arc::new(H5ad(tree)))),
            });
        }
        Ok((InputFormat::of_file(path)?, None))
    }

    fn of_file(path: &Path) -> Result<InputFormat> {
        let place = || Place::store(path.display().to_string());
        let meta = std::fs::metadata(path).map_err(|e| Error::io(place(), &e))?;
        if MtxFiles::are_at(path) {
            return Ok(InputFormat::Mtx);
        }
        if meta.is_dir() {
            return Ok(InputFormat::Zarr);
        }
        if is_hdf5(path)? {
            return Ok(if tenx::is_tenx(&Hdf5Tree::open(path)?)? { InputFormat::TenXH5 } else { InputFormat::H5ad });
        }
        let expected = "an AnnData store (.zarr, .h5ad), a 10x h5 file or a 10x matrix.mtx is expected";
        Err(Error::invalid(place(), "a file of another kind", expected))
    }
}

/// An input, opened: its data frames, and its matrix by rows.
pub struct Dataset {
    /// Its format.
    pub format: InputFormat,
    /// The AnnData store behind it, if it is one.
    pub anndata: Option<AnnData>,
    /// Cells.
    pub obs: Table,
    /// Genes of the chosen matrix.
    pub var: Table,
    /// The chosen matrix.
    pub source: Box<dyn Source>,
    /// Whether it lay by columns and was turned into rows, which lie in temporary files.
    pub turned: bool,
    /// Elements that could not be held and were passed over.
    pub warnings: Vec<String>,
}

impl Dataset {
    /// Opens an input. A matrix that lies by columns (`csc_matrix`, mtx) is turned into rows first, out of core.
    pub fn open(path: &Path, options: &OpenOptions, watch: &dyn Watch) -> Result<Dataset> {
        let (format, tree) = InputFormat::look(path)?;
        match format {
            InputFormat::Zarr | InputFormat::H5ad => anndata(path, format, tree, options, watch),
            InputFormat::TenXH5 => tenx_h5(path, options),
            InputFormat::Mtx => {
                let mtx = Mtx::open(path, &MtxOptions { gex_only: options.gex_only, ..MtxOptions::default() })?;
                let source = mtx.to_rows(options.memory_bytes, &options.scratch, watch)?;
                let (obs, var) = (mtx.obs, mtx.var);
                Ok(Dataset { format, anndata: None, obs, var, source: Box::new(source), turned: true, warnings: Vec::new() })
            }
        }
    }
}

impl Dataset {
    /// [`objects`] of an input at a URL that is open already.
    pub fn objects(&self) -> Result<Vec<String>> {
        self.anndata.as_ref().map_or_else(|| Ok(vec![String::new()]), AnnData::objects)
    }
}

/// What an input on disk consists of: a folder, a file, or the files of a matrix in Matrix Market format that was given by its path.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_dir() || !MtxFiles::are_at(path) {
        return Ok(vec![path.to_path_buf()]);
    }
    let MtxFiles { matrix, barcodes, features, .. } = MtxFiles::of(path)?;
    Ok(vec![matrix, barcodes, features])
}

/// Names of the objects that tell an input at a URL from its other versions: of a zarr store its metadata and two chunks of each array.
pub fn objects(url: &Path) -> Result<Vec<String>> {
    match open_url(url)? {
        AtUrl::Hdf5(tree) => tree.objects(),
        AtUrl::Zarr(tree) => tree.objects(),
    }
}

/// The size and the ETag or time of each of these objects that is there, without reading them.
pub fn versions<'a>(url: &Path, objects: &'a [String]) -> Result<Vec<(&'a str, String)>> {
    let fail = |e: std::io::Error| Error::io(Place::store(url.display().to_string()), &e);
    let versions = Remote::open(url).and_then(|remote| remote.versions(objects)).map_err(fail)?;
    Ok(objects.iter().zip(versions).filter_map(|(name, version)| Some((&name[..], version?))).collect())
}

/// Opens the matrix of an input and nothing else. One that lies by columns is refused.
pub fn open_rows(path: &Path, options: &OpenOptions) -> Result<Box<dyn Source>> {
    let (format, tree) = InputFormat::look(path)?;
    match format {
        InputFormat::Zarr | InputFormat::H5ad => match store(path, tree)?.matrix(&options.matrix)? {
            Matrix::Rows(source) => Ok(source),
            Matrix::Columns(_) => Err(by_columns(path, &options.matrix)),
        },
        InputFormat::TenXH5 => tenx_h5(path, options).map(|data| data.source),
        InputFormat::Mtx => Err(by_columns(path, "matrix.mtx")),
    }
}

/// An AnnData store that has no X; `None` for any other input.
pub fn without_x(path: &Path) -> Result<Option<AnnData>> {
    let (format, tree) = InputFormat::look(path)?;
    if !matches!(format, InputFormat::Zarr | InputFormat::H5ad) {
        return Ok(None);
    }
    let store = store(path, tree)?;
    // A link to an X that is not there is no lack of one.
    let has_x = store.matrices()?.iter().any(|matrix| matrix == "X") || element::lost(&**store.tree(), "X").is_some();
    Ok((!has_x).then_some(store))
}

fn by_columns(path: &Path, element: &str) -> Error {
    let expected = "rows are needed here; cellmill convert writes a store by rows";
    Error::invalid(Place::element(path.display().to_string(), element), "a matrix that lies by columns", expected)
}

/// The store at a path, opened already or not.
fn store(path: &Path, tree: Option<Arc<dyn Tree>>) -> Result<AnnData> {
    AnnData::of_tree(tree.map_or_else(|| open_tree(path), Ok)?)
}

fn anndata(path: &Path, format: InputFormat, tree: Option<Arc<dyn Tree>>, options: &OpenOptions, watch: &dyn Watch) -> Result<Dataset> {
    let store = store(path, tree)?;
    let mut warnings = Vec::new();
    let matrix = store.matrix(&options.matrix)?;
    let turned = matches!(matrix, Matrix::Columns(_));
    if let Matrix::Columns(columns) = &matrix {
        let shape = columns.shape();
        warnings.push(format!(
            "{}: {} lies by columns (csc_matrix, {} x {}); it is turned into rows once, in {}",
            store.location(),
            options.matrix,
            shape.n_obs,
            shape.n_vars,
            options.scratch.display()
        ));
    }
    let source = matrix.into_rows(&options.scratch, options.memory_bytes, watch)?;
    let obs = store.obs(&mut warnings)?;
    let var = store.var_of(&options.matrix, &mut warnings)?;
    Ok(Dataset { format, anndata: Some(store), obs, var, source, turned, warnings })
}

fn tenx_h5(path: &Path, options: &OpenOptions) -> Result<Dataset> {
    let file = TenX::open(path, &TenXOptions { genome: options.genome.clone(), gex_only: options.gex_only })?;
    let array = |name: String| match file.tree.node(&name)? {
        Some(Node::Array(info)) => Ok(info),
        _ => Err(Error::missing(Place::store(file.tree.location()), name, Vec::<String>::new())),
    };
    let info = SparseInfo {
        format: SparseFormat::Csr,
        shape: [file.obs.n_rows() as u64, file.n_features as u64],
        indptr: array(file.indptr())?,
        indices: array(file.indices())?,
        data: array(file.data())?,
    };
    let whole = CsrSource::open(&file.tree, &file.group, &info)?;
    let source: Box<dyn Source> = match &file.keep_features {
        None => Box::new(whole),
        Some(keep) => Box::new(Features::new(whole, keep)),
    };
    let (obs, var) = (file.obs, file.var);
    Ok(Dataset { format: InputFormat::TenXH5, anndata: None, obs, var, source, turned: false, warnings: Vec::new() })
}

/// Some columns of a source.
struct Features {
    whole: CsrSource,
    number: Vec<Option<u32>>,
    n_vars: usize,
}

impl Features {
    fn new(whole: CsrSource, keep: &[bool]) -> Self {
        let mut n_vars = 0;
        let number = keep
            .iter()
            .map(|k| {
                k.then(|| {
                    n_vars += 1;
                    n_vars as u32 - 1
                })
            })
            .collect();
        Features { whole, number, n_vars }
    }
}

impl Source for Features {
    fn shape(&self) -> Shape {
        Shape { n_vars: self.n_vars, ..self.whole.shape() }
    }
    fn entries_before(&self, row: SourceRow) -> u64 {
        self.whole.entries_before(row)
    }
    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        self.whole.read(rows, into)?;
        let mut write = 0;
        let mut start = 0;
        for i in 0..into.n_rows() {
            let end = into.indptr[i + 1] as usize;
            for k in start..end {
                if let Some(column) = self.number[into.indices[k] as usize] {
                    into.indices[write] = column;
                    into.data[write] = into.data[k];
                    write += 1;
                }
            }
            start = end;
            into.indptr[i + 1] = write as u64;
        }
        into.indices.truncate(write);
        into.data.truncate(write);
        into.n_cols = self.n_vars;
        Ok(())
    }
    fn will_read(&self, rows: Range<SourceRow>) {
        self.whole.will_read(rows);
    }
    fn bytes_read(&self) -> u64 {
        self.whole.bytes_read()
    }
    fn bytes_decoded(&self) -> u64 {
        self.whole.bytes_decoded()
    }
    fn overhead_bytes(&self, n_threads: usize) -> u64 {
        self.whole.overhead_bytes(n_threads)
    }
    fn location(&self) -> &str {
        self.whole.location()
    }
}

//! Where the rows of a matrix come from.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cellmill_matrix::{Csr, Error, Place, Result, Shape, Source, SourceRow};
use cellmill_run::wide::Wide;
use pyo3::prelude::*;

use crate::error::raised;
use crate::matrix::Matrix;
use crate::memory::{Held, HeldDense, Sparse};

/// A matrix of cells by genes as it was given to us.
pub enum Origin {
    /// A matrix of a store that the engine reads, and the words that open it.
    Store(Arc<dyn Source>, Opened),
    /// Matrices end to end.
    Joined(Arc<dyn Source>, Joined),
    /// Three numpy arrays.
    Csr { indptr: Py<PyAny>, indices: Py<PyAny>, data: Py<PyAny>, shape: Shape },
    /// One numpy array.
    Dense { array: Py<PyAny>, shape: Shape },
    /// Blocks of rows that Python computes when they are asked for.
    Blocks(Blocks),
}

/// A matrix of a store, by the words that open it.
pub struct Opened {
    /// The store.
    pub input: PathBuf,
    /// `X`, `layers/NAME`, `raw/X`.
    pub matrix: String,
    /// The genome of a 10x file that has several.
    pub genome: Option<String>,
    /// Whether other features than genes are left out, as workers leave them out.
    pub gex_only: bool,
    /// Whether it lies by columns there.
    pub turned: bool,
    /// Where a matrix that lies by columns is turned into rows.
    pub scratch: PathBuf,
}

/// What was joined, without packed rows.
pub struct Joined {
    /// The matrices.
    pub parts: Vec<Matrix>,
    /// Column of the whole for each column of each part, −1 for none.
    pub columns: Vec<Vec<i64>>,
}

impl Origin {
    /// Cells and genes.
    pub fn shape(&self) -> Shape {
        match self {
            Origin::Store(source, _) | Origin::Joined(source, _) => source.shape(),
            Origin::Csr { shape, .. } | Origin::Dense { shape, .. } => *shape,
            Origin::Blocks(blocks) => blocks.shape,
        }
    }

    /// Whether rows cost more to come by than to keep packed.
    pub fn is_far(&self) -> bool {
        matches!(self, Origin::Store(..) | Origin::Joined(..) | Origin::Blocks(_))
    }

    /// Calls `f` with the rows as a source; arrays are borrowed for the time of the call.
    pub fn with<T>(&self, py: Python<'_>, f: impl FnOnce(&dyn Source) -> PyResult<T>) -> PyResult<T> {
        match self {
            Origin::Store(source, _) | Origin::Joined(source, _) => f(&**source),
            Origin::Blocks(blocks) => f(blocks),
            Origin::Csr { indptr, indices, data, shape } => {
                let held = [indptr, indices, data].map(|a| Held::of(a.bind(py)));
                let [indptr, indices, data] = held;
                let (indptr, indices, data) = (indptr?, indices?, data?);
                f(&Sparse::new(*shape, indptr.numbers()?, indices.numbers()?, data.numbers()?).map_err(raised)?)
            }
            Origin::Dense { array, shape } => {
                let held = HeldDense::of(array.bind(py))?;
                f(&held.source(*shape)?)
            }
        }
    }

    /// Calls `f` with the rows in f64, if they lie in memory as that.
    pub fn wide<T>(&self, py: Python<'_>, f: impl FnOnce(Option<&dyn Wide>) -> PyResult<T>) -> PyResult<T> {
        match self {
            Origin::Csr { indptr, indices, data, shape } => {
                let (indptr, indices, data) = (Held::of(indptr.bind(py))?, Held::of(indices.bind(py))?, Held::of(data.bind(py))?);
                let wide = matches!(data, Held::F64(_));
                let source = Sparse::new(*shape, indptr.numbers()?, indices.numbers()?, data.numbers()?).map_err(raised)?;
                f(wide.then_some(&source as &dyn Wide))
            }
            Origin::Dense { array, shape } => {
                let held = HeldDense::of(array.bind(py))?;
                f(matches!(held, HeldDense::F64(_)).then_some(&held.source(*shape)? as &dyn Wide))
            }
            _ => f(None),
        }
    }
}

/// Blocks of whole rows behind a Python function.
pub struct Blocks {
    /// `read(i)` gives block `i` as `(indptr, indices, data)`.
    read: Py<PyAny>,
    /// First row of each block, and the number of rows at the end.
    starts: Vec<u64>,
    shape: Shape,
    /// Blocks that were computed last.
    recent: Mutex<Vec<(usize, Arc<Csr>)>>,
    /// One lock a block: several tasks that need it compute it once.
    computing: Vec<Mutex<()>>,
}

/// Blocks that are remembered: tasks of neighbouring rows share them.
const RECENT: usize = 4;

/// Entries of a row, for want of better: chunks are cut by it.
const A_ROW: u64 = 512;

impl Blocks {
    /// Blocks that end before the rows `ends`.
    pub fn new(read: Py<PyAny>, ends: &[u64], n_vars: usize) -> Self {
        let starts: Vec<u64> = std::iter::once(0).chain(ends.iter().copied()).collect();
        let shape = Shape { n_obs: starts.last().copied().unwrap_or(0), n_vars };
        let computing = ends.iter().map(|_| Mutex::default()).collect();
        Blocks { read, starts, shape, recent: Mutex::default(), computing }
    }

    /// The function that gives blocks.
    pub fn reader(&self) -> &Py<PyAny> {
        &self.read
    }

    /// Row that each block ends before.
    pub fn ends(&self) -> &[u64] {
        &self.starts[1..]
    }

    fn remembered(&self, i: usize) -> Option<Arc<Csr>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().find(|(block, _)| *block == i).map(|(_, x)| x.clone())
    }

    fn block(&self, i: usize) -> Result<Arc<Csr>> {
        if let Some(x) = self.remembered(i) {
            return Ok(x);
        }
        let _mine = self.computing[i].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(x) = self.remembered(i) {
            return Ok(x);
        }
        let x = Arc::new(self.compute(i)?);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= RECENT.max(rayon::current_num_threads()) {
            recent.remove(0);
        }
        recent.push((i, x.clone()));
        Ok(x)
    }

    fn compute(&self, i: usize) -> Result<Csr> {
        let rows = self.starts[i]..self.starts[i + 1];
        let mut x = Csr::default();
        let done = Python::attach(|py| -> PyResult<()> {
            let (indptr, indices, data): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>) =
                self.read.bind(py).call1((i,))?.extract()?;
            let (indptr, indices, data) = (Held::of(&indptr)?, Held::of(&indices)?, Held::of(&data)?);
            let n_rows = rows.end - rows.start;
            let shape = Shape { n_obs: n_rows, ..self.shape };
            let source = Sparse::new(shape, indptr.numbers()?, indices.numbers()?, data.numbers()?).map_err(raised)?;
            source.read(SourceRow(0)..SourceRow(n_rows), &mut x).map_err(raised)
        });
        done.map_err(|e| Error::invalid(Place::element("Dask array", "X").rows(rows), format!("{e}"), "its blocks are rows of numbers"))?;
        Ok(x)
    }
}

impl Source for Blocks {
    fn shape(&self) -> Shape {
        self.shape
    }
    fn entries_before(&self, row: SourceRow) -> u64 {
        row.0 * A_ROW
    }
    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        into.clear(self.shape.n_vars);
        let mut at = rows.start.0;
        while at < rows.end.0 {
            let i = self.starts.partition_point(|&s| s <= at) - 1;
            let block = self.block(i)?;
            let end = self.starts[i + 1].min(rows.end.0);
            for row in at..end {
                let (columns, values) = block.row((row - self.starts[i]) as usize);
                into.push_row(columns, values);
            }
            at = end;
        }
        Ok(())
    }
    fn bytes_read(&self) -> u64 {
        0
    }
    fn bytes_decoded(&self) -> u64 {
        0
    }
    fn overhead_bytes(&self, n_threads: usize) -> u64 {
        let longest = self.starts.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        longest * A_ROW * 8 * (RECENT.max(n_threads)) as u64
    }
    fn location(&self) -> &str {
        "Dask array"
    }
}

//! A matrix and what has been asked to happen to it: rows from an origin, and the steps that are recorded and done when rows pass.

use std::sync::{Arc, Mutex, PoisonError};

use cellmill_engine::exec::{Feed, cut};
use cellmill_engine::recipe::{Rows, Step};
use cellmill_engine::stage::{Allowance, Stage};
use cellmill_matrix::{Shape, Source};
use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::raised;
use crate::many::{Held, Many, Part};
use crate::moments::Genes;
use crate::origin::{Blocks, Joined, Opened, Origin};
use crate::{convert, pickle, pool, rows};

/// Cells by genes, with recorded steps. Verbs give a new matrix; the rows and the stage that keeps them packed are shared.
#[pyclass(frozen, module = "cellmill._cellmill")]
pub struct Matrix {
    origin: Arc<Origin>,
    /// Rows as they came from the origin, packed, for later passes.
    stage: Option<Arc<Stage>>,
    /// Which rows of the origin are left; all without.
    keep: Option<Arc<Vec<bool>>>,
    /// What happens to columns and values.
    steps: Arc<Vec<Step>>,
    n_obs: usize,
    n_vars: usize,
    known: Known,
}

/// What is known of the genes as they are after the steps.
#[derive(Default)]
pub struct Known {
    /// From a pass over the rows that are left.
    genes: Mutex<Option<Arc<Genes>>>,
    /// Share of rows with an entry, roughly: it orders the work and changes no result.
    detection: Mutex<Option<Arc<Vec<f32>>>>,
    /// Whether all values are whole numbers.
    whole: Mutex<Option<bool>>,
}

fn get<T: Clone>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set<T: Clone>(slot: &Mutex<Option<T>>, value: T) -> T {
    slot.lock().unwrap_or_else(PoisonError::into_inner).insert(value).clone()
}

impl Known {
    fn of(genes: Option<Arc<Genes>>, detection: Option<Arc<Vec<f32>>>) -> Self {
        Known { genes: Mutex::new(genes), detection: Mutex::new(detection), whole: Mutex::default() }
    }
}

/// Share of the memory ceiling that packed rows of an open store may take.
const STAGE_SHARE: u64 = 2;

impl Matrix {
    /// All rows of an origin.
    pub fn of(origin: Origin) -> Self {
        let Shape { n_obs, n_vars } = origin.shape();
        let stage = || Stage::new(cut(n_obs).len(), &Allowance::new(pool::memory() / STAGE_SHARE), None).unfiltered();
        let stage = origin.is_far().then(|| Arc::new(stage()));
        Matrix {
            origin: Arc::new(origin),
            stage,
            keep: None,
            steps: Arc::default(),
            n_obs: n_obs as usize,
            n_vars,
            known: Known::default(),
        }
    }

    /// The same rows, changed.
    fn with(&self, keep: Option<Arc<Vec<bool>>>, steps: Arc<Vec<Step>>, n_obs: usize, n_vars: usize, known: Known) -> Self {
        Matrix { origin: self.origin.clone(), stage: self.stage.clone(), keep, steps, n_obs, n_vars, known }
    }

    /// The same rows and columns after one more step on their values.
    fn then(&self, step: Step, known: Known) -> Self {
        let mut steps = (*self.steps).clone();
        steps.push(step);
        self.with(self.keep.clone(), Arc::new(steps), self.n_obs, self.n_vars, known)
    }

    /// Where rows come from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The store that rows come from, or what stands for it.
    pub fn location(&self) -> String {
        match &*self.origin {
            Origin::Store(source, _) | Origin::Joined(source, _) => source.location().to_string(),
            _ => "X".to_string(),
        }
    }

    /// The same without packed rows.
    pub fn unpacked(&self) -> Self {
        Matrix { stage: None, ..self.with(self.keep.clone(), self.steps.clone(), self.n_obs, self.n_vars, Known::default()) }
    }

    /// These rows of a whole origin after steps, without packed rows.
    pub fn after(&self, keep: Option<Arc<Vec<bool>>>, steps: Arc<Vec<Step>>) -> Self {
        let n_obs = keep.as_ref().map_or(self.n_obs, |k| k.iter().filter(|k| **k).count());
        let columns = |n: usize, step: &Step| if let Step::KeepVar { mask } = step { mask.iter().filter(|k| **k).count() } else { n };
        let n_vars = steps.iter().fold(self.n_vars, columns);
        Matrix { stage: None, ..self.with(keep, steps, n_obs, n_vars, Known::default()) }
    }

    /// Rows that are left.
    pub fn n_obs(&self) -> usize {
        self.n_obs
    }

    /// Columns that are left.
    pub fn n_vars(&self) -> usize {
        self.n_vars
    }

    /// Which rows of the origin are left.
    pub fn keep(&self) -> Option<&[bool]> {
        self.keep.as_deref().map(Vec::as_slice)
    }

    /// Steps on columns and values, as they were recorded.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What a pass over the values has found of the genes.
    pub fn genes(&self) -> Option<Arc<Genes>> {
        get(&self.known.genes)
    }

    /// Remembers what a pass over the values has found.
    pub fn remember(&self, genes: Genes) -> Arc<Genes> {
        set(&self.known.genes, Arc::new(genes))
    }

    /// Share of rows with an entry, `(n_vars,)`, if it is known.
    pub fn detection(&self) -> Option<Arc<Vec<f32>>> {
        get(&self.known.detection)
    }

    /// Remembers the share of rows with an entry.
    pub fn remember_detection(&self, detection: Vec<f32>) -> Arc<Vec<f32>> {
        set(&self.known.detection, Arc::new(detection))
    }

    /// Remembers whether all values are whole numbers.
    pub fn remember_whole(&self, whole: bool) {
        set(&self.known.whole, whole);
    }

    /// A part of the same values, of which the same is known.
    fn part(&self, part: Self) -> Self {
        if get(&self.known.whole) == Some(true) {
            part.remember_whole(true);
        }
        part
    }

    /// What a worker opens for these rows, if it can.
    pub fn opened(&self) -> Option<&Opened> {
        match &*self.origin {
            Origin::Store(_, opened) if opened.gex_only => Some(opened),
            _ => None,
        }
    }

    /// Whether rows come from a store, which can be read again where memory is better used than for packed rows.
    pub fn is_of_store(&self) -> bool {
        matches!(&*self.origin, Origin::Store(..) | Origin::Joined(..))
    }

    /// Calls `f` with where rows come from.
    pub fn feed<T>(&self, py: Python<'_>, f: impl FnOnce(Feed<'_>) -> PyResult<T>) -> PyResult<T> {
        self.origin.with(py, |source: &dyn Source| f(Feed::new(source, self.stage.as_deref())))
    }

    /// The recipe for these steps and rows. A choice of columns that comes first stays first: other columns are not even unpacked then.
    pub fn recipe(&self, steps: &[Step], keep: Option<&[bool]>) -> Vec<Step> {
        let mut recipe = steps.to_vec();
        let Some(keep) = keep else { return recipe };
        let filter = Step::KeepObs { rows: Rows::Mask { keep: keep.to_vec(), first: 0 } };
        let behind = match recipe[..] {
            _ if self.stage.is_none() => 0,
            [Step::TakeTotals, Step::KeepVar { .. }, ..] => 2,
            [Step::KeepVar { .. }, ..] => 1,
            _ => 0,
        };
        recipe.insert(behind, filter);
        recipe
    }

    /// The recipe of all that is recorded.
    pub fn whole_recipe(&self) -> Vec<Step> {
        self.recipe(&rows::columns_first(&self.steps), self.keep())
    }

    /// The same for whoever takes what is not there for 0.
    pub fn sparse_recipe(&self) -> PyResult<Vec<Step>> {
        self.check_zeros()?;
        Ok(self.whole_recipe())
    }

    /// Refuses values that were centred: entries are less than they seem then, by what a zero has become.
    fn check_zeros(&self) -> PyResult<()> {
        match rows::base(&self.steps) {
            None => Ok(()),
            Some(_) => Err(PyValueError::new_err(
                "X: values that scale() has centred, but values are expected of which most are 0; do this before scale(), scale with \
                 zero_center=False, or take the AnnData that to_memory() gives",
            )),
        }
    }
}

#[pymethods]
impl Matrix {
    /// Compressed rows: three numpy arrays and a shape. They are borrowed, never changed.
    #[staticmethod]
    fn csr(indptr: Py<PyAny>, indices: Py<PyAny>, data: Py<PyAny>, shape: (u64, usize)) -> Self {
        Matrix::of(Origin::Csr { indptr, indices, data, shape: Shape { n_obs: shape.0, n_vars: shape.1 } })
    }

    /// A dense matrix in C order. It is borrowed, never changed.
    #[staticmethod]
    fn dense(array: Py<PyAny>, shape: (u64, usize)) -> Self {
        Matrix::of(Origin::Dense { array, shape: Shape { n_obs: shape.0, n_vars: shape.1 } })
    }

    /// Blocks of rows: `read(i)` gives block `i` as `(indptr, indices, data)`; block `i` ends before row `ends[i]`.
    #[staticmethod]
    fn blocks(read: Py<PyAny>, ends: Vec<u64>, n_vars: usize) -> Self {
        Matrix::of(Origin::Blocks(Blocks::new(read, &ends, n_vars)))
    }

    /// Matrices end to end. `columns[i][j]`: the column that column `j` of part `i` becomes, −1 for none.
    #[staticmethod]
    fn concat(py: Python<'_>, parts: Vec<PyRef<'_, Matrix>>, columns: Vec<Vec<i64>>, n_vars: usize) -> PyResult<Self> {
        let mut list = Vec::new();
        for (part, columns) in parts.iter().zip(&columns) {
            if columns.len() != part.n_vars || columns.iter().any(|&j| j >= n_vars as i64) {
                return Err(PyValueError::new_err(format!("{} columns for {} genes", columns.len(), part.n_vars)));
            }
            let source: Arc<dyn Source> = match &*part.origin {
                Origin::Store(source, _) | Origin::Joined(source, _) => source.clone(),
                // What Python lends for a call alone is copied.
                other => Arc::new(other.with(py, |source| Held::of(source).map_err(raised))?),
            };
            let rows = part.keep().map(|k| (0u64..).zip(k).filter(|(_, k)| **k).map(|(i, _)| i).collect());
            let columns = columns.iter().map(|&j| u32::try_from(j).ok()).collect();
            list.push(Part { source, steps: rows::columns_first(&part.steps), rows, columns });
        }
        let joined = Joined { parts: parts.iter().map(|part| part.unpacked()).collect(), columns };
        Ok(Matrix::of(Origin::Joined(Arc::new(Many::new(list, n_vars)), joined)))
    }

    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.n_obs, self.n_vars)
    }

    /// Which rows of the origin are left, or None: all.
    #[getter]
    fn kept_rows<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.keep().map(|k| k.to_vec().into_pyarray(py).into_any())
    }

    /// The stores that rows come from.
    #[getter]
    fn locations(&self) -> Vec<String> {
        match &*self.origin {
            Origin::Store(source, _) | Origin::Joined(source, _) => source.locations().into_iter().map(String::from).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether values differ from those of the origin.
    #[getter]
    fn changed(&self) -> bool {
        self.steps.iter().any(|s| !matches!(s, Step::KeepVar { .. } | Step::TakeTotals | Step::TakeTotalsOf { .. }))
    }

    /// Whether all values are whole numbers, or None: nobody has looked yet.
    #[getter]
    fn whole(&self) -> Option<bool> {
        get(&self.known.whole)
    }

    /// What another process makes the same matrix of.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        pickle::reduce(self, py)
    }

    /// The rows of a whole matrix that are left, after the steps that were pickled.
    fn resumed(&self, shape: (usize, usize), keep: Option<PyReadonlyArray1<'_, bool>>, steps: &[u8]) -> PyResult<Self> {
        pickle::resumed(self, shape, keep, steps)
    }

    /// The recorded steps as JSON.
    fn recorded(&self) -> PyResult<String> {
        serde_json::to_string(&*self.steps).map_err(|e| PyValueError::new_err(e.to_string()))
    }

    /// The rows whose flag is true.
    fn keep_rows(&self, mask: PyReadonlyArray1<'_, bool>) -> PyResult<Self> {
        let mask = mask.as_slice().map_err(|e| PyValueError::new_err(e.to_string()))?;
        check_length(mask, self.n_obs, "rows")?;
        let n_obs = mask.iter().filter(|k| **k).count();
        let keep = match self.keep() {
            None => mask.to_vec(),
            Some(keep) => {
                let mut flags = mask.iter();
                keep.iter().map(|&k| k && flags.next() == Some(&true)).collect()
            }
        };
        let known = self.genes().filter(|_| n_obs == self.n_obs);
        Ok(self.part(self.with(Some(Arc::new(keep)), self.steps.clone(), n_obs, self.n_vars, Known::of(known, self.detection()))))
    }

    /// The columns whose flag is true.
    fn keep_columns(&self, mask: PyReadonlyArray1<'_, bool>) -> PyResult<Self> {
        let mask = mask.as_slice().map_err(|e| PyValueError::new_err(e.to_string()))?;
        check_length(mask, self.n_vars, "columns")?;
        Ok(self.columns(mask))
    }

    /// x · target_sum / Σ row, where only columns whose flag in `counted` is true are summed.
    #[pyo3(signature = (target_sum, counted=None))]
    fn normalize_total(&self, target_sum: f64, counted: Option<Vec<bool>>) -> PyResult<Self> {
        self.check_zeros()?;
        let Some(mask) = counted else { return Ok(self.then(Step::NormalizeTotal { target_sum }, Known::of(None, self.detection()))) };
        check_length(&mask, self.n_vars, "columns")?;
        let taken = self.then(Step::TakeTotalsOf { mask }, Known::default());
        Ok(taken.then(Step::NormalizeTotal { target_sum }, Known::of(None, self.detection())))
    }

    /// ln(1 + x) / ln(base).
    #[pyo3(signature = (base=None))]
    fn log1p(&self, base: Option<f64>) -> PyResult<Self> {
        self.check_zeros()?;
        Ok(self.then(Step::Log1p { base }, Known::of(None, self.detection())))
    }

    /// √x.
    fn sqrt(&self) -> PyResult<Self> {
        self.check_zeros()?;
        Ok(self.then(Step::Sqrt, Known::of(None, self.detection())))
    }

    /// (x − mean) / std, clipped. Centred values less what a zero becomes ([`Matrix::base`]) stay sparse.
    #[pyo3(signature = (std, mean=None, max_value=None))]
    fn scale(&self, std: Vec<f64>, mean: Option<Vec<f64>>, max_value: Option<f64>) -> PyResult<Self> {
        if std.len() != self.n_vars || mean.as_ref().is_some_and(|m| m.len() != self.n_vars) {
            return Err(PyValueError::new_err(format!("{} standard deviations for {} genes", std.len(), self.n_vars)));
        }
        self.check_zeros()?;
        let inverse_std: Vec<f64> = std.iter().map(|s| 1.0 / s).collect();
        let genes = self.genes().filter(|_| max_value.is_none()).map(|genes| Arc::new(genes.times(&inverse_std)));
        Ok(self.then(Step::Scale { mean, inverse_std, max_value }, Known::of(genes, self.detection())))
    }

    /// What a zero has become, `(n_vars,)`, if the last step on values centred them.
    fn base<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        rows::base(&self.steps).map(|b| b.into_pyarray(py).into_any())
    }

    /// The rows as `(indptr, indices, data)`, all or those of a range.
    #[pyo3(signature = (start=0, stop=None))]
    fn collect<'py>(&self, py: Python<'py>, start: usize, stop: Option<usize>) -> PyResult<Bound<'py, PyAny>> {
        let stop = stop.unwrap_or(self.n_obs).min(self.n_obs);
        let keep = rows::range(self.keep(), self.origin.shape().n_obs as usize, self.n_obs, start.min(stop)..stop);
        let recipe = self.recipe(&rows::columns_first(&self.steps), keep.as_deref());
        let x = self.feed(py, |feed| pool::run(py, "reading", |call| rows::collect(feed, &recipe, keep.as_deref(), self.n_vars, call)))?;
        let (indptr, indices) = convert::index(py, x.indptr, x.indices, self.n_vars);
        pyo3::IntoPyObjectExt::into_bound_py_any((indptr, indices, x.data.into_pyarray(py)), py)
    }
}

impl Matrix {
    /// The columns whose flag is true; there is one flag a column.
    pub fn columns(&self, mask: &[bool]) -> Matrix {
        let genes = self.genes().map(|genes| Arc::new(genes.columns(mask)));
        let detection = self.detection().map(|d| Arc::new(pick(&d, mask)));
        let mut next = self.then(Step::KeepVar { mask: mask.to_vec() }, Known::of(genes, detection));
        next.n_vars = mask.iter().filter(|k| **k).count();
        self.part(next)
    }
}

/// The entries whose flag is true.
pub fn pick<T: Copy>(values: &[T], mask: &[bool]) -> Vec<T> {
    values.iter().zip(mask).filter(|(_, kept)| **kept).map(|(x, _)| *x).collect()
}

fn check_length(mask: &[bool], n: usize, what: &str) -> PyResult<()> {
    if mask.len() == n {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("a mask of {} flags, but there are {n} {what}", mask.len())))
}

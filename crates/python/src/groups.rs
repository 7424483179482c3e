//! What is asked of groups of cells and of sets of genes: markers, aggregates, scores.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cellmill_cuda::Processor;
use cellmill_engine::exec::Feed;
use cellmill_engine::fold::NO_GROUP;
use cellmill_matrix::{Element, Error, Source};
use cellmill_run::aggregate::{Func, aggregate as aggregated};
use cellmill_run::cluster::{About, Cluster};
use cellmill_run::device::driver_bytes;
use cellmill_run::markers::{Correction, Method, Options, Order, Params, Regression, rank_genes_groups as ranked, uns};
use cellmill_run::observe::Listener;
use cellmill_run::recipe::{Input, Recipe};
use cellmill_run::score;
use cellmill_run::view::{Groups, View};
use cellmill_run::wide::Wide;
use numpy::{PyReadonlyArray1, ToPyArray};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::device::processor;
use crate::error::raised;
use crate::matrix::Matrix;
use crate::origin::Opened;
use crate::pool::Call;
use crate::workers::Crew;
use crate::{convert, pool, rows};

/// Calls `f` with the rows of a matrix as statistics look at them. A `cellmill._crew.Crew` has its workers read them, if they lie in a store
/// that workers can open.
pub fn viewed<T>(py: Python<'_>, matrix: &Matrix, crew: Option<Py<PyAny>>, f: impl FnOnce(&View<'_>) -> PyResult<T>) -> PyResult<T> {
    let recipe = matrix.sparse_recipe()?;
    let (select, values) = rows::selecting(&recipe);
    let crew = crew.map(Crew);
    let ask = |feed: Feed<'_>, wide: Option<&dyn Wide>| {
        let cluster = match (&crew, matrix.opened()) {
            (Some(crew), Some(opened)) => Some(cluster(py, crew, opened, feed.source)?),
            _ => None,
        };
        f(&View { feed, select, values, n_vars: matrix.n_vars(), memory: pool::memory(), cluster: cluster.as_ref(), gpus: &[], wide })
    };
    matrix.origin().wide(py, |wide| matrix.feed(py, |feed| ask(feed, wide)))
}

/// Asks the same rows beside the GPUs that are chosen, if workers don't read them.
fn beside<T>(view: &View<'_>, call: &Call, ask: impl FnOnce(&View<'_>) -> cellmill_matrix::Result<T>) -> cellmill_matrix::Result<T> {
    let processor = if view.cluster.is_some() { Processor::Cpu } else { processor(call)? };
    let (gpus, memory) = (processor.devices(), view.memory.saturating_sub(driver_bytes(processor.devices().len())));
    let found = ask(&View { gpus, memory, ..*view });
    gpus.iter().flat_map(|device| device.left()).for_each(|why| call.warn(&why));
    found
}

/// The workers of a crew. Their notes lie beside the store until all is done.
fn cluster<'a>(py: Python<'_>, crew: &'a Crew, opened: &Opened, source: &dyn Source) -> PyResult<Cluster<'a>> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let recipe = Recipe { input: Input { matrix: opened.matrix.clone() }, ..Recipe::default() };
    let about = About { input: &opened.input, genome: opened.genome.as_deref(), recipe: &recipe, n_obs: source.shape().n_obs };
    let mut notes = opened.input.clone().into_os_string();
    notes.push(format!(".{}-{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed)));
    pool::run(py, "rows for the workers", |call| {
        let turned = opened.turned.then_some((source, call as &dyn Listener));
        Cluster::passing(crew, Path::new(&notes), &about, true, turned)
    })
}

/// Values of the rows that are left, at their places among all rows of the origin.
pub fn spread<T: Copy>(matrix: &Matrix, values: &[T], empty: T) -> PyResult<Vec<T>> {
    if values.len() != matrix.n_obs() {
        return Err(PyValueError::new_err(format!("{} labels, but there are {} cells", values.len(), matrix.n_obs())));
    }
    Ok(match matrix.keep() {
        None => values.to_vec(),
        Some(keep) => {
            let mut rest = values.iter();
            keep.iter().map(|&kept| if kept { rest.next().copied().unwrap_or(empty) } else { empty }).collect()
        }
    })
}

/// Group of each cell; a negative code is none.
pub fn codes_of(matrix: &Matrix, codes: &PyReadonlyArray1<'_, i32>) -> PyResult<Vec<u32>> {
    let codes = codes.as_slice().map_err(|e| PyValueError::new_err(e.to_string()))?;
    let codes: Vec<u32> = codes.iter().map(|&c| u32::try_from(c).unwrap_or(NO_GROUP)).collect();
    spread(matrix, &codes, NO_GROUP)
}

/// scanpy's options, by name.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Ask {
    method: String,
    groupby: String,
    groups: Vec<u32>,
    reference: Option<u32>,
    n_genes: Option<usize>,
    rankby_abs: bool,
    pts: bool,
    corr_method: String,
    tie_correct: bool,
    use_continuity: bool,
    return_u_values: bool,
    mean_in_log_space: bool,
    n_bins: Option<usize>,
    log_base: Option<f64>,
    use_raw: bool,
    layer: Option<String>,
    c: f64,
    tol: f64,
    max_iter: usize,
    order: Py<PyAny>,
}

/// A function of Python, `(scores, count)` to places, as what orders genes.
fn order_of(function: Py<PyAny>) -> Order {
    let call = move |scores: &[f64], count: usize| -> PyResult<Vec<u32>> {
        Python::attach(|py| {
            let places: PyReadonlyArray1<'_, u32> = function.bind(py).call1((scores.to_pyarray(py), count))?.extract()?;
            places.as_slice().map(<[u32]>::to_vec).map_err(|e| PyValueError::new_err(e.to_string()))
        })
    };
    Order(Arc::new(move |scores, count| call(scores, count).map_err(|e| Error::bug(format!("the order of the genes: {e}")))))
}

/// `uns['rank_genes_groups']` as an element, and warnings. `codes`: group of each cell, negative for none. `names`: the groups'; `genes`: the
/// genes'.
#[pyfunction]
#[pyo3(signature = (matrix, codes, names, genes, ask, crew=None))]
pub fn rank_genes_groups<'py>(
    py: Python<'py>,
    matrix: &Matrix,
    codes: PyReadonlyArray1<'py, i32>,
    names: Vec<String>,
    genes: Vec<String>,
    ask: Ask,
    crew: Option<Py<PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Vec<String>)> {
    let codes = codes_of(matrix, &codes)?;
    let options = Options {
        method: Method::of_name(&ask.method).map_err(raised)?,
        groups: ask.groups,
        reference: ask.reference,
        n_genes: ask.n_genes,
        rankby_abs: ask.rankby_abs,
        pts: ask.pts,
        correction: Correction::of_name(&ask.corr_method).map_err(raised)?,
        tie_correct: ask.tie_correct,
        use_continuity: ask.use_continuity,
        return_u_values: ask.return_u_values,
        means_of_expm1: !ask.mean_in_log_space,
        n_bins: ask.n_bins,
        log_base: ask.log_base,
        regression: Regression { c: ask.c, tol: ask.tol, max_iter: ask.max_iter },
        order: Some(order_of(ask.order)),
    };
    let groups = Groups { codes: &codes, names: &names };
    let mut found =
        viewed(py, matrix, crew, |view| pool::run(py, "markers", |call| beside(view, call, |view| ranked(view, &groups, &options, call))))?;
    let warnings = std::mem::take(&mut found.warnings);
    let reference = ask.reference.map_or("rest", |g| names[g as usize].as_str());
    let params = Params {
        groupby: &ask.groupby,
        reference,
        method: options.method,
        use_raw: ask.use_raw,
        layer: ask.layer.as_deref(),
        correction: options.correction,
    };
    let element: Element = uns(&found, &params, &genes, &names);
    Ok((convert::element(py, element)?, warnings))
}

/// `{function: (groups, n_vars) f64}` and `n_obs` of each group.
#[pyfunction]
#[pyo3(signature = (matrix, codes, names, funcs, mask, dof, crew=None))]
#[expect(clippy::too_many_arguments, reason = "Python's arguments")]
pub fn aggregate<'py>(
    py: Python<'py>,
    matrix: &Matrix,
    codes: PyReadonlyArray1<'py, i32>,
    names: Vec<String>,
    funcs: Vec<String>,
    mask: Option<PyReadonlyArray1<'py, bool>>,
    dof: u32,
    crew: Option<Py<PyAny>>,
) -> PyResult<(Bound<'py, PyDict>, Vec<u64>)> {
    let codes = codes_of(matrix, &codes)?;
    let funcs = funcs.iter().map(|f| Func::of_name(f)).collect::<Result<Vec<_>, _>>().map_err(raised)?;
    let mask = match &mask {
        None => None,
        Some(mask) => Some(spread(matrix, mask.as_slice().map_err(|e| PyValueError::new_err(e.to_string()))?, false)?),
    };
    let groups = Groups { codes: &codes, names: &names };
    let found = viewed(py, matrix, crew, |view| {
        pool::run(py, "aggregate", |call| beside(view, call, |view| aggregated(view, &groups, &funcs, mask.as_deref(), dof, call)))
    })?;
    let out = PyDict::new(py);
    for (func, layer) in found.layers {
        out.set_item(func.name(), convert::rows(py, layer, matrix.n_vars())?)?;
    }
    Ok((out, found.n_obs))
}

/// How control genes are drawn.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Draw {
    ctrl_size: usize,
    n_bins: usize,
    ctrl_as_ref: bool,
    /// Genes that they are drawn from, by number; `None`: all.
    pool: Option<Vec<u32>>,
    seed: u32,
}

impl From<Draw> for score::Options {
    fn from(Draw { ctrl_size, n_bins, ctrl_as_ref, pool, seed }: Draw) -> Self {
        score::Options { ctrl_size, n_bins, ctrl_as_ref, gene_pool: pool, random_state: seed }
    }
}

/// The control genes of a set, by number. `means`: of each gene, `(n_vars,)`; a gene without one is not drawn.
#[pyfunction]
pub fn control_genes(means: PyReadonlyArray1<'_, f64>, genes: Vec<u32>, draw: Draw) -> PyResult<Vec<u32>> {
    let means = means.as_slice().map_err(|e| PyValueError::new_err(e.to_string()))?;
    score::control_genes(means, &genes, &draw.into()).map_err(raised)
}

/// Score of each cell for a set of genes, by number: `(n_obs,)` f64.
#[pyfunction]
#[pyo3(signature = (matrix, genes, draw, crew=None))]
pub fn score_genes<'py>(
    py: Python<'py>,
    matrix: &Matrix,
    genes: Vec<u32>,
    draw: Draw,
    crew: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let options: score::Options = draw.into();
    let scores = viewed(py, matrix, crew, |view| {
        pool::run(py, "scores", |call| {
            let (means, _) = score::gene_means(view, call)?;
            let control = score::control_genes(&means, &genes, &options)?;
            let (mut scores, _) = score::scores(view, &[score::Set { genes: genes.clone(), control }], call)?;
            Ok(scores.swap_remove(0))
        })
    })?;
    Ok(numpy::IntoPyArray::into_pyarray(scores, py).into_any())
}

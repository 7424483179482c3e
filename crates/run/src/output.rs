//! Writing what was found: a new AnnData store that appears whole, or new elements of the input store.

use std::collections::BTreeSet;
use std::path::Path;

use cellmill_engine::exec::{Feed, Scratch, Task, cut, in_order, sliced};
use cellmill_engine::fold::Collect;
use cellmill_engine::recipe::Step;
use cellmill_graph::knn::Rows;
use cellmill_matrix::{Array, Column, Csr, DType, Element, Error, Place, Result, Sparse, Table, Values, keys};
use cellmill_store::tree::{Attrs, TreeWriter};
use cellmill_store::write::{CsrStream, Format, create, write_element, write_root, write_table};
use cellmill_store::zarr::{RowChunks, ZarrWriter};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::analysis::{Analysis, Waiting, value_steps};
use crate::carry::Annotations;
use crate::observe::Observer;
use crate::recipe::Recipe;
use crate::survey::kept_steps;

/// Which values of X go into the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WithX {
    /// As they were read, for kept cells and genes.
    Raw,
    /// After normalisation and logarithm.
    Normalized,
    /// After normalisation and logarithm, highly variable genes alone; var has these genes alone then.
    Hvg,
}

/// Where and how to write.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The new store.
    pub path: &'a Path,
    /// Its format.
    pub format: Format,
    /// Whether something of that name may be replaced.
    pub overwrite: bool,
    /// Which X it gets.
    pub with_x: Option<WithX>,
}

/// Writes a new store. Nothing appears under its name before it is complete.
///
/// What the `input` says besides X, obs and var goes along for kept cells and genes, unless the analysis found something of that name.
pub fn write(
    target: &Target<'_>,
    analysis: Analysis,
    feed: Feed<'_>,
    input: Option<&Annotations<'_>>,
    recipe: &Recipe,
    observer: &Observer<'_>,
) -> Result<()> {
    let Analysis { obs, mut var, obsm, waiting, mut varm, obsp, uns, keep, keep_genes, target_sum, .. } = analysis;
    let watch = observer.stage("writing", "cells");
    let writer = create(target.path, target.format, target.overwrite)?;
    let w = &*writer;
    write_root(w)?;
    let mut nnz = 0;
    let mut reads = 0;
    let chosen = match target.with_x {
        Some(WithX::Hvg) => Some(highly_variable(&var)?),
        _ => None,
    };
    let genes = kept_genes(keep_genes.as_deref(), chosen.as_deref());
    if let Some(mask) = &chosen {
        for (_, array) in &mut varm {
            *array = array.select(mask);
        }
        var = var.select(mask);
    }
    let mut taken = paths(&obsm, &varm, &obsp, &uns);
    taken.extend(waiting.iter().map(|(name, _)| format!("obsm/{name}")));
    let tables = || write_table(w, "obs", &obs).and_then(|()| write_table(w, "var", &var));
    let found = || write_elements(w, elements(obsm, varm, obsp, uns));
    if w.at_a_time() > 1 {
        let (tables, found) = rayon::join(tables, found);
        tables.and(found)?;
    } else {
        tables()?;
        found()?;
    }
    if let Some(with_x) = target.with_x {
        let mut steps = kept_steps(&keep, keep_genes.as_deref());
        if let Some(mask) = chosen {
            // Genes that are left out count in a cell's total all the same.
            steps.extend(target_sum.map(|_| Step::TakeTotals));
            steps.push(Step::KeepVar { mask });
        }
        if with_x != WithX::Raw {
            steps.extend(value_steps(recipe, target_sum));
        }
        let mut stream = CsrStream::create(w, "X", obs.n_rows() as u64, var.n_rows())?;
        let (written, decoded) = stream_rows(feed, &steps, var.n_rows(), &mut stream, &watch)?;
        stream.finish()?;
        (nnz, reads) = (written, u32::from(decoded));
    }
    write_waiting(w, waiting)?;
    if let Some(input) = input {
        let mut warnings = Vec::new();
        Annotations { cells: Some(&keep), genes: genes.as_deref(), ..*input }.write(w, &taken, &mut warnings)?;
        warnings.iter().for_each(|m| observer.warn(m));
    }
    writer.finish()?;
    watch.finish(obs.n_rows() as u64, nnz, reads);
    Ok(())
}

/// Streams rows through a recipe into a matrix; returns the entries written, and whether rows were decoded from the store for it.
pub fn stream_rows(
    feed: Feed<'_>,
    steps: &[Step],
    n_vars: usize,
    stream: &mut CsrStream<'_>,
    watch: &dyn cellmill_matrix::Watch,
) -> Result<(u64, bool)> {
    let n_obs = feed.source.shape().n_obs;
    let tasks = cut(n_obs);
    let (mut nnz, mut decoded) = (0, false);
    // `take` runs on one thread at a time, but not always on the same.
    let stream = std::sync::Mutex::new(stream);
    in_order(
        tasks.len(),
        1,
        |i| {
            let steps = sliced(steps, &tasks[i]);
            let fold = Collect::new(steps.len(), n_vars);
            let done = Task { recipe: &steps, fold: &fold, rows: tasks[i].clone(), batch: None }.run(feed, &mut Scratch::default())?;
            Ok((done.state.x, done.decoded))
        },
        |i, (rows, from_store): (Csr, bool)| {
            nnz += rows.nnz() as u64;
            decoded |= from_store;
            stream.lock().map_err(|_| Error::bug("a writer panicked"))?.append(&rows)?;
            watch.tick(tasks[i].end, n_obs, "")
        },
    )?;
    Ok((nnz, decoded))
}

/// What belongs to cells, genes, pairs of cells, and the rest, by path; the largest first.
fn elements(obsm: Named<Array>, varm: Named<Array>, obsp: Named<Sparse>, uns: Named<Element>) -> impl Iterator<Item = (String, Element)> {
    let arrays =
        |group: &'static str, list: Named<Array>| list.into_iter().map(move |(name, a)| (format!("{group}/{name}"), Element::Array(a)));
    let obsp = obsp.into_iter().map(|(name, m)| (format!("obsp/{name}"), Element::Sparse(m)));
    let uns = uns.into_iter().map(|(name, e)| (format!("uns/{name}"), e));
    obsp.chain(arrays("obsm", obsm)).chain(arrays("varm", varm)).chain(uns)
}

/// Writes elements by path, some at a time; groups above them exist already.
pub fn write_elements(w: &dyn TreeWriter, all: impl IntoIterator<Item = (String, Element)>) -> Result<()> {
    let mut all = all.into_iter();
    loop {
        let some: Vec<(String, Element)> = all.by_ref().take(w.at_a_time()).collect();
        if some.is_empty() {
            return Ok(());
        }
        some.into_par_iter().with_max_len(1).try_for_each(|(path, element)| write_element(w, &path, &element))?;
    }
}

/// Writes what lies on disk to obsm: from files some rows at a time.
fn write_waiting(w: &dyn TreeWriter, waiting: Vec<(String, Waiting)>) -> Result<()> {
    for (name, waiting) in waiting {
        let path = format!("obsm/{name}");
        let (file, wide) = match waiting {
            Waiting::File(file, wide) => (file, wide),
            Waiting::Chunks(chunks) => {
                chunks.write(w, &path, array_attributes())?;
                continue;
            }
        };
        // In the chunks that it would have from memory.
        let (n, chunk) = (file.n(), RowChunks::rows_of(file.n() as u64, wide as u64));
        let mut stream = w.stream(&path, DType::F32, &[n as u64, wide as u64], &[chunk, wide as u64], array_attributes())?;
        for first in (0..n).step_by(chunk as usize) {
            let mut rows = vec![0f32; (chunk as usize).min(n - first) * wide];
            file.read(first, &mut rows)?;
            stream.append(&Values::F32(rows))?;
        }
        stream.close()?;
    }
    Ok(())
}

fn array_attributes() -> Attrs {
    [("encoding-type", "array"), ("encoding-version", "0.2.0")].into_iter().map(|(k, v)| (k.to_string(), v.into())).collect()
}

/// Elements by name.
type Named<T> = Vec<(String, T)>;

fn highly_variable(var: &Table) -> Result<Vec<bool>> {
    match var.column(keys::HIGHLY_VARIABLE) {
        Some(Column::Plain(Values::Bool(mask))) => Ok(mask.clone()),
        _ => Err(Error::missing(Place::element("", "var"), keys::HIGHLY_VARIABLE, var.names())),
    }
}

/// Which genes of the source the output has: those that filters kept, and of them the chosen.
fn kept_genes(filtered: Option<&[bool]>, chosen: Option<&[bool]>) -> Option<Vec<bool>> {
    match (filtered, chosen) {
        (Some(filtered), Some(chosen)) => {
            let mut chosen = chosen.iter();
            Some(filtered.iter().map(|&kept| kept && chosen.next() == Some(&true)).collect())
        }
        (one, other) => one.or(other).map(<[bool]>::to_vec),
    }
}

/// The paths of what was found.
fn paths(obsm: &Named<Array>, varm: &Named<Array>, obsp: &Named<Sparse>, uns: &Named<Element>) -> BTreeSet<String> {
    fn of<'a, T>(group: &'static str, list: &'a Named<T>) -> impl Iterator<Item = String> + 'a {
        list.iter().map(move |(name, _)| format!("{group}/{name}"))
    }
    of("obsm", obsm).chain(of("varm", varm)).chain(of("obsp", obsp)).chain(of("uns", uns)).collect()
}

/// Adds results to an existing zarr store: each element appears whole. All cells and genes must have been kept.
pub fn write_in_place(input: &Path, analysis: Analysis, observer: &Observer<'_>) -> Result<()> {
    let dropped =
        analysis.keep.iter().filter(|k| !**k).count() + analysis.keep_genes.as_ref().map_or(0, |k| k.iter().filter(|k| !**k).count());
    if dropped > 0 {
        return Err(Error::invalid(
            Place::store(input.display().to_string()),
            format!("the filters drop {dropped} cells or genes"),
            "--in-place keeps the store's shape; write a new store with -o, or drop the filters (--filter-cells '')",
        ));
    }
    let watch = observer.stage("writing", "cells");
    let n_obs = analysis.obs.n_rows() as u64;
    let editor: Box<dyn TreeWriter> = Box::new(ZarrWriter::in_place(input)?);
    let w = &*editor;
    write_table(w, "obs", &analysis.obs)?;
    write_table(w, "var", &analysis.var)?;
    write_elements(w, elements(analysis.obsm, analysis.varm, analysis.obsp, analysis.uns))?;
    write_waiting(w, analysis.waiting)?;
    editor.finish()?;
    watch.finish(n_obs, 0, 0);
    Ok(())
}

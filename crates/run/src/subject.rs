//! What a statistic is asked of: a matrix, the cells of it that have labels, and the steps to its values.
//!
//! A run's output has labels but, as a rule, no X; the store that it came from has X but no labels. A subject joins the two: the output's
//! cells and genes are found in the source by name, and the recipe that the output carries says how its values are made of the counts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cellmill_cuda::Processor;
use cellmill_engine::exec::{self, Aside, Feed, cut};
use cellmill_engine::fold::{EXACT_TOTAL, NO_GROUP, Qc};
use cellmill_engine::recipe::{RowQc, Step};
use cellmill_engine::stage::{Allowance, Spill, Stage};
use cellmill_kernels::totals::look;
use cellmill_matrix::{Csr, Element, Error, Place, Result, Source, SourceRow, Table, Values, keys};
use cellmill_store::anndata::AnnData;
use cellmill_store::dataset::Dataset;
use cellmill_store::is_url;

use crate::analysis::value_steps;
use crate::cluster::{About, Cluster, Dispatcher};
use crate::device::{Choice, Opening, Word, driver_bytes};
use crate::grouped::fits_gpus;
use crate::job::open;
use crate::observe::{Listener, Observer};
use crate::recipe::{Recipe, Target, TargetWord};
use crate::survey::{kept_steps, median_of_positive};
use crate::view::View;

/// What to open, and what may be spent on it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The matrix: any input of a run, or a run's output that has X.
    pub input: PathBuf,
    /// The store with labels, where they are not in `input`: a run's output.
    pub labels: Option<PathBuf>,
    /// `X`, `layers/NAME` or `raw/X`; by default that of the recipe, or X.
    pub matrix: Option<String>,
    /// The genome of a 10x file that has several.
    pub genome: Option<String>,
    /// How values are made; by default as the recipe of the labels says, or by what X looks like.
    pub values: Option<Made>,
    /// Threads.
    pub threads: usize,
    /// Memory ceiling in bytes.
    pub memory: u64,
    /// Folder for packed rows that memory has no room for.
    pub scratch: PathBuf,
    /// Where sums over groups are taken.
    pub device: Choice,
}

/// How values are made of what the matrix holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The sum that cells are normalised to.
    pub target_sum: Target,
    /// Whether the logarithm is taken.
    pub log1p: bool,
    /// Its base.
    pub base: Option<f64>,
}

/// An open matrix with labelled cells.
pub struct Subject {
    /// The matrix and its own tables.
    pub data: Dataset,
    /// Kept cells with their labels.
    pub obs: Table,
    /// Kept genes.
    pub var: Table,
    /// Which source rows are kept, `(n_obs of the source,)`.
    pub keep: Vec<bool>,
    /// The name of the store that has the labels.
    pub location: String,
    /// Steps to the kept cells and genes.
    pub select: Vec<Step>,
    /// Steps to the values.
    pub values: Vec<Step>,
    /// The base of the logarithm that the values are; `None`: natural.
    pub log_base: Option<f64>,
    /// How the values were made, in words.
    pub said: String,
    /// Says which matrix it is.
    recipe: Recipe,
    memory: u64,
    allowance: Allowance,
    spill: std::sync::Arc<Spill>,
    stage: Option<Stage>,
}

/// Entries of the first rows that are looked at.
const SEEN: u64 = 1 << 18;

impl Subject {
    /// Opens matrix and labels, matches cells and genes, and settles how values are made. Rows that several passes need are kept if
    /// `staged`.
    pub fn open(ask: &Ask, staged: bool, listener: &dyn Listener) -> Result<Subject> {
        let labels = match &ask.labels {
            None => None,
            Some(path) => {
                let store = AnnData::open(path)?;
                let mut warnings = Vec::new();
                let tables = (store.obs(&mut warnings)?, store.var(&mut warnings)?);
                Some((store, tables.0, tables.1))
            }
        };
        let of_labels = labels.as_ref().map_or(Ok(None), |(store, _, _)| recipe_of(store))?;
        let matrix = ask.matrix.clone().or_else(|| of_labels.as_ref().map(|r| r.input.matrix.clone())).unwrap_or_else(|| "X".into());
        let data = open(&ask.input, &matrix, ask.genome.clone(), &ask.scratch, ask.memory, listener)?;
        data.warnings.iter().for_each(|w| listener.warn(w));
        let n_obs = data.obs.n_rows();
        let (obs, var, keep, genes, location) = match labels {
            None => (data.obs.clone(), data.var.clone(), vec![true; n_obs], None, data.source.location().to_string()),
            Some((store, obs, var)) => {
                let location = store.location().to_string();
                let keep = found(&obs.index, &data.obs.index, "cell", &location, data.source.location())?;
                let genes = found(&var.index, &data.var.index, "gene", &location, data.source.location())?;
                // Rows of the labels in the order of the source.
                let obs = in_order_of(obs, &data.obs.index, &keep);
                (obs, data.var.select(&genes), keep, genes.contains(&false).then_some(genes), location)
            }
        };
        let filtered = of_labels.as_ref().is_some_and(|r| {
            let f = &r.filter;
            !f.genes.is_empty() || f.min_cells.is_some() || f.max_cells.is_some()
        });
        let mut select = kept_steps(&keep, genes.as_deref());
        if !filtered && let Some(at) = select.iter().position(|s| matches!(s, Step::KeepVar { .. })) {
            // Genes that were left out after normalisation count in a cell's total.
            select.insert(at, Step::TakeTotals);
        }
        let allowance = Allowance::new(if staged { ask.memory / 3 } else { 0 });
        let spill = std::sync::Arc::new(Spill::new(&ask.scratch));
        let stage = staged.then(|| Stage::new(cut(n_obs as u64).len(), &allowance, Some(spill.clone())));
        let mut subject = Subject {
            data,
            obs,
            var,
            keep,
            location,
            select,
            values: Vec::new(),
            log_base: None,
            said: String::new(),
            recipe: Recipe { input: crate::recipe::Input { matrix }, ..Recipe::default() },
            memory: ask.memory,
            allowance,
            spill,
            stage,
        };
        let own = subject.data.anndata.as_ref().map_or(Ok(None), recipe_of)?;
        subject.settle(ask.values.clone(), of_labels, own, listener)?;
        Ok(subject)
    }

    /// Where rows come from.
    pub fn feed(&self) -> Feed<'_> {
        Feed::new(&*self.data.source, self.stage.as_ref())
    }

    /// The rows that statistics look at.
    pub fn view(&self) -> View<'_> {
        let memory = if self.stage.is_some() { self.memory - self.memory / 3 } else { self.memory };
        // The program itself, and tables of cells.
        let held = (48 << 20) + self.data.obs.n_rows() as u64 * (48 + 16 * self.obs.columns.len() as u64);
        View {
            feed: self.feed(),
            select: &self.select,
            values: &self.values,
            n_vars: self.var.n_rows(),
            memory: memory.saturating_sub(held),
            cluster: None,
            gpus: &[],
            wide: None,
        }
    }

    /// Opens the GPUs that sums over `n_groups` groups are taken on, if there are any, the matrix is worth it and it is not `elsewhere` that
    /// they are taken. With `auto`, a ceiling without room for that leaves it to the CPU.
    pub fn processor<'a>(&self, ask: &Ask, elsewhere: bool, n_groups: usize, listener: &'a dyn Listener) -> Result<Opening<'a>> {
        let view = self.view();
        let nnz = view.entries();
        let room = View { memory: view.memory.saturating_sub(ask.device.host_bytes(nnz)), ..view };
        let low = ask.device.device == Word::Auto && !fits_gpus(&room, n_groups, 1, false);
        let choice = if elsewhere || low { Choice::default() } else { ask.device.clone() };
        choice.open_for_groups(nnz, listener)
    }

    /// The rows that statistics look at, read by the workers of a cluster or beside GPUs.
    pub fn view_by<'a>(&'a self, cluster: Option<&'a Cluster<'a>>, processor: &'a Processor) -> View<'a> {
        let view = self.view();
        let driver = driver_bytes(processor.devices().len());
        View { cluster, gpus: processor.devices(), memory: view.memory.saturating_sub(driver), ..view }
    }

    /// Has workers read the rows, if there is a dispatcher. `output`: their notes lie beside it until all is done.
    pub fn cluster<'a>(
        &self,
        dispatcher: Option<&'a dyn Dispatcher>,
        ask: &Ask,
        output: &Path,
        listener: &dyn Listener,
    ) -> Result<Option<Cluster<'a>>> {
        let source = &*self.data.source;
        let about = About { input: &ask.input, genome: ask.genome.as_deref(), recipe: &self.recipe, n_obs: source.shape().n_obs };
        let turned = self.data.turned.then_some((source, listener));
        dispatcher.map(|dispatcher| Cluster::passing(dispatcher, output, &about, self.stage.is_some(), turned)).transpose()
    }

    /// One code a source row from one a kept cell.
    pub fn spread(&self, codes: &[u32]) -> Vec<u32> {
        let mut codes = codes.iter();
        self.keep.iter().map(|&k| if k { codes.next().copied().unwrap_or(NO_GROUP) } else { NO_GROUP }).collect()
    }

    /// What went wrong with packed rows, if anything did.
    pub fn trouble(&self) -> Option<Error> {
        self.spill.trouble()
    }

    /// Settles the steps to the values.
    fn settle(&mut self, asked: Option<Made>, labels: Option<Recipe>, own: Option<Recipe>, listener: &dyn Listener) -> Result<()> {
        let of = |r: &Recipe| Made { target_sum: r.normalize.target_sum, log1p: r.log1p.enabled, base: r.log1p.base };
        let made = match (asked, &labels) {
            (Some(made), _) => made,
            // The recipe of the labels was for this very matrix.
            (None, Some(recipe)) => of(recipe),
            (None, None) if holds_counts(&*self.data.source)? => of(&own.unwrap_or_default()),
            (None, None) => {
                self.log_base = self.stored_base()?;
                Made { target_sum: Target::Word(TargetWord::None), log1p: false, base: None }
            }
        };
        if made.log1p {
            self.log_base = made.base;
        } else if self.log_base.is_none() {
            self.log_base = self.stored_base()?;
        }
        let target = match made.target_sum {
            Target::Sum(x) => Some(x),
            Target::Word(TargetWord::None) => None,
            Target::Word(TargetWord::Median) => Some(self.median(listener)?),
        };
        let recipe = Recipe {
            normalize: crate::recipe::Normalize { target_sum: made.target_sum },
            log1p: crate::recipe::Log1p { enabled: made.log1p, base: made.base },
            ..Recipe::default()
        };
        self.values = value_steps(&recipe, target);
        let log = match (made.log1p, made.base) {
            (false, _) => "",
            (true, None) => ", then log1p",
            (true, Some(_)) => ", then log1p to the recipe's base",
        };
        self.said = match target {
            None if made.log1p => "values after log1p".into(),
            None => "values as they are in the store".into(),
            Some(target) => format!("counts normalised to {target} a cell{log}"),
        };
        Ok(())
    }

    /// `uns['log1p']['base']` of the store.
    fn stored_base(&self) -> Result<Option<f64>> {
        let Some(store) = &self.data.anndata else { return Ok(None) };
        let element = store.element(&format!("uns/{}/base", keys::LOG1P), &mut Vec::new())?;
        Ok(match element {
            Some(Element::Scalar(values)) => values.number(0),
            _ => None,
        })
    }

    /// Median of the kept cells' totals over the kept genes; one pass.
    fn median(&self, listener: &dyn Listener) -> Result<f64> {
        let observer = Observer::new(listener, &*self.data.source);
        let watch = observer.stage("totals", "cells");
        let fold = Qc { n_vars: self.var.n_rows(), rows: RowQc::default(), counts: false };
        let select: Vec<Step> = self.select.iter().filter(|s| !matches!(s, Step::TakeTotals)).cloned().collect();
        let at = cellmill_engine::fold::At { step: select.len(), fold };
        let mut done = exec::run(self.feed(), &select, &at, &Aside::default(), None, &watch)?;
        watch.finish(self.obs.n_rows() as u64, done.entries, u32::from(done.decoded));
        match done.rows.take(EXACT_TOTAL) {
            Some(Values::F64(totals)) => Ok(median_of_positive(&totals).unwrap_or(1.0)),
            _ => Ok(1.0),
        }
    }

    /// Bytes of memory that staged rows may take.
    pub fn allowance(&self) -> &Allowance {
        &self.allowance
    }
}

/// Whether the first rows hold whole numbers alone.
pub(crate) fn holds_counts(source: &dyn Source) -> Result<bool> {
    let n_obs = source.shape().n_obs;
    let (mut end, mut rows) = (n_obs.min(4096), Csr::default());
    while end > 1 && source.entries_before(SourceRow(end)) > SEEN {
        end = end.div_ceil(2);
    }
    source.read(SourceRow(0)..SourceRow(end), &mut rows)?;
    let seen = look(&rows.data);
    Ok(seen.whole && seen.counts && !rows.data.is_empty())
}

/// The recipe that a run has left in its output.
fn recipe_of(store: &AnnData) -> Result<Option<Recipe>> {
    match store.element(&format!("uns/{}/recipe", keys::CELLMILL), &mut Vec::new())? {
        Some(Element::Scalar(text)) => Recipe::parse(&text.text(0), store.location()).map(Some),
        _ => Ok(None),
    }
}

/// Which of `all` names are wanted, `(all.len(),)`: names that repeat are matched in order.
fn found(wanted: &[String], all: &[String], what: &str, labels: &str, store: &str) -> Result<Vec<bool>> {
    let mut keep = vec![false; all.len()];
    let mut next = wanted.iter().peekable();
    for (keep, name) in keep.iter_mut().zip(all) {
        *keep = next.next_if(|w| *w == name).is_some();
    }
    if next.peek().is_none() {
        return Ok(keep);
    }
    // In another order: then names must be without repetition.
    let mut places: HashMap<&String, usize> = HashMap::with_capacity(all.len());
    for (i, name) in all.iter().enumerate() {
        if places.insert(name, i).is_some() {
            let found = format!("the {what} '{name}' twice, and {what}s in another order than in {labels}");
            return Err(Error::invalid(Place::store(store), found, format!("{what}s in the same order, or names that differ")));
        }
    }
    keep.fill(false);
    for name in wanted {
        match places.get(name) {
            Some(&i) if keep[i] => {
                let found = format!("the {what} '{name}' twice, which {store} has once");
                return Err(Error::invalid(Place::store(labels), found, "labels belong to cells and genes of the matrix"));
            }
            Some(&i) => keep[i] = true,
            None => {
                let found = format!("the {what} '{name}', which {store} doesn't have");
                return Err(Error::invalid(Place::store(labels), found, "labels belong to cells and genes of the matrix"));
            }
        }
    }
    Ok(keep)
}

/// The rows of `labels` in the order in which their names are kept of `all`.
fn in_order_of(labels: Table, all: &[String], keep: &[bool]) -> Table {
    let kept = || all.iter().zip(keep).filter(|(_, k)| **k).map(|(name, _)| name);
    if kept().eq(&labels.index) {
        return labels;
    }
    let places: HashMap<&String, usize> = labels.index.iter().enumerate().map(|(i, name)| (name, i)).collect();
    let order: Vec<usize> = kept().filter_map(|name| places.get(name).copied()).collect();
    let mut out = Table::of_index(order.iter().map(|&i| labels.index[i].clone()).collect());
    out.index_name.clone_from(&labels.index_name);
    for (name, column) in &labels.columns {
        let mut parts = order.iter().map(|&i| column.slice(i..i + 1));
        if let Some(first) = parts.next() {
            out.columns.push((name.clone(), parts.fold(first, appended)));
        }
    }
    out
}

/// A column with another of its kind behind it.
fn appended(a: cellmill_matrix::Column, b: cellmill_matrix::Column) -> cellmill_matrix::Column {
    use cellmill_matrix::Column;
    match (a, b) {
        (Column::Plain(a), Column::Plain(b)) => Column::Plain(joined(a, b)),
        (Column::Categorical { mut codes, categories, ordered }, Column::Categorical { codes: more, .. }) => {
            codes.extend(more);
            Column::Categorical { codes, categories, ordered }
        }
        (Column::Nullable { values, mut mask }, Column::Nullable { values: more, mask: missing }) => {
            mask.extend(missing);
            Column::Nullable { values: joined(values, more), mask }
        }
        (a, _) => a,
    }
}

fn joined(a: Values, b: Values) -> Values {
    macro_rules! join {
        ($($kind:ident),*) => {
            match (a, b) {
                $((Values::$kind(mut a), Values::$kind(b)) => { a.extend(b); Values::$kind(a) })*
                (a, _) => a,
            }
        };
    }
    join!(Bool, I8, I16, I32, I64, U8, U16, U32, U64, F32, F64, Str)
}

/// The folder in which temporary files of an output go: beside it, or the system's for what lies at a URL.
pub fn beside(path: &Path) -> PathBuf {
    if is_url(path) {
        return std::env::temp_dir();
    }
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn names_are_found_in_order_or_by_themselves() {
        let all = names(&["a", "b", "b", "c"]);
        assert_eq!(found(&names(&["a", "b", "c"]), &all, "cell", "l", "s").unwrap(), [true, true, false, true]);
        assert!(found(&names(&["c", "a"]), &all, "cell", "l", "s").unwrap_err().to_string().contains("'b' twice"));
        let all = names(&["a", "b", "c"]);
        assert_eq!(found(&names(&["c", "a"]), &all, "cell", "l", "s").unwrap(), [true, false, true]);
        let error = found(&names(&["c", "a", "c"]), &all, "cell", "l", "s").unwrap_err().to_string();
        assert!(error.starts_with("l: the cell 'c' twice, which s has once"), "{error}");
        let error = found(&names(&["x"]), &all, "cell", "out.zarr", "in.zarr").unwrap_err().to_string();
        assert_eq!(error, "out.zarr: the cell 'x', which in.zarr doesn't have, but labels belong to cells and genes of the matrix");
    }

    #[test]
    fn labels_follow_the_source() {
        let mut labels = Table::of_index(names(&["c", "a"]));
        labels.set("n", cellmill_matrix::Column::Plain(Values::I64(vec![3, 1])));
        let sorted = in_order_of(labels, &names(&["a", "b", "c"]), &[true, false, true]);
        assert_eq!((sorted.index, sorted.columns[0].1.number(0)), (names(&["a", "c"]), Some(1.0)));
    }
}

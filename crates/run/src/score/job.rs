//! `cellmill score`: open, score each cell for sets of genes, write a table or columns of obs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use cellmill_matrix::{Column, Error, Place, Result, Table, Values};
use cellmill_store::tree::TreeWriter;
use cellmill_store::write::{Format, create, write_root, write_table};
use cellmill_store::zarr::ZarrWriter;
use serde::Serialize;

use super::{Options, Set, control_genes, gene_means, phases, scores};
use crate::cluster::Dispatcher;
use crate::delimited::{Delimiter, save};
use crate::job::{local, pool};
use crate::observe::{Listener, Observer, StageTrace, peak_rss_bytes};
use crate::subject::{Ask, Subject};
use crate::view::View;

/// Where scores go.
#[derive(Clone, Debug)]
pub enum Output {
    /// A table of text, one line a cell.
    Text(PathBuf, Delimiter),
    /// A new store of obs and var.
    Store(PathBuf, Format),
    /// obs of the store (zarr) that has the labels.
    InPlace,
}

/// What to score.
#[derive(Clone, Debug)]
pub struct Job {
    /// The matrix and its cells.
    pub ask: Ask,
    /// Names of scores and their genes.
    pub sets: Vec<(String, Vec<String>)>,
    /// Genes of the S and of the G2M phase: `S_score`, `G2M_score` and `phase`.
    pub cell_cycle: Option<[Vec<String>; 2]>,
    /// How control genes are chosen; the pool is filled in from the names.
    pub options: Options,
    /// Genes that control genes are drawn from; `None`: all.
    pub gene_pool: Option<Vec<String>>,
    /// Where scores go.
    pub output: Output,
    /// Whether an output that exists is replaced.
    pub overwrite: bool,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// What was written.
    pub output: String,
    /// Cells and genes.
    pub shape: [usize; 2],
    /// How the values were made.
    pub values: String,
    /// Each score: its genes that are there, and its control genes.
    pub scores: BTreeMap<String, [usize; 2]>,
    /// Reads of the source.
    pub source_reads: u32,
    /// Wall-clock seconds.
    pub wall_s: f64,
    /// Largest resident memory in bytes.
    pub peak_rss_bytes: u64,
    /// Stages in order.
    pub stages: Vec<StageTrace>,
}

impl Job {
    /// Does it.
    pub fn run(&self, listener: &dyn Listener) -> Result<Summary> {
        self.run_with(None, listener)
    }

    /// Does it; the rows are read by the workers that `dispatcher` knows, if there is one.
    pub fn run_with(&self, dispatcher: Option<&dyn Dispatcher>, listener: &dyn Listener) -> Result<Summary> {
        let start = Instant::now();
        pool(self.ask.threads)?.install(|| {
            self.check_output()?;
            let mut asked = self.sets.clone();
            let mut cycle_size = None;
            if let Some([s, g2m]) = &self.cell_cycle {
                cycle_size = Some(s.len().min(g2m.len()));
                asked.extend([("S_score".into(), s.clone()), ("G2M_score".into(), g2m.clone())]);
            }
            if asked.is_empty() {
                return Err(Error::option("--set", "nothing", "at least one set of genes is needed"));
            }
            let subject = Subject::open(&self.ask, true, listener)?;
            let beside = match &self.output {
                Output::Text(path, _) | Output::Store(path, _) => path,
                Output::InPlace => self.labelled(),
            };
            let cluster = subject.cluster(dispatcher, &self.ask, beside, listener)?;
            let view = View { cluster: cluster.as_ref(), ..subject.view() };
            let mut places: BTreeMap<&String, u32> = BTreeMap::new();
            subject.var.index.iter().zip(0..).for_each(|(name, j)| _ = places.entry(name).or_insert(j));
            let mut options = self.options.clone();
            if let Some(pool) = &self.gene_pool {
                // As pandas' intersection: in the pool's order, each once.
                let mut seen = BTreeSet::new();
                let known = pool.iter().filter_map(|g| places.get(g).copied());
                options.gene_pool = Some(known.filter(|j| seen.insert(*j)).collect());
            }
            let observer = Observer::new(listener, &*subject.data.source);
            let watch = observer.stage("means of genes", "cells");
            let (means, mut reads) = gene_means(&view, &watch)?;
            watch.finish(subject.obs.n_rows() as u64, view.entries(), reads);
            let mut sets = Vec::new();
            for (name, genes) in &asked {
                let mut known: Vec<u32> = genes.iter().filter_map(|g| places.get(g).copied()).collect();
                known.sort_unstable();
                known.dedup();
                let unknown: Vec<&str> = genes.iter().filter(|g| !places.contains_key(g)).map(String::as_str).collect();
                if !unknown.is_empty() {
                    listener.warn(&format!("{name}: genes that are not in var are left out: {}", unknown.join(", ")));
                }
                if known.is_empty() {
                    let place = Place::element(&subject.location, "var");
                    return Err(Error::invalid(place, format!("none of the genes of '{name}'"), "at least one must be in var"));
                }
                let cycle = cycle_size.filter(|_| name == "S_score" || name == "G2M_score");
                let options = Options { ctrl_size: cycle.unwrap_or(options.ctrl_size), ..options.clone() };
                let control = control_genes(&means, &known, &options).map_err(|e| e.at(&Place::element(&subject.location, "var")))?;
                sets.push(Set { genes: known, control });
            }
            let watch = observer.stage("scores", "cells");
            let (found, more) = scores(&view, &sets, &watch)?;
            watch.finish(subject.obs.n_rows() as u64, view.entries(), more);
            reads += more;
            let mut columns: Vec<(String, Column)> =
                asked.iter().map(|(n, _)| n.clone()).zip(found.iter().map(|s| Column::Plain(Values::F64(s.clone())))).collect();
            if self.cell_cycle.is_some() {
                let [s, g2m] = [&found[found.len() - 2], &found[found.len() - 1]];
                columns.push(("phase".into(), Column::Plain(Values::Str(phases(s, g2m).into_iter().map(String::from).collect()))));
            }
            let output = self.write(&subject, columns)?;
            Ok(Summary {
                output,
                shape: [subject.obs.n_rows(), subject.var.n_rows()],
                values: subject.said.clone(),
                scores: asked.iter().zip(&sets).map(|((n, _), s)| (n.clone(), [s.genes.len(), s.control.len()])).collect(),
                source_reads: reads,
                wall_s: start.elapsed().as_secs_f64(),
                peak_rss_bytes: peak_rss_bytes(),
                stages: observer.stages(),
            })
        })
    }

    /// The store that gets columns of obs.
    fn labelled(&self) -> &PathBuf {
        self.ask.labels.as_ref().unwrap_or(&self.ask.input)
    }

    fn check_output(&self) -> Result<()> {
        match &self.output {
            Output::Text(path, _) | Output::Store(path, _) if path.exists() && !self.overwrite => {
                let place = Place::store(path.display().to_string());
                Err(Error::invalid(place, "it exists already", "-y (--overwrite) is needed to replace it"))
            }
            Output::Text(path, _) | Output::Store(path, _) => local(path),
            Output::InPlace if !self.labelled().is_dir() => {
                let place = Place::store(self.labelled().display().to_string());
                Err(Error::invalid(place, "not a zarr folder", "--in-place adds to zarr stores; write a table or a store with -o"))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, subject: &Subject, columns: Vec<(String, Column)>) -> Result<String> {
        let mut obs = subject.obs.clone();
        columns.iter().for_each(|(name, column)| obs.set(name, column.clone()));
        match &self.output {
            Output::Text(path, delimiter) => {
                let mut table = Table { index_name: "cell".into(), columns, ..Table::of_index(obs.index) };
                if subject.obs.index_name != "_index" {
                    table.index_name.clone_from(&subject.obs.index_name);
                }
                save(&table, path, *delimiter)?;
                Ok(path.display().to_string())
            }
            Output::Store(path, format) => {
                let writer = create(path, *format, self.overwrite)?;
                write_root(&*writer)?;
                write_table(&*writer, "obs", &obs)?;
                write_table(&*writer, "var", &subject.var)?;
                writer.finish()?;
                Ok(path.display().to_string())
            }
            Output::InPlace => {
                let path = self.labelled();
                let writer: Box<dyn TreeWriter> = Box::new(ZarrWriter::in_place(path)?);
                write_table(&*writer, "obs", &obs)?;
                writer.finish()?;
                Ok(format!("{} (obs)", path.display()))
            }
        }
    }
}

//! `cellmill aggregate`: open, aggregate, write a store of groups by genes.

use std::path::PathBuf;
use std::time::Instant;

use cellmill_engine::fold::NO_GROUP;
use cellmill_matrix::{Array, Error, Place, Result, Table, Values};
use cellmill_store::write::{Format, create, write_element, write_root, write_table};
use serde::Serialize;

use super::{Func, aggregate, combine};
use crate::cluster::Dispatcher;
use crate::job::{local, pool};
use crate::observe::{Listener, Observer, StageTrace, peak_rss_bytes};
use crate::subject::{Ask, Subject};
use crate::view::Groups;

/// What to aggregate.
#[derive(Clone, Debug)]
pub struct Job {
    /// The matrix and its labels.
    pub ask: Ask,
    /// Columns of obs.
    pub by: Vec<String>,
    /// What is taken over each group.
    pub funcs: Vec<Func>,
    /// Column of obs (bool) of the cells that count.
    pub mask: Option<String>,
    /// Degrees of freedom that a variance loses.
    pub dof: u32,
    /// The new store.
    pub output: PathBuf,
    /// Its format.
    pub format: Format,
    /// Whether an output that exists is replaced.
    pub overwrite: bool,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The new store.
    pub output: String,
    /// Columns of obs.
    pub by: Vec<String>,
    /// Groups and genes.
    pub shape: [usize; 2],
    /// Cells that were aggregated.
    pub n_obs: usize,
    /// Layers.
    pub layers: Vec<String>,
    /// How the values were made.
    pub values: String,
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
        if self.funcs.is_empty() {
            return Err(Error::option("func", "nothing", "at least one function is needed"));
        }
        local(&self.output)?;
        pool(self.ask.threads)?.install(|| {
            let subject = Subject::open(&self.ask, false, listener)?;
            let combined = combine(&subject.obs, &self.by, &subject.location)?;
            let missing = combined.codes.iter().filter(|c| **c == NO_GROUP).count();
            if missing > 0 {
                listener.warn(&format!("{missing} cells without a label in {} are left out", self.by.join(", ")));
            }
            let n_groups = combined.labels.n_rows();
            if n_groups == 0 {
                return Err(Error::invalid(Place::element(&subject.location, "obs"), "no cell with labels", "at least one is needed"));
            }
            let processor = subject.processor(&self.ask, dispatcher.is_some(), n_groups, listener)?;
            let mask = self.mask.as_ref().map(|name| mask(&subject.obs, name, &subject.location)).transpose()?;
            let mask = mask.map(|m| subject.spread(&m).into_iter().map(|c| c == 1).collect::<Vec<bool>>());
            let codes = subject.spread(&combined.codes);
            let cluster = subject.cluster(dispatcher, &self.ask, &self.output, listener)?;
            let observer = Observer::new(listener, &*subject.data.source);
            let watch = observer.stage("aggregate", "cells");
            let groups = Groups { codes: &codes, names: &combined.labels.index };
            let processor = processor.get()?;
            let view = subject.view_by(cluster.as_ref(), &processor);
            let done = aggregate(&view, &groups, &self.funcs, mask.as_deref(), self.dof, &watch)?;
            processor.devices().iter().flat_map(|device| device.left()).for_each(|why| listener.warn(&why));
            watch.finish(subject.obs.n_rows() as u64, subject.view().entries(), done.reads);
            let watch = observer.stage("writing", "groups");
            let writer = create(&self.output, self.format, self.overwrite)?;
            let w = &*writer;
            write_root(w)?;
            write_table(w, "obs", &combined.labels)?;
            write_table(w, "var", &subject.var)?;
            let shape = [n_groups, subject.var.n_rows()];
            for (func, values) in done.layers {
                let layer = Array { shape: shape.to_vec(), values: Values::F64(values) };
                write_element(w, &format!("layers/{}", func.name()), &cellmill_matrix::Element::Array(layer))?;
            }
            writer.finish()?;
            watch.finish(n_groups as u64, 0, 0);
            let stages = observer.stages();
            Ok(Summary {
                output: self.output.display().to_string(),
                by: self.by.clone(),
                shape,
                n_obs: subject.obs.n_rows() - missing,
                layers: self.funcs.iter().map(|f| f.name().to_string()).collect(),
                values: subject.said.clone(),
                source_reads: done.reads,
                wall_s: start.elapsed().as_secs_f64(),
                peak_rss_bytes: peak_rss_bytes(),
                stages,
            })
        })
    }
}

/// 1 for cells that count, else 0.
fn mask(obs: &Table, name: &str, location: &str) -> Result<Vec<u32>> {
    let column = obs.column(name).ok_or_else(|| Error::missing(Place::element(location, "obs"), name, obs.names()))?;
    Ok((0..obs.n_rows()).map(|i| u32::from(column.number(i).is_some_and(|x| x != 0.0))).collect())
}

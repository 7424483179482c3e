//! `cellmill markers`: open, rank the genes of each group, write a table or `uns['rank_genes_groups']`.

use std::path::PathBuf;
use std::time::Instant;

use cellmill_engine::fold::NO_GROUP;
use cellmill_matrix::{Element, Error, Place, Result};
use cellmill_store::tree::TreeWriter;
use cellmill_store::write::{Format, create, write_element, write_root, write_table};
use cellmill_store::zarr::ZarrWriter;
use serde::Serialize;

use super::{Markers, Method, Options, Params, rank_genes_groups, table, uns};
use crate::aggregate::categories;
use crate::cluster::Dispatcher;
use crate::delimited::{Delimiter, save};
use crate::job::{local, pool};
use crate::observe::{Listener, Observer, StageTrace, peak_rss_bytes};
use crate::subject::{Ask, Subject};
use crate::view::Groups;

/// Where markers go.
#[derive(Clone, Debug)]
pub enum Output {
    /// A table of text, one line a group and gene.
    Text(PathBuf, Delimiter),
    /// A new store of obs, var and uns.
    Store(PathBuf, Format),
    /// uns of the store (zarr) that has the labels.
    InPlace,
}

/// What to rank.
#[derive(Clone, Debug)]
pub struct Job {
    /// The matrix and its labels.
    pub ask: Ask,
    /// Column of obs with the groups.
    pub groupby: String,
    /// Names of the groups that are tested, with commas between them; empty: all.
    pub groups: Vec<String>,
    /// `rest`, or the name of the group that others are compared with.
    pub reference: String,
    /// Everything else; its groups and reference are filled in from the names.
    pub options: Options,
    /// The key in uns.
    pub key_added: String,
    /// Where markers go.
    pub output: Output,
    /// Whether an output that exists is replaced.
    pub overwrite: bool,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// What was written.
    pub output: String,
    /// Column of obs.
    pub groupby: String,
    /// scanpy's name of the method.
    pub method: String,
    /// What groups were compared with.
    pub reference: String,
    /// Cells and genes.
    pub shape: [usize; 2],
    /// How the values were made.
    pub values: String,
    /// The groups and their first genes.
    pub groups: Vec<Group>,
    /// Passes over the rows.
    pub passes: u32,
    /// Reads of the source.
    pub source_reads: u32,
    /// Wall-clock seconds.
    pub wall_s: f64,
    /// Largest resident memory in bytes.
    pub peak_rss_bytes: u64,
    /// Stages in order.
    pub stages: Vec<StageTrace>,
}

/// One group's first genes.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its cells.
    pub n_obs: usize,
    /// Best genes first.
    pub genes: Vec<Gene>,
}

/// A gene of a group.
#[derive(Clone, Debug, Serialize)]
pub struct Gene {
    /// Its name.
    pub name: String,
    /// Its score.
    pub score: f64,
    /// log2 of the ratio of mean expressions.
    pub logfoldchange: Option<f64>,
    /// Corrected p-value.
    pub pval_adj: Option<f64>,
}

/// Genes of each group in a summary.
const SHOWN: usize = 10;

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
            // Only ranks and regressions may take several passes.
            let staged = matches!(self.options.method, Method::Wilcoxon | Method::LogReg);
            let subject = Subject::open(&self.ask, staged, listener)?;
            let place = Place::element(&subject.location, "obs");
            let column = subject.obs.column(&self.groupby).ok_or_else(|| Error::missing(place, &self.groupby, subject.obs.names()))?;
            let (codes, values) = categories(column, subject.obs.n_rows());
            let names: Vec<String> = (0..values.len()).map(|i| values.text(i)).collect();
            let missing = codes.iter().filter(|c| **c == NO_GROUP).count();
            if missing > 0 {
                listener.warn(&format!("{missing} cells have no label in {}; they are compared with, not tested", self.groupby));
            }
            let labels = Place::element(&subject.location, format!("obs/{}", self.groupby));
            let missing = |name: &str| Error::missing(labels.clone(), name, names.iter().cloned());
            let number = |name: &str| names.iter().position(|n| n == name).map(|at| at as u32);
            let mut options = self.options.clone();
            for text in &self.groups {
                options.groups.extend(listed(text, number).map_err(missing)?);
            }
            options.reference = match self.reference.as_str() {
                "rest" => None,
                name => Some(number(name).ok_or_else(|| missing(name))?),
            };
            options.log_base = subject.log_base;
            let here = dispatcher.is_none() && options.is_for_gpus();
            let processor = subject.processor(&self.ask, !here, names.len(), listener)?;
            let spread = subject.spread(&codes);
            let beside = match &self.output {
                Output::Text(path, _) | Output::Store(path, _) => path,
                Output::InPlace => self.labelled(),
            };
            let cluster = subject.cluster(dispatcher, &self.ask, beside, listener)?;
            let processor = processor.get()?;
            let view = subject.view_by(cluster.as_ref(), &processor);
            let observer = Observer::new(listener, &*subject.data.source);
            let watch = observer.stage("markers", "cells");
            let groups = Groups { codes: &spread, names: &names };
            let found = rank_genes_groups(&view, &groups, &options, &watch).map_err(|e| e.at(&labels))?;
            watch.finish(subject.obs.n_rows() as u64, view.entries() * u64::from(found.passes), found.reads);
            found.warnings.iter().for_each(|w| listener.warn(w));
            processor.devices().iter().flat_map(|device| device.left()).for_each(|why| listener.warn(&why));
            if let Some(trouble) = subject.trouble() {
                listener.warn(&format!("{trouble}: packed rows found no room there and were decoded from the store again"));
            }
            let output = self.write(&found, &subject, &names)?;
            Ok(Summary {
                output,
                groupby: self.groupby.clone(),
                method: options.method.name().into(),
                reference: self.reference.clone(),
                shape: [subject.obs.n_rows(), subject.var.n_rows()],
                values: subject.said.clone(),
                groups: summary(&found, &codes, &names, &subject.var.index),
                passes: found.passes,
                source_reads: found.reads,
                wall_s: start.elapsed().as_secs_f64(),
                peak_rss_bytes: peak_rss_bytes(),
                stages: observer.stages(),
            })
        })
    }

    /// The store that gets uns.
    fn labelled(&self) -> &PathBuf {
        self.ask.labels.as_ref().unwrap_or(&self.ask.input)
    }

    /// Refuses an output that can't be written, before anything is read.
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

    fn write(&self, found: &Markers, subject: &Subject, names: &[String]) -> Result<String> {
        let genes = &subject.var.index;
        let matrix = self.ask.matrix.as_deref().unwrap_or("X");
        let element = || {
            let params = Params {
                groupby: &self.groupby,
                reference: &self.reference,
                method: self.options.method,
                use_raw: matrix.starts_with("raw"),
                layer: matrix.strip_prefix("layers/"),
                correction: self.options.correction,
            };
            uns(found, &params, genes, names)
        };
        let put = |w: &dyn TreeWriter, element: &Element| write_element(w, &format!("uns/{}", self.key_added), element);
        match &self.output {
            Output::Text(path, delimiter) => {
                save(&table(found, genes, names), path, *delimiter)?;
                Ok(path.display().to_string())
            }
            Output::Store(path, format) => {
                let writer = create(path, *format, self.overwrite)?;
                write_root(&*writer)?;
                write_table(&*writer, "obs", &subject.obs)?;
                write_table(&*writer, "var", &subject.var)?;
                put(&*writer, &element())?;
                writer.finish()?;
                Ok(path.display().to_string())
            }
            Output::InPlace => {
                let path = self.labelled();
                let writer: Box<dyn TreeWriter> = Box::new(ZarrWriter::in_place(path)?);
                writer.group("uns", Default::default())?;
                put(&*writer, &element())?;
                writer.finish()?;
                Ok(format!("{} (uns/{})", path.display(), self.key_added))
            }
        }
    }
}

/// The numbers of names in a text, with commas between them. A name may have commas itself: the longest that is known is taken. An error is
/// what is not known.
fn listed(text: &str, number: impl Fn(&str) -> Option<u32>) -> Result<Vec<u32>, &str> {
    let mut numbers = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let mut ends = std::iter::once(text.len()).chain(text.rmatch_indices(',').map(|(at, _)| at));
        let known = ends.find_map(|end| number(&text[..end]).map(|number| (number, end)));
        let (number, end) = known.ok_or_else(|| text.split(',').next().unwrap_or(text))?;
        numbers.push(number);
        rest = text.get(end + 1..);
    }
    Ok(numbers)
}

/// The first genes of each group.
fn summary(found: &Markers, codes: &[u32], names: &[String], genes: &[String]) -> Vec<Group> {
    let group = |r: &super::Ranked| Group {
        name: names[r.group as usize].clone(),
        n_obs: codes.iter().filter(|c| **c == r.group).count(),
        genes: (0..r.genes.len().min(SHOWN))
            .map(|i| Gene {
                name: genes[r.genes[i] as usize].clone(),
                score: r.scores[i],
                logfoldchange: r.tests.as_ref().map(|t| t.log_fold_changes[i]),
                pval_adj: r.tests.as_ref().map(|t| t.pvals_adj[i]),
            })
            .collect(),
    };
    found.ranked.iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_commas() {
        let names = ["T cell", "CD4-positive, alpha-beta T cell", "CD4-positive", "a,b", "", "T cell,a"];
        let number = |name: &str| names.iter().position(|n| *n == name).map(|at| at as u32);
        let listed = |text| listed(text, number);
        assert_eq!(listed("T cell"), Ok(vec![0]));
        assert_eq!(listed("CD4-positive, alpha-beta T cell,a,b"), Ok(vec![1, 3]));
        assert_eq!(listed("CD4-positive,T cell,a,b"), Err("b"));
        assert_eq!(listed("CD4-positive,a,b,"), Ok(vec![2, 3, 4]));
        assert_eq!(listed("T cell, alpha"), Err(" alpha"));
    }
}

//! Everything that the first reads decide: QC columns, kept cells and genes, the target sum, the moments of every gene and the highly
//! variable ones. Questions that can be asked of the same read are asked in the same read.

mod beside;
mod cells;
pub mod choice;
mod columns;
mod kept;
mod silent;

use cellmill_engine::chunk::RowColumns;
use cellmill_engine::exec::{self, Aside, Feed};
use cellmill_engine::fold::{At, Clipped, EXACT_TOTAL, GeneMoments, GeneTotals, Moments, Qc};
use cellmill_engine::host::hvg::{self, Flavor};
use cellmill_engine::journal::Journal;
use cellmill_engine::recipe::{Expression, RowQc, Step};
use cellmill_kernels::residual::Model;
use cellmill_matrix::{Column, Error, Place, Result, Table, Values, keys};

pub(crate) use self::columns::median_of_positive;
use self::columns::{batches, gene_set};
pub use self::kept::kept_steps;
pub(crate) use self::silent::Silent;
use crate::analysis::Input;
use crate::cluster::Cluster;
use crate::cluster::reads::{MomentFolds, Read};
use crate::device::Opening;
use crate::observe::Observer;
use crate::recipe::{DEFAULT_TOP_GENES, Recipe, Stage, Target, TargetWord};

/// What is known after the survey.
pub struct Survey {
    /// Kept cells: obs as it came, and QC columns.
    pub obs: Table,
    /// Kept genes: var as it came, QC columns, and what `highly_variable_genes` and `scale` write.
    pub var: Table,
    /// Which source rows are kept: `(n_obs of the source,)`.
    pub keep: Vec<bool>,
    /// Which source genes are kept; `None` if all.
    pub keep_genes: Option<Vec<bool>>,
    /// The sum that cells are normalised to; `None` if they are not.
    pub target_sum: Option<f64>,
    /// Moments of the kept genes over the kept cells, after normalisation and logarithm.
    pub moments: Option<GeneMoments>,
    /// Non-zero entries of the kept cells' genes, all counted by gene: `(n_vars,)`, before the cell filter.
    pub totals: GeneTotals,
    /// Things that the user should know.
    pub warnings: Vec<String>,
    /// Reads of the source.
    pub reads: u32,
}

/// Runs the survey as far as `through` needs it.
pub fn survey(input: &Input<'_>, recipe: &Recipe, through: Stage, observer: &Observer) -> Result<Survey> {
    let mut s = Surveyor::new(input, recipe, observer)?;
    let wants_hvg = through >= Stage::Hvg;
    let first = s.first_read(wants_hvg)?;
    s.decide_cells(first.rows)?;
    s.check_counts()?;
    s.decide_genes(first.kept)?;
    let mut moments = first.moments;
    if wants_hvg {
        moments = s.further_reads(moments)?;
        s.choose(moments)?;
    }
    Ok(s.done())
}

/// Moments of the kept cells at the three places where a flavour may look.
#[derive(Default)]
struct Found {
    raw: Option<Vec<GeneMoments>>,
    linear: Option<Vec<GeneMoments>>,
    logged: Option<Vec<GeneMoments>>,
}

struct First {
    rows: RowColumns,
    kept: Option<GeneTotals>,
    moments: Found,
}

struct Surveyor<'a> {
    feed: Feed<'a>,
    processor: &'a Opening<'a>,
    journal: Option<&'a Journal>,
    cluster: Option<&'a Cluster<'a>>,
    obs: &'a Table,
    var: &'a Table,
    recipe: &'a Recipe,
    observer: &'a Observer<'a>,
    /// QC of rows as it is written.
    row_qc: RowQc,
    /// Batch of each source row, and the batches' names.
    batch: Option<(Vec<u32>, Vec<String>)>,
    keep: Vec<bool>,
    totals: GeneTotals,
    out_obs: Table,
    out_var: Table,
    exact_total: Vec<f64>,
    keep_genes: Option<Vec<bool>>,
    target_sum: Option<f64>,
    logged: Option<GeneMoments>,
    warnings: Vec<String>,
    reads: u32,
}

impl<'a> Surveyor<'a> {
    fn new(input: &Input<'a>, recipe: &'a Recipe, observer: &'a Observer<'a>) -> Result<Self> {
        let Input { feed, obs, var, journal, cluster, processor, .. } = *input;
        let location = feed.source.location();
        let mut qc_vars = Vec::new();
        for (name, selector) in &recipe.qc.qc_vars {
            qc_vars.push((name.clone(), gene_set(name, selector, var, location)?));
        }
        if let Some(n) = recipe.qc.percent_top.iter().find(|n| **n == 0 || **n > var.n_rows()) {
            return Err(Error::option("qc.percent_top", n, format!("there are {} genes", var.n_rows())));
        }
        let batch = match &recipe.hvg.batch_key {
            None => None,
            Some(key) => Some(batches(obs, key, location)?),
        };
        Ok(Surveyor {
            feed,
            processor,
            journal,
            cluster,
            obs,
            var,
            recipe,
            observer,
            row_qc: RowQc { qc_vars, percent_top: recipe.qc.percent_top.clone(), log1p: recipe.qc.log1p },
            batch,
            keep: Vec::new(),
            totals: GeneTotals::default(),
            out_obs: Table::default(),
            out_var: var.clone(),
            exact_total: Vec::new(),
            keep_genes: None,
            target_sum: match recipe.normalize.target_sum {
                Target::Sum(x) => Some(x),
                Target::Word(_) => None,
            },
            logged: None,
            warnings: Vec::new(),
            reads: 0,
        })
    }

    fn place(&self, element: &str) -> Place {
        Place::element(self.feed.source.location(), element)
    }

    /// Whether the flavour compares raw counts.
    fn of_counts(&self) -> bool {
        self.recipe.hvg.flavor.of_counts()
    }

    fn has_gene_filter(&self) -> bool {
        let f = &self.recipe.filter;
        !f.genes.is_empty() || f.min_cells.is_some() || f.max_cells.is_some()
    }

    fn n_batches(&self) -> usize {
        self.batch.as_ref().map_or(1, |(_, names)| names.len())
    }

    /// Normalise and log, as far as the recipe has them; and after how many of these steps data are linear and logged.
    fn value_steps(&self, target: Option<f64>) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(target_sum) = target {
            steps.push(Step::NormalizeTotal { target_sum });
        }
        if self.recipe.log1p.enabled {
            steps.push(Step::Log1p { base: self.recipe.log1p.base });
        }
        steps
    }

    /// Which moments the flavour and `scale` need, at which step of a recipe whose value steps begin after `before` steps.
    fn moment_folds(&self, before: usize, values: &[Step], n_vars: usize, raw: bool) -> MomentFolds {
        let moments = |step: usize| At { step, fold: Moments { n_vars, n_batches: self.n_batches() } };
        let end = before + values.len();
        let has_log = values.iter().any(|s| matches!(s, Step::Log1p { .. }));
        let linear = self.recipe.hvg.flavor == Flavor::Seurat && has_log;
        (raw.then(|| moments(before)), (linear.then(|| moments(end - 1)), Some(moments(end))))
    }

    fn read<F: Read>(&mut self, recipe: &[Step], fold: &F) -> Result<(F::Output, RowColumns)> {
        self.read_as(F::NAME, self.feed, recipe, fold)
    }

    /// A read that the journal knows by another name, from another feed of the same rows.
    fn read_as<F: Read>(&mut self, name: &str, feed: Feed<'_>, recipe: &[Step], fold: &F) -> Result<(F::Output, RowColumns)> {
        let watch = self.observer.stage(F::NAME, "cells");
        let aside = Aside { batch: self.batch.as_ref().map(|(codes, _)| &codes[..]) };
        let done = match self.cluster {
            Some(cluster) => cluster.fold(recipe, fold, &aside, &watch)?,
            None => {
                let log = self.journal.map(|j| j.log(name));
                exec::run(feed, recipe, fold, &aside, log.as_ref(), &watch)?
            }
        };
        self.reads += u32::from(done.decoded);
        watch.finish(self.feed.source.shape().n_obs, done.entries, u32::from(done.decoded));
        Ok((done.output, done.rows))
    }

    fn first_read(&mut self, wants_hvg: bool) -> Result<First> {
        let n_vars = self.var.n_rows();
        let mut steps: Vec<Step> = self.cell_step()?.into_iter().collect();
        let before = steps.len();
        let ready = wants_hvg && !self.has_gene_filter();
        let target = self.target_sum;
        let median = self.recipe.normalize.target_sum == Target::Word(TargetWord::Median);
        let values = if ready && !median { self.value_steps(target) } else { Vec::new() };
        let mut folds = if ready && !median {
            self.moment_folds(before, &values, n_vars, self.of_counts())
        } else {
            // Raw moments can be taken before the median is known.
            let raw = (ready && self.of_counts()).then(|| At { step: before, fold: Moments { n_vars, n_batches: self.n_batches() } });
            (raw, (None, None))
        };
        if !wants_hvg {
            folds = (None, (None, None));
        }
        steps.extend(values);
        let kept = self.has_gene_filter().then(|| At { step: before, fold: Qc { n_vars, rows: RowQc::default(), counts: false } });
        let qc = At { step: 0, fold: Qc { n_vars, rows: self.row_qc.clone(), counts: self.needs_counts() } };
        // The second Qc only counts genes of kept cells; its row columns are those of kept rows and are dropped.
        let fold = (qc, (kept.map(|f| Silent { inner: f }), folds));
        let ((totals, (kept, (raw, (linear, logged)))), rows) = match self.ahead(&steps[before..], &fold.1.1) {
            Some(how) => self.read_beside_gpu(&steps, before, fold, how)?,
            None => self.read(&steps, &fold)?,
        };
        self.totals = totals;
        Ok(First { rows, kept, moments: Found { raw, linear, logged } })
    }

    /// Raw counts are needed unless the recipe says that X is normalised already.
    fn needs_counts(&self) -> bool {
        self.recipe.normalize.target_sum != Target::Word(TargetWord::None) || self.of_counts()
    }

    fn check_counts(&mut self) -> Result<()> {
        let t = &self.totals;
        let place = self.place(&self.recipe.input.matrix);
        let logged_already = self.recipe.normalize.target_sum == Target::Word(TargetWord::None) && !self.recipe.log1p.enabled;
        if self.needs_counts() && !t.whole && t.largest < LOG_LIKE {
            let found = format!("its values are fractions up to {}, as after log1p", t.largest);
            return Err(Error::invalid(
                place,
                found,
                "raw counts are needed here; choose them with --matrix raw/X or --matrix layers/counts, or say --target-sum none --no-log1p if X is to be taken as it is",
            ));
        }
        if logged_already && t.whole && t.largest > LOG_LIKE {
            let found = format!("its values are whole numbers up to {}, as raw counts are", t.largest);
            return Err(Error::invalid(
                place,
                found,
                "the recipe neither normalises nor takes logarithms; leave out --target-sum none and --no-log1p",
            ));
        }
        if self.needs_counts() && !t.whole {
            self.warnings.push(format!("{place}: not all values are whole numbers; they are taken as counts all the same"));
        }
        Ok(())
    }

    /// QC columns of var, and which genes are kept.
    fn decide_genes(&mut self, kept: Option<GeneTotals>) -> Result<()> {
        let t = &self.totals;
        let n = t.n_obs.max(1) as f64;
        let total: Vec<f32> = t.total.iter().map(|&x| x as f32).collect();
        let mean: Vec<f64> = t.total.iter().map(|&x| x / n).collect();
        let n_cells = |counts: &[u64]| Values::I64(counts.iter().map(|&c| c as i64).collect());
        let log1p = |v: &[f32]| Values::F32(v.iter().map(|&x| f64::from(x).ln_1p() as f32).collect());
        let mut set = |name: &str, values: Values| self.out_var.set(name, Column::Plain(values));
        set(keys::N_CELLS_BY_COUNTS, n_cells(&t.n_cells));
        if self.recipe.qc.log1p {
            set(&keys::log1p_of(keys::MEAN_COUNTS), Values::F64(mean.iter().map(|&x| x.ln_1p()).collect()));
        }
        set(keys::MEAN_COUNTS, Values::F64(mean));
        set(keys::PCT_DROPOUT_BY_COUNTS, Values::F64(t.n_cells.iter().map(|&c| (1.0 - c as f64 / n) * 100.0).collect()));
        set(keys::TOTAL_COUNTS, Values::F32(total.clone()));
        if self.recipe.qc.log1p {
            set(&keys::log1p_of(keys::TOTAL_COUNTS), log1p(&total));
        }
        let Some(kept) = kept else { return Ok(()) };
        let f = &self.recipe.filter;
        let mut keep = vec![true; self.var.n_rows()];
        if f.min_cells.is_some() || f.max_cells.is_some() {
            self.out_var.set(keys::N_CELLS, Column::Plain(n_cells(&kept.n_cells)));
            let (low, high) = (f.min_cells.unwrap_or(0), f.max_cells.unwrap_or(u64::MAX));
            keep.iter_mut().zip(&kept.n_cells).for_each(|(k, c)| *k &= (low..=high).contains(c));
        }
        if !f.genes.is_empty() {
            let known: Vec<String> = self.out_var.names().map(String::from).collect();
            let truth = Expression::parse(&f.genes)?.evaluate(keep.len(), |name| self.out_var.column(name), &known, &self.place("var"))?;
            keep.iter_mut().zip(truth).for_each(|(k, t)| *k &= t);
        }
        if !keep.contains(&true) {
            return Err(Error::invalid(
                self.place("var"),
                format!("no gene of {} passes the filter", keep.len()),
                "at least one must; loosen --filter-genes",
            ));
        }
        self.out_var = self.out_var.select(&keep);
        self.keep_genes = Some(keep);
        Ok(())
    }

    /// Whatever the first read could not know yet.
    fn further_reads(&mut self, mut found: Found) -> Result<Found> {
        let n_vars = self.out_var.n_rows();
        let mut steps = kept_steps(&self.keep, self.keep_genes.as_deref());
        let before = steps.len();
        let median = self.recipe.normalize.target_sum == Target::Word(TargetWord::Median);
        let missing_raw = self.of_counts() && found.raw.is_none();
        if median && (self.keep_genes.is_some() || missing_raw) {
            // Totals of the kept genes decide the median.
            let raw = missing_raw.then(|| At { step: before, fold: Moments { n_vars, n_batches: self.n_batches() } });
            let totals = At { step: before, fold: Qc { n_vars, rows: RowQc::default(), counts: false } };
            let ((_, raw), mut rows) = self.read(&steps, &(totals, raw))?;
            found.raw = raw.or(found.raw);
            if let Some(Values::F64(total)) = rows.take(EXACT_TOTAL) {
                self.exact_total = total;
            }
        }
        if median {
            self.target_sum = Some(median_of_positive(&self.exact_total).unwrap_or(1.0));
        }
        let values = self.value_steps(self.target_sum);
        if found.logged.is_none() {
            let folds = self.moment_folds(before, &values, n_vars, self.of_counts() && found.raw.is_none());
            steps.extend(values);
            let ((raw, (linear, logged)), _) = self.read(&steps, &folds)?;
            found = Found { raw: raw.or(found.raw), linear, logged };
        }
        Ok(found)
    }

    /// Highly variable genes, and the columns that `scale` writes.
    fn choose(&mut self, found: Found) -> Result<()> {
        let n_vars = self.out_var.n_rows();
        let h = &self.recipe.hvg;
        if let Some(n) = h.n_top_genes.filter(|&n| n > n_vars) {
            return Err(Error::option("n_top_genes", n, format!("there are {n_vars} genes")));
        }
        let n_top_genes = match h.n_top_genes {
            None => Some(DEFAULT_TOP_GENES.min(n_vars)),
            Some(0) => None,
            n => n,
        };
        let options = hvg::Options {
            n_top_genes,
            min_mean: h.min_mean,
            max_mean: h.max_mean,
            min_disp: h.min_disp,
            max_disp: h.max_disp,
            n_bins: h.n_bins,
            span: h.span,
        };
        let logged = found.logged.ok_or_else(|| Error::bug("moments were not taken"))?;
        let mut overall = GeneMoments::none(n_vars);
        logged.iter().for_each(|b| overall.merge(b));
        if self.of_counts() {
            let raw = found.raw.ok_or_else(|| Error::bug("raw moments were not taken"))?;
            match h.flavor {
                Flavor::PearsonResiduals => self.choose_pearson(&raw, n_top_genes.unwrap_or(DEFAULT_TOP_GENES.min(n_vars)))?,
                _ => self.choose_v3(&raw, &options)?,
            }
        } else {
            let of = found.linear.as_ref().unwrap_or(&logged);
            let names = self.batch.as_ref().map(|_| &self.out_var.index[..]);
            let (columns, warnings) = choice::dispersions(of, names, h.flavor, &options)?;
            self.note(warnings);
            self.set_all(columns);
        }
        if self.recipe.scale.enabled {
            let std = overall.variance().iter().map(|v| if *v > 0.0 { v.sqrt() } else { 1.0 }).collect();
            self.out_var.set(keys::MEAN, Column::Plain(Values::F64(overall.mean.clone())));
            self.out_var.set(keys::STD, Column::Plain(Values::F64(std)));
        }
        self.logged = Some(overall);
        Ok(())
    }

    fn choose_v3(&mut self, raw: &[GeneMoments], options: &hvg::Options) -> Result<()> {
        let fits = choice::fits(raw, options.span)?;
        let steps = kept_steps(&self.keep, self.keep_genes.as_deref());
        let clip = fits.iter().map(|f| f.clip.clone()).collect();
        let (sums, _) = self.read(&steps, &At { step: steps.len(), fold: Clipped { clip } })?;
        let (columns, warnings) = choice::ranks(raw, fits, &sums, self.batch.is_some(), self.recipe.hvg.flavor, options)?;
        self.note(warnings);
        self.set_all(columns);
        Ok(())
    }

    /// One more pass: residuals of the entries, and how often each total occurs.
    fn choose_pearson(&mut self, raw: &[GeneMoments], n_top_genes: usize) -> Result<()> {
        let model =
            Model { theta: self.recipe.hvg.theta.unwrap_or(THETA), clip: self.recipe.hvg.clip.unwrap_or_else(|| self.root_of_cells(raw)) };
        let fold = choice::expected(raw, model);
        let steps = kept_steps(&self.keep, self.keep_genes.as_deref());
        let (sums, _) = self.read(&steps, &At { step: steps.len(), fold: fold.clone() })?;
        let (columns, _) = choice::residuals(raw, &fold, &sums, self.batch.is_some(), n_top_genes)?;
        self.set_all(columns);
        Ok(())
    }

    /// √n of the cells. With batches, of the batch whose name comes first: scanpy 1.11 settles the clip there and keeps it for all others.
    fn root_of_cells(&self, raw: &[GeneMoments]) -> f64 {
        let n = match &self.batch {
            None => raw.first().map_or(0, |m| m.n_obs),
            Some((_, names)) => {
                let number = |name: &String| name.parse::<f64>().unwrap_or(f64::INFINITY);
                let present = names.iter().zip(raw).filter(|(_, m)| m.n_obs > 0);
                let first = present.min_by(|(a, _), (b, _)| number(a).total_cmp(&number(b)).then_with(|| a.cmp(b)));
                first.map_or(0, |(_, m)| m.n_obs)
            }
        };
        (n as f64).sqrt()
    }

    fn set_all(&mut self, columns: Vec<(&str, Values)>) {
        columns.into_iter().for_each(|(name, values)| self.out_var.set(name, Column::Plain(values)));
    }

    fn note(&mut self, warnings: Vec<String>) {
        for w in warnings {
            if !self.warnings.contains(&w) {
                self.warnings.push(w);
            }
        }
    }

    fn done(self) -> Survey {
        Survey {
            obs: self.out_obs,
            var: self.out_var,
            keep: self.keep,
            keep_genes: self.keep_genes,
            target_sum: self.target_sum,
            moments: self.logged,
            totals: self.totals,
            warnings: self.warnings,
            reads: self.reads,
        }
    }
}

/// Overdispersion of `pearson_residuals` unless the recipe says otherwise: scanpy's.
const THETA: f64 = 100.0;

/// log1p of counts stays below this (e²⁰ counts of one gene in one cell are not seen); raw counts of a whole data set exceed it.
const LOG_LIKE: f32 = 20.0;

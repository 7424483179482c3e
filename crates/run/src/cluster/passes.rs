//! Passes that the engine and the graph ask of a crew: the covariance, the projection, the neighbour search.

use std::io::Write;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use cellmill_engine::exec::cut;
use cellmill_engine::pca::{Columns, Crew, Fit, Products, Rows, TASKS_A_BLOCK};
use cellmill_engine::recipe::{Rows::Mask, Step};
use cellmill_graph::knn;
use cellmill_matrix::{Error, Place, Result, Watch};

use super::chunks::Deal;
use super::site::lock;
use super::{Cluster, Ground, MOST_ORDERS, What, spans};
use crate::analysis::kept;
use crate::device::{Word, is_refusal};

/// Where the components lie while neighbours are searched for: `(cells, components)` f32 in order of position.
pub(super) const ROWS: &str = "rows";

/// Lists of an order of the neighbour search, at least: about 16,384 cells.
const LISTS_AN_ORDER: usize = 32;

/// Tasks of an order that a GPU projects, at most: 131,072 cells, 52 MB of scores for 100 components.
pub(crate) const MOST_PROJECTED: usize = 8 * TASKS_A_BLOCK;

/// Orders that each worker gets of a pass whose orders take all of it: two, so that a slow worker may lose one to a fast one. Each leaves a
/// whole matrix, or reads all rows.
const LARGE_A_WORKER: usize = 2;

impl Cluster<'_> {
    /// Whether a worker has a GPU, and may use it.
    pub(crate) fn has_gpus(&self) -> bool {
        self.gpus.is_some_and(|gpus| gpus.some)
    }

    /// A pass on GPUs, if all workers compute there, it can be (`fit`), and none of its kind was refused; else, or where one of them can't
    /// though nobody insists, on CPUs.
    pub(super) fn on_gpus_or_cpus<T>(&self, refused: &AtomicBool, fit: bool, mut pass: impl FnMut(bool) -> Result<T>) -> Result<T> {
        let fit = fit && !refused.load(Ordering::Relaxed);
        let Some(gpus) = self.gpus.filter(|gpus| gpus.all && fit) else { return pass(false) };
        match pass(true) {
            Err(error) if is_refusal(&error) && gpus.choice.device == Word::Auto => {
                refused.store(true, Ordering::Relaxed);
                gpus.listener.warn(&format!("{error}; the CPUs of all workers do that"));
                pass(false)
            }
            done => done,
        }
    }

    /// Tasks or lists of an order that takes all of a worker: two orders a worker. A run that goes on keeps its cut, whatever workers there
    /// are now.
    pub(super) fn large(&self, name: &str, n: usize, unit: usize) -> Result<usize> {
        kept(Some(&self.journal), name, || {
            let orders = self.dispatcher.n_workers()?.max(1) * LARGE_A_WORKER;
            Ok(n.div_ceil(unit).div_ceil(orders).max(1) * unit)
        })
    }

    fn products_by(&self, on_gpus: bool, rows: &Rows<'_>, columns: &Columns, watch: &dyn Watch) -> Result<Products> {
        let n = cut(self.n_obs).len();
        let parts = spans(n, self.large("span", n, TASKS_A_BLOCK)?);
        let mut all: Option<Products> = None;
        let mut taken = Vec::new();
        let any = self.carry_out(
            What::Products,
            "covariance",
            &(rows.select, rows.transform, rows.n_genes, (columns, on_gpus)),
            &parts,
            &self.tasks(),
            watch,
            &mut |record, _| {
                taken.push(record.to_string());
                let found: Products = self.record(record)?;
                match &mut all {
                    None => all = Some(found),
                    Some(all) => all.merge(&found)?,
                }
                Ok(())
            },
        )?;
        taken.iter().for_each(|record| self.journal.forget(record));
        let all = all.ok_or_else(|| Error::bug("a covariance of no rows"))?;
        Ok(Products { decoded: all.decoded && any, ..all })
    }

    fn scores_by(&self, on_gpus: bool, rows: &Rows<'_>, fit: &Fit, watch: &dyn Watch) -> Result<Vec<f32>> {
        let tasks = self.tasks();
        let parts = match on_gpus {
            // A GPU takes one order at a time.
            true => spans(tasks.n_tasks, self.large("span", tasks.n_tasks, TASKS_A_BLOCK)?.min(MOST_PROJECTED)),
            false => self.parts(),
        };
        // Each part's scores go to their place, whichever comes first.
        let n_kept = |part: &Range<usize>| n_kept(rows.select, &((tasks.rows_before)(part.start)..(tasks.rows_before)(part.end)));
        let sizes = parts.iter().map(|part| Ok(n_kept(part)? * fit.n_comps())).collect::<Result<Vec<_>>>()?;
        if sizes.iter().sum::<usize>() != fit.n_scores() {
            return Err(Error::bug("other rows are projected than were multiplied"));
        }
        let mut scores = vec![0f32; fit.n_scores()];
        let mut rest = &mut scores[..];
        let mut places: Vec<_> = sizes.iter().filter_map(|&size| rest.split_off_mut(..size)).collect();
        let failed = OnceLock::new();
        let read = |record: &str, place: &mut [f32]| {
            // Who comes after an error need not look.
            if failed.get().is_some() {
                return Ok(());
            }
            let bytes = bytemuck::cast_slice_mut::<_, u8>(place);
            self.seen(record, || self.journal.read_bytes(record, bytes).then_some(()))
        };
        let pass = (rows.select, rows.transform, rows.n_genes, (fit, on_gpus, None::<Deal>));
        // Several threads read: pages that nobody has touched yet take longer than the record.
        let done = rayon::in_place_scope(|scope| {
            self.carry_out(What::Scores, "projection", &pass, &parts, &tasks, watch, &mut |record, number| {
                if failed.get().is_some() {
                    return Err(Error::bug("scores that can't be read"));
                }
                let place = std::mem::take(&mut places[number]);
                if rayon::current_num_threads() == 1 {
                    return read(record, place);
                }
                let (record, read, failed) = (record.to_string(), &read, &failed);
                // Of several errors the first will do.
                scope.spawn(move |_| read(&record, place).unwrap_or_else(|error| failed.set(error).unwrap_or(())));
                Ok(())
            })
        });
        // What a reader met came first.
        failed.into_inner().map_or(done.map(|_| scores), Err)
    }

    fn search_by(
        &self,
        on_gpus: bool,
        order: &knn::Order,
        watch: &dyn Watch,
        take: &mut dyn FnMut(usize, knn::Found) -> Result<()>,
    ) -> Result<()> {
        let n = order.n_lists();
        let ground = Ground { n_tasks: n, rows_before: Box::new(|lists| order.cells_before(lists)) };
        let parts = match on_gpus {
            true => spans(n, self.large("lists", n, LISTS_AN_ORDER)?),
            false => spans(n, n.div_ceil(MOST_ORDERS).max(LISTS_AN_ORDER)),
        };
        let mut there = Vec::new();
        self.carry_out(What::Neighbors, "neighbors", &(order, on_gpus), &parts, &ground, watch, &mut |record, number| {
            let first = parts[number].start;
            there.push((first, record.to_string()));
            // Nothing is taken yet of a search that CPUs may have to do again.
            if on_gpus { Ok(()) } else { take(first, self.record(record)?) }
        })?;
        if on_gpus {
            there.iter().try_for_each(|(first, record)| take(*first, self.record(record)?))?;
        }
        // The neighbours of all cells are a note of their own soon.
        there.iter().for_each(|(_, record)| self.journal.forget(record));
        Ok(())
    }

    /// Leaves rows for the workers, as they lie in memory.
    fn shelve(&self, rows: &dyn knn::Rows) -> Result<()> {
        const BLOCK: usize = 1 << 14;
        let (n, d) = (rows.n(), rows.d());
        let (path, draft) = (self.folder.join(ROWS), self.folder.join(format!("{ROWS}.part")));
        let fail = |e: std::io::Error| Error::io(Place::element(self.folder.display().to_string(), ROWS), &e);
        let mut file = std::fs::File::create(&draft).map_err(fail)?;
        let mut block = Vec::new();
        for first in (0..n).step_by(BLOCK) {
            block.resize(BLOCK.min(n - first) * d, 0f32);
            rows.copy(first, &mut block)?;
            file.write_all(bytemuck::cast_slice(&block)).map_err(fail)?;
        }
        file.sync_all().and_then(|()| std::fs::rename(&draft, &path)).map_err(fail)
    }
}

impl Crew for Cluster<'_> {
    fn products(&self, rows: &Rows<'_>, columns: &Columns, watch: &dyn Watch) -> Result<Products> {
        self.on_gpus_or_cpus(&self.rows_by_cpus, columns.largest.is_some(), |on_gpus| self.products_by(on_gpus, rows, columns, watch))
    }

    fn scores(&self, rows: &Rows<'_>, fit: &Fit, watch: &dyn Watch) -> Result<Option<Vec<f32>>> {
        self.on_gpus_or_cpus(&self.rows_by_cpus, true, |on_gpus| match self.scores.version {
            Some(version) => {
                *lock(&self.scores.chunked) = Some(self.chunks_by(version, on_gpus, rows, fit, watch)?);
                Ok(None)
            }
            None => self.scores_by(on_gpus, rows, fit, watch).map(Some),
        })
    }
}

impl knn::Crew for Cluster<'_> {
    fn search(
        &self,
        order: &knn::Order,
        rows: &dyn knn::Rows,
        watch: &dyn Watch,
        take: &mut dyn FnMut(usize, knn::Found) -> Result<()>,
    ) -> Result<bool> {
        self.shelve(rows)?;
        let search = |on_gpus| self.search_by(on_gpus, order, watch, take).map(|()| on_gpus);
        let on_gpus = self.on_gpus_or_cpus(&AtomicBool::default(), true, search)?;
        self.journal.forget(ROWS);
        Ok(on_gpus)
    }
}

/// How many of these rows are kept.
pub(super) fn n_kept(select: &[Step], rows: &Range<u64>) -> Result<usize> {
    match select.first() {
        Some(Step::KeepObs { rows: Mask { keep, first } }) => {
            Ok(keep[(rows.start - first) as usize..(rows.end - first) as usize].iter().filter(|kept| **kept).count())
        }
        Some(Step::KeepObs { .. }) => Err(Error::bug("rows that are projected are chosen by a rule")),
        _ => Ok((rows.end - rows.start) as usize),
    }
}

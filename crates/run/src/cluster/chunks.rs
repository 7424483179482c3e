//! The projection where the output is a zarr store: an order is some of its chunks of `X_pca`, which a worker leaves as they will lie
//! there. Neither the client nor a record has the scores. Rows that are kept don't end where tasks do: the first and the last task of an
//! order are projected by its neighbour too, and each takes its own rows.

use std::ops::Range;
use std::sync::Mutex;

use cellmill_engine::exec::{TASK_ROWS, cut};
use cellmill_engine::journal::Sum;
use cellmill_engine::pca::{Fit, Rows, TASKS_A_BLOCK};
use cellmill_engine::recipe::Step;
use cellmill_matrix::{Error, Result, Watch};
use cellmill_store::zarr::{RowChunks, ZarrVersion};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::passes::{MOST_PROJECTED, n_kept};
use super::site::{Site, lock};
use super::{Cluster, What, record_name, tasks_an_order};
use crate::chunked::{Chunked, chunk_name};

/// What becomes of the scores.
#[derive(Default)]
pub(super) struct Scores {
    /// Of the zarr store that gets them as the workers leave them.
    pub version: Option<ZarrVersion>,
    /// What they have left.
    pub chunked: Mutex<Option<Chunked>>,
}

/// How chunks are dealt to orders.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Deal {
    chunks: RowChunks,
    /// Chunks of an order.
    an_order: u64,
}

impl Deal {
    /// About what is kept of so many tasks an order, but a task's rows at least.
    fn new(chunks: RowChunks, tasks: usize, n_source: u64) -> Self {
        let ([n, _], [rows, _]) = (chunks.shape(), chunks.chunk());
        let wanted = (tasks as u64 * TASK_ROWS * n / n_source.max(1)).max(TASK_ROWS);
        Deal { chunks, an_order: wanted.div_ceil(rows) }
    }

    /// Tasks of each order. No two begin with the same one, as an order has a task's rows at least.
    fn parts(&self, select: &[Step], n_source: u64) -> Result<Vec<Range<usize>>> {
        let mut before = vec![0];
        for rows in cut(n_source) {
            before.push(before[before.len() - 1] + n_kept(select, &rows)? as u64);
        }
        if before.last() != Some(&self.chunks.shape()[0]) {
            return Err(Error::bug("other rows are projected than were multiplied"));
        }
        let part = |order: u64| {
            let rows = self.rows(order);
            before.partition_point(|&kept| kept <= rows.start) - 1..before.partition_point(|&kept| kept < rows.end)
        };
        Ok((0..self.chunks.n_chunks().div_ceil(self.an_order)).map(part).collect())
    }

    fn chunks_of(&self, order: u64) -> Range<u64> {
        order * self.an_order..((order + 1) * self.an_order).min(self.chunks.n_chunks())
    }

    /// Kept rows of an order.
    fn rows(&self, order: u64) -> Range<u64> {
        self.chunks.span(self.chunks_of(order))
    }

    /// The order of tasks before which so many rows are kept.
    fn order(&self, kept_before: u64) -> u64 {
        kept_before.div_ceil(self.an_order * self.chunks.chunk()[0])
    }
}

impl Cluster<'_> {
    /// Where the output is to have the scores as chunks of a zarr store.
    pub fn into_chunks(mut self, version: Option<ZarrVersion>) -> Self {
        self.scores.version = version;
        self
    }

    /// The scores that workers have left as chunks.
    pub(crate) fn chunked(&self) -> Option<Chunked> {
        lock(&self.scores.chunked).take()
    }

    pub(super) fn chunks_by(&self, version: ZarrVersion, on_gpus: bool, rows: &Rows<'_>, fit: &Fit, watch: &dyn Watch) -> Result<Chunked> {
        let tasks = self.tasks();
        let size = match on_gpus {
            true => self.large("span", tasks.n_tasks, TASKS_A_BLOCK)?.min(MOST_PROJECTED),
            false => tasks_an_order(self.n_obs),
        };
        let chunks = RowChunks::new(version, fit.n_obs(), fit.n_comps() as u64);
        let deal = Deal::new(chunks, size, self.n_obs);
        let parts = deal.parts(rows.select, self.n_obs)?;
        let pass = (rows.select, rows.transform, rows.n_genes, (fit, on_gpus, Some(&deal)));
        let name = self.pass_name("projection", &pass)?;
        // A chunk may have been damaged since its order was carried out.
        parts.par_iter().enumerate().for_each(|(order, part)| {
            let record = record_name(&name, part);
            let sums: Option<Vec<Sum>> = self.journal.record(&record);
            let whole = |sums: Vec<Sum>| {
                deal.chunks_of(order as u64).zip(sums).all(|(chunk, sum)| self.journal.has_file(&chunk_name(&name, chunk), &sum))
            };
            if !sums.is_some_and(whole) {
                self.journal.forget(&record);
            }
        });
        let mut sums = vec![Sum::default(); chunks.n_chunks() as usize];
        self.carry_out(What::Scores, "projection", &pass, &parts, &tasks, watch, &mut |record, number| {
            let found: Vec<Sum> = self.record(record)?;
            let due = deal.chunks_of(number as u64);
            for (chunk, sum) in due.clone().zip(&found) {
                // A network file system may show it later than the record.
                let name = chunk_name(&name, chunk);
                self.seen(&name, || self.journal.sees_file(&name, sum).then_some(()))?;
            }
            let place = &mut sums[due.start as usize..due.end as usize];
            if place.len() != found.len() {
                return Err(Error::bug("chunks of another order"));
            }
            place.copy_from_slice(&found);
            Ok(())
        })?;
        Ok(Chunked::new(&self.journal, name, chunks, sums))
    }
}

impl Site {
    /// Leaves the chunks of an order, of the scores of its tasks' rows.
    pub(super) fn leave_chunks(
        &self,
        deal: &Deal,
        pass: &str,
        select: &[Step],
        tasks: Range<usize>,
        scores: &[f32],
        record: &str,
    ) -> Result<()> {
        let source = self.source_rows(tasks);
        let before = n_kept(select, &(0..source.start))? as u64;
        let order = deal.order(before);
        let wide = deal.chunks.shape()[1];
        let mut sums = Vec::new();
        for chunk in deal.chunks_of(order) {
            let rows = deal.chunks.span(chunk..chunk + 1);
            let at = |row: u64| row.checked_sub(before).map(|row| (row * wide) as usize);
            let rows = at(rows.start).zip(at(rows.end)).and_then(|(start, end)| scores.get(start..end));
            let rows = rows.ok_or_else(|| Error::bug("a chunk of rows that others have"))?;
            let name = chunk_name(pass, chunk);
            sums.push(self.kept(&name, self.journal.keep_file(&name, &deal.chunks.encode(rows)?))?);
        }
        self.leave(record, &sums)
    }
}

#[cfg(test)]
mod tests {
    use cellmill_engine::recipe::Rows::Mask;

    use super::*;

    #[test]
    fn orders_are_chunks_and_the_tasks_that_have_their_rows() {
        let n_source = 300_000;
        for (kept_of, wide) in [(1, 60), (3, 60), (40, 60), (1, 500), (7, 1)] {
            let keep: Vec<bool> = (0..n_source).map(|row| row > 9000 && (row / 5) % kept_of == 0).collect();
            let rows: Vec<u64> = (0..n_source).filter(|&row| keep[row as usize]).collect();
            let select = [Step::KeepObs { rows: Mask { keep, first: 0 } }];
            let deal = Deal::new(RowChunks::new(ZarrVersion::V3, rows.len() as u64, wide), 4, n_source);
            let parts = deal.parts(&select, n_source).unwrap();
            assert!(parts.is_sorted_by(|a, b| a.start < b.start), "{parts:?}");
            for (order, part) in parts.iter().enumerate() {
                let own = deal.rows(order as u64);
                let (first, last) = (rows[own.start as usize], rows[own.end as usize - 1]);
                assert_eq!(*part, (first / TASK_ROWS) as usize..(last / TASK_ROWS) as usize + 1);
                // A worker is told the tasks alone.
                let before = n_kept(&select, &(0..part.start as u64 * TASK_ROWS)).unwrap();
                assert_eq!(deal.order(before as u64), order as u64);
            }
            assert_eq!(deal.rows(parts.len() as u64 - 1).end, rows.len() as u64);
        }
    }
}

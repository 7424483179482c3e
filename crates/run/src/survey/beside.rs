//! The first read beside a GPU.

use cellmill_engine::chunk::RowColumns;
use cellmill_engine::exec::{Feed, cut};
use cellmill_engine::fold::Fold;
use cellmill_engine::pca::ahead::{self, Ahead, Reading};
use cellmill_engine::reader::Reader;
use cellmill_engine::recipe::Step;
use cellmill_engine::stage::{Allowance, Stage};
use cellmill_kernels::transform::cuda::Logged;
use cellmill_matrix::{Error, Result};

use super::Surveyor;
use crate::cluster::reads::{First, MomentFolds, Read};

impl Surveyor<'_> {
    /// What a GPU does to the staged rows before it takes their moments, if it is to take them: those of one batch, of logarithms alone.
    pub(super) fn ahead(&self, values: &[Step], folds: &MomentFolds) -> Option<Logged> {
        let how = match values {
            [Step::NormalizeTotal { target_sum }, Step::Log1p { base }] => {
                Logged { target_sum: Some(*target_sum), log1p: true, base: *base }
            }
            _ => return None,
        };
        let fit = matches!(folds, (None, (None, Some(_)))) && self.batch.is_none();
        let on_gpu = match self.cluster {
            Some(cluster) => cluster.is_on_gpus() && self.is_read_by_gpus(how),
            None => self.feed.stage.is_some() && self.processor.is_gpu(),
        };
        (fit && on_gpu).then_some(how)
    }

    /// Whether a worker's GPU can read the matrix.
    fn is_read_by_gpus(&self, how: Logged) -> bool {
        let stage = Stage::new(0, &Allowance::default(), None);
        Reader::first(self.feed.source, &stage, &self.row_qc, how).is_some()
    }

    /// The first read, while GPUs take the moments of what is staged: those of the workers, if there are any. The first of `steps` filter.
    pub(super) fn read_beside_gpu(
        &mut self,
        steps: &[Step],
        n_filters: usize,
        fold: First,
        how: Logged,
    ) -> Result<(<First as Fold>::Output, RowColumns)> {
        let filters = &steps[..n_filters];
        let silent = (fold.0.clone(), (fold.1.0.clone(), (None, (None, None))));
        if let Some(cluster) = self.cluster {
            let watch = self.observer.stage(First::NAME, "cells");
            let (done, moments) = cluster.first(&(filters.to_vec(), silent, how), steps, &fold, &watch)?;
            self.reads += u32::from(done.decoded);
            watch.finish(self.feed.source.shape().n_obs, done.entries, u32::from(done.decoded));
            let mut found = done.output;
            if let Some(moments) = moments {
                found.1.1.1.1 = Some(vec![moments]);
            }
            return Ok((found, done.rows));
        }
        self.read_beside_own_gpu(filters, silent, how)
    }

    fn read_beside_own_gpu(&mut self, filters: &[Step], fold: First, how: Logged) -> Result<(<First as Fold>::Output, RowColumns)> {
        let (feed, processor, reading) = (self.feed, self.processor, Reading::default());
        let (row_qc, n_threads) = (self.row_qc.clone(), rayon::current_num_threads());
        let n_tasks = cut(feed.source.shape().n_obs).len();
        let reader = feed.stage.and_then(|stage| Reader::first(feed.source, stage, &row_qc, how));
        let feed = Feed { reader: reader.as_ref(), ..feed };
        std::thread::scope(|scope| {
            let ahead = scope.spawn(|| {
                let processor = processor.get()?;
                if let Some(reader) = &reader {
                    reader.open(processor.devices(), n_threads)?;
                }
                ahead::moments(processor.devices(), feed, filters, how, 0..n_tasks, &reading)
            });
            let read = reading.during(|| {
                let found = self.read_as("quality control beside a GPU", feed, filters, &fold)?;
                Ok((found, ahead::fill(feed, filters)?))
            });
            let ahead = ahead.join().map_err(|_| Error::bug("the thread that takes moments on the GPU has panicked"))?;
            let (mut found, filled) = read?;
            if let Some(Ahead { moments, decoded }) = ahead? {
                self.reads += u32::from(filled | decoded);
                found.0.1.1.1.1 = Some(vec![moments]);
            }
            Ok(found)
        })
    }
}

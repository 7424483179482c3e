//! The first read beside a GPU.

use cellmill_engine::chunk::RowColumns;
use cellmill_engine::exec::Feed;
use cellmill_engine::fold::Fold;
use cellmill_engine::pca::ahead::{self, Ahead, Reading};
use cellmill_engine::reader::Reader;
use cellmill_engine::recipe::Step;
use cellmill_kernels::transform::cuda::Logged;
use cellmill_matrix::{Error, Result};

use super::Surveyor;
use crate::cluster::reads::{First, MomentFolds};

impl Surveyor<'_> {
    /// What a GPU does to the staged rows before it takes their moments, if it is to take them: those of one batch, of logarithms alone.
    pub(super) fn ahead(&self, values: &[Step], folds: &MomentFolds) -> Option<Logged> {
        let how = match values {
            [Step::NormalizeTotal { target_sum }, Step::Log1p { base }] => {
                Logged { target_sum: Some(*target_sum), log1p: true, base: *base }
            }
            _ => return None,
        };
        let fit = matches!(folds, (None, (None, Some(_)))) && self.batch.is_none() && self.cluster.is_none();
        (fit && self.feed.stage.is_some() && self.processor.is_gpu()).then_some(how)
    }

    /// The first read, while a GPU takes the moments of what is staged.
    pub(super) fn read_beside_gpu(
        &mut self,
        filters: &[Step],
        mut fold: First,
        how: Logged,
    ) -> Result<(<First as Fold>::Output, RowColumns)> {
        fold.1.1 = (None, (None, None));
        let (feed, processor, reading) = (self.feed, self.processor, Reading::default());
        let (row_qc, n_threads) = (self.row_qc.clone(), rayon::current_num_threads());
        let reader = feed.stage.and_then(|stage| Reader::first(feed.source, stage, &row_qc, how));
        let feed = Feed { reader: reader.as_ref(), ..feed };
        std::thread::scope(|scope| {
            let ahead = scope.spawn(|| {
                let processor = processor.get()?;
                if let Some(reader) = &reader {
                    reader.open(processor.devices(), n_threads)?;
                }
                ahead::moments(processor.devices(), feed, filters, how, &reading)
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

//! The first read where all workers have a GPU: there it reads whole tasks and takes the moments of the rows that stay, as in one process.

use std::ops::Range;
use std::sync::Arc;

use cellmill_engine::exec::{self, Aside, Done, Feed, TaskOutput};
use cellmill_engine::fold::{Fold, GeneMoments};
use cellmill_engine::pca::ahead::{self, Reading};
use cellmill_engine::reader::{Cards, Reader};
use cellmill_engine::recipe::Step;
use cellmill_kernels::transform::cuda::Logged;
use cellmill_matrix::{Error, Result, Watch};

use super::reads::First;
use super::site::{Site, lock};
use super::{Cluster, What};
use crate::device;

/// What is asked of workers: filters, the fold without moments, and what is done to the rows before theirs are taken.
type Pass = (Vec<Step>, First, Logged);

/// What a worker finds.
type Found = (TaskOutput<<First as Fold>::State>, GeneMoments);

/// What the first read finds; second, moments that GPUs took.
type Totals = (Done<<First as Fold>::Output>, Option<GeneMoments>);

/// What of a worker's GPU belongs to the first read.
#[derive(Default)]
pub(super) struct Desk {
    cards: Arc<Cards>,
    /// Whether somebody opens it, or has.
    begun: bool,
}

impl Desk {
    /// Opens it, if nobody has yet.
    fn begin<T>(&mut self, open: impl FnOnce() -> T) -> Option<T> {
        (!std::mem::replace(&mut self.begun, true)).then(open)
    }

    /// The first read is over, but for an order that comes a second time: threads read for that.
    pub(super) fn close(&mut self) {
        *self = Desk { cards: Arc::default(), begun: true };
    }
}

impl Cluster<'_> {
    /// Whether all workers compute on GPUs.
    pub(crate) fn is_on_gpus(&self) -> bool {
        self.gpus.is_some_and(|gpus| gpus.all)
    }

    /// The first read: by the GPUs of all workers, as `beside` says; where one of them can't though nobody insists, by their CPUs: `steps`
    /// and `fold` then, which takes the moments itself.
    pub(crate) fn first(&self, beside: &Pass, steps: &[Step], fold: &First, watch: &dyn Watch) -> Result<Totals> {
        self.on_gpus_or_cpus(&self.rows_by_cpus, true, |on_gpus| match on_gpus {
            true => self.merged(What::Beside, beside, &beside.1, watch, |a: &mut GeneMoments, b| a.merge(&b)),
            false => Ok((self.fold(steps, fold, &Aside::default(), watch)?, None)),
        })
    }
}

impl Site {
    /// Reads some tasks beside the GPU.
    pub(super) fn read_beside(self: &Arc<Self>, name: &str, part: Range<usize>, record: &str) -> Result<()> {
        let pass = self.pass::<Pass>(name)?;
        let (filters, fold, how) = &*pass;
        let reader = self.reader(&pass).ok_or_else(|| device::on(&self.name, "the matrix is not fit to be read there"))?;
        // Threads read until it is open.
        let opening = lock(&self.desk).begin(|| {
            let (site, pass) = (self.clone(), pass.clone());
            std::thread::spawn(move || site.open_reader(&pass))
        });
        let feed = Feed { reader: Some(&reader), ..self.feed() };
        let found = crate::job::pool(1)?.install(|| exec::part(feed, filters, fold, &Aside::default(), part.clone(), None, &()));
        // Whatever has come of it, no thread is left behind that talks to the driver.
        if let Some(opening) = opening {
            opening.join().map_err(|_| Error::bug("the thread that opens the GPU has panicked"))??;
        }
        let found = found?;
        let reading = Reading::default();
        reading.during(|| Ok(()))?;
        let moments = self.on_gpu(|gpu| {
            let ahead = ahead::moments(gpu.devices(), feed, filters, *how, part, &reading)?;
            if ahead.is_none() {
                gpu.devices().iter().for_each(|device| device.leave("there is no room for the rows of some tasks".into()));
            }
            Ok(ahead.map(|ahead| ahead.moments))
        })?;
        let found: Found = (found, moments);
        self.leave(record, &found)
    }

    /// Whoever reads on the GPU, if the matrix is fit for that.
    fn reader<'a>(&'a self, (_, fold, how): &'a Pass) -> Option<Reader<'a>> {
        let reader = Reader::first(&*self.source, self.stage.as_ref()?, &fold.0.fold.rows, *how)?;
        Some(reader.with(lock(&self.desk).cards.clone()))
    }

    fn open_reader(&self, pass: &Pass) -> Result<()> {
        let Some(reader) = self.reader(pass) else { return Ok(()) };
        self.on_gpu(|gpu| reader.open(gpu.devices(), self.threads).map(Some))
    }
}

//! A worker's side: it opens the input once, keeps the rows that it has read, packed, for the passes to come, and carries out orders.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cellmill_cuda::{Memory, Processor};
use cellmill_engine::exec::{self, Aside, Feed, TASK_ROWS, cut};
use cellmill_engine::fold::{At, ByGene, Clipped, Cross, Grouped, Logistic, Moments, Residuals, SetSums};
use cellmill_engine::journal::Journal;
use cellmill_engine::pca::{self, Columns, Fit, Products, Rows};
use cellmill_engine::recipe::Step;
use cellmill_engine::stage::{Allowance, Spill, Stage};
use cellmill_graph::Connectivities;
use cellmill_graph::knn::{self, Knn, RowFile};
use cellmill_matrix::{Error, ErrorKind, Place, Result, Source, SourceRow};
use cellmill_store::dataset::{OpenOptions, open_rows};
use rayon::ThreadPool;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::beside::Desk;
use super::chunks::Deal;
use super::passes::{ROWS, n_kept};
use super::reads::{First, GroupedValues, MomentFolds, Read, Totals};
use super::{Message, PREMISES, Premises, VERSION, What, record_name};
use crate::budget::say_bytes;
use crate::device::{self, Choice, Word};
use crate::fingerprint::identity;
use crate::graph::{JOINED, Layout, SEARCHED, found_of, graph_bytes, graph_of, partition, weights};
use crate::job::Job;
use crate::observe::{Listener, StageTrace};
use crate::plan::{JOINERS, PROGRAM, Size, Whose, densest_task, estimate_of};
use crate::recipe::{Recipe, Stage as Through};

/// What a worker has.
#[derive(Clone, Debug)]
pub struct Worker {
    /// What it is called.
    pub name: String,
    /// Threads; as many orders may come at a time.
    pub threads: usize,
    /// Memory ceiling in bytes.
    pub memory: u64,
    /// Where packed rows go that memory has no room for.
    pub scratch: PathBuf,
}

/// A run as one worker process sees it.
pub(super) struct Site {
    run: String,
    /// The worker's name.
    pub(super) name: String,
    /// Its memory ceiling in bytes.
    memory: u64,
    pub(super) threads: usize,
    recipe: Recipe,
    pub(super) journal: Journal,
    pub(super) source: Box<dyn Source>,
    /// Kept rows of all genes, if several passes ask for them.
    pub(super) stage: Option<Stage>,
    /// Chosen columns.
    selected: Stage,
    /// What computes, as far as this worker has it, and the input's entries.
    choice: (Choice, u64),
    /// The GPU of the passes, once it is open.
    gpu: Mutex<Option<Processor>>,
    /// What reads there.
    pub(super) desk: Mutex<Desk>,
    /// All threads, for an order that takes them all: one at a time.
    pool: Mutex<ThreadPool>,
    /// Passes as they were read, by name.
    passes: Mutex<BTreeMap<String, Arc<dyn Any + Send + Sync>>>,
}

/// The run that this process has worked for last: a worker keeps the rows of one.
static SITE: Mutex<Option<Arc<Site>>> = Mutex::new(None);

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries out an order.
pub fn carry_out(order: &str, worker: &Worker) -> Result<()> {
    let message = message_of(order, worker)?;
    let site = {
        // Orders that come together wait until the first of them has opened the input.
        let mut held = lock(&SITE);
        match &*held {
            Some(site) if site.run == message.run => site.clone(),
            _ => {
                *held = None;
                let site = Arc::new(Site::open(&message, worker)?);
                *held = Some(site.clone());
                site
            }
        }
    };
    site.work(&message)
}

/// An order, if this version of cellmill has written it.
fn message_of(order: &str, worker: &Worker) -> Result<Message> {
    #[derive(Default, Deserialize)]
    struct From {
        #[serde(default)]
        version: String,
    }
    let from: From = serde_json::from_str(order).unwrap_or_default();
    if from.version != VERSION {
        let theirs = if from.version.is_empty() { "unknown" } else { &from.version };
        let found = format!("an order of a client of version {theirs}");
        let expected = format!("the worker has {VERSION}; client and workers need the same version");
        return Err(Error::invalid(Place::store(format!("worker {}", worker.name)), found, expected));
    }
    serde_json::from_str(order).map_err(|e| Error::bug(format!("an order that can't be read: {e}")))
}

/// Forgets a run and its rows.
pub fn leave(run: &str) {
    let mut held = lock(&SITE);
    if held.as_ref().is_some_and(|site| site.run == run) {
        *held = None;
    }
}

impl Premises {
    /// What a worker does of the run, for its plan.
    fn job(&self, recipe: Recipe, worker: &Worker, device: Choice) -> Job {
        Job {
            input: self.input.clone(),
            output: PathBuf::new(),
            format: None,
            overwrite: false,
            in_place: false,
            with_x: None,
            recipe,
            through: if self.components { Through::Pca } else { Through::Qc },
            threads: worker.threads,
            memory: worker.memory,
            genome: self.genome.clone(),
            spill_dir: None,
            resume: false,
            device,
        }
    }

    /// What computes on this worker.
    fn choice(&self) -> Choice {
        let (initial, max) = self.gpu_memory;
        Choice { device: self.device.clone(), memory: Memory { initial, max } }.on_worker()
    }
}

/// What is done to chosen columns: `select`, `transform`, their number, and what else the pass needs.
type Chosen<T> = (Vec<Step>, Vec<Step>, usize, T);

impl Site {
    fn open(message: &Message, worker: &Worker) -> Result<Self> {
        let folder = &message.journal;
        let premises: Premises = read(&Journal::of(folder), PREMISES)?;
        let recipe = Recipe::parse(&premises.recipe, "recipe")?;
        // Refuses a store that is not the client's, and another version of this program.
        let journal = Journal::resume(folder, &identity(&premises.input, &premises.objects, premises.genome.as_deref(), &recipe)?)?;
        let source = match &premises.turned {
            Some(rows) => open_rows(rows, &OpenOptions::default())?,
            None => {
                let (matrix, genome) = (recipe.input.matrix.clone(), premises.genome.clone());
                open_rows(&premises.input, &OpenOptions { matrix, genome, ..OpenOptions::default() })?
            }
        };
        let shape = source.shape();
        let size = Size {
            format: "",
            shape,
            nnz: source.entries_before(SourceRow(shape.n_obs)),
            obs_columns: 0,
            overhead_bytes: source.overhead_bytes(worker.threads),
            densest_task: densest_task(&*source),
            annotation_bytes: 0,
        };
        let plan = |choice: &Choice| estimate_of(Whose::Worker, &size, &premises.job(recipe.clone(), worker, choice.clone()));
        let mut choice = premises.choice();
        if choice.device == Word::Auto && plan(&choice).check(worker.memory).is_err() {
            choice = Choice::default();
        }
        let plan = plan(&choice);
        plan.check(worker.memory)?;
        // Beside components, it is not known what states will take.
        let room = if premises.components { plan.stage_bytes } else { (worker.memory - plan.peak_bytes) / 3 };
        let allowance = Allowance::new(room);
        let spill = Arc::new(Spill::new(&worker.scratch));
        let stage = || Stage::new(cut(shape.n_obs).len(), &allowance, Some(spill.clone()));
        Ok(Site {
            run: message.run.clone(),
            recipe,
            journal,
            source,
            stage: premises.staged.then(&stage),
            selected: stage(),
            choice: (choice, size.nnz),
            gpu: Mutex::default(),
            desk: Mutex::default(),
            name: worker.name.clone(),
            memory: worker.memory,
            threads: worker.threads,
            pool: Mutex::new(crate::job::pool(worker.threads)?),
            passes: Mutex::default(),
        })
    }

    fn work(self: &Arc<Self>, message: &Message) -> Result<()> {
        let part = message.tasks.0..message.tasks.1;
        let record = record_name(&message.pass, &part);
        match &message.what {
            What::Read(name) => match name.as_str() {
                First::NAME => self.fold::<First>(&message.pass, part, &record),
                Totals::NAME => self.fold::<Totals>(&message.pass, part, &record),
                MomentFolds::NAME => self.fold::<MomentFolds>(&message.pass, part, &record),
                <At<Clipped>>::NAME => self.fold::<At<Clipped>>(&message.pass, part, &record),
                <At<Residuals>>::NAME => self.fold::<At<Residuals>>(&message.pass, part, &record),
                <At<Grouped>>::NAME => self.fold::<At<Grouped>>(&message.pass, part, &record),
                <At<ByGene>>::NAME => self.fold::<At<ByGene>>(&message.pass, part, &record),
                GroupedValues::NAME => self.fold::<GroupedValues>(&message.pass, part, &record),
                <At<Logistic>>::NAME => self.fold::<At<Logistic>>(&message.pass, part, &record),
                <At<Cross>>::NAME => self.fold::<At<Cross>>(&message.pass, part, &record),
                <At<Moments>>::NAME => self.fold::<At<Moments>>(&message.pass, part, &record),
                <At<SetSums>>::NAME => self.fold::<At<SetSums>>(&message.pass, part, &record),
                _ => Err(Error::bug(format!("there is no read of the name '{name}'"))),
            },
            What::Beside => self.read_beside(&message.pass, part, &record),
            What::Products => {
                lock(&self.desk).close();
                let pass = self.pass::<Chosen<(Columns, bool)>>(&message.pass)?;
                let (columns, on_gpu) = &pass.3;
                let products = |processor: &Processor| pca::products(self.rows(&pass), columns, part, &self.selected, processor, &());
                // It takes all threads: its sums are large, and there should be few of them.
                let pool = lock(&self.pool);
                let found: Products = match on_gpu {
                    true => self.on_gpu(|gpu| pool.install(|| products(gpu)))?,
                    false => pool.install(|| products(&Processor::Cpu))?.ok_or_else(|| Error::bug("products that no CPU is fit for"))?,
                };
                self.leave(&record, &found)
            }
            What::Neighbors => {
                self.forget_rows();
                let pass = self.pass::<(knn::Order, bool)>(&message.pass)?;
                let (order, on_gpu) = &*pass;
                let n = order.cells_before(order.n_lists());
                let rows = RowFile::open(&self.journal.folder().join(ROWS), n as usize, order.d())?;
                let found = match on_gpu {
                    true => {
                        let pool = lock(&self.pool);
                        self.on_gpu(|gpu| {
                            self.check_room(4 * n * order.d() as u64)?;
                            let Some(device) = gpu.device() else { return Ok(None) };
                            pool.install(|| order.carry_out_on(device, &rows, part))
                        })?
                    }
                    false => crate::job::pool(1)?.install(|| order.carry_out(&rows, part))?,
                };
                self.leave(&record, &found)
            }
            What::Weights => {
                self.forget_rows();
                let Knn { order, distances } = there(&self.journal, SEARCHED, found_of)?;
                let threads = lock(&self.pool).current_num_threads().min(JOINERS);
                let made = crate::job::pool(threads)?.install(|| weights(&distances, &self.recipe, &Processor::Cpu))?;
                self.kept(JOINED, self.journal.keep_arrays(JOINED, &graph_bytes(&made)))?;
                let Connectivities { indptr, indices, weights } = made.in_original_order(&order);
                self.leave(&record, &(indptr, indices, weights))
            }
            What::Layout => {
                let pass = self.pass::<Layout<'static>>(&message.pass)?;
                self.on_graph(&record, |graph, processor| pass.place(graph, &self.recipe, processor, &()))
            }
            What::Clusters => {
                let within = self.pass::<Option<Vec<bool>>>(&message.pass)?;
                self.on_graph(&record, |graph, processor| partition(graph, within.as_deref(), &self.recipe, processor, &()))
            }
            What::Scores => {
                lock(&self.desk).close();
                let pass = self.pass::<Chosen<(Fit, bool, Option<Deal>)>>(&message.pass)?;
                let (fit, on_gpu, deal) = &pass.3;
                let part = pca::Part { tasks: part, shared: deal.is_some() };
                let rows = self.rows(&pass);
                let found = match on_gpu {
                    true => {
                        let pool = lock(&self.pool);
                        let part = (&part, n_kept(rows.select, &self.source_rows(part.tasks.clone()))?);
                        self.on_gpu(|gpu| {
                            let Some(device) = gpu.device() else { return Ok(None) };
                            pool.install(|| pca::scores_on(device, rows, part, &self.selected, fit, &()))
                        })?
                    }
                    false => crate::job::pool(1)?.install(|| pca::scores(rows, &part, &self.selected, fit, &()))?,
                };
                match deal {
                    Some(deal) => self.leave_chunks(deal, &message.pass, rows.select, part.tasks, &found, &record),
                    None => self.kept(&record, self.journal.keep_bytes(&record, bytemuck::cast_slice(&found))),
                }
            }
        }
    }

    /// Does something of a pass on this worker's GPU. The passes of a run are carried out on GPUs or on CPUs, never on both: where this one
    /// can't, the error says so, and the run has all do it on CPUs if it may.
    pub(super) fn on_gpu<T>(&self, work: impl FnOnce(&Processor) -> Result<Option<T>>) -> Result<T> {
        let done = self.open_gpu().and_then(|gpu| Ok((work(&gpu)?, gpu)));
        let why = match done {
            Ok((Some(found), _)) => return Ok(found),
            Ok((None, gpu)) => gpu.devices().iter().flat_map(|device| device.left()).last().unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        Err(device::on(&self.name, &why))
    }

    /// The first GPU that there is here.
    fn open_gpu(&self) -> Result<Processor> {
        let mut gpu = lock(&self.gpu);
        if gpu.is_none() {
            let Choice { device, memory } = self.choice.0.clone();
            if device == Word::Cpu {
                let ceiling = say_bytes(self.memory);
                return Err(Error::option("memory", ceiling, "the ceiling has no room for a GPU's driver and page-locked memory"));
            }
            *gpu = Some(Choice { device: Word::Cuda(vec![0]), memory }.open(self.choice.1, &Log)?.get()?);
        }
        Ok(gpu.clone().unwrap_or_default())
    }

    /// Refuses all rows where they have no room beside a GPU's driver.
    fn check_room(&self, rows: u64) -> Result<()> {
        let (needs, ceiling) = (PROGRAM + self.choice.0.host_bytes(self.choice.1) + rows, self.memory);
        if needs <= ceiling {
            return Ok(());
        }
        Err(ErrorKind::Budget { what: "the search for neighbours on a GPU".into(), needs, ceiling }.into())
    }

    /// Does something with the graph on all threads. It takes much memory: one at a time.
    fn on_graph<T: Serialize + Send>(
        &self,
        record: &str,
        work: impl Fn(&Connectivities, &Processor) -> Result<T> + Send + Sync,
    ) -> Result<()> {
        let pool = lock(&self.pool);
        self.forget_rows();
        // Its memory makes room for another.
        *lock(&self.gpu) = None;
        let graph = there(&self.journal, JOINED, graph_of)?;
        let (choice, nnz) = &self.choice;
        let refused = |error: Error| device::on(&self.name, &error.to_string());
        let processor = choice.open(*nnz, &Log).and_then(|opening| opening.get()).map_err(refused)?;
        let found = match pool.install(|| work(&graph, &processor)) {
            Err(error) if processor.device().is_some() && choice.device == Word::Auto => {
                Log.warn(&format!("{error}; the CPU does that"));
                pool.install(|| work(&graph, &Processor::Cpu))?
            }
            Err(error) if processor.device().is_some() => return Err(refused(error)),
            done => done?,
        };
        processor.devices().iter().flat_map(|device| device.left()).for_each(|why| Log.warn(&why));
        self.leave(record, &found)
    }

    /// The passes over the rows are done: what was kept for them makes room.
    fn forget_rows(&self) {
        lock(&self.desk).close();
        let n_tasks = cut(self.source.shape().n_obs).len();
        for stage in self.stage.iter().chain([&self.selected]) {
            (0..n_tasks).for_each(|task| stage.forget(task));
            stage.leave_devices();
        }
    }

    /// Rows of the source.
    pub(super) fn source_rows(&self, tasks: Range<usize>) -> Range<u64> {
        let row = |task: usize| (task as u64 * TASK_ROWS).min(self.source.shape().n_obs);
        row(tasks.start)..row(tasks.end)
    }

    /// Folds the rows of some tasks on one thread.
    fn fold<F: Read>(&self, pass: &str, part: Range<usize>, record: &str) -> Result<()> {
        let pass = self.pass::<(Vec<Step>, F, Option<Vec<u32>>)>(pass)?;
        let (recipe, fold, batch) = &*pass;
        let aside = Aside { batch: batch.as_deref() };
        let found = crate::job::pool(1)?.install(|| exec::part(self.feed(), recipe, fold, &aside, part, None, &()))?;
        self.leave(record, &found)
    }

    pub(super) fn feed(&self) -> Feed<'_> {
        Feed::new(&*self.source, self.stage.as_ref())
    }

    fn rows<'a, T>(&'a self, (select, transform, n_genes, _): &'a Chosen<T>) -> Rows<'a> {
        Rows { feed: self.feed(), select, n_genes: *n_genes, transform, last: true, crew: None, stay: None }
    }

    /// A pass, read once.
    pub(super) fn pass<P: DeserializeOwned + Send + Sync + 'static>(&self, name: &str) -> Result<Arc<P>> {
        let mut passes = lock(&self.passes);
        let pass = match passes.get(name) {
            Some(pass) => pass.clone(),
            None => {
                let pass: Arc<dyn Any + Send + Sync> = Arc::new(read::<P>(&self.journal, name)?);
                // The passes before it are over, but for an order that comes a second time.
                passes.clear();
                passes.insert(name.to_string(), pass.clone());
                pass
            }
        };
        pass.downcast().map_err(|_| Error::bug(format!("'{name}' is a pass of another kind")))
    }

    pub(super) fn leave<T: Serialize>(&self, record: &str, found: &T) -> Result<()> {
        self.kept(record, self.journal.keep(record, found))
    }

    pub(super) fn kept<T>(&self, record: &str, done: std::io::Result<T>) -> Result<T> {
        done.map_err(|e| Error::io(Place::element(self.journal.folder().display().to_string(), record), &e))
    }
}

/// The worker's own log: its standard error.
struct Log;

impl Listener for Log {
    fn begin(&self, _: &str, _: &str) {}
    fn progress(&self, _: u64, _: u64, _: &str) {}
    fn end(&self, _: &StageTrace) {}
    fn warn(&self, message: &str) {
        // Nobody is there to hear that it can't be said.
        let _ = writeln!(std::io::stderr(), "cellmill: {message}");
    }
    fn stopped(&self) -> bool {
        false
    }
}

/// A note of the journal.
fn read<T: DeserializeOwned>(journal: &Journal, name: &str) -> Result<T> {
    there(journal, name, |journal| journal.load(name))
}

/// What `load` makes of a note of the journal.
fn there<T>(journal: &Journal, name: &str, load: impl FnOnce(&Journal) -> Option<T>) -> Result<T> {
    let place = || Place::element(journal.folder().display().to_string(), name);
    let path = journal.folder().join(name);
    std::fs::metadata(&path).map_err(|e| Error::io(place(), &e))?;
    load(journal).ok_or_else(|| Error::invalid(place(), "a damaged note", "the client has written it whole"))
}

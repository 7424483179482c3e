//! The passes over the rows, carried out by worker processes that see the same folders. A pass is a note in the run's journal; an order is
//! a few words: which journal, which pass, which tasks. A worker leaves what it found as another note there (a *record*), and the run
//! merges the records in the order of the rows. So neither rows nor columns of cells travel with an order or an answer, an order may be
//! carried out twice, and `--resume` finds what was finished.

mod beside;
mod chunks;
mod graph;
mod passes;
pub(crate) mod reads;
mod site;
mod turned;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use cellmill_engine::chunk::RowColumns;
use cellmill_engine::exec::{Aside, Done, TASK_ROWS, TaskOutput, Tree, cut};
use cellmill_engine::journal::{Identity, Journal};
use cellmill_engine::pca::TASKS_A_BLOCK;
use cellmill_engine::recipe::Step;
use cellmill_matrix::{Error, ErrorKind, Place, Result, Source, SourceRow, Watch};
use cellmill_store::dataset::objects;
use cellmill_store::is_url;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::chunks::Scores;
use self::reads::Read;
use crate::device::{Choice, Word};
use crate::fingerprint::{Fnv, identity};
use crate::observe::Listener;
use crate::recipe::Recipe;

pub(crate) use graph::no_room;
pub(crate) use passes::MOST_PROJECTED;
pub use site::{Worker, carry_out, leave};
pub(crate) use turned::share;

/// Whoever hands orders to workers and tells when they are carried out: a Dask client.
pub trait Dispatcher: Sync {
    /// Workers that there are now.
    fn n_workers(&self) -> Result<usize>;
    /// Each worker's name, and how many bytes it may take for an order: largest first; waits a while for the first.
    fn rooms(&self) -> Result<Vec<(String, u64)>>;
    /// Each worker's name, and why it has no GPU if it has none; waits a while for the first.
    fn gpus(&self) -> Result<Vec<(String, Option<String>)>>;
    /// Hands out the orders of a pass.
    fn submit(&self, orders: &[Order]) -> Result<()>;
    /// Which orders, by their place among those handed out, have been carried out since the last call; waits for a moment if there are none.
    fn carried_out(&self) -> Result<Vec<usize>>;
    /// Takes back what is not carried out yet.
    fn cancel(&self);
    /// Tells all workers that they may forget a run.
    fn leave(&self, run: &str);
}

/// One order.
pub struct Order {
    /// Its name, unique for this run of the program: `quality-control-…`.
    pub key: String,
    /// Tasks that it covers: one worker should have neighbouring ones, and the same ones in each pass.
    pub tasks: Range<usize>,
    /// Tasks of the whole pass.
    pub n_tasks: usize,
    /// What the worker is told: a line of JSON.
    pub message: String,
    /// Bytes that a worker must have room for, where not every worker has.
    pub needs: u64,
}

/// What a worker is told.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    /// Of the client's cellmill: notes have the form that this version knows.
    version: String,
    /// The journal's folder.
    journal: PathBuf,
    /// This run of the program.
    run: String,
    /// The note with the pass.
    pass: String,
    what: What,
    /// First task and the one after the last.
    tasks: (usize, usize),
}

/// Kinds of passes.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum What {
    /// The read of this name.
    Read(String),
    /// The first read, by GPUs.
    Beside,
    /// Sums of products of the chosen columns.
    Products,
    /// The projection.
    Scores,
    /// Neighbours of the cells of lists.
    Neighbors,
    /// The graph: weights between neighbours.
    Weights,
    /// UMAP's layout of the graph.
    Layout,
    /// Leiden's clusters of it.
    Clusters,
}

/// What workers must know of a run: a note in its journal.
#[derive(Serialize, Deserialize)]
struct Premises {
    input: PathBuf,
    /// At a URL: the objects that tell it from other versions.
    objects: Vec<String>,
    /// Where its matrix lies by rows, if it lies by columns in the input.
    turned: Option<PathBuf>,
    genome: Option<String>,
    /// TOML.
    recipe: String,
    /// Whether components are wanted.
    components: bool,
    /// Whether rows are kept for later passes.
    staged: bool,
    /// What the run was told to compute on.
    device: Word,
    /// Sizes of a GPU's pool: at first, at most.
    gpu_memory: (u64, Option<u64>),
}

/// The rows that workers read.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// The store.
    pub input: &'a Path,
    /// The genome of a 10x file that has several.
    pub genome: Option<&'a str>,
    /// Says which matrix, and what a run computes of it.
    pub recipe: &'a Recipe,
    /// Its rows.
    pub n_obs: u64,
}

/// Notes are read by this version alone.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const PREMISES: &str = "premises";

/// Most orders of a read.
const MOST_ORDERS: usize = 1024;

/// How long a record that a worker has written may stay out of sight: network file systems remember for a while what was not there.
const SIGHT: Duration = Duration::from_secs(90);

/// What a run knows of its workers' GPUs.
#[derive(Clone, Copy)]
pub struct Gpus<'a> {
    /// What was asked for.
    pub choice: &'a Choice,
    /// Whether all workers compute on GPUs.
    pub all: bool,
    /// Whether one has a GPU.
    pub some: bool,
    /// Hears of what GPUs could not do.
    pub listener: &'a dyn Listener,
}

impl Premises {
    /// What workers must know at least.
    fn of(about: &About<'_>) -> Result<Self> {
        let absent = |e: std::io::Error| Error::io(Place::store(about.input.display().to_string()), &e);
        Ok(Premises {
            input: match is_url(about.input) {
                true => about.input.to_path_buf(),
                false => std::fs::canonicalize(about.input).map_err(absent)?,
            },
            objects: Vec::new(),
            turned: None,
            genome: about.genome.map(str::to_string),
            recipe: about.recipe.to_toml()?,
            components: false,
            staged: false,
            device: Word::Cpu,
            gpu_memory: (0, None),
        })
    }
}

/// A path that means the same wherever the current folder is.
fn whole(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io(Place::store(path.display().to_string()), &e))
}

impl<'a> Gpus<'a> {
    /// Asks the workers, if a GPU may compute.
    pub fn of(dispatcher: Option<&dyn Dispatcher>, choice: &'a Choice, source: &dyn Source, listener: &'a dyn Listener) -> Result<Self> {
        let workers = match dispatcher {
            Some(dispatcher) if choice.device != Word::Cpu => dispatcher.gpus()?,
            _ => Vec::new(),
        };
        let (all, note) = choice.on_gpus(source.entries_before(SourceRow(source.shape().n_obs)), &workers)?;
        note.iter().for_each(|note| listener.warn(note));
        Ok(Gpus { choice, all, some: workers.iter().any(|(_, why)| why.is_none()), listener })
    }
}

/// A run whose passes are carried out by workers.
pub struct Cluster<'a> {
    dispatcher: &'a dyn Dispatcher,
    journal: Journal,
    /// Whether the journal goes with it.
    passing: bool,
    /// Its folder, as a whole path: workers have current folders of their own.
    folder: PathBuf,
    /// This run of the program.
    run: String,
    /// Hash of what the journal belongs to.
    seed: Fnv,
    n_obs: u64,
    /// Nothing: all compute on CPUs.
    gpus: Option<Gpus<'a>>,
    /// Whether a GPU could not do a pass over the rows: CPUs do those that follow.
    rows_by_cpus: AtomicBool,
    scores: Scores,
}

impl<'a> Cluster<'a> {
    /// Leaves word for the workers of a run, in its journal.
    pub fn begin(
        dispatcher: &'a dyn Dispatcher,
        journal: &Journal,
        identity: &Identity,
        about: &About<'_>,
        (objects, turned): (Vec<String>, Option<PathBuf>),
        gpus: Gpus<'a>,
    ) -> Result<Self> {
        let turned = turned.map(|path| whole(&path)).transpose()?;
        let Choice { device, memory } = gpus.choice.clone();
        let gpu_memory = (memory.initial, memory.max);
        let premises = Premises { objects, turned, device, gpu_memory, components: true, staged: true, ..Premises::of(about)? };
        Self::leave_word(dispatcher, journal.clone(), identity, &premises, about.n_obs, Some(gpus))
    }

    /// Leaves word for the workers of a statistic, in a folder that is there until it is done: beside its output. `turned`: the rows, if
    /// they lie by columns in the input; and who hears how far it is that they are left for the workers.
    pub fn passing(
        dispatcher: &'a dyn Dispatcher,
        output: &Path,
        about: &About<'_>,
        staged: bool,
        turned: Option<(&dyn Source, &dyn Listener)>,
    ) -> Result<Self> {
        let mut folder = output.as_os_str().to_os_string();
        folder.push(".workers");
        let objects = if is_url(about.input) { objects(about.input)? } else { Vec::new() };
        let identity = identity(about.input, &objects, about.genome, about.recipe)?;
        let journal = Journal::begin(Path::new(&folder), &identity)?;
        let premises = Premises { objects, staged, ..Premises::of(about)? };
        let mut cluster = Self::leave_word(dispatcher, journal, &identity, &premises, about.n_obs, None)?;
        cluster.passing = true;
        if let Some((source, listener)) = turned {
            let rows = whole(&share(source, &cluster.journal, listener)?)?;
            cluster.note(PREMISES, &Premises { turned: Some(rows), ..premises })?;
        }
        Ok(cluster)
    }

    fn leave_word(
        dispatcher: &'a dyn Dispatcher,
        journal: Journal,
        identity: &Identity,
        premises: &Premises,
        n_obs: u64,
        gpus: Option<Gpus<'a>>,
    ) -> Result<Self> {
        let folder = whole(journal.folder())?;
        let mut seed = Fnv::default();
        identity.iter().for_each(|(key, value)| {
            seed.add(key.as_bytes());
            seed.add(value.as_bytes());
        });
        let moment = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_nanos());
        let run = format!("{:x}-{moment:x}", std::process::id());
        let (rows_by_cpus, scores) = (AtomicBool::new(false), Scores::default());
        let cluster = Cluster { dispatcher, journal, passing: false, folder, run, seed, n_obs, gpus, rows_by_cpus, scores };
        cluster.note(PREMISES, premises)?;
        Ok(cluster)
    }

    /// Runs a fold over all rows; the same bits as [`cellmill_engine::exec::run`].
    pub(crate) fn fold<F: Read>(&self, recipe: &[Step], fold: &F, aside: &Aside<'_>, watch: &dyn Watch) -> Result<Done<F::Output>> {
        let (done, _) = self.merged(What::Read(F::NAME.into()), &(recipe, fold, aside.batch), fold, watch, |_: &mut (), ()| ())?;
        Ok(done)
    }

    /// Has a read carried out, and merges what is found in the order of the rows: states, and what workers leave beside each.
    fn merged<F: Read, P: Serialize, T: DeserializeOwned>(
        &self,
        what: What,
        pass: &P,
        fold: &F,
        watch: &dyn Watch,
        join: impl Fn(&mut T, T),
    ) -> Result<(Done<F::Output>, Option<T>)> {
        let mut tree = Tree::default();
        let merge = |a: &mut (F::State, RowColumns, T), b: (F::State, RowColumns, T)| {
            fold.merge(&mut a.0, b.0);
            a.1.append(b.1);
            join(&mut a.2, b.2);
        };
        let (mut entries, mut decoded) = (0, false);
        let any = self.carry_out(what, F::NAME, pass, &self.parts(), &self.tasks(), watch, &mut |record, number| {
            let (found, beside): (TaskOutput<F::State>, T) = self.record(record)?;
            tree.put(number, (found.state, found.rows, beside), merge);
            entries += found.entries;
            decoded |= found.decoded;
            Ok(())
        })?;
        let (state, rows, beside) = match tree.finish(merge) {
            Some((state, rows, beside)) => (state, rows, Some(beside)),
            None => (fold.init(), RowColumns::default(), None),
        };
        Ok((Done { output: fold.finish(state), rows, entries, decoded: decoded && any }, beside))
    }

    /// Cuts the rows into parts of 2^h tasks: subtrees of the tree in which states merge, and whole blocks of the Gram matrix.
    fn parts(&self) -> Vec<Range<usize>> {
        spans(cut(self.n_obs).len(), tasks_an_order(self.n_obs))
    }

    /// The rows of the source, cut into tasks.
    fn tasks(&self) -> Ground<'_> {
        Ground { n_tasks: cut(self.n_obs).len(), rows_before: Box::new(|task| (task as u64 * TASK_ROWS).min(self.n_obs)) }
    }

    /// Has a pass carried out: what is not in the journal yet. `take` gets each record's name and the number of its part as soon as it is
    /// there, while workers are at the others. Returns whether anything was left to do.
    #[allow(clippy::too_many_arguments)] // each is another matter
    fn carry_out<P: Serialize>(
        &self,
        what: What,
        name: &str,
        pass: &P,
        parts: &[Range<usize>],
        ground: &Ground<'_>,
        watch: &dyn Watch,
        take: &mut dyn FnMut(&str, usize) -> Result<()>,
    ) -> Result<bool> {
        let (pass_name, orders) = self.orders(what, name, pass, parts, ground.n_tasks, 0)?;
        let take = &mut |number: usize| take(&record_name(&pass_name, &parts[number]), number);
        let numbers: Vec<usize> = orders.iter().map(|order| parts.partition_point(|part| part.start < order.tasks.start)).collect();
        (0..parts.len()).filter(|number| numbers.binary_search(number).is_err()).try_for_each(&mut *take)?;
        let n_rows = (ground.rows_before)(ground.n_tasks);
        let rows = |tasks: &Range<usize>| (ground.rows_before)(tasks.end) - (ground.rows_before)(tasks.start);
        let left: u64 = orders.iter().map(|order| rows(&order.tasks)).sum();
        let each = orders.first().map_or(0, |order| rows(&order.tasks));
        // Orders may have rows in common.
        let at = |done: usize| (n_rows.saturating_sub(left) + done as u64 * each).min(n_rows);
        self.hand_out(&orders, at, n_rows, watch, &mut |order| take(numbers[order]))?;
        Ok(!orders.is_empty())
    }

    /// What a pass is called in the journal.
    fn pass_name<P: Serialize>(&self, name: &str, pass: &P) -> Result<String> {
        let mut hash = Hashed(self.seed.clone());
        postcard::to_io(pass, &mut hash).map_err(|e| Error::bug(e.to_string()))?;
        Ok(format!("{}-{:016x}", name.replace(' ', "-"), hash.0.finish()))
    }

    /// Leaves word of a pass: its name, and the orders for what is not in the journal yet.
    fn orders<P: Serialize>(
        &self,
        what: What,
        name: &str,
        pass: &P,
        parts: &[Range<usize>],
        n_tasks: usize,
        needs: u64,
    ) -> Result<(String, Vec<Order>)> {
        let pass_name = self.pass_name(name, pass)?;
        self.note(&pass_name, pass)?;
        let order = |part: &Range<usize>| {
            let message = Message {
                version: VERSION.into(),
                journal: self.folder.clone(),
                run: self.run.clone(),
                pass: pass_name.clone(),
                what: what.clone(),
                tasks: (part.start, part.end),
            };
            let key = format!("{}-{}", record_name(&pass_name, part), self.run);
            let message = serde_json::to_string(&message).map_err(|e| Error::bug(e.to_string()))?;
            Ok(Order { key, tasks: part.clone(), n_tasks, message, needs })
        };
        let missing = parts.iter().filter(|part| !self.journal.is_whole(&record_name(&pass_name, part)));
        let orders = missing.map(order).collect::<Result<_>>()?;
        Ok((pass_name, orders))
    }

    /// Has orders carried out. `at` says how far the pass is after so many of them; `take` hears of each that is.
    fn hand_out(
        &self,
        orders: &[Order],
        at: impl Fn(usize) -> u64,
        of: u64,
        watch: &dyn Watch,
        take: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        watch.tick(at(0), of, "")?;
        self.dispatcher.submit(orders)?;
        let mut done = 0;
        while done < orders.len() {
            let step = self.dispatcher.carried_out().and_then(|places| {
                done += places.len();
                watch.tick(at(done), of, "")?;
                places.into_iter().try_for_each(&mut *take)
            });
            if let Err(error) = step {
                self.dispatcher.cancel();
                return Err(error);
            }
        }
        Ok(())
    }

    /// What a worker has found.
    fn record<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        self.seen(name, || self.journal.record(name))
    }

    /// A record, as soon as it is seen.
    fn seen<T>(&self, name: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if start.elapsed() > SIGHT {
                let place = Place::element(self.journal.folder().display().to_string(), name);
                let expected = "a worker has written it there; client and workers must see the same folder under the same path";
                return Err(Error::invalid(place, "no whole record", expected));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn note<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let place = || Place::element(self.journal.folder().display().to_string(), name);
        self.journal.keep(name, value).map_err(|e| Error::io(place(), &e))
    }

    fn note_arrays(&self, name: &str, arrays: &[&[u8]]) -> Result<()> {
        let place = || Place::element(self.journal.folder().display().to_string(), name);
        self.journal.keep_arrays(name, arrays).map_err(|e| Error::io(place(), &e))
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        self.dispatcher.leave(&self.run);
        if self.passing {
            self.journal.remove();
        }
    }
}

/// What a pass goes over.
struct Ground<'a> {
    n_tasks: usize,
    /// Rows before a task.
    rows_before: Box<dyn Fn(usize) -> u64 + 'a>,
}

/// Tasks of an order of a read.
pub(crate) fn tasks_an_order(n_obs: u64) -> usize {
    cut(n_obs).len().div_ceil(MOST_ORDERS).next_power_of_two().max(TASKS_A_BLOCK)
}

/// `0..n` in spans of `size`.
fn spans(n: usize, size: usize) -> Vec<Range<usize>> {
    (0..n).step_by(size).map(|start| start..(start + size).min(n)).collect()
}

/// The note in which a worker leaves what it found.
fn record_name(pass: &str, part: &Range<usize>) -> String {
    format!("{pass}-{}-{}", part.start, part.end)
}

/// Hashes what is written.
struct Hashed(Fnv);

impl std::io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.add(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An error that another worker, or the same one later, may not run into.
pub fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io { .. } | ErrorKind::Budget { .. })
}

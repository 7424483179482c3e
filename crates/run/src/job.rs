//! The whole job: open, analyse, write, and the trace of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cellmill_engine::exec::{Feed, cut};
use cellmill_engine::journal::{Identity, Journal};
use cellmill_engine::stage::{Allowance, Spill, Stage as Staged};
use cellmill_matrix::{Error, ErrorKind, Place, Result};
use cellmill_store::dataset::{Dataset, OpenOptions};
use cellmill_store::is_url;
use cellmill_store::write::Format;
use cellmill_store::zarr::{ZarrTree, ZarrVersion};
use serde::Serialize;

use crate::analysis::{Input, analyse};
use crate::carry::Annotations;
use crate::cluster::{About, Cluster, Dispatcher, Gpus, share};
use crate::device::{Choice, Opening, Word, is_of_gpu};
use crate::fingerprint::{Fnv, identity};
use crate::observe::{Listener, Observer, Plain, StageTrace, peak_rss_bytes};
use crate::output::{self, Target, WithX};
use crate::plan::{Plan, plan, plan_on_workers};
use crate::recipe::{Recipe, Stage};

/// What to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// The input.
    pub input: PathBuf,
    /// The output.
    pub output: PathBuf,
    /// Its format; by its name if not given.
    pub format: Option<Format>,
    /// Whether an existing output may be replaced.
    pub overwrite: bool,
    /// Whether results are added to the input (zarr) instead of a new store.
    pub in_place: bool,
    /// Which X the output gets.
    pub with_x: Option<WithX>,
    /// What to compute.
    pub recipe: Recipe,
    /// How far to go.
    pub through: Stage,
    /// Threads.
    pub threads: usize,
    /// Memory ceiling in bytes.
    pub memory: u64,
    /// The genome of a 10x file that has several.
    pub genome: Option<String>,
    /// Where packed rows go that memory has no room for; beside the output if not given.
    pub spill_dir: Option<PathBuf>,
    /// Whether to go on where an earlier run of this job was stopped.
    pub resume: bool,
    /// What computes.
    pub device: Choice,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The input.
    pub input: String,
    /// The output.
    pub output: String,
    /// Cells and genes read.
    pub shape: [u64; 2],
    /// Cells and genes kept.
    pub kept: [u64; 2],
    /// Highly variable genes.
    pub n_hvg: usize,
    /// Components.
    pub n_comps: usize,
    /// Clusters at the first resolution.
    pub n_clusters: usize,
    /// Reads of the source.
    pub source_reads: u32,
    /// Wall-clock seconds of everything.
    pub wall_s: f64,
    /// Largest resident memory in bytes.
    pub peak_rss_bytes: u64,
    /// Threads.
    pub threads: usize,
    /// The GPUs that took part.
    pub device: Option<String>,
    /// Most memory of a GPU that was held at a time.
    pub device_peak_bytes: u64,
    /// cellmill's version.
    pub version: String,
    /// Hash of the recipe (FNV-1a, 64 bits, of its TOML).
    pub recipe_hash: String,
    /// Stages in order.
    pub stages: Vec<StageTrace>,
    /// The Methods paragraph.
    pub methods: String,
}

impl Job {
    /// The output's format.
    pub fn output_format(&self) -> Format {
        self.format.unwrap_or_else(|| Format::of_path(&self.output))
    }

    /// Opens the input.
    pub fn open(&self, listener: &dyn Listener) -> Result<Dataset> {
        open(&self.input, &self.recipe.input.matrix, self.genome.clone(), &self.scratch(), self.memory, listener)
    }

    /// The version of the zarr store that gets the results, if it is one.
    pub(crate) fn zarr_version(&self) -> Result<Option<ZarrVersion>> {
        Ok(match self.output_format() {
            _ if self.in_place => Some(ZarrTree::open(&self.input)?.written()),
            Format::Zarr3 => Some(ZarrVersion::V3),
            Format::Zarr2 => Some(ZarrVersion::V2),
            Format::H5ad => None,
        })
    }

    /// Where temporary files go: beside the output.
    fn scratch(&self) -> PathBuf {
        let near = if self.in_place { &self.input } else { &self.output };
        match near.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
            _ => PathBuf::from("."),
        }
    }

    /// What the run will cost.
    pub fn plan(&self, listener: &dyn Listener) -> Result<Plan> {
        self.recipe.check()?;
        self.check_paths()?;
        let data = self.open(listener)?;
        plan(&data, self)
    }

    /// Does it.
    pub fn run(&self, listener: &dyn Listener) -> Result<Summary> {
        self.run_with(None, listener)
    }

    /// Does it; the rows are read by the workers that `dispatcher` knows, if there is one, up to the components.
    pub fn run_with(&self, dispatcher: Option<&dyn Dispatcher>, listener: &dyn Listener) -> Result<Summary> {
        let start = Instant::now();
        match dispatcher {
            None => match self.run_here(None, &self.device, start, listener) {
                Err(error) if self.gives_way(&error) => {
                    listener.warn(&format!("{error}; the CPU goes on alone"));
                    let resume = self.resume || Journal::exists(&self.journal_folder());
                    Job { device: Choice::default(), resume, ..self.clone() }.run_here(None, &Choice::default(), start, listener)
                }
                done => done,
            },
            Some(_) => Job { device: self.device.beside_workers(), ..self.clone() }.run_here(dispatcher, &self.device, start, listener),
        }
    }

    /// Whether the CPU goes on after an error: a GPU's that nobody has asked for by name.
    fn gives_way(&self, error: &Error) -> bool {
        self.device.device == Word::Auto && is_of_gpu(error)
    }

    /// Does it; workers were told to compute on `choice`.
    fn run_here(&self, dispatcher: Option<&dyn Dispatcher>, choice: &Choice, start: Instant, listener: &dyn Listener) -> Result<Summary> {
        self.recipe.check()?;
        self.check_paths()?;
        // A GPU that was asked for opens while the input does.
        let named = matches!(self.device.device, Word::Cuda(_)).then(|| self.device.open(u64::MAX, listener)).transpose()?;
        pool(self.threads)?.install(|| {
            let data = self.open(listener)?;
            data.warnings.iter().for_each(|w| listener.warn(w));
            self.check_columns(&data)?;
            let gpus = Gpus::of(dispatcher, choice, &*data.source, listener)?;
            let (plan, alone) = match dispatcher {
                Some(dispatcher) => {
                    let rooms = if self.through >= Stage::Umap { dispatcher.rooms()? } else { Vec::new() };
                    plan_on_workers(&data, self, &rooms, gpus.some)?
                }
                None => (plan(&data, self)?, true),
            };
            plan.check(self.memory)?;
            let processor = named.map_or_else(|| self.device.open(plan.nnz, listener), Ok)?;
            let objects = if is_url(&self.input) { data.objects()? } else { Vec::new() };
            let identity = identity(&self.input, &objects, self.genome.as_deref(), &self.recipe)?;
            let journal = self.journal(&identity, listener)?;
            let n_obs = data.source.shape().n_obs;
            let done = dispatcher
                .map(|dispatcher| {
                    let turned = data.turned.then(|| share(&*data.source, &journal, listener)).transpose()?;
                    let about = About { input: &self.input, genome: self.genome.as_deref(), recipe: &self.recipe, n_obs };
                    let cluster = Cluster::begin(dispatcher, &journal, &identity, &about, (objects, turned), gpus)?;
                    Ok(cluster.into_chunks(self.zarr_version()?))
                })
                .transpose()
                .and_then(|cluster| self.work(&data, (&plan, alone), &journal, cluster.as_ref(), &processor, (listener, start)))
                .map(|summary| Summary { wall_s: start.elapsed().as_secs_f64(), ..summary });
            match &done {
                // What a run that was stopped has finished is good; what bad input has led to is not.
                Err(e) if dispatcher.is_none() && self.gives_way(e) => {}
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::Io { .. }) => {
                    listener.warn(&format!("what was finished is kept in {}; go on with --resume", self.journal_folder().display()));
                }
                _ => journal.remove(),
            }
            done
        })
    }

    /// Analyses and writes.
    fn work(
        &self,
        data: &Dataset,
        (plan, alone): (&Plan, bool),
        journal: &Journal,
        cluster: Option<&Cluster<'_>>,
        processor: &Opening<'_>,
        (listener, start): (&dyn Listener, Instant),
    ) -> Result<Summary> {
        let source = &*data.source;
        let observer = Observer::new(listener, source).since(start);
        let allowance = Allowance::new(plan.stage_bytes);
        let scratch = self.scratch();
        let spill = Arc::new(Spill::new(self.spill_dir.as_deref().unwrap_or(&scratch)));
        let stage = |wanted: bool| wanted.then(|| Staged::new(cut(source.shape().n_obs).len(), &allowance, Some(spill.clone())));
        // Rows are worth keeping if another pass will ask for them.
        let rows = stage(plan.reads.len() > 1 && cluster.is_none());
        let selected = Staged::new(cut(source.shape().n_obs).len(), &allowance, Some(spill.clone()));
        let feed = Feed::new(source, rows.as_ref());
        let last = self.with_x.is_none();
        let aside = plan.aside.then(|| self.spill_dir.as_deref().unwrap_or(&scratch));
        let input = Input {
            feed,
            obs: &data.obs,
            var: &data.var,
            selected: &selected,
            last,
            journal: Some(journal),
            cluster,
            processor,
            store: data.anndata.as_ref(),
            scratch: aside,
            beside: plan.beside,
            alone,
        };
        let analysis = analyse(&input, &self.recipe, self.through, &observer)?;
        let outcome = &analysis.outcome;
        let mut hash = Fnv::default();
        hash.add(self.recipe.to_toml()?.as_bytes());
        let mut summary = Summary {
            input: self.input.display().to_string(),
            output: self.output.display().to_string(),
            shape: [outcome.n_source, outcome.n_source_vars as u64],
            kept: [outcome.n_obs as u64, outcome.n_vars as u64],
            n_hvg: outcome.n_hvg,
            n_comps: outcome.n_comps,
            n_clusters: outcome.n_clusters,
            source_reads: 0,
            wall_s: 0.0,
            peak_rss_bytes: 0,
            threads: self.threads,
            device: None,
            device_peak_bytes: 0,
            version: env!("CARGO_PKG_VERSION").to_string(),
            recipe_hash: format!("{:016x}", hash.finish()),
            stages: Vec::new(),
            methods: crate::methods::methods(&self.recipe, self.through, outcome),
        };
        if self.in_place {
            output::write_in_place(&self.input, analysis, &observer)?;
        } else {
            let target = Target { path: &self.output, format: self.output_format(), overwrite: self.replaces(), with_x: self.with_x };
            output::write(&target, analysis, feed, self.annotations(data).as_ref(), &self.recipe, &observer)?;
        }
        summary.stages = observer.stages();
        summary.source_reads = summary.stages.iter().map(|s| s.source_reads).sum();
        summary.peak_rss_bytes = peak_rss_bytes();
        let processor = processor.get()?;
        let names: Vec<String> = processor.devices().iter().map(ToString::to_string).collect();
        summary.device = (!names.is_empty()).then(|| names.join(", "));
        summary.device_peak_bytes = processor.devices().iter().map(|device| device.usage().reserved_peak).max().unwrap_or(0);
        processor.devices().iter().flat_map(|device| device.left()).for_each(|why| listener.warn(&why));
        if let Some(trouble) = spill.trouble() {
            listener.warn(&format!("{trouble}: packed rows found no room there and were decoded from the store again"));
        }
        if let Some(trouble) = journal.trouble() {
            listener.warn(&format!("{trouble}: the journal could not be written; the run could not have been resumed"));
        }
        Ok(summary)
    }

    /// What a new output takes over from the input. Another matrix than X and its layers has genes of its own.
    pub fn annotations<'a>(&self, data: &'a Dataset) -> Option<Annotations<'a>> {
        let other_genes = self.recipe.input.matrix.starts_with("raw");
        let store = data.anndata.as_ref().filter(|_| !self.in_place)?;
        Some(Annotations { other_genes, strict: false, ..Annotations::of(store) })
    }

    /// The journal's folder: beside what the run writes.
    fn journal_folder(&self) -> PathBuf {
        let mut name = if self.in_place { self.input.clone() } else { self.output.clone() }.into_os_string();
        name.push(".journal");
        name.into()
    }

    /// Whether an output that exists is replaced: if that was asked for, and where a run was killed after its output had appeared and before
    /// its journal was gone.
    fn replaces(&self) -> bool {
        self.overwrite || (self.resume && Journal::exists(&self.journal_folder()))
    }

    /// Begins a journal, or goes on with the one that is there.
    fn journal(&self, identity: &Identity, listener: &dyn Listener) -> Result<Journal> {
        let folder = self.journal_folder();
        let there = Journal::exists(&folder);
        if there && (self.resume || self.overwrite) {
            self.sweep();
        }
        match (there, self.resume) {
            (true, true) => Journal::resume(&folder, identity),
            (true, false) if !self.overwrite => Err(Error::invalid(
                Place::store(folder.display().to_string()),
                "an unfinished run of this output",
                "--resume goes on with it, -y (--overwrite) starts anew",
            )),
            (_, resume) => {
                if resume {
                    listener.warn("there is nothing to resume; the run starts from the beginning");
                }
                Journal::begin(&folder, identity)
            }
        }
    }

    /// Removes what a run that was killed while it wrote has left beside the output.
    fn sweep(&self) {
        let Some(name) = self.output.file_name() else { return };
        let prefix = format!(".{}.cellmill-", name.to_string_lossy());
        let Ok(entries) = std::fs::read_dir(self.scratch()) else { return };
        for path in entries.flatten().map(|e| e.path()) {
            if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix)) {
                // What can't be removed is in nobody's way.
                let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            }
        }
    }

    /// Added to in place, obs and var are written anew: a column that could not be read would be lost.
    fn check_columns(&self, data: &Dataset) -> Result<()> {
        let Some(store) = data.anndata.as_ref().filter(|_| self.in_place) else { return Ok(()) };
        for (frame, names, table) in [("obs", store.obs_columns(), &data.obs), ("var", store.var_columns(), &data.var)] {
            if let Some(name) = names.iter().find(|name| table.column(name).is_none()) {
                return Err(Error::invalid(
                    Place::element(store.location(), format!("{frame}/{name}")),
                    "a column of a kind that can't be held",
                    "--in-place would lose it; write a new store with -o, or remove the column",
                ));
            }
        }
        Ok(())
    }

    /// Output and input must not stand in each other's way, and an output that exists is only replaced if asked.
    fn check_paths(&self) -> Result<()> {
        let place = || Place::store(self.output.display().to_string());
        if self.in_place {
            if is_url(&self.input) {
                return Err(Error::option("--in-place", self.input.display(), "a store at a URL is only read; write a new one with -o"));
            }
            if self.recipe.input.matrix.starts_with("raw") {
                let why = "its genes are not those of var, which --in-place would replace; write a new store with -o";
                return Err(Error::option("--matrix", &self.recipe.input.matrix, why));
            }
            return match Format::of_path(&self.input) {
                Format::H5ad => {
                    Err(Error::option("--in-place", self.input.display(), "only a zarr store can be added to; give an output with -o"))
                }
                _ => Ok(()),
            };
        }
        local(&self.output)?;
        let input = match is_url(&self.input) {
            true => self.input.clone(),
            false => std::fs::canonicalize(&self.input).map_err(|e| Error::io(Place::store(self.input.display().to_string()), &e))?,
        };
        let parent = self.scratch();
        let folder = std::fs::canonicalize(&parent).map_err(|e| Error::io(Place::store(parent.display().to_string()), &e))?;
        let output = folder.join(
            self.output.file_name().ok_or_else(|| Error::option("--output", self.output.display(), "a file or folder name is needed"))?,
        );
        // An output that is a link to the input is the input.
        let output = std::fs::canonicalize(&output).unwrap_or(output);
        if output == input || output.starts_with(&input) || input.starts_with(&output) {
            return Err(Error::invalid(
                place(),
                "output and input lie inside each other",
                "choose an output elsewhere (or --in-place for a zarr store)",
            ));
        }
        if self.output.exists() && !self.replaces() {
            return Err(Error::invalid(place(), "it exists already", "-y (--overwrite) is needed to replace it"));
        }
        writable(&folder)
    }
}

/// Threads of a job.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).thread_name(|i| format!("cellmill-{i}"));
    pool.build().map_err(|e| Error::bug(format!("no threads: {e}")))
}

/// Opens an input; a matrix that lies by columns is turned into rows in `scratch`.
pub fn open(input: &Path, matrix: &str, genome: Option<String>, scratch: &Path, memory: u64, listener: &dyn Listener) -> Result<Dataset> {
    let options = OpenOptions {
        matrix: matrix.to_string(),
        genome,
        scratch: scratch.to_path_buf(),
        memory_bytes: memory / 4,
        ..OpenOptions::default()
    };
    Dataset::open(input, &options, &Plain(listener))
}

/// Refuses an output at a URL.
pub fn local(output: &Path) -> Result<()> {
    match is_url(output) {
        true => Err(Error::option(
            "--output",
            output.display(),
            "results are written to a folder of this machine or a shared one; copy them from there",
        )),
        false => Ok(()),
    }
}

/// Finds out before the work whether a folder can be written to.
fn writable(folder: &Path) -> Result<()> {
    let probe = folder.join(format!(".cellmill-{}", std::process::id()));
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|e| Error::io(Place::store(folder.display().to_string()), &e))
}

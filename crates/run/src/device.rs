//! Which processor a run is given.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use cellmill_cuda::{Device, Memory, Options, Processor, Source};
use cellmill_kernels::cuda as kernels;
use cellmill_matrix::{Error, ErrorKind, Place, Result};
use serde::{Deserialize, Serialize};

use crate::observe::Listener;

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The device.
    pub device: Word,
    /// Its memory.
    pub memory: Memory,
}

/// `auto`, `cpu`, `cuda`, `cuda:N` or `cuda:N,M`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// A GPU if there is one and the input is worth it, else the CPU.
    Auto,
    /// The CPU.
    #[default]
    Cpu,
    /// These GPUs, or an error: at least one, each once.
    Cuda(Vec<usize>),
}

impl FromStr for Word {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = |list: &str| {
            let list: Vec<usize> = list.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?;
            (0..list.len()).all(|i| !list[..i].contains(&list[i])).then_some(Word::Cuda(list))
        };
        match text {
            "auto" => Some(Word::Auto),
            "cpu" => Some(Word::Cpu),
            "cuda" => Some(Word::Cuda(vec![0])),
            other => other.strip_prefix("cuda:").and_then(numbers),
        }
        .ok_or_else(|| Error::option("--device", text, "it is auto, cpu, cuda, cuda:N or, for several GPUs, cuda:N,M"))
    }
}

/// What the driver, its contexts and page-locked buffers take of the machine's own memory for the first GPU, and for each more: a run of
/// 1.3 million cells on an H100 held 750 MiB more than without.
pub(crate) const HOST_BYTES: [u64; 2] = [768 << 20, 160 << 20];

/// Entries from which a GPU makes up for the second in which it is opened and its kernels are compiled.
const WORTH: u64 = 50_000_000;

impl Choice {
    /// The GPUs that an input of `nnz` entries is given, if they are there.
    fn ordinals(&self, nnz: u64) -> Vec<usize> {
        match &self.device {
            Word::Cuda(ordinals) => ordinals.clone(),
            Word::Auto if nnz >= WORTH => vec![0],
            Word::Auto | Word::Cpu => Vec::new(),
        }
    }

    /// What a choice that was made for a run means on one of its workers: the first GPU that the worker sees (`CUDA_VISIBLE_DEVICES`),
    /// whatever the numbers of the client's.
    pub(crate) fn on_worker(&self) -> Choice {
        match self.device {
            Word::Cuda(_) => Choice { device: Word::Cuda(vec![0]), ..self.clone() },
            _ => self.clone(),
        }
    }

    /// What it means in the process that has workers compute: its own GPUs if they are there, or else the CPU.
    pub(crate) fn beside_workers(&self) -> Choice {
        match &self.device {
            Word::Cuda(ordinals) if ordinals.iter().any(|&ordinal| Device::known(ordinal).is_err()) => {
                Choice { device: Word::Cpu, ..self.clone() }
            }
            _ => self.clone(),
        }
    }

    /// Whether the workers of a run over `nnz` entries compute on GPUs: all of them or none, since a GPU rounds otherwise than a CPU. Second,
    /// what there is to say about it. `workers`: each one's name, and why it has no GPU if it has none.
    pub(crate) fn on_gpus(&self, nnz: u64, workers: &[(String, Option<String>)]) -> Result<(bool, Option<String>)> {
        if self.ordinals(nnz).is_empty() {
            return Ok((false, None));
        }
        let without: Vec<_> = workers.iter().filter_map(|(name, why)| Some((name, why.as_ref()?))).collect();
        let Some((name, why)) = without.first() else { return Ok((!workers.is_empty(), None)) };
        if self.device != Word::Auto {
            return Err(on(name, why));
        }
        let some = without.len() < workers.len();
        let say =
            || format!("{} of {} workers have no GPU, {name} for one: all compute on their CPUs ({why})", without.len(), workers.len());
        Ok((false, some.then(say)))
    }

    /// Bytes of the machine's own memory that GPUs take.
    pub(crate) fn host_bytes(&self, nnz: u64) -> u64 {
        driver_bytes(self.ordinals(nnz).into_iter().filter(|&ordinal| Device::known(ordinal).is_ok()).count())
    }

    /// Opens it on a thread of its own, which takes half a second or more. What is seen at once is an error at once: no driver, or no such
    /// GPU. With `auto`, a GPU that can't be used is no error, and nobody hears of one that is not there.
    pub fn open<'a>(&self, nnz: u64, listener: &'a dyn Listener) -> Result<Opening<'a>> {
        self.open_for(kernels::USUAL.into_iter().chain(cellmill_graph::cuda::usual()).collect(), nnz, listener)
    }

    /// The same for statistics of groups, which need other kernels.
    pub(crate) fn open_for_groups<'a>(&self, nnz: u64, listener: &'a dyn Listener) -> Result<Opening<'a>> {
        self.open_for(kernels::OF_GROUPS.to_vec(), nnz, listener)
    }

    fn open_for<'a>(&self, sources: Vec<Source>, nnz: u64, listener: &'a dyn Listener) -> Result<Opening<'a>> {
        let auto = self.device == Word::Auto;
        let mut ordinals = self.ordinals(nnz);
        match auto {
            true => ordinals.retain(|&ordinal| Device::known(ordinal).is_ok()),
            false => ordinals.iter().try_for_each(|&ordinal| Device::known(ordinal))?,
        }
        let memory = self.memory;
        let open = move |ordinals: Vec<usize>| {
            let one = |ordinal| Device::open(&Options { ordinal, memory, required: !auto, cache: cache() });
            let devices = all_at_once(&ordinals, one)?;
            let opened = devices.clone();
            Ok((Processor::Cuda(devices), Preparing::begin(opened, sources)))
        };
        let state = match ordinals.is_empty() {
            true => State::Open(Processor::Cpu, None),
            false => State::Opening(std::thread::spawn(move || open(ordinals))),
        };
        Ok(Opening { auto, listener, state: Mutex::new(state) })
    }
}

/// Opens each GPU on a thread of its own: contexts take a fifth of a second or more.
fn all_at_once(ordinals: &[usize], open: impl Fn(usize) -> Result<Arc<Device>> + Sync) -> Result<Vec<Arc<Device>>> {
    let open = &open;
    std::thread::scope(|scope| {
        let opening: Vec<_> = ordinals.iter().map(|&ordinal| scope.spawn(move || open(ordinal))).collect();
        opening.into_iter().map(|thread| thread.join().map_err(|_| Error::bug("a thread that opens a GPU has panicked"))?).collect()
    })
}

/// Bytes of the machine's own memory that so many GPUs take.
pub fn driver_bytes(n_devices: usize) -> u64 {
    (0..n_devices).map(|at| HOST_BYTES[at.min(1)]).sum()
}

/// Why the engine finds no GPU in this process, if it finds none.
pub fn no_gpu() -> Option<String> {
    Device::known(0).err().map(|error| error.to_string())
}

/// A worker's GPU is not there, or can't do what it was asked for.
pub(crate) fn on(worker: &str, why: &str) -> Error {
    Error::option(OPTION, format!("cuda on worker {worker}"), why)
}

/// Whether an error is about a device that is not there or can't do what it was asked for.
pub(crate) fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Option { name, .. } if name == OPTION)
}

/// Whether an error is a GPU's: one that refuses, one that fails at its work, or that has no room for it.
pub(crate) fn is_of_gpu(error: &Error) -> bool {
    let failed = |place: &Place| place.store.as_ref().is_some_and(|store| store.starts_with("cuda:"));
    match error.kind() {
        ErrorKind::Option { name, .. } => name == OPTION || name == ROOM,
        ErrorKind::Io { place, .. } => failed(place),
        _ => false,
    }
}

/// The option that chooses where to compute.
const OPTION: &str = "device";

/// The option that a lack of a GPU's memory is said by.
const ROOM: &str = "gpu-memory-max";

/// A processor that is opened while other work is done.
pub struct Opening<'a> {
    auto: bool,
    listener: &'a dyn Listener,
    state: Mutex<State>,
}

/// A processor, and what is loaded for it.
type Opened = (Processor, Preparing);

enum State {
    Opening(JoinHandle<Result<Opened>>),
    Open(Processor, Option<Preparing>),
    Failed,
}

/// Threads that compile kernels.
const COMPILERS: usize = 4;

/// Threads that load libraries and compile kernels while other work is done. Whoever needs a kernel before it is there waits for it.
struct Preparing {
    work: Arc<Work>,
    threads: Vec<JoinHandle<()>>,
}

/// Kernels to compile.
struct Work {
    devices: Vec<Arc<Device>>,
    sources: Vec<Source>,
    next: AtomicUsize,
    stop: AtomicBool,
}

impl Preparing {
    fn begin(devices: Vec<Arc<Device>>, sources: Vec<Source>) -> Self {
        let work = Arc::new(Work { devices, sources, next: AtomicUsize::new(0), stop: AtomicBool::new(false) });
        let mut threads = Vec::with_capacity(COMPILERS + 1);
        for _ in 0..COMPILERS {
            let work = work.clone();
            threads.push(std::thread::spawn(move || work.compile()));
        }
        let libraries = work.clone();
        threads.push(std::thread::spawn(move || libraries.devices.iter().for_each(cellmill_engine::pca::prepare)));
        Preparing { work, threads }
    }
}

impl Work {
    /// Compiles one source after the other. What fails is said when it is needed.
    fn compile(&self) {
        while let Some(source) = self.sources.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.devices.iter().for_each(|device| drop(device.program(source)));
        }
    }
}

/// A run that ends early leaves no thread behind that talks to the driver.
impl Drop for Preparing {
    fn drop(&mut self) {
        self.work.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Opening<'_> {
    /// Whether it is a GPU, as far as that is known before it is open.
    pub fn is_gpu(&self) -> bool {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Opening(_) => true,
            State::Open(processor, _) => processor.device().is_some(),
            State::Failed => false,
        }
    }

    /// Waits for it.
    pub fn get(&self) -> Result<Processor> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (processor, preparing) = match std::mem::replace(&mut *state, State::Failed) {
            State::Open(processor, preparing) => (processor, preparing),
            State::Failed => return Err(Error::bug("a processor that could not be opened")),
            State::Opening(thread) => match thread.join() {
                Err(_) => return Err(Error::bug("the thread that opens the GPU has panicked")),
                Ok(Err(error)) if self.auto => {
                    self.listener.warn(&format!("{error}; the CPU computes alone"));
                    (Processor::Cpu, None)
                }
                Ok(opened) => {
                    let (processor, preparing) = opened?;
                    (processor, Some(preparing))
                }
            },
        };
        *state = State::Open(processor.clone(), preparing);
        Ok(processor)
    }
}

/// A run that ends early leaves no thread behind that talks to the driver.
impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Opening(thread) = std::mem::replace(state, State::Failed) {
            let _ = thread.join();
        }
    }
}

/// Where compiled kernels are kept between runs: the user's cache folder.
fn cache() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    base.is_absolute().then(|| base.join("cellmill"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (text, word) in [
            ("auto", Word::Auto),
            ("cpu", Word::Cpu),
            ("cuda", Word::Cuda(vec![0])),
            ("cuda:3", Word::Cuda(vec![3])),
            ("cuda:1,0", Word::Cuda(vec![1, 0])),
        ] {
            assert_eq!(text.parse::<Word>().unwrap(), word);
        }
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:0,", "cuda:0,0", "CUDA"] {
            let said = text.parse::<Word>().unwrap_err().to_string();
            assert!(said.contains("auto, cpu, cuda, cuda:N or"), "{said}");
        }
    }

    fn choice(text: &str) -> Choice {
        Choice { device: text.parse().unwrap(), ..Choice::default() }
    }

    #[test]
    fn a_worker_takes_its_first_gpu_and_the_client_its_own() {
        for (word, on_worker) in
            [("cpu", Word::Cpu), ("auto", Word::Auto), ("cuda:3", Word::Cuda(vec![0])), ("cuda:2,1", Word::Cuda(vec![0]))]
        {
            assert_eq!(choice(word).on_worker().device, on_worker);
        }
        // No GPU has such a number: the client computes on its CPU while workers have theirs.
        assert_eq!(choice("cuda:4096").beside_workers().device, Word::Cpu);
        assert_eq!(choice("auto").beside_workers().device, Word::Auto);
    }

    #[test]
    fn all_workers_compute_on_gpus_or_none() {
        let crew = |with: &[bool]| -> Vec<(String, Option<String>)> {
            let why = |gpu: bool| (!gpu).then(|| "no NVIDIA driver was found".to_string());
            with.iter().enumerate().map(|(i, &gpu)| (format!("tcp://{i}"), why(gpu))).collect()
        };
        let decide = |word: &str, nnz, with: &[bool]| choice(word).on_gpus(nnz, &crew(with));
        assert_eq!(decide("auto", WORTH, &[true, true]).unwrap(), (true, None));
        assert_eq!(decide("auto", WORTH - 1, &[true, true]).unwrap(), (false, None), "not worth it");
        assert_eq!(decide("cuda", 1, &[true, true]).unwrap(), (true, None), "asked for");
        assert_eq!(decide("cpu", WORTH, &[true, true]).unwrap(), (false, None));
        assert_eq!(decide("auto", WORTH, &[false, false]).unwrap(), (false, None), "nobody hears of what is not there");
        let (gpus, note) = decide("auto", WORTH, &[true, false, true]).unwrap();
        assert!(!gpus);
        assert_eq!(note.unwrap(), "1 of 3 workers have no GPU, tcp://1 for one: all compute on their CPUs (no NVIDIA driver was found)");
        let error = decide("cuda:1", 1, &[true, false]).unwrap_err();
        assert!(is_refusal(&error));
        assert!(error.to_string().contains("cuda on worker tcp://1") && error.to_string().contains("no NVIDIA driver"), "{error}");
        assert!(!is_refusal(&Error::bug("another")));
    }

    struct Silent(Mutex<Vec<String>>);

    impl Listener for Silent {
        fn begin(&self, _: &str, _: &str) {}
        fn progress(&self, _: u64, _: u64, _: &str) {}
        fn end(&self, _: &crate::observe::StageTrace) {}
        fn warn(&self, message: &str) {
            self.0.lock().unwrap().push(message.into());
        }
        fn stopped(&self) -> bool {
            false
        }
    }

    #[test]
    fn errors_of_gpus_are_told_from_others() {
        let at = |store: &str| Error::io(Place::store(store), &std::io::Error::other("gone"));
        assert!(is_of_gpu(&at("cuda:1")));
        assert!(is_of_gpu(&Error::option(OPTION, "cuda", "no compiler")));
        assert!(is_of_gpu(&Error::option("gpu-memory-max", "1 MiB", "more is needed")));
        assert!(!is_of_gpu(&at("counts.zarr")));
        assert!(!is_of_gpu(&Error::option("threads", 0, "more")));
        assert!(!is_of_gpu(&Error::bug("another")));
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_at_once_and_none_with_auto() {
        let listener = Silent(Mutex::default());
        let error = choice("cuda:4096").open(u64::MAX, &listener).err().unwrap().to_string();
        assert!(error.starts_with("device: cuda"), "{error}");
        let auto = choice("auto").open(u64::MAX, &listener).unwrap();
        let (first, second) = (auto.get().unwrap(), auto.get().unwrap());
        assert_eq!(first.device().is_some(), second.device().is_some());
        if cellmill_cuda::count().is_err() {
            assert!(first.device().is_none() && listener.0.lock().unwrap().is_empty());
        }
    }
}

//! One GPU.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cellmill_matrix::{Error, Result};
use cudarc::driver::{CudaContext, DriverError, sys};

use crate::fault::{absent, mib, refused};
use crate::find::{self, words};
use crate::pool::{Memory, Pool, Usage};
use crate::program::{Program, Source};

/// How to open a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Number of the GPU among those that the driver shows (default 0).
    pub ordinal: usize,
    /// Its memory pool.
    pub memory: Memory,
    /// Whether the GPU was asked for: a lack of its memory is an error then. Otherwise the CPU does what has no room, and
    /// [`Device::left`] says so.
    pub required: bool,
    /// Folder that keeps compiled kernels between runs; `None`: they are compiled in each run (about 0.3 s).
    pub cache: Option<PathBuf>,
}

/// Least compute capability: 7.0 (Volta), the first with independent threads.
const LEAST_CAPABILITY: u32 = 70;

/// A program, once it is compiled.
type Slot = Mutex<Option<Arc<Program>>>;

/// An open GPU: its primary context (shared with other users in the process), a pool and the kernels compiled so far.
pub struct Device {
    // Fields are dropped in this order.
    /// One place a source, so that several are compiled at a time.
    programs: Mutex<BTreeMap<&'static str, Arc<Slot>>>,
    pool: Pool,
    context: Arc<CudaContext>,
    ordinal: usize,
    name: String,
    capability: u32,
    multiprocessors: u32,
    cache: Option<PathBuf>,
    driver: i32,
    required: bool,
    left: Mutex<Vec<String>>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}

/// `cuda:0 (NVIDIA H100 80GB HBM3, compute capability 9.0)`
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = (self.capability / 10, self.capability % 10);
        write!(f, "{} ({}, compute capability {major}.{minor})", self.place(), self.name)
    }
}

impl Device {
    /// An error if the driver shows no GPU of this number.
    pub fn known(ordinal: usize) -> Result<()> {
        let n = find::count()?;
        if ordinal >= n {
            return Err(absent(format!("cuda:{ordinal}"), format!("the driver shows {n} GPUs: cuda:0 to cuda:{}", n - 1)));
        }
        Ok(())
    }

    /// Opens a GPU.
    pub fn open(options: &Options) -> Result<Arc<Self>> {
        let ordinal = options.ordinal;
        Self::known(ordinal)?;
        let driver = find::driver()?;
        let asked = format!("cuda:{ordinal}");
        let lost = |e: DriverError| absent(format!("cuda:{ordinal}"), format!("this GPU can't be used: {}", words(e)));
        let context = CudaContext::new(ordinal).map_err(lost)?;
        let name = context.name().map_err(lost)?;
        let (major, minor) = context.compute_capability().map_err(lost)?;
        let capability = (10 * major + minor) as u32;
        if capability < LEAST_CAPABILITY {
            return Err(absent(asked, format!("{name} has compute capability {major}.{minor}, and 7.0 or newer is needed")));
        }
        if !context.has_async_alloc() {
            return Err(absent(asked, format!("{name} has no memory pools here: the driver or a virtual machine hides them")));
        }
        let sms = context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).map_err(lost)?;
        let pool = Pool::new(ordinal, options.memory)?;
        let device = Arc::new(Device {
            programs: Mutex::default(),
            pool,
            context,
            ordinal,
            name,
            capability,
            multiprocessors: sms as u32,
            cache: options.cache.clone(),
            driver,
            required: options.required,
            left: Mutex::default(),
        });
        if options.memory.initial > 0 {
            // What is freed stays with the pool.
            let stream = device.stream()?;
            drop(stream.alloc::<u8>(options.memory.initial as usize)?);
            stream.synchronize()?;
        }
        Ok(device)
    }

    /// Waits until all that was queued on this GPU is done, also by others in the process.
    pub fn synchronize(&self) -> Result<()> {
        self.check("waiting for the device", self.context.synchronize())
    }

    /// Number among the GPUs that the driver shows.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// The vendor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Compute capability times ten: 90 for 9.0.
    pub fn capability(&self) -> u32 {
        self.capability
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Bytes of memory of the card: free and in all.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let (free, total) = self.check("memory", self.context.mem_get_info())?;
        Ok((free as u64, total as u64))
    }

    /// Bytes that can be taken: what the card has free and the pool holds unused, below the pool's maximum. A tenth is left alone.
    pub fn room(&self) -> Result<u64> {
        let (free, usage) = (self.memory()?.0, self.usage());
        let room = free + usage.reserved.saturating_sub(usage.used);
        let below = self.pool.max().map_or(u64::MAX, |max| max.saturating_sub(usage.used));
        Ok(room.min(below) / 10 * 9)
    }

    /// Whether there are `bytes` bytes for something ("finding neighbours"). If not, that is an error on a GPU that was asked for, and
    /// the CPU's work otherwise.
    pub fn has_room(&self, bytes: u64, what: &str) -> Result<bool> {
        let room = self.room()?;
        if bytes <= room {
            return Ok(true);
        }
        if self.required {
            return Err(self.pool.short(bytes, room, what));
        }
        self.leave(format!("{what} needs {} of GPU memory and {} are left", mib(bytes), mib(room)));
        Ok(false)
    }

    /// Whether it was asked for: that it has no room, or fails, is an error then.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Notes why something is left to the CPU.
    pub fn leave(&self, why: String) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{}: {why}; the CPU does that", self.place()));
    }

    /// Why some things were left to the CPU since this was asked last.
    pub fn left(&self) -> Vec<String> {
        std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the pool has in use, and its peaks.
    pub fn usage(&self) -> Usage {
        self.pool.usage()
    }

    /// Kernels of a source, compiled at the first call.
    pub fn program(self: &Arc<Self>, source: &Source) -> Result<Arc<Program>> {
        let slot = self.programs.lock().unwrap_or_else(PoisonError::into_inner).entry(source.name).or_default().clone();
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = &*slot {
            return Ok(program.clone());
        }
        self.bind()?;
        let program = Arc::new(Program::new(&self.context, self.capability, self.cache.as_deref(), source)?);
        *slot = Some(program.clone());
        Ok(program)
    }

    /// `cuda:0`
    pub(crate) fn place(&self) -> String {
        format!("cuda:{}", self.ordinal)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn driver(&self) -> i32 {
        self.driver
    }

    /// Makes the context current on this thread.
    pub(crate) fn bind(&self) -> Result<()> {
        self.check("context", self.context.bind_to_thread())
    }

    pub(crate) fn check<T>(&self, what: &str, done: Result<T, DriverError>) -> Result<T, Error> {
        done.map_err(|e| refused(&self.place(), what, words(e)))
    }
}

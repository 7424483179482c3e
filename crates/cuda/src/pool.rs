//! Device memory from a pool of our own: stream-ordered, with an initial and a largest size. The device's default pool is left
//! alone, so that other users of it in the same process (RMM, CuPy) are undisturbed.

use cellmill_matrix::{Error, Result};
use cudarc::driver::{DriverError, result, sys};

use crate::fault::mib;
use crate::find::words;

/// Sizes of the pool in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Taken from the card at once and kept (default 0). More saves the time of growing.
    pub initial: u64,
    /// Never exceeded; `None`: what the card has.
    pub max: Option<u64>,
}

/// Bytes of the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In use now.
    pub used: u64,
    /// Most that were in use at a time.
    pub used_peak: u64,
    /// Held from the card now.
    pub reserved: u64,
    /// Most that were held at a time.
    pub reserved_peak: u64,
}

/// A memory pool of the driver.
#[derive(Debug)]
pub(crate) struct Pool {
    raw: sys::CUmemoryPool,
    memory: Memory,
}

// SAFETY: a pool's handle may be used from any thread.
unsafe impl Send for Pool {}
// SAFETY: the driver's calls on a pool are thread-safe.
unsafe impl Sync for Pool {}

impl Pool {
    /// A pool on this device, whose context is current.
    pub fn new(ordinal: usize, memory: Memory) -> Result<Self> {
        if memory.max.is_some_and(|max| max < memory.initial) {
            let most = memory.max.unwrap_or_default();
            return Err(Error::option("gpu-memory", mib(memory.initial), format!("gpu-memory-max is {}", mib(most))));
        }
        // SAFETY: plain numbers and null pointers, for which zero is a value.
        let mut props: sys::CUmemPoolProps = unsafe { std::mem::zeroed() };
        props.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        props.handleTypes = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE;
        props.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
        props.location.id = ordinal as i32;
        props.maxSize = memory.max.unwrap_or(0) as usize;
        // SAFETY: `props` is filled in as the call wants it.
        let raw = unsafe { result::mem_pool::create(&props) }
            .map_err(|e| crate::fault::absent(format!("cuda:{ordinal}"), format!("it gives no memory pool: {}", words(e))))?;
        let pool = Pool { raw, memory };
        let mut keep = u64::MAX;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the attribute is a u64. Freed memory stays with the pool.
        unsafe { result::mem_pool::set_attribute(pool.raw, attribute, (&raw mut keep).cast()) }
            .map_err(|e| pool.fault(memory.initial, e))?;
        // What one stream has freed but not yet come to is not given to another, which would have to wait for it.
        let mut wait = 0u32;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES;
        // SAFETY: the attribute is an int.
        unsafe { result::mem_pool::set_attribute(pool.raw, attribute, (&raw mut wait).cast()) }
            .map_err(|e| pool.fault(memory.initial, e))?;
        Ok(pool)
    }

    /// `bytes` bytes at least 256 aligned, usable after what is in the stream now.
    pub fn take(&self, bytes: usize, stream: sys::CUstream) -> Result<u64> {
        // SAFETY: the pool lives as long as `self`, the stream as long as its owner who calls.
        unsafe { result::mem_pool::alloc_async(self.raw, bytes.max(1), stream) }.map_err(|e| self.fault(bytes as u64, e))
    }

    /// Its maximum.
    pub fn max(&self) -> Option<u64> {
        self.memory.max
    }

    /// That there is less memory than something takes.
    pub fn short(&self, bytes: u64, room: u64, what: &str) -> Error {
        let remedy = if self.memory.max.is_some() { "raise it" } else { "free the card" };
        let (found, needed) = (self.memory.max.map_or_else(|| format!("{} that are free", mib(room)), mib), mib(bytes));
        let why = format!("{what} needs {needed} and {} are left: {remedy}, or let the CPU help (--device auto)", mib(room));
        Error::option("gpu-memory-max", found, why)
    }

    fn fault(&self, bytes: u64, error: DriverError) -> Error {
        if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return crate::fault::refused("cuda", "memory pool", words(error));
        }
        let used = self.usage().used;
        let ceiling = match (self.memory.max, result::mem_get_info()) {
            (Some(max), _) => mib(max),
            (None, Ok((free, _))) => format!("the card's {} that are free and the {} that are held", mib(free as u64), mib(used)),
            (None, Err(_)) => "the card's memory".to_owned(),
        };
        Error::option(
            "gpu-memory-max",
            ceiling,
            format!("another {} are needed beside {} in use: raise it, free the card, or choose fewer genes", mib(bytes), mib(used)),
        )
    }

    /// What is in use and held; zeros if the driver doesn't say.
    pub fn usage(&self) -> Usage {
        use sys::CUmemPool_attribute as A;
        let of = |attribute| {
            let mut value = 0u64;
            // SAFETY: these attributes are u64.
            let asked = unsafe { result::mem_pool::get_attribute(self.raw, attribute, (&raw mut value).cast()) };
            asked.map_or(0, |()| value)
        };
        Usage {
            used: of(A::CU_MEMPOOL_ATTR_USED_MEM_CURRENT),
            used_peak: of(A::CU_MEMPOOL_ATTR_USED_MEM_HIGH),
            reserved: of(A::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT),
            reserved_peak: of(A::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once; the driver waits for memory that is still in use.
        let _ = unsafe { result::mem_pool::destroy(self.raw) };
    }
}

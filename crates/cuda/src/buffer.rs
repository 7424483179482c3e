//! Device memory.

use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::sys;

use crate::device::Device;
use crate::stream::Queue;

/// Numbers that are the same bytes on host and device; all bytes are a value.
///
/// # Safety
/// No padding, no pointers, every bit pattern is valid.
pub unsafe trait Plain: Copy + Default + Send + Sync + 'static {}

macro_rules! plain {
    ($($t:ty)*) => {
        // SAFETY: a primitive number.
        $(unsafe impl Plain for $t {})*
    };
}
plain!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

/// `len` elements of device memory, freed in the order of the stream on which they were taken.
///
/// Another stream may use it only after an event of this one (for what wrote it), and this one must wait for an event of the other
/// before the buffer is dropped.
#[derive(Debug)]
pub struct Buffer<T: Plain> {
    queue: Arc<Queue>,
    at: u64,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    pub(crate) fn new(queue: Arc<Queue>, at: u64, len: usize) -> Self {
        Buffer { queue, at, len, of: PhantomData }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its GPU.
    pub fn device(&self) -> &Arc<Device> {
        &self.queue.device
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Address on the device, a multiple of 256: also what `__cuda_array_interface__` and DLPack ask for.
    pub fn address(&self) -> u64 {
        self.at
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.queue.device.bind().is_ok() {
            // SAFETY: taken from the pool once and freed once, in the order of its stream.
            let _ = unsafe { sys::cuMemFreeAsync(self.at, self.queue.raw) };
        }
    }
}

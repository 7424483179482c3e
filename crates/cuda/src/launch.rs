//! Starting kernels.

use cellmill_matrix::Result;
use cudarc::driver::{result, sys};

use crate::buffer::{Buffer, Plain};
use crate::program::Kernel;
use crate::stream::Stream;

/// How many threads run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x and y.
    pub blocks: (u32, u32),
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block; more than 48 KiB as far as the card has it.
    pub shared: u32,
}

impl Grid {
    /// Blocks of `threads` threads, no dynamic shared memory.
    pub fn new(blocks: usize, threads: u32) -> Self {
        Grid { blocks: (blocks as u32, 1), threads, shared: 0 }
    }

    /// As many blocks as `n` threads need.
    pub fn over(n: usize, threads: u32) -> Self {
        Self::new(n.div_ceil(threads as usize), threads)
    }
}

/// One argument of a kernel: a number or an address of device memory.
#[derive(Clone, Copy, Debug)]
pub struct Arg(u64);

impl Arg {
    /// A null pointer.
    pub const NULL: Arg = Arg(0);
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Arg(value.into())
    }
}
impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        Arg(u64::from(value as u32))
    }
}
impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Arg(value)
    }
}
impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Arg(u64::from(value.to_bits()))
    }
}
impl From<f64> for Arg {
    fn from(value: f64) -> Self {
        Arg(value.to_bits())
    }
}
impl<T: Plain> From<&Buffer<T>> for Arg {
    fn from(buffer: &Buffer<T>) -> Self {
        Arg(buffer.address())
    }
}
impl<T: Plain> From<&mut Buffer<T>> for Arg {
    fn from(buffer: &mut Buffer<T>) -> Self {
        Arg(buffer.address())
    }
}
impl<T: Plain> From<Option<&Buffer<T>>> for Arg {
    fn from(buffer: Option<&Buffer<T>>) -> Self {
        buffer.map_or(Arg::NULL, Arg::from)
    }
}

impl Stream {
    /// Queues a kernel; a grid without blocks does nothing.
    ///
    /// # Safety
    /// The arguments must be those of the kernel, in number, order and type; all memory that it touches must lie in buffers that
    /// this stream may use (see [`Buffer`]) and be taken from this stream's device, as the kernel was.
    pub unsafe fn launch(&self, kernel: &Kernel, grid: Grid, args: &[Arg]) -> Result<()> {
        if grid.blocks.0 == 0 || grid.blocks.1 == 0 {
            return Ok(());
        }
        let device = self.device();
        device.bind()?;
        if grid.shared > 48 << 10 {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function lives with its program.
            device.check(kernel.name(), unsafe { sys::cuFuncSetAttribute(kernel.raw(), attribute, grid.shared as i32) }.result())?;
        }
        // The driver copies each argument from where it lies; the low bytes come first.
        let mut places: Vec<*mut std::ffi::c_void> = args.iter().map(|arg| (&raw const arg.0).cast_mut().cast()).collect();
        // SAFETY: the caller answers for the arguments; the driver only reads them, before it returns.
        let done = unsafe {
            result::launch_kernel(
                kernel.raw(),
                (grid.blocks.0, grid.blocks.1, 1),
                (grid.threads, 1, 1),
                grid.shared,
                self.0.raw,
                &mut places,
            )
        };
        device.check(kernel.name(), done)
    }
}

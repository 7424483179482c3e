//! Queues of work, and the order between them.

use std::sync::Arc;

use cellmill_matrix::{Error, Result};
use cudarc::driver::sys;

use crate::buffer::{Buffer, Plain};
use crate::device::Device;

/// The driver's queue; memory that was taken on it keeps it alive.
#[derive(Debug)]
pub(crate) struct Queue {
    pub device: Arc<Device>,
    pub raw: sys::CUstream,
}

// SAFETY: a stream's handle may be used from any thread.
unsafe impl Send for Queue {}
// SAFETY: the driver's calls on a stream are thread-safe.
unsafe impl Sync for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by `Device::stream`, destroyed once; queued work is finished by the driver.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
        }
    }
}

/// A queue of work: what is put in runs in order, beside other streams.
#[derive(Clone, Debug)]
pub struct Stream(pub(crate) Arc<Queue>);

impl Device {
    /// A new stream.
    pub fn stream(self: &Arc<Self>) -> Result<Stream> {
        self.bind()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: writes a handle.
        self.check("stream", unsafe { sys::cuStreamCreate(&mut raw, flags) }.result())?;
        Ok(Stream(Arc::new(Queue { device: self.clone(), raw })))
    }
}

impl Stream {
    /// Its GPU.
    pub fn device(&self) -> &Arc<Device> {
        &self.0.device
    }

    /// Waits on the host until all queued work is done; an error of any of it shows here.
    pub fn synchronize(&self) -> Result<()> {
        self.0.device.bind()?;
        // SAFETY: the stream lives.
        self.0.device.check("waiting for a stream", unsafe { sys::cuStreamSynchronize(self.0.raw) }.result())
    }

    /// Memory with arbitrary contents.
    pub fn alloc<T: Plain>(&self, len: usize) -> Result<Buffer<T>> {
        self.0.device.bind()?;
        let Some(bytes) = len.checked_mul(size_of::<T>()) else {
            return Err(Error::bug(format!("{len} elements of {} bytes of device memory", size_of::<T>())));
        };
        let at = self.0.device.pool().take(bytes, self.0.raw)?;
        Ok(Buffer::new(self.0.clone(), at, len))
    }

    /// Memory filled with zero bytes.
    pub fn zeros<T: Plain>(&self, len: usize) -> Result<Buffer<T>> {
        let mut buffer = self.alloc(len)?;
        self.clear(&mut buffer)?;
        Ok(buffer)
    }

    /// Fills with zero bytes.
    pub fn clear<T: Plain>(&self, buffer: &mut Buffer<T>) -> Result<()> {
        self.0.device.bind()?;
        // SAFETY: the buffer holds so many bytes.
        let done = unsafe { sys::cuMemsetD8Async(buffer.address(), 0, buffer.bytes(), self.0.raw) };
        self.0.device.check("clearing memory", done.result())
    }

    /// Copies host memory into new device memory and waits.
    pub fn upload<T: Plain>(&self, from: &[T]) -> Result<Buffer<T>> {
        let mut to = self.alloc(from.len())?;
        // SAFETY: `from` is borrowed until the wait below has ended.
        unsafe { self.copy_in(from, &mut to, 0)? };
        self.synchronize()?;
        Ok(to)
    }

    /// Copies the first `len` elements of device memory to the host and waits.
    pub fn download<T: Plain>(&self, from: &Buffer<T>, len: usize) -> Result<Vec<T>> {
        self.download_part(from, 0..len)
    }

    /// Copies elements of device memory to the host and waits.
    pub fn download_part<T: Plain>(&self, from: &Buffer<T>, span: std::ops::Range<usize>) -> Result<Vec<T>> {
        if span.end > from.len() || span.start > span.end {
            return Err(Error::bug(format!("{span:?} of {} elements in device memory", from.len())));
        }
        let mut to = vec![T::default(); span.len()];
        self.0.device.bind()?;
        let address = from.address() + (span.start * size_of::<T>()) as u64;
        // SAFETY: the source has these elements; `to` lives until the wait below has ended.
        let done = unsafe { sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), address, size_of_val(&to[..]), self.0.raw) };
        let queued = self.0.device.check("copying from the device", done.result());
        self.synchronize()?;
        queued.map(|()| to)
    }

    /// Copies device memory, element `at` on of `to`.
    pub fn copy<T: Plain>(&self, from: &Buffer<T>, to: &mut Buffer<T>, at: usize) -> Result<()> {
        if at + from.len() > to.len() {
            return Err(Error::bug(format!("{} elements copied to {at} of {} in device memory", from.len(), to.len())));
        }
        self.0.device.bind()?;
        let address = to.address() + (at * size_of::<T>()) as u64;
        // SAFETY: both ranges lie in their buffers.
        let done = unsafe { sys::cuMemcpyDtoDAsync_v2(address, from.address(), from.bytes(), self.0.raw) };
        self.0.device.check("copying on the device", done.result())
    }

    /// Copies elements of device memory into device memory of their own.
    pub fn part<T: Plain>(&self, from: &Buffer<T>, span: std::ops::Range<usize>) -> Result<Buffer<T>> {
        if span.end > from.len() || span.start > span.end {
            return Err(Error::bug(format!("{span:?} of {} elements in device memory", from.len())));
        }
        let to = self.alloc::<T>(span.len())?;
        let address = from.address() + (span.start * size_of::<T>()) as u64;
        // SAFETY: both ranges lie in their buffers.
        let done = unsafe { sys::cuMemcpyDtoDAsync_v2(to.address(), address, to.bytes(), self.0.raw) };
        self.0.device.check("copying on the device", done.result())?;
        Ok(to)
    }

    /// Queues a copy to element `at` on of `to`.
    ///
    /// # Safety
    /// `from` must stay as it is until the copy is done (an event after it has passed).
    pub unsafe fn copy_in<T: Plain>(&self, from: &[T], to: &mut Buffer<T>, at: usize) -> Result<()> {
        if at + from.len() > to.len() {
            return Err(Error::bug(format!("{} elements copied to {at} of {} in device memory", from.len(), to.len())));
        }
        self.0.device.bind()?;
        let address = to.address() + (at * size_of::<T>()) as u64;
        // SAFETY: the target has room; the caller keeps the source.
        let done = unsafe { sys::cuMemcpyHtoDAsync_v2(address, from.as_ptr().cast(), size_of_val(from), self.0.raw) };
        self.0.device.check("copying to the device", done.result())
    }

    /// Queues a copy of bytes to byte `at` on of `to`.
    ///
    /// # Safety
    /// As [`Stream::copy_in`].
    pub(crate) unsafe fn copy_bytes<T: Plain>(&self, from: &[u8], to: &mut Buffer<T>, at: usize) -> Result<()> {
        if at + from.len() > to.bytes() {
            return Err(Error::bug(format!("{} bytes copied to {at} of {} in device memory", from.len(), to.bytes())));
        }
        self.0.device.bind()?;
        // SAFETY: the target has room; the caller keeps the source.
        let done = unsafe { sys::cuMemcpyHtoDAsync_v2(to.address() + at as u64, from.as_ptr().cast(), from.len(), self.0.raw) };
        self.0.device.check("copying to the device", done.result())
    }

    /// Queues a copy of the first elements to the host.
    ///
    /// # Safety
    /// `to` must live, and nobody read or write it, until the copy is done (an event after it has passed).
    pub unsafe fn copy_out<T: Plain>(&self, from: &Buffer<T>, to: &mut [T]) -> Result<()> {
        if to.len() > from.len() {
            return Err(Error::bug(format!("{} elements copied from {} in device memory", to.len(), from.len())));
        }
        self.0.device.bind()?;
        // SAFETY: the source has so many elements; the caller keeps the target.
        let done = unsafe { sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from.address(), size_of_val(to), self.0.raw) };
        self.0.device.check("copying from the device", done.result())
    }

    /// A mark behind what is queued now.
    pub fn record(&self) -> Result<Event> {
        let device = &self.0.device;
        device.bind()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes a handle. Flag 0: with times.
        device.check("event", unsafe { sys::cuEventCreate(&mut raw, 0) }.result())?;
        let event = Event { device: device.clone(), raw };
        // SAFETY: both handles live.
        device.check("event", unsafe { sys::cuEventRecord(raw, self.0.raw) }.result())?;
        Ok(event)
    }

    /// What is queued from now on runs after the event.
    pub fn wait(&self, event: &Event) -> Result<()> {
        self.0.device.bind()?;
        // SAFETY: both handles live.
        self.0.device.check("waiting for an event", unsafe { sys::cuStreamWaitEvent(self.0.raw, event.raw, 0) }.result())
    }
}

/// A mark in a stream.
#[derive(Debug)]
pub struct Event {
    device: Arc<Device>,
    raw: sys::CUevent,
}

// SAFETY: an event's handle may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: the driver's calls on an event are thread-safe.
unsafe impl Sync for Event {}

impl Event {
    /// Waits on the host.
    pub fn synchronize(&self) -> Result<()> {
        self.device.bind()?;
        // SAFETY: the event lives.
        self.device.check("waiting for an event", unsafe { sys::cuEventSynchronize(self.raw) }.result())
    }

    /// Seconds from this event to a later one, both past; `None` if the driver is too old to say (CUDA 12.8).
    pub fn seconds_to(&self, later: &Event) -> Result<Option<f64>> {
        if self.device.driver() < 12_080 {
            return Ok(None);
        }
        self.device.bind()?;
        // SAFETY: both events were made with times.
        let ms = unsafe { cudarc::driver::result::event::elapsed(self.raw, later.raw) };
        Ok(Some(f64::from(self.device.check("event", ms)?) / 1e3))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by `Stream::record`, destroyed once; the driver keeps what is still queued.
            let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}

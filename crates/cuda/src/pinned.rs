//! Host memory that the GPU reads and writes by itself.

use std::borrow::Borrow;
use std::ops::Range;
use std::sync::Arc;

use cellmill_matrix::{Error, Result};
use cudarc::driver::sys;

use crate::buffer::{Buffer, Plain};
use crate::device::Device;
use crate::stream::{Event, Stream};

/// `len` elements of page-locked host memory, zero at first.
#[derive(Debug)]
pub struct Pinned<T: Plain> {
    device: Arc<Device>,
    at: *mut T,
    len: usize,
}

// SAFETY: owned memory of plain numbers.
unsafe impl<T: Plain> Send for Pinned<T> {}
// SAFETY: written through `&mut` alone.
unsafe impl<T: Plain> Sync for Pinned<T> {}

impl Device {
    /// Page-locks host memory. This takes about 0.3 s a GiB: take it once and use it again.
    pub fn pinned<T: Plain>(self: &Arc<Self>, len: usize) -> Result<Pinned<T>> {
        self.bind()?;
        let bytes = (len * size_of::<T>()).max(1);
        let mut at = std::ptr::null_mut();
        // SAFETY: writes a pointer. Flag 1: portable, every context sees it as page-locked.
        self.check("page-locked host memory", unsafe { sys::cuMemHostAlloc(&mut at, bytes, 1) }.result())?;
        // SAFETY: `bytes` bytes were given.
        unsafe { std::ptr::write_bytes(at.cast::<u8>(), 0, bytes) };
        Ok(Pinned { device: self.clone(), at: at.cast(), len })
    }
}

impl<T: Plain> std::ops::Deref for Pinned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements, all initialised, owned by `self`.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }
}

impl<T: Plain> std::ops::DerefMut for Pinned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: `len` elements, all initialised, owned by `self`.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl<T: Plain> Drop for Pinned<T> {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: given by `cuMemHostAlloc`, freed once; no copy is under way: `Pending` and `Lent` wait
            // for theirs.
            let _ = unsafe { sys::cuMemFreeHost(self.at.cast()) };
        }
    }
}

/// Numbers on their way to the host.
#[derive(Debug)]
pub struct Pending<T: Plain> {
    memory: Option<Pinned<T>>,
    done: Event,
}

impl Stream {
    /// Queues a copy of all elements into as many of `to`.
    pub fn download_later<T: Plain>(&self, from: &Buffer<T>, mut to: Pinned<T>) -> Result<Pending<T>> {
        if to.len() < from.len() {
            return Err(Error::bug(format!("{} elements into {} of pinned memory", from.len(), to.len())));
        }
        // SAFETY: `Pending` owns the memory and lets nobody see it before the event has passed.
        let copied = unsafe { self.copy_out(from, &mut to[..from.len()]) };
        match copied.and_then(|()| self.record()) {
            Ok(done) => Ok(Pending { memory: Some(to), done }),
            Err(error) => {
                // The copy may be under way: the memory must outlive it.
                let _ = self.synchronize();
                Err(error)
            }
        }
    }
}

impl<T: Plain> Pending<T> {
    /// Waits and gives the memory back.
    pub fn wait(mut self) -> Result<Pinned<T>> {
        self.done.synchronize()?;
        self.memory.take().ok_or_else(|| Error::bug("numbers that were waited for twice"))
    }
}

impl<T: Plain> Drop for Pending<T> {
    fn drop(&mut self) {
        if self.memory.is_some() {
            let _ = self.done.synchronize();
        }
    }
}

/// Host memory that the GPU is copying from: owned or shared, given back by [`Lent::wait`].
#[derive(Debug)]
pub struct Lent<P> {
    memory: Option<P>,
    copied: Event,
}

impl Stream {
    /// Queues a copy of `span` of pinned memory, a [`Pinned`] or an `Arc` of one, into new device memory.
    pub fn upload_later<T: Plain, P: Borrow<Pinned<T>> + 'static>(&self, from: P, span: Range<usize>) -> Result<(Buffer<T>, Lent<P>)> {
        let Some(elements) = Borrow::<Pinned<T>>::borrow(&from).get(span.clone()) else {
            return Err(Error::bug(format!("{span:?} of {} elements of pinned memory", Borrow::<Pinned<T>>::borrow(&from).len())));
        };
        let mut to = self.alloc(span.len())?;
        // SAFETY: `Lent` owns or shares the memory, gives no access that writes, and waits for the event before it lets go.
        let queued = unsafe { self.copy_in(elements, &mut to, 0) };
        match queued.and_then(|()| self.record()) {
            Ok(copied) => Ok((to, Lent { memory: Some(from), copied })),
            Err(error) => {
                let _ = self.synchronize();
                Err(error)
            }
        }
    }
}

impl<P> Lent<P> {
    /// Waits until the copy is done and gives the memory back.
    pub fn wait(mut self) -> Result<P> {
        self.copied.synchronize()?;
        self.memory.take().ok_or_else(|| Error::bug("memory that was given back twice"))
    }
}

impl<P> Drop for Lent<P> {
    fn drop(&mut self) {
        if self.memory.is_some() {
            let _ = self.copied.synchronize();
        }
    }
}

/// Things on their way to the device, through two halves of page-locked memory: one is filled while the other is being copied.
#[derive(Debug)]
pub struct Tray {
    stream: Stream,
    halves: [(Pinned<u8>, Option<Event>); 2],
    /// The half that is filled now, and how far.
    now: usize,
    used: usize,
}

impl Tray {
    /// For a stream; things of up to `bytes` bytes go through it without a copy of their own.
    pub fn new(stream: &Stream, bytes: usize) -> Result<Self> {
        let halves = [(stream.device().pinned(bytes)?, None), (stream.device().pinned(bytes)?, None)];
        Ok(Tray { stream: stream.clone(), halves, now: 0, used: 0 })
    }

    /// Its stream.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Queues a copy into new device memory. Waits only for room in the tray.
    pub fn upload<T: Plain>(&mut self, from: &[T]) -> Result<Buffer<T>> {
        let mut to = self.stream.alloc(from.len())?;
        self.copy(from, &mut to, 0)?;
        Ok(to)
    }

    /// Queues a copy to element `at` on of `to`. Waits only for room in the tray.
    pub fn copy<T: Plain>(&mut self, from: &[T], to: &mut Buffer<T>, at: usize) -> Result<()> {
        let bytes = size_of_val(from);
        if bytes > self.halves[0].0.len() {
            // SAFETY: `from` is borrowed until the wait has ended.
            let queued = unsafe { self.stream.copy_in(from, to, at) };
            return self.stream.synchronize().and(queued);
        }
        if self.used + bytes > self.halves[self.now].0.len() {
            self.halves[self.now].1 = Some(self.stream.record()?);
            self.now = 1 - self.now;
            self.used = 0;
            if let Some(copied) = self.halves[self.now].1.take() {
                copied.synchronize()?;
            }
        }
        let memory = &mut self.halves[self.now].0[self.used..self.used + bytes];
        // SAFETY: plain numbers are bytes.
        memory.copy_from_slice(unsafe { std::slice::from_raw_parts(from.as_ptr().cast(), bytes) });
        self.used = (self.used + bytes).next_multiple_of(64);
        // SAFETY: this part of the tray is not written again before an event behind the copy has passed, nor freed (`drop`).
        unsafe { self.stream.copy_bytes(memory, to, at * size_of::<T>()) }
    }

    /// Waits for all that is queued, and starts anew.
    pub fn clear(&mut self) -> Result<()> {
        self.stream.synchronize()?;
        self.halves[1 - self.now].1 = None;
        self.used = 0;
        Ok(())
    }
}

impl Drop for Tray {
    fn drop(&mut self) {
        let _ = self.stream.synchronize();
    }
}

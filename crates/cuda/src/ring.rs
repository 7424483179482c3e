//! Pinned buffers that take turns: the host fills one while the GPU copies from the others.

use std::sync::Arc;

use cellmill_matrix::{Error, Result};

use crate::buffer::Buffer;
use crate::device::Device;
use crate::pinned::Pinned;
use crate::stream::{Event, Stream};

/// Pinned buffers in turn.
#[derive(Debug)]
pub struct Ring {
    device: Arc<Device>,
    slots: Vec<Slot>,
    next: usize,
}

#[derive(Debug)]
struct Slot {
    memory: Pinned<u8>,
    copied: Option<Event>,
}

impl Ring {
    /// `slots` buffers of `bytes` bytes; a larger upload makes its buffer grow.
    pub fn new(device: &Arc<Device>, slots: usize, bytes: usize) -> Result<Self> {
        let slot = || Ok(Slot { memory: device.pinned(bytes)?, copied: None });
        let slots = (0..slots.max(1)).map(|_| slot()).collect::<Result<_>>()?;
        Ok(Ring { device: device.clone(), slots, next: 0 })
    }

    /// Waits until the next buffer is free, lets `fill` write `len` bytes into it, and queues their copy into new device memory.
    pub fn upload(&mut self, stream: &Stream, len: usize, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Buffer<u8>> {
        if self.device.ordinal() != stream.device().ordinal() {
            return Err(Error::bug("a ring of one GPU feeds a stream of another"));
        }
        let slot = &mut self.slots[self.next];
        if let Some(event) = slot.copied.take() {
            event.synchronize()?;
        }
        if slot.memory.len() < len {
            slot.memory = self.device.pinned(len.next_multiple_of(1 << 20))?;
        }
        fill(&mut slot.memory[..len])?;
        let mut to = stream.alloc(len)?;
        // SAFETY: the slot is left alone until its event has passed: above, and in `drop`.
        let queued = unsafe { stream.copy_in(&slot.memory[..len], &mut to, 0) };
        match queued.and_then(|()| stream.record()) {
            Ok(event) => slot.copied = Some(event),
            Err(error) => {
                let _ = stream.synchronize();
                return Err(error);
            }
        }
        self.next = (self.next + 1) % self.slots.len();
        Ok(to)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for event in self.slots.iter_mut().filter_map(|slot| slot.copied.take()) {
            let _ = event.synchronize();
        }
    }
}

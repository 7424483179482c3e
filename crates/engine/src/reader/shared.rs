//! Chunks that reach across tasks, decoded once while they are wanted.

use std::sync::{Arc, Mutex, OnceLock};

use cellmill_cuda::{Buffer, Event};
use cellmill_kernels::decode::cuda::Chunk;
use cellmill_matrix::Part;

use super::lock;

/// A decoded chunk, once `done` has passed.
pub(super) struct Decoded {
    pub chunk: Chunk,
    /// What was noticed: see [`cellmill_kernels::decode::cuda::Decode::streams`].
    pub found: Arc<Buffer<u32>>,
    pub done: Arc<Event>,
}

/// Where a chunk is put. `None` inside: it could not be decoded.
type Cell = Arc<OnceLock<Option<Arc<Decoded>>>>;

struct Slot {
    chunk: (Part, u64),
    cell: Cell,
    /// Entries that nobody has asked for yet.
    left: u64,
}

/// A few chunks, the latest used last.
pub(super) struct Shared {
    slots: Mutex<Vec<Slot>>,
    most: usize,
}

/// What becomes of a chunk that was asked for.
pub(super) enum Claim {
    /// Whoever asked has to decode it.
    Mine(Promise),
    /// Another does, or has.
    Theirs(Theirs),
}

/// A chunk that another decodes.
pub(super) struct Theirs(Cell);

impl Theirs {
    /// Waits until its decoding is queued.
    pub fn get(&self) -> Option<Arc<Decoded>> {
        self.0.wait().clone()
    }
}

/// A chunk that others may wait for. Dropped, it tells them that it could not be decoded.
pub(super) struct Promise(Cell);

impl Promise {
    /// Tells them where it is.
    pub fn keep(self, decoded: Decoded) {
        let _ = self.0.set(Some(Arc::new(decoded)));
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let _ = self.0.set(None);
    }
}

impl Shared {
    /// Keeps at most so many.
    pub fn new(most: usize) -> Self {
        Shared { slots: Mutex::default(), most }
    }

    /// Asks for `used` of the `len` entries of a chunk; once all have been asked for, it is forgotten.
    pub fn claim(&self, chunk: (Part, u64), used: u64, len: u64) -> Claim {
        let mut slots = lock(&self.slots);
        let (mut slot, mine) = match slots.iter().position(|slot| slot.chunk == chunk) {
            Some(at) => (slots.remove(at), false),
            None => (Slot { chunk, cell: Cell::default(), left: len }, true),
        };
        let cell = slot.cell.clone();
        slot.left = slot.left.saturating_sub(used);
        if slot.left > 0 {
            if slots.len() >= self.most {
                slots.remove(0);
            }
            slots.push(slot);
        }
        if mine { Claim::Mine(Promise(cell)) } else { Claim::Theirs(Theirs(cell)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_decodes_and_others_hear_of_it() {
        let shared = Shared::new(2);
        let chunk = (Part::Values, 7);
        let Claim::Mine(promise) = shared.claim(chunk, 10, 30) else { panic!("the first decodes") };
        let Claim::Theirs(theirs) = shared.claim(chunk, 10, 30) else { panic!("the second waits") };
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| theirs.get().is_none());
            drop(promise);
            assert!(waiting.join().unwrap(), "a broken promise is heard of");
        });
        assert!(matches!(shared.claim(chunk, 10, 30), Claim::Theirs(_)));
        assert!(matches!(shared.claim(chunk, 10, 30), Claim::Mine(_)), "forgotten once all of it was asked for");
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let shared = Shared::new(2);
        for chunk in 0..3 {
            drop(shared.claim((Part::Columns, chunk), 1, 2));
        }
        assert!(matches!(shared.claim((Part::Columns, 2), 1, 2), Claim::Theirs(_)));
        assert!(matches!(shared.claim((Part::Columns, 0), 1, 2), Claim::Mine(_)));
    }
}

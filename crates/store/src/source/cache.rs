//! Decoded chunks that neighbouring reads share: each is decoded once while it is wanted.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cellmill_matrix::Result;

/// Bytes of chunks that are kept for each array, or two chunks a thread if that is more.
const ROOM: u64 = 64 << 20;

type Cell = Arc<OnceLock<Result<Vec<u8>>>>;

struct Slot {
    chunk: u64,
    cell: Cell,
    /// Entries that nobody has asked for yet.
    left: u64,
}

/// A few decoded chunks of one array, the latest used last.
pub(crate) struct Cache {
    slots: Mutex<(Vec<Slot>, Vec<Vec<u8>>)>,
    across: u64,
    chunk_bytes: u64,
}

/// The chunks that a cache may keep, each of so many bytes, where a row lies in `across` of them: for every thread those that it is in,
/// and those that its rows share with the rows before, which another thread has still to reach. With fewer, threads push out what others
/// have not finished with, and chunks are decoded again and again.
pub(crate) fn kept(chunk_bytes: u64, across: u64, n_threads: usize) -> u64 {
    let threads = n_threads as u64;
    let wanted = if across > 1 { across * (threads + 1) } else { 2 * threads + 2 };
    (ROOM / chunk_bytes.max(1)).min(64).max(wanted)
}

impl Cache {
    pub fn new(chunk_bytes: u64) -> Self {
        Cache::across(chunk_bytes, 1)
    }

    /// A cache of chunks of which `across` make up a row.
    pub fn across(chunk_bytes: u64, across: u64) -> Self {
        Cache { slots: Mutex::default(), across, chunk_bytes }
    }

    /// Chunks that may be kept for the threads of the pool that reads.
    fn most(&self) -> usize {
        kept(self.chunk_bytes, self.across, rayon::current_num_threads()) as usize
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<Slot>, Vec<Vec<u8>>)> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a chunk is here, or on its way.
    pub fn holds(&self, chunk: u64) -> bool {
        self.lock().0.iter().any(|slot| slot.chunk == chunk)
    }

    /// The chunks of a range without those at its ends that are here: what has to be read.
    pub fn lacks(&self, chunks: Range<u64>) -> Range<u64> {
        let Range { mut start, mut end } = chunks;
        while start < end && self.holds(start) {
            start += 1;
        }
        while start < end && self.holds(end - 1) {
            end -= 1;
        }
        start..end
    }

    /// Lets `look` see chunk `chunk`, which `decode` makes unless it is here; another thread that wants it waits for the first.
    /// `used` of its `len` entries are looked at. Once all have been, the chunk is forgotten.
    pub fn with(
        &self,
        chunk: u64,
        used: u64,
        len: u64,
        decode: impl FnOnce(&mut Vec<u8>) -> Result<()>,
        look: impl FnOnce(&[u8]),
    ) -> Result<()> {
        let most = self.most();
        let (cell, mut spare) = {
            let mut guard = self.lock();
            let (slots, spares) = &mut *guard;
            match slots.iter().position(|s| s.chunk == chunk) {
                Some(at) => {
                    let slot = slots.remove(at);
                    let cell = slot.cell.clone();
                    slots.push(slot);
                    (cell, Vec::new())
                }
                None => {
                    while slots.len() >= most {
                        let old = slots.remove(0);
                        recycle(old.cell, spares, most);
                    }
                    let cell = Cell::default();
                    slots.push(Slot { chunk, cell: cell.clone(), left: len });
                    (cell, spares.pop().unwrap_or_default())
                }
            }
        };
        let made = cell.get_or_init(|| {
            decode(&mut spare)?;
            Ok(std::mem::take(&mut spare))
        });
        let bytes = match made {
            Ok(bytes) => bytes,
            Err(error) => return Err(error.clone()),
        };
        look(bytes);
        drop(cell);
        let mut guard = self.lock();
        let (slots, spares) = &mut *guard;
        if let Some(at) = slots.iter().position(|s| s.chunk == chunk) {
            slots[at].left = slots[at].left.saturating_sub(used);
            if slots[at].left == 0 {
                recycle(slots.remove(at).cell, spares, most);
            }
        }
        Ok(())
    }
}

/// Keeps the memory of a chunk that nobody looks at any more.
fn recycle(cell: Cell, spares: &mut Vec<Vec<u8>>, most: usize) {
    if let Some(Ok(bytes)) = Arc::try_unwrap(cell).ok().and_then(OnceLock::into_inner)
        && spares.len() < most.min(4)
    {
        spares.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn threads_in_chunks_of_their_own_push_none_out() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(24).build().unwrap();
        for across in [1, 5] {
            let (cache, decoded) = (Cache::across(ROOM / 2, across), AtomicUsize::new(0));
            let look = |chunk: u64| {
                let decode = |bytes: &mut Vec<u8>| {
                    decoded.fetch_add(1, Ordering::Relaxed);
                    *bytes = vec![chunk as u8];
                    Ok(())
                };
                cache.with(chunk, 1, 4, decode, |bytes| assert_eq!(bytes, [chunk as u8]))
            };
            // Every thread goes through its chunks in four steps, all at the same pace.
            let chunks = 24 * across;
            pool.install(|| (0..4).try_for_each(|_| (0..chunks).try_for_each(look))).unwrap();
            assert_eq!(decoded.into_inner() as u64, chunks);
            assert!(!cache.holds(0), "looked at to its end");
        }
    }
}

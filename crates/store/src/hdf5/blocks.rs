//! Blocks of a file at a URL: its structure is read in many little steps, most of them near each other.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::objects::{Found, Objects, Remote, Span, When};

/// Bytes of a block.
const BLOCK: u64 = 256 << 10;
/// Blocks that are fetched together where the one before was read, too.
const AHEAD: u64 = 8;
/// Blocks that are kept, the latest used last.
const MOST: usize = 64;

/// The blocks of a file that were used last.
#[derive(Debug)]
pub(super) struct Blocks {
    len: u64,
    kept: Mutex<Vec<(u64, Arc<Vec<u8>>)>>,
}

impl Blocks {
    /// Reads the first block, and tells the length of the file; `None` if there is no file.
    pub fn open(remote: &Remote) -> io::Result<Option<(Blocks, u64)>> {
        let Some((first, len)) = remote.begin(BLOCK)? else { return Ok(None) };
        Ok(Some((Blocks { len, kept: Mutex::new(vec![(0, Arc::new(first))]) }, len)))
    }

    /// Bytes that are kept at most.
    pub fn most_bytes() -> u64 {
        MOST as u64 * BLOCK
    }

    /// Fills `into` from byte `at` of the file on; what is longer than a block is read by itself.
    pub fn fill(&self, remote: &Remote, at: u64, into: &mut [u8]) -> io::Result<()> {
        if into.len() as u64 > BLOCK {
            let mut bytes = Vec::new();
            whole(remote.read("", Span::Part { at, len: into.len() as u64 }, &mut bytes)?)?;
            into.copy_from_slice(&bytes);
            return Ok(());
        }
        let mut done = 0;
        while done < into.len() {
            let here = at + done as u64;
            let block = self.block(remote, here / BLOCK)?;
            let from = (here % BLOCK) as usize;
            let part = block.get(from..).filter(|part| !part.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?;
            let n = part.len().min(into.len() - done);
            into[done..done + n].copy_from_slice(&part[..n]);
            done += n;
        }
        Ok(())
    }

    fn span(&self, number: u64) -> Span {
        let at = number * BLOCK;
        Span::Part { at, len: BLOCK.min(self.len.saturating_sub(at)) }
    }

    fn block(&self, remote: &Remote, number: u64) -> io::Result<Arc<Vec<u8>>> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut kept = lock();
            if let Some(i) = kept.iter().position(|(n, _)| *n == number) {
                let found = kept.remove(i);
                kept.push(found.clone());
                return Ok(found.1);
            }
        }
        // Who reads one after the other, as strings lie, will want the next ones too.
        if number > 0 && lock().iter().any(|(n, _)| *n == number - 1) {
            let next: Vec<Span> = (number..number + AHEAD).filter(|n| n * BLOCK < self.len).map(|n| self.span(n)).collect();
            remote.will_read("", &next, When::Now);
        }
        let mut bytes = Vec::new();
        whole(remote.read("", self.span(number), &mut bytes)?)?;
        let bytes = Arc::new(bytes);
        let mut kept = lock();
        if kept.len() >= MOST {
            kept.remove(0);
        }
        kept.push((number, bytes.clone()));
        Ok(bytes)
    }
}

fn whole(found: Found) -> io::Result<()> {
    match found {
        Found::Whole => Ok(()),
        _ => Err(io::Error::other("the file is not the one that was opened")),
    }
}

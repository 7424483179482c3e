//! Bytes of the file at a position, from any thread.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cellmill_matrix::{Error, Place, Result};

use super::blocks::Blocks;
use crate::ahead;
use crate::objects::{Found, Objects, Remote, Span, When};

/// How an HDF5 file begins.
const MAGIC: [u8; 8] = *b"\x89HDF\r\n\x1a\n";

/// An open file, read by position.
#[derive(Debug)]
pub(crate) struct RawFile {
    medium: Medium,
    /// Bytes in the file when it was opened.
    pub len: u64,
    /// The name by which errors call it.
    pub location: String,
    /// Where the HDF5 part begins (after a user block).
    pub base: u64,
}

/// Where a file lies.
#[derive(Debug)]
enum Medium {
    Disk(File),
    /// At a URL. What is small is kept in blocks: the structure of a file is read in many little steps.
    Far(Arc<Remote>, Blocks),
}

impl RawFile {
    pub fn open(path: &Path) -> Result<RawFile> {
        let location = path.display().to_string();
        let open = || -> io::Result<(File, u64)> {
            let file = File::open(path)?;
            let meta = file.metadata()?;
            if meta.is_dir() {
                return Err(io::Error::other("this is a folder, not an HDF5 file"));
            }
            Ok((file, meta.len()))
        };
        let (file, len) = open().map_err(|e| Error::io(Place::store(&location), &e))?;
        Ok(RawFile { medium: Medium::Disk(file), len, location, base: 0 })
    }

    /// The object at a URL; `None` if there is none.
    pub fn open_remote(remote: &Arc<Remote>) -> Result<Option<RawFile>> {
        let location = remote.shown().to_string();
        let Some((blocks, len)) = Blocks::open(remote).map_err(|e| Error::io(Place::store(&location), &e))? else { return Ok(None) };
        Ok(Some(RawFile { medium: Medium::Far(remote.clone(), blocks), len, location, base: 0 }))
    }

    /// Whether an HDF5 signature stands at byte 0, or at 512, 1024, 2048, … (what is before it is the user's).
    pub fn is_hdf5(&self) -> Result<bool> {
        let mut at = 0u64;
        let mut head = [0u8; MAGIC.len()];
        while at + MAGIC.len() as u64 <= self.len {
            self.fill(at, &mut head, || Place::store(&self.location))?;
            if head == MAGIC {
                return Ok(true);
            }
            at = if at == 0 { 512 } else { at * 2 };
        }
        Ok(false)
    }

    /// A place in this file.
    pub fn place(&self, element: &str) -> Place {
        Place::element(&self.location, element)
    }

    /// Fails where `len` bytes at `address` would reach past the end of the file.
    pub fn check(&self, address: u64, len: u64, place: impl FnOnce() -> Place) -> Result<()> {
        match address.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(Error::invalid(
                place(),
                format!("{len} bytes at byte {address}"),
                format!("the file has {} bytes; it is truncated or damaged, fetch it again", self.len),
            )),
        }
    }

    /// Replaces `into` by `len` bytes at `address`.
    pub fn read(&self, address: u64, len: u64, into: &mut Vec<u8>, place: impl Fn() -> Place) -> Result<()> {
        self.check(address, len, &place)?;
        let len = usize::try_from(len)
            .map_err(|_| Error::invalid(place(), format!("{len} bytes"), "fewer fit into memory; the file may be damaged"))?;
        into.resize(len, 0);
        self.fill(address, into, place)
    }

    /// A part of the structure, at an address that the file itself gives; `None` if it can't be read.
    pub fn part(&self, at: u64, len: u64) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.read(self.base.checked_add(at)?, len, &mut out, Place::default).ok()?;
        Some(out)
    }

    /// These runs of bytes (address, length) will be read: chunks, each by itself.
    pub fn ask(&self, runs: &[(u64, u64)], when: When) {
        match &self.medium {
            // Neighbours in the file are asked for in one go; what is read at once is not asked for before.
            Medium::Disk(file) if when == When::Soon => {
                for run in runs.chunk_by(|a, b| a.0 + a.1 == b.0) {
                    ahead::will_read(file, run[0].0, run.iter().map(|(_, len)| len).sum());
                }
            }
            Medium::Disk(_) => {}
            Medium::Far(remote, _) => {
                let spans: Vec<Span> = runs.iter().map(|&(at, len)| Span::Part { at, len }).collect();
                remote.will_read("", &spans, when);
            }
        }
    }

    /// Bytes that are held at most of what was fetched ahead.
    pub fn held_bytes(&self) -> u64 {
        match &self.medium {
            Medium::Disk(_) => 0,
            Medium::Far(remote, _) => remote.held_bytes() + Blocks::most_bytes(),
        }
    }

    /// Fills `into` from `address` on.
    pub fn fill(&self, address: u64, into: &mut [u8], place: impl Fn() -> Place) -> Result<()> {
        self.check(address, into.len() as u64, &place)?;
        let read = match &self.medium {
            Medium::Disk(file) => read_exact_at(file, into, address),
            Medium::Far(remote, blocks) => blocks.fill(remote, address, into),
        };
        read.map_err(|e| Error::io(place(), &e))
    }

    /// Replaces `into` by a chunk: `len` bytes at `address`, which may have been asked for.
    pub fn read_chunk(&self, address: u64, len: u64, into: &mut Vec<u8>, place: impl Fn() -> Place) -> Result<()> {
        let Medium::Far(remote, _) = &self.medium else { return self.read(address, len, into, place) };
        self.check(address, len, &place)?;
        match remote.read("", Span::Part { at: address, len }, into).map_err(|e| Error::io(place(), &e))? {
            Found::Whole => Ok(()),
            _ => Err(Error::invalid(place(), "a file that has changed", "it stays as it was when it was opened")),
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, into: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
    while !into.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, into, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                into = &mut into[n..];
                at += n as u64;
            }
        }
    }
    Ok(())
}

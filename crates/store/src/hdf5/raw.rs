//! Bytes of the file at a position, from any thread.

use std::fs::File;
use std::io;
use std::path::Path;

use cellmill_matrix::{Error, Place, Result};

use crate::ahead;

/// An open file, read by position.
#[derive(Debug)]
pub(crate) struct RawFile {
    file: File,
    /// Bytes in the file when it was opened.
    pub len: u64,
    /// The name by which errors call it.
    pub location: String,
    /// Where the HDF5 part begins (after a user block).
    pub base: u64,
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
        Ok(RawFile { file, len, location, base: 0 })
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

    /// These bytes will be read soon.
    pub fn will_read(&self, address: u64, len: u64) {
        ahead::will_read(&self.file, address, len);
    }

    /// Fills `into` from `address` on.
    pub fn fill(&self, address: u64, into: &mut [u8], place: impl Fn() -> Place) -> Result<()> {
        self.check(address, into.len() as u64, &place)?;
        read_exact_at(&self.file, into, address).map_err(|e| Error::io(place(), &e))
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

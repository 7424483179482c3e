//! A file without a name for packed rows that memory has no room for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use cellmill_matrix::{Error, Place, Result};

/// A file that is made at first use and loses its name at once: whatever happens to the process, nothing is left of it. When it can't
/// grow (a full disk), it says so once and takes no more; what it holds stays readable.
#[derive(Debug)]
pub struct Spill {
    folder: PathBuf,
    file: OnceLock<Option<File>>,
    /// Where the next bytes go.
    end: AtomicU64,
    trouble: Mutex<Option<Error>>,
}

impl Spill {
    /// A file in this folder.
    pub fn new(folder: &Path) -> Self {
        Spill { folder: folder.to_path_buf(), file: OnceLock::new(), end: AtomicU64::new(0), trouble: Mutex::default() }
    }

    /// Appends bytes, from any thread; returns where they lie, or `None` if the file can't take them.
    pub fn append(&self, bytes: &[u8]) -> Option<u64> {
        let file = self.file.get_or_init(|| self.open().map_err(|e| self.fail(&e)).ok()).as_ref()?;
        if self.trouble().is_some() {
            return None;
        }
        let at = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        file.write_all_at(bytes, at).map_err(|e| self.fail(&e)).ok()?;
        Some(at)
    }

    /// Reads bytes back.
    pub fn read(&self, at: u64, into: &mut [u8]) -> Result<()> {
        let file = self.file.get().and_then(Option::as_ref).ok_or_else(|| Error::bug("a spill file was read before it was written"))?;
        file.read_exact_at(into, at).map_err(|e| Error::io(self.place(), &e))
    }

    /// Bytes written.
    pub fn bytes(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Why it takes no more, if so.
    pub fn trouble(&self) -> Option<Error> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(&self) -> io::Result<File> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!(".cellmill-spill-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = self.folder.join(name);
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }

    fn fail(&self, error: &io::Error) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| Error::io(self.place(), error));
    }

    fn place(&self) -> Place {
        Place::store(self.folder.display().to_string())
    }
}

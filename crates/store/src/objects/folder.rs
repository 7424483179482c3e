//! The files of a folder.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Found, Objects, Span, When};
use crate::ahead;

/// Files below a folder.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub fn new(root: &Path) -> Folder {
        Folder { root: root.to_path_buf() }
    }

    /// A file; `None` if there is none.
    fn open(&self, name: &str) -> io::Result<Option<File>> {
        match File::open(self.root.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Objects for Folder {
    fn read(&self, name: &str, span: Span, into: &mut Vec<u8>) -> io::Result<Found> {
        into.clear();
        let Some(mut file) = self.open(name)? else { return Ok(Found::Absent) };
        let size = file.metadata()?.len();
        let Some((at, end)) = span.within(size) else { return Ok(Found::Other(size)) };
        if at > 0 {
            file.seek(SeekFrom::Start(at))?;
        }
        into.try_reserve((end - at) as usize).map_err(|_| io::Error::from(ErrorKind::OutOfMemory))?;
        let read = file.take(end - at).read_to_end(into)? as u64;
        Ok(if read == end - at { Found::Whole } else { Found::Other(at + read) })
    }

    fn will_read(&self, name: &str, spans: &[Span], when: When) {
        // What is read at once is not asked for before.
        let (When::Soon, Ok(Some(file))) = (when, self.open(name)) else { return };
        let Ok(size) = file.metadata().map(|m| m.len()) else { return };
        for (at, end) in spans.iter().filter_map(|span| span.within(size)) {
            ahead::will_read(&file, at, end - at);
        }
    }

    fn sizes(&self, names: &[String]) -> io::Result<Vec<Option<u64>>> {
        Ok(names.iter().map(|name| std::fs::metadata(self.root.join(name)).ok().map(|m| m.len())).collect())
    }

    fn folders(&self, name: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.root.join(name))? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && entry.path().is_dir()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn is_far(&self) -> bool {
        false
    }

    fn held_bytes(&self) -> u64 {
        0
    }
}

//! Files of a journal that hold nothing but what was put into them: for others than cellmill to read, later, under another name.

use std::fs;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::{Journal, whole};

/// What a file is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    length: u64,
    crc: u32,
}

impl Journal {
    /// Keeps a file of these bytes, `FOLDER/NAME` in the journal's folder, as [`Journal::keep`] keeps values.
    pub fn keep_file(&self, name: &str, bytes: &[u8]) -> io::Result<Sum> {
        if let Some((folder, _)) = name.rsplit_once('/') {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        whole(&self.folder, name, |file| file.write_all(bytes))?;
        Ok(Sum::of(bytes))
    }

    /// Whether such a file is there, whole.
    pub fn has_file(&self, name: &str, sum: &Sum) -> bool {
        fs::read(self.folder.join(name)).is_ok_and(|bytes| Sum::of(&bytes) == *sum)
    }

    /// Whether a file of that length is there.
    pub fn sees_file(&self, name: &str, sum: &Sum) -> bool {
        fs::metadata(self.folder.join(name)).is_ok_and(|meta| meta.len() == sum.length)
    }
}

impl Sum {
    fn of(bytes: &[u8]) -> Self {
        Sum { length: bytes.len() as u64, crc: crc32fast::hash(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_sums() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::begin(dir.path(), &Vec::new()).unwrap();
        let sum = journal.keep_file("scores/3", &[1, 2, 3]).unwrap();
        assert_eq!(journal.keep_file("scores/3", &[1, 2, 3]).unwrap(), sum, "a second time");
        assert_eq!(fs::read(dir.path().join("scores/3")).unwrap(), [1, 2, 3]);
        assert!(journal.has_file("scores/3", &sum) && journal.sees_file("scores/3", &sum));
        fs::write(dir.path().join("scores/3"), [1, 2, 4]).unwrap();
        assert!(!journal.has_file("scores/3", &sum) && journal.sees_file("scores/3", &sum), "damaged");
        fs::write(dir.path().join("scores/3"), [1, 2]).unwrap();
        assert!(!journal.sees_file("scores/3", &sum), "cut");
        assert!(!journal.has_file("scores/4", &sum) && !journal.sees_file("scores/4", &sum), "absent");
    }
}

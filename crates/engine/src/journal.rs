//! What a run has finished, on disk, so that it can go on after it was stopped at any moment. A journal is a folder: `identity` says
//! which input, recipe and version it belongs to; a *log* holds the outputs of a read's tasks, one checked record each; a *note* is a
//! larger result, whole or absent. What a kill leaves half-written is found by its checksum and done again.
//!
//! A journal that can't be written (a full disk) stops no run: it says so once and is silent from then on.

mod arrays;
mod files;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cellmill_matrix::{Error, Place, Result};
use serde::{Serialize, de::DeserializeOwned};

pub use self::arrays::Arrays;
pub use self::files::Sum;

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct Journal {
    folder: PathBuf,
    trouble: Arc<Mutex<Option<Error>>>,
}

/// What a journal belongs to, by key: `("input", "…")`, `("recipe hvg.flavor", "…")`.
pub type Identity = Vec<(String, String)>;

const IDENTITY: &str = "identity.json";

impl Journal {
    /// Begins a new journal; one that was there is removed.
    pub fn begin(folder: &Path, identity: &Identity) -> Result<Self> {
        let place = || Place::store(folder.display().to_string());
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(place(), &e)),
            _ => {}
        }
        fs::create_dir_all(folder).map_err(|e| Error::io(place(), &e))?;
        let text = serde_json::to_vec_pretty(identity).map_err(|e| Error::bug(e.to_string()))?;
        whole(folder, IDENTITY, |w| w.write_all(&text)).map_err(|e| Error::io(place(), &e))?;
        Ok(Journal { folder: folder.to_path_buf(), trouble: Arc::default() })
    }

    /// Goes on with a journal. One of another input, recipe or version is refused with the difference.
    pub fn resume(folder: &Path, identity: &Identity) -> Result<Self> {
        let place = Place::store(folder.display().to_string());
        let text = fs::read(folder.join(IDENTITY)).map_err(|e| Error::io(place.clone(), &e))?;
        let old: Identity = serde_json::from_slice(&text)
            .map_err(|e| Error::invalid(place.clone(), format!("no journal ({e})"), "run without --resume"))?;
        let mut differences = Vec::new();
        let find = |list: &Identity, key: &str| list.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        let keys = old.iter().chain(identity.iter().filter(|(k, _)| find(&old, k).is_none())).map(|(k, _)| k);
        for key in keys {
            let (then, now) = (find(&old, key), find(identity, key));
            if then != now {
                let say = |v: Option<String>| v.unwrap_or_else(|| "nothing".into());
                differences.push(format!("{key}: {} then, {} now", say(then), say(now)));
            }
        }
        if !differences.is_empty() {
            return Err(Error::invalid(
                place,
                format!("it belongs to another run ({})", differences.join("; ")),
                "the same input, recipe and version are needed to go on; -y without --resume starts anew",
            ));
        }
        Ok(Journal { folder: folder.to_path_buf(), trouble: Arc::default() })
    }

    /// The journal of a run that another process has begun.
    pub fn of(folder: &Path) -> Self {
        Journal { folder: folder.to_path_buf(), trouble: Arc::default() }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether there is a journal.
    pub fn exists(folder: &Path) -> bool {
        folder.join(IDENTITY).is_file()
    }

    /// Removes it.
    pub fn remove(&self) {
        // What is left of a journal harms nobody: the next run of that name removes it.
        let _ = fs::remove_dir_all(&self.folder);
    }

    /// Why it is not written any more, if so.
    pub fn trouble(&self) -> Option<Error> {
        self.lock().clone()
    }

    /// The log of a read.
    pub fn log(&self, name: &str) -> Log {
        let opened = Log::open(&self.folder.join(format!("{name}.log")), self);
        opened.unwrap_or_else(|e| {
            self.fail(&e);
            Log { journal: self.clone(), file: None, records: Mutex::default() }
        })
    }

    /// Keeps a value under a name; it is there whole or not at all.
    pub fn save<T: Serialize>(&self, name: &str, value: &T) {
        if self.trouble().is_some() {
            return;
        }
        if let Err(e) = self.keep(name, value) {
            self.fail(&e);
        }
    }

    /// Keeps a value under a name, or says why it can't be kept: for what others wait for. Several processes may keep the same value at
    /// the same time.
    pub fn keep<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        whole(&self.folder, name, |file| {
            // Numbers come a few bytes at a time: gathered first, then summed and written.
            let w = BufWriter::with_capacity(1 << 20, Summed { inner: file, sum: crc32fast::Hasher::new() });
            let w = postcard::to_io(value, w).map_err(io::Error::other)?;
            let Summed { inner, sum } = w.into_inner().map_err(io::IntoInnerError::into_error)?;
            inner.write_all(&sum.finalize().to_le_bytes())
        })
    }

    /// Keeps bytes under a name, as [`Journal::keep`] keeps values.
    pub fn keep_bytes(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        whole(&self.folder, name, |file| {
            file.write_all(bytes)?;
            file.write_all(&crc32fast::hash(bytes).to_le_bytes())
        })
    }

    /// Reads the bytes of a name, if they are there, whole and as many as these; else these mean nothing.
    pub fn read_bytes(&self, name: &str, into: &mut [u8]) -> bool {
        let mut read = || -> io::Result<bool> {
            let mut file = File::open(self.folder.join(name))?;
            let mut sum = [0; 4];
            let fits = file.metadata()?.len() == into.len() as u64 + 4;
            if fits {
                file.read_exact(into)?;
                file.read_exact(&mut sum)?;
            }
            Ok(fits && u32::from_le_bytes(sum) == crc32fast::hash(into))
        };
        read().unwrap_or(false)
    }

    /// Whether the value of a name is there and whole.
    pub fn is_whole(&self, name: &str) -> bool {
        let path = self.folder.join(name);
        let check = || -> io::Result<bool> {
            let length = fs::metadata(&path)?.len().saturating_sub(4);
            let mut file = BufReader::with_capacity(1 << 20, File::open(&path)?);
            let mut sum = Summed { inner: io::sink(), sum: crc32fast::Hasher::new() };
            io::copy(&mut (&mut file).take(length), &mut sum)?;
            let mut stored = [0; 4];
            file.read_exact(&mut stored)?;
            Ok(u32::from_le_bytes(stored) == sum.sum.finalize())
        };
        check().unwrap_or(false)
    }

    /// The value of a name, if it is there and whole.
    pub fn load<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        // Looked through once before it is taken apart: a damaged length must not ask for memory.
        if !self.is_whole(name) {
            return None;
        }
        let file = BufReader::with_capacity(1 << 16, File::open(self.folder.join(name)).ok()?);
        let mut scratch = vec![0; SCRATCH];
        postcard::from_io::<T, _>((file, &mut scratch)).ok().map(|(value, _)| value)
    }

    /// The value of a name, if it is there and whole, by way of all its bytes in memory: faster than [`Journal::load`], for what is small
    /// enough.
    pub fn record<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let bytes = fs::read(self.folder.join(name)).ok()?;
        let (value, sum) = bytes.split_last_chunk::<4>()?;
        if u32::from_le_bytes(*sum) != crc32fast::hash(value) {
            return None;
        }
        postcard::from_bytes(value).ok()
    }

    /// Removes a value that a later one has replaced.
    pub fn forget(&self, name: &str) {
        // One that is left harms nobody.
        let _ = fs::remove_file(self.folder.join(name));
    }

    fn fail(&self, error: &io::Error) {
        self.lock().get_or_insert_with(|| Error::io(Place::store(self.folder.display().to_string()), error));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Error>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Longest string in a note.
const SCRATCH: usize = 1 << 16;

/// Writes a file that appears whole.
fn whole(folder: &Path, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    // Processes of several machines may write the same file: each has one of its own until it is renamed.
    let moment = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_nanos());
    let temporary = folder.join(format!("{name}.{}-{moment:x}.new", std::process::id()));
    let done = File::create(&temporary).and_then(|mut file| {
        write(&mut file)?;
        drop(file);
        fs::rename(&temporary, folder.join(name))
    });
    if done.is_err() {
        // Half a file must not take the room that a full disk lacks.
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Sums what passes.
struct Summed<W> {
    inner: W,
    sum: crc32fast::Hasher,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.sum.update(&bytes[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Outputs of tasks by their number.
pub struct Log {
    journal: Journal,
    file: Option<File>,
    /// Place and length of each task's record, and where the next one goes.
    records: Mutex<Records>,
}

#[derive(Default)]
struct Records {
    places: BTreeMap<u64, (u64, usize)>,
    end: u64,
}

/// Before each record: task, length, checksum of both and of what follows.
const HEADER: usize = 20;

impl Log {
    fn open(path: &Path, journal: &Journal) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let length = file.metadata()?.len();
        let mut records = Records::default();
        let mut header = [0; HEADER];
        while records.end + HEADER as u64 <= length {
            file.read_exact_at(&mut header, records.end)?;
            let (task, len, _) = parts(&header);
            let Some(next) = records.end.checked_add(HEADER as u64).and_then(|e| e.checked_add(len)).filter(|&e| e <= length) else {
                break;
            };
            records.places.insert(task, (records.end, len as usize));
            records.end = next;
        }
        // What a kill has cut must not be taken for records behind a new one.
        if records.end < length {
            file.set_len(records.end)?;
        }
        Ok(Log { journal: journal.clone(), file: Some(file), records: Mutex::new(records) })
    }

    /// Tasks that are there.
    pub fn n_tasks(&self) -> usize {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).places.len()
    }

    /// The output of a task, if its record is there and whole.
    pub fn get<T: DeserializeOwned>(&self, task: u64) -> Option<T> {
        let &(at, len) = self.records.lock().unwrap_or_else(PoisonError::into_inner).places.get(&task)?;
        let mut bytes = vec![0; HEADER + len];
        self.file.as_ref()?.read_exact_at(&mut bytes, at).ok()?;
        let (header, payload) = bytes.split_first_chunk::<HEADER>()?;
        if parts(header).2 != checksum(task, payload) {
            return None;
        }
        postcard::from_bytes(payload).ok()
    }

    /// Keeps the output of a task.
    pub fn put<T: Serialize>(&self, task: u64, output: &T) {
        let Some(file) = &self.file else { return };
        if self.journal.trouble().is_some() {
            return;
        }
        let Ok(bytes) = postcard::to_extend(output, vec![0; HEADER]) else { return };
        let mut bytes = bytes;
        let len = bytes.len() - HEADER;
        let sum = checksum(task, &bytes[HEADER..]);
        bytes[..8].copy_from_slice(&task.to_le_bytes());
        bytes[8..16].copy_from_slice(&(len as u64).to_le_bytes());
        bytes[16..HEADER].copy_from_slice(&sum.to_le_bytes());
        // Written in turn, so that a kill can only cut the last record.
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let at = records.end;
        match file.write_all_at(&bytes, at) {
            Ok(()) => {
                records.places.insert(task, (at, len));
                records.end += bytes.len() as u64;
            }
            Err(e) => self.journal.fail(&e),
        }
    }
}

fn parts(header: &[u8; HEADER]) -> (u64, u64, u32) {
    let word = |at: usize| header[at..at + 8].iter().rev().fold(0u64, |w, &b| w << 8 | u64::from(b));
    let sum = header[16..HEADER].iter().rev().fold(0u32, |w, &b| w << 8 | u32::from(b));
    (word(0), word(8), sum)
}

fn checksum(task: u64, payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&task.to_le_bytes());
    sum.update(&(payload.len() as u64).to_le_bytes());
    sum.update(payload);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: u32) -> Identity {
        vec![("input".into(), "a.zarr".into()), ("recipe hvg.n_top_genes".into(), n.to_string())]
    }

    #[test]
    fn bytes_are_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::begin(dir.path(), &identity(5)).unwrap();
        let mut into = [0u8; 5];
        assert!(!journal.read_bytes("scores", &mut into), "absent");
        journal.keep_bytes("scores", &[1, 2, 3, 4, 5]).unwrap();
        assert!(journal.is_whole("scores"));
        assert!(journal.read_bytes("scores", &mut into));
        assert_eq!(into, [1, 2, 3, 4, 5]);
        assert!(!journal.read_bytes("scores", &mut [0; 4]) && !journal.read_bytes("scores", &mut [0; 6]), "another number of them");
        let path = dir.path().join("scores");
        let mut bytes = fs::read(&path).unwrap();
        bytes[2] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(!journal.read_bytes("scores", &mut into), "damaged");
    }

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("out.journal");
        let journal = Journal::begin(&folder, &identity(5)).unwrap();
        journal.log("read").put(3, &vec![1.5f64, -0.0]);
        journal.save("note", &(7u64, "seven".to_string()));
        let again = Journal::resume(&folder, &identity(5)).unwrap();
        let log = again.log("read");
        assert_eq!((log.get::<Vec<f64>>(3), log.get::<Vec<f64>>(2), log.n_tasks()), (Some(vec![1.5, -0.0]), None, 1));
        log.put(2, &vec![2.5f64]);
        assert_eq!(again.log("read").get::<Vec<f64>>(2), Some(vec![2.5]));
        assert_eq!(again.load::<(u64, String)>("note"), Some((7, "seven".into())));
        assert_eq!(again.record::<(u64, String)>("note"), Some((7, "seven".into())));
        assert_eq!(again.load::<(u64, String)>("other"), None);
        assert!(again.trouble().is_none());
        again.remove();
        assert!(!Journal::exists(&folder));
    }

    #[test]
    fn another_recipe_is_refused_with_the_difference() {
        let dir = tempfile::tempdir().unwrap();
        Journal::begin(dir.path(), &identity(5)).unwrap();
        let error = Journal::resume(dir.path(), &identity(6)).unwrap_err().to_string();
        assert!(error.contains("recipe hvg.n_top_genes: 5 then, 6 now"), "{error}");
    }

    #[test]
    fn a_record_cut_anywhere_is_not_there_and_the_log_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::begin(dir.path(), &identity(5)).unwrap();
        let log = journal.log("read");
        log.put(0, &vec![9u64; 5]);
        log.put(1, &vec![8u64; 5]);
        let path = dir.path().join("read.log");
        let all = fs::read(&path).unwrap();
        for cut in 0..all.len() {
            fs::write(&path, &all[..cut]).unwrap();
            let log = journal.log("read");
            assert_eq!(log.get::<Vec<u64>>(0).is_some(), cut >= all.len() / 2, "{cut}");
            assert!(log.get::<Vec<u64>>(1).is_none());
            log.put(1, &vec![7u64; 3]);
            assert_eq!(journal.log("read").get::<Vec<u64>>(1), Some(vec![7; 3]));
        }
    }

    /// The end of a record that was cut, which looks like the beginning of another of the same task.
    #[test]
    fn what_a_cut_record_leaves_hides_no_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::begin(dir.path(), &identity(5)).unwrap();
        let log = journal.log("read");
        log.put(3, &vec![0.5f64]);
        let place = (HEADER + 9) as u64;
        let file = File::options().write(true).open(dir.path().join("read.log")).unwrap();
        file.set_len(0).unwrap();
        file.write_all_at(&[0, 0, 0, 0, 0, 0, 0, 0, 255], 0).unwrap();
        file.write_all_at(&[255; 8], 8).unwrap();
        file.write_all_at(&3u64.to_le_bytes(), place).unwrap();
        file.set_len(place + HEADER as u64).unwrap();
        journal.log("read").put(3, &vec![0.5f64]);
        assert_eq!(journal.log("read").get::<Vec<f64>>(3), Some(vec![0.5]));
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::begin(dir.path(), &identity(5)).unwrap();
        journal.log("read").put(0, &vec![9u64; 5]);
        journal.save("note", &vec![9u64; 5]);
        for name in ["read.log", "note"] {
            let path = dir.path().join(name);
            let all = fs::read(&path).unwrap();
            for bit in 0..all.len() * 8 {
                let mut bad = all.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, &bad).unwrap();
                let found = if name == "note" { journal.load::<Vec<u64>>(name) } else { journal.log("read").get(0) };
                assert!(found.is_none(), "{name}, bit {bit}");
                assert!(journal.record::<Vec<u64>>(name).is_none(), "{name}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_folder_that_goes_away_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("j");
        let journal = Journal::begin(&folder, &identity(5)).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        journal.save("note", &1u8);
        journal.log("read").put(0, &1u8);
        assert!(journal.trouble().is_some());
    }
}

#![no_main]

use std::fs;

use cellmill_engine::journal::Journal;

/// A task's output as a read leaves it.
type Output = (u64, Vec<f64>, Vec<(String, Vec<u8>)>, Option<Vec<u32>>);

// A byte that says where the first part ends; the first part is a log, the second a note.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let (log, note) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("j");
    let identity = vec![("input".to_string(), "x".to_string())];
    Journal::begin(&path, &identity).unwrap();
    fs::write(path.join("read.log"), log).unwrap();
    fs::write(path.join("note"), note).unwrap();
    let journal = Journal::resume(&path, &identity).unwrap();
    let _ = journal.load::<Output>("note");
    let log = journal.log("read");
    for task in 0..8 {
        let _ = log.get::<Output>(task);
    }
    let new: Output = (7, vec![0.5], Vec::new(), None);
    log.put(3, &new);
    // What was put is there after the next start, whatever lay before it.
    drop(log);
    if journal.trouble().is_none() {
        assert_eq!(journal.log("read").get::<Output>(3), Some(new));
    }
});

//! Writing a file so that it appears whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use cellmill_matrix::{Error, Place, Result};

/// Writes `bytes` beside `path` under another name, then renames. On any failure the other name is removed.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let refused = |e: &std::io::Error| Error::io(Place::store(path.display().to_string()), e);
    let Some(name) = path.file_name() else {
        return Err(Error::option("output", path.display(), "it must be the path of a file"));
    };
    let mut draft = std::ffi::OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}.part", std::process::id()));
    let draft = path.with_file_name(draft);
    let written = File::create(&draft)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&draft, path));
    written.map_err(|e| {
        // The first failure is the one to report; the draft may not even exist.
        let _ = fs::remove_file(&draft);
        refused(&e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("umap.png");
        write(&path, b"one").map_err(std::io::Error::other)?;
        write(&path, b"two").map_err(std::io::Error::other)?;
        assert_eq!(fs::read(&path)?, b"two");
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        assert!(write(&folder.path().join("missing/umap.png"), b"x").is_err());
        assert!(write(folder.path(), b"x").is_err());
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }
}

//! What a journal belongs to: the input as it lies on disk, the recipe, the version.

use std::path::Path;
use std::time::UNIX_EPOCH;

use cellmill_engine::journal::Identity;
use cellmill_matrix::{Error, Place, Result};
use cellmill_store::dataset::{files as files_of, versions};
use cellmill_store::is_url;
use cellmill_store::zarr::WORK;

use crate::recipe::Recipe;

/// Everything that decides what a run computes, by key. Threads and memory decide nothing. `objects`: of an input at a URL, those whose
/// versions tell it from others ([`cellmill_store::dataset::objects`]).
pub fn identity(input: &Path, objects: &[String], genome: Option<&str>, recipe: &Recipe) -> Result<Identity> {
    let mut identity = vec![("version".to_string(), env!("CARGO_PKG_VERSION").to_string())];
    if is_url(input) {
        let mut hash = Fnv::default();
        for (name, version) in versions(input, objects)? {
            hash.add(name.as_bytes());
            hash.add(version.as_bytes());
        }
        identity.push(("input".into(), input.display().to_string()));
        identity.push(("sizes and ETags of its objects (hash)".into(), format!("{:016x}", hash.finish())));
    } else {
        let path = std::fs::canonicalize(input).unwrap_or_else(|_| input.to_path_buf());
        let mut files = Files::default();
        for file in files_of(input)? {
            files.add(&file, "").map_err(|e| Error::io(Place::store(input.display().to_string()), &e))?;
        }
        identity.extend([
            ("input".into(), path.display().to_string()),
            ("files of the input".into(), files.n.to_string()),
            ("bytes of the input".into(), files.bytes.to_string()),
            ("names, sizes and times of its files (hash)".into(), format!("{:016x}", files.hash.finish())),
        ]);
    }
    identity.extend(genome.map(|g| ("genome".to_string(), g.to_string())));
    let mut section = String::new();
    for line in recipe.to_toml()?.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, value)) = line.split_once(" = ") {
            identity.push((format!("recipe {section}{key}"), value.to_string()));
        }
    }
    Ok(identity)
}

/// FNV-1a, 64 bits.
#[derive(Clone)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    }

    /// The hash of all bytes so far.
    pub fn finish(&self) -> u64 {
        self.0
    }
}

/// Files of an input: contents are not read, a store of a terabyte is looked at in a moment.
#[derive(Default)]
struct Files {
    n: u64,
    bytes: u64,
    hash: Fnv,
}

impl Files {
    fn add(&mut self, path: &Path, name: &str) -> std::io::Result<()> {
        let about = std::fs::metadata(path)?;
        if about.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(path)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
            // What a change in place is writing, or has left, is not the store's.
            names.retain(|name| !name.to_string_lossy().starts_with(WORK));
            names.sort();
            return names.iter().try_for_each(|n| self.add(&path.join(n), &format!("{name}/{}", n.to_string_lossy())));
        }
        let time = about.modified()?.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        self.n += 1;
        self.bytes += about.len();
        self.hash.add(name.as_bytes());
        self.hash.add(&about.len().to_le_bytes());
        self.hash.add(&time.to_le_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_and_a_changed_recipe_show() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("X")).unwrap();
        std::fs::write(dir.path().join("X/0"), b"abc").unwrap();
        let mut recipe = Recipe::default();
        let one = identity(dir.path(), &[], None, &recipe).unwrap();
        // What a change in place had begun to write when it was killed.
        std::fs::create_dir_all(dir.path().join(".cellmill-Ab3/new/obs")).unwrap();
        std::fs::write(dir.path().join(".cellmill-Ab3/new/obs/0"), b"abc").unwrap();
        assert_eq!(one, identity(dir.path(), &[], None, &recipe).unwrap());
        std::fs::write(dir.path().join("X/0"), b"abd").unwrap();
        let two = identity(dir.path(), &[], None, &recipe).unwrap();
        assert_ne!(one, two);
        recipe.neighbors.n_neighbors = 7;
        let three = identity(dir.path(), &[], None, &recipe).unwrap();
        let differ: Vec<_> = two.iter().zip(&three).filter(|(a, b)| a != b).map(|(a, b)| (&a.0, &a.1, &b.1)).collect();
        assert_eq!(differ, [(&"recipe neighbors.n_neighbors".to_string(), &"15".to_string(), &"7".to_string())]);
    }
}

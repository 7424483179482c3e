//! Which files a matrix of 10x Genomics in Matrix Market format consists of.

use std::path::{Path, PathBuf};

use cellmill_matrix::{Error, Place, Result};

const MATRIX: &str = "matrix.mtx";

/// The files of a matrix. Several may lie in a folder, where the names of each begin with something of its own, such as `GSM3489182_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MtxFiles {
    /// Entries.
    pub matrix: PathBuf,
    /// Names of cells.
    pub barcodes: PathBuf,
    /// Names of features.
    pub features: PathBuf,
    /// Whether these are called genes, as Cell Ranger 2 does.
    pub legacy: bool,
}

impl MtxFiles {
    /// Whether a path leads to a matrix: a folder that holds one, or the matrix itself (`…matrix.mtx`, `…matrix.mtx.gz`).
    pub fn are_at(path: &Path) -> bool {
        if path.is_dir() { !prefixes(path).is_empty() } else { prefix(path).is_some() }
    }

    /// The files of the matrix at a path, which is a folder that holds one, or the matrix itself.
    pub fn of(path: &Path) -> Result<Self> {
        let place = || Place::store(path.display().to_string());
        let (folder, prefix) = match prefix(path).filter(|_| !path.is_dir()) {
            Some(prefix) => (path.parent().unwrap_or(Path::new("")), prefix),
            None => {
                let mut all = prefixes(path);
                let plain = all.iter().position(String::is_empty).unwrap_or(0);
                if all.len() > 1 && !all[plain].is_empty() {
                    let found = format!("several matrices: {}", all.iter().map(|p| format!("{p}{MATRIX}")).collect::<Vec<_>>().join(", "));
                    return Err(Error::invalid(place(), found, "there is one, or the path of one is given"));
                }
                (path, if all.is_empty() { String::new() } else { all.swap_remove(plain) })
            }
        };
        let legacy = find(folder, &prefix, "genes.tsv").is_some();
        let need =
            |name: &str| find(folder, &prefix, name).ok_or_else(|| Error::missing(place(), format!("{prefix}{name}"), names(folder)));
        Ok(MtxFiles {
            matrix: need(MATRIX)?,
            barcodes: need("barcodes.tsv")?,
            features: need(if legacy { "genes.tsv" } else { "features.tsv" })?,
            legacy,
        })
    }
}

/// What the name of a matrix begins with; `None` for any other file.
fn prefix(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    Some(name.strip_suffix(".gz").unwrap_or(name).strip_suffix(MATRIX)?.to_string())
}

/// What the names of a folder's matrices begin with, sorted.
fn prefixes(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = names(folder).iter().filter_map(|name| prefix(Path::new(name))).collect();
    found.sort();
    found.dedup();
    found
}

/// Names of the files in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let files = folder.read_dir().into_iter().flatten().flatten().filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn find(folder: &Path, prefix: &str, name: &str) -> Option<PathBuf> {
    ["", ".gz"].iter().map(|end| folder.join(format!("{prefix}{name}{end}"))).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_in_a_folder_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(dir.path().join(name), "").unwrap();
        assert!(!MtxFiles::are_at(dir.path()));
        ["a_matrix.mtx.gz", "a_barcodes.tsv.gz", "a_features.tsv.gz"].iter().for_each(|&name| write(name));
        let a = MtxFiles::of(dir.path()).unwrap();
        assert_eq!((a.legacy, a.matrix.clone()), (false, dir.path().join("a_matrix.mtx.gz")));
        ["b_matrix.mtx", "b_barcodes.tsv", "b_genes.tsv"].iter().for_each(|&name| write(name));
        assert!(MtxFiles::are_at(dir.path()) && MtxFiles::are_at(&a.matrix) && !MtxFiles::are_at(&a.barcodes));
        let error = MtxFiles::of(dir.path()).unwrap_err().to_string();
        assert!(error.contains("a_matrix.mtx, b_matrix.mtx"), "{error}");
        assert_eq!(MtxFiles::of(&a.matrix).unwrap(), a);
        let b = MtxFiles::of(&dir.path().join("b_matrix.mtx")).unwrap();
        assert_eq!((b.legacy, b.features), (true, dir.path().join("b_genes.tsv")));
        std::fs::remove_file(&b.barcodes).unwrap();
        let error = MtxFiles::of(&b.matrix).unwrap_err().to_string();
        assert!(error.contains("there is no 'b_barcodes.tsv'"), "{error}");
        // One without a prefix is the folder's.
        ["matrix.mtx", "barcodes.tsv", "genes.tsv"].iter().for_each(|&name| write(name));
        assert_eq!(MtxFiles::of(dir.path()).unwrap().matrix, dir.path().join("matrix.mtx"));
    }
}

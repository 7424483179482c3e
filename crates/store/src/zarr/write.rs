//! Writing zarr stores: a new one appears whole under its name, or single elements of an old one are exchanged.

mod rows;
mod stream;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cellmill_matrix::{Array, DType, Error, Place, Result, Values};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use self::rows::RowChunks;
use self::stream::ZarrStream;
use super::document::{LEVEL, array_v2, array_v3, name_v2};
use super::{ZarrTree, blosc, folder, records, text};
use crate::numbers;
use crate::tree::{ArrayStream, Attrs, Tree, TreeWriter};

/// Bytes of a chunk, about.
const CHUNK: usize = 2 << 20;
/// Strings of a chunk.
const STRINGS: usize = 1 << 16;
/// Elements that are written at a time, at most.
const SIDE_BY_SIDE: usize = 4;
/// Elements that are mappings: in an old store they are added to, not replaced.
const MAPPINGS: [&str; 7] = ["", "layers", "obsm", "varm", "obsp", "varp", "uns"];

/// The version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ZarrVersion {
    /// zarr version 2: blosc-lz4.
    V2,
    /// zarr version 3: zstd.
    V3,
}

/// How the folder is called, in a store that is changed in place, in which things are written.
pub const WORK: &str = ".cellmill-";
/// What had the name of something new, in that folder.
const OLD: &str = "old";

impl ZarrTree {
    /// The version in which elements are added to this store.
    pub fn written(&self) -> ZarrVersion {
        if self.version() == 3 { ZarrVersion::V3 } else { ZarrVersion::V2 }
    }
}

/// What a writer and its streams share.
struct Shared {
    version: ZarrVersion,
    /// Where things are written before they get their names.
    work: PathBuf,
    target: PathBuf,
    in_place: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Metadata documents by their keys (`obs/zarr.json`, `obs/.zattrs`).
    documents: BTreeMap<String, Value>,
    /// Groups and arrays that were written.
    nodes: BTreeSet<String>,
}

/// A zarr store that is being written.
pub struct ZarrWriter {
    shared: Arc<Shared>,
    /// Removed on drop, with whatever has not been renamed.
    temp: TempDir,
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}/{name}") }
}

impl ZarrWriter {
    /// Begins a new store. It is written into a folder beside `path` and takes its name in [`TreeWriter::finish`]; without
    /// that nothing is left. An old store of that name is replaced only if `overwrite`.
    pub fn create(path: &Path, version: ZarrVersion, overwrite: bool) -> Result<ZarrWriter> {
        let place = Place::store(path.display().to_string());
        check_target(path, overwrite)?;
        let Some(name) = path.file_name() else {
            return Err(Error::invalid(place, "a path without a name", "the output has a name, for example out.zarr"));
        };
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let prefix = format!(".{}.cellmill-", name.to_string_lossy());
        let temp = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).map_err(|e| Error::io(place.clone(), &e))?;
        let work = temp.path().join("store");
        std::fs::create_dir(&work).map_err(|e| Error::io(place, &e))?;
        let shared = Shared { version, work, target: path.to_path_buf(), in_place: false, state: Mutex::default() };
        Ok(ZarrWriter { shared: Arc::new(shared), temp })
    }

    /// Adds to a store that exists. Elements are written beside it and exchanged one by one in [`TreeWriter::finish`];
    /// mappings (`obsm`, `uns`, …) are added to, everything else of the same name is replaced.
    pub fn in_place(path: &Path) -> Result<ZarrWriter> {
        let place = Place::store(path.display().to_string());
        restore(path).map_err(|e| Error::io(place.clone(), &e))?;
        let version = ZarrTree::open(path)?.written();
        let temp = tempfile::Builder::new().prefix(WORK).tempdir_in(path).map_err(|e| Error::io(place.clone(), &e))?;
        let work = temp.path().join("new");
        std::fs::create_dir(&work).map_err(|e| Error::io(place, &e))?;
        let shared = Shared { version, work, target: path.to_path_buf(), in_place: true, state: Mutex::default() };
        Ok(ZarrWriter { shared: Arc::new(shared), temp })
    }
}

/// Whether the output may be written there.
fn check_target(path: &Path, overwrite: bool) -> Result<()> {
    let place = Place::store(path.display().to_string());
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !overwrite {
        return Err(Error::invalid(place, "the output exists already", "it is replaced only with --overwrite"));
    }
    let empty = || std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if !meta.is_dir() || !(ZarrTree::is_zarr(path) || empty()) {
        return Err(Error::invalid(place, "the output exists and is no zarr store", "only a zarr store is replaced by one"));
    }
    Ok(())
}

impl Shared {
    fn place(&self, path: &str) -> Place {
        let store = self.target.display().to_string();
        if path.is_empty() { Place::store(store) } else { Place::element(store, path) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, path: &str) -> Result<PathBuf> {
        let bad = path.split('/').any(|part| part.starts_with(".z") || part == "zarr.json" || (part.is_empty() && !path.is_empty()));
        folder(&self.work, path).filter(|_| !bad).ok_or_else(|| {
            Error::invalid(self.place(path), "a name that can't be used in a zarr store", "names are not empty, '.', '..' or zarr's own")
        })
    }

    fn io(&self, path: &str, error: &std::io::Error) -> Error {
        Error::io(self.place(path), error)
    }

    /// Notes a metadata document and writes it.
    fn document(&self, path: &str, name: &str, value: Value) -> Result<()> {
        let file = self.folder(path)?.join(name);
        std::fs::write(&file, to_bytes(&value)).map_err(|e| self.io(path, &e))?;
        let mut state = self.state();
        state.documents.insert(join(path, name), value);
        state.nodes.insert(path.to_string());
        Ok(())
    }

    fn array_documents(&self, path: &str, dtype: DType, shape: &[u64], chunk: &[u64], attrs: Attrs) -> Result<()> {
        match self.version {
            ZarrVersion::V3 => self.document(path, "zarr.json", array_v3(dtype, shape, chunk, attrs)),
            ZarrVersion::V2 => {
                self.document(path, ".zarray", array_v2(dtype, shape, chunk))?;
                self.document(path, ".zattrs", attrs.into())
            }
        }
    }

    /// Compresses and writes one chunk.
    fn chunk(&self, path: &str, folder: &Path, at: u64, axes: usize, bytes: &[u8], size: usize) -> Result<()> {
        let fail = |what: String| Error::invalid(self.place(path), what, "a chunk that can be compressed");
        let stored = encode(self.version, bytes, size).map_err(fail)?;
        let file = self.chunk_file(path, folder, at, axes)?;
        std::fs::write(&file, stored).map_err(|e| self.io(path, &e))
    }

    /// Where a chunk goes; its folder is there then.
    fn chunk_file(&self, path: &str, folder: &Path, at: u64, axes: usize) -> Result<PathBuf> {
        let rest = "0".to_string();
        let mut parts = vec![at.to_string()];
        parts.resize(axes.max(1), rest);
        let file = match (self.version, axes) {
            (ZarrVersion::V2, _) => folder.join(parts.join(".")),
            (ZarrVersion::V3, 0) => folder.join("c"),
            (ZarrVersion::V3, _) => folder.join("c").join(parts.join("/")),
        };
        if let Some(parent) = file.parent().filter(|_| axes > 1 || at == 0) {
            std::fs::create_dir_all(parent).map_err(|e| self.io(path, &e))?;
        }
        Ok(file)
    }
}

/// What is stored of a chunk with entries of `size` bytes.
fn encode(version: ZarrVersion, bytes: &[u8], size: usize) -> Result<Vec<u8>, String> {
    match version {
        ZarrVersion::V2 => blosc::encode(bytes, size),
        ZarrVersion::V3 => compress(bytes).map_err(|e| e.to_string()),
    }
}

thread_local! {
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    ZSTD.with_borrow_mut(|kept| {
        let mut tool = match kept.take() {
            Some(tool) => tool,
            None => zstd::bulk::Compressor::new(LEVEL)?,
        };
        let stored = tool.compress(bytes);
        *kept = Some(tool);
        stored
    })
}

fn to_bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

/// Entries of a chunk's first axis, for rows of so many entries.
fn chunk_rows(dtype: DType, row: u64) -> u64 {
    match dtype.size() {
        Some(size) => (CHUNK as u64 / (row.max(1) * size as u64)).max(1),
        None => (STRINGS as u64 / row.max(1)).max(1),
    }
}

impl TreeWriter for ZarrWriter {
    fn group(&self, path: &str, attrs: Attrs) -> Result<()> {
        let shared = &self.shared;
        let folder_of = shared.folder(path)?;
        std::fs::create_dir_all(&folder_of).map_err(|e| shared.io(path, &e))?;
        let exists = || folder(&shared.target, path).is_some_and(|f| ZarrTree::is_zarr(&f));
        if shared.in_place && MAPPINGS.contains(&path) && exists() {
            return Ok(());
        }
        match shared.version {
            ZarrVersion::V3 => shared.document(path, "zarr.json", json!({"attributes": attrs, "zarr_format": 3, "node_type": "group"})),
            ZarrVersion::V2 => {
                shared.document(path, ".zgroup", json!({"zarr_format": 2}))?;
                shared.document(path, ".zattrs", attrs.into())
            }
        }
    }

    fn array(&self, path: &str, array: &Array, attrs: Attrs) -> Result<()> {
        let shape: Vec<u64> = array.shape.iter().map(|n| *n as u64).collect();
        let due = array.shape.iter().try_fold(1usize, |n, l| n.checked_mul(*l));
        if due != Some(array.values.len()) {
            return Err(Error::bug(format!("{path}: {} values for the shape {:?}", array.values.len(), array.shape)));
        }
        if shape.is_empty() {
            let shared = &self.shared;
            let folder = shared.folder(path)?;
            std::fs::create_dir_all(&folder).map_err(|e| shared.io(path, &e))?;
            let (bytes, size) = match &array.values {
                Values::Str(strings) => (text::encode(strings.iter().map(String::as_str)), 1),
                other => (numbers::to_le(other).into_owned(), other.dtype().size().unwrap_or(1)),
            };
            shared.chunk(path, &folder, 0, 0, &bytes, size)?;
            return shared.array_documents(path, array.values.dtype(), &[], &[], attrs);
        }
        let row: u64 = shape[1..].iter().product();
        let mut chunk: Vec<u64> = shape.iter().map(|n| (*n).max(1)).collect();
        chunk[0] = chunk_rows(array.values.dtype(), row).min(shape[0].max(1));
        let mut stream = ZarrStream::open(self.shared.clone(), path, array.values.dtype(), &shape, chunk, attrs)?;
        stream.whole(&array.values, shape[0])?;
        Box::new(stream).close()
    }

    fn records(&self, path: &str, fields: &[(String, Values)], attrs: Attrs) -> Result<()> {
        let shared = &self.shared;
        let folder = shared.folder(path)?;
        std::fs::create_dir_all(&folder).map_err(|e| shared.io(path, &e))?;
        let (bytes, size) = records::encode(fields);
        let n = (bytes.len() / size.max(1)) as u64;
        let rows = (CHUNK / size.max(1)).max(1).min(n.max(1) as usize);
        for (at, part) in bytes.chunks(rows * size.max(1)).enumerate() {
            let mut whole = part.to_vec();
            whole.resize(rows * size, 0);
            shared.chunk(path, &folder, at as u64, 1, &whole, 1)?;
        }
        let (shape, chunk) = ([n], [rows as u64]);
        match shared.version {
            ZarrVersion::V3 => {
                let mut document = array_v3(DType::U8, &shape, &chunk, attrs);
                document["data_type"] = records::dtype_v3(fields);
                document["fill_value"] = records::zero_record(size).into();
                shared.document(path, "zarr.json", document)
            }
            ZarrVersion::V2 => {
                let mut document = array_v2(DType::U8, &shape, &chunk);
                document["dtype"] = records::dtype_v2(fields, |values| name_v2(values.dtype()));
                document["fill_value"] = records::zero_record(size).into();
                shared.document(path, ".zarray", document)?;
                shared.document(path, ".zattrs", attrs.into())
            }
        }
    }

    fn stream(&self, path: &str, dtype: DType, shape: &[u64], chunk: &[u64], attrs: Attrs) -> Result<Box<dyn ArrayStream>> {
        if shape.is_empty() {
            return Err(Error::bug(format!("{path}: a scalar can't grow")));
        }
        let row: u64 = shape[1..].iter().product();
        let mut lengths: Vec<u64> = shape.iter().map(|n| (*n).max(1)).collect();
        let wish = chunk.first().copied().filter(|c| *c > 0);
        lengths[0] = wish.unwrap_or_else(|| chunk_rows(dtype, row));
        Ok(Box::new(ZarrStream::open(self.shared.clone(), path, dtype, shape, lengths, attrs)?))
    }

    fn chunks(&self, path: &str, chunks: &RowChunks, file: &(dyn Fn(u64) -> PathBuf + Sync), attrs: Attrs) -> Result<()> {
        let shared = &self.shared;
        let folder = shared.folder(path)?;
        std::fs::create_dir_all(&folder).map_err(|e| shared.io(path, &e))?;
        let take = |at: u64| {
            let (from, to) = (file(at), shared.chunk_file(path, &folder, at, 2)?);
            // Some file systems know no second name of a file.
            let taken = std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(|_| ()));
            taken.map_err(|e| Error::io(Place::store(from.display().to_string()), &e))
        };
        let n = chunks.n_chunks();
        // The folder of the first chunk must be there before others are put into it.
        (0..n.min(1)).try_for_each(take)?;
        (n.min(1)..n).into_par_iter().try_for_each(take)?;
        shared.array_documents(path, DType::F32, &chunks.shape(), &chunks.chunk(), attrs)
    }

    fn at_a_time(&self) -> usize {
        SIDE_BY_SIDE.min(rayon::current_num_threads())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let ZarrWriter { shared, temp } = *self;
        let io = |e: std::io::Error| shared.io("", &e);
        if shared.in_place {
            exchange(&shared, temp.path())?;
            return temp.close().map_err(io);
        }
        if !shared.state().nodes.contains("") {
            return Err(Error::bug("a store without a root group"));
        }
        consolidate(&shared.work, shared.version, &shared.state().documents).map_err(io)?;
        check_target(&shared.target, true)?;
        put(&shared.work, &shared.target, &temp.path().join("old")).map_err(io)?;
        temp.close().map_err(io)
    }
}

/// Renames what was written into the old store, and brings its consolidated metadata up to date.
fn exchange(shared: &Shared, temp: &Path) -> Result<()> {
    let nodes = std::mem::take(&mut shared.state().nodes);
    let inside = |path: &str| {
        let mut at = path;
        while let Some((parent, _)) = at.rsplit_once('/') {
            if nodes.contains(parent) {
                return true;
            }
            at = parent;
        }
        false
    };
    for path in nodes.iter().filter(|p| !p.is_empty() && !inside(p)) {
        let (Some(from), Some(to), Some(old)) = (folder(&shared.work, path), folder(&shared.target, path), folder(&temp.join(OLD), path))
        else {
            continue;
        };
        let made = [&to, &old].into_iter().filter_map(|path| path.parent()).try_for_each(std::fs::create_dir_all);
        made.and_then(|()| put(&from, &to, &old)).map_err(|e| shared.io(path, &e))?;
    }
    let io = |e: std::io::Error| shared.io("", &e);
    let old = match shared.version {
        ZarrVersion::V2 => shared.target.join(".zmetadata").exists(),
        ZarrVersion::V3 => std::fs::read_to_string(shared.target.join("zarr.json")).map_err(io)?.contains("\"consolidated_metadata\""),
    };
    if old {
        let tree = ZarrTree::open(&shared.target)?;
        let mut documents = BTreeMap::new();
        collect(&tree, "", shared.version, &mut documents)?;
        consolidate(&shared.target, shared.version, &documents).map_err(io)?;
    }
    Ok(())
}

/// Gives what lies at `from` the name `to`. What had that name goes to `from` in the same moment, or, where the file system can't exchange
/// names, to `old` before.
fn put(from: &Path, to: &Path, old: &Path) -> std::io::Result<()> {
    if !to.exists() {
        return std::fs::rename(from, to);
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        if renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
    }
    std::fs::rename(to, old)?;
    std::fs::rename(from, to).inspect_err(|_| _ = std::fs::rename(old, to))
}

/// Puts back what a change that was cut off has set aside and not replaced, and removes what it left.
fn restore(store: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(store)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(WORK) && entry.file_type()?.is_dir() {
            put_back(&entry.path().join(OLD), store)?;
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Elements in `from`, and in its folders that are no elements, whose name in `to` is free, go there.
fn put_back(from: &Path, to: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(from) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if !ZarrTree::is_zarr(&from) {
            put_back(&from, &to)?;
        } else if !to.exists() {
            std::fs::rename(from, to)?;
        }
    }
    Ok(())
}

/// The metadata documents of a store on disk.
fn collect(tree: &ZarrTree, path: &str, version: ZarrVersion, into: &mut BTreeMap<String, Value>) -> Result<()> {
    let names: &[&str] = if version == ZarrVersion::V3 { &["zarr.json"] } else { &[".zgroup", ".zarray", ".zattrs"] };
    let mut group = true;
    for name in names {
        if let Some(mut value) = tree.json(path, name)? {
            if let Some(object) = value.as_object_mut() {
                object.shift_remove("consolidated_metadata");
            }
            group &= *name != ".zarray" && value.get("node_type").and_then(Value::as_str) != Some("array");
            into.insert(join(path, name), value);
        }
    }
    if group {
        for name in tree.children(path)? {
            collect(tree, &join(path, &name), version, into)?;
        }
    }
    Ok(())
}

/// Writes consolidated metadata: `.zmetadata` (version 2), or inside the root's `zarr.json` as zarr-python 3 does.
fn consolidate(root: &Path, version: ZarrVersion, documents: &BTreeMap<String, Value>) -> std::io::Result<()> {
    let (name, value) = match version {
        ZarrVersion::V2 => (".zmetadata", json!({"metadata": documents, "zarr_consolidated_format": 1})),
        ZarrVersion::V3 => {
            let inner: serde_json::Map<String, Value> = documents
                .iter()
                .filter_map(|(key, value)| key.strip_suffix("/zarr.json").map(|path| (path.to_string(), value.clone())))
                .collect();
            let mut value = documents.get("zarr.json").cloned().unwrap_or_else(|| json!({"zarr_format": 3, "node_type": "group"}));
            value["consolidated_metadata"] = json!({"kind": "inline", "must_understand": false, "metadata": inner});
            ("zarr.json", value)
        }
    };
    let temporary = root.join(".cellmill-metadata");
    std::fs::write(&temporary, to_bytes(&value))?;
    std::fs::rename(&temporary, root.join(name))
}

//! zarr stores, versions 2 and 3, in a local folder.
//!
//! Metadata are read here and chunks of the usual codecs decoded here; anything else goes through the `zarrs` crate.

pub(crate) mod blosc;
mod chunks;
mod codec;
mod document;
mod metadata;
mod records;
mod shuffle;
mod text;
mod write;

use std::ops::Range;
use std::path::{Path, PathBuf};

use cellmill_matrix::{Array, Error, Place, Result, Values};
use serde_json::Value;

pub use self::chunks::ZarrChunks;
use self::metadata::Layout;
pub use self::write::{ZarrVersion, ZarrWriter};
use crate::tree::{Attrs, COMPOUND, Chunks, Node, Tree};

/// Above so many chunks the size on disk is estimated from this many of them.
const SIZED: u64 = 1024;

/// A zarr store in a folder, opened for reading.
pub struct ZarrTree {
    root: PathBuf,
    location: String,
}

/// A node's metadata.
pub(crate) enum Meta {
    Group(Attrs),
    Array(Box<Layout>),
}

impl ZarrTree {
    /// Opens a folder that holds a zarr group or array.
    pub fn open(path: &Path) -> Result<ZarrTree> {
        let tree = ZarrTree { root: path.to_path_buf(), location: path.display().to_string() };
        let place = Place::store(&tree.location);
        std::fs::metadata(path).map_err(|e| Error::io(place.clone(), &e))?;
        if tree.meta("")?.is_none() {
            return Err(Error::invalid(place, "no zarr.json, .zgroup or .zarray", "a zarr store is a folder that holds one of them"));
        }
        Ok(tree)
    }

    /// Whether the folder looks like a zarr store.
    pub fn is_zarr(path: &Path) -> bool {
        ["zarr.json", ".zgroup", ".zarray"].iter().any(|name| path.join(name).is_file())
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u8 {
        if self.root.join("zarr.json").is_file() { 3 } else { 2 }
    }

    fn place(&self, path: &str) -> Place {
        if path.is_empty() { Place::store(&self.location) } else { Place::element(&self.location, path) }
    }

    /// The folder of a node. Paths that lead out of the store have none.
    fn folder(&self, path: &str) -> Option<PathBuf> {
        folder(&self.root, path)
    }

    fn json(&self, path: &str, file: &Path) -> Result<Option<Value>> {
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(Error::io(self.place(path), &e)),
        };
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|e| Error::invalid(self.place(path), format!("{name} is damaged ({e})"), "it holds JSON"))
    }

    pub(crate) fn meta(&self, path: &str) -> Result<Option<Meta>> {
        let Some(folder) = self.folder(path) else { return Ok(None) };
        let object = |value: Value| match value {
            Value::Object(map) => map,
            _ => Attrs::new(),
        };
        let layout = |found: Result<Layout, String>| match found {
            Ok(layout) => Ok(Some(Meta::Array(Box::new(layout)))),
            Err(what) => Err(Error::invalid(
                self.place(path),
                what,
                "this array's metadata can't be used; the store is damaged or made by a newer program",
            )),
        };
        if let Some(mut meta) = self.json(path, &folder.join("zarr.json"))? {
            let attrs = meta.get_mut("attributes").map(Value::take).map(object).unwrap_or_default();
            return match meta.get("node_type").and_then(Value::as_str) {
                Some("group") => Ok(Some(Meta::Group(attrs))),
                Some("array") => layout(metadata::v3(&meta, attrs)),
                other => {
                    Err(Error::invalid(self.place(path), format!("zarr.json of a node of type {other:?}"), "it is a group or an array"))
                }
            };
        }
        let attrs = || -> Result<Attrs> { Ok(self.json(path, &folder.join(".zattrs"))?.map(object).unwrap_or_default()) };
        if let Some(meta) = self.json(path, &folder.join(".zarray"))? {
            return layout(metadata::v2(&meta, attrs()?));
        }
        match self.json(path, &folder.join(".zgroup"))? {
            Some(_) => Ok(Some(Meta::Group(attrs()?))),
            None => Ok(None),
        }
    }

    /// An array opened for reading.
    pub(crate) fn array(&self, path: &str) -> Result<ZarrChunks> {
        match self.meta(path)? {
            Some(Meta::Array(layout)) => {
                ZarrChunks::new(self.root.clone(), self.folder(path).unwrap_or_default(), self.place(path), path, *layout)
            }
            Some(Meta::Group(_)) => Err(Error::invalid(self.place(path), "a group", "an array is expected here")),
            None => Err(Error::missing(Place::store(&self.location), path, Vec::<String>::new())),
        }
    }
}

/// The folder of a node below `root`. Paths that lead out of it have none.
pub(crate) fn folder(root: &Path, path: &str) -> Option<PathBuf> {
    let mut folder = root.to_path_buf();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        if part == "." || part == ".." || part.contains(['\0', '\\']) {
            return None;
        }
        folder.push(part);
    }
    Some(folder)
}

impl Tree for ZarrTree {
    fn location(&self) -> &str {
        &self.location
    }

    fn node(&self, path: &str) -> Result<Option<Node>> {
        Ok(self.meta(path)?.map(|meta| match meta {
            Meta::Group(attrs) => Node::Group(attrs),
            Meta::Array(mut layout) => {
                if !layout.fields.is_empty() {
                    layout.info.attrs.insert(COMPOUND.into(), layout.fields.iter().map(|f| f.name.clone()).collect());
                }
                Node::Array(layout.info)
            }
        }))
    }

    fn children(&self, path: &str) -> Result<Vec<String>> {
        let Some(folder) = self.folder(path) else { return Ok(Vec::new()) };
        let fail = |e: std::io::Error| Error::io(self.place(path), &e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if let Ok(name) = entry.file_name().into_string()
                && !name.starts_with(".cellmill-")
                && ZarrTree::is_zarr(&entry.path())
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, path: &str) -> Result<Array> {
        self.array(path)?.read()
    }

    fn read_rows(&self, path: &str, rows: Range<u64>) -> Result<Values> {
        self.array(path)?.read_rows(rows)
    }

    fn chunks(&self, path: &str) -> Result<Box<dyn Chunks>> {
        let chunks = self.array(path)?;
        if !chunks.is_number() {
            let name = chunks.info().dtype_name.clone();
            return Err(Error::invalid(self.place(path), format!("entries of type {name}"), "numbers are expected here"));
        }
        Ok(Box::new(chunks))
    }

    fn fields(&self, path: &str) -> Result<Option<Vec<(String, Array)>>> {
        match self.meta(path)? {
            // Chunks of other codecs are not taken apart into records.
            Some(Meta::Array(layout)) if !layout.fields.is_empty() && layout.chain.is_some() && layout.info.shape.len() == 1 => {
                records::read(&self.array(path)?, &layout.fields).map_err(|e| e.at(&self.place(path))).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn stored_bytes(&self, path: &str) -> Result<Option<u64>> {
        let Some(Meta::Array(layout)) = self.meta(path)? else { return Ok(None) };
        let Some(folder) = self.folder(path) else { return Ok(None) };
        Ok(Some(chunks::stored_bytes(&folder, &layout, SIZED)))
    }
}

//! zarr stores, versions 2 and 3, in a folder or below a URL.
//!
//! Metadata are read here and chunks of the usual codecs decoded here; anything else goes through the `zarrs` crate.

pub(crate) mod blosc;
mod chunks;
mod codec;
mod document;
mod foreign;
mod metadata;
mod nodes;
mod records;
mod shuffle;
mod size;
mod stored;
mod text;
mod write;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cellmill_matrix::{Array, Error, Place, Result, Values};
use serde_json::Value;

pub use self::chunks::ZarrChunks;
use self::metadata::Layout;
use self::nodes::{Documents, Fault};
pub use self::write::{RowChunks, WORK, ZarrVersion, ZarrWriter};
use crate::element::join;
use crate::objects::{Folder, Objects, Remote};
use crate::tree::{Attrs, COMPOUND, Chunks, Node, Tree};

/// Above so many chunks the size on disk is estimated from this many of them.
const SIZED: u64 = 1024;
/// The same where each takes a request.
const SIZED_FAR: u64 = 4;

/// A zarr store, opened for reading.
pub struct ZarrTree {
    objects: Arc<dyn Objects>,
    documents: Documents,
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
        let location = path.display().to_string();
        let place = Place::store(&location);
        std::fs::metadata(path).map_err(|e| Error::io(place.clone(), &e))?;
        let found = Self::of(Arc::new(Folder::new(path)), location)?;
        found.ok_or_else(|| Error::invalid(place, "no zarr.json, .zgroup or .zarray", "a zarr store is a folder that holds one of them"))
    }

    /// Opens a store below a URL; `None` if there is none.
    pub(crate) fn open_remote(remote: Arc<Remote>) -> Result<Option<ZarrTree>> {
        let location = remote.shown().to_string();
        let Some(tree) = Self::of(remote.clone(), location)? else { return Ok(None) };
        if !remote.lists() && !tree.documents.consolidated() {
            return Err(Error::invalid(
                Place::store(&tree.location),
                "a zarr store without consolidated metadata",
                "a web server can't list its groups; write them with zarr.consolidate_metadata (anndata and cellmill do)",
            ));
        }
        Ok(Some(tree))
    }

    fn of(objects: Arc<dyn Objects>, location: String) -> Result<Option<ZarrTree>> {
        let documents = Documents::open(objects.clone()).map_err(|e| e.at(Place::store(&location)))?;
        let Some(documents) = documents else { return Ok(None) };
        let tree = ZarrTree { objects, documents, location };
        Ok(tree.meta("")?.map(|_| tree))
    }

    /// Whether the folder looks like a zarr store.
    pub fn is_zarr(path: &Path) -> bool {
        ["zarr.json", ".zgroup", ".zarray"].iter().any(|name| path.join(name).is_file())
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u8 {
        self.documents.version
    }

    fn place(&self, path: &str) -> Place {
        if path.is_empty() { Place::store(&self.location) } else { Place::element(&self.location, path) }
    }

    fn json(&self, path: &str, file: &str) -> Result<Option<Value>> {
        self.documents.get(path, file).map_err(|e| e.at(self.place(path)))
    }

    /// Names of the object with the metadata, and of at most `most` objects of each array, evenly spread.
    pub(crate) fn sample(&self, most: u64) -> Result<Vec<String>> {
        let mut names = vec![self.documents.main().to_string()];
        let mut groups = vec![String::new()];
        while let Some(group) = groups.pop() {
            for child in self.children(&group)? {
                let path = join(&group, &child);
                match self.meta(&path)? {
                    Some(Meta::Array(layout)) => names.extend(size::sample(&path, &layout, most).0),
                    Some(Meta::Group(_)) => groups.push(path),
                    None => {}
                }
            }
        }
        Ok(names)
    }

    pub(crate) fn meta(&self, path: &str) -> Result<Option<Meta>> {
        let Some(node) = within(path) else { return Ok(None) };
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
        if let Some(mut meta) = self.json(&node, "zarr.json")? {
            let attrs = meta.get_mut("attributes").map(Value::take).map(object).unwrap_or_default();
            return match meta.get("node_type").and_then(Value::as_str) {
                Some("group") => Ok(Some(Meta::Group(attrs))),
                Some("array") => layout(metadata::v3(&meta, attrs)),
                other => {
                    Err(Error::invalid(self.place(path), format!("zarr.json of a node of type {other:?}"), "it is a group or an array"))
                }
            };
        }
        let attrs = || -> Result<Attrs> { Ok(self.json(&node, ".zattrs")?.map(object).unwrap_or_default()) };
        if let Some(meta) = self.json(&node, ".zarray")? {
            return layout(metadata::v2(&meta, attrs()?));
        }
        match self.json(&node, ".zgroup")? {
            Some(_) => Ok(Some(Meta::Group(attrs()?))),
            None => Ok(None),
        }
    }

    /// An array opened for reading.
    pub(crate) fn array(&self, path: &str) -> Result<ZarrChunks> {
        match self.meta(path)? {
            Some(Meta::Array(layout)) => {
                let node = within(path).unwrap_or_default();
                Ok(ZarrChunks::new(self.objects.clone(), self.place(path), &node, *layout))
            }
            Some(Meta::Group(_)) => Err(Error::invalid(self.place(path), "a group", "an array is expected here")),
            None => Err(Error::missing(Place::store(&self.location), path, Vec::<String>::new())),
        }
    }
}

impl Fault {
    fn at(self, place: Place) -> Error {
        match self {
            Fault::Io(e) => Error::io(place, &e),
            Fault::Damaged(found) => Error::invalid(place, found, "it holds JSON"),
        }
    }
}

/// A node's path without what is empty in it. Paths that lead out of the store have none.
fn within(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let inside = |part: &&str| *part != "." && *part != ".." && !part.contains(['\0', '\\']);
    parts.iter().all(inside).then(|| parts.join("/"))
}

/// The folder of a node below `root`. Paths that lead out of it have none.
pub(crate) fn folder(root: &Path, path: &str) -> Option<PathBuf> {
    within(path).map(|path| if path.is_empty() { root.to_path_buf() } else { root.join(path) })
}

impl Tree for ZarrTree {
    fn objects(&self) -> Result<Vec<String>> {
        self.sample(2)
    }

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
        let Some(node) = within(path) else { return Ok(Vec::new()) };
        let mut names = self.documents.children(&node).map_err(|e| Error::io(self.place(path), &e))?;
        names.retain(|name| !name.starts_with(".cellmill-"));
        Ok(names)
    }

    fn will_read(&self, paths: &[String]) {
        if !self.objects.is_far() {
            return;
        }
        for path in paths {
            match self.meta(path) {
                Ok(Some(Meta::Array(_))) => {
                    if let Ok(chunks) = self.array(path) {
                        chunks.will_decode(0..chunks.n_chunks());
                    }
                }
                // A column of several arrays: codes and categories, values and mask.
                Ok(Some(Meta::Group(_))) if self.documents.consolidated() => {
                    let inside = self.children(path).unwrap_or_default();
                    self.will_read(&inside.iter().map(|name| join(path, name)).collect::<Vec<_>>());
                }
                _ => {}
            }
        }
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
        let Some(node) = within(path) else { return Ok(None) };
        let most = if self.objects.is_far() { SIZED_FAR } else { SIZED };
        // A server that doesn't tell sizes may give its objects all the same.
        Ok(size::stored_bytes(&*self.objects, &node, &layout, most).ok())
    }
}

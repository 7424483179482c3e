//! The documents of a store: `zarr.json`, or `.zgroup`, `.zarray` and `.zattrs`.
//!
//! In a folder each is a file that is read when it is asked for. Far away, the consolidated metadata are read once and hold all of them; where there
//! are none, every document is asked for once.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::element::join;
use crate::objects::{Found, Objects, Span};

/// Documents of a store's nodes.
pub(super) struct Documents {
    objects: Arc<dyn Objects>,
    /// Version of the format.
    pub version: u8,
    /// Far away: what has been read, by name.
    known: Option<Mutex<HashMap<String, Option<Value>>>>,
    /// Whether all of them are known.
    consolidated: bool,
}

/// Why a document can't be had.
pub(super) enum Fault {
    /// It can't be read.
    Io(io::Error),
    /// It is no JSON.
    Damaged(String),
}

impl Documents {
    /// Finds the root's document; `None` if there is none.
    pub fn open(objects: Arc<dyn Objects>) -> Result<Option<Documents>, Fault> {
        if !objects.is_far() {
            let version = if read(&*objects, "zarr.json")?.is_some() { 3 } else { 2 };
            let found = version == 3 || read(&*objects, ".zgroup")?.is_some() || read(&*objects, ".zarray")?.is_some();
            return Ok(found.then_some(Documents { objects, version, known: None, consolidated: false }));
        }
        // Who may read but not list is told 403 of what is not there.
        let (refused, root) = match read(&*objects, "zarr.json") {
            Err(Fault::Io(e)) if e.kind() == io::ErrorKind::PermissionDenied => (Some(e), None),
            other => (None, other?),
        };
        let mut known = HashMap::new();
        let documents = |version, known, consolidated| {
            Some(Documents { objects: objects.clone(), version, known: Some(Mutex::new(known)), consolidated })
        };
        if let Some(mut root) = root {
            let all = root.get_mut("consolidated_metadata").and_then(|c| c.get_mut("metadata")).map(Value::take);
            let Some(Value::Object(all)) = all else {
                known.insert("zarr.json".into(), Some(root));
                return Ok(documents(3, known, false));
            };
            known.extend(all.into_iter().map(|(node, document)| (join(&node, "zarr.json"), Some(document))));
            known.insert("zarr.json".into(), Some(root));
            return Ok(documents(3, known, true));
        }
        let consolidated = match read(&*objects, ".zmetadata") {
            Err(_) if refused.is_some() => None,
            other => other?,
        };
        if let Some(Value::Object(all)) = consolidated.and_then(|mut all| all.get_mut("metadata").map(Value::take)) {
            known.extend(all.into_iter().map(|(name, document)| (name, Some(document))));
            return Ok(documents(2, known, true));
        }
        if let Some(e) = refused {
            return Err(Fault::Io(e));
        }
        for name in [".zgroup", ".zarray"] {
            if let Some(document) = read(&*objects, name)? {
                known.insert(name.into(), Some(document));
                return Ok(documents(2, known, false));
            }
        }
        Ok(None)
    }

    /// Whether nothing but consolidated metadata tells which nodes there are.
    pub fn consolidated(&self) -> bool {
        self.consolidated
    }

    /// The name of the document that says most.
    pub fn main(&self) -> &'static str {
        match (self.version, self.consolidated) {
            (3, _) => "zarr.json",
            (_, true) => ".zmetadata",
            (_, false) => ".zgroup",
        }
    }

    /// A document of a node, if it is there.
    pub fn get(&self, node: &str, file: &str) -> Result<Option<Value>, Fault> {
        let name = join(node, file);
        let Some(known) = &self.known else { return read(&*self.objects, &name) };
        if (file == "zarr.json") != (self.version == 3) {
            return Ok(None);
        }
        if let Some(document) = lock(known).get(&name) {
            return Ok(document.clone());
        }
        if self.consolidated {
            return Ok(None);
        }
        let document = read(&*self.objects, &name)?;
        lock(known).insert(name, document.clone());
        Ok(document)
    }

    /// Names of the nodes in a group, sorted.
    pub fn children(&self, node: &str) -> io::Result<Vec<String>> {
        if let Some(known) = self.known.as_ref().filter(|_| self.consolidated) {
            let prefix = join(node, "");
            let inside = |name: &String| name.strip_prefix(&prefix)?.split_once('/').map(|(child, _)| child.to_string());
            return Ok(lock(known).keys().filter_map(inside).collect::<BTreeSet<_>>().into_iter().collect());
        }
        let mut names = self.objects.folders(node)?;
        names.sort();
        let files: &[&str] = match (&self.known, self.version) {
            (None, _) => &["zarr.json", ".zgroup", ".zarray"],
            (_, 3) => &["zarr.json"],
            _ => &[".zgroup", ".zarray"],
        };
        let asked: Vec<String> = names.iter().flat_map(|name| files.iter().map(|file| join(&join(node, name), file))).collect();
        let sizes = self.objects.sizes(&asked)?;
        let mut there = sizes.chunks(files.len()).map(|found| found.iter().any(Option::is_some));
        names.retain(|_| there.next().unwrap_or(false));
        Ok(names)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(objects: &dyn Objects, name: &str) -> Result<Option<Value>, Fault> {
    let mut bytes = Vec::new();
    if objects.read(name, Span::WHOLE, &mut bytes).map_err(Fault::Io)? != Found::Whole {
        return Ok(None);
    }
    let file = name.rsplit('/').next().unwrap_or(name);
    serde_json::from_slice(&bytes).map(Some).map_err(|e| Fault::Damaged(format!("{file} is damaged ({e})")))
}

//! Writing an HDF5 file, front to back: data as they come, headers when they are known, the superblock last.
//!
//! Nothing of an array is held in memory but the chunks being compressed and 24 bytes a chunk for their list. Chunks are
//! compressed in the caller's pool of threads; the bytes written do not depend on the number of threads.

mod stream;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cellmill_matrix::{Array, DType, Error, Place, Result, Values};
use serde_json::Value;

use self::stream::Stream;
use super::heap::REFERENCE;
use super::message::{self, Message, NOWHERE, Space, entry_size, kind};
use crate::tree::{ArrayStream, Attrs, TreeWriter};

/// Arrays up to this many bytes are stored in one run, as they are.
const SMALL: usize = 4 << 10;
/// Bytes of a heap of strings.
const HEAP: usize = 64 << 10;

/// An HDF5 file that is being written. It appears under its name when finished; dropped before, it leaves nothing.
pub struct Hdf5Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    overwrite: bool,
}

/// What the writer and its streams share.
struct Shared {
    state: Mutex<State>,
    location: String,
}

struct State {
    file: File,
    /// Where the next bytes go.
    end: u64,
    root: Group,
    temporary: Option<PathBuf>,
    /// Streams that are open.
    open: usize,
}

#[derive(Default)]
struct Group {
    attrs: Vec<Message>,
    children: BTreeMap<String, Child>,
}

enum Child {
    Group(Group),
    /// Where the header of a dataset lies; nothing while it is being written.
    Dataset(Option<u64>),
}

impl Hdf5Writer {
    /// Starts a file. With `overwrite`, a file of that name is replaced when this one is finished.
    pub fn create(path: &Path, overwrite: bool) -> Result<Hdf5Writer> {
        let location = path.display().to_string();
        let place = Place::store(&location);
        if !overwrite && path.symlink_metadata().is_ok() {
            return Err(exists(place));
        }
        let name = path.file_name().ok_or_else(|| Error::invalid(place.clone(), "no file name", "the output is a file"))?;
        let (file, temporary) = fresh(path, &name.to_string_lossy()).map_err(|e| Error::io(place, &e))?;
        let state = State { file, end: 0, root: Group::default(), temporary: Some(temporary), open: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), location });
        // From here on the file goes when the writer does.
        let writer = Hdf5Writer { shared, path: path.to_path_buf(), overwrite };
        let begun = writer.shared.lock().put(&vec![0; message::SUPERBLOCK as usize]);
        begun.map_err(|e| writer.shared.io("", &e))?;
        Ok(writer)
    }

    fn dataset(&self, path: &str) -> Result<()> {
        let mut state = self.shared.lock();
        let (group, name) = state.parent(path).ok_or_else(|| self.shared.orphan(path))?;
        if group.children.insert(name.to_string(), Child::Dataset(None)).is_some() {
            return Err(Error::bug(format!("'{path}' is written twice to {}", self.shared.location)));
        }
        Ok(())
    }
}

fn exists(place: Place) -> Error {
    Error::invalid(place, "a file of that name", "the output does not exist yet; pass --overwrite to replace it")
}

/// A new file beside `path`.
fn fresh(path: &Path, name: &str) -> std::io::Result<(File, PathBuf)> {
    let seed = std::process::id();
    for attempt in 0u32.. {
        let temporary = path.with_file_name(format!(".{name}.cellmill-{:04x}", seed.wrapping_add(attempt) & 0xffff));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((file, temporary)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && attempt < 1000 => {}
            Err(e) => return Err(e),
        }
    }
    Err(std::io::ErrorKind::AlreadyExists.into())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn io(&self, element: &str, error: &std::io::Error) -> Error {
        let place = if element.is_empty() { Place::store(&self.location) } else { Place::element(&self.location, element) };
        Error::io(place, error)
    }

    fn orphan(&self, path: &str) -> Error {
        Error::bug(format!("'{path}' of {} has no group to be in", self.location))
    }

    /// Attributes as messages; their strings go to a heap.
    fn attrs(&self, path: &str, attrs: &Attrs) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        for (name, value) in attrs {
            let place = || Place::element(&self.location, format!("{path}@{name}"));
            let values = attribute(value).ok_or_else(|| {
                Error::invalid(place(), format!("attribute {value}"), "it is a string, number, boolean or an array of one kind")
            })?;
            let (dtype, shape) = (values.1.dtype(), [values.1.len() as u64]);
            let space = match values.0 {
                _ if value.is_null() => Space::Null,
                true => Space::Scalar,
                false => Space::Axes(&shape, false),
            };
            let data = self.bytes(path, &values.1, 0..values.1.len())?;
            let message = message::attribute(name, dtype, &space, &data).ok_or_else(|| {
                Error::invalid(
                    place(),
                    format!("{} bytes", data.len()),
                    "an attribute of an HDF5 file has at most 64 KiB; write a zarr store",
                )
            })?;
            messages.push(message);
        }
        Ok(messages)
    }

    /// Entries as they lie on disk. Strings go to heaps, and references to them come back.
    fn bytes(&self, path: &str, values: &Values, range: Range<usize>) -> Result<Vec<u8>> {
        macro_rules! le {
            ($v:expr) => {
                $v[range].iter().flat_map(|x| x.to_le_bytes()).collect()
            };
        }
        Ok(match values {
            Values::Bool(v) => v[range].iter().map(|&x| u8::from(x)).collect(),
            Values::I8(v) => le!(v),
            Values::I16(v) => le!(v),
            Values::I32(v) => le!(v),
            Values::I64(v) => le!(v),
            Values::U8(v) => v[range].to_vec(),
            Values::U16(v) => le!(v),
            Values::U32(v) => le!(v),
            Values::U64(v) => le!(v),
            Values::F32(v) => le!(v),
            Values::F64(v) => le!(v),
            Values::Str(v) => self.lock().strings(&v[range]).map_err(|e| self.io(path, &e))?,
        })
    }
}

impl State {
    /// Appends bytes to the file, at a multiple of 8, and gives their address.
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<u64> {
        let pad = (self.end.next_multiple_of(8) - self.end) as usize;
        self.file.write_all(&[0; 8][..pad])?;
        let at = self.end + pad as u64;
        self.file.write_all(bytes)?;
        self.end = at + bytes.len() as u64;
        Ok(at)
    }

    /// The group that a path lies in, and the path's last name.
    fn parent<'a>(&mut self, path: &'a str) -> Option<(&mut Group, &'a str)> {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() {
            return None;
        }
        let mut group = &mut self.root;
        for part in parents.split('/').filter(|p| !p.is_empty()) {
            match group.children.get_mut(part) {
                Some(Child::Group(inner)) => group = inner,
                _ => return None,
            }
        }
        Some((group, name))
    }

    /// Writes strings to heaps and gives the references to them (III.E).
    fn strings(&mut self, strings: &[String]) -> std::io::Result<Vec<u8>> {
        let mut references = Vec::with_capacity(strings.len() * REFERENCE);
        let mut rest = strings;
        while !rest.is_empty() {
            let (mut heap, mut pending, mut index) = (vec![0u8; 16], Vec::new(), 0u32);
            for text in rest {
                let length = 16 + text.len().next_multiple_of(8);
                if heap.len() > 16 && (heap.len() + length > HEAP || pending.len() >= usize::from(u16::MAX)) {
                    break;
                }
                if text.is_empty() {
                    pending.push((0u32, 0u32));
                    continue;
                }
                index += 1;
                pending.push((text.len() as u32, index));
                heap.extend((index as u16).to_le_bytes());
                heap.extend([0; 6]);
                heap.extend((text.len() as u64).to_le_bytes());
                heap.extend(text.as_bytes());
                heap.resize(heap.len().next_multiple_of(8), 0);
            }
            rest = &rest[pending.len()..];
            let address = if heap.len() == 16 {
                0
            } else {
                // What is left of the least size is one free object, number 0.
                let free = 4096usize.saturating_sub(heap.len());
                if free >= 16 {
                    heap.extend([0; 8]);
                    heap.extend((free as u64).to_le_bytes());
                }
                heap.resize(heap.len().max(4096), 0);
                heap[..8].copy_from_slice(b"GCOL\x01\0\0\0");
                let size = heap.len() as u64;
                heap[8..16].copy_from_slice(&size.to_le_bytes());
                self.put(&heap)?
            };
            for (length, index) in pending {
                references.extend(length.to_le_bytes());
                references.extend(if index == 0 { 0 } else { address }.to_le_bytes());
                references.extend(index.to_le_bytes());
            }
        }
        Ok(references)
    }

    /// Writes the header of a group after those of all that it holds.
    fn group(&mut self, group: &Group) -> std::io::Result<u64> {
        let mut messages: Vec<Message> = message::group().into();
        for (name, child) in &group.children {
            let address = match child {
                Child::Group(inner) => self.group(inner)?,
                Child::Dataset(Some(address)) => *address,
                Child::Dataset(None) => return Err(std::io::Error::other(format!("'{name}' was not written to its end"))),
            };
            messages.push(message::link(name, address).ok_or_else(|| std::io::Error::other(format!("the name '{name}' is too long")))?);
        }
        messages.extend(group.attrs.iter().cloned());
        self.put(&message::header(&messages))
    }
}

/// An attribute's values, and whether it is one value rather than an array.
fn attribute(value: &Value) -> Option<(bool, Values)> {
    let one = match value {
        Value::Array(all) => return Some((false, attribute_array(all)?)),
        Value::Null => Values::F64(Vec::new()),
        Value::Bool(b) => Values::Bool(vec![*b]),
        Value::String(s) => Values::Str(vec![s.clone()]),
        Value::Number(_) => attribute_array(std::slice::from_ref(value))?,
        Value::Object(_) => return None,
    };
    Some((true, one))
}

fn attribute_array(all: &[Value]) -> Option<Values> {
    // An empty array is of float64, as numpy's is.
    if all.iter().all(Value::is_i64) && !all.is_empty() {
        all.iter().map(Value::as_i64).collect::<Option<_>>().map(Values::I64)
    } else if all.iter().all(Value::is_u64) && !all.is_empty() {
        all.iter().map(Value::as_u64).collect::<Option<_>>().map(Values::U64)
    } else if all.iter().all(Value::is_number) {
        all.iter().map(Value::as_f64).collect::<Option<_>>().map(Values::F64)
    } else if all.iter().all(Value::is_boolean) {
        all.iter().map(Value::as_bool).collect::<Option<_>>().map(Values::Bool)
    } else {
        all.iter().map(|v| v.as_str().map(String::from)).collect::<Option<_>>().map(Values::Str)
    }
}

impl TreeWriter for Hdf5Writer {
    fn group(&self, path: &str, attrs: Attrs) -> Result<()> {
        let attrs = self.shared.attrs(path, &attrs)?;
        let mut state = self.shared.lock();
        if path.is_empty() || path == "/" {
            state.root.attrs = attrs;
            return Ok(());
        }
        let (group, name) = state.parent(path).ok_or_else(|| self.shared.orphan(path))?;
        let new = Group { attrs, children: BTreeMap::new() };
        match group.children.insert(name.to_string(), Child::Group(new)) {
            None => Ok(()),
            Some(_) => Err(Error::bug(format!("'{path}' is written twice to {}", self.shared.location))),
        }
    }

    fn array(&self, path: &str, array: &Array, attrs: Attrs) -> Result<()> {
        let product = array.shape.iter().try_fold(1usize, |all, &n| all.checked_mul(n));
        if product != Some(array.values.len()) || array.shape.len() > 32 {
            return Err(Error::bug(format!("'{path}': shape {:?} for {} entries", array.shape, array.values.len())));
        }
        let dtype = array.values.dtype();
        let shape: Vec<u64> = array.shape.iter().map(|&n| n as u64).collect();
        if array.values.len() * entry_size(dtype) > SMALL && !shape.is_empty() {
            let mut stream = Stream::open(self, path, dtype, &shape, None, attrs)?;
            stream.append(&array.values)?;
            return stream.finish(false);
        }
        self.dataset(path)?;
        let attrs = self.shared.attrs(path, &attrs)?;
        let data = self.shared.bytes(path, &array.values, 0..array.values.len())?;
        let mut state = self.shared.lock();
        let write = || -> std::io::Result<()> {
            let at = if data.is_empty() { NOWHERE } else { state.put(&data)? };
            let space = if shape.is_empty() { Space::Scalar } else { Space::Axes(&shape, false) };
            let mut messages = vec![(kind::DATASPACE, message::dataspace(&space)), (kind::DATATYPE, message::datatype(dtype))];
            messages.extend([message::fill(false), message::run(at, data.len() as u64)]);
            messages.extend(attrs);
            let header = state.put(&message::header(&messages))?;
            if let Some((group, name)) = state.parent(path) {
                group.children.insert(name.to_string(), Child::Dataset(Some(header)));
            }
            Ok(())
        };
        write().map_err(|e| self.shared.io(path, &e))
    }

    fn records(&self, path: &str, fields: &[(String, Values)], attrs: Attrs) -> Result<()> {
        let types: Vec<(&str, DType)> = fields.iter().map(|(name, values)| (name.as_str(), values.dtype())).collect();
        let (datatype, size) = message::compound(&types).ok_or_else(|| {
            let place = Place::element(&self.shared.location, path);
            Error::invalid(place, format!("records of {} fields", fields.len()), "an HDF5 file holds fewer; write a zarr store")
        })?;
        self.dataset(path)?;
        let attrs = self.shared.attrs(path, &attrs)?;
        let n = fields.first().map_or(0, |(_, values)| values.len());
        let mut data = vec![0; n * size];
        let mut at = 0;
        for (_, values) in fields {
            let width = entry_size(values.dtype());
            let own = self.shared.bytes(path, values, 0..n)?;
            for (record, entry) in data.chunks_exact_mut(size).zip(own.chunks_exact(width)) {
                record[at..at + width].copy_from_slice(entry);
            }
            at += width;
        }
        let mut state = self.shared.lock();
        let write = || -> std::io::Result<()> {
            let at = if data.is_empty() { NOWHERE } else { state.put(&data)? };
            let space = message::dataspace(&Space::Axes(&[n as u64], false));
            let mut messages = vec![(kind::DATASPACE, space), (kind::DATATYPE, datatype)];
            messages.extend([message::fill(false), message::run(at, data.len() as u64)]);
            messages.extend(attrs);
            let header = state.put(&message::header(&messages))?;
            if let Some((group, name)) = state.parent(path) {
                group.children.insert(name.to_string(), Child::Dataset(Some(header)));
            }
            Ok(())
        };
        write().map_err(|e| self.shared.io(path, &e))
    }

    fn stream(&self, path: &str, dtype: DType, shape: &[u64], chunk: &[u64], attrs: Attrs) -> Result<Box<dyn ArrayStream>> {
        if shape.is_empty() || chunk.len() != shape.len() || shape.len() > 32 || shape[1..].contains(&0) {
            return Err(Error::bug(format!("'{path}': a stream of shape {shape:?} in chunks of {chunk:?}")));
        }
        Ok(Box::new(Stream::open(self, path, dtype, shape, Some(chunk), attrs)?))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let place = Place::store(&self.shared.location);
        let mut state = self.shared.lock();
        if state.open > 0 {
            return Err(Error::bug(format!("{} is finished while {} of its arrays are being written", self.shared.location, state.open)));
        }
        let mut write = || -> std::io::Result<()> {
            let root = std::mem::take(&mut state.root);
            let address = state.group(&root)?;
            let superblock = message::superblock(state.end, address);
            state.file.seek(SeekFrom::Start(0))?;
            state.file.write_all(&superblock)?;
            state.file.sync_all()
        };
        write().map_err(|e| Error::io(place.clone(), &e))?;
        let Some(temporary) = state.temporary.take() else { return Err(Error::bug("a file was finished twice")) };
        let renamed = if !self.overwrite && self.path.symlink_metadata().is_ok() {
            Err(exists(place))
        } else {
            std::fs::rename(&temporary, &self.path).map_err(|e| Error::io(place, &e))
        };
        if renamed.is_err() {
            state.temporary = Some(temporary);
        }
        renamed
    }
}

impl Drop for Hdf5Writer {
    fn drop(&mut self) {
        if let Some(temporary) = self.shared.lock().temporary.take() {
            // The file is of no use; if it can't be removed, there is nobody to tell.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

//! An HDF5 file as a tree of groups and arrays.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use cellmill_matrix::{Array, DType, Error, Place, Result, Values};
use hdf5_pure::{Dataset, Datatype, File, FormatError, Layout};

use super::attrs::attrs_of;
use super::chunks::{Hdf5Chunks, piece};
use super::compound::COMPOUND;
use super::filter;
use super::heap::{Heaps, REFERENCE, fixed};
use super::kind::{Kind, kind_of};
use super::links::Links;
use super::newer::Older;
use super::raw::RawFile;
use crate::anndata::{AtUrl, open_url};
use crate::numbers::from_half;
use crate::objects::{Remote, is_url};
use crate::tree::{ArrayInfo, Attrs, Chunks, LostLink, Node, Tree};

/// An open HDF5 file. Its structure is read when asked for; nothing depends on the file's size.
pub struct Hdf5Tree {
    file: Arc<RawFile>,
    inner: File,
    links: Links,
}

/// A group or a dataset, opened.
enum Object {
    Group(hdf5_pure::Group),
    Dataset(Box<Dataset>),
}

impl Hdf5Tree {
    /// Opens a file, or the object at a URL. Reads its first bytes.
    pub fn open(path: &Path) -> Result<Hdf5Tree> {
        if is_url(path) {
            return open_url(path).and_then(|found| match found {
                AtUrl::Hdf5(tree) => Ok(tree),
                AtUrl::Zarr(tree) => Err(Error::invalid(Place::store(tree.location()), "a zarr store", "an HDF5 file is expected")),
            });
        }
        Hdf5Tree::of(RawFile::open(path)?)
    }

    /// Opens the object at a URL; `None` if there is none.
    pub(crate) fn open_remote(remote: &Arc<Remote>) -> Result<Option<Hdf5Tree>> {
        RawFile::open_remote(remote)?.map(Hdf5Tree::of).transpose()
    }

    fn of(file: RawFile) -> Result<Hdf5Tree> {
        let place = Place::store(&file.location);
        if !file.is_hdf5()? {
            return Err(Error::invalid(place, "not an HDF5 file", "an h5ad or 10x h5 file is expected"));
        }
        let file = Arc::new(file);
        let inner = guard(|| place.clone(), || File::from_source(Older::new(file.clone())))?;
        let (offset_size, length_size) = (inner.superblock().offset_size, inner.superblock().length_size);
        let (base, whole) = (inner.superblock().base_address.get(), inner.superblock().eof_address);
        drop(inner);
        if offset_size != 8 || length_size != 8 {
            return Err(Error::invalid(
                place,
                format!("addresses of {offset_size} bytes"),
                "only addresses of 8 bytes can be read; rewrite the file with `h5repack`",
            ));
        }
        // A file that was not copied to its end is told from one that is damaged inside.
        if whole != u64::MAX && whole > file.len {
            let expected = format!("it was written with {whole}; it is cut off, fetch it again");
            return Err(Error::invalid(place, format!("a file of {} bytes", file.len), expected));
        }
        let mut file = Arc::into_inner(file).ok_or_else(|| Error::bug("a file that is opened twice"))?;
        file.base = base;
        let file = Arc::new(file);
        let inner = guard(|| Place::store(&file.location), || File::from_source(Older::new(file.clone())))?;
        let links = Links::new(file.clone(), inner.superblock().root_group_address);
        Ok(Hdf5Tree { file, inner, links })
    }

    pub(super) fn file(&self) -> &RawFile {
        &self.file
    }

    /// The object at a path, or nothing. Soft links are followed.
    fn object(&self, path: &str) -> Result<Option<Object>> {
        match self.linked(path)? {
            None => match self.links.follow(path) {
                Some(Ok(target)) => self.linked(&target),
                _ => Ok(None),
            },
            found => Ok(found),
        }
    }

    /// The object to which hard links lead, or nothing.
    fn linked(&self, path: &str) -> Result<Option<Object>> {
        let place = || self.file.place(path);
        if path.is_empty() || path == "/" {
            return Ok(Some(Object::Group(self.inner.root())));
        }
        let absent = |e: &hdf5_pure::Error| matches!(e, hdf5_pure::Error::Format(FormatError::PathNotFound(_)));
        // A group on the way that is none, or an object of another kind, is answered in the same way as a path that is absent.
        guard(place, || match self.inner.dataset(path) {
            Ok(dataset) => Ok(Some(Object::Dataset(Box::new(dataset)))),
            Err(hdf5_pure::Error::NotADataset(_)) => match self.inner.group(path) {
                Ok(group) => Ok(Some(Object::Group(group))),
                Err(hdf5_pure::Error::NotAGroup(_)) => Ok(None),
                Err(e) => Err(e),
            },
            Err(hdf5_pure::Error::NotAGroup(_)) => Ok(None),
            Err(e) if absent(&e) => Ok(None),
            Err(e) => Err(e),
        })
    }

    pub(super) fn dataset(&self, path: &str) -> Result<Dataset> {
        match self.object(path)? {
            Some(Object::Dataset(dataset)) => Ok(*dataset),
            Some(Object::Group(_)) => Err(Error::invalid(self.file.place(path), "a group", "an array is expected")),
            None => {
                if let Some(Err(lost)) = self.links.follow(path) {
                    return Err(lost.error(self.file.place(path)));
                }
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                let known = self.children(parent).unwrap_or_default();
                Err(Error::missing(self.file.place(parent), name, known))
            }
        }
    }

    /// A dataset's metadata and the meaning of its entries.
    fn describe(&self, path: &str, dataset: &Dataset) -> Result<(ArrayInfo, Kind)> {
        let place = || self.file.place(path);
        let datatype = guard(place, || dataset.datatype())?;
        let shape = guard(place, || dataset.shape())?;
        let layout = guard(place, || dataset.layout())?;
        let (mut kind, mut dtype_name) = kind_of(&datatype);
        let mut attrs = self.attrs(path, || Ok((dataset.attrs()?, dataset.attr_datatypes()?)))?;
        if let Datatype::Compound { members, .. } = &datatype {
            attrs.insert(COMPOUND.into(), members.iter().map(|m| m.name.clone()).collect());
        }
        let size = u64::from(datatype.type_size());
        let (chunk, stored_bytes) = match layout {
            Layout::Chunked { chunk_shape, .. } => {
                if chunk_shape.len() != shape.len() || chunk_shape.contains(&0) {
                    return Err(Error::invalid(
                        place(),
                        format!("chunks of {chunk_shape:?} for shape {shape:?}"),
                        "both have the same axes",
                    ));
                }
                (chunk_shape, None)
            }
            Layout::Contiguous { address, size: run } => {
                if address.is_none() && shape.is_empty() {
                    (kind, dtype_name) = (Kind::Other, "null".into());
                }
                (piece(&shape, size), Some(run))
            }
            // What the object header holds is one piece.
            Layout::Compact { size } => (shape.iter().map(|&n| n.max(1)).collect(), Some(size)),
            _ => (piece(&shape, size), None),
        };
        let codec = filter::name(&dataset.filter_pipeline());
        let info = ArrayInfo { attrs, shape, dtype: kind.dtype(), dtype_name, chunk, shard: None, codec, stored_bytes };
        Ok((info, kind))
    }

    fn attrs<T>(&self, path: &str, read: T) -> Result<Attrs>
    where
        T: FnOnce() -> Result<
            (std::collections::HashMap<String, hdf5_pure::AttrValue>, std::collections::HashMap<String, Datatype>),
            hdf5_pure::Error,
        >,
    {
        let (values, types) = guard(|| self.file.place(path), read)?;
        // anndata 0.7 keeps the categories of a column in `__categories/COLUMN` beside it and refers to them; it wrote no
        // other references.
        Ok(attrs_of(&values, &types, |_| {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let target = if parent.is_empty() { format!("__categories/{name}") } else { format!("{parent}/__categories/{name}") };
            matches!(self.object(&target), Ok(Some(Object::Dataset(_)))).then_some(target)
        }))
    }

    /// The stored bytes of a dataset of any type.
    pub(super) fn stored(&self, path: &str) -> Result<Hdf5Chunks> {
        let dataset = self.dataset(path)?;
        let (info, kind) = self.describe(path, &dataset)?;
        Hdf5Chunks::new(&self.file, path, &dataset, info, kind)
    }

    /// Rows of an array of numbers or strings; all of them without `rows`.
    fn values(&self, path: &str, rows: Option<Range<u64>>) -> Result<(Vec<u64>, Values)> {
        let chunks = self.stored(path)?;
        let rows = rows.unwrap_or(0..chunks.info_shape().first().copied().unwrap_or(1));
        let place = || self.file.place(path).rows(rows.clone());
        if *chunks.kind() == Kind::Other {
            let name = chunks.info().dtype_name.clone();
            return Err(Error::invalid(
                self.file.place(path),
                format!("entries of type {name}"),
                "numbers, booleans or strings are expected",
            ));
        }
        let bytes = chunks.read_rows(rows.clone())?;
        let values = match chunks.kind() {
            Kind::Number { dtype, .. } => numbers(*dtype, &bytes),
            Kind::Half { .. } => from_half(&bytes),
            Kind::Fixed(padding) => Values::Str(bytes.chunks_exact(chunks.entry_bytes().max(1)).map(|b| fixed(b, padding)).collect()),
            _ if chunks.entry_bytes() == REFERENCE => Values::Str(Heaps::new(&self.file).strings(&bytes, place)?),
            _ => return Err(Error::invalid(place(), "references of an unknown size", "they have 16 bytes")),
        };
        Ok((chunks.info_shape().to_vec(), values))
    }
}

impl Tree for Hdf5Tree {
    fn location(&self) -> &str {
        &self.file.location
    }

    fn node(&self, path: &str) -> Result<Option<Node>> {
        Ok(match self.object(path)? {
            None => None,
            Some(Object::Group(group)) => Some(Node::Group(self.attrs(path, || Ok((group.attrs()?, group.attr_datatypes()?)))?)),
            Some(Object::Dataset(dataset)) => Some(Node::Array(self.describe(path, &dataset)?.0)),
        })
    }

    fn children(&self, path: &str) -> Result<Vec<String>> {
        match self.object(path)? {
            Some(Object::Group(group)) => {
                let mut names = guard(
                    || self.file.place(path),
                    || {
                        let mut names = group.groups()?;
                        names.extend(group.datasets()?);
                        Ok(names)
                    },
                )?;
                names.extend(self.links.soft(path).into_iter().filter(|(_, end)| end.is_ok()).map(|(name, _)| name));
                names.sort();
                Ok(names)
            }
            Some(Object::Dataset(_)) => Err(Error::invalid(self.file.place(path), "an array", "a group is expected")),
            None => Err(Error::missing(Place::store(&self.file.location), path, Vec::<String>::new())),
        }
    }

    fn read(&self, path: &str) -> Result<Array> {
        let (shape, values) = self.values(path, None)?;
        let shape: Vec<usize> = shape.into_iter().map(|n| n as usize).collect();
        Ok(Array { shape, values })
    }

    fn read_rows(&self, path: &str, rows: Range<u64>) -> Result<Values> {
        Ok(self.values(path, Some(rows))?.1)
    }

    fn chunks(&self, path: &str) -> Result<Box<dyn Chunks>> {
        let chunks = self.stored(path)?;
        if !matches!(chunks.kind(), Kind::Number { .. } | Kind::Half { .. }) {
            let name = chunks.info().dtype_name.clone();
            return Err(Error::invalid(self.file.place(path), format!("entries of type {name}"), "numbers are expected"));
        }
        Ok(Box::new(chunks))
    }

    fn stored_bytes(&self, path: &str) -> Result<Option<u64>> {
        Ok(match self.node(path)? {
            Some(Node::Array(ArrayInfo { stored_bytes: Some(bytes), .. })) => Some(bytes),
            // An array whose chunks can't be listed still has metadata to show.
            Some(Node::Array(_)) => self.stored(path).ok().map(|chunks| chunks.stored_bytes()),
            _ => None,
        })
    }

    fn lost(&self, path: &str) -> Vec<LostLink> {
        self.links.soft(path).into_iter().filter_map(|(_, end)| end.err()).collect()
    }

    fn fields(&self, path: &str) -> Result<Option<Vec<(String, Array)>>> {
        match self.node(path)? {
            Some(Node::Array(info)) if info.attrs.contains_key(COMPOUND) => self.read_compound_arrays(path).map(Some),
            _ => Ok(None),
        }
    }
}

/// Little-endian bytes as numbers.
pub(super) fn numbers(dtype: DType, bytes: &[u8]) -> Values {
    macro_rules! cast {
        ($variant:ident, $t:ty) => {
            Values::$variant(bytes.as_chunks::<{ size_of::<$t>() }>().0.iter().map(|b| <$t>::from_le_bytes(*b)).collect())
        };
    }
    match dtype {
        DType::Bool => Values::Bool(bytes.iter().map(|&b| b != 0).collect()),
        DType::I8 => cast!(I8, i8),
        DType::I16 => cast!(I16, i16),
        DType::I32 => cast!(I32, i32),
        DType::I64 => cast!(I64, i64),
        DType::U8 => Values::U8(bytes.to_vec()),
        DType::U16 => cast!(U16, u16),
        DType::U32 => cast!(U32, u32),
        DType::U64 => cast!(U64, u64),
        DType::F32 => cast!(F32, f32),
        DType::F64 => cast!(F64, f64),
        DType::Str => Values::Str(Vec::new()),
    }
}

/// Calls into `hdf5-pure`: its errors become ours, and so does a panic on a damaged file.
pub(super) fn guard<T>(place: impl Fn() -> Place, call: impl FnOnce() -> Result<T, hdf5_pure::Error>) -> Result<T> {
    const SOUND: &str = "a sound structure is expected; the file is damaged or cut off, fetch it again";
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(hdf5_pure::Error::Io(e))) => Err(Error::io(place(), &e)),
        Ok(Err(hdf5_pure::Error::Format(FormatError::Source(e)))) => Err(Error::io(place(), &std::io::Error::other(e))),
        Ok(Err(e)) => {
            let found = e.to_string();
            let newer =
                found.contains("version").then_some("only HDF5 1.8 to 2.0 can be read; rewrite the file with anndata, or with `h5repack`");
            Err(Error::invalid(place(), found, newer.unwrap_or(SOUND)))
        }
        Err(_) => Err(Error::invalid(place(), "bytes that can't be understood", SOUND)),
    }
}

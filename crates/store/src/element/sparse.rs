//! `csr_matrix`, `csc_matrix` held whole.

use cellmill_matrix::{DType, Error, Result, Sparse, SparseFormat, Values};
use serde_json::Value;

use super::{encoding, join, need, place, text};
use crate::numbers;
use crate::tree::{ArrayInfo, Attrs, Node, Tree, TreeWriter};

/// What a sparse matrix's metadata say; nothing has been decoded.
#[derive(Clone, Debug)]
pub struct SparseInfo {
    /// Rows or columns compressed.
    pub format: SparseFormat,
    /// (rows, columns).
    pub shape: [u64; 2],
    /// Starts of rows (or columns).
    pub indptr: ArrayInfo,
    /// Columns (or rows) of entries.
    pub indices: ArrayInfo,
    /// Values of entries.
    pub data: ArrayInfo,
}

impl SparseInfo {
    /// Stored entries.
    pub fn nnz(&self) -> u64 {
        self.data.shape.first().copied().unwrap_or(0)
    }
}

/// The format and shape by the attributes of today (`encoding-type`, `shape`) or of anndata before 0.7 (`h5sparse_*`).
fn header(attrs: &Attrs) -> Option<(SparseFormat, Option<[u64; 2]>)> {
    let kind = text(attrs, "encoding-type").or_else(|| text(attrs, "h5sparse_format"))?;
    let format = match kind {
        "csr_matrix" | "csr" => SparseFormat::Csr,
        "csc_matrix" | "csc" => SparseFormat::Csc,
        _ => return None,
    };
    let shape = attrs.get("shape").or_else(|| attrs.get("h5sparse_shape"));
    let lengths = shape.and_then(Value::as_array).map(|list| list.iter().filter_map(Value::as_u64).collect::<Vec<_>>());
    Some((format, lengths.and_then(|l| l.try_into().ok())))
}

/// Reads the metadata of a sparse matrix; `None` if the group is none. Lengths of the arrays are checked against each other.
pub fn sparse_info(tree: &dyn Tree, path: &str, attrs: &Attrs) -> Result<Option<SparseInfo>> {
    let Some((format, shape)) = header(attrs) else { return Ok(None) };
    let Some(shape) = shape else {
        return Err(Error::invalid(place(tree, path), "a sparse matrix without a shape", "its attribute 'shape' holds two lengths"));
    };
    let vector = |name: &str| -> Result<ArrayInfo> {
        let path = join(path, name);
        match need(tree, &path)? {
            Node::Array(info) if info.shape.len() == 1 && info.dtype.is_some_and(|d| d != DType::Str) => Ok(info),
            Node::Array(info) => {
                let found = format!("{} of shape {:?}", info.dtype_name, info.shape);
                Err(Error::invalid(place(tree, &path), found, "a vector of numbers is expected"))
            }
            Node::Group(_) => Err(Error::invalid(place(tree, &path), "a group", "a vector of numbers is expected")),
        }
    };
    let info = SparseInfo { format, shape, indptr: vector("indptr")?, indices: vector("indices")?, data: vector("data")? };
    let major = if format == SparseFormat::Csr { shape[0] } else { shape[1] };
    if info.indptr.shape[0].checked_sub(1) != Some(major) {
        let found = format!("{} entries", info.indptr.shape[0]);
        let expected = format!("the shape {} x {} asks for {}", shape[0], shape[1], major.saturating_add(1));
        return Err(Error::invalid(place(tree, &join(path, "indptr")), found, expected));
    }
    if info.indices.shape != info.data.shape {
        let found = format!("{} indices", info.indices.shape[0]);
        return Err(Error::invalid(place(tree, &join(path, "indices")), found, format!("there are {} values in data", info.data.shape[0])));
    }
    Ok(Some(info))
}

pub(super) fn read(tree: &dyn Tree, path: &str) -> Result<Sparse> {
    let node = need(tree, path)?;
    let info = sparse_info(tree, path, node.attrs())?;
    let info = info.ok_or_else(|| Error::invalid(place(tree, path), "no sparse matrix", "csr_matrix or csc_matrix is expected"))?;
    let whole = |name: &str, values: Values| {
        let mut out = Vec::with_capacity(values.len());
        let good = numbers::to_u64(values.dtype(), &numbers::to_le(&values), &mut out);
        good.map(|()| out)
            .ok_or_else(|| Error::invalid(place(tree, &join(path, name)), "a negative number or a fraction", "whole numbers from 0 on"))
    };
    let indptr = whole("indptr", tree.read(&join(path, "indptr"))?.values)?;
    let wide = whole("indices", tree.read(&join(path, "indices"))?.values)?;
    let values = tree.read(&join(path, "data"))?.values;
    let minor = if info.format == SparseFormat::Csr { info.shape[1] } else { info.shape[0] };
    if let Some(at) = indptr.windows(2).position(|w| w[1] < w[0]) {
        let found = format!("an end of {} after a start of {}", indptr[at + 1], indptr[at]);
        return Err(Error::invalid(place(tree, &join(path, "indptr")).rows(at as u64..at as u64 + 1), found, "indptr never decreases"));
    }
    if indptr.first() != Some(&0) || indptr.last() != Some(&info.nnz()) {
        let found = format!("indptr runs from {:?} to {:?}", indptr.first(), indptr.last());
        return Err(Error::invalid(place(tree, &join(path, "indptr")), found, format!("there are {} entries", info.nnz())));
    }
    if let Some(found) = wide.iter().find(|i| **i >= minor.min(u64::from(u32::MAX))) {
        return Err(Error::invalid(
            place(tree, &join(path, "indices")),
            format!("index {found}"),
            format!("that axis has {minor} (0..{minor})"),
        ));
    }
    let indices = wide.into_iter().map(|i| i as u32).collect();
    Ok(Sparse { format: info.format, shape: [info.shape[0] as usize, info.shape[1] as usize], indptr, indices, values })
}

/// The attributes of a sparse matrix of this shape.
pub(crate) fn attrs(format: SparseFormat, shape: [u64; 2]) -> Attrs {
    let mut attrs = Attrs::new();
    attrs.insert("shape".into(), vec![shape[0], shape[1]].into());
    let kind = if format == SparseFormat::Csr { "csr_matrix" } else { "csc_matrix" };
    attrs.append(&mut encoding(kind, "0.1.0"));
    attrs
}

/// indptr in scipy's type: int32 while the number of entries fits, else int64.
pub(crate) fn indptr_values(indptr: &[u64]) -> Values {
    if indptr.last().is_none_or(|n| *n <= i32::MAX as u64) {
        Values::I32(indptr.iter().map(|i| *i as i32).collect())
    } else {
        Values::I64(indptr.iter().map(|i| *i as i64).collect())
    }
}

pub(super) fn write(writer: &dyn TreeWriter, path: &str, matrix: &Sparse) -> Result<()> {
    let vector = |name: &str, values: Values| writer.array(&join(path, name), &cellmill_matrix::Array::vector(values), Attrs::new());
    writer.group(path, attrs(matrix.format, [matrix.shape[0] as u64, matrix.shape[1] as u64]))?;
    vector("data", matrix.values.clone())?;
    let indptr = indptr_values(&matrix.indptr);
    // scipy wants both index arrays in one type.
    vector(
        "indices",
        match indptr {
            Values::I32(_) => Values::I32(matrix.indices.iter().map(|i| *i as i32).collect()),
            _ => Values::I64(matrix.indices.iter().map(|i| i64::from(*i)).collect()),
        },
    )?;
    vector("indptr", indptr)
}

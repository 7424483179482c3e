//! Between the engine's values and numpy's.

use cellmill_matrix::{Array, Column, Element, Frame, Sparse, SparseFormat, Table, Values};
use numpy::{IntoPyArray, PyArrayMethods, PyReadonlyArray1};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// A flat numpy array; text becomes a list of `str`.
pub fn values<'py>(py: Python<'py>, v: Values) -> PyResult<Bound<'py, PyAny>> {
    Ok(match v {
        Values::Bool(v) => v.into_pyarray(py).into_any(),
        Values::I8(v) => v.into_pyarray(py).into_any(),
        Values::I16(v) => v.into_pyarray(py).into_any(),
        Values::I32(v) => v.into_pyarray(py).into_any(),
        Values::I64(v) => v.into_pyarray(py).into_any(),
        Values::U8(v) => v.into_pyarray(py).into_any(),
        Values::U16(v) => v.into_pyarray(py).into_any(),
        Values::U32(v) => v.into_pyarray(py).into_any(),
        Values::U64(v) => v.into_pyarray(py).into_any(),
        Values::F32(v) => v.into_pyarray(py).into_any(),
        Values::F64(v) => v.into_pyarray(py).into_any(),
        Values::Str(v) => PyList::new(py, v)?.into_any(),
    })
}

/// Rows of `width` numbers as a `(n, width)` array.
pub fn rows<'py, T: numpy::Element>(py: Python<'py>, v: Vec<T>, width: usize) -> PyResult<Bound<'py, PyAny>> {
    let n = v.len() / width.max(1);
    Ok(v.into_pyarray(py).reshape([n, width])?.into_any())
}

/// `indptr` and `indices` as scipy wants them: int32 where they fit, else int64, both of one type.
pub fn index<'py>(py: Python<'py>, indptr: Vec<u64>, indices: Vec<u32>, n_cols: usize) -> (Bound<'py, PyAny>, Bound<'py, PyAny>) {
    let nnz = indptr.last().copied().unwrap_or(0);
    if nnz <= i32::MAX as u64 && n_cols <= i32::MAX as usize {
        let indptr: Vec<i32> = indptr.into_iter().map(|p| p as i32).collect();
        // The same bits: columns are below 2^31.
        let indices: Vec<i32> = indices.into_iter().map(|j| j as i32).collect();
        return (indptr.into_pyarray(py).into_any(), indices.into_pyarray(py).into_any());
    }
    let indptr: Vec<i64> = indptr.into_iter().map(|p| p as i64).collect();
    let indices: Vec<i64> = indices.into_iter().map(i64::from).collect();
    (indptr.into_pyarray(py).into_any(), indices.into_pyarray(py).into_any())
}

/// A tuple that names its kind; `cellmill._elements` makes anndata's objects of it.
pub fn element<'py>(py: Python<'py>, e: Element) -> PyResult<Bound<'py, PyAny>> {
    match e {
        Element::Dict(entries) => {
            let dict = PyDict::new(py);
            for (name, e) in entries {
                dict.set_item(name, element(py, e)?)?;
            }
            ("dict", dict).into_bound_py_any(py)
        }
        Element::Array(Array { shape, values: v }) => ("array", shape, values(py, v)?).into_bound_py_any(py),
        Element::Scalar(v) => ("scalar", values(py, v)?).into_bound_py_any(py),
        Element::Table(Frame { table: t, numbers: None }) => ("table", table(py, t)?).into_bound_py_any(py),
        Element::Table(Frame { table: t, numbers: Some(index) }) => {
            ("table", (t.index_name, values(py, index)?, columns(py, t.columns)?)).into_bound_py_any(py)
        }
        Element::Sparse(Sparse { format, shape, indptr, indices, values: v }) => {
            let format = if format == SparseFormat::Csr { "csr" } else { "csc" };
            let n_cols = shape[0].max(shape[1]);
            let (indptr, indices) = index(py, indptr, indices, n_cols);
            ("sparse", format, (shape[0], shape[1]), indptr, indices, values(py, v)?).into_bound_py_any(py)
        }
        Element::Records(fields) => {
            let fields = fields.into_iter().map(|(name, v)| Ok((name, values(py, v)?))).collect::<PyResult<Vec<_>>>()?;
            ("records", fields).into_bound_py_any(py)
        }
        Element::Column(c) => ("column", column(py, c)?).into_bound_py_any(py),
        Element::Null => ("null",).into_bound_py_any(py),
    }
}

/// A data frame's parts: name of the index, the index, and names with columns.
pub fn table<'py>(py: Python<'py>, t: Table) -> PyResult<Bound<'py, PyAny>> {
    (t.index_name, t.index, columns(py, t.columns)?).into_bound_py_any(py)
}

fn columns<'py>(py: Python<'py>, all: Vec<(String, Column)>) -> PyResult<Vec<(String, Bound<'py, PyAny>)>> {
    all.into_iter().map(|(name, c)| Ok((name, column(py, c)?))).collect()
}

fn column<'py>(py: Python<'py>, c: Column) -> PyResult<Bound<'py, PyAny>> {
    match c {
        Column::Plain(v) => ("plain", values(py, v)?).into_bound_py_any(py),
        Column::Categorical { codes, categories, ordered } => {
            ("categorical", codes.into_pyarray(py), values(py, categories)?, ordered).into_bound_py_any(py)
        }
        Column::Nullable { values: v, mask } => ("nullable", values(py, v)?, mask.into_pyarray(py)).into_bound_py_any(py),
    }
}

/// Back: entries of a flat numpy array, or of a list of `str`.
fn values_of(v: &Bound<'_, PyAny>) -> PyResult<Values> {
    fn copied<T: numpy::Element + Copy>(v: &Bound<'_, PyAny>) -> Option<Vec<T>> {
        v.extract::<PyReadonlyArray1<'_, T>>().ok().and_then(|a| a.as_slice().ok().map(<[T]>::to_vec))
    }
    macro_rules! first {
        ($($kind:ident),*) => {
            $(if let Some(v) = copied(v) { return Ok(Values::$kind(v)); })*
        };
    }
    if v.is_instance_of::<PyList>() {
        return Ok(Values::Str(v.extract()?));
    }
    first!(F32, F64, I32, I64, Bool, I8, I16, U8, U16, U32, U64);
    Err(PyTypeError::new_err("a flat numpy array of numbers or flags, or a list of text is expected"))
}

/// Back: whole numbers of a numpy array of int32 or int64.
fn numbers_of<T: TryFrom<i64>>(v: &Bound<'_, PyAny>) -> PyResult<Vec<T>> {
    let wide: Vec<i64> = match values_of(v)? {
        Values::I32(v) => v.into_iter().map(i64::from).collect(),
        Values::I64(v) => v,
        _ => return Err(PyTypeError::new_err("int32 or int64 is expected")),
    };
    wide.into_iter().map(|n| T::try_from(n).map_err(|_| PyTypeError::new_err(format!("{n} as a place")))).collect()
}

/// Back: the element that a tuple names.
pub fn element_of(e: &Bound<'_, PyAny>) -> PyResult<Element> {
    let kind: String = e.get_item(0)?.extract()?;
    Ok(match kind.as_str() {
        "dict" => {
            let entries = e.get_item(1)?.cast_into::<PyDict>()?;
            Element::Dict(entries.iter().map(|(name, e)| Ok((name.extract()?, element_of(&e)?))).collect::<PyResult<_>>()?)
        }
        "array" => Element::Array(Array { shape: e.get_item(1)?.extract()?, values: values_of(&e.get_item(2)?)? }),
        "scalar" => Element::Scalar(values_of(&e.get_item(1)?)?),
        "table" => Element::Table(frame_of(&e.get_item(1)?)?),
        "sparse" => Element::Sparse(Sparse {
            format: if e.get_item(1)?.extract::<String>()? == "csr" { SparseFormat::Csr } else { SparseFormat::Csc },
            shape: e.get_item(2)?.extract::<(usize, usize)>()?.into(),
            indptr: numbers_of(&e.get_item(3)?)?,
            indices: numbers_of(&e.get_item(4)?)?,
            values: values_of(&e.get_item(5)?)?,
        }),
        "null" => Element::Null,
        other => return Err(PyTypeError::new_err(format!("an element of kind '{other}'"))),
    })
}

/// Back: a data frame from its parts.
pub fn table_of(t: &Bound<'_, PyAny>) -> PyResult<Table> {
    Ok(Table { index_name: t.get_item(0)?.extract()?, index: t.get_item(1)?.extract()?, columns: columns_of(t)? })
}

/// The same, whose index may be an array of numbers.
fn frame_of(t: &Bound<'_, PyAny>) -> PyResult<Frame> {
    Ok(match values_of(&t.get_item(1)?)? {
        Values::Str(_) => table_of(t)?.into(),
        numbers => {
            let index = (0..numbers.len()).map(|row| numbers.text(row)).collect();
            let table = Table { index_name: t.get_item(0)?.extract()?, index, columns: columns_of(t)? };
            Frame { table, numbers: Some(numbers) }
        }
    })
}

fn columns_of(t: &Bound<'_, PyAny>) -> PyResult<Vec<(String, Column)>> {
    let columns: Vec<(String, Bound<'_, PyAny>)> = t.get_item(2)?.extract()?;
    columns.into_iter().map(|(name, c)| Ok((name, column_of(&c)?))).collect()
}

fn column_of(c: &Bound<'_, PyAny>) -> PyResult<Column> {
    let kind: String = c.get_item(0)?.extract()?;
    let first = c.get_item(1)?;
    Ok(match kind.as_str() {
        "plain" => Column::Plain(values_of(&first)?),
        "categorical" => {
            Column::Categorical { codes: numbers_of(&first)?, categories: values_of(&c.get_item(2)?)?, ordered: c.get_item(3)?.extract()? }
        }
        _ => match values_of(&c.get_item(2)?)? {
            Values::Bool(mask) => Column::Nullable { values: values_of(&first)?, mask },
            _ => return Err(PyTypeError::new_err("a mask is made of flags")),
        },
    })
}

//! `array`, `string-array`, `numeric-scalar`, `string`, `null`.

use cellmill_matrix::{Array, Element, Error, Place, Result, Values};

use super::encoding;
use crate::tree::{ArrayInfo, Tree, TreeWriter};

/// An array or a scalar; `None` if its entries are of a type that we can't hold.
pub(super) fn read(tree: &dyn Tree, path: &str, info: &ArrayInfo, kind: &str) -> Result<Option<Element>> {
    if info.dtype.is_none() {
        return Ok(None);
    }
    let array = tree.read(path)?;
    let scalar = info.shape.is_empty() || (matches!(kind, "numeric-scalar" | "string") && array.values.len() == 1);
    Ok(Some(if scalar && array.values.len() == 1 { Element::Scalar(array.values) } else { Element::Array(array) }))
}

fn kind(values: &Values) -> &'static str {
    if matches!(values, Values::Str(_)) { "string-array" } else { "array" }
}

pub(super) fn write(writer: &dyn TreeWriter, path: &str, array: &Array) -> Result<()> {
    writer.array(path, array, encoding(kind(&array.values), "0.2.0"))
}

/// Values as a vector.
pub(super) fn write_values(writer: &dyn TreeWriter, path: &str, values: &Values) -> Result<()> {
    writer.array(path, &Array::vector(values.clone()), encoding(kind(values), "0.2.0"))
}

pub(super) fn write_scalar(writer: &dyn TreeWriter, path: &str, values: &Values) -> Result<()> {
    if values.len() != 1 {
        let found = format!("a scalar of {} entries", values.len());
        return Err(Error::invalid(Place { element: Some(path.into()), ..Place::default() }, found, "a scalar has one"));
    }
    let kind = if matches!(values, Values::Str(_)) { "string" } else { "numeric-scalar" };
    writer.array(path, &Array { shape: Vec::new(), values: values.clone() }, encoding(kind, "0.2.0"))
}

pub(super) fn write_null(writer: &dyn TreeWriter, path: &str) -> Result<()> {
    writer.array(path, &Array { shape: Vec::new(), values: Values::Bool(vec![false]) }, encoding("null", "0.1.0"))
}

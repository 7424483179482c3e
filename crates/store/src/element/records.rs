//! `rec-array`: records of named fields, as scanpy keeps markers of groups.

use cellmill_matrix::{Element, Error, Place, Result, Values};

use super::encoding;
use crate::tree::{ArrayInfo, COMPOUND, Tree, TreeWriter};

/// The fields of an array of records; `None` if one is of a type that we can't hold.
pub(super) fn read(tree: &dyn Tree, path: &str, info: &ArrayInfo) -> Result<Option<Element>> {
    let due = info.attrs.get(COMPOUND).and_then(|f| f.as_array()).map_or(0, Vec::len);
    let Some(fields) = tree.fields(path)? else { return Ok(None) };
    if info.shape.len() != 1 || fields.len() != due || fields.iter().any(|(_, a)| a.shape.len() != 1) {
        return Ok(None);
    }
    Ok(Some(Element::Records(fields.into_iter().map(|(name, a)| (name, a.values)).collect())))
}

pub(super) fn write(writer: &dyn TreeWriter, path: &str, fields: &[(String, Values)]) -> Result<()> {
    let place = || Place { element: Some(path.into()), ..Place::default() };
    let Some((_, first)) = fields.first() else {
        return Err(Error::invalid(place(), "records without a field", "at least one is needed"));
    };
    if let Some((name, other)) = fields.iter().find(|(_, v)| v.len() != first.len()) {
        return Err(Error::invalid(place(), format!("{} entries in '{name}'", other.len()), format!("there are {} records", first.len())));
    }
    writer.records(path, fields, encoding("rec-array", "0.2.0"))
}

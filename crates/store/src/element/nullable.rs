//! `nullable-integer`, `nullable-boolean`, `nullable-string-array`: values and a mask that is true where one is missing.

use cellmill_matrix::{Column, Error, Result, Values};

use super::{array, encoding, join, place};
use crate::tree::{Tree, TreeWriter};

pub(super) fn read(tree: &dyn Tree, path: &str) -> Result<Column> {
    let values = tree.read(&join(path, "values"))?.values;
    let mask = match tree.node(&join(path, "mask"))? {
        Some(_) => tree.read(&join(path, "mask"))?.values,
        None => return Ok(Column::Plain(values)),
    };
    if mask.len() != values.len() {
        let found = format!("a mask of {} for {} values", mask.len(), values.len());
        return Err(Error::invalid(place(tree, path), found, "they are equally long"));
    }
    let mask = match mask {
        Values::Bool(mask) => mask,
        other => (0..other.len()).map(|i| other.number(i).is_some_and(|x| x != 0.0)).collect(),
    };
    Ok(Column::Nullable { values, mask })
}

pub(super) fn write(writer: &dyn TreeWriter, path: &str, values: &Values, mask: &[bool]) -> Result<()> {
    let kind = match values {
        Values::Bool(_) => "nullable-boolean",
        Values::Str(_) => "nullable-string-array",
        // pandas' Float32 and Float64 have no encoding: missing values become NaN.
        Values::F32(v) => return array::write_values(writer, path, &Values::F32(with_nan(v, mask, f32::NAN))),
        Values::F64(v) => return array::write_values(writer, path, &Values::F64(with_nan(v, mask, f64::NAN))),
        _ => "nullable-integer",
    };
    writer.group(path, encoding(kind, "0.1.0"))?;
    array::write_values(writer, &join(path, "values"), values)?;
    array::write_values(writer, &join(path, "mask"), &Values::Bool(mask.to_vec()))
}

fn with_nan<T: Copy>(values: &[T], mask: &[bool], nan: T) -> Vec<T> {
    values.iter().zip(mask).map(|(x, missing)| if *missing { nan } else { *x }).collect()
}

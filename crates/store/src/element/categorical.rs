//! `categorical`: codes into categories, −1 for a missing value.

use cellmill_matrix::{Column, Error, Result, Values};

use super::{array, encoding, flag, join, need, nullable, place};
use crate::tree::{Attrs, Node, Tree, TreeWriter};

pub(super) fn read(tree: &dyn Tree, path: &str, attrs: &Attrs) -> Result<Column> {
    let codes = tree.read(&join(path, "codes"))?.values;
    let beside = join(path, "categories");
    let categories = match need(tree, &beside)? {
        Node::Array(_) => tree.read(&beside)?.values,
        // Categories of pandas' nullable types; a missing category does not exist.
        Node::Group(_) => match nullable::read(tree, &beside)? {
            Column::Plain(values) | Column::Nullable { values, .. } => values,
            Column::Categorical { categories, .. } => categories,
        },
    };
    assemble(tree, path, &codes, categories, flag(attrs, "ordered"))
}

/// Checks that codes are −1 or number a category.
pub(super) fn assemble(tree: &dyn Tree, path: &str, codes: &Values, categories: Values, ordered: bool) -> Result<Column> {
    let n = categories.len();
    let bad = |i: usize, code: f64| {
        let row = i as u64;
        let expected = format!("there are {n} categories (0..{n}, -1 for missing)");
        Error::invalid(place(tree, path).rows(row..row + 1), format!("code {code}"), expected)
    };
    let mut out = Vec::with_capacity(codes.len());
    for i in 0..codes.len() {
        let code = codes.number(i).ok_or_else(|| Error::invalid(place(tree, path), "codes that are strings", "codes are whole numbers"))?;
        if code.fract() != 0.0 || code < -1.0 || code >= n as f64 || n > i32::MAX as usize {
            return Err(bad(i, code));
        }
        out.push(code as i32);
    }
    Ok(Column::Categorical { codes: out, categories, ordered })
}

/// pandas keeps codes in the smallest type: int8 below 127 categories, int16 below 32767.
pub(super) fn write(writer: &dyn TreeWriter, path: &str, codes: &[i32], categories: &Values, ordered: bool) -> Result<()> {
    let mut attrs = crate::tree::Attrs::new();
    attrs.insert("ordered".into(), ordered.into());
    attrs.append(&mut encoding("categorical", "0.2.0"));
    writer.group(path, attrs)?;
    array::write_values(writer, &join(path, "categories"), categories)?;
    let codes = match categories.len() {
        n if n < i8::MAX as usize => Values::I8(codes.iter().map(|c| *c as i8).collect()),
        n if n < i16::MAX as usize => Values::I16(codes.iter().map(|c| *c as i16).collect()),
        _ => Values::I32(codes.to_vec()),
    };
    array::write_values(writer, &join(path, "codes"), &codes)
}

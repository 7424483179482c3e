//! AnnData's encodings (anndata 0.12, "On-disk format"), one file each, over any [`Tree`] and [`TreeWriter`].

mod array;
mod categorical;
mod dataframe;
mod dict;
mod legacy;
mod nullable;
mod records;
mod sparse;

use cellmill_matrix::{Element, Error, Place, Result};
use serde_json::Value;

use self::dataframe::{read_frame, write_frame};
pub use self::dataframe::{read_table, write_table};
pub use self::dict::write_root;
pub use self::legacy::{Lengths, table_lengths};
pub use self::sparse::{SparseInfo, sparse_info};
pub(crate) use self::sparse::{attrs, indptr_values};
use crate::tree::{Attrs, COMPOUND, LostLink, Node, Tree, TreeWriter};

/// Elements nested deeper than this are refused: a damaged store may go round in circles.
const DEEPEST: usize = 64;

/// The attributes that name an encoding.
pub(crate) fn encoding(kind: &str, version: &str) -> Attrs {
    let mut attrs = Attrs::new();
    attrs.insert("encoding-type".into(), kind.into());
    attrs.insert("encoding-version".into(), version.into());
    attrs
}

/// An attribute that is a string.
pub(crate) fn text<'a>(attrs: &'a Attrs, key: &str) -> Option<&'a str> {
    match attrs.get(key)? {
        Value::String(s) => Some(s),
        // Some HDF5 writers keep a scalar as a list of one.
        Value::Array(list) if list.len() == 1 => list[0].as_str(),
        _ => None,
    }
}

/// An attribute that is a flag, however it is spelled.
pub(crate) fn flag(attrs: &Attrs, key: &str) -> bool {
    match attrs.get(key) {
        Some(Value::Bool(b)) => *b,
        Some(Value::Number(n)) => n.as_f64() != Some(0.0),
        Some(Value::String(s)) => s.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}/{name}") }
}

pub(crate) fn place(tree: &dyn Tree, path: &str) -> Place {
    if path.is_empty() { Place::store(tree.location()) } else { Place::element(tree.location(), path) }
}

/// The error of a link at `path` that leads nowhere.
pub(crate) fn lost(tree: &dyn Tree, path: &str) -> Option<Error> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    tree.lost(parent).into_iter().find(|link| link.name == name).map(|link| link.error(place(tree, path)))
}

/// Says which links of a group lead nowhere.
pub fn name_lost(tree: &dyn Tree, group: &str, warnings: &mut Vec<String>) {
    let say = |link: LostLink| format!("{} is passed over: it is {}, but {}", join(group, &link.name), link.found, link.expected);
    warnings.extend(tree.lost(group).into_iter().map(say));
}

/// A node that must be there.
pub(crate) fn need(tree: &dyn Tree, path: &str) -> Result<Node> {
    match tree.node(path)? {
        Some(node) => Ok(node),
        None => {
            if let Some(lost) = lost(tree, path) {
                return Err(lost);
            }
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let known = tree.children(parent).unwrap_or_default();
            Err(Error::missing(place(tree, parent), name, known))
        }
    }
}

/// Reads the element at `path`. `None` when it is not there, or of a kind that is passed over; then `warnings` names it.
pub fn read_element(tree: &dyn Tree, path: &str, warnings: &mut Vec<String>) -> Result<Option<Element>> {
    match tree.node(path)? {
        Some(node) => read_node(tree, path, &node, warnings, 0),
        None => Ok(None),
    }
}

fn read_node(tree: &dyn Tree, path: &str, node: &Node, warnings: &mut Vec<String>, depth: usize) -> Result<Option<Element>> {
    if depth > DEEPEST {
        return Err(Error::invalid(place(tree, path), "groups nested too deeply", format!("at most {DEEPEST} levels are expected")));
    }
    let attrs = node.attrs();
    let kind = text(attrs, "encoding-type").unwrap_or("").to_string();
    let element = match (kind.as_str(), node) {
        ("null", _) => Element::Null,
        ("dataframe", Node::Group(_)) => Element::Table(read_frame(tree, path, warnings)?),
        ("categorical", Node::Group(_)) => Element::Column(categorical::read(tree, path, attrs)?),
        ("nullable-integer" | "nullable-boolean" | "nullable-string-array", Node::Group(_)) => Element::Column(nullable::read(tree, path)?),
        ("csr_matrix" | "csc_matrix", Node::Group(_)) => Element::Sparse(sparse::read(tree, path)?),
        ("dict" | "anndata" | "raw", Node::Group(_)) => dict::read(tree, path, warnings, depth)?,
        ("rec-array" | "", Node::Array(info)) if info.attrs.contains_key(COMPOUND) => match records::read(tree, path, info)? {
            Some(element) => element,
            None => {
                warnings.push(format!("{path} is passed over: its records are of type {}", info.dtype_name));
                return Ok(None);
            }
        },
        ("array" | "string-array" | "numeric-scalar" | "string" | "", Node::Array(info)) => match array::read(tree, path, info, &kind)? {
            Some(element) => element,
            None => {
                warnings.push(format!("{path} is passed over: its entries are of type {}", info.dtype_name));
                return Ok(None);
            }
        },
        ("", Node::Group(_)) => match legacy::read_group(tree, path, attrs, warnings)? {
            Some(element) => element,
            None => dict::read(tree, path, warnings, depth)?,
        },
        (other, _) => {
            warnings.push(format!("{path} is passed over: its encoding '{other}' is not supported"));
            return Ok(None);
        }
    };
    Ok(Some(element))
}

/// Writes an element; groups above it exist already.
pub fn write_element(writer: &dyn TreeWriter, path: &str, element: &Element) -> Result<()> {
    match element {
        Element::Dict(entries) => dict::write(writer, path, entries),
        Element::Array(array) => array::write(writer, path, array),
        Element::Scalar(values) => array::write_scalar(writer, path, values),
        Element::Table(frame) => write_frame(writer, path, frame),
        Element::Sparse(matrix) => sparse::write(writer, path, matrix),
        Element::Column(column) => dataframe::write_column(writer, path, column),
        Element::Records(fields) => records::write(writer, path, fields),
        Element::Null => array::write_null(writer, path),
    }
}

//! `dataframe`: an index and columns.

use cellmill_matrix::{Column, Error, Frame, Result, Table, Values};
use rayon::prelude::*;
use serde_json::Value;

use super::{array, categorical, encoding, join, legacy, name_lost, need, nullable, place, text};
use crate::tree::{Attrs, Node, Tree, TreeWriter};

/// Reads a data frame of any age. Columns of a kind that is not supported are left out, with a warning that names them.
pub fn read_table(tree: &dyn Tree, path: &str, warnings: &mut Vec<String>) -> Result<Table> {
    read_frame(tree, path, warnings).map(|frame| frame.table)
}

/// The same, and the index as it is.
pub(super) fn read_frame(tree: &dyn Tree, path: &str, warnings: &mut Vec<String>) -> Result<Frame> {
    let node = need(tree, path)?;
    let attrs = match &node {
        Node::Group(attrs) => attrs,
        Node::Array(_) => return legacy::read_record_table(tree, path, warnings).map(Frame::from),
    };
    let index_name = text(attrs, "_index").unwrap_or("_index").to_string();
    let index_path = join(path, &index_name);
    let names: Vec<String> = match attrs.get("column-order") {
        Some(Value::Array(list)) => list.iter().filter_map(|v| v.as_str().map(str::to_string)).collect(),
        Some(Value::String(one)) => vec![one.clone()],
        _ => tree.children(path)?.into_iter().filter(|name| *name != index_name && name != "__categories").collect(),
    };
    tree.will_read(&names.iter().chain([&index_name]).map(|name| join(path, name)).collect::<Vec<_>>());
    let n = match need(tree, &index_path)? {
        Node::Array(info) if info.shape.len() == 1 => Some(info.shape[0]),
        Node::Array(info) => {
            return Err(Error::invalid(place(tree, &index_path), format!("an index of shape {:?}", info.shape), "an index has one axis"));
        }
        Node::Group(_) => None,
    };
    let column = read_column(tree, &index_path, warnings)?
        .ok_or_else(|| Error::invalid(place(tree, &index_path), "an index of a kind that can't be read", "names are strings"))?;
    let (index, numbers) = match column {
        Column::Plain(Values::Str(names)) => (names, None),
        other => {
            let names: Vec<String> = (0..other.len()).map(|i| other.text(i).unwrap_or_else(|| "nan".into())).collect();
            (names, if let Column::Plain(numbers) = other { Some(numbers) } else { None })
        }
    };
    let n = n.unwrap_or(index.len() as u64);
    let mut table = Table { index_name, index, columns: Vec::with_capacity(names.len()) };
    let lost: Vec<String> = tree.lost(path).into_iter().map(|link| link.name).collect();
    name_lost(tree, path, warnings);
    for name in names {
        let child = join(path, &name);
        if lost.contains(&name) {
            continue;
        }
        let node = need(tree, &child)?;
        if let Node::Array(info) = &node
            && info.shape.first() != Some(&n)
        {
            return Err(wrong_length(tree, &child, format!("shape {:?}", info.shape), n));
        }
        match legacy::read_coded(tree, path, &name, &node)?.map_or_else(|| read_column(tree, &child, warnings), |c| Ok(Some(c)))? {
            Some(column) if column.len() as u64 != n => return Err(wrong_length(tree, &child, format!("{} entries", column.len()), n)),
            Some(column) => table.columns.push((name, column)),
            None => {}
        }
    }
    Ok(Frame { table, numbers })
}

fn wrong_length(tree: &dyn Tree, path: &str, found: String, n: u64) -> Error {
    Error::invalid(place(tree, path), found, format!("the index has {n} names"))
}

/// One column; `None` (and a warning) for an encoding that is passed over.
fn read_column(tree: &dyn Tree, path: &str, warnings: &mut Vec<String>) -> Result<Option<Column>> {
    let node = need(tree, path)?;
    let attrs = node.attrs();
    let kind = text(attrs, "encoding-type").unwrap_or("");
    let what = match (kind, &node) {
        ("categorical", Node::Group(_)) => return categorical::read(tree, path, attrs).map(Some),
        ("nullable-integer" | "nullable-boolean" | "nullable-string-array", Node::Group(_)) => return nullable::read(tree, path).map(Some),
        ("array" | "string-array" | "", Node::Array(info)) if info.dtype.is_some() && info.shape.len() == 1 => {
            return Ok(Some(Column::Plain(tree.read(path)?.values)));
        }
        (_, Node::Array(info)) => format!("its entries are of type {} and shape {:?}", info.dtype_name, info.shape),
        ("", _) => "it is a group without an encoding".into(),
        (kind, _) => format!("its encoding '{kind}' is not supported in a data frame"),
    };
    warnings.push(format!("{path} is passed over: {what}"));
    Ok(None)
}

/// Writes a data frame as anndata 0.12 does.
pub fn write_table(writer: &dyn TreeWriter, path: &str, table: &Table) -> Result<()> {
    write_by(writer, path, table, &Values::Str(table.index.clone()))
}

/// The same, the index as it is.
pub(super) fn write_frame(writer: &dyn TreeWriter, path: &str, Frame { table, numbers }: &Frame) -> Result<()> {
    numbers.as_ref().map_or_else(|| write_table(writer, path, table), |numbers| write_by(writer, path, table, numbers))
}

fn write_by(writer: &dyn TreeWriter, path: &str, table: &Table, index: &Values) -> Result<()> {
    let index_name = if table.index_name.is_empty() { "_index" } else { &table.index_name };
    let mut attrs = Attrs::new();
    attrs.insert("column-order".into(), table.names().map(Value::from).collect());
    attrs.insert("_index".into(), index_name.into());
    attrs.append(&mut encoding("dataframe", "0.2.0"));
    writer.group(path, attrs)?;
    if table.names().any(|name| name == index_name) {
        return Err(Error::invalid(
            cellmill_matrix::Place { element: Some(path.into()), ..Default::default() },
            format!("a column that is called '{index_name}', as the index is"),
            "names in a data frame differ",
        ));
    }
    array::write_values(writer, &join(path, index_name), index)?;
    let write = |(name, column): &(String, Column)| write_column(writer, &join(path, name), column);
    if writer.at_a_time() > 1 { table.columns.par_iter().try_for_each(write) } else { table.columns.iter().try_for_each(write) }
}

pub(super) fn write_column(writer: &dyn TreeWriter, path: &str, column: &Column) -> Result<()> {
    match column {
        Column::Plain(values) => array::write_values(writer, path, values),
        Column::Categorical { codes, categories, ordered } => categorical::write(writer, path, codes, categories, *ordered),
        Column::Nullable { values, mask } => nullable::write(writer, path, values, mask),
    }
}

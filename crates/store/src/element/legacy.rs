//! Layouts from before anndata 0.8: no `encoding-type` on arrays and mappings, categories beside the data frame (0.7), data
//! frames as arrays of records (0.5, 0.6), sparse matrices by `h5sparse_format` (0.6).

use cellmill_matrix::{Array, Column, Element, Error, Result, Table, Values};

use super::{categorical, flag, join, place, sparse, text};
use crate::tree::{Attrs, COMPOUND, Node, Tree};

/// Names by which the index of a record array goes.
const INDEX: [&str; 2] = ["index", "_index"];

/// A group without `encoding-type` that is no plain mapping.
pub(super) fn read_group(tree: &dyn Tree, path: &str, attrs: &Attrs, warnings: &mut Vec<String>) -> Result<Option<Element>> {
    if text(attrs, "h5sparse_format").is_some() {
        return sparse::read(tree, path).map(|m| Some(Element::Sparse(m)));
    }
    if attrs.contains_key("_index") && attrs.contains_key("column-order") {
        return super::read_frame(tree, path, warnings).map(|t| Some(Element::Table(t)));
    }
    Ok(None)
}

/// anndata 0.7: a column is codes, its categories lie in `__categories` of the data frame under the same name.
pub(super) fn read_coded(tree: &dyn Tree, frame: &str, name: &str, node: &Node) -> Result<Option<Column>> {
    let Node::Array(info) = node else { return Ok(None) };
    if text(&info.attrs, "encoding-type").is_some() && !info.attrs.contains_key("categories") {
        return Ok(None);
    }
    let beside = join(frame, &format!("__categories/{name}"));
    let Some(Node::Array(list)) = tree.node(&beside)? else { return Ok(None) };
    if list.dtype.is_none() {
        return Ok(None);
    }
    let path = join(frame, name);
    let codes = tree.read(&path)?.values;
    if matches!(codes, Values::Str(_)) {
        return Ok(None);
    }
    let ordered = flag(&list.attrs, "ordered");
    categorical::assemble(tree, &path, &codes, tree.read(&beside)?.values, ordered).map(Some)
}

/// A data frame kept as an array of records (anndata before 0.7); categories lie in `uns/NAME_categories`.
pub(super) fn read_record_table(tree: &dyn Tree, path: &str, warnings: &mut Vec<String>) -> Result<Table> {
    let Some(fields) = tree.fields(path)? else {
        return Err(Error::invalid(
            place(tree, path),
            "an array where a data frame is expected",
            "anndata 0.5 or later wrote it; open and save it with anndata",
        ));
    };
    let mut table = Table::default();
    let mut found = None;
    let mut columns: Vec<(String, Array)> = Vec::new();
    for (name, array) in fields {
        if found.is_none() && INDEX.contains(&name.as_str()) {
            found = Some((name, array));
        } else if array.shape.len() == 1 {
            columns.push((name, array));
        } else {
            warnings.push(format!("{path}/{name} is passed over: its shape is {:?}", array.shape));
        }
    }
    let (name, index) = found.ok_or_else(|| Error::missing(place(tree, path), "index", columns.iter().map(|(n, _)| n.as_str())))?;
    table.index_name = name;
    table.index = match index.values {
        Values::Str(names) => names,
        other => (0..other.len()).map(|i| other.text(i)).collect(),
    };
    for (name, array) in columns {
        let coded = join("uns", &format!("{name}_categories"));
        let column = match tree.node(&coded)? {
            Some(Node::Array(info))
                if info.dtype.is_some() && !matches!(array.values, Values::Str(_) | Values::F32(_) | Values::F64(_)) =>
            {
                let categories = tree.read(&coded)?.values;
                categorical::assemble(tree, &join(path, &name), &array.values, categories, false)?
            }
            _ => Column::Plain(array.values),
        };
        table.columns.push((name, column));
    }
    Ok(table)
}

/// What the metadata of a data frame say of its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Rows.
    pub rows: u64,
    /// Names of the columns, in order; unknown for arrays of records.
    pub columns: Vec<String>,
}

/// Rows and column names of a data frame of any age, without reading it.
pub fn table_lengths(tree: &dyn Tree, path: &str) -> Result<Lengths> {
    let node = super::need(tree, path)?;
    match &node {
        Node::Array(info) => {
            let fields = info.attrs.get(COMPOUND).and_then(|f| f.as_array()).into_iter().flatten();
            let columns = fields.filter_map(|v| v.as_str()).filter(|n| !INDEX.contains(n)).map(str::to_string).collect();
            Ok(Lengths { rows: info.shape.first().copied().unwrap_or(0), columns })
        }
        Node::Group(attrs) => {
            let index = text(attrs, "_index").unwrap_or("_index");
            let rows = match super::need(tree, &join(path, index))? {
                Node::Array(info) => info.shape.first().copied().unwrap_or(0),
                Node::Group(_) => ["codes", "values"]
                    .iter()
                    .find_map(|part| match tree.node(&join(path, &format!("{index}/{part}"))) {
                        Ok(Some(Node::Array(info))) => info.shape.first().copied(),
                        _ => None,
                    })
                    .unwrap_or(0),
            };
            let columns = match attrs.get("column-order") {
                Some(serde_json::Value::Array(list)) => list.iter().filter_map(|v| v.as_str().map(str::to_string)).collect(),
                _ => tree.children(path)?.into_iter().filter(|n| n != index && n != "__categories").collect(),
            };
            Ok(Lengths { rows, columns })
        }
    }
}

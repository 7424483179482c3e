//! `dict`: a group whose children are elements; and the root of a store.

use cellmill_matrix::{Element, Result};

use super::{encoding, join, name_lost, need, read_node, write_element};
use crate::tree::{Tree, TreeWriter};

pub(super) fn read(tree: &dyn Tree, path: &str, warnings: &mut Vec<String>, depth: usize) -> Result<Element> {
    let mut entries = Vec::new();
    name_lost(tree, path, warnings);
    for name in tree.children(path)? {
        let child = join(path, &name);
        let node = need(tree, &child)?;
        if let Some(element) = read_node(tree, &child, &node, warnings, depth + 1)? {
            entries.push((name, element));
        }
    }
    Ok(Element::Dict(entries))
}

pub(super) fn write(writer: &dyn TreeWriter, path: &str, entries: &[(String, Element)]) -> Result<()> {
    writer.group(path, encoding("dict", "0.1.0"))?;
    for (name, element) in entries {
        write_element(writer, &join(path, name), element)?;
    }
    Ok(())
}

/// Writes the root of an AnnData store and its empty mappings (`layers`, `obsm`, `varm`, `obsp`, `varp`, `uns`).
pub fn write_root(writer: &dyn TreeWriter) -> Result<()> {
    writer.group("", encoding("anndata", "0.1.0"))?;
    for name in ["layers", "obsm", "varm", "obsp", "varp", "uns"] {
        writer.group(name, encoding("dict", "0.1.0"))?;
    }
    Ok(())
}

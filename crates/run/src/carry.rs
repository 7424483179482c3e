//! What the input says besides X, obs and var: taken over into the output, for the cells and genes that are kept.

use std::collections::BTreeSet;

use cellmill_matrix::{Array, DType, Element, ErrorKind, Result};
use cellmill_store::anndata::AnnData;
use cellmill_store::element::name_lost;
use cellmill_store::tree::{Node, Tree, TreeWriter};
use cellmill_store::write::write_element;

/// The annotations of an AnnData store, and the part of them that is wanted.
#[derive(Clone, Copy)]
pub struct Annotations<'a> {
    /// The store.
    pub store: &'a AnnData,
    /// Kept cells, `(n_obs,)`; `None`: all.
    pub cells: Option<&'a [bool]>,
    /// Kept genes, `(n_vars,)`; `None`: all.
    pub genes: Option<&'a [bool]>,
    /// Whether the genes are those of another frame than var: then what belongs to genes is left behind.
    pub other_genes: bool,
    /// Whether a damaged element is an error; else it is left out.
    pub strict: bool,
}

/// What a row, and a column, of a mapping's elements stand for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Axis {
    Cells,
    Genes,
    Free,
}

/// The mappings of an AnnData store, layers aside.
const GROUPS: [(&str, Axis, Axis); 5] = [
    ("obsm", Axis::Cells, Axis::Free),
    ("varm", Axis::Genes, Axis::Free),
    ("obsp", Axis::Cells, Axis::Cells),
    ("varp", Axis::Genes, Axis::Genes),
    ("uns", Axis::Free, Axis::Free),
];

impl<'a> Annotations<'a> {
    /// All of a store's.
    pub fn of(store: &'a AnnData) -> Self {
        Annotations { store, cells: None, genes: None, other_genes: false, strict: true }
    }

    /// Writes each element but those whose path is in `taken`, one at a time. What can't be held or has another length than its
    /// axis is left out and named in `warnings`.
    pub fn write(&self, w: &dyn TreeWriter, taken: &BTreeSet<String>, warnings: &mut Vec<String>) -> Result<()> {
        for (group, rows, columns) in GROUPS {
            if rows == Axis::Genes && self.other_genes {
                continue;
            }
            name_lost(&**self.store.tree(), group, warnings);
            for name in self.store.names(group)? {
                let path = format!("{group}/{name}");
                if taken.contains(&path) {
                    continue;
                }
                let element = match self.store.element(&path, warnings) {
                    Err(error) if !self.strict && !matches!(error.kind(), ErrorKind::Interrupted) => {
                        warnings.push(format!("{error}; it is left out"));
                        continue;
                    }
                    element => element?,
                };
                match element.map(|e| self.part(e, rows, columns)) {
                    Some(Ok(element)) => write_element(w, &path, &element)?,
                    Some(Err(found)) => warnings.push(format!("{}: {path}: {found}; it is left out", self.store.location())),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// The kept part of an element, or why there is none.
    fn part(&self, element: Element, rows: Axis, columns: Axis) -> Result<Element, String> {
        if rows == Axis::Free {
            return Ok(element);
        }
        let length = match &element {
            Element::Array(a) => a.shape.first().copied(),
            Element::Sparse(s) => Some(s.shape[0]),
            Element::Table(t) => Some(t.table.n_rows()),
            Element::Column(c) => Some(c.len()),
            Element::Records(fields) => fields.first().map(|(_, values)| values.len()),
            Element::Dict(_) | Element::Scalar(_) | Element::Null => None,
        };
        let Some(length) = length else { return Err("it has no rows".into()) };
        let (n, frame) = self.length(rows);
        if length as u64 != n {
            return Err(format!("{length} rows, but {frame} has {n}"));
        }
        if let (Element::Sparse(s), Axis::Cells | Axis::Genes) = (&element, columns)
            && s.shape[1] != s.shape[0]
        {
            return Err(format!("{} x {} entries, where both axes are {frame}", s.shape[0], s.shape[1]));
        }
        let kept = self.flags(rows);
        Ok(match (element, kept) {
            (element, None) => element,
            (Element::Sparse(s), kept) => Element::Sparse(s.select(kept, self.flags(columns))),
            (Element::Array(a), Some(kept)) if columns != Axis::Free => {
                // A dense matrix of pairs: its second axis goes the same way, as the first of each row.
                let square = a.shape.len() == 2 && a.shape[1] == a.shape[0];
                if !square {
                    return Err(format!("shape {:?}, where both axes are {frame}", a.shape));
                }
                let flags: Vec<bool> = kept.iter().flat_map(|&row| kept.iter().map(move |&column| row && column)).collect();
                let n = kept.iter().filter(|k| **k).count();
                Element::Array(Array { shape: vec![n, n], values: a.values.select(&flags) })
            }
            (Element::Array(a), Some(kept)) => Element::Array(a.select(kept)),
            (Element::Table(t), Some(kept)) => Element::Table(t.select(kept)),
            (Element::Column(c), Some(kept)) => Element::Column(c.select(kept)),
            (Element::Records(fields), Some(kept)) => {
                Element::Records(fields.into_iter().map(|(name, values)| (name, values.select(kept))).collect())
            }
            (other, _) => other,
        })
    }

    fn length(&self, axis: Axis) -> (u64, &'static str) {
        match axis {
            Axis::Genes => (self.store.n_vars(), "var"),
            Axis::Cells | Axis::Free => (self.store.n_obs(), "obs"),
        }
    }

    fn flags(&self, axis: Axis) -> Option<&'a [bool]> {
        match axis {
            Axis::Cells => self.cells,
            Axis::Genes => self.genes,
            Axis::Free => None,
        }
    }

    /// Bytes of memory that writing them takes at most: the largest element as it is read, its kept part, and what tells them apart.
    pub fn bytes(&self) -> Result<u64> {
        let tree = &**self.store.tree();
        let mut most = 0;
        for (group, rows, _) in GROUPS {
            let parts = if rows == Axis::Free { 1 } else { 3 };
            for name in self.store.names(group)? {
                most = most.max(parts * held(tree, &format!("{group}/{name}"), 8)?);
            }
        }
        Ok(most)
    }
}

/// Bytes of the arrays below a path, decoded. Text is taken for 48 bytes an entry.
fn held(tree: &dyn Tree, path: &str, depth: u32) -> Result<u64> {
    Ok(match tree.node(path)? {
        Some(Node::Array(info)) => {
            let entries = info.shape.iter().fold(1u64, |n, &m| n.saturating_mul(m));
            entries.saturating_mul(info.dtype.and_then(DType::size).unwrap_or(48) as u64)
        }
        Some(Node::Group(_)) if depth > 0 => {
            let mut sum = 0u64;
            for child in tree.children(path)? {
                sum = sum.saturating_add(held(tree, &format!("{path}/{child}"), depth - 1)?);
            }
            sum
        }
        _ => 0,
    })
}

//! 10x Genomics h5 files: the output of Cell Ranger, version 2 (one group a genome) and 3 (`matrix`).
//!
//! The matrix is genes by cells in compressed columns, which is cells by genes in compressed rows: it streams as it lies.

use std::path::Path;

use cellmill_matrix::{Array, Column, Error, Place, Result, Table, Values};

use crate::hdf5::Hdf5Tree;
use crate::tree::{Node, Tree};

/// The feature type that [`TenXOptions::gex_only`] keeps.
pub const GENE_EXPRESSION: &str = "Gene Expression";

/// What to read of a 10x h5 file.
#[derive(Clone, Debug)]
pub struct TenXOptions {
    /// The genome. Version 2: needed where a file has several. Version 3: keeps the features of that genome.
    pub genome: Option<String>,
    /// Keeps features of type `Gene Expression` alone. Default true, as scanpy.
    pub gex_only: bool,
}

impl Default for TenXOptions {
    fn default() -> Self {
        TenXOptions { genome: None, gex_only: true }
    }
}

/// An open 10x h5 file. `indptr`, `indices` and `data` of `tree` below `group` are rows of cells.
pub struct TenX {
    /// The file.
    pub tree: Hdf5Tree,
    /// The group of the matrix: `matrix`, or the genome's name.
    pub group: String,
    /// Cells, by barcode.
    pub obs: Table,
    /// The features that are kept, by gene name (duplicates are legal), with columns as scanpy names them.
    pub var: Table,
    /// Features in the file: the number of columns of the stored matrix.
    pub n_features: usize,
    /// Which of them are kept; nothing where all are.
    pub keep_features: Option<Vec<bool>>,
}

/// Whether an HDF5 file is one of 10x Genomics.
pub fn is_tenx(tree: &Hdf5Tree) -> Result<bool> {
    if tree.node("matrix/barcodes")?.is_some() {
        return Ok(tree.node("matrix/indptr")?.is_some());
    }
    Ok(tree.node("X")?.is_none() && !genomes(tree)?.is_empty())
}

/// Groups of a version 2 file that hold a matrix.
fn genomes(tree: &Hdf5Tree) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in tree.children("")? {
        if matches!(tree.node(&format!("{name}/gene_names"))?, Some(Node::Array(_))) && tree.node(&format!("{name}/indptr"))?.is_some() {
            found.push(name);
        }
    }
    Ok(found)
}

impl TenX {
    /// Opens a file of either version, as `scanpy.read_10x_h5` does.
    pub fn open(path: &Path, options: &TenXOptions) -> Result<TenX> {
        let tree = Hdf5Tree::open(path)?;
        if tree.node("matrix")?.is_some() { TenX::features(tree, options) } else { TenX::genes(tree, options) }
    }

    /// Version 2: `genes`, `gene_names`.
    fn genes(tree: Hdf5Tree, options: &TenXOptions) -> Result<TenX> {
        let found = genomes(&tree)?;
        let place = Place::store(tree.location());
        let group = match (&options.genome, found.as_slice()) {
            (_, []) => {
                return Err(Error::invalid(
                    place,
                    "no count matrix",
                    "a 10x h5 file has a group 'matrix', or one a genome with gene_names and indptr",
                ));
            }
            (Some(genome), _) if found.contains(genome) => genome.clone(),
            (Some(genome), _) => return Err(Error::missing(place, genome, found)),
            (None, [one]) => one.clone(),
            (None, _) => {
                let expected = format!("{} holds {}; choose one", tree.location(), found.join(", "));
                return Err(Error::option("--genome", "nothing", expected));
            }
        };
        let ids = texts(&tree, &format!("{group}/genes"))?;
        let var = Table {
            index_name: "_index".into(),
            index: texts(&tree, &format!("{group}/gene_names"))?,
            columns: vec![("gene_ids".into(), Column::Plain(Values::Str(ids)))],
        };
        TenX::checked(tree, group, var, None)
    }

    /// Version 3: `features`.
    fn features(tree: Hdf5Tree, options: &TenXOptions) -> Result<TenX> {
        let group = "matrix".to_string();
        let place = Place::element(tree.location(), "matrix/features");
        let mut columns: Vec<(String, Column)> = Vec::new();
        let index = texts(&tree, "matrix/features/name")?;
        let known = tree.children("matrix/features")?;
        let text = |name: &str| texts(&tree, &format!("matrix/features/{name}"));
        // Features that are probes of a gene have the gene's name beside their own.
        let ids = if known.iter().any(|k| k == "gene_id") { "gene_id" } else { "id" };
        columns.push(("gene_ids".into(), Column::Plain(Values::Str(text(ids)?))));
        if ids == "gene_id" {
            columns.push(("probe_ids".into(), Column::Plain(Values::Str(text("id")?))));
        }
        let types = text("feature_type")?;
        columns.push(("feature_types".into(), Column::Plain(Values::Str(types.clone()))));
        for name in known {
            let path = format!("matrix/features/{name}");
            if ["name", "feature_type", "id", "gene_id", "_all_tag_keys"].contains(&name.as_str())
                || !matches!(tree.node(&path)?, Some(Node::Array(_)))
            {
                continue;
            }
            let column = match tree.read(&path)? {
                Array { values: Values::Bool(v), .. } => Values::Bool(v),
                other => Values::Str((0..other.values.len()).map(|i| other.values.text(i)).collect()),
            };
            if column.len() != index.len() {
                return Err(Error::invalid(
                    place,
                    format!("'{name}' has {} entries", column.len()),
                    format!("there are {} features", index.len()),
                ));
            }
            match columns.iter_mut().find(|(n, _)| *n == name) {
                Some((_, old)) => *old = Column::Plain(column),
                None => columns.push((name, Column::Plain(column))),
            }
        }
        let n = index.len();
        let var = Table { index_name: "_index".into(), index, columns };
        let mut keep = vec![true; n];
        if let Some(genome) = &options.genome {
            let of: Vec<Option<String>> = (0..n).map(|i| var.column("genome").filter(|c| c.len() == n).and_then(|c| c.text(i))).collect();
            if !of.iter().flatten().any(|g| g == genome) {
                let mut known: Vec<String> = of.into_iter().flatten().collect();
                known.sort();
                known.dedup();
                return Err(Error::missing(place, genome, known));
            }
            keep.iter_mut().zip(&of).for_each(|(k, g)| *k &= g.as_ref() == Some(genome));
        }
        if options.gex_only {
            keep.iter_mut().zip(&types).for_each(|(k, t)| *k &= t == GENE_EXPRESSION);
            if !keep.contains(&true) && n > 0 {
                let mut types = types;
                types.sort();
                types.dedup();
                return Err(Error::invalid(
                    place,
                    format!("no feature of type '{GENE_EXPRESSION}', only {}", types.join(", ")),
                    "there is one; all features can be kept by gex_only = false",
                ));
            }
        }
        TenX::checked(tree, group, var, Some(keep))
    }

    /// Checks lengths against the shape, and drops features.
    fn checked(tree: Hdf5Tree, group: String, var: Table, keep: Option<Vec<bool>>) -> Result<TenX> {
        let place = |element: &str| Place::element(tree.location(), format!("{group}/{element}"));
        let shape = tree.read(&format!("{group}/shape"))?.values;
        let shape: Vec<f64> = (0..shape.len()).filter_map(|i| shape.number(i)).collect();
        let mut obs = Table::of_index(texts(&tree, &format!("{group}/barcodes"))?);
        let lengths = [var.n_rows() as f64, obs.n_rows() as f64];
        if shape != lengths {
            return Err(Error::invalid(
                place("shape"),
                format!("{shape:?}"),
                format!("there are {} features and {} barcodes", lengths[0], lengths[1]),
            ));
        }
        if let Some((name, column)) = var.columns.iter().find(|(_, c)| c.len() != var.n_rows()) {
            return Err(Error::invalid(place(name), format!("{} entries", column.len()), format!("there are {} features", var.n_rows())));
        }
        let filtered = format!("{group}/filtered_barcodes");
        if tree.node(&filtered)?.is_some() {
            let values = tree.read(&filtered)?.values;
            if values.len() != obs.n_rows() {
                return Err(Error::invalid(
                    place("filtered_barcodes"),
                    format!("{} entries", values.len()),
                    format!("there are {} barcodes", obs.n_rows()),
                ));
            }
            let flags = (0..values.len()).map(|i| values.number(i).is_some_and(|x| x != 0.0)).collect();
            obs.columns.push(("filtered_barcodes".into(), Column::Plain(Values::Bool(flags))));
        }
        let n_features = var.n_rows();
        let keep_features = keep.filter(|k| k.contains(&false));
        let var = match &keep_features {
            Some(keep) => var.select(keep),
            None => var,
        };
        Ok(TenX { tree, group, obs, var, n_features, keep_features })
    }

    /// Path of the row starts (`(n_cells + 1,)`) in `tree`.
    pub fn indptr(&self) -> String {
        format!("{}/indptr", self.group)
    }

    /// Path of the features of the entries in `tree`.
    pub fn indices(&self) -> String {
        format!("{}/indices", self.group)
    }

    /// Path of the counts in `tree`.
    pub fn data(&self) -> String {
        format!("{}/data", self.group)
    }
}

/// A one-dimensional array as text.
fn texts(tree: &Hdf5Tree, path: &str) -> Result<Vec<String>> {
    let array = tree.read(path)?;
    if array.shape.len() != 1 {
        return Err(Error::invalid(Place::element(tree.location(), path), format!("shape {:?}", array.shape), "one axis is expected"));
    }
    Ok(match array.values {
        Values::Str(texts) => texts,
        other => (0..other.len()).map(|i| other.text(i)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hdf5::test_data as data;

    fn names(table: &Table) -> Vec<&str> {
        table.names().collect()
    }

    #[test]
    fn version_3() {
        let x = TenX::open(&data("10x_small/3.0.0/filtered_feature_bc_matrix.h5"), &TenXOptions::default()).unwrap();
        assert!(is_tenx(&x.tree).unwrap());
        assert_eq!((x.obs.n_rows(), x.var.n_rows(), x.n_features, &x.keep_features), (1107, 507, 507, &None));
        assert_eq!(names(&x.var), ["gene_ids", "feature_types", "genome"]);
        assert_eq!(x.var.column("feature_types").unwrap().text(0).unwrap(), GENE_EXPRESSION);
        let indptr = x.tree.read(&x.indptr()).unwrap().values;
        assert_eq!((indptr.len(), indptr.number(1107)), (1108, Some(23866.0)));
        assert_eq!(x.tree.read(&x.data()).unwrap().values.len(), x.tree.read(&x.indices()).unwrap().values.len());
        let options = TenXOptions { genome: Some("mm10".into()), ..TenXOptions::default() };
        let error = TenX::open(&data("10x_small/3.0.0/filtered_feature_bc_matrix.h5"), &options).err().unwrap().to_string();
        assert!(error.contains("there is no 'mm10'"), "{error}");
    }

    #[test]
    fn version_2_and_its_genomes() {
        let one = TenX::open(&data("10x_small/1.2.0/filtered_gene_bc_matrices_h5.h5"), &TenXOptions::default()).unwrap();
        assert_eq!((one.group.as_str(), one.obs.n_rows(), one.var.n_rows(), names(&one.var)), ("hg19_chr21", 12, 343, vec!["gene_ids"]));
        let path = data("10x_small/1.2.0/multiple_genomes.h5");
        let error = TenX::open(&path, &TenXOptions::default()).err().unwrap().to_string();
        assert!(error.contains("another_genome, hg19_chr21"), "{error}");
        let options = |g: &str| TenXOptions { genome: Some(g.into()), gex_only: true };
        assert_eq!(TenX::open(&path, &options("another_genome")).unwrap().group, "another_genome");
        assert!(TenX::open(&path, &options("hg38")).is_err());
    }

    #[test]
    fn features_of_other_types_are_dropped() {
        use crate::hdf5::Hdf5Writer;
        use crate::tree::{Attrs, TreeWriter};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.h5");
        let text = |t: &[&str]| Array::vector(Values::Str(t.iter().map(|s| s.to_string()).collect()));
        let w = Box::new(Hdf5Writer::create(&path, false).unwrap());
        let put = |p: &str, a: Array| w.array(&format!("matrix/{p}"), &a, Attrs::new()).unwrap();
        w.group("matrix", Attrs::new()).unwrap();
        w.group("matrix/features", Attrs::new()).unwrap();
        put("barcodes", text(&["AA", "AC"]));
        put("shape", Array::vector(Values::I32(vec![3, 2])));
        put("features/id", text(&["E1", "p", "E2"]));
        put("features/name", text(&["A", "CD4", "A"]));
        put("features/feature_type", text(&[GENE_EXPRESSION, "Antibody Capture", GENE_EXPRESSION]));
        put("features/genome", text(&["h", "", "m"]));
        put("features/pattern", text(&["", "5P", ""]));
        put("features/_all_tag_keys", text(&["genome", "pattern"]));
        w.finish().unwrap();
        let x = TenX::open(&path, &TenXOptions::default()).unwrap();
        assert_eq!((x.n_features, x.keep_features, x.var.index.clone()), (3, Some(vec![true, false, true]), vec!["A".into(), "A".into()]));
        assert_eq!(names(&x.var), ["gene_ids", "feature_types", "genome", "pattern"]);
        let all = TenX::open(&path, &TenXOptions { gex_only: false, ..TenXOptions::default() }).unwrap();
        assert_eq!((all.var.n_rows(), all.keep_features), (3, None));
        let mouse = TenX::open(&path, &TenXOptions { genome: Some("m".into()), gex_only: true }).unwrap();
        assert_eq!(mouse.keep_features, Some(vec![false, false, true]));
    }
}

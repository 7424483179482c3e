//! Readers fed with bytes of anybody's making: any answer is right but a panic, a hang or memory beyond what is stored.
//! `tests/damaged.rs` runs them over `tests/data/fuzz`, the fuzz targets over what they make up.

#![allow(dead_code)]

use std::fs;
use std::path::Path;

use cellmill_matrix::{Csr, SourceRow};
use cellmill_store::anndata::{AnnData, Matrix};
use cellmill_store::hdf5::Hdf5Tree;
use cellmill_store::mtx::{Mtx, MtxOptions};
use cellmill_store::tenx::{TenX, TenXOptions};
use cellmill_store::tree::{Node, Tree};
use cellmill_store::zarr::ZarrTree;

/// Arrays that claim more bytes than this are described, not read.
const MOST: u64 = 1 << 22;

/// Cuts bytes into `n` parts: two bytes of length before each but the last.
pub fn parts(mut bytes: &[u8], n: usize) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    for _ in 1..n {
        let (length, rest) = bytes.split_at(bytes.len().min(2));
        let length = length.iter().rev().fold(0, |all, b| all << 8 | usize::from(*b));
        let (part, rest) = rest.split_at(length.min(rest.len()));
        parts.push(part);
        bytes = rest;
    }
    parts.push(bytes);
    parts
}

/// One array of a zarr store: a byte that chooses the version, its metadata, its attributes, its first chunk and its second.
pub fn zarr(bytes: &[u8]) {
    let Some((version, bytes)) = bytes.split_first() else { return };
    let [meta, attrs, first, second] = parts(bytes, 4)[..] else { return };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let put = |name: &str, bytes: &[u8]| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    if version % 2 == 0 {
        put("zarr.json", br#"{"zarr_format": 3, "node_type": "group"}"#);
        put("a/zarr.json", meta);
        for (name, chunk) in [("a/c/0", first), ("a/c/1", second)] {
            put(name, chunk);
        }
    } else {
        put(".zgroup", br#"{"zarr_format": 2}"#);
        put("a/.zarray", meta);
        put("a/.zattrs", attrs);
        for (name, chunk) in [("a/0", first), ("a/1", second), ("a/0.0", first), ("a/0.1", second)] {
            put(name, chunk);
        }
    }
    if let Ok(tree) = ZarrTree::open(root) {
        walk(&tree, "", 0);
    }
}

/// A whole HDF5 file: every node, then what a 10x file and an AnnData store would be asked.
pub fn hdf5(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5ad");
    fs::write(&path, bytes).unwrap();
    if let Ok(tree) = Hdf5Tree::open(&path) {
        walk(&tree, "", 0);
    }
    if let Ok(file) = TenX::open(&path, &TenXOptions::default()) {
        let _ = file.var.n_rows();
    }
    anndata(&path, folder.path());
}

/// A 10x mtx folder: barcodes, features, matrix.
pub fn mtx(bytes: &[u8]) {
    let [barcodes, features, matrix] = parts(bytes, 3)[..] else { return };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let zipped = if matrix.starts_with(&[0x1f, 0x8b]) { ".gz" } else { "" };
    fs::write(root.join("barcodes.tsv"), barcodes).unwrap();
    fs::write(root.join(if features.len() % 2 == 0 { "features.tsv" } else { "genes.tsv" }), features).unwrap();
    fs::write(root.join(format!("matrix.mtx{zipped}")), matrix).unwrap();
    if let Ok(opened) = Mtx::open(root, &MtxOptions::default())
        && let Ok(source) = opened.to_rows(1 << 20, root, &())
    {
        rows(&source);
    }
}

/// Every node below a path.
fn walk(tree: &dyn Tree, path: &str, depth: usize) {
    if depth > 6 {
        return;
    }
    match tree.node(path) {
        Ok(Some(Node::Group(_))) => {
            for name in tree.children(path).unwrap_or_default().into_iter().take(64) {
                let child = if path.is_empty() { name } else { format!("{path}/{name}") };
                walk(tree, &child, depth + 1);
            }
        }
        Ok(Some(Node::Array(info))) => {
            let _ = tree.stored_bytes(path);
            let lengths = |of: &[u64]| of.iter().fold(16u64, |all, n| all.saturating_mul(*n));
            if lengths(&info.shape) > MOST || lengths(&info.chunk) > MOST {
                return;
            }
            let _ = tree.read(path);
            let _ = tree.fields(path);
            if let Some(n) = info.shape.first() {
                let _ = tree.read_rows(path, n / 3..n - n / 4);
            }
            if let Ok(chunks) = tree.chunks(path) {
                let (mut scratch, mut out) = (Vec::new(), Vec::new());
                for i in 0..chunks.n_chunks().min(16) {
                    if chunks.decode(i, &mut scratch, &mut out).is_ok() {
                        let mut again = vec![0; out.len()];
                        chunks.decode_into(i, &mut scratch, &mut again).unwrap();
                        assert_eq!(again, out, "{path}: chunk {i}");
                    }
                }
            }
        }
        _ => {}
    }
}

/// What a run asks of an AnnData store.
fn anndata(path: &Path, scratch: &Path) {
    let Ok(store) = AnnData::open(path) else { return };
    let small = |bytes: u64| bytes < MOST;
    if !small(store.n_obs()) || !small(store.n_vars()) {
        return;
    }
    let mut warnings = Vec::new();
    let _ = store.obs(&mut warnings);
    let _ = store.var(&mut warnings);
    for group in ["obsm", "uns", "obsp"] {
        for name in store.names(group).unwrap_or_default().into_iter().take(16) {
            let _ = store.element(&format!("{group}/{name}"), &mut warnings);
        }
    }
    for name in store.matrices().unwrap_or_default().into_iter().take(4) {
        let Ok(info) = store.matrix_info(&name) else { continue };
        let chunk = info.data.chunk.iter().fold(16u64, |all, n| all.saturating_mul(*n));
        if !small(info.shape.n_vars as u64) || !small(info.nnz) || !small(chunk) {
            continue;
        }
        match store.matrix(&name) {
            Ok(Matrix::Rows(source)) => rows(&*source),
            Ok(Matrix::Columns(columns)) => {
                if let Ok(source) = columns.to_rows(scratch, 1 << 20, &()) {
                    rows(&*source);
                }
            }
            Err(_) => {}
        }
    }
}

/// All rows of a matrix, some at a time.
fn rows(source: &dyn cellmill_matrix::Source) {
    let shape = source.shape();
    let mut rows = Csr::default();
    let mut at = 0;
    while at < shape.n_obs.min(4096) {
        let end = (at + 100).min(shape.n_obs);
        if source.read(SourceRow(at)..SourceRow(end), &mut rows).is_err() {
            return;
        }
        for i in 0..rows.n_rows() {
            let (columns, values) = rows.row(i);
            assert_eq!(columns.len(), values.len());
            assert!(columns.windows(2).all(|w| w[0] < w[1]), "columns increase");
            assert!(columns.iter().all(|&c| (c as usize) < shape.n_vars), "columns are genes");
        }
        at = end;
    }
}

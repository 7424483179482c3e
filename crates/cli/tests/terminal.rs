//! What people see: help, recipes, plans and errors, held as snapshots (`cargo insta review` after a change that is meant).

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs cellmill in the repository's root and shows status, stdout and stderr.
fn show(args: &[&str]) -> String {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO_BIN_EXE_cellmill")).args(args).current_dir(root).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_string();
    format!("status {}\n--- stdout\n{}\n--- stderr\n{}\n", output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn help() {
    insta::assert_snapshot!("help", show(&["--help"]));
    insta::assert_snapshot!("help_run", show(&["run", "--help"]));
}

#[test]
fn recipes() {
    insta::assert_snapshot!("recipe_default", show(&["run", "--print-recipe"]));
    let flags = [
        "--flavor",
        "seurat_v3",
        "--n-top-genes",
        "2000",
        "--qc-var",
        "mt=regex:^MT-",
        "--resolution",
        "0.5,1",
        "--target-sum",
        "median",
        "--min-genes",
        "100",
    ];
    insta::assert_snapshot!("recipe_flags", show(&[&["run", "--print-recipe"], &flags[..]].concat()));
}

#[test]
fn info() {
    let shown = show(&["info", "data/pbmc3k.h5ad"]);
    // The last line of stdout depends on the machine.
    let kept: Vec<&str> = shown.lines().filter(|l| !l.contains("the default recipe needs")).collect();
    insta::assert_snapshot!("info", kept.join("\n"));
}

#[test]
fn errors() {
    let output = std::env::temp_dir().join("cellmill-terminal-test.zarr");
    let output = output.to_str().unwrap();
    let run = |more: &[&str]| show(&[&["run", "data/pbmc3k.h5ad", "-o", output, "--quiet"], more].concat());
    insta::assert_snapshot!("error_no_input", show(&["run", "nowhere.h5ad", "-o", output]));
    insta::assert_snapshot!("error_not_anndata", show(&["info", "README.md"]));
    insta::assert_snapshot!("error_column", run(&["--filter-cells", "n_gene_by_counts >= 200"]));
    insta::assert_snapshot!("error_syntax", run(&["--filter-cells", "n_genes_by_counts >="]));
    insta::assert_snapshot!("error_all_filtered", run(&["--min-genes", "100000"]));
    insta::assert_snapshot!("error_hvg", run(&["--n-top-genes", "40000"]));
    insta::assert_snapshot!("error_comps", run(&["--n-comps", "4000"]));
    insta::assert_snapshot!("error_matrix", run(&["--matrix", "layers/count"]));
    insta::assert_snapshot!("error_memory", run(&["--memory", "64MiB", "--threads", "2"]));
    insta::assert_snapshot!("error_logged_expected", run(&["--target-sum", "none", "--no-log1p"]));
    assert!(!Path::new(output).exists(), "an error left an output behind");
}

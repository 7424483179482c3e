//! ARCHITECTURE.md says what each crate depends on; so do the manifests. They must say the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::root;

/// Crates and what they depend on, from the table of ARCHITECTURE.md.
fn drawn() -> BTreeMap<String, BTreeSet<String>> {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let names = cells[2].split(", ").filter(|name| !name.is_empty());
        (cells[0].trim_matches('`').to_string(), names.map(String::from).collect())
    })
    .collect()
}

/// The same, from the manifests.
fn built() -> BTreeMap<String, BTreeSet<String>> {
    let crates = std::fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let of = |folder: std::path::PathBuf| {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let needs = manifest.split("\n[").filter(|section| section.starts_with("dependencies]")).flat_map(str::lines);
        let ours = needs.filter_map(|line| line.strip_prefix("cellmill-")).map(|rest| rest.split('.').next().unwrap().to_string());
        (folder.file_name().unwrap().to_string_lossy().into_owned(), ours.collect())
    };
    crates.map(of).chain([of(root().join("xtask"))]).collect()
}

#[test]
fn the_page_shows_the_arrows_of_the_manifests() {
    assert_eq!(drawn(), built());
}

#[test]
fn arrows_point_down_only() {
    // Each crate's dependencies stand in rows above its own.
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let row = |name: &str| page.lines().position(|line| line.starts_with(&format!("| `{name}`"))).unwrap();
    for (name, needs) in drawn() {
        needs.iter().for_each(|below| assert!(row(below) < row(&name), "{name} depends on {below}"));
    }
}

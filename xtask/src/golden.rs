//! `cargo xtask golden`: makes the reference results of the Rust tests anew with scanpy.

use anyhow::Result;

use crate::{python, root, sh};

/// Runs every `make.py` under tests/data.
pub fn run() -> Result<()> {
    let python = python::environment()?;
    for entry in std::fs::read_dir(root().join("tests").join("data"))? {
        let script = entry?.path().join("make.py");
        if script.exists() {
            sh(&python, &[&script.display().to_string()], &[])?;
        }
    }
    Ok(())
}

//! `cargo xtask test`: formatting, lints, documentation, Rust tests, then the black-box tests against scanpy.

use anyhow::Result;

use crate::{cargo, python, root, sh, target};

/// Runs all of it, or the part that is named.
pub fn run(args: &[String]) -> Result<()> {
    let part = args.first().map(String::as_str);
    if part != Some("python") {
        rust()?;
    }
    if part != Some("rust") {
        black_box()?;
    }
    Ok(())
}

fn rust() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])?;
    cargo(&["doc", "--workspace", "--no-deps", "--locked"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    cargo(&["test", "--workspace", "--locked"], &[])
}

fn black_box() -> Result<()> {
    cargo(&["build", "--locked", "--package", "cellmill"], &[])?;
    let python = python::environment()?;
    let binary = target().join("debug").join("cellmill");
    let tests = root().join("tests").join("python");
    sh(&python, &["-m", "ruff", "check", "tests", "python", "examples"], &[])?;
    sh(&python, &["-m", "pytest", "-q", "-ra", &tests.display().to_string()], &[("CELLMILL", &binary.display().to_string())])?;
    package(&python)
}

/// Builds the Python package into the environment and tests it.
fn package(python: &std::path::Path) -> Result<()> {
    python::package(python)?;
    let tests = root().join("tests").join("python_package");
    sh(python, &["-m", "pytest", "-q", "-ra", &tests.display().to_string()], &[])
}

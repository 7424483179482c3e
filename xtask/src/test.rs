//! `cargo xtask test`: formatting, lints, types, documentation, Rust tests, then the black-box tests against scanpy, of the program
//! and of the Python package, and the documentation.

use anyhow::{Result, bail};

use crate::{cargo, python, root, sh, target};

/// Runs all of it, or the part that is named.
pub fn run(args: &[String]) -> Result<()> {
    let part = args.first().map(String::as_str);
    if let Some(other) = part.filter(|p| !["rust", "python"].contains(p)) {
        bail!("'{other}' is no part of the tests; they are rust and python");
    }
    if part != Some("python") {
        rust()?;
    }
    if part == Some("python") {
        cargo(&["build", "--locked", "--package", "cellmill"], &[])?;
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

/// The program (which the Rust tests have built too), the package and the documentation as a user meets them.
fn black_box() -> Result<()> {
    let python = python::environment()?;
    let binary = target().join("debug").join("cellmill");
    let tests = root().join("tests").join("python");
    sh(&python, &["-m", "ruff", "check", "tests", "python", "examples"], &[])?;
    sh(&python, &["-m", "mypy"], &[])?;
    sh(&python, &["-m", "pytest", "-q", "-ra", &tests.display().to_string()], &[("CELLMILL", &binary.display().to_string())])?;
    cuda(&python)?;
    package(&python)?;
    let site = target().join("site").display().to_string();
    sh(&python, &["-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", &site], &[("NO_MKDOCS_2_WARNING", "1")])
}

/// Compiles the CUDA sources, where there is an NVRTC to do it.
fn cuda(python: &std::path::Path) -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let folder = python::packages(python)?.join("nvidia").join("cuda_nvrtc").join("lib").display().to_string();
    let env = [("LD_LIBRARY_PATH", folder.as_str()), ("CELLMILL_NVRTC", "needed")];
    cargo(&["test", "--locked", "--workspace", "--test", "cuda_sources"], &env)
}

/// Builds the Python package into the environment and tests it.
fn package(python: &std::path::Path) -> Result<()> {
    python::package(python)?;
    sh(python, &["-m", "mypy.stubtest", "cellmill._cellmill"], &[])?;
    let tests = root().join("tests").join("python_package");
    let binary = target().join("debug").join("cellmill");
    sh(python, &["-m", "pytest", "-q", "-ra", &tests.display().to_string()], &[("CELLMILL", &binary.display().to_string())])
}

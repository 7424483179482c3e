//! The Python environment of the tests: made once, from pinned requirements.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{root, sh, target};

/// Python of an environment with scanpy and its friends; made or renewed when the requirements have changed.
pub fn environment() -> Result<PathBuf> {
    let requirements = root().join("tests").join("python").join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).with_context(|| requirements.display().to_string())?;
    let home = target().join("python");
    let python = home.join("bin").join("python");
    let stamp = home.join("requirements.txt");
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    let base = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    sh(&base, &["-m", "venv", "--clear", &home.display().to_string()], &[])?;
    sh(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", &requirements.display().to_string()], &[])?;
    std::fs::write(&stamp, wanted)?;
    Ok(python)
}

/// Builds the package's wheel with the debug profile of the other tests and installs it into the environment.
pub fn package(python: &Path) -> Result<()> {
    let wheels = target().join("wheels");
    // Wheels of earlier versions must not be mistaken for this one.
    let _ = std::fs::remove_dir_all(&wheels);
    let out = wheels.display().to_string();
    sh(
        python,
        &[
            "-m",
            "maturin",
            "build",
            "--quiet",
            "--locked",
            "--profile",
            "dev",
            "--interpreter",
            &python.display().to_string(),
            "--out",
            &out,
        ],
        &[],
    )?;
    let wheel = std::fs::read_dir(&wheels)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .context("maturin made no wheel")?;
    let wheel = wheel.display().to_string();
    sh(python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall", &wheel], &[])
}

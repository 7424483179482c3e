//! The Python environment of the tests: made once, from pinned requirements.

use std::path::PathBuf;

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

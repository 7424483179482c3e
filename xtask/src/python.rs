//! The Python environment of the tests: made once, from pinned requirements.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cargo, root, sh, target};

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

/// Puts the package into the environment: its Python files and the library as the Rust tests build it.
///
/// maturin would choose cargo's features for this one crate, and with them compile all others once more; `cargo xtask wheel` asks it.
pub fn package(python: &Path) -> Result<()> {
    // A test of another crate brings in what the tests depend on: the features of `cargo test --workspace`, so that nothing is built twice.
    cargo(&["build", "--locked", "--workspace", "--lib", "--test", "terminal"], &[])?;
    let home = packages(python)?.join("cellmill");
    // Files of an earlier version must not be mistaken for this one's.
    let _ = std::fs::remove_dir_all(&home);
    copy(&root().join("python").join("cellmill"), &home)?;
    let (built, name) = if cfg!(windows) {
        ("_cellmill.dll", "_cellmill.pyd")
    } else if cfg!(target_os = "macos") {
        ("lib_cellmill.dylib", "_cellmill.abi3.so")
    } else {
        ("lib_cellmill.so", "_cellmill.abi3.so")
    };
    let library = target().join("debug").join(built);
    std::fs::copy(&library, home.join(name)).with_context(|| library.display().to_string())?;
    Ok(())
}

/// Where an environment keeps its packages.
pub fn packages(python: &Path) -> Result<PathBuf> {
    let ask = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let said = Command::new(python).args(["-c", ask]).output().with_context(|| python.display().to_string())?;
    Ok(PathBuf::from(String::from_utf8(said.stdout)?.trim()))
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)?.flatten() {
        let (source, name) = (entry.path(), entry.file_name());
        if source.is_dir() {
            copy(&source, &to.join(name))?;
        } else {
            std::fs::copy(&source, to.join(name)).with_context(|| source.display().to_string())?;
        }
    }
    Ok(())
}

/// Largest wheel that is put up with, in bytes.
const WHEEL: u64 = 25_000_000;

/// What a fresh environment must say of the wheel: nothing heavy is imported, the verbs are there, and a back end for scanpy.
const CHECK: &str = "
import sys, time
start = time.perf_counter()
import cellmill
seconds = time.perf_counter() - start
heavy = {'scanpy', 'dask', 'anndata', 'pandas', 'scipy', 'zarr', 'h5py'} & set(sys.modules)
assert not heavy and seconds < 0.3, (heavy, seconds)
from importlib.metadata import entry_points, version
assert version('cellmill') == cellmill.__version__
assert [e.load().name for e in entry_points(group='scanpy.backends')] == ['cellmill']
adata = cellmill.read_lazy(sys.argv[1])
cellmill.pp.calculate_qc_metrics(adata)
assert adata.obs['total_counts'].min() > 0
";

/// `cargo xtask wheel`: the wheel as users get it, in `target/wheels`, tried in an environment of its own.
pub fn wheel() -> Result<()> {
    let python = environment()?;
    let wheels = target().join("wheels");
    let _ = std::fs::remove_dir_all(&wheels);
    let (interpreter, out) = (python.display().to_string(), wheels.display().to_string());
    sh(&python, &["-m", "maturin", "build", "--release", "--locked", "--interpreter", &interpreter, "--out", &out], &[])?;
    for entry in std::fs::read_dir(&wheels)?.flatten() {
        let (wheel, bytes) = (entry.path().display().to_string(), entry.metadata()?.len());
        anyhow::ensure!(bytes <= WHEEL, "{wheel} has {bytes} bytes, at most {WHEEL} are put up with");
        let home = target().join("wheel-environment");
        sh(&python, &["-m", "venv", "--clear", &home.display().to_string()], &[])?;
        let fresh = home.join("bin").join("python");
        sh(&fresh, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &wheel], &[])?;
        sh(&fresh, &["-c", CHECK, "data/pbmc3k.h5ad"], &[])?;
    }
    Ok(())
}

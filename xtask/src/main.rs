//! Everything that the README's commands call: `cargo xtask test`, `cargo xtask bench`, `cargo xtask golden`, `cargo xtask wheel`.

#[cfg(test)]
mod arrows;
mod bench;
mod golden;
mod python;
mod test;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("test") => test::run(&args[1..]),
        Some("bench") => bench::run(&args[1..]),
        Some("golden") => golden::run(),
        Some("wheel") => python::wheel(),
        _ => Err(anyhow::anyhow!("cargo xtask test [rust|python] | bench [CELLS] | golden | wheel")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

#[allow(clippy::print_stderr)]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Runs a command in the repository's root, shown first; fails if it does.
fn sh(program: impl AsRef<std::ffi::OsStr>, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let name = program.as_ref().to_string_lossy().into_owned();
    say(&format!("+ {name} {}", args.join(" ")));
    let status = Command::new(program).args(args).envs(env.iter().copied()).current_dir(root()).status().with_context(|| name.clone())?;
    if !status.success() {
        bail!("{name} {} failed ({status})", args.join(" "));
    }
    Ok(())
}

/// This toolchain's cargo.
fn cargo(args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    sh(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), args, env)
}

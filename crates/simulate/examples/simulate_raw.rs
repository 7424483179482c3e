//! Draws counts and writes them raw, for measuring: `simulate_raw [key=value ...]`.
//!
//! Keys: cells, genes, types, batches, genes_per_cell, seed, threads, out (a folder; none: only draws). Writes, little-endian,
//! `indptr` (cells + 1) u64, `indices` u32, `data` f32, `types` i32, `batches` i32. Talks on stderr.
#![allow(clippy::print_stderr)]

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use cellmill_matrix::{Column, Csr, Source, SourceRow};
use cellmill_simulate::{Options, Simulation};
use rayon::prelude::*;

/// Cells drawn at a time.
const CUT: u64 = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut options, mut threads, mut out) = (Options { n_obs: 20_000, ..Options::default() }, 1, None);
    for arg in std::env::args().skip(1) {
        match arg.split_once('=').ok_or("key=value")? {
            ("cells", value) => options.n_obs = value.parse()?,
            ("genes", value) => options.n_vars = value.parse()?,
            ("types", value) => options.n_types = value.parse()?,
            ("batches", value) => options.n_batches = value.parse()?,
            ("genes_per_cell", value) => options.genes_per_cell = Some(value.parse()?),
            ("seed", value) => options.seed = value.parse()?,
            ("threads", value) => threads = value.parse()?,
            ("out", value) => out = Some(PathBuf::from(value)),
            (key, _) => return Err(format!("unknown key {key}").into()),
        }
    }
    let n_obs = options.n_obs;
    let start = Instant::now();
    let simulation = Simulation::new(options)?;
    eprintln!("model {:.2} s, mean library {:.0}", start.elapsed().as_secs_f64(), simulation.mean_library());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let start = Instant::now();
    let starts: Vec<u64> = (0..n_obs).step_by(CUT as usize).collect();
    let draw = |&first: &u64| {
        let mut rows = Csr::empty(0);
        simulation.read(SourceRow(first)..SourceRow((first + CUT).min(n_obs)), &mut rows).map(|()| rows)
    };
    let Some(out) = out else {
        let nnz = pool.install(|| starts.par_iter().map(|s| draw(s).map(|rows| rows.nnz() as u64)).sum::<Result<u64, _>>())?;
        eprintln!("{nnz} entries, {:.2} s", start.elapsed().as_secs_f64());
        return Ok(());
    };
    fs::create_dir_all(&out)?;
    let file = |name: &str| File::create(out.join(name)).map(BufWriter::new);
    let (mut indptr, mut indices, mut data) = (file("indptr")?, file("indices")?, file("data")?);
    let mut before = 0u64;
    indptr.write_all(&before.to_le_bytes())?;
    for group in starts.chunks(16) {
        for rows in pool.install(|| group.par_iter().map(draw).collect::<Result<Vec<_>, _>>())? {
            rows.indptr[1..].iter().try_for_each(|&end| indptr.write_all(&(before + end).to_le_bytes()))?;
            before += rows.nnz() as u64;
            rows.indices.iter().try_for_each(|&g| indices.write_all(&g.to_le_bytes()))?;
            rows.data.iter().try_for_each(|&x| data.write_all(&x.to_le_bytes()))?;
        }
    }
    for (name, column) in simulation.obs().columns {
        if let Column::Categorical { codes, .. } = column {
            let mut to = file(if name == "batch" { "batches" } else { "types" })?;
            codes.iter().try_for_each(|&code| to.write_all(&code.to_le_bytes()))?;
        }
    }
    eprintln!("{before} entries, {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}

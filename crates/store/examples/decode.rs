//! Measures how fast X is decoded: `decode STORE [ROWS] [PASSES]`. Prints bytes of columns and values per CPU second.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use cellmill_matrix::{Csr, Result, SourceRow};
use cellmill_store::anndata::AnnData;

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: Vec<f64> = after.split(' ').filter_map(|x| x.parse().ok()).collect();
    // Fields 14 and 15 of proc(5); the command's name and the state are gone here.
    (ticks.get(10).unwrap_or(&0.0) + ticks.get(11).unwrap_or(&0.0)) / 100.0
}

fn measure(path: &Path, rows: u64, passes: u32, out: &mut dyn Write) -> Result<()> {
    let store = AnnData::open(path)?;
    let source = store.matrix("X")?.into_rows(&std::env::temp_dir(), 256 << 20, &())?;
    let mut csr = Csr::default();
    for _ in 0..passes {
        let (from, cpu) = (Instant::now(), cpu_seconds());
        let (mut nnz, mut at, mut sum) = (0u64, 0, 0u64);
        while at < source.shape().n_obs {
            let end = (at + rows).min(source.shape().n_obs);
            source.read(SourceRow(at)..SourceRow(end), &mut csr)?;
            nnz += csr.nnz() as u64;
            sum += csr.indices.last().copied().map_or(0, u64::from);
            at = end;
        }
        let (wall, cpu) = (from.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let _ = writeln!(out, "{nnz} entries ({sum}), {wall:.2} s, {cpu:.2} cpu-s, {:.2} GB/cpu-s", nnz as f64 * 8e-9 / cpu.max(0.01));
    }
    let _ = writeln!(out, "read {} decoded {}", source.bytes_read(), source.bytes_decoded());
    Ok(())
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |i: usize, default: u64| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let mut out = std::io::stdout().lock();
    if let Err(error) = measure(Path::new(args.get(1).map_or(".", String::as_str)), number(2, 2048), number(3, 5) as u32, &mut out) {
        let _ = writeln!(out, "{error}");
    }
}

//! The first read beside its limits: `rates STORE [THREADS]`. Decodes all rows and does nothing else, runs the default recipe through
//! the components, then packs and unpacks some rows on one thread. Prints entries a second, and a CPU second.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cellmill_engine::exec::{cut, in_order};
use cellmill_kernels::pack::{pack, unpack};
use cellmill_matrix::{Csr, SourceRow};
use cellmill_run::device::Choice;
use cellmill_run::job::{Job, open};
use cellmill_run::observe::{Silence, cpu_seconds};
use cellmill_run::recipe::{Recipe, Stage};

/// Rows that are decoded at a time: as many as fit the cache, as in a run.
const ROWS: u64 = 128;

/// Prints a rate; gives the wall-clock seconds.
fn say(what: &str, entries: u64, (from, cpu): (Instant, f64)) -> f64 {
    let (wall, cpu, entries) = (from.elapsed().as_secs_f64(), cpu_seconds() - cpu, entries as f64 * 1e-6);
    println!("{what:>12}: {wall:7.2} s, {cpu:7.2} CPU s, {:7.0} M entries/s, {:7.0} M/CPU s", entries / wall, entries / cpu.max(1e-2));
    wall
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let input = PathBuf::from(args.get(1).ok_or("rates STORE [THREADS]")?);
    let threads: usize = args.get(2).map_or(Ok(2), |t| t.parse())?;
    let scratch = tempfile::tempdir_in(input.parent().unwrap_or(Path::new(".")))?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let mut nnz = 0;
    let decode = pool.install(|| -> cellmill_matrix::Result<f64> {
        let data = open(&input, "X", None, scratch.path(), 4 << 30, &Silence)?;
        let source = &*data.source;
        nnz = source.entries_before(SourceRow(source.shape().n_obs));
        let tasks = cut(source.shape().n_obs);
        let start = (Instant::now(), cpu_seconds());
        let work = |i: usize| {
            let mut buffer = Csr::default();
            for at in tasks[i].clone().step_by(ROWS as usize) {
                source.read(SourceRow(at)..SourceRow((at + ROWS).min(tasks[i].end)), &mut buffer)?;
            }
            Ok(())
        };
        in_order(tasks.len(), 2, work, |_, ()| Ok(()))?;
        let wall = say("decode alone", nnz, start);
        codec(source, &tasks[0])?;
        Ok(wall)
    })?;
    let job = Job {
        input: input.clone(),
        output: scratch.path().join("out.zarr"),
        format: None,
        overwrite: true,
        in_place: false,
        with_x: None,
        recipe: Recipe::default(),
        through: Stage::Pca,
        threads,
        memory: 16 << 30,
        genome: None,
        spill_dir: None,
        resume: false,
        device: Choice::default(),
    };
    let summary = job.run(&Silence)?;
    for stage in &summary.stages {
        println!("{:>12}: {:7.2} s, {:7.2} CPU s", stage.stage, stage.wall_s, stage.cpu_s);
    }
    println!("{:>12}: {:7.2} s, {:.2} GiB", "all", summary.wall_s, summary.peak_rss_bytes as f64 / f64::from(1 << 30));
    let read = summary.stages.first().map_or(f64::NAN, |s| s.wall_s);
    println!("the first read runs at {:.0} % of the rate of decoding alone", 100.0 * decode / read);
    Ok(())
}

/// Packs and unpacks a few rows, again and again.
fn codec(source: &dyn cellmill_matrix::Source, rows: &std::ops::Range<u64>) -> cellmill_matrix::Result<()> {
    let (mut x, mut bytes, mut back) = (Csr::default(), Vec::new(), Csr::default());
    source.read(SourceRow(rows.start)..SourceRow((rows.start + ROWS).min(rows.end)), &mut x)?;
    let times = (200_000_000 / x.nnz().max(1)).max(1);
    let start = (Instant::now(), cpu_seconds());
    (0..times).for_each(|_| pack(&x, &mut bytes));
    say("pack", (times * x.nnz()) as u64, start);
    let start = (Instant::now(), cpu_seconds());
    for _ in 0..times {
        unpack(&bytes, &mut back)?;
    }
    say("unpack", (times * x.nnz()) as u64, start);
    println!("{:>12}  {:.2} bytes an entry", "", bytes.len() as f64 / x.nnz().max(1) as f64);
    Ok(())
}

//! `cellmill info`: what a store holds, from its metadata and one chunk.

use std::io::Write;
use std::path::{Path, PathBuf};

use cellmill_engine::exec::TASK_ROWS;
use cellmill_matrix::{Element, Encoding, Error, Place, Values, keys};
use cellmill_run::budget::say_bytes;
use cellmill_run::carry::Annotations;
use cellmill_run::device::Choice;
use cellmill_run::job::Job;
use cellmill_run::plan::{Size, estimate};
use cellmill_run::recipe::{Recipe, Stage};
use cellmill_store::anndata::{AnnData, MatrixInfo};
use cellmill_store::dataset::{InputFormat, OpenOptions};
use cellmill_store::tree::Tree;
use clap::Args;
use serde_json::{Value, json};

use crate::Voice;

/// Show what a store holds.
#[derive(Args)]
pub struct Info {
    /// AnnData zarr or h5ad, or 10x h5: a path or a URL (s3, gs, az, http, https); or a 10x mtx folder or its matrix.mtx
    input: PathBuf,
    /// Print the Methods paragraph of a store that cellmill wrote
    #[arg(long)]
    methods: bool,
}

impl Info {
    /// Prints it.
    pub fn run(&self, voice: Voice) -> anyhow::Result<()> {
        let format = InputFormat::of(&self.input)?;
        let mut out = std::io::stdout();
        match format {
            InputFormat::Zarr | InputFormat::H5ad => {
                let store = AnnData::open(&self.input)?;
                if self.methods {
                    let text = methods(&store)?;
                    let shown = if voice.json { json!({ "methods": text }).to_string() } else { text };
                    writeln!(out, "{shown}")?;
                    return Ok(());
                }
                let facts = anndata(&self.input, format, &store)?;
                print(&facts, voice)
            }
            InputFormat::TenXH5 | InputFormat::Mtx if self.methods => {
                Err(Error::missing(Place::store(self.input.display().to_string()), "uns/cellmill", Vec::<String>::new()).into())
            }
            InputFormat::TenXH5 | InputFormat::Mtx => print(&tenx(&self.input, format)?, voice),
        }
    }
}

/// The Methods paragraph that a run left in uns.
fn methods(store: &AnnData) -> anyhow::Result<String> {
    let path = format!("uns/{}/methods", keys::CELLMILL);
    match store.element(&path, &mut Vec::new())? {
        Some(Element::Scalar(Values::Str(text))) => Ok(text.concat()),
        _ => Err(Error::missing(Place::store(store.location()), path, store.names("uns")?).into()),
    }
}

/// Facts about an AnnData store.
fn anndata(path: &Path, format: InputFormat, store: &AnnData) -> anyhow::Result<Value> {
    let mut matrices = Vec::new();
    let mut needs = Value::Null;
    for name in store.matrices()? {
        let info = store.matrix_info(&name)?;
        if name == "X" {
            needs = need(format, &info, store)?;
        }
        matrices.push(matrix(&**store.tree(), &name, &store.matrix_path(&name)?, &info));
    }
    Ok(json!({
        "store": path.display().to_string(),
        "format": format.name(),
        "n_obs": store.n_obs(),
        "n_vars": store.n_vars(),
        "matrices": matrices,
        "obs": store.obs_columns(),
        "var": store.var_columns(),
        "obsm": store.names("obsm")?,
        "varm": store.names("varm")?,
        "obsp": store.names("obsp")?,
        "uns": store.names("uns")?,
        "run": needs,
    }))
}

/// Facts about one matrix; its first chunk of values is decoded to see whether they are counts.
fn matrix(tree: &dyn Tree, name: &str, path: &str, info: &MatrixInfo) -> Value {
    let path = match info.encoding {
        Encoding::Dense => path.to_string(),
        _ => format!("{path}/data"),
    };
    let encoding = match info.encoding {
        Encoding::Csr => "csr_matrix",
        Encoding::Csc => "csc_matrix",
        Encoding::Dense => "array",
    };
    json!({
        "name": name,
        "encoding": encoding,
        "shape": [info.shape.n_obs, info.shape.n_vars as u64],
        "nnz": info.nnz,
        "dtype": info.data.dtype_name,
        "chunk": info.data.chunk,
        "shard": info.data.shard,
        "codec": info.data.codec,
        "stored_bytes": info.stored_bytes,
        "values": looks_like(tree, &path),
    })
}

/// What the first values look like.
fn looks_like(tree: &dyn Tree, path: &str) -> &'static str {
    const VALUES: u64 = 50_000;
    let Ok(Some(node)) = tree.node(path) else { return "unknown" };
    let cellmill_store::tree::Node::Array(info) = node else { return "unknown" };
    let width: u64 = info.shape.iter().skip(1).product::<u64>().max(1);
    let rows = info.shape.first().copied().unwrap_or(0).min((VALUES / width).max(1));
    if rows == 0 || width > 1 << 24 {
        return "unknown";
    }
    let Ok(values) = tree.read_rows(path, 0..rows) else { return "unreadable" };
    let numbers: Vec<f64> = (0..values.len()).filter_map(|i| values.number(i)).collect();
    let whole = numbers.iter().all(|x| x.fract() == 0.0);
    let largest = numbers.iter().copied().fold(0.0, f64::max);
    match (numbers.iter().any(|x| *x < 0.0), whole, largest < 20.0) {
        (true, _, _) => "negative values (scaled or centred)",
        (_, true, _) => "raw counts",
        (_, false, true) => "fractions, as after log1p",
        (_, false, false) => "fractions (normalised, not logged)",
    }
}

/// What the default recipe needs.
fn need(format: InputFormat, info: &MatrixInfo, store: &AnnData) -> anyhow::Result<Value> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let job = Job {
        input: PathBuf::new(),
        output: PathBuf::new(),
        format: None,
        overwrite: false,
        in_place: false,
        with_x: None,
        recipe: Recipe::default(),
        through: Stage::Leiden,
        threads,
        memory: cellmill_run::budget::available_bytes(),
        genome: None,
        spill_dir: None,
        resume: false,
        device: Choice::default(),
    };
    let chunk: u64 = info.data.chunk.iter().product::<u64>() * 16;
    // Rows are not looked at here: three times the mean stands for the densest task.
    let densest_task = (info.nnz / info.shape.n_obs.max(1) + 1) * TASK_ROWS * 3;
    let overhead_bytes = chunk * threads as u64;
    let size = Size {
        format: format.name(),
        shape: info.shape,
        nnz: info.nnz,
        obs_columns: store.obs_columns().len(),
        overhead_bytes,
        densest_task,
        annotation_bytes: Annotations::of(store).bytes()?,
    };
    let plan = estimate(&size, &job);
    Ok(json!({
        "threads": threads,
        "reads": plan.reads.len(),
        "peak_bytes": plan.peak_bytes,
        "seconds": plan.seconds.iter().map(|(_, s)| s).sum::<f64>(),
    }))
}

/// Facts about a 10x input.
fn tenx(path: &Path, format: InputFormat) -> anyhow::Result<Value> {
    let options = OpenOptions::default();
    let (n_obs, n_vars, var) = match format {
        InputFormat::Mtx => {
            let mtx = cellmill_store::mtx::Mtx::open(path, &Default::default())?;
            (mtx.obs.n_rows(), mtx.var.n_rows(), mtx.var)
        }
        _ => {
            let file =
                cellmill_store::tenx::TenX::open(path, &cellmill_store::tenx::TenXOptions { genome: options.genome, gex_only: true })?;
            (file.obs.n_rows(), file.var.n_rows(), file.var)
        }
    };
    Ok(json!({
        "store": path.display().to_string(),
        "format": format.name(),
        "n_obs": n_obs,
        "n_vars": n_vars,
        "var": var.names().collect::<Vec<_>>(),
    }))
}

/// Prints facts as JSON or for people.
fn print(facts: &Value, voice: Voice) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if voice.json {
        writeln!(out, "{facts}")?;
        return Ok(());
    }
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), String::from);
    writeln!(out, "{}: {}, {} cells x {} genes", text(&facts["store"]), text(&facts["format"]), facts["n_obs"], facts["n_vars"])?;
    for m in facts["matrices"].as_array().into_iter().flatten() {
        let stored = m["stored_bytes"].as_u64().map_or(String::new(), |b| format!(", {} on disk", say_bytes(b)));
        let shard = if m["shard"].is_null() { String::new() } else { format!(" in shards of {}", m["shard"]) };
        writeln!(
            out,
            "  {:<16} {} {}, {} entries, chunks of {}{shard}, {}{stored}",
            text(&m["name"]),
            text(&m["encoding"]),
            text(&m["dtype"]),
            m["nnz"],
            m["chunk"],
            text(&m["codec"])
        )?;
        writeln!(out, "  {:<16} values look like: {}", "", text(&m["values"]))?;
    }
    for key in ["obs", "var", "obsm", "varm", "obsp", "uns"] {
        let names: Vec<String> = facts[key].as_array().into_iter().flatten().map(text).collect();
        if !names.is_empty() {
            writeln!(out, "  {key:<5} {}", names.join(", "))?;
        }
    }
    if let Some(peak) = facts["run"]["peak_bytes"].as_u64() {
        let s = facts["run"]["seconds"].as_f64().unwrap_or(0.0);
        writeln!(out, "  the default recipe needs about {} and {:.0} s on {} threads", say_bytes(peak), s.ceil(), facts["run"]["threads"])?;
    }
    Ok(())
}

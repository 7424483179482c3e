//! What a run will cost, before it runs: reads, bytes, memory, time.

use cellmill_engine::exec::{TASK_ROWS, THREAD_BYTES, cut};
use cellmill_engine::host::hvg::Flavor;
use cellmill_graph::{fuzzy, knn};
use cellmill_kernels::gram;
use cellmill_matrix::{Error, ErrorKind, Result, Shape, Source, SourceRow};
use cellmill_store::dataset::Dataset;
use serde::Serialize;

use crate::cluster::{MOST_PROJECTED, no_room, tasks_an_order};
use crate::device::HOST_BYTES;
use crate::graph::metric;
use crate::job::Job;
use crate::recipe::{DEFAULT_COMPS, DEFAULT_PCS, DEFAULT_TOP_GENES, Recipe, Stage, Target, TargetWord};

/// The expected cost of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The input's format.
    pub format: String,
    /// Cells and genes.
    pub shape: [u64; 2],
    /// Stored entries.
    pub nnz: u64,
    /// The reads of the source, each with its purpose.
    pub reads: Vec<String>,
    /// Bytes of the decoded matrix: 8 an entry, once.
    pub bytes_decoded: u64,
    /// What takes memory at the worst moment, in bytes.
    pub memory: Vec<(String, u64)>,
    /// Their sum: the smallest ceiling that works.
    pub peak_bytes: u64,
    /// Packed rows for later passes: bytes that memory has room for, beside everything else.
    pub stage_bytes: u64,
    /// Packed rows that go to the spill file.
    pub spill_bytes: u64,
    /// Whether the components wait in a temporary file while the graph is made, and the neighbour search reads its lists from one.
    pub aside: bool,
    /// Bytes of temporary files for that.
    pub aside_bytes: u64,
    /// Whether the ceiling has room for the layout by a GPU and the clusters by the CPU at the same time.
    pub beside: bool,
    /// The ceiling.
    pub ceiling_bytes: u64,
    /// Rough seconds by stage on this many threads.
    pub seconds: Vec<(String, f64)>,
    /// Threads.
    pub threads: usize,
}

/// Decoding and folding, entries a second and core (measured: BENCHMARKS.md).
const READ_RATE: f64 = 6.0e7;
/// Seconds a cell and core of neighbours, layout and clusters (measured at 1.3 million cells: BENCHMARKS.md).
const NEIGHBORS: f64 = 45e-6;
const LAYOUT: f64 = 90e-6;
const CLUSTERS: f64 = 13e-6;
/// Seconds a core, pair of cells and dimension, where the metric wants all pairs compared (measured: BENCHMARKS.md).
fn a_pair(metric: knn::Metric) -> f64 {
    match metric {
        knn::Metric::Minkowski(_) => 18e-9,
        knn::Metric::JensenShannon => 2.5e-9,
        knn::Metric::Canberra => 0.19e-9,
        _ => 0.07e-9,
    }
}

/// Products of the Gram matrix, a second and core.
const GRAM_RATE: f64 = 1.0e10;

/// The numbers of an input that its cost follows from.
#[derive(Clone, Debug)]
pub struct Size {
    /// What people call the format.
    pub format: &'static str,
    /// Cells and genes.
    pub shape: Shape,
    /// Stored entries.
    pub nnz: u64,
    /// Columns of obs.
    pub obs_columns: usize,
    /// Bytes that reading needs beside the rows.
    pub overhead_bytes: u64,
    /// Stored entries of the task that has most.
    pub densest_task: u64,
    /// Bytes that taking over annotations of the input needs.
    pub annotation_bytes: u64,
}

/// When memory is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    /// Reads that fold over all genes.
    Survey,
    /// The pass over the chosen genes.
    Covariance,
    /// The eigenvectors.
    Eigen,
    Projection,
    Graph,
    Writing,
}

/// Whose memory a plan is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Of a process that does all.
    Alone,
    /// Of one that has workers.
    Client {
        /// Whether the scores go from them into the output.
        chunks: bool,
        /// Whether they make the weights, the layout and the clusters.
        graph: bool,
    },
    /// Of a worker, as far as the components.
    Worker,
}

/// Bytes of the program and its libraries.
pub(crate) const PROGRAM: u64 = 48 << 20;
/// Bytes of a packed entry at most, where values are counts.
const PACKED: f64 = 2.1;

/// Estimates a run over an open input.
pub fn plan(data: &Dataset, job: &Job) -> Result<Plan> {
    Ok(estimate(&Size::of(data, job)?, job))
}

impl Size {
    /// The size of an open input.
    fn of(data: &Dataset, job: &Job) -> Result<Size> {
        let shape = data.source.shape();
        Ok(Size {
            format: data.format.name(),
            shape,
            nnz: data.source.entries_before(SourceRow(shape.n_obs)),
            obs_columns: data.obs.columns.len(),
            overhead_bytes: data.source.overhead_bytes(job.threads),
            densest_task: densest_task(&*data.source),
            annotation_bytes: job.annotations(data).map_or(Ok(0), |a| a.bytes())?,
        })
    }
}

/// Estimates a run on workers with these ceilings. The second says whether this process has the memory for the graph: if not, the weights,
/// the layout and the clusters are made by workers, one of which must have it.
pub(crate) fn plan_on_workers(data: &Dataset, job: &Job, rooms: &[(String, u64)], on_gpu: bool) -> Result<(Plan, bool)> {
    let size = Size::of(data, job)?;
    let chunks = job.zarr_version()?.is_some();
    let plan = estimate_of(Whose::Client { chunks, graph: false }, &size, job);
    if plan.check(job.memory).is_ok() || job.through < Stage::Umap || job.recipe.leiden.louvain {
        return Ok((plan, true));
    }
    let here = estimate_of(Whose::Client { chunks, graph: true }, &size, job);
    let needs = elsewhere_bytes(size.shape.n_obs, &job.recipe, on_gpu);
    match rooms.iter().any(|(_, room)| *room >= needs) {
        false if here.check(job.memory).is_ok() => Err(no_room(needs, rooms)),
        _ => Ok((here, false)),
    }
}

/// Entries of the task that has most.
pub fn densest_task(source: &dyn Source) -> u64 {
    let before = |row: u64| source.entries_before(SourceRow(row));
    cut(source.shape().n_obs).into_iter().map(|rows| before(rows.end) - before(rows.start)).max().unwrap_or(0)
}

/// Estimates a run from the size of its input.
pub fn estimate(size: &Size, job: &Job) -> Plan {
    estimate_of(Whose::Alone, size, job)
}

/// Estimates what one of the processes of a run takes.
pub(crate) fn estimate_of(whose: Whose, size: &Size, job: &Job) -> Plan {
    let shape = size.shape;
    let (n, p, nnz) = (shape.n_obs, shape.n_vars as u64, size.nnz);
    let r = &job.recipe;
    let gene_filter = !r.filter.genes.is_empty() || r.filter.min_cells.is_some() || r.filter.max_cells.is_some();
    let median = r.normalize.target_sum == Target::Word(TargetWord::Median);
    let v3 = r.hvg.flavor.name().starts_with("seurat_v3");
    let mut reads = vec!["quality control and filters".to_string()];
    if job.through >= Stage::Hvg {
        match (gene_filter, median) {
            (false, false) => reads[0] += ", moments of genes",
            (true, true) => reads.extend(["totals of the kept genes (their median)".to_string(), "moments of genes".to_string()]),
            _ => reads.push("moments of genes".to_string()),
        }
        if r.hvg.flavor == Flavor::PearsonResiduals {
            reads.push("residuals of the counts (pearson_residuals)".to_string());
        }
        if v3 {
            reads.push("clipped sums (seurat_v3)".to_string());
        }
    }
    let staged = nnz as f64 * PACKED;
    if job.through >= Stage::Pca {
        reads.push("covariance of the highly variable genes".to_string());
    }
    if job.with_x.is_some() {
        reads.push("X for the output".to_string());
    }
    let later_reads = reads.len() > 1;
    let hvg = r.hvg.n_top_genes.filter(|&k| k > 0).unwrap_or(DEFAULT_TOP_GENES).min(shape.n_vars) as u64;
    let comps = r.pca.n_comps.unwrap_or(DEFAULT_COMPS).min(hvg as usize) as u64;
    // Highly variable genes hold about a fifth of the entries when 5,000 of 28,000 are chosen; in proportion, with a margin.
    let share = (hvg as f64 / p.max(1) as f64 * 2.0).min(1.0);
    let hvg_nnz = (nnz as f64 * share) as u64;
    let threads = job.threads as u64;
    let flight = threads * THREAD_BYTES + size.overhead_bytes;
    // Rows of an order, and a task that it has in common with the next.
    let an_order = n.min((tasks_an_order(n) as u64 + 1) * TASK_ROWS);
    let scattered = matches!(whose, Whose::Client { chunks: true, .. });
    let mut needs = vec![
        (When::Always, "program and libraries", PROGRAM),
        match whose {
            Whose::Worker => (When::Always, "QC columns, and which cells stay", 2 * n + threads * an_order * 72),
            _ => (When::Always, "obs and QC columns", n * (48 + 16 * size.obs_columns as u64 + 24)),
        },
        (When::Writing, "annotations of the input", size.annotation_bytes),
        (When::Survey, "chunks in flight", flight),
        (When::Survey, "gene sums", (threads * 4 + 20) * p * 48),
    ];
    let driver = job.device.host_bytes(nnz);
    if driver > 0 {
        needs.push((When::Always, "GPU driver and page-locked memory", driver));
    }
    if job.through >= Stage::Pca {
        let task = ((size.densest_task as f64 * share) as u64).min(TASK_ROWS * hvg);
        let block = task * (gram::BLOCK as u64 / TASK_ROWS);
        let matrix = 8 * hvg * hvg;
        let wide = hvg as usize > gram::MAX_COLUMNS;
        let total = gram::Gram::bytes(hvg as usize);
        needs.push((When::Covariance, "chunks in flight", flight));
        if wide {
            // No covariance: the rows are multiplied by a block of vectors, time and again.
            needs.push((When::Covariance, "gene sums", 16 * hvg * (threads * 2 + 4)));
            needs.push((When::Eigen, "eigenvectors", 8 * hvg * (2 * comps + 80) * 2 + 64 * hvg * (threads * 2 + 4)));
            needs.push((When::Eigen, "rows in flight", threads * task * 20));
        } else {
            needs.push((When::Covariance, "covariance", total + gram::Work::bytes(hvg as usize, block as usize, job.threads)));
            needs.push((
                When::Eigen,
                "covariance",
                total.max(if 4 * comps > hvg { 3 * matrix } else { 24 * hvg * (comps + 100) }) + matrix,
            ));
        }
        // Finished tasks that wait (8 bytes an entry), and those on their way (with room to grow).
        needs.push((When::Covariance, "rows in flight", task * (8 * (threads + 4) + 20 * threads)));
        needs.push((When::Projection, "chunks in flight", flight));
        needs.push((When::Projection, "rows in flight", threads * (task * 20 + TASK_ROWS * comps * 8)));
        let x_pca = match whose {
            Whose::Worker => {
                let by_gpu = if driver > 0 { n.min(MOST_PROJECTED as u64 * TASK_ROWS) } else { 0 };
                // Beside the scores a chunk of them, and what is stored of it.
                (threads * an_order).max(by_gpu) * comps * 4 + threads * (6 << 20)
            }
            _ if scattered => 0,
            _ => n * comps * 4,
        };
        needs.push((When::Projection, "X_pca", x_pca));
        needs.push((When::Writing, "chunks in flight", (threads * 2 + 8) * (4 << 20)));
    }
    let (mut aside, mut beside) = (false, false);
    let n_pcs = r.neighbors.n_pcs.unwrap_or(DEFAULT_PCS).min(comps as usize) as u64;
    let x_pca = match whose {
        _ if job.through < Stage::Pca || whose == Whose::Worker => 0,
        _ if scattered && job.through < Stage::Neighbors => 0,
        // The neighbours look at so many.
        _ if scattered => n * n_pcs * 4,
        _ => n * comps * 4,
    };
    let of_pairs = metric(r).is_ok_and(knn::Metric::is_of_pairs);
    if job.through >= Stage::Neighbors {
        let graph = Graph::of(n, r, n_pcs, job.through, threads, driver > 0);
        let rest = if matches!(whose, Whose::Client { graph: true, .. }) { graph.handed } else { graph.rest };
        let always = needs.iter().filter(|need| need.0 == When::Always).map(|need| need.2).sum::<u64>();
        // The search by lists is for cells beyond those of which all pairs are compared.
        let can = r.neighbors.mode != "exact" && !of_pairs && n > knn::ALL_PAIRS as u64;
        let rows = 4 * n * n_pcs;
        let streamed = (graph.search - rows + threads * LISTS_IN_FLIGHT.min(3 * rows)).max(rest);
        let at_hand = graph.search.max(rest);
        aside = can && always + x_pca + at_hand > job.memory && streamed < x_pca + at_hand;
        beside = always + if aside { 0 } else { x_pca } + graph.beside <= job.memory;
        needs.push((When::Graph, "graph", if aside { streamed } else { at_hand }));
        needs.push((When::Writing, "graph", graph.result));
    }
    if !aside {
        needs.push((When::Graph, "X_pca", x_pca));
    }
    if !scattered {
        needs.push((When::Writing, "X_pca", if aside { 20 << 20 } else { x_pca }));
    }
    let of = |when: When| needs.iter().filter(|n| n.0 == when || n.0 == When::Always).map(|n| n.2).sum::<u64>();
    let staging = [When::Survey, When::Covariance, When::Eigen, When::Projection];
    let phases = staging.into_iter().chain([When::Graph, When::Writing]);
    let worst = phases.max_by_key(|&w| of(w)).unwrap_or(When::Always);
    let peak_bytes = of(worst);
    let memory = needs.iter().filter(|n| n.0 == worst || n.0 == When::Always).map(|n| (n.1.to_string(), n.2)).collect();
    // What is staged is needed until the projection, not for the graph. An allocation may take an eighth more than was asked for.
    let room = job.memory.saturating_sub(staging.into_iter().map(of).max().unwrap_or(0)) / 9 * 8;
    let staged = if later_reads { staged as u64 } else { 0 };
    let stage_bytes = if later_reads { room } else { 0 };
    if later_reads {
        reads.iter_mut().skip(1).for_each(|read| *read += " (from the packed rows of read 1)");
    }
    let cores = job.threads as f64;
    let mut seconds = vec![("reads".to_string(), nnz as f64 * reads.len() as f64 / READ_RATE / cores)];
    if job.through >= Stage::Pca {
        let a_row = hvg_nnz as f64 / n.max(1) as f64;
        seconds.push((
            "principal components".into(),
            n as f64 * a_row * a_row.max(1.0) * 4.0 / GRAM_RATE / cores + 2.0e-10 * (hvg * hvg * comps) as f64,
        ));
    }
    if job.through >= Stage::Neighbors {
        let a_cell = if of_pairs { (n * n_pcs) as f64 * metric(r).map_or(0.0, a_pair) } else { NEIGHBORS };
        seconds.push(("neighbors".into(), n as f64 * a_cell / cores));
    }
    if job.through >= Stage::Umap {
        seconds.push(("umap".into(), n as f64 * LAYOUT / cores));
    }
    if job.through >= Stage::Leiden {
        seconds.push(("leiden".into(), n as f64 * CLUSTERS / cores.min(4.0)));
    }
    Plan {
        format: size.format.to_string(),
        shape: [n, p],
        nnz,
        bytes_decoded: nnz * 8,
        reads,
        memory,
        peak_bytes,
        stage_bytes,
        spill_bytes: staged.saturating_sub(stage_bytes),
        aside,
        beside,
        aside_bytes: if aside { x_pca + 8 * n * n_pcs } else { 0 },
        ceiling_bytes: job.memory,
        seconds,
        threads: job.threads,
    }
}

/// Bytes of a thread's lists that are read from a file: pages that it keeps, those of one more task, and a part that is cut.
const LISTS_IN_FLIGHT: u64 = 160 << 20;

/// Bytes that the graph takes, beside the components.
struct Graph {
    /// While neighbours are searched, with all rows at hand.
    search: u64,
    /// At the worst moment after that.
    rest: u64,
    /// While cells are laid out and clustered at the same time.
    beside: u64,
    /// Of what is written.
    result: u64,
    /// At the worst moment where workers make weights, layout and clusters: neighbours are put in order.
    handed: u64,
}

impl Graph {
    fn of(n: u64, r: &Recipe, n_pcs: u64, through: Stage, threads: u64, on_gpu: bool) -> Self {
        let k = r.neighbors.n_neighbors as u64 - 1;
        // An edge that only one end has counts at both: about 1.7 k a cell in cells' graphs, 2 k at most.
        let nnz = 2 * n * k;
        let (found, graph) = (8 * n * k, 8 * nnz + 8 * n);
        // Rows in order; neighbours, before and after the repair, and reversed; order, lists and searched lists.
        let search = 4 * n * n_pcs + found + 4 * n * k + 4 * n * k.min(24) + 72 * n;
        // Directed weights twice (as they are and turned), and the joined rows before they are put together.
        let joining = found + 12 * n * k + 8 * nnz + threads * fuzzy::bytes_in_flight(n as usize, k as usize) as u64;
        let together = found + graph + 8 * nnz;
        let layout = if through >= Stage::Umap { found + graph + layout_bytes(n, graph, r, on_gpu) } else { 0 };
        let clusters = if through >= Stage::Leiden { found + graph + clusters_bytes(n, graph) } else { 0 };
        let reordered = found + 2 * graph;
        // The order, and the first components of each cell.
        let always = 40 * n;
        let rest = [joining, together, layout, clusters, reordered].into_iter().max().unwrap_or(0) + always;
        let beside = (layout + clusters).saturating_sub(found + graph) + always;
        Graph { search, rest, beside, result: found + graph, handed: 2 * found + graph + always }
    }
}

/// Bytes of UMAP's layout of a graph of so many bytes, beside the graph.
fn layout_bytes(n: u64, graph: u64, r: &Recipe, on_gpu: bool) -> u64 {
    let epochs = graph + n * 4 * (8 + 3 * r.umap.n_components as u64);
    // A start from eigenvectors: three blocks of eight columns, and smaller graphs that hold less than half as much together.
    let spectral = if r.umap.init_pos == "spectral" { graph / 2 + 110 * n } else { 0 };
    // While a GPU makes the start, the CPU gets ready for the epochs.
    if on_gpu { epochs + spectral } else { epochs.max(spectral) }
}

/// Bytes of Leiden's clusters, beside the graph.
fn clusters_bytes(n: u64, graph: u64) -> u64 {
    graph / 2 + 60 * n
}

/// Threads of a worker that join neighbours, at most: each holds rows.
pub(crate) const JOINERS: usize = 8;

/// Bytes that a worker needs for the weights, the layout or the clusters of `n` cells, with a GPU's driver where it may use one.
pub(crate) fn elsewhere_bytes(n: u64, r: &Recipe, on_gpu: bool) -> u64 {
    let driver = if on_gpu { HOST_BYTES[0] } else { 0 };
    PROGRAM + driver + Graph::of(n, r, 0, Stage::Leiden, JOINERS as u64, on_gpu).rest
}

impl Plan {
    /// Refuses a plan that doesn't fit.
    pub fn check(&self, ceiling: u64) -> Result<()> {
        if self.peak_bytes <= ceiling {
            return Ok(());
        }
        let largest = self.memory.iter().max_by_key(|(_, b)| *b).map_or("the run", |(name, _)| name.as_str());
        Err(Error::from(ErrorKind::Budget { what: format!("this run (most of it for: {largest})"), needs: self.peak_bytes, ceiling }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Choice;

    fn size(n_obs: u64) -> Size {
        let shape = Shape { n_obs, n_vars: 28_000 };
        Size {
            format: "",
            shape,
            nnz: 2000 * n_obs,
            obs_columns: 0,
            overhead_bytes: 64 << 20,
            densest_task: 2000 * TASK_ROWS,
            annotation_bytes: 0,
        }
    }

    fn job(output: &str, through: Stage, memory: u64) -> Job {
        Job {
            input: "in.zarr".into(),
            output: output.into(),
            format: None,
            overwrite: false,
            in_place: false,
            with_x: None,
            recipe: Recipe::default(),
            through,
            threads: 2,
            memory,
            genome: None,
            spill_dir: None,
            resume: false,
            device: Choice::default(),
        }
    }

    #[test]
    fn scores_that_go_to_the_output_take_no_memory_of_the_client() {
        let n = 100_000_000;
        let of = |whose: Whose, through: Stage| estimate_of(whose, &size(n), &job("out.zarr", through, 1 << 40)).peak_bytes;
        let client = |chunks: bool, through: Stage| of(Whose::Client { chunks, graph: false }, through);
        assert_eq!(of(Whose::Alone, Stage::Pca), client(false, Stage::Pca));
        // 100 components of f32, beside 72 bytes of obs.
        assert!(client(false, Stage::Pca) > 472 * n && client(true, Stage::Pca) < 80 * n);
        // The neighbours look at 50 of them.
        assert!(client(true, Stage::Leiden) + 200 * n <= client(false, Stage::Leiden));
        // A worker has nothing of all cells but which of them stay.
        assert!(of(Whose::Worker, Stage::Pca) < 2 * n + (1 << 30));
    }
}

//! Groups of vertices become the vertices of a smaller graph, on a GPU: what `leiden::aggregate::fold` does.

use std::sync::Arc;

use cellmill_cuda::{Buffer, Device, Grid, Plain, Source, Stream};
use cellmill_matrix::Result;

/// Threads of a block, and the warps that they are.
const THREADS: u32 = 128;
const WARPS: usize = 4;

macro_rules! source {
    ($weight:literal, $sum:literal) => {
        Source {
            name: concat!("contract_", $weight, "_", $sum),
            parts: &[concat!("#define WEIGHT ", $weight, "\n#define SUM ", $sum, "\n"), include_str!("contract.cu")],
            kernels: &["measure", "add", "squeeze", "place"],
        }
    };
}

/// The kernels: cells to aggregates, aggregates to aggregates, and cells to what is again held like cells.
pub const SOURCES: [Source; 3] = [source!("float", "double"), source!("double", "double"), source!("float", "float")];

/// A graph in device memory.
pub(crate) struct Graph<'a, W: Plain> {
    /// Row starts: `(n + 1,)`.
    pub indptr: &'a Buffer<u64>,
    /// Neighbours: `(nnz,)`.
    pub indices: &'a Buffer<u32>,
    /// Weights: `(nnz,)`.
    pub weights: &'a Buffer<W>,
    /// Edges below it do not count.
    pub least: W,
    /// Whole numbers that make a weight of 1: sums are exact if all weights are.
    pub scale: f64,
}

/// A smaller graph, in device memory.
pub(crate) struct Contracted<S: Plain> {
    /// Row starts, on the host too: `(n_groups + 1,)`.
    pub starts: Vec<u64>,
    pub indptr: Buffer<u64>,
    /// Groups, ascending in a row, never the group itself.
    pub indices: Buffer<u32>,
    pub weights: Buffer<S>,
}

/// The graph of `groups` (numbers `< n_groups`, one a vertex); `None` if the device has no room. Weights of type `W` become sums of type
/// `S`: f32 to f64, f64 to f64 or f32 to f32.
pub(crate) fn contract<W: Plain + Into<f64>, S: Plain>(
    stream: &Stream,
    graph: &Graph<'_, W>,
    groups: &[u32],
    n_groups: usize,
) -> Result<Option<Contracted<S>>> {
    let device: &Arc<Device> = stream.device();
    let (n, nnz) = (groups.len(), graph.indices.len());
    // Half as many slots again as there are edges, and the smaller graph.
    let bytes = 18 * nnz + (4 + size_of::<S>()) * nnz + 8 * n + 16 * n_groups;
    if !device.has_room(bytes as u64, "grouping cells")? {
        return Ok(None);
    }
    let program = device.program(match (size_of::<W>(), size_of::<S>()) {
        (4, 8) => &SOURCES[0],
        (8, _) => &SOURCES[1],
        _ => &SOURCES[2],
    })?;
    let of = stream.upload(groups)?;
    let mut edges = stream.zeros::<u32>(n_groups)?;
    let args = [graph.indptr.into(), (&of).into(), (n as u32).into(), (&mut edges).into()];
    // SAFETY: the arguments of `measure`: groups are below n_groups.
    unsafe { stream.launch(&program.kernel("measure")?, Grid::over(n, 256), &args)? };
    let slots = ends(stream.download(&edges, n_groups)?.into_iter().map(|edges| u64::from(edges) * 3 / 2));
    let n_slots = slots[n_groups] as usize;
    let starts = stream.upload(&slots)?;
    let (mut keys, mut sums) = (stream.zeros::<u32>(n_slots)?, stream.zeros::<u64>(n_slots)?);
    let least: cellmill_cuda::Arg = if size_of::<W>() == 4 { (graph.least.into() as f32).into() } else { graph.least.into().into() };
    let args = [
        graph.indptr.into(),
        graph.indices.into(),
        graph.weights.into(),
        least,
        graph.scale.into(),
        (n as u32).into(),
        (&of).into(),
        (&starts).into(),
        (&mut keys).into(),
        (&mut sums).into(),
    ];
    // SAFETY: the arguments of `add`: each group has a slot for each of its edges and more.
    unsafe { stream.launch(&program.kernel("add")?, Grid::new(n.div_ceil(WARPS), THREADS), &args)? };
    let mut lengths = edges;
    let args = [(&starts).into(), (n_groups as u32).into(), (&mut keys).into(), (&mut sums).into(), (&mut lengths).into()];
    let grid = Grid::new(n_groups.div_ceil(WARPS), THREADS);
    // SAFETY: the arguments of `squeeze`: slots as above.
    unsafe { stream.launch(&program.kernel("squeeze")?, grid, &args)? };
    let rows = ends(stream.download(&lengths, n_groups)?.into_iter().map(u64::from));
    let indptr = stream.upload(&rows)?;
    let len = rows[n_groups] as usize;
    let (mut indices, mut weights) = (stream.alloc::<u32>(len)?, stream.alloc::<S>(len)?);
    let args = [
        (&starts).into(),
        (n_groups as u32).into(),
        (&keys).into(),
        (&sums).into(),
        graph.scale.into(),
        (&indptr).into(),
        (&mut indices).into(),
        (&mut weights).into(),
    ];
    // SAFETY: the arguments of `place`: rows have the lengths that `squeeze` has counted.
    unsafe { stream.launch(&program.kernel("place")?, grid, &args)? };
    stream.synchronize()?;
    Ok(Some(Contracted { starts: rows, indptr, indices, weights }))
}

/// Ends of stretches of these lengths, behind a 0.
pub(crate) fn ends(lengths: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut end = 0;
    std::iter::once(0).chain(lengths.map(|length| (end += length, end).1)).collect()
}

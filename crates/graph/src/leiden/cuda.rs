//! Local moving and refinement of a large level on a GPU.
//!
//! Vertices go slice by slice: those of a slice plan against a frozen state, and of neighbours that both want to change the one with the
//! smaller number does, so that the sums around every vertex that changes are exact (`leiden.cu`; `twin.rs` is the same in plain words).
//! Sums of weights are whole numbers, whose order does not matter: the same graph, options and seed give the same clusters in every run.
//! They are others than the CPU's, which commits its plans one by one; modularity is within 0.002 of it.

use std::sync::Arc;

use cellmill_cuda::{Arg, Buffer, Device, Grid, Program, Source, Stream};
use cellmill_matrix::Result;

use super::network::{Network, Weight};
use super::random::mix;
use super::visit::Pace;

macro_rules! source {
    ($weight:literal) => {
        Source {
            name: concat!("leiden_", $weight),
            parts: &[concat!("#define WEIGHT ", $weight, "\n"), include_str!("leiden.cu")],
            kernels: &["sums", "want", "go", "part", "choose", "join"],
        }
    };
}

/// The kernels, for the weights of cells and of aggregates.
pub const SOURCES: [Source; 2] = [source!("float"), source!("double")];

/// Smaller levels are left to the CPU, which visits them more finely.
const LEAST: usize = 1 << 15;
/// Rows with more neighbours are too long for a warp.
const LONGEST: u64 = 1 << 12;
/// Slices of a round, as a power of two.
const SLICES: u32 = 6;
/// Most rounds of a phase.
const ROUNDS: usize = 64;
/// A round that changes a smaller share of the vertices than one in this many is the last.
const FEW: u64 = 1 << 14;
/// Vertices of a block of threads, a warp each.
const WARPS: usize = 4;
/// Bits of the sum of all weights.
const BITS: i32 = 60;
/// Device memory of a vertex while a phase runs, in bytes.
const A_VERTEX: usize = 96;

/// Whole numbers for weights: how many make a weight of 1, so that all of them together fit in 60 bits.
pub(super) fn scale(total: f64) -> f64 {
    2f64.powi(BITS - total.log2().ceil() as i32)
}

/// Vertices by slice, a hash of (key, vertex), and where slices begin.
pub(super) fn deal(n: usize, key: u64) -> (Vec<u32>, Vec<usize>) {
    let of = |v: usize| (mix(key, v as u64) >> (64 - SLICES)) as usize;
    let mut starts = vec![0; (1 << SLICES) + 1];
    (0..n).for_each(|v| starts[of(v) + 1] += 1);
    (0..1 << SLICES).for_each(|s| starts[s + 1] += starts[s]);
    let (mut next, mut vertices) = (starts.clone(), vec![0; n]);
    for v in 0..n {
        let at = &mut next[of(v)];
        vertices[*at] = v as u32;
        *at += 1;
    }
    (vertices, starts)
}

/// Whether a round with so many changes was the last.
pub(super) fn settled(changes: u64, n: usize, enough: f64) -> bool {
    (changes as f64) < enough * n as f64 || changes <= n as u64 / FEW
}

/// A GPU that does the heavy phases, and the cells' graph on it.
pub(crate) struct Gpu {
    device: Arc<Device>,
    cells: DeviceNetwork<f32>,
}

impl Gpu {
    /// `None` if the cells are better left to the CPU.
    pub fn new(device: &Arc<Device>, cells: &Network<'_, f32>) -> Result<Option<Self>> {
        Ok(DeviceNetwork::new(device, cells)?.map(|cells| Gpu { device: device.clone(), cells }))
    }

    /// The cells' graph.
    pub fn cells(&self) -> &DeviceNetwork<f32> {
        &self.cells
    }

    /// A later level, if it is one for the GPU.
    pub fn level(&self, network: &Network<'_, f64>) -> Result<Option<DeviceNetwork<f64>>> {
        DeviceNetwork::new(&self.device, network)
    }
}

/// A level's graph in device memory.
pub(crate) struct DeviceNetwork<W: Weight> {
    program: Arc<Program>,
    device: Arc<Device>,
    n: usize,
    total: f64,
    scale: f64,
    indptr: Buffer<u64>,
    indices: Buffer<u32>,
    weights: Buffer<W>,
    strengths: Buffer<i64>,
}

impl<W: Weight> DeviceNetwork<W> {
    /// Copies a level; `None` if it is too small, or not fit for the kernels, or the device has no room.
    pub fn new(device: &Arc<Device>, network: &Network<'_, W>) -> Result<Option<Self>> {
        let n = network.n();
        let fit = n >= LEAST && network.total > 0.0 && network.indptr.windows(2).all(|w| w[1] - w[0] <= LONGEST);
        let bytes = network.indices.len() * (4 + size_of::<W>()) + n * A_VERTEX;
        if !fit || !device.has_room(bytes as u64, "finding clusters")? {
            return Ok(None);
        }
        let scale = scale(network.total);
        let strengths: Vec<i64> = network.strength.iter().map(|s| (s * scale).round() as i64).collect();
        let stream = device.stream()?;
        Ok(Some(DeviceNetwork {
            program: device.program(&SOURCES[size_of::<W>() / 8])?,
            device: device.clone(),
            n,
            total: network.total,
            scale,
            indptr: stream.upload(network.indptr)?,
            indices: stream.upload(network.indices)?,
            weights: stream.upload(network.weights)?,
            strengths: stream.upload(&strengths)?,
        }))
    }

    /// [`super::local_move::local_move`].
    pub(super) fn local_move(&self, membership: &mut [u32], resolution: f64, pace: &Pace<'_>) -> Result<()> {
        let stream = &self.device.stream()?;
        let (want, go) = (self.program.kernel("want")?, self.program.kernel("go")?);
        let mut members = stream.upload(membership)?;
        let (mut totals, mut sizes) = self.sums(stream, &members)?;
        let mut state = self.state(stream, pace.key)?;
        stream.synchronize()?;
        let mut pending = stream.upload(&vec![1u8; self.n])?;
        for _ in 0..ROUNDS {
            (pace.tick)()?;
            let changes = state.round(stream, |state, first, count, stamp| {
                let graph = self.graph();
                let slice: [Arg; 3] = [(&state.slices).into(), first.into(), count.into()];
                let grid = Grid::new((count as usize).div_ceil(WARPS), 32 * WARPS as u32);
                let args = [
                    &graph[..],
                    &slice,
                    &[
                        (&self.strengths).into(),
                        (&members).into(),
                        (&totals).into(),
                        (&sizes).into(),
                        self.null(resolution),
                        stamp.into(),
                        (&mut pending).into(),
                        (&mut state.to).into(),
                        (&mut state.stamps).into(),
                    ],
                ]
                .concat();
                // SAFETY: the arguments of `want`: all vertices, neighbours and communities are below n, for which each buffer has a place.
                unsafe { stream.launch(&want, grid, &args)? };
                let args = [
                    &graph[..2],
                    &slice,
                    &[
                        (&self.strengths).into(),
                        (&mut members).into(),
                        (&mut totals).into(),
                        (&mut sizes).into(),
                        stamp.into(),
                        (&mut pending).into(),
                        (&state.to).into(),
                        (&state.stamps).into(),
                        (&mut state.changes).into(),
                    ],
                ]
                .concat();
                // SAFETY: the arguments of `go`, likewise; targets were planned by `want`.
                unsafe { stream.launch(&go, grid, &args) }
            })?;
            if settled(changes, self.n, pace.enough) {
                break;
            }
        }
        membership.copy_from_slice(&stream.download(&members, self.n)?);
        Ok(())
    }

    /// [`super::refine::refine`] without a temperature.
    pub(super) fn refine(&self, membership: &[u32], resolution: f64, pace: &Pace<'_>) -> Result<Vec<(u32, u32)>> {
        let (stream, n) = (&self.device.stream()?, self.n);
        let (part, choose, join) = (self.program.kernel("part")?, self.program.kernel("choose")?, self.program.kernel("join")?);
        let members = stream.upload(membership)?;
        let (community_totals, _) = self.sums(stream, &members)?;
        let mut state = self.state(stream, pace.key)?;
        let mut pending = stream.alloc::<u8>(n)?;
        let (mut inside, mut outside, mut totals) = (stream.alloc::<i64>(n)?, stream.alloc::<i64>(n)?, stream.alloc::<i64>(n)?);
        let (mut cluster, mut sizes) = (stream.alloc::<u32>(n)?, stream.alloc::<u32>(n)?);
        let mut there = stream.alloc::<i64>(n)?;
        let mut claims = stream.upload(&vec![u64::MAX; n])?;
        let graph = self.graph();
        let args = [
            &graph[..],
            &[
                (n as u32).into(),
                (&self.strengths).into(),
                (&members).into(),
                (&community_totals).into(),
                self.null(resolution),
                (&mut pending).into(),
                (&mut inside).into(),
                (&mut outside).into(),
                (&mut cluster).into(),
                (&mut sizes).into(),
                (&mut totals).into(),
            ],
        ]
        .concat();
        // SAFETY: the arguments of `part`: all vertices, neighbours and communities are below n, for which each buffer has a place.
        unsafe { stream.launch(&part, Grid::new(n.div_ceil(WARPS), 32 * WARPS as u32), &args)? };
        for _ in 0..ROUNDS {
            (pace.tick)()?;
            let changes = state.round(stream, |state, first, count, stamp| {
                let slice: [Arg; 3] = [(&state.slices).into(), first.into(), count.into()];
                let grid = Grid::new((count as usize).div_ceil(WARPS), 32 * WARPS as u32);
                let args = [
                    &graph[..],
                    &slice,
                    &[
                        (&self.strengths).into(),
                        (&members).into(),
                        (&community_totals).into(),
                        self.null(resolution),
                        (&cluster).into(),
                        (&sizes).into(),
                        (&totals).into(),
                        (&outside).into(),
                        stamp.into(),
                        (&mut pending).into(),
                        (&mut state.to).into(),
                        (&mut there).into(),
                        (&mut state.stamps).into(),
                        (&mut claims).into(),
                    ],
                ]
                .concat();
                // SAFETY: the arguments of `choose`, likewise; clusters are called after vertices.
                unsafe { stream.launch(&choose, grid, &args)? };
                let args = [
                    &graph[..2],
                    &slice,
                    &[
                        (&self.strengths).into(),
                        (&mut cluster).into(),
                        (&mut sizes).into(),
                        (&mut totals).into(),
                        (&inside).into(),
                        (&mut outside).into(),
                        stamp.into(),
                        (&mut pending).into(),
                        (&state.to).into(),
                        (&there).into(),
                        (&state.stamps).into(),
                        (&claims).into(),
                        (&mut state.changes).into(),
                    ],
                ]
                .concat();
                // SAFETY: the arguments of `join`, likewise; targets were chosen by `choose`.
                unsafe { stream.launch(&join, grid, &args) }
            })?;
            if settled(changes, n, 0.0) {
                break;
            }
        }
        Ok(membership.iter().copied().zip(stream.download(&cluster, n)?).collect())
    }

    /// The first arguments of the kernels.
    fn graph(&self) -> [Arg; 4] {
        [(&self.indptr).into(), (&self.indices).into(), (&self.weights).into(), self.scale.into()]
    }

    /// γ / 2m for products of whole numbers.
    fn null(&self, resolution: f64) -> Arg {
        (resolution / (self.total * self.scale)).into()
    }

    /// Strength and vertices of each community, `(n,)` each.
    fn sums(&self, stream: &Stream, members: &Buffer<u32>) -> Result<(Buffer<i64>, Buffer<u32>)> {
        let (mut totals, mut sizes) = (stream.zeros::<i64>(self.n)?, stream.zeros::<u32>(self.n)?);
        let args = [members.into(), (&self.strengths).into(), (self.n as u32).into(), (&mut totals).into(), (&mut sizes).into()];
        // SAFETY: the arguments of `sums`: communities are below n.
        unsafe { stream.launch(&self.program.kernel("sums")?, Grid::over(self.n, 256), &args)? };
        Ok((totals, sizes))
    }

    fn state(&self, stream: &Stream, key: u64) -> Result<State> {
        let (slices, starts) = deal(self.n, key);
        Ok(State {
            slices: stream.upload(&slices)?,
            starts,
            to: stream.alloc(self.n)?,
            stamps: stream.zeros(self.n)?,
            changes: stream.zeros(1)?,
            stamp: 0,
        })
    }
}

/// What both phases need.
struct State {
    /// Vertices by slice.
    slices: Buffer<u32>,
    /// Where slices begin, and `n`.
    starts: Vec<usize>,
    /// Where each vertex wants to go.
    to: Buffer<u32>,
    /// In which slice, counted from the start, each vertex last wanted to change.
    stamps: Buffer<u32>,
    changes: Buffer<u64>,
    stamp: u32,
}

impl State {
    /// Queues all slices, each by `slice(state, first, count, stamp)`, and says how many vertices changed.
    fn round(&mut self, stream: &Stream, mut slice: impl FnMut(&mut Self, u32, u32, u32) -> Result<()>) -> Result<u64> {
        stream.clear(&mut self.changes)?;
        for s in 0..1 << SLICES {
            let (first, end) = (self.starts[s], self.starts[s + 1]);
            self.stamp += 1;
            slice(self, first as u32, (end - first) as u32, self.stamp)?;
        }
        Ok(stream.download(&self.changes, 1)?[0])
    }
}

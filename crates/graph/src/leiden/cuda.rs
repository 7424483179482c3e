//! Local moving and refinement of a large level on a GPU.
//!
//! Vertices go slice by slice: those of a slice plan against a frozen state, and of neighbours that both want to change the one with the
//! smaller number does, so that the sums around every vertex that changes are exact (`leiden.cu`; `twin.rs` is the same in plain words).
//! Sums of weights are whole numbers, whose order does not matter: the same graph, options and seed give the same clusters in every run.
//! They are others than the CPU's, which commits its plans one by one; modularity is within 0.002 of it.

use std::sync::Arc;

use cellmill_cuda::{Arg, Buffer, Device, Grid, Program, Source, Stream};
use cellmill_matrix::Result;

use super::network::{Coarse, Network, Weight};
use super::random::mix;
use super::visit::Pace;
use crate::contract::{Contracted, Graph, contract};

macro_rules! source {
    ($weight:literal) => {
        Source {
            name: concat!("leiden_", $weight),
            parts: &[concat!("#define WEIGHT ", $weight, "\n"), include_str!("leiden.cu")],
            kernels: &["sums", "want", "want_long", "go", "part", "choose", "choose_long", "join"],
        }
    };
}

/// The kernels, for the weights of cells and of aggregates.
pub const SOURCES: [Source; 2] = [source!("float"), source!("double")];

/// Smaller levels are left to the CPU, which visits them more finely.
const LEAST: usize = 1 << 12;
/// Rows with more neighbours are given a team of warps.
const LONG: u64 = 1 << 7;
/// Rows with more are too long for that.
const LONGEST: u64 = 1 << 13;
/// Slices of a round, as a power of two.
const SLICES: u32 = 6;
/// Most rounds of a phase.
const ROUNDS: usize = 64;
/// A round that changes a smaller share of the vertices than one in this many is the last.
const FEW: u64 = 1 << 14;
/// Vertices of a block of threads, a warp each.
const WARPS: usize = 4;
/// Warps of a team.
const TEAM: u32 = 8;
/// Bits of the sum of all weights.
const BITS: i32 = 60;
/// Device memory of a vertex while a phase runs, in bytes.
const A_VERTEX: usize = 96;

/// Whole numbers for weights: how many make a weight of 1, so that all of them together fit in 60 bits.
pub(super) fn scale(total: f64) -> f64 {
    2f64.powi(BITS - total.log2().ceil() as i32)
}

/// Vertices by slice, a hash of (key, vertex), those with long rows last in each; where each slice's short and long rows begin.
pub(super) fn deal(long: &[bool], key: u64) -> (Vec<u32>, Vec<usize>) {
    let of = |v: usize| 2 * (mix(key, v as u64) >> (64 - SLICES)) as usize + usize::from(long[v]);
    let mut starts = vec![0; (2 << SLICES) + 1];
    (0..long.len()).for_each(|v| starts[of(v) + 1] += 1);
    (0..2 << SLICES).for_each(|s| starts[s + 1] += starts[s]);
    let (mut next, mut vertices) = (starts.clone(), vec![0; long.len()]);
    for v in 0..long.len() {
        let at = &mut next[of(v)];
        vertices[*at] = v as u32;
        *at += 1;
    }
    (vertices, starts)
}

/// Which rows are long.
fn long(starts: &[u64]) -> Vec<bool> {
    starts.windows(2).map(|w| w[1] - w[0] > LONG).collect()
}

/// Whether a round with so many changes was the last.
pub(super) fn settled(changes: u64, n: usize, enough: f64) -> bool {
    (changes as f64) < enough * n as f64 || changes <= n as u64 / FEW
}

/// A level's graph in device memory.
pub(crate) struct DeviceNetwork<W: Weight> {
    program: Arc<Program>,
    device: Arc<Device>,
    n: usize,
    total: f64,
    scale: f64,
    /// Which rows are long: `(n,)`.
    long: Vec<bool>,
    indptr: Buffer<u64>,
    indices: Buffer<u32>,
    weights: Buffer<W>,
    strengths: Buffer<i64>,
}

/// Whether a level of `n` vertices with these row starts is one for the kernels.
fn fit(n: usize, starts: &[u64], total: f64) -> bool {
    n >= LEAST && total > 0.0 && starts.windows(2).all(|w| w[1] - w[0] <= LONGEST)
}

/// Strengths in whole numbers.
fn whole(strength: &[f64], scale: f64) -> Vec<i64> {
    strength.iter().map(|s| (s * scale).round() as i64).collect()
}

impl<W: Weight> DeviceNetwork<W> {
    /// Copies a level; `None` if it is too small, or not fit for the kernels, or the device has no room.
    pub fn new(device: &Arc<Device>, network: &Network<'_, W>) -> Result<Option<Self>> {
        let n = network.n();
        let bytes = network.indices.len() * (4 + size_of::<W>()) + n * A_VERTEX;
        if !fit(n, network.indptr, network.total) || !device.has_room(bytes as u64, "finding clusters")? {
            return Ok(None);
        }
        let scale = scale(network.total);
        let stream = device.stream()?;
        Ok(Some(DeviceNetwork {
            program: device.program(&SOURCES[size_of::<W>() / 8])?,
            device: device.clone(),
            n,
            total: network.total,
            scale,
            long: long(network.indptr),
            indptr: stream.upload(network.indptr)?,
            indices: stream.upload(network.indices)?,
            weights: stream.upload(network.weights)?,
            strengths: stream.upload(&whole(network.strength, scale))?,
        }))
    }

    /// [`super::aggregate::aggregate`], with sums of whole numbers: the next level, on the device if it is one for the kernels, and then
    /// without edges on the host. `None` if the device has no room.
    pub(super) fn aggregate(
        &self,
        groups: &[u32],
        n_groups: usize,
        strength: &[f64],
    ) -> Result<Option<(Coarse, Option<DeviceNetwork<f64>>)>> {
        let stream = self.device.stream()?;
        let (indptr, indices, weights) = (&self.indptr, &self.indices, &self.weights);
        let graph = Graph { indptr, indices, weights, least: W::default(), scale: self.scale };
        let Some(Contracted { starts, indptr, indices, weights }) = contract::<W, f64>(&stream, &graph, groups, n_groups)? else {
            return Ok(None);
        };
        let mut coarse = Coarse { strength: vec![0.0; n_groups], total: self.total, ..Coarse::default() };
        groups.iter().zip(strength).for_each(|(&group, strength)| coarse.strength[group as usize] += strength);
        if !fit(n_groups, &starts, self.total) {
            coarse.indices = stream.download(&indices, indices.len())?;
            coarse.weights = stream.download(&weights, weights.len())?;
            coarse.indptr = starts;
            return Ok(Some((coarse, None)));
        }
        let next = DeviceNetwork {
            program: self.device.program(&SOURCES[1])?,
            device: self.device.clone(),
            n: n_groups,
            total: self.total,
            scale: self.scale,
            long: long(&starts),
            indptr,
            indices,
            weights,
            strengths: stream.upload(&whole(&coarse.strength, self.scale))?,
        };
        Ok(Some((coarse, Some(next))))
    }

    /// Fetches the edges.
    pub(super) fn edges(&self) -> Result<(Vec<u64>, Vec<u32>, Vec<W>)> {
        let stream = self.device.stream()?;
        let edges = self.indices.len();
        Ok((stream.download(&self.indptr, self.n + 1)?, stream.download(&self.indices, edges)?, stream.download(&self.weights, edges)?))
    }

    /// [`super::local_move::local_move`].
    pub(super) fn local_move(&self, membership: &mut [u32], resolution: f64, pace: &Pace<'_>) -> Result<()> {
        let stream = &self.device.stream()?;
        let (want, go) = ([self.program.kernel("want")?, self.program.kernel("want_long")?], self.program.kernel("go")?);
        let mut members = stream.upload(membership)?;
        let (mut totals, mut sizes) = self.sums(stream, &members)?;
        let mut state = self.state(stream, pace.key)?;
        stream.synchronize()?;
        let mut pending = stream.upload(&vec![1u8; self.n])?;
        for _ in 0..ROUNDS {
            (pace.tick)()?;
            let changes = state.round(stream, |state, slice, stamp| {
                let graph = self.graph();
                let vertices: Arg = (&state.slices).into();
                let rest = [
                    (&self.strengths).into(),
                    (&members).into(),
                    (&totals).into(),
                    (&sizes).into(),
                    self.null(resolution),
                    stamp.into(),
                    (&mut pending).into(),
                    (&mut state.to).into(),
                    (&mut state.stamps).into(),
                ];
                for (kernel, (rows, grid)) in want.iter().zip(slice.by_length()) {
                    let args = [&graph[..], &[vertices], &rows, &rest].concat();
                    // SAFETY: the arguments of `want`: all vertices, neighbours and communities are below n, for which each buffer has a place.
                    unsafe { stream.launch(kernel, grid, &args)? };
                }
                let (rows, grid) = slice.all();
                let args = [
                    &graph[..2],
                    &[vertices],
                    &rows,
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
        let (part, join) = (self.program.kernel("part")?, self.program.kernel("join")?);
        let choose = [self.program.kernel("choose")?, self.program.kernel("choose_long")?];
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
        unsafe { stream.launch(&part, one_by_one(n), &args)? };
        for _ in 0..ROUNDS {
            (pace.tick)()?;
            let changes = state.round(stream, |state, slice, stamp| {
                let vertices: Arg = (&state.slices).into();
                let rest = [
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
                ];
                for (kernel, (rows, grid)) in choose.iter().zip(slice.by_length()) {
                    let args = [&graph[..], &[vertices], &rows, &rest].concat();
                    // SAFETY: the arguments of `choose`, likewise; clusters are called after vertices.
                    unsafe { stream.launch(kernel, grid, &args)? };
                }
                let (rows, grid) = slice.all();
                let args = [
                    &graph[..2],
                    &[vertices],
                    &rows,
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
        let (slices, starts) = deal(&self.long, key);
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
    /// Where their short and their long rows begin, and `n`.
    starts: Vec<usize>,
    /// Where each vertex wants to go.
    to: Buffer<u32>,
    /// In which slice, counted from the start, each vertex last wanted to change.
    stamps: Buffer<u32>,
    changes: Buffer<u64>,
    stamp: u32,
}

/// A slice of a round.
#[derive(Clone, Copy)]
struct Slice {
    /// Where its short rows begin, its long ones, and where it ends.
    starts: [usize; 3],
}

impl Slice {
    /// First vertex and number of vertices of short and of long rows, and the threads for them.
    fn by_length(&self) -> [([Arg; 2], Grid); 2] {
        let [start, long, end] = self.starts;
        [(span(start, long), one_by_one(long - start)), (span(long, end), Grid::new(end - long, 32 * TEAM))]
    }

    /// The same for all of its rows.
    fn all(&self) -> ([Arg; 2], Grid) {
        let [start, _, end] = self.starts;
        (span(start, end), one_by_one(end - start))
    }
}

fn span(start: usize, end: usize) -> [Arg; 2] {
    [(start as u32).into(), ((end - start) as u32).into()]
}

/// A warp for each of `n` vertices.
fn one_by_one(n: usize) -> Grid {
    Grid::new(n.div_ceil(WARPS), 32 * WARPS as u32)
}

impl State {
    /// Queues all slices, each by `queue(state, slice, stamp)`, and says how many vertices changed.
    fn round(&mut self, stream: &Stream, mut queue: impl FnMut(&mut Self, Slice, u32) -> Result<()>) -> Result<u64> {
        stream.clear(&mut self.changes)?;
        for s in 0..1 << SLICES {
            self.stamp += 1;
            let slice = Slice { starts: [self.starts[2 * s], self.starts[2 * s + 1], self.starts[2 * s + 2]] };
            queue(self, slice, self.stamp)?;
        }
        Ok(stream.download(&self.changes, 1)?[0])
    }
}

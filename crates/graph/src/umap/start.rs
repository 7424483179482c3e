//! What a start from eigenvectors asks of a large graph beside products, on a GPU. Tolerance: none, the results are those of
//! `components.rs` and `coarsen.rs`.

use std::sync::Arc;

use cellmill_cuda::{Arg, Buffer, Device, Grid, Program, Source, Stream};
use cellmill_matrix::Result;

use crate::Connectivities;
use crate::contract::{Contracted, Graph, contract};

/// The kernels.
pub(crate) const SOURCE: Source = Source {
    name: "start",
    parts: &[include_str!("random.cu"), include_str!("start.cu")],
    kernels: &["unite", "name", "centre", "cover", "nearest"],
};

/// Smaller graphs stay in the CPU's caches.
pub(super) const ON_GPU: usize = 1 << 17;

/// A graph in device memory.
pub(super) struct DeviceGraph {
    pub stream: Stream,
    pub n: usize,
    /// Edges below it do not count.
    pub least: f32,
    pub indptr: Buffer<u64>,
    pub indices: Buffer<u32>,
    pub weights: Buffer<f32>,
    program: Arc<Program>,
}

impl DeviceGraph {
    /// Copies a graph, whose columns lie below its rows; `None` if it is small, or there is no device, or no room beside `beside` bytes a
    /// cell.
    pub fn new(device: Option<&Arc<Device>>, graph: &Connectivities, least: f32, beside: usize) -> Result<Option<Self>> {
        let n = graph.n();
        let Some(device) = device.filter(|_| n >= ON_GPU) else { return Ok(None) };
        if !device.has_room((8 * graph.indices.len() + n * (8 + beside)) as u64, "the start of the layout")? {
            return Ok(None);
        }
        let stream = device.stream()?;
        Ok(Some(DeviceGraph {
            n,
            least,
            indptr: stream.upload(&graph.indptr)?,
            indices: stream.upload(&graph.indices)?,
            weights: stream.upload(&graph.weights)?,
            program: device.program(&SOURCE)?,
            stream,
        }))
    }

    /// The first cell of each cell's connected part.
    pub fn first_of_part(&self) -> Result<Vec<u32>> {
        let cells: Vec<u32> = (0..self.n as u32).collect();
        let mut parent = self.stream.upload(&cells)?;
        let rest = [(&mut parent).into()];
        // SAFETY: the arguments of `unite`: columns and parents are below n.
        unsafe { self.launch("unite", &[&self.edges()[..], &rest].concat())? };
        // SAFETY: the arguments of `name`, likewise.
        unsafe { self.launch("name", &[(self.n as u32).into(), (&mut parent).into()])? };
        self.stream.download(&parent, self.n)
    }

    /// The centre that each cell joins, a centre itself: see `coarsen.rs`.
    pub fn centres(&self, seed: u64) -> Result<Vec<u32>> {
        let stream = &self.stream;
        let (mut state, mut chosen) = (stream.zeros::<u8>(self.n)?, stream.alloc::<u8>(self.n)?);
        let (mut open, mut to) = (stream.alloc::<u32>(1)?, stream.alloc::<u32>(self.n)?);
        loop {
            stream.clear(&mut open)?;
            let rest = [seed.into(), (&state).into(), (&mut chosen).into()];
            // SAFETY: the arguments of `centre`: columns are below n, for which each buffer has a place.
            unsafe { self.launch("centre", &[&self.edges()[..], &rest].concat())? };
            let rest = [(&chosen).into(), (&mut state).into(), (&mut open).into()];
            // SAFETY: the arguments of `cover`, likewise.
            unsafe { self.launch("cover", &[&self.edges()[..], &rest].concat())? };
            if stream.download(&open, 1)?[0] == 0 {
                break;
            }
        }
        let rest = [(&state).into(), (&mut to).into()];
        // SAFETY: the arguments of `nearest`, likewise.
        unsafe { self.launch("nearest", &[&self.edges()[..], &rest].concat())? };
        stream.download(&to, self.n)
    }

    /// The graph of groups, whose edges weigh what those between two groups weigh together, in multiples of `1 / scale`; `None` if there is
    /// no room.
    pub fn contracted(&self, groups: &[u32], n_groups: usize, scale: f64) -> Result<Option<Connectivities>> {
        let DeviceGraph { stream, indptr, indices, weights, least, .. } = self;
        let graph = Graph { indptr, indices, weights, least: *least, scale };
        let Some(found) = contract::<f32, f32>(stream, &graph, groups, n_groups)? else { return Ok(None) };
        let Contracted { starts, indices, weights, .. } = found;
        let len = indices.len();
        Ok(Some(Connectivities { indptr: starts, indices: stream.download(&indices, len)?, weights: stream.download(&weights, len)? }))
    }

    /// The first arguments of the kernels.
    fn edges(&self) -> [Arg; 5] {
        [(&self.indptr).into(), (&self.indices).into(), (&self.weights).into(), self.least.into(), (self.n as u32).into()]
    }

    /// Queues a kernel with a thread for each cell.
    ///
    /// # Safety
    /// See [`Stream::launch`].
    unsafe fn launch(&self, name: &'static str, args: &[Arg]) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.stream.launch(&self.program.kernel(name)?, Grid::over(self.n, 256), args) }
    }
}

#[cfg(test)]
mod tests {
    use cellmill_cuda::Options;

    use super::super::coarsen::{Coarse, coarsen};
    use super::super::components::components;
    use super::*;

    /// On a machine with a GPU: the parts and the groups of the CPU, of a graph with many parts and of one with weak edges.
    #[test]
    fn parts_and_groups_are_those_of_the_cpu() {
        let Ok(device) = Device::open(&Options::default()) else { return };
        let n = (ON_GPU + 77) as u32;
        let mut rows: Vec<Vec<(u32, f32)>> = vec![Vec::new(); n as usize];
        for i in 0..n {
            for t in 1..=5u32 {
                let j = (i + t * t * 31) % n;
                // Only cells of one part are tied.
                if i % 13 == j % 13 {
                    let weight = 1.0 / (1.0 + (i * 7 + t * 13) as f32 % 97.0);
                    rows[i as usize].push((j, weight));
                    rows[j as usize].push((i, weight));
                }
            }
            let j = (i + 13 * 999) % n;
            if i % 13 == j % 13 {
                rows[i as usize].push((j, 1.0));
                rows[j as usize].push((i, 1.0));
            }
        }
        let mut graph = Connectivities { indptr: vec![0], indices: vec![], weights: vec![] };
        for row in &mut rows {
            row.sort_by_key(|edge| edge.0);
            row.dedup_by_key(|edge| edge.0);
            graph.indices.extend(row.iter().map(|edge| edge.0));
            graph.weights.extend(row.iter().map(|edge| edge.1));
            graph.indptr.push(graph.indices.len() as u64);
        }
        for least in [0.0, 0.1] {
            let there = DeviceGraph::new(Some(&device), &graph, least, 24).unwrap().unwrap();
            let (here, found) = (components(&graph, least, None).unwrap(), components(&graph, least, Some(&there)).unwrap());
            assert!(here.1.len() > 12);
            assert_eq!(found, here);
            let degrees = vec![1.0; n as usize];
            let Coarse { graph: small, groups, .. } = coarsen(&graph, least, &degrees, 3, None).unwrap();
            let other = coarsen(&graph, least, &degrees, 3, Some(&there)).unwrap();
            assert_eq!((other.graph, other.groups), (small, groups));
        }
    }
}

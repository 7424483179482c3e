//! The filter of `spectral.rs` on a GPU. Tolerance: none, the bits are those of [`Walk::filter`].

use cellmill_cuda::{Arg, Buffer, Grid, Kernel, Source};
use cellmill_matrix::Result;

use super::spectral::{WIDTH, Walk, scales, step};
use super::start::DeviceGraph;

/// The kernel.
pub(crate) const SOURCE: Source = Source { name: "filter", parts: &[include_str!("filter.cu")], kernels: &["filter"] };

/// Threads of a block, and the rows that they take.
const THREADS: u32 = 256;
const ROWS: usize = THREADS as usize / WIDTH;

/// A random walk in device memory.
pub(super) struct DeviceWalk<'a> {
    graph: &'a DeviceGraph,
    filter: Kernel,
    degrees: Buffer<f32>,
    stay: Option<Buffer<f32>>,
}

/// Device memory of a cell's part in a walk and in its filter, in bytes.
pub(super) const A_CELL: usize = 8 + 3 * size_of::<[f32; WIDTH]>();

impl<'a> DeviceWalk<'a> {
    /// Copies what a walk has beside its graph, which is that of the device.
    pub fn new(graph: &'a DeviceGraph, walk: &Walk<'_>) -> Result<Self> {
        let stream = &graph.stream;
        Ok(DeviceWalk {
            graph,
            filter: stream.device().program(&SOURCE)?.kernel("filter")?,
            degrees: stream.upload(&walk.degrees)?,
            stay: if walk.stay.is_empty() { None } else { Some(stream.upload(&walk.stay)?) },
        })
    }

    /// [`Walk::filter`] of a basis of WIDTH columns, row-major.
    pub fn filter(&self, cut: f64, degree: usize, basis: &mut [f32]) -> Result<()> {
        let DeviceGraph { stream, n, least, indptr, indices, weights, .. } = self.graph;
        let mut x = stream.upload(basis)?;
        let mut y = stream.zeros::<f32>(x.len())?;
        let mut spare = stream.alloc::<f32>(x.len())?;
        let (centre, _) = scales(cut);
        for k in 0..degree {
            let (factor, keep) = step(cut, k);
            let args: [Arg; 13] = [
                indptr.into(),
                indices.into(),
                weights.into(),
                (*least).into(),
                (&self.degrees).into(),
                self.stay.as_ref().into(),
                (*n as u32).into(),
                centre.into(),
                factor.into(),
                keep.into(),
                (&x).into(),
                (&y).into(),
                (&mut spare).into(),
            ];
            // SAFETY: the arguments of `filter`; the graph is (n, n), and x, y and spare have a row of WIDTH for each of its cells.
            unsafe { stream.launch(&self.filter, Grid::new(n.div_ceil(ROWS), THREADS), &args)? };
            // (x, y) = (T_{k+1}, T_k)
            std::mem::swap(&mut x, &mut y);
            std::mem::swap(&mut x, &mut spare);
        }
        basis.copy_from_slice(&stream.download(&x, x.len())?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cellmill_cuda::{Device, Options};

    use super::*;
    use crate::Connectivities;
    use crate::umap::random::{self, Use};
    use crate::umap::start::ON_GPU;

    /// On a machine with a GPU: the bits of the CPU, with and without steps that stay.
    #[test]
    fn the_bits_are_those_of_the_cpu() {
        let Ok(device) = Device::open(&Options::default()) else { return };
        let n = (ON_GPU + 5) as u32;
        let mut graph = Connectivities { indptr: vec![0], indices: vec![], weights: vec![] };
        for i in 0..n {
            for t in 1..=1 + i % 40 {
                graph.indices.push((i + t * t) % n);
                // A row's first edge counts: its degree is above 0.
                graph.weights.push(if t == 1 { 1.0 } else { 1.0 / (1.0 + (i * 7 + t * 13) as f32 % 97.0) });
            }
            graph.indptr.push(graph.indices.len() as u64);
        }
        let start: Vec<[f32; WIDTH]> =
            (0..u64::from(n)).map(|i| std::array::from_fn(|c| random::normal(random::bits(1, Use::Start, i, c as u64)) as f32)).collect();
        let degrees = vec![25.5; n as usize];
        for walk in [Walk::new(&graph, 0.02), Walk::of(&graph, 0.0, degrees)] {
            let (mut x, mut y, mut spare) = (start.clone(), vec![[0.0; WIDTH]; n as usize], vec![[0.0; WIDTH]; n as usize]);
            walk.filter(0.93, 17, &mut x, &mut y, &mut spare);
            let mut found = start.clone();
            let there = DeviceGraph::new(Some(&device), &graph, walk.least, A_CELL).unwrap().unwrap();
            DeviceWalk::new(&there, &walk).unwrap().filter(0.93, 17, found.as_flattened_mut()).unwrap();
            let bits = |rows: &[[f32; WIDTH]]| rows.as_flattened().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&x));
        }
    }
}

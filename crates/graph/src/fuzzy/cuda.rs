//! The fuzzy set on a GPU. Tolerance: none, the bits are those of `smooth.rs` and `symmetric.rs`.

use std::sync::Arc;

use cellmill_cuda::{Device, Grid, Source};
use cellmill_matrix::{Error, Result};
use rayon::prelude::*;

use super::symmetric::neighbor_twice;
use crate::contract::ends;
use crate::{Connectivities, Distances};

/// The kernels.
pub const SOURCE: Source =
    Source { name: "fuzzy", parts: &[include_str!("fuzzy.cu")], kernels: &["weigh", "count", "turn", "join", "settle"] };

/// Fewer edges are not worth the way.
const WORTH: usize = 1 << 20;
/// Most edges that come in at a cell: each is compared with the others.
const MOST_EDGES: u32 = 1 << 15;
/// Warps of a block of `join` and `settle`.
const WARPS: usize = 4;

/// What there is to know besides the distances.
#[derive(Clone, Copy, Debug)]
pub(super) struct Curve {
    /// See [`super::Method::Umap`].
    pub set_op_mix_ratio: f32,
    /// See [`super::Method::Umap`].
    pub local_connectivity: f64,
    /// Mean of all distances, those of the cells to themselves included.
    pub mean: f64,
    /// What the memberships of a cell sum to.
    pub target: f64,
}

/// The fuzzy set of checked `distances`; `None` if it is small, or a cell has very many edges, or the device has no room.
pub(super) fn umap(device: &Arc<Device>, distances: &Distances, curve: Curve) -> Result<Option<Connectivities>> {
    if distances.indices.len() < WORTH { Ok(None) } else { all(device, distances, curve) }
}

fn all(device: &Arc<Device>, distances: &Distances, curve: Curve) -> Result<Option<Connectivities>> {
    let (n, k, n_edges) = (distances.n(), distances.k, distances.indices.len());
    // Neighbours, distances, weights; edges that come in, twice; joined edges, twice. Rows of the result follow when the first are gone.
    let bytes = 44 * n_edges + 24 * n;
    if n_edges >= 1 << 31 || !device.has_room(bytes as u64, "the weights of edges")? {
        return Ok(None);
    }
    let stream = device.stream()?;
    let program = device.program(&SOURCE)?;
    let kernel = |name| program.kernel(name);
    let (n_arg, k_arg, edges_arg) = ((n as u32).into(), (k as u32).into(), (n_edges as u32).into());
    let lengths = stream.upload(&distances.distances)?;
    let mut weights = stream.alloc::<f32>(n_edges)?;
    let args =
        [(&lengths).into(), n_arg, k_arg, curve.local_connectivity.into(), curve.mean.into(), curve.target.into(), (&mut weights).into()];
    // SAFETY: the arguments of `weigh`: n rows of k in each buffer.
    unsafe { stream.launch(&kernel("weigh")?, Grid::over(n, 128), &args)? };
    drop(lengths);
    let indices = stream.upload(&distances.indices)?;
    let mut counts = stream.zeros::<u32>(n)?;
    let args = [(&indices).into(), (&weights).into(), edges_arg, (&mut counts).into()];
    // SAFETY: the arguments of `count`: neighbours are below n, as was checked.
    unsafe { stream.launch(&kernel("count")?, Grid::over(n_edges, 256), &args)? };
    let come_in = stream.download(&counts, n)?;
    if come_in.iter().any(|&edges| edges > MOST_EDGES) {
        device.leave(format!("the weights of a cell that is a neighbour of more than {MOST_EDGES}"));
        return Ok(None);
    }
    let starts: Vec<u32> = ends(come_in.into_iter().map(u64::from)).into_iter().map(|end| end as u32).collect();
    let n_turned = starts[n] as usize;
    let starts = stream.upload(&starts)?;
    let (mut tails, mut incoming) = (stream.alloc::<u32>(n_turned)?, stream.alloc::<f32>(n_turned)?);
    let args = [
        (&indices).into(),
        (&weights).into(),
        edges_arg,
        k_arg,
        (&starts).into(),
        (&mut counts).into(),
        (&mut tails).into(),
        (&mut incoming).into(),
    ];
    // SAFETY: the arguments of `turn`: each cell has a place for each edge that was counted.
    unsafe { stream.launch(&kernel("turn")?, Grid::over(n_edges, 256), &args)? };
    let (mut keys, mut values) = (stream.alloc::<u32>(n_edges + n_turned)?, stream.alloc::<f32>(n_edges + n_turned)?);
    let mut lengths = counts;
    let mut twice = stream.upload(&[u32::MAX])?;
    let args = [
        (&indices).into(),
        (&weights).into(),
        n_arg,
        k_arg,
        (&starts).into(),
        (&tails).into(),
        (&incoming).into(),
        curve.set_op_mix_ratio.into(),
        (1.0 - curve.set_op_mix_ratio).into(),
        (&mut keys).into(),
        (&mut values).into(),
        (&mut lengths).into(),
        (&mut twice).into(),
    ];
    let grid = Grid::new(n.div_ceil(WARPS), 32 * WARPS as u32);
    // SAFETY: the arguments of `join`: a cell has no more joined edges than edges that leave and come in.
    unsafe { stream.launch(&kernel("join")?, grid, &args)? };
    let first = stream.download(&twice, 1)?[0] as usize;
    if first < n {
        return Err(neighbor_twice(first, &distances.indices[first * k..(first + 1) * k]));
    }
    drop((indices, weights, tails, incoming));
    let indptr = ends(stream.download(&lengths, n)?.into_iter().map(u64::from));
    let len = usize::try_from(indptr[n]).map_err(|_| Error::bug("more edges than memory"))?;
    let rows = stream.upload(&indptr)?;
    let (mut indices, mut weights) = (stream.alloc::<u32>(len)?, stream.alloc::<f32>(len)?);
    let args =
        [(&starts).into(), n_arg, k_arg, (&keys).into(), (&values).into(), (&rows).into(), (&mut indices).into(), (&mut weights).into()];
    // SAFETY: the arguments of `settle`: rows have the lengths that `join` has counted.
    unsafe { stream.launch(&kernel("settle")?, grid, &args)? };
    // The result's pages are made by all threads, not one by one as bytes come.
    let mut graph = Connectivities { indptr, indices: vec![0; len], weights: vec![0.0; len] };
    rayon::join(|| touch(&mut graph.indices), || touch(&mut graph.weights));
    // SAFETY: both are borrowed, and neither is looked at, until the wait has ended.
    let queued = unsafe { stream.copy_out(&indices, &mut graph.indices).and_then(|()| stream.copy_out(&weights, &mut graph.weights)) };
    stream.synchronize().and(queued)?;
    Ok(Some(graph))
}

fn touch<T: Copy + Default + Send>(numbers: &mut [T]) {
    numbers.par_chunks_mut(1 << 18).for_each(|pages| pages.fill(T::default()));
}

#[cfg(test)]
mod tests {
    use cellmill_cuda::Options;

    use super::super::tests::brute;
    use super::*;
    use crate::fuzzy::{Method, connectivities};

    #[test]
    fn the_bits_are_the_cpus() {
        let Ok(device) = Device::open(&Options::default()) else { return };
        // Points of a plane, some of them the same, and a cell that is near to very many.
        let points: Vec<[f64; 2]> = (0..1500).map(|i| [f64::from(i % 37 / 2), f64::from(i * i % 101) * 0.37]).collect();
        for k in [1, 3, 14, 40] {
            let distances = brute(&points, k);
            for (ratio, local) in [(1.0, 1.0), (0.3, 1.5), (0.0, 0.4), (1.0, 3.0), (1.0, 100.0)] {
                let method = Method::Umap { set_op_mix_ratio: ratio, local_connectivity: local };
                let wanted = connectivities(&distances, method).unwrap();
                let curve = super::super::smooth::curve(&distances, ratio, f64::from(local));
                let found = all(&device, &distances, curve).unwrap().unwrap();
                assert!(found.indptr == wanted.indptr && found.indices == wanted.indices, "{k} neighbours, {method:?}");
                let bits = |weights: &[f32]| weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&found.weights), bits(&wanted.weights), "{k} neighbours, {method:?}");
            }
        }
        let twice = Distances { k: 2, indices: vec![1, 2, 0, 2, 1, 1], distances: vec![1.0; 6] };
        let curve = super::super::smooth::curve(&twice, 1.0, 1.0);
        let said = all(&device, &twice, curve).unwrap_err().to_string();
        assert_eq!(said, connectivities(&twice, Method::UMAP).unwrap_err().to_string());
    }
}

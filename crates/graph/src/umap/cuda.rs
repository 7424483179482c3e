//! The optimiser on a GPU. Tolerance: none, the bits are those of `layout.rs`: the same operations in the same order, each rounded once.

use std::ops::Range;
use std::sync::Arc;

use cellmill_cuda::{Device, Grid, Source};
use cellmill_matrix::{Error, Result, Watch};

macro_rules! source {
    ($coordinates:literal) => {
        Source {
            name: concat!("umap_", $coordinates),
            parts: &[concat!("#define COORDINATES ", $coordinates, "\n"), include_str!("random.cu"), include_str!("umap.cu")],
            kernels: &["advance", "commit", "draw"],
        }
    };
}

/// The kernels, for points of 2 and of 4 coordinates.
pub const SOURCES: [Source; 2] = [source!(2), source!(4)];

/// The most coordinates of a point.
pub const MOST: usize = 4;

/// Epochs between two looks at the watch.
const EPOCHS: usize = 8;

/// The graph with its cells renumbered block by block, as `layout.rs` makes it.
#[derive(Clone, Copy, Debug)]
pub struct Edges<'a> {
    /// First cell of each block, and `n`.
    pub starts: &'a [usize],
    /// Row starts: `(n + 1,)`.
    pub indptr: &'a [u64],
    /// Neighbours: `(nnz,)`.
    pub targets: &'a [u32],
    /// How often an edge attracts, in 2^-31 an epoch: `(nnz,)`.
    pub rates: &'a [u32],
}

/// What the optimiser needs to know besides the graph.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The curve `1 / (1 + a d^{2b})`.
    pub a: f32,
    /// See `a`.
    pub b: f32,
    /// Weight of repulsion.
    pub gamma: f32,
    /// First step.
    pub alpha: f32,
    /// Cells that push for each that attracts.
    pub negative_sample_rate: usize,
    /// Epochs in all.
    pub n_epochs: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Entries of the sample from which those that push are drawn; 0: from all cells.
    pub pool: usize,
}

/// Moves the points, `(n, S)` in the order of the blocks, `S` 2 or 4, through some epochs; `false` if the device has no room.
pub fn optimise<const S: usize>(
    device: &Arc<Device>,
    edges: &Edges<'_>,
    plan: &Plan,
    points: &mut [[f32; S]],
    epochs: Range<usize>,
    watch: &dyn Watch,
) -> Result<bool> {
    let n = points.len();
    let ordered = edges.starts.windows(2).all(|w| w[0] <= w[1]) && edges.starts.last() == Some(&n);
    let fits = edges.indptr.len() == n + 1 && edges.indptr.windows(2).all(|w| w[0] <= w[1]);
    let whole = edges.indptr.last() == Some(&(edges.targets.len() as u64)) && edges.rates.len() == edges.targets.len();
    if !ordered || !fits || !whole || n >= 1 << 31 || edges.targets.iter().any(|&t| t as usize >= n) || ![2, 4].contains(&S) {
        return Err(Error::bug(format!("a layout of {n} cells with {} edges that don't fit", edges.targets.len())));
    }
    if !device.has_room((8 * edges.targets.len() + n * (8 + 8 * S) + plan.pool * 4 * S) as u64, "the layout")? {
        return Ok(false);
    }
    let program = device.program(&SOURCES[S / 4])?;
    let (advance, commit, draw) = (program.kernel("advance")?, program.kernel("commit")?, program.kernel("draw")?);
    let stream = device.stream()?;
    let (indptr, targets, rates) = (stream.upload(edges.indptr)?, stream.upload(edges.targets)?, stream.upload(edges.rates)?);
    let mut here = stream.upload(points.as_flattened())?;
    let longest = edges.starts.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
    let mut moved = stream.alloc::<f32>(longest * S)?;
    let mut pool = stream.alloc::<f32>(plan.pool * S)?;
    let n_blocks = edges.starts.len() - 1;
    for epoch in epochs {
        if epoch % EPOCHS == 0 {
            stream.synchronize()?;
            watch.tick(epoch as u64, plan.n_epochs as u64, "")?;
        }
        // umap-learn lowers alpha after each epoch, from the first one on.
        let alpha = plan.alpha * (1.0 - epoch.saturating_sub(1) as f32 / plan.n_epochs as f32);
        for (block, range) in edges.starts.windows(2).map(|w| w[0]..w[1]).enumerate() {
            if plan.pool > 0 {
                let turn = (epoch * n_blocks + block) as u64;
                let args =
                    [(&here).into(), (n as u32).into(), (plan.pool as u32).into(), turn.into(), plan.seed.into(), (&mut pool).into()];
                // SAFETY: the arguments of `draw`, which reads points below n and writes the pool.
                unsafe { stream.launch(&draw, Grid::over(plan.pool, 256), &args)? };
            }
            let args = [
                (&indptr).into(),
                (&targets).into(),
                (&rates).into(),
                (&here).into(),
                (n as u32).into(),
                (&pool).into(),
                (plan.pool as u32).into(),
                (range.start as u32).into(),
                (range.len() as u32).into(),
                (epoch as u32).into(),
                plan.seed.into(),
                plan.a.into(),
                plan.b.into(),
                alpha.into(),
                (-2.0 * plan.a * plan.b).into(),
                (2.0 * plan.gamma * plan.b).into(),
                (plan.negative_sample_rate as u32).into(),
                (&mut moved).into(),
            ];
            // SAFETY: the arguments of `advance`: rows and targets were checked above; a walk stops at a row's last edge that fires,
            // as it has counted them.
            unsafe { stream.launch(&advance, Grid::over(range.len(), 128), &args)? };
            let args = [(&moved).into(), (range.start as u32).into(), (range.len() as u32).into(), (&mut here).into()];
            // SAFETY: the arguments of `commit`: `moved` holds the block, whose cells lie below n.
            unsafe { stream.launch(&commit, Grid::over(range.len(), 256), &args)? };
        }
    }
    points.as_flattened_mut().copy_from_slice(&stream.download(&here, n * S)?);
    Ok(true)
}

//! Where the cells stand before the first epoch.

use cellmill_cuda::Processor;
use cellmill_matrix::{Error, Result, Watch};
use rayon::prelude::*;

use super::components::{components, radius};
use super::placing::Placing;
use super::random::{self, Use};
use super::spectral::spectral;
use super::start::DeviceGraph;
use super::{Init, Options};
use crate::Connectivities;

/// Largest coordinate before noise is added.
const LARGEST: f64 = 10.0;
/// Standard deviation of the noise at that scale.
const NOISE: f64 = 1e-4;

/// Coordinates `(n, d)` row-major, each axis over 0..=10 as umap-learn starts; edges below `least` do not count.
pub(super) fn start(
    graph: &Connectivities,
    least: f32,
    d: usize,
    options: &Options,
    processor: &Processor,
    watch: &dyn Watch,
) -> Result<Vec<f32>> {
    let (n, seed) = (graph.n(), options.seed);
    let mut layout = match &options.init {
        Init::Spectral => noisy(parts(graph, least, d, options, processor, watch)?, seed),
        Init::Random => (0..n * d).map(|at| (20.0 * place(seed, at) - 10.0) as f32).collect(),
        Init::Pca(matrix) => noisy(given("init (pca)", matrix, n, d)?.to_vec(), seed),
        Init::Given(matrix) => apart(given("init", matrix, n, d)?.to_vec(), d, seed),
        Init::Paga { positions, nearest, groups } => apart(paga(positions, nearest, groups, n, d, seed)?, d, seed),
    };
    rescale(&mut layout, d);
    if layout.iter().any(|x| !x.is_finite()) {
        return Err(Error::bug("the layout's start is not finite"));
    }
    Ok(layout)
}

/// Uniform in [0, 1) for coordinate `at`.
fn place(seed: u64, at: usize) -> f64 {
    random::uniform(random::bits(seed, Use::Place, at as u64, 0))
}

/// Checks the shape and the values of coordinates that someone gave.
fn given<'a>(name: &str, matrix: &'a [f32], n: usize, d: usize) -> Result<&'a [f32]> {
    if matrix.len() != n * d {
        return Err(Error::option(name, format!("{} numbers", matrix.len()), format!("{n} cells need {n} x {d} coordinates")));
    }
    match matrix.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(Error::option(name, format!("{} at cell {}", matrix[at], at / d), "coordinates are finite")),
        None => Ok(matrix),
    }
}

/// Scales the largest coordinate to 10 and adds noise of 1e-4: umap-learn, noisy_scale_coords.
fn noisy(mut layout: Vec<f32>, seed: u64) -> Vec<f32> {
    let largest = layout.iter().fold(0.0f64, |most, &x| most.max(f64::from(x).abs()));
    let expansion = if largest > 0.0 { LARGEST / largest } else { 0.0 };
    layout.par_iter_mut().enumerate().with_min_len(1 << 12).for_each(|(at, x)| {
        *x = (f64::from(*x) * expansion + NOISE * random::normal(random::bits(seed, Use::Noise, at as u64, 0))) as f32;
    });
    layout
}

/// Where two cells stand at one place, adds noise of a thousandth of the mean spacing, so that they can part.
fn apart(mut layout: Vec<f32>, d: usize, seed: u64) -> Vec<f32> {
    let mut rows: Vec<&[f32]> = layout.chunks(d).collect();
    rows.par_sort_unstable_by(|a, b| {
        a.iter().zip(*b).map(|(x, y)| x.total_cmp(y)).find(|o| o.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    });
    if rows.windows(2).all(|w| w[0] != w[1]) {
        return layout;
    }
    let spans: Vec<f64> = bounds(&layout, d).into_iter().map(|(low, high)| f64::from(high) - f64::from(low)).collect();
    let cells = (layout.len() / d) as f64;
    let spacing = spans.iter().fold(0.0, |most: f64, &s| most.max(s)) / cells.powf(1.0 / d as f64);
    let scale = if spacing > 0.0 { 1e-3 * spacing } else { NOISE };
    for (at, x) in layout.iter_mut().enumerate() {
        *x += (scale * random::normal(random::bits(seed, Use::Noise, at as u64, 1))) as f32;
    }
    layout
}

/// scanpy's get_init_pos_from_paga: cells spread around their group's place, on the way to and from the group it is nearest to.
fn paga(positions: &[f32], nearest: &[u32], groups: &[u32], n: usize, d: usize, seed: u64) -> Result<Vec<f32>> {
    let n_groups = nearest.len();
    given("init (paga)", positions, n_groups, d)?;
    if groups.len() != n || groups.iter().chain(nearest).any(|&g| g as usize >= n_groups) {
        return Err(Error::option("init (paga)", format!("{} cells in groups", groups.len()), format!("{n} cells in {n_groups} groups")));
    }
    let mut layout = vec![0.0; n * d];
    for (i, &g) in groups.iter().enumerate() {
        let near = nearest[g as usize] as usize;
        for c in 0..d {
            let own = f64::from(positions[g as usize * d + c]);
            let away = own - f64::from(positions[near * d + c]);
            layout[i * d + c] = (own - 0.5 * away + place(seed, i * d + c) * away) as f32;
        }
    }
    Ok(layout)
}

/// Smallest and largest coordinate of each axis.
fn bounds(layout: &[f32], d: usize) -> Vec<(f32, f32)> {
    let mut bounds = vec![(f32::INFINITY, f32::NEG_INFINITY); d];
    for row in layout.chunks(d) {
        for (&x, bound) in row.iter().zip(&mut bounds) {
            *bound = (bound.0.min(x), bound.1.max(x));
        }
    }
    bounds
}

/// Stretches each axis over 0..=10; an axis without extent goes to 5.
fn rescale(layout: &mut [f32], d: usize) {
    let bounds = bounds(layout, d);
    for row in layout.chunks_mut(d) {
        for (x, &(low, high)) in row.iter_mut().zip(&bounds) {
            let span = f64::from(high) - f64::from(low);
            *x = if span > 0.0 { (LARGEST * (f64::from(*x) - f64::from(low)) / span) as f32 } else { (LARGEST / 2.0) as f32 };
        }
    }
}

/// Spectral layout of each connected part, in a disc whose area is proportional to its cells (umap-learn gives every part the same room),
/// placed and turned as the cells' coordinates say. Where the graph is connected, this is umap-learn's start.
fn parts(graph: &Connectivities, least: f32, d: usize, options: &Options, processor: &Processor, watch: &dyn Watch) -> Result<Vec<f32>> {
    let (n, seed) = (graph.n(), options.seed);
    let (labels, sizes) = components(graph, least, DeviceGraph::new(processor.device(), graph, least, 8)?.as_ref())?;
    if sizes.len() <= 1 {
        return part(graph, least, d, seed, 0, processor, watch);
    }
    // Cells by part, ascending within a part; each cell's rank in its part.
    let mut starts = vec![0usize; sizes.len() + 1];
    (0..sizes.len()).for_each(|c| starts[c + 1] = starts[c] + sizes[c] as usize);
    let (mut cells, mut rank, mut next) = (vec![0u32; n], vec![0u32; n], starts.clone());
    for (i, &label) in labels.iter().enumerate() {
        let at = &mut next[label as usize];
        cells[*at] = i as u32;
        rank[i] = (*at - starts[label as usize]) as u32;
        *at += 1;
    }
    let placing = Placing::new(options.coordinates, &labels, &sizes, d);
    let layouts = (0..sizes.len())
        .into_par_iter()
        .map(|c| {
            let members = &cells[starts[c]..starts[c + 1]];
            let mut layout = match members {
                [_] => vec![0.0; d],
                _ => part(&inside(graph, least, members, &rank), 0.0, d, seed, members[0] as usize, processor, watch)?,
            };
            // The square |x| ≤ r / √2 fits into the disc.
            let largest = layout.iter().fold(0.0f64, |most, &x| most.max(f64::from(x).abs()));
            let scale = if largest > 0.0 { radius(sizes[c]) * std::f64::consts::FRAC_1_SQRT_2 / largest } else { 0.0 };
            placing.turn(members, &mut layout, d);
            for row in layout.chunks_mut(d) {
                for (axis, x) in row.iter_mut().enumerate() {
                    *x = (f64::from(*x) * scale + placing.centres[c][axis]) as f32;
                }
            }
            Ok(layout)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut layout = vec![0.0; n * d];
    for (rows, span) in layouts.iter().zip(starts.windows(2)) {
        for (row, &i) in rows.chunks(d).zip(&cells[span[0]..span[1]]) {
            layout[i as usize * d..(i as usize + 1) * d].copy_from_slice(row);
        }
    }
    Ok(layout)
}

/// The graph among `members`, numbered by their rank; edges below `least` are left out.
fn inside(graph: &Connectivities, least: f32, members: &[u32], rank: &[u32]) -> Connectivities {
    const ROWS: usize = 1 << 12;
    let piece = |cells: &[u32]| {
        let mut piece = Connectivities { indptr: Vec::with_capacity(cells.len()), indices: Vec::new(), weights: Vec::new() };
        for &i in cells {
            let (indices, weights) = graph.row(i as usize);
            for (&j, &w) in indices.iter().zip(weights).filter(|edge| *edge.1 >= least) {
                piece.indices.push(rank[j as usize]);
                piece.weights.push(w);
            }
            piece.indptr.push(piece.indices.len() as u64);
        }
        piece
    };
    let pieces: Vec<Connectivities> = members.par_chunks(ROWS).map(piece).collect();
    let nnz = pieces.iter().map(|piece| piece.indices.len()).sum();
    let mut part = Connectivities { indptr: vec![0], indices: Vec::with_capacity(nnz), weights: Vec::with_capacity(nnz) };
    for piece in pieces {
        let before = part.indices.len() as u64;
        part.indptr.extend(piece.indptr.iter().map(|end| before + end));
        part.indices.extend_from_slice(&piece.indices);
        part.weights.extend_from_slice(&piece.weights);
    }
    part
}

/// Spectral layout of a connected graph, or random places where it is too small for one; not scaled.
fn part(
    graph: &Connectivities,
    least: f32,
    d: usize,
    seed: u64,
    first: usize,
    processor: &Processor,
    watch: &dyn Watch,
) -> Result<Vec<f32>> {
    let n = graph.n();
    if n < 2 * d || n <= d + 1 {
        return Ok((0..n * d).map(|at| (2.0 * place(seed, first * d + at) - 1.0) as f32).collect());
    }
    spectral(graph, least, d, seed, processor, watch)
}

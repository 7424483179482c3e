//! The smoothest functions on a connected graph: first eigenvectors of its normalised Laplacian after the trivial one.
//!
//! Chebyshev-filtered subspace iteration (Zhou et al. 2006) on the random walk `P = D⁻¹W`, whose eigenvectors u are orthogonal in the
//! D-product and give the Laplacian's by `x = D^{1/2} u`. The basis has 8 columns for layouts of up to 4 dimensions, whatever the size of
//! the graph.

use std::sync::Arc;

use cellmill_cuda::{Device, Processor};
use cellmill_matrix::{Result, Watch};
use rayon::prelude::*;

use super::coarsen::{Coarse, coarsen};
use super::dense::eigen;
use super::filter::{A_CELL, DeviceWalk};
use super::random::{self, Use};
use super::start::DeviceGraph;
use crate::Connectivities;

/// Columns of the basis of up to 4 eigenvectors: those wanted and some guards, one AVX register wide.
pub(super) const WIDTH: usize = 8;
/// Rows that one task works on.
const ROWS: usize = 1 << 12;
/// Graphs beyond this size start from the solution of a smaller one.
const LARGE: usize = 1 << 14;

/// When the iteration ends.
#[derive(Clone, Copy)]
struct Effort {
    /// A column is done at this norm of `P u − θ u`, where u has norm 1.
    tolerance: f64,
    /// Products with the graph after which the iteration ends in any case.
    products: usize,
    /// Largest degree of the filter.
    longest: usize,
}

/// From random numbers.
const FROM_NOTHING: Effort = Effort { tolerance: 1e-4, products: 600, longest: 100 };
/// From the solution of a smaller graph: a start for the layout needs no more.
const FINE: Effort = Effort { tolerance: 1e-3, products: 30, longest: 30 };

/// The filter may stretch the first column by this over the cut; more would cost f32 digits.
const STRETCH: f64 = 2e3;
/// What rounding leaves of the constant, whose eigenvalue is 1, may be stretched by this: it is taken out again after the filter.
const CONSTANT: f64 = 2e5;
/// The cut where eigenvalues are not known, and the least there is: those of a graph without any structure lie between.
const CUTS: (f64, f64) = (0.5, -0.5);
/// Graphs up to this size are solved densely.
const DENSE: usize = 48;

/// A cell's entries of a basis.
type Row<const W: usize> = [f32; W];

/// Coordinates of each cell of a connected graph in its first `n_components` (≤ 32) non-trivial eigenvectors: `(n, n_components)`
/// row-major, not scaled. Edges below `least` do not count. The graph has more than `n_components + 1` cells.
pub(super) fn spectral(
    graph: &Connectivities,
    least: f32,
    n_components: usize,
    seed: u64,
    processor: &Processor,
    watch: &dyn Watch,
) -> Result<Vec<f32>> {
    if graph.n() <= DENSE {
        return Ok(dense(graph, least, n_components));
    }
    let walk = Walk::new(graph, least);
    match n_components {
        1..=4 => columns::<WIDTH>(&walk, n_components, seed, processor, watch),
        5..=16 => columns::<24>(&walk, n_components, seed, processor, watch),
        _ => columns::<40>(&walk, n_components, seed, processor, watch),
    }
}

/// The same by a basis of `W` columns.
fn columns<const W: usize>(walk: &Walk, n_components: usize, seed: u64, processor: &Processor, watch: &dyn Watch) -> Result<Vec<f32>> {
    let basis = smoothest::<W>(walk, n_components, seed, processor.device(), watch)?.0;
    let scale: Vec<f32> = walk.degrees.iter().map(|&d| d.sqrt()).collect();
    Ok(basis.iter().zip(&scale).flat_map(|(row, &s)| row[..n_components].iter().map(move |&u| s * u)).collect())
}

/// The first eigenvectors of a walk, and the first and the last of their eigenvalues. Large graphs start from the solution of a smaller one.
fn smoothest<const W: usize>(
    walk: &Walk,
    n_components: usize,
    seed: u64,
    device: Option<&Arc<Device>>,
    watch: &dyn Watch,
) -> Result<(Vec<Row<W>>, (f64, f64))> {
    let n = walk.graph.n();
    let on_gpu = DeviceGraph::new(device, walk.graph, walk.least, A_CELL)?;
    if n > LARGE {
        let Coarse { graph, degrees, groups } = coarsen(walk.graph, walk.least, &walk.degrees, seed, on_gpu.as_ref())?;
        // A graph that hardly shrinks is a few hubs with many leaves: nothing is gained.
        if 2 * graph.n() <= n {
            let (small, ends) = smoothest(&Walk::of(&graph, 0.0, degrees), n_components, seed, device, watch)?;
            drop(graph);
            let basis = groups.par_iter().map(|&group| small[group as usize]).collect();
            return iterate(walk, basis, ends, n_components, FINE, on_gpu.as_ref(), watch);
        }
    }
    let basis = (0..n)
        .into_par_iter()
        .map(|i| std::array::from_fn(|c| random::normal(random::bits(seed, Use::Start, i as u64, c as u64)) as f32))
        .collect();
    iterate(walk, basis, (1.0, CUTS.0), n_components, FROM_NOTHING, on_gpu.as_ref(), watch)
}

/// Improves a basis until its first columns are eigenvectors. `first` and `cut`: eigenvalues to begin with.
fn iterate<const W: usize>(
    walk: &Walk,
    mut basis: Vec<Row<W>>,
    (mut first, mut cut): (f64, f64),
    n_components: usize,
    effort: Effort,
    on_gpu: Option<&DeviceGraph>,
    watch: &dyn Watch,
) -> Result<(Vec<Row<W>>, (f64, f64))> {
    let mut image = vec![[0.0; W]; basis.len()];
    let mut spare = vec![[0.0; W]; basis.len()];
    // Eigenvalues of P lie in −1..=1; the filter is small on −1..=cut.
    cut = cut.clamp(CUTS.1, 1.0 - 1e-6);
    let mut products = 0;
    let on_gpu = on_gpu.filter(|_| W == WIDTH).map(|graph| DeviceWalk::new(graph, walk)).transpose()?;
    loop {
        let degree = degree(cut, first, effort.longest);
        match &on_gpu {
            Some(walk) => walk.filter(cut, degree, basis.as_flattened_mut())?,
            None => walk.filter(cut, degree, &mut basis, &mut image, &mut spare),
        }
        walk.remove_constant(&mut basis);
        walk.product(&basis, &mut image);
        let ritz = walk.rayleigh_ritz(&mut basis, &mut image);
        products += degree + 1;
        watch.tick(products.min(effort.products) as u64, effort.products as u64, "spectral")?;
        let worst = ritz[..n_components].iter().map(|pair| pair.1).fold(0.0, f64::max);
        first = ritz[0].0;
        if worst <= effort.tolerance || products >= effort.products {
            return Ok((basis, (first, ritz[W - 1].0)));
        }
        // Where nothing lies above the cut, it was too high: a graph like noise.
        let least = if first > cut { cut } else { CUTS.1 };
        cut = ritz[W - 1].0.clamp(least, 1.0 - 1e-6);
    }
}

/// Degree, up to `longest`, at which the filter stretches an eigenvalue `first` by at most [`STRETCH`].
fn degree(cut: f64, first: f64, longest: usize) -> usize {
    // T_k stretches an eigenvalue by cosh(k rise).
    let rise = |value: f64| ((2.0 * value - (cut - 1.0)) / (cut + 1.0)).max(1.0 + 1e-9).acosh();
    let wanted = (2.0 * STRETCH).ln() / rise(first.clamp(cut + 1e-9, 1.0));
    let bearable = (2.0 * CONSTANT).ln() / rise(1.0);
    wanted.min(bearable).floor().clamp(4.0, longest as f64) as usize
}

/// Centre and half of −1..=cut.
pub(super) fn scales(cut: f64) -> (f32, f32) {
    (((cut - 1.0) / 2.0) as f32, ((cut + 1.0) / 2.0) as f32)
}

/// In the filter's step `k`: the factor of `(P − centre) T_k` and that of `T_{k−1}`.
pub(super) fn step(cut: f64, k: usize) -> (f32, f32) {
    let half = scales(cut).1;
    if k == 0 { (1.0 / half, 0.0) } else { (2.0 / half, 1.0) }
}

/// A random walk on a graph.
pub(super) struct Walk<'a> {
    pub graph: &'a Connectivities,
    /// Edges below it do not count.
    pub least: f32,
    /// Sum of each cell's weights: `(n,)`, > 0.
    pub degrees: Vec<f32>,
    /// Of each step's chance, what stays at the cell: the ties inside a group. Empty for a graph of cells.
    pub stay: Vec<f32>,
}

impl<'a> Walk<'a> {
    pub fn new(graph: &'a Connectivities, least: f32) -> Self {
        let degree = |i| graph.row(i).1.iter().filter(|&&w| w >= least).map(|&w| f64::from(w)).sum::<f64>() as f32;
        let degrees = (0..graph.n()).into_par_iter().with_min_len(ROWS).map(degree).collect();
        Walk { graph, least, degrees, stay: Vec::new() }
    }

    /// The walk on a graph of groups with these degrees, of which the edges between groups are a part.
    pub fn of(graph: &'a Connectivities, least: f32, degrees: Vec<f32>) -> Self {
        let leaves = |i: usize| graph.row(i).1.iter().map(|&w| f64::from(w)).sum::<f64>();
        let stay =
            (0..graph.n()).into_par_iter().with_min_len(ROWS).map(|i| (1.0 - leaves(i) / f64::from(degrees[i])).max(0.0) as f32).collect();
        Walk { graph, least, degrees, stay }
    }

    /// Row `i` of `P x`.
    fn row<const W: usize>(&self, i: usize, x: &[Row<W>]) -> Row<W> {
        let (indices, weights) = self.graph.row(i);
        let mut sum = [0.0f32; W];
        for (&j, &w) in indices.iter().zip(weights) {
            let w = if w >= self.least { w } else { 0.0 };
            let other = &x[j as usize];
            for c in 0..W {
                sum[c] += w * other[c];
            }
        }
        let inverse = 1.0 / self.degrees[i];
        let stay = self.stay.get(i).copied().unwrap_or(0.0);
        std::array::from_fn(|c| sum[c] * inverse + stay * x[i][c])
    }

    /// `into = P x`.
    fn product<const W: usize>(&self, x: &[Row<W>], into: &mut [Row<W>]) {
        into.par_chunks_mut(ROWS).enumerate().for_each(|(chunk, rows)| {
            for (r, row) in rows.iter_mut().enumerate() {
                *row = self.row(chunk * ROWS + r, x);
            }
        });
    }

    /// `x = T(P) x` with T the Chebyshev polynomial of this degree on −1..=cut: T₀ = 1, T₁ = L, T_{k+1} = 2 L T_k − T_{k−1}, where
    /// L = (P − centre) / half.
    pub fn filter<const W: usize>(&self, cut: f64, degree: usize, x: &mut Vec<Row<W>>, y: &mut Vec<Row<W>>, spare: &mut Vec<Row<W>>) {
        let (centre, _) = scales(cut);
        for k in 0..degree {
            let (factor, keep) = step(cut, k);
            spare.par_chunks_mut(ROWS).enumerate().for_each(|(chunk, rows)| {
                for (r, row) in rows.iter_mut().enumerate() {
                    let i = chunk * ROWS + r;
                    let product = self.row(i, x);
                    for c in 0..W {
                        row[c] = factor * (product[c] - centre * x[i][c]) - keep * y[i][c];
                    }
                }
            });
            // (x, y) = (T_{k+1}, T_k)
            std::mem::swap(x, y);
            std::mem::swap(x, spare);
        }
    }

    /// Sums over cells of what `term` adds to `rows` rows, in f64, in a fixed order.
    fn sum<const W: usize>(&self, rows: usize, term: impl Fn(usize, &mut [[f64; W]]) + Sync) -> Vec<[f64; W]> {
        let n = self.graph.n();
        let parts: Vec<Vec<[f64; W]>> = (0..n.div_ceil(ROWS))
            .into_par_iter()
            .map(|chunk| {
                let mut part = vec![[0.0; W]; rows];
                (chunk * ROWS..n.min((chunk + 1) * ROWS)).for_each(|i| term(i, &mut part));
                part
            })
            .collect();
        let mut total = vec![[0.0; W]; rows];
        for part in &parts {
            total.as_flattened_mut().iter_mut().zip(part.as_flattened()).for_each(|(t, p)| *t += p);
        }
        total
    }

    /// Makes the columns of `x` D-orthogonal to the constant, P's first eigenvector.
    fn remove_constant<const W: usize>(&self, x: &mut [Row<W>]) {
        let sums = self.sum::<W>(2, |i, part| {
            let d = f64::from(self.degrees[i]);
            for c in 0..W {
                part[0][c] += d * f64::from(x[i][c]);
            }
            part[1][0] += d;
        });
        let means: Row<W> = std::array::from_fn(|c| (sums[0][c] / sums[1][0]) as f32);
        x.par_chunks_mut(ROWS).for_each(|rows| {
            for row in rows {
                for c in 0..W {
                    row[c] -= means[c];
                }
            }
        });
    }

    /// Turns the columns of `x` into the best approximate eigenvectors in their span, `px = P x` with them. Returns for each the
    /// eigenvalue, descending, and the norm of `P u − θ u`.
    fn rayleigh_ritz<const W: usize>(&self, x: &mut [Row<W>], px: &mut [Row<W>]) -> [(f64, f64); W] {
        let square = W * W;
        let products = self.sum::<W>(2 * W, |i, part| {
            let d = f64::from(self.degrees[i]);
            let (u, p) = (x[i].map(f64::from), px[i].map(f64::from));
            let (gram, images) = part.split_at_mut(W);
            for (a, (gram, images)) in gram.iter_mut().zip(images).enumerate() {
                let du = d * u[a];
                for b in 0..W {
                    gram[b] += du * u[b];
                    images[b] += du * p[b];
                }
            }
        });
        let products = products.as_flattened();
        // Columns of norm 1 first: the filter has stretched them differently.
        let norms: [f64; W] = std::array::from_fn(|c| products[c * W + c].sqrt().max(1e-150));
        let gram = (0..square).map(|at| products[at] / (norms[at / W] * norms[at % W])).collect();
        let (values, vectors) = eigen(gram, W);
        // B = columns of G^{−1/2}; directions without weight are dropped to 0.
        let floor = values[0] * 1e-12;
        let mut to_basis = vec![0.0; square];
        for at in 0..square {
            let (row, c) = (at / W, at % W);
            to_basis[at] = if values[c] > floor { vectors[at] / (values[c].sqrt() * norms[row]) } else { 0.0 };
        }
        let mut projected = vec![0.0; square];
        for a in 0..W {
            for b in 0..W {
                let mut sum = 0.0;
                for r in 0..W {
                    for s in 0..W {
                        let symmetric = (products[square + r * W + s] + products[square + s * W + r]) / 2.0;
                        sum += to_basis[r * W + a] * symmetric * to_basis[s * W + b];
                    }
                }
                projected[a * W + b] = sum;
            }
            // A dropped direction comes last.
            if values[a] <= floor {
                projected[a * W + a] = -2.0;
            }
        }
        let (theta, turn) = eigen(projected, W);
        let mut rotation = [[0.0f32; W]; W];
        for (r, row) in rotation.iter_mut().enumerate() {
            for (c, entry) in row.iter_mut().enumerate() {
                *entry = (0..W).map(|a| to_basis[r * W + a] * turn[a * W + c]).sum::<f64>() as f32;
            }
        }
        let turned = |row: &Row<W>| -> Row<W> {
            let mut sum = [0.0f32; W];
            for (x, from) in row.iter().zip(&rotation) {
                for c in 0..W {
                    sum[c] += x * from[c];
                }
            }
            sum
        };
        x.par_chunks_mut(ROWS).zip(px.par_chunks_mut(ROWS)).for_each(|(rows, images)| {
            for row in rows.iter_mut().chain(images) {
                *row = turned(row);
            }
        });
        let left = self.sum::<W>(1, |i, part| {
            let d = f64::from(self.degrees[i]);
            for c in 0..W {
                let rest = f64::from(px[i][c]) - theta[c] * f64::from(x[i][c]);
                part[0][c] += d * rest * rest;
            }
        });
        std::array::from_fn(|c| (theta[c], left[0][c].sqrt()))
    }
}

/// The same for a small graph: all eigenvectors of `D^{−1/2} W D^{−1/2}`.
fn dense(graph: &Connectivities, least: f32, n_components: usize) -> Vec<f32> {
    let n = graph.n();
    let degrees: Vec<f64> = (0..n).map(|i| graph.row(i).1.iter().filter(|&&w| w >= least).map(|&w| f64::from(w)).sum()).collect();
    let mut matrix = vec![0.0; n * n];
    for i in 0..n {
        let (indices, weights) = graph.row(i);
        for (&j, &w) in indices.iter().zip(weights).filter(|edge| *edge.1 >= least) {
            matrix[i * n + j as usize] = f64::from(w) / (degrees[i] * degrees[j as usize]).sqrt();
        }
    }
    let (_, vectors) = eigen(matrix, n);
    (0..n).flat_map(|i| vectors[i * n + 1..i * n + 1 + n_components].iter().map(|&x| x as f32).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path of `n` cells with weights 1: the eigenvalues of its walk are cos(π j / (n − 1)).
    fn path(n: usize) -> Connectivities {
        let mut graph = Connectivities { indptr: vec![0], indices: vec![], weights: vec![] };
        for i in 0..n {
            if i > 0 {
                graph.indices.push(i as u32 - 1);
            }
            if i + 1 < n {
                graph.indices.push(i as u32 + 1);
            }
            graph.indptr.push(graph.indices.len() as u64);
        }
        graph.weights = vec![1.0; graph.indices.len()];
        graph
    }

    #[test]
    fn the_filter_bears_the_constant() {
        for cut in [-0.5, 0.0, 0.5, 0.9, 0.999] {
            for first in [0.0, 0.3, 0.55, 0.95, 1.0] {
                let outside: f64 = (2.0 - (cut - 1.0)) / (cut + 1.0);
                let k = degree(cut, first, 100);
                assert!(k == 4 || (k as f64 * outside.acosh()).cosh() <= CONSTANT, "{cut} {first}: degree {k}");
            }
        }
    }

    #[test]
    fn a_path_gives_cosines() {
        // u_j(i) = cos(π j i / (n − 1)), x = sqrt(degree) u.
        for n in [5, 40, 49, 90] {
            let layout = spectral(&path(n), 0.0, 2, 7, &Processor::Cpu, &()).unwrap();
            for j in 1..=2 {
                let want: Vec<f64> = (0..n)
                    .map(|i| {
                        let degree: f64 = if i == 0 || i == n - 1 { 1.0 } else { 2.0 };
                        degree.sqrt() * (std::f64::consts::PI * (j * i) as f64 / (n - 1) as f64).cos()
                    })
                    .collect();
                let got: Vec<f64> = (0..n).map(|i| f64::from(layout[2 * i + j - 1])).collect();
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
                let cosine = dot(&want, &got) / (dot(&want, &want) * dot(&got, &got)).sqrt();
                assert!(cosine.abs() > 0.999, "{n} {j}: {cosine}");
            }
        }
    }

    #[test]
    fn a_large_graph_starts_from_a_smaller_one() {
        // A strip of 300 by 100 cells: the first function runs along it as cos(π i / 300), the second twice as fast.
        let (long, broad) = (300u32, 100u32);
        let mut graph = Connectivities { indptr: vec![0], indices: vec![], weights: vec![] };
        for cell in 0..long * broad {
            let (i, j) = (cell / broad, cell % broad);
            graph.indices.extend((i > 0).then(|| cell - broad));
            graph.indices.extend((j > 0).then(|| cell - 1));
            graph.indices.extend((j + 1 < broad).then(|| cell + 1));
            graph.indices.extend((i + 1 < long).then(|| cell + broad));
            graph.indptr.push(graph.indices.len() as u64);
        }
        graph.weights = vec![1.0; graph.indices.len()];
        assert!(graph.n() > LARGE);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| spectral(&graph, 0.0, 2, 7, &Processor::Cpu, &()).unwrap())
        };
        let layout = on(1);
        assert_eq!(layout, on(3));
        for c in 0..2 {
            let want = |cell: usize| (std::f64::consts::PI * (c + 1) as f64 * (cell / broad as usize) as f64 / f64::from(long)).cos();
            let got = |cell: usize| f64::from(layout[2 * cell + c]);
            let sum = |f: &dyn Fn(usize) -> f64| (0..graph.n()).map(f).sum::<f64>();
            let cosine = sum(&|i| want(i) * got(i)) / (sum(&|i| want(i) * want(i)) * sum(&|i| got(i) * got(i))).sqrt();
            assert!(cosine.abs() > 0.97, "{c}: {cosine}");
        }
    }
}

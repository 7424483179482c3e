//! Where the unconnected parts of a graph go: as they lie to one another among the cells' coordinates.

use super::MOST;
use super::components::{places, radius};
use super::dense::eigen;
use crate::Embedding;

/// Weighted spread of the parts' centres, in radii of a disc that holds all cells.
const SPREAD: f64 = 1.5;
/// Parts whose discs are moved until none lies over another; smaller ones only leave the discs of these.
const PUSHED: usize = 256;
/// Rounds in which discs that overlap are moved apart.
const ROUNDS: usize = 200;

/// Parts on the layout: their centres, and the axes of the coordinates that became the layout's.
pub(super) struct Placing<'a> {
    /// Centre of each part, `d` used coordinates.
    pub centres: Vec<[f64; MOST]>,
    x: Option<Axes<'a>>,
}

/// The directions in which the parts' centres differ most.
struct Axes<'a> {
    x: Embedding<'a>,
    /// `(d, x.d)` row-major.
    axes: Vec<f64>,
}

impl<'a> Placing<'a> {
    /// Places parts of these descending `sizes`. `labels` is the part of each cell, `x` the cells' coordinates. Without coordinates, or
    /// where they don't tell the parts apart, the parts stand on rings around the largest.
    pub fn new(x: Option<Embedding<'a>>, labels: &[u32], sizes: &[u32], d: usize) -> Self {
        if let Some(x) = x
            && let Some((centres, axes)) = by_coordinates(x, labels, sizes, d)
        {
            return Placing { centres, x: Some(Axes { x, axes }) };
        }
        let ring = |[a, b]: [f64; 2]| std::array::from_fn(|axis| [a, b].get(axis).copied().unwrap_or(0.0));
        Placing { centres: places(sizes, d).into_iter().map(ring).collect(), x: None }
    }

    /// Turns the `layout` of a part, `(members, d)`, so that its cells lie, as nearly as a turn or a reflection allows, as their coordinates
    /// do along the axes (orthogonal Procrustes; Schönemann 1966).
    pub fn turn(&self, members: &[u32], layout: &mut [f32], d: usize) {
        let Some(Axes { x, axes }) = &self.x else { return };
        let mut cross = vec![0.0; d * d];
        let mut mean = vec![0.0; d];
        layout.chunks(d).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / members.len() as f64));
        for (row, &cell) in layout.chunks(d).zip(members) {
            let place = project(x.row(cell as usize), axes, d);
            for (cross, (&x, m)) in cross.chunks_mut(d).zip(row.iter().zip(&mean)) {
                let away = f64::from(x) - m;
                cross.iter_mut().zip(place).for_each(|(cross, p)| *cross += away * p);
            }
        }
        // R = M (M'M)^{-1/2}, which is orthogonal if M has full rank.
        let mut square = vec![0.0; d * d];
        for a in 0..d {
            for b in 0..d {
                square[a * d + b] = (0..d).map(|r| cross[r * d + a] * cross[r * d + b]).sum();
            }
        }
        let (values, vectors) = eigen(square, d);
        if values[d - 1].is_nan() || values[d - 1] <= 1e-12 * values[0] {
            return;
        }
        let mut turn = vec![0.0; d * d];
        for a in 0..d {
            for b in 0..d {
                let root = |r: usize| (0..d).map(|c| vectors[r * d + c] * vectors[b * d + c] / values[c].sqrt()).sum::<f64>();
                turn[a * d + b] = (0..d).map(|r| cross[a * d + r] * root(r)).sum();
            }
        }
        for row in layout.chunks_mut(d) {
            let turned = project(row, &transposed(&turn, d), d);
            row.iter_mut().zip(turned).for_each(|(v, t)| *v = t as f32);
        }
    }
}

fn transposed(matrix: &[f64], d: usize) -> Vec<f64> {
    (0..d * d).map(|at| matrix[at % d * d + at / d]).collect()
}

/// Coordinates of a row along `d` axes.
fn project(row: &[f32], axes: &[f64], d: usize) -> [f64; MOST] {
    let wide = axes.len() / d;
    std::array::from_fn(|a| {
        axes.get(a * wide..(a + 1) * wide).map_or(0.0, |axis| axis.iter().zip(row).map(|(a, &x)| a * f64::from(x)).sum())
    })
}

/// Centres along the principal axes of the parts' means (weighted by cells), moved apart until discs of equal area a cell don't overlap;
/// and these axes.
fn by_coordinates(x: Embedding, labels: &[u32], sizes: &[u32], d: usize) -> Option<(Vec<[f64; MOST]>, Vec<f64>)> {
    let (wide, n) = (x.d, labels.len() as f64);
    let mut means = vec![0.0; sizes.len() * wide];
    for (i, &label) in labels.iter().enumerate() {
        let (mean, size) = (&mut means[label as usize * wide..][..wide], f64::from(sizes[label as usize]));
        mean.iter_mut().zip(x.row(i)).for_each(|(mean, &x)| *mean += f64::from(x) / size);
    }
    let mut centre = vec![0.0; wide];
    for (mean, &size) in means.chunks(wide).zip(sizes) {
        centre.iter_mut().zip(mean).for_each(|(c, m)| *c += m * f64::from(size) / n);
    }
    let mut covariance = vec![0.0; wide * wide];
    for (mean, &size) in means.chunks_mut(wide).zip(sizes) {
        mean.iter_mut().zip(&centre).for_each(|(m, c)| *m -= c);
        for (row, a) in covariance.chunks_mut(wide).zip(&*mean) {
            row.iter_mut().zip(&*mean).for_each(|(c, b)| *c += f64::from(size) / n * a * b);
        }
    }
    let (values, vectors) = eigen(covariance, wide);
    let spread: f64 = values[..d.min(wide)].iter().map(|v| v.max(0.0)).sum::<f64>().sqrt();
    if !spread.is_finite() || spread <= 1e-6 * centre.iter().map(|c| c * c).sum::<f64>().sqrt() || spread <= f64::from(f32::MIN_POSITIVE) {
        return None;
    }
    let axes: Vec<f64> = (0..d * wide).map(|at| if at / wide < wide { vectors[at % wide * wide + at / wide] } else { 0.0 }).collect();
    let scale = SPREAD * n.sqrt() / spread;
    let mut centres: Vec<[f64; MOST]> = means
        .chunks(wide)
        .map(|mean| {
            std::array::from_fn(|a| {
                if a < d { scale * axes[a * wide..(a + 1) * wide].iter().zip(mean).map(|(a, m)| a * m).sum::<f64>() } else { 0.0 }
            })
        })
        .collect();
    part(&mut centres, sizes, d);
    Some((centres, axes))
}

/// Moves discs that overlap apart, the smaller of two by more.
fn part(centres: &mut [[f64; MOST]], sizes: &[u32], d: usize) {
    let large = centres.len().min(PUSHED);
    for _ in 0..ROUNDS {
        let mut moved = false;
        for j in 1..large {
            for i in 0..j {
                moved |= push(centres, sizes, d, (i, j), false);
            }
        }
        if !moved {
            break;
        }
    }
    for j in large..centres.len() {
        for i in 0..large {
            push(centres, sizes, d, (i, j), true);
        }
    }
}

/// Moves discs `i` and `j` apart if they overlap, or `j` alone.
fn push(centres: &mut [[f64; MOST]], sizes: &[u32], d: usize, (i, j): (usize, usize), alone: bool) -> bool {
    let mut along: [f64; MOST] = std::array::from_fn(|a| centres[j][a] - centres[i][a]);
    let apart = along.iter().map(|x| x * x).sum::<f64>().sqrt();
    let lack = radius(sizes[i]) + radius(sizes[j]) - apart;
    if lack <= 1e-9 * radius(sizes[i]) {
        return false;
    }
    if apart > 0.0 {
        along.iter_mut().for_each(|x| *x /= apart);
    } else {
        // At one place: any direction, another one for each disc.
        let angle = j as f64 * 2.399_963_229_728_653;
        (along[0], along[1]) = if d == 1 { (if j % 2 == 0 { 1.0 } else { -1.0 }, 0.0) } else { (angle.cos(), angle.sin()) };
    }
    let (a, b) = (f64::from(sizes[i]), f64::from(sizes[j]));
    let share = if alone { 1.0 } else { a / (a + b) };
    for (axis, along) in along.iter().enumerate().take(d) {
        centres[j][axis] += lack * share * along;
        centres[i][axis] -= lack * (1.0 - share) * along;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three parts on a line in three dimensions: 300 cells at 0, 200 at 10, 100 at 30 along (1, 2, 2) / 3.
    fn line() -> (Vec<f32>, Vec<u32>, Vec<u32>) {
        let sizes = vec![300u32, 200, 100];
        let labels: Vec<u32> = (0..3u32).flat_map(|c| std::iter::repeat_n(c, sizes[c as usize] as usize)).collect();
        let at = [0.0f32, 10.0, 30.0];
        let x = labels.iter().flat_map(|&c| [1.0, 2.0, 2.0].map(|t| at[c as usize] * t / 3.0 + 5.0)).collect();
        (x, labels, sizes)
    }

    #[test]
    fn parts_keep_their_order_and_do_not_overlap() {
        let (x, labels, sizes) = line();
        for d in 1..=3 {
            let placing = Placing::new(Some(Embedding::of(&x, 3)), &labels, &sizes, d);
            let apart =
                |i: usize, j: usize| (0..MOST).map(|a| placing.centres[i][a] - placing.centres[j][a]).map(|x| x * x).sum::<f64>().sqrt();
            assert!(apart(0, 2) > apart(0, 1) && apart(0, 2) > apart(1, 2) && apart(1, 2) > apart(0, 1) * 0.9);
            for (i, j) in [(0, 1), (0, 2), (1, 2)] {
                assert!(apart(i, j) >= (radius(sizes[i]) + radius(sizes[j])) * 0.999);
            }
        }
        // Coordinates that don't tell them apart, and none.
        let flat = vec![1.0f32; x.len()];
        let ring = Placing::new(None, &labels, &sizes, 2).centres;
        assert_eq!(Placing::new(Some(Embedding::of(&flat, 3)), &labels, &sizes, 2).centres, ring);
    }

    #[test]
    fn a_turned_layout_is_turned_back() {
        let cells = 50;
        let x: Vec<f32> = (0..2 * cells).map(|at| ((at * at + 3 * at) as f32 * 0.7).sin() * if at % 2 == 0 { 3.0 } else { 1.0 }).collect();
        let axes = vec![1.0, 0.0, 0.0, 1.0];
        let placing = Placing { centres: Vec::new(), x: Some(Axes { x: Embedding::of(&x, 2), axes }) };
        let members: Vec<u32> = (0..cells as u32).collect();
        // Turned by 40 degrees and mirrored.
        let (c, s) = (0.7660444f32, 0.6427876);
        let mut layout: Vec<f32> = x.chunks(2).flat_map(|p| [-(c * p[0] - s * p[1]), s * p[0] + c * p[1]]).collect();
        placing.turn(&members, &mut layout, 2);
        assert!(layout.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}

//! Local regression of one variable on another (loess): degree 2, tricube weights, gaussian family, interpolated.
//!
//! The fit is made at a few vertices and blended between them, as Cleveland & Grosse's `dloess` does by default
//! (Cleveland & Grosse 1991, "Computational methods for local regression"; netlib a/dloess): a k-d tree cuts the
//! observations at medians until a cell holds at most span · cell · n of them, a local quadratic gives value and
//! slope at each cut, and cubic Hermite polynomials join neighbouring cuts.

use std::collections::VecDeque;

use cellmill_matrix::{Error, Result};

use super::quadratic::{TERMS, quadratic};

/// Share of a neighbourhood's observations that one cell of the tree may hold (dloess `cell`).
const CELL: f64 = 0.2;
/// Share of the range by which the outermost vertices stand off the observations.
const MARGIN: f64 = 0.005;
/// The tree has no more cells and vertices than observations, or than this.
const LEAST_ROOM: usize = 200;

/// A fit.
#[derive(Debug)]
pub(super) struct Fit {
    /// Fitted value of each observation, in the order given.
    pub(super) fitted: Vec<f64>,
    /// Vertices whose local fit was singular: the solution of least norm was taken.
    pub(super) singular: usize,
    /// Vertices whose neighbourhood held one value of x alone and was widened (dloess stops there).
    pub(super) widened: usize,
}

/// Value and slope of the surface at a vertex.
#[derive(Clone, Copy, Debug)]
struct Vertex {
    x: f64,
    value: f64,
    slope: f64,
}

/// A cell of the tree between two vertices.
#[derive(Debug)]
struct Cell {
    low: usize,
    high: usize,
    /// Where it is cut, and the cells on both sides (x <= cut goes left).
    cut: Option<(f64, usize, usize)>,
}

/// Fits `y` on `x` (finite, same length) with neighbourhoods of `span` · n observations.
pub(super) fn loess(x: &[f64], y: &[f64], span: f64) -> Result<Fit> {
    let n = x.len();
    let near = n.min((n as f64 * span + 1e-5).floor() as usize);
    if near <= TERMS {
        return Err(Error::option(
            "span",
            span,
            format!("a local fit needs at least {} of the {n} genes that vary; raise span or leave out this batch", TERMS + 1),
        ));
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| x[*a].total_cmp(&x[*b]));
    let sorted = Sorted { x: order.iter().map(|at| x[*at]).collect(), y: order.iter().map(|at| y[*at]).collect(), near };
    let (cells, cuts) = grow(&sorted.x, (n as f64 * (span * CELL)).floor() as i64);
    let mut fit = Fit { fitted: vec![0.0; n], singular: 0, widened: 0 };
    let vertices: Vec<Vertex> = cuts.iter().map(|cut| sorted.vertex(*cut, &mut fit)).collect();
    for (&z, fitted) in x.iter().zip(&mut fit.fitted) {
        let mut at = 0;
        while let Some((cut, left, right)) = cells[at].cut {
            at = if z <= cut { left } else { right };
        }
        *fitted = blend(z, vertices[cells[at].low], vertices[cells[at].high]);
    }
    Ok(fit)
}

/// The cubic that has both vertices' values and slopes (Hermite basis).
fn blend(z: f64, low: Vertex, high: Vertex) -> f64 {
    let width = high.x - low.x;
    let h = (z - low.x) / width;
    let g = 1.0 - h;
    let value = g * g * (1.0 + 2.0 * h) * low.value + h * h * (3.0 - 2.0 * h) * high.value;
    let slope = h * g * g * low.slope - h * h * g * high.slope;
    value + slope * width
}

/// Cuts sorted `x` into cells of at most `most` observations; gives the cells and each vertex's place.
///
/// Cells are cut in the order in which they were made, so that a tree without room for more stops where dloess does.
fn grow(x: &[f64], most: i64) -> (Vec<Cell>, Vec<f64>) {
    let n = x.len();
    let (least, largest) = (x[0], x[n - 1]);
    let margin = MARGIN * (largest - least).max(1e-10 * least.abs().max(largest.abs()) + 1e-30);
    let mut cuts = vec![least - margin, largest + margin];
    let mut cells = vec![Cell { low: 0, high: 1, cut: None }];
    let room = n.max(LEAST_ROOM);
    // Cells to look at, with their observations first..=last (0-based; last = first - 1 is none).
    let mut open = VecDeque::from([(0usize, 0i64, n as i64 - 1)]);
    while let Some((at, first, last)) = open.pop_front() {
        if last - first < most || cells.len() + 2 > room || cuts.len() + 1 > room {
            continue;
        }
        let cut_after = middle(x, first, last);
        let cut = x[cut_after as usize];
        let (low, high) = (cells[at].low, cells[at].high);
        if cut == cuts[low] || cut == cuts[high] {
            continue;
        }
        let vertex = cuts.len();
        cuts.push(cut);
        let left = cells.len();
        cells.push(Cell { low, high: vertex, cut: None });
        cells.push(Cell { low: vertex, high, cut: None });
        cells[at].cut = Some((cut, left, left + 1));
        open.push_back((left, first, cut_after));
        open.push_back((left + 1, cut_after + 1, last));
    }
    (cells, cuts)
}

/// The last observation left of the cut: the median, or the nearest place where neighbours differ, right before left.
fn middle(x: &[f64], first: i64, last: i64) -> i64 {
    // dloess halves 1-based places: floor((first + last + 2) / 2) - 1.
    let median = (first + last + 2) / 2 - 1;
    let mut offset = 0;
    while median + offset < last && median + offset >= first {
        let at = (median + offset) as usize;
        if x[at] != x[at + 1] {
            return median + offset;
        }
        offset = if offset > 0 { -offset } else { 1 - offset };
    }
    median
}

/// Observations in ascending order of x.
struct Sorted {
    x: Vec<f64>,
    y: Vec<f64>,
    /// Observations in a neighbourhood.
    near: usize,
}

impl Sorted {
    /// The local quadratic at `q`: weighted least squares over the nearest observations.
    fn vertex(&self, q: f64, fit: &mut Fit) -> Vertex {
        let n = self.x.len();
        let mut near = self.near;
        loop {
            let first = first_of_nearest(&self.x, q, near);
            let x = &self.x[first..first + near];
            let radius = (q - x[0]).abs().max((x[near - 1] - q).abs());
            let rho = radius * radius;
            let mut weights: Vec<f64> = x.iter().map(|x| tricube_root((x - q) * (x - q), rho)).collect();
            if weights.iter().all(|weight| *weight == 0.0) {
                if near < n {
                    near = n.min(near * 2);
                    continue;
                }
                // All observations are equally far away.
                weights.fill(1.0);
            }
            fit.widened += usize::from(near > self.near);
            let (value, slope, singular) = quadratic(q, x, &self.y[first..first + near], &weights);
            fit.singular += usize::from(singular);
            return Vertex { x: q, value, slope };
        }
    }
}

/// Where the `near` observations nearest to `q` begin in sorted `x`.
fn first_of_nearest(x: &[f64], q: f64, near: usize) -> usize {
    // Moving the window by one trades its first observation for the one behind its last.
    let (mut low, mut high) = (0, x.len() - near);
    while low < high {
        let at = (low + high) / 2;
        if q - x[at] > x[at + near] - q { low = at + 1 } else { high = at }
    }
    low
}

/// Square root of the tricube weight (1 - (d / radius)³)³, from squares of both; 0 where the radius is 0.
fn tricube_root(squared_distance: f64, rho: f64) -> f64 {
    let u = (squared_distance / rho).sqrt();
    let t = 1.0 - u * u * u;
    // `max` also turns the NaN of 0 / 0 into 0.
    (t * t * t).max(0.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// skmisc.loess(x, y, span, degree=2).fit() on x = i² / 400 + i / 10, y = sin(x / 3) + (i mod 7) / 10, i = 0..59.
    #[test]
    fn equals_skmisc() {
        let x: Vec<f64> = (0..60).map(|i| f64::from(i * i) / 400.0 + f64::from(i) / 10.0).collect();
        let y: Vec<f64> = x.iter().enumerate().map(|(i, x)| (x / 3.0).sin() + (i % 7) as f64 / 10.0).collect();
        for (span, expected) in SKMISC {
            let fit = loess(&x, &y, span).unwrap();
            for (at, expected) in [0, 1, 7, 20, 33, 58, 59].into_iter().zip(expected) {
                assert!((fit.fitted[at] - expected).abs() < 1e-11, "span {span}, {at}: {} {expected}", fit.fitted[at]);
            }
            assert_eq!((fit.singular, fit.widened), (0, 0));
        }
    }

    /// Fitted values at 0, 1, 7, 20, 33, 58, 59.
    const SKMISC: [(f64, [f64; 7]); 2] = [
        (
            0.3,
            [
                0.11608340641927,
                0.19323165478209,
                0.59525079366998,
                1.13078638714782,
                1.20620412559403,
                -0.76884511930220,
                -0.79308658698791,
            ],
        ),
        (
            0.75,
            [
                0.19715785108761,
                0.24460126981398,
                0.54823693638283,
                1.14858506596003,
                1.19112485261886,
                -0.86734408280568,
                -0.95873291407649,
            ],
        ),
    ];

    #[test]
    fn a_quadratic_is_fitted_exactly_at_cuts() {
        let x: Vec<f64> = (0..100).map(|i| f64::from(i) / 10.0).collect();
        let y: Vec<f64> = x.iter().map(|x| 2.0 - 3.0 * x + 0.5 * x * x).collect();
        // A cubic Hermite polynomial reproduces a quadratic between its cuts too.
        let fit = loess(&x, &y, 0.3).unwrap();
        for (fitted, y) in fit.fitted.iter().zip(&y) {
            assert!((fitted - y).abs() < 1e-10);
        }
    }

    proptest::proptest! {
        /// The fit is linear in y and moves with a shift of y.
        #[test]
        fn the_fit_is_linear(y in proptest::collection::vec(-5.0f64..5.0, 30..90), scale in 0.1f64..10.0, shift in -9.0f64..9.0) {
            let x: Vec<f64> = (0..y.len()).map(|i| ((i * 31) % 97) as f64 / 20.0).collect();
            let moved: Vec<f64> = y.iter().map(|y| y * scale + shift).collect();
            let (fit, moved) = (loess(&x, &y, 0.4).unwrap(), loess(&x, &moved, 0.4).unwrap());
            for (a, b) in fit.fitted.iter().zip(&moved.fitted) {
                proptest::prop_assert!((a * scale + shift - b).abs() < 1e-8 * (1.0 + b.abs()), "{a} {b}");
            }
        }
    }

    #[test]
    fn the_order_of_observations_does_not_matter() {
        let x: Vec<f64> = (0..300).map(|i| f64::from((i * 7919) % 1009) / 100.0).collect();
        let y: Vec<f64> = x.iter().map(|x| x.cos() + x).collect();
        let forward = loess(&x, &y, 0.3).unwrap().fitted;
        let back: Vec<f64> = x.iter().rev().copied().collect();
        let back_y: Vec<f64> = y.iter().rev().copied().collect();
        let mut reversed = loess(&back, &back_y, 0.3).unwrap().fitted;
        reversed.reverse();
        assert_eq!(forward, reversed);
    }

    #[test]
    fn ties_and_few_values_end_well() {
        // One value of x alone: the mean of y.
        let fit = loess(&[2.0; 40], &[1.0; 40].map(|y: f64| y * 3.0), 0.3).unwrap();
        assert!(fit.fitted.iter().all(|value| (value - 3.0).abs() < 1e-9), "{fit:?}");
        // Half of the observations share one x, which is the cut of the first cell: dloess stops, we widen.
        let mut x = vec![0.0; 60];
        x.extend((1..=60).map(f64::from));
        let y: Vec<f64> = x.iter().map(|x| 0.25 * x).collect();
        let fit = loess(&x, &y, 0.3).unwrap();
        assert!(fit.fitted.iter().all(|value| value.is_finite()));
        // Two values of x: the quadratic is singular.
        let x: Vec<f64> = (0..40).map(|i| f64::from(i % 2)).collect();
        let fit = loess(&x, &x, 0.9).unwrap();
        assert!(fit.singular > 0 && fit.fitted.iter().all(|value| value.is_finite()), "{fit:?}");
        assert!(loess(&[1.0, 2.0, 3.0, 4.0], &[0.0; 4], 0.9).is_err());
        assert!(loess(&[], &[], 0.3).is_err());
        // A neighbourhood so small that cells hold no observation at most.
        let x: Vec<f64> = (0..400).map(f64::from).collect();
        assert!(loess(&x, &x, 0.0101).unwrap().fitted.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

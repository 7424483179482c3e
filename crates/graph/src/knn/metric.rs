//! What near means: the metrics, and how each is searched.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use cellmill_matrix::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::rows::Rows;
use crate::{Distances, Embedding};

/// What near means, of rows x and y. Definitions are those of `scipy.spatial.distance` where it has them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Metric {
    /// `sqrt(Σ (x − y)²)`.
    #[default]
    Euclidean,
    /// `Σ (x − y)²`.
    SqEuclidean,
    /// `1 − x·y / (|x| |y|)`; a row of zeros is at distance 1 from every other row.
    Cosine,
    /// The cosine distance of rows less their means; a constant row is at distance 1 from every other row.
    Correlation,
    /// `sqrt(1 − Σ sqrt(x y))` of rows divided by their sums, from 0 on; a row of zeros is at distance 1 from all that are none.
    Hellinger,
    /// Not a distance but a similarity, `Σ x y`: the largest are the nearest. Rows of a result descend, and may be negative.
    InnerProduct,
    /// `Σ |x − y|`.
    Manhattan,
    /// `max |x − y|`.
    Chebyshev,
    /// `(Σ |x − y|^p)^(1/p)`, p > 0 and neither 1, 2 nor infinite, which have names of their own.
    Minkowski(f64),
    /// `Σ |x − y| / (|x| + |y|)`, 0 where both are 0.
    Canberra,
    /// `Σ |x − y| / Σ (|x| + |y|)`, scikit-learn's; the same as scipy's for numbers from 0 on.
    BrayCurtis,
    /// Share of coordinates that differ.
    Hamming,
    /// `sqrt(½ Σ (x ln(x / m) + y ln(y / m)))`, m = (x + y) / 2, of rows divided by their sums, from 0 on; a row of zeros is at
    /// `sqrt(ln 2)`, the largest distance, from all that are none.
    JensenShannon,
}

/// Names of the metrics, synonyms together.
const NAMES: [(&[&str], Metric); 13] = [
    (&["euclidean", "l2"], Metric::Euclidean),
    (&["sqeuclidean"], Metric::SqEuclidean),
    (&["cosine"], Metric::Cosine),
    (&["correlation"], Metric::Correlation),
    (&["hellinger"], Metric::Hellinger),
    (&["inner_product"], Metric::InnerProduct),
    (&["manhattan", "cityblock", "l1", "taxicab"], Metric::Manhattan),
    (&["chebyshev", "linf"], Metric::Chebyshev),
    (&["minkowski", "lp"], Metric::Minkowski(2.0)),
    (&["canberra"], Metric::Canberra),
    (&["braycurtis"], Metric::BrayCurtis),
    (&["hamming"], Metric::Hamming),
    (&["jensenshannon"], Metric::JensenShannon),
];

impl Metric {
    /// The metric of a name, as scanpy or rapids-singlecell spells it; `p` is the exponent of `minkowski`, 2 without.
    pub fn named(name: &str, p: Option<f64>) -> Result<Metric> {
        let Some(&(_, metric)) = NAMES.iter().find(|(names, _)| names.contains(&name)) else {
            let all: Vec<&str> = NAMES.iter().flat_map(|(names, _)| names.iter().copied()).collect();
            return Err(Error::option("metric", format!("'{name}'"), format!("it is one of {}", all.join(", "))));
        };
        match (metric, p) {
            (Metric::Minkowski(_), Some(p)) if p <= 0.0 || p.is_nan() => Err(Error::option("p", p, "the exponent of minkowski is above 0")),
            (Metric::Minkowski(usual), p) => Ok(match p.unwrap_or(usual) {
                1.0 => Metric::Manhattan,
                2.0 => Metric::Euclidean,
                f64::INFINITY => Metric::Chebyshev,
                p => Metric::Minkowski(p),
            }),
            (metric, None) => Ok(metric),
            (_, Some(p)) => Err(Error::option("p", p, format!("minkowski has an exponent, {name} has none"))),
        }
    }

    /// What a distance is of the squared Euclidean distance between rows turned so; `None` for metrics that are no function of it:
    /// all pairs are compared, by the CPU.
    pub(super) fn scale(self) -> Option<Scale> {
        match self {
            Metric::Euclidean => Some(Scale::Root),
            Metric::SqEuclidean => Some(Scale::Whole),
            Metric::Cosine | Metric::Correlation => Some(Scale::Half),
            Metric::Hellinger => Some(Scale::RootHalf),
            _ => None,
        }
    }

    /// Whether all pairs are compared, whatever the mode.
    pub fn is_of_pairs(self) -> bool {
        self.scale().is_none()
    }

    /// What is done to rows before they are compared.
    pub(super) fn turn(self) -> Option<Turn> {
        match self {
            Metric::Cosine => Some(Turn::Unit),
            Metric::Correlation => Some(Turn::CentredUnit),
            Metric::Hellinger => Some(Turn::Roots),
            Metric::JensenShannon => Some(Turn::Shares),
            _ => None,
        }
    }

    /// Coordinates that it takes.
    pub(super) fn takes(self) -> RangeInclusive<f32> {
        /// Its square, times any number of dimensions in use, is finite in f32.
        const LARGEST: f32 = 1e17;
        match self {
            Metric::Hellinger | Metric::JensenShannon => 0.0..=LARGEST,
            _ => -LARGEST..=LARGEST,
        }
    }

    /// Distances for the weights: as they are, but for similarities. These become gaps to a row's largest, moved by the row's range (1
    /// if that is 0), so that the best of others is as far from the cell itself as the worst is from the best.
    pub fn for_weights(self, found: &Distances) -> Cow<'_, Distances> {
        if self != Metric::InnerProduct || found.k == 0 {
            return Cow::Borrowed(found);
        }
        let mut gaps = found.clone();
        gaps.distances.par_chunks_exact_mut(found.k).for_each(|row| {
            let (best, worst) = (row[0], row[row.len() - 1]);
            let range = if best > worst { best - worst } else { 1.0 };
            row.iter_mut().for_each(|x| *x = best - *x + range);
        });
        Cow::Owned(gaps)
    }
}

/// What a distance is of the squared Euclidean distance between the rows that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Scale {
    Root = 0,
    Half = 1,
    Whole = 2,
    RootHalf = 3,
}

impl Scale {
    /// The distance for a squared Euclidean distance; a GPU has the same (`knn.cu`, `scaled`), by these numbers.
    pub(super) fn distance(self, squared: f32) -> f32 {
        match self {
            Scale::Root => squared.sqrt(),
            Scale::Half => 0.5 * squared,
            Scale::Whole => squared,
            Scale::RootHalf => (0.5 * squared).sqrt(),
        }
    }

    /// The squared Euclidean distance for a distance.
    pub(super) fn squared(self, distance: f32) -> f64 {
        let distance = f64::from(distance);
        match self {
            Scale::Root => distance * distance,
            Scale::Half => 2.0 * distance,
            Scale::Whole => distance,
            Scale::RootHalf => 2.0 * distance * distance,
        }
    }
}

/// What is done to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Divided by its length: `1 − cos = |x − y|² / 2`.
    Unit,
    /// The same, less its mean.
    CentredUnit,
    /// Roots of its shares: `1 − Σ sqrt(x y) = |sqrt x − sqrt y|² / 2`.
    Roots,
    /// Divided by its sum.
    Shares,
}

impl Turn {
    /// Whether a row can't be turned: a row of zeros, or a constant one that would be less its mean.
    fn is_blank(self, row: &[f32]) -> bool {
        let first = if self == Turn::CentredUnit { row[0] } else { 0.0 };
        row.iter().all(|&x| x == first)
    }

    /// Rows that can't be turned, ascending.
    pub(super) fn blanks(self, x: Embedding) -> Vec<u32> {
        (0..x.n() as u32).into_par_iter().filter(|&at| self.is_blank(x.row(at as usize))).collect()
    }

    /// Whether blank rows are equally far from all others, also from each other.
    pub(super) fn levels(self) -> bool {
        matches!(self, Turn::Unit | Turn::CentredUnit)
    }

    fn row(self, row: &[f32], out: &mut [f32]) {
        let sum: f64 = row.iter().map(|&x| f64::from(x)).sum();
        let mean = if self == Turn::CentredUnit { sum / row.len() as f64 } else { 0.0 };
        let by = match self {
            Turn::Unit | Turn::CentredUnit => row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>().sqrt(),
            Turn::Roots | Turn::Shares => sum,
        };
        for (out, &x) in out.iter_mut().zip(row) {
            let share = (f64::from(x) - mean) / by;
            *out = if self == Turn::Roots { share.sqrt() } else { share } as f32;
        }
    }
}

/// Rows that are turned. If any row is blank, rows get one more coordinate, 1 for the blank ones, which are zero elsewhere: these are then
/// as far from all others as can be.
pub(super) struct Turned<'a> {
    pub rows: &'a dyn Rows,
    pub turn: Turn,
    /// Whether there is one more coordinate.
    pub wider: bool,
}

impl Rows for Turned<'_> {
    fn n(&self) -> usize {
        self.rows.n()
    }

    fn d(&self) -> usize {
        self.rows.d() + usize::from(self.wider)
    }

    fn copy(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let (narrow, d) = (self.rows.d(), self.d());
        let mut rows = vec![0f32; out.len() / d * narrow];
        self.rows.copy(first, &mut rows)?;
        for (out, row) in out.chunks_exact_mut(d).zip(rows.chunks_exact(narrow)) {
            out.fill(0.0);
            match self.turn.is_blank(row) {
                true => out[narrow..].fill(1.0),
                false => self.turn.row(row, &mut out[..narrow]),
            }
        }
        Ok(())
    }
}

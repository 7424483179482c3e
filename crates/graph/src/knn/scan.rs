//! A fused scan: blocks of queries against packed candidates, keeping the nearest few of each query.

use super::kernel::{CANDIDATES, Form, QUERIES, Scores, Simd};

/// A candidate and its squared distance in one number whose order is (distance, id).
pub(super) type Key = u64;

/// A place that holds no candidate yet: farther than any.
pub(super) const EMPTY: Key = (f32::INFINITY.to_bits() as u64) << 32 | u32::MAX as u64;

/// The key of `id` at a distance ≥ 0 (below 0 by rounding counts as 0).
pub(super) fn key(distance: f32, id: u32) -> Key {
    (distance.max(0.0).to_bits() as u64) << 32 | u64::from(id)
}

/// The distance in a key.
pub(super) fn distance(key: Key) -> f32 {
    f32::from_bits((key >> 32) as u32)
}

/// The id in a key.
pub(super) fn id(key: Key) -> u32 {
    key as u32
}

/// Candidates packed for the kernel: panels of 32, each `(d, 32)` row-major, moved by `−centre`.
#[derive(Default)]
pub(super) struct Panels {
    d: usize,
    /// `(panels, d, 32)`.
    data: Vec<f32>,
    /// `(panels, 32)`: the scores before the first coordinate.
    start: Vec<[f32; CANDIDATES]>,
}

impl Panels {
    /// Packs `rows`, one slice of `d` each.
    pub(super) fn pack<'a>(&mut self, simd: Simd, form: Form, mut rows: impl ExactSizeIterator<Item = &'a [f32]>, centre: &[f32]) {
        let d = centre.len();
        self.d = d;
        let panels = rows.len().div_ceil(CANDIDATES);
        self.data.resize(panels * d * CANDIDATES, 0.0);
        self.start.clear();
        for panel in self.data.chunks_exact_mut((d * CANDIDATES).max(1)) {
            // Places without a candidate take the centre's row, and are infinitely far.
            let mut here = [centre; CANDIDATES];
            let count = here.iter_mut().zip(&mut rows).map(|(place, row)| *place = row).count();
            let mut norms = [0f32; CANDIDATES];
            simd.turn(&here, centre, panel, &mut norms);
            let mut start = [f32::INFINITY; CANDIDATES];
            start[..count].copy_from_slice(&if form == Form::Dot { norms } else { [0.0; CANDIDATES] }[..count]);
            self.start.push(start);
        }
    }

    /// Number of panels.
    pub(super) fn len(&self) -> usize {
        self.start.len()
    }
}

/// A block of queries, moved by `−centre` as the candidates are, each with its row in a table of nearest.
#[derive(Clone, Default)]
pub(super) struct Queries {
    form: Form,
    d: usize,
    /// `(queries, d)`, whole tiles.
    data: Vec<f32>,
    /// `|x|²` (0 for [`Form::Difference`]).
    norms: Vec<f32>,
    /// The row of `best`.
    slots: Vec<u32>,
    /// The id that is the query itself.
    own: Vec<u32>,
}

impl Queries {
    /// Starts an empty block of rows of `d`, to be scanned in this form.
    pub(super) fn clear(&mut self, form: Form, d: usize) {
        self.form = form;
        self.d = d;
        self.data.clear();
        self.norms.clear();
        self.slots.clear();
        self.own.clear();
    }

    /// Adds a query: its nearest go to row `slot`, and the candidate `own` (`u32::MAX` for none) is left out.
    pub(super) fn push(&mut self, simd: Simd, row: &[f32], centre: &[f32], slot: u32, own: u32) {
        let from = self.data.len();
        self.data.resize(from + self.d, 0.0);
        let out = &mut self.data[from..];
        self.norms.push(match self.form {
            Form::Difference => {
                simd.moved(row, centre, 1.0, out);
                0.0
            }
            Form::Dot => 0.25 * simd.moved(row, centre, -2.0, out),
        });
        self.slots.push(slot);
        self.own.push(own);
    }

    /// `|x|²` of a query around its centre.
    pub(super) fn norm(&self, at: usize) -> f32 {
        self.norms[at]
    }

    /// Number of queries.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

/// Squared distances of all queries to all candidates, `(queries, 32 panels)`; ∞ where a panel has no candidate.
pub(super) fn all(simd: Simd, queries: &mut Queries, candidates: &Panels, out: &mut Vec<f32>) {
    let (d, n) = (queries.d, queries.len());
    let (size, width) = (d * CANDIDATES, candidates.len() * CANDIDATES);
    queries.data.resize(n.div_ceil(QUERIES) * QUERIES * d, 0.0);
    out.clear();
    out.resize(n * width, f32::INFINITY);
    let mut scores: Scores = [[0.0; CANDIDATES]; QUERIES];
    for first in (0..n).step_by(QUERIES) {
        let block = &queries.data[first * d..(first + QUERIES) * d];
        for panel in 0..candidates.len() {
            let (rows, start) = (&candidates.data[panel * size..(panel + 1) * size], &candidates.start[panel]);
            simd.tile(queries.form, block, rows, start, &[f32::INFINITY; QUERIES], &mut scores);
            for (i, scores) in scores.iter().enumerate().take(n - first) {
                let place = &mut out[(first + i) * width + panel * CANDIDATES..][..CANDIDATES];
                place.iter_mut().zip(scores).for_each(|(place, score)| *place = (score + queries.norms[first + i]).max(0.0));
            }
        }
    }
}

/// Scans panels `panels` of `candidates`, whose ids count up from `first_id` at panel 0, for every query; `best` is
/// `(slots, keep)` row-major, each row ascending.
pub(super) fn scan(
    simd: Simd,
    queries: &mut Queries,
    candidates: &Panels,
    panels: std::ops::Range<usize>,
    first_id: u32,
    best: &mut [Key],
    keep: usize,
) {
    let (d, n) = (queries.d, queries.len());
    let size = d * CANDIDATES;
    queries.data.resize(n.div_ceil(QUERIES) * QUERIES * d, 0.0);
    let mut scores: Scores = [[0.0; CANDIDATES]; QUERIES];
    for first in (0..n).step_by(QUERIES) {
        let block = &queries.data[first * d..(first + QUERIES) * d];
        let here = QUERIES.min(n - first);
        // A place without a query accepts nothing.
        let mut below = [f32::NEG_INFINITY; QUERIES];
        for (i, below) in below.iter_mut().enumerate().take(here) {
            let slot = queries.slots[first + i] as usize;
            *below = distance(best[slot * keep + keep - 1]) - queries.norms[first + i];
        }
        for panel in panels.clone() {
            let masks = simd.tile(
                queries.form,
                block,
                &candidates.data[panel * size..(panel + 1) * size],
                &candidates.start[panel],
                &below,
                &mut scores,
            );
            for i in 0..here {
                let mut mask = masks[i];
                if mask == 0 {
                    continue;
                }
                let slot = queries.slots[first + i] as usize;
                let row = &mut best[slot * keep..(slot + 1) * keep];
                let (norm, own) = (queries.norms[first + i], queries.own[first + i]);
                while mask != 0 {
                    let j = mask.trailing_zeros() as usize;
                    mask &= mask - 1;
                    let id = first_id + (panel * CANDIDATES + j) as u32;
                    if id != own {
                        simd.insert(row, key(scores[i][j] + norm, id));
                    }
                }
                below[i] = distance(row[keep - 1]) - norm;
            }
        }
    }
}

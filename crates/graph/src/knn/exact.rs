//! Exact neighbours: every query against every cell.
//!
//! A first pass scores by `|y|² − 2 x·y` around the centre of the data and keeps a few more than k. A row is done if the bound
//! on that form's rounding shows that nothing better was left out; the others are scanned again by `Σ (y − x)²`.

use std::ops::Range;

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::kernel::{CANDIDATES, Form, Simd};
use super::metric::Scale;
use super::progress::Progress;
use super::rank::{self, Ranking};
use super::rows::{Reader, Shelf};
use super::scan::{self, EMPTY, Key, Panels, Queries, scan};
use crate::{Distances, Embedding};

/// Queries of one task: their table of nearest and one run of panels fit in L2.
const BLOCK: usize = 192;
/// Panels scanned before the next query: 512 candidates.
const RUN: usize = 16;
/// Candidates packed by one task.
const PACK: usize = 16 * 512;

/// The `k` nearest others of each cell, `k < n`.
pub(super) fn neighbours(simd: Simd, x: Embedding, k: usize, scale: Scale, progress: &Progress) -> Result<Distances> {
    let (n, d) = (x.n(), x.d);
    let keep = rank::keep(k, n);
    let mut indices = vec![0u32; n * k];
    let mut distances = vec![0f32; n * k];

    let packed = Packed::new(simd, x, Form::Dot, rank::centre(Shelf::Memory(x))?);
    // |rounding of the score| ≤ γ (|y|² + 2 |x| |y|), γ ≈ (d + 4) 2⁻²⁴: one rounding a fused step, two for centring, norms, limit.
    let gamma = (d + 4) as f64 * f64::from(f32::EPSILON);
    let doubtful: Vec<Vec<u32>> = indices
        .par_chunks_mut(BLOCK * k)
        .zip(distances.par_chunks_mut(BLOCK * k))
        .enumerate()
        .map_init(Work::default, |work, (block, (indices, distances))| {
            let mut reader = Shelf::Memory(x).reader();
            let rows: Vec<u32> = (block * BLOCK..((block + 1) * BLOCK).min(n)).map(|row| row as u32).collect();
            work.scan(simd, x, &rows, &packed, keep);
            let mut doubtful = Vec::new();
            for (slot, &row) in rows.iter().enumerate() {
                let nearest = &work.best[slot * keep..(slot + 1) * keep];
                let ranked = work.ranking.rank(simd, &mut reader, scale, row, nearest, &[])?;
                let span = slot * k..(slot + 1) * k;
                let farthest = scale.squared(emit(ranked, &mut indices[span.clone()], &mut distances[span]));
                // Anyone nearer than `farthest` lies within |x| + farthest of the centre.
                let norm = f64::from(work.queries.norm(slot)).sqrt();
                let reach = norm + farthest.sqrt();
                let bound = gamma * (norm * norm + reach * reach + 2.0 * norm * reach);
                if keep < n - 1 && f64::from(scan::distance(nearest[keep - 1])) - bound <= farthest {
                    doubtful.push(row);
                }
            }
            progress.add(rows.len(), "exact")?;
            Ok(doubtful)
        })
        .collect::<Result<_>>()?;
    drop(packed);

    let doubtful = doubtful.concat();
    if !doubtful.is_empty() {
        let packed = Packed::new(simd, x, Form::Difference, vec![0.0; d]);
        let again: Vec<Vec<(u32, Vec<Key>)>> = doubtful
            .par_chunks(BLOCK)
            .map_init(Work::default, |work, rows| {
                work.scan(simd, x, rows, &packed, keep);
                progress.add(rows.len(), "exact, close calls")?;
                let nearest = |slot: usize| work.best[slot * keep..(slot + 1) * keep].to_vec();
                Ok(rows.iter().enumerate().map(|(slot, &row)| (row, nearest(slot))).collect())
            })
            .collect::<Result<_>>()?;
        let (mut ranking, mut reader) = (Ranking::default(), Shelf::Memory(x).reader());
        for (row, nearest) in again.iter().flatten() {
            let span = *row as usize * k..(*row as usize + 1) * k;
            emit(ranking.rank(simd, &mut reader, scale, *row, nearest, &[])?, &mut indices[span.clone()], &mut distances[span]);
        }
    }
    Ok(Distances { k, indices, distances })
}

/// The exact nearest others of a few rows: keys with the metric's distance, `k` a row.
pub(super) fn sample(simd: Simd, x: Shelf<'_>, rows: &[u32], k: usize, scale: Scale, progress: &Progress) -> Result<Vec<Vec<Key>>> {
    let (n, d) = (x.n(), x.d());
    let keep = rank::keep(k, n);
    let centre = rank::centre(x)?;
    let mut reader = x.reader();
    let mut queries = Queries::default();
    queries.clear(Form::Dot, d);
    for (slot, &row) in rows.iter().enumerate() {
        reader.start();
        queries.push(simd, reader.row(row as usize)?, &centre, slot as u32, row);
    }
    // Each task packs one stretch of candidates and scans it for all rows.
    let stretch = 32768;
    let found: Vec<Vec<Key>> = (0..n.div_ceil(stretch))
        .into_par_iter()
        .map_init(
            || (queries.clone(), x.reader()),
            |(queries, reader), part| {
                let span = part * stretch..((part + 1) * stretch).min(n);
                reader.start();
                let mut best = vec![EMPTY; rows.len() * keep];
                let mut panels = Panels::default();
                for from in span.clone().step_by(RUN * CANDIDATES) {
                    let to = (from + RUN * CANDIDATES).min(span.end);
                    panels.pack(simd, Form::Dot, reader.stretch(from..to)?, &centre);
                    scan(simd, queries, &panels, 0..panels.len(), from as u32, &mut best, keep);
                }
                progress.add(span.len(), "sample")?;
                Ok(best)
            },
        )
        .collect::<Result<_>>()?;
    let nearest = |reader: &mut Reader<'_>, (slot, &row): (usize, &u32)| {
        let mut keys: Vec<Key> = found.iter().flat_map(|best| &best[slot * keep..(slot + 1) * keep]).copied().collect();
        keys.sort_unstable();
        keys.truncate(keep);
        reader.start();
        let mut ranking = Ranking::default();
        Ok(ranking.rank(simd, reader, scale, row, &keys, &[])?[..k].to_vec())
    };
    rows.par_iter().enumerate().map_init(|| x.reader(), nearest).collect()
}

/// Copies the first `indices.len()` of a ranked row, and gives the distance of the last.
pub(super) fn emit(ranked: &[Key], indices: &mut [u32], distances: &mut [f32]) -> f32 {
    for ((&key, index), distance) in ranked.iter().zip(indices.iter_mut()).zip(distances.iter_mut()) {
        *index = scan::id(key);
        *distance = scan::distance(key);
    }
    distances.last().copied().unwrap_or(0.0)
}

/// All cells, packed in parts of [`PACK`].
struct Packed {
    form: Form,
    /// What all rows are moved by.
    centre: Vec<f32>,
    parts: Vec<Panels>,
}

impl Packed {
    fn new(simd: Simd, x: Embedding, form: Form, centre: Vec<f32>) -> Self {
        let span = |part: usize| -> Range<usize> { part * PACK..((part + 1) * PACK).min(x.n()) };
        let parts = (0..x.n().div_ceil(PACK))
            .into_par_iter()
            .map(|part| {
                let mut panels = Panels::default();
                panels.pack(simd, form, span(part).map(|row| x.row(row)), &centre);
                panels
            })
            .collect();
        Packed { form, centre, parts }
    }
}

/// What a task needs, kept between tasks.
#[derive(Default)]
struct Work {
    queries: Queries,
    best: Vec<Key>,
    ranking: Ranking,
}

impl Work {
    fn load(&mut self, simd: Simd, form: Form, x: Embedding, rows: &[u32], centre: &[f32], keep: usize) {
        self.best.clear();
        self.best.resize(rows.len() * keep, EMPTY);
        self.queries.clear(form, x.d);
        for (slot, &row) in rows.iter().enumerate() {
            self.queries.push(simd, x.row(row as usize), centre, slot as u32, row);
        }
    }

    fn scan(&mut self, simd: Simd, x: Embedding, rows: &[u32], packed: &Packed, keep: usize) {
        self.load(simd, packed.form, x, rows, &packed.centre, keep);
        for (part, panels) in packed.parts.iter().enumerate() {
            for from in (0..panels.len()).step_by(RUN) {
                let run = from..(from + RUN).min(panels.len());
                scan(simd, &mut self.queries, panels, run, (part * PACK) as u32, &mut self.best, keep);
            }
        }
    }
}

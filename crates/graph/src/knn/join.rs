//! The clustered self-join: each cell against the cells of the lists nearest to it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cellmill_cuda::Device;
use cellmill_matrix::{Error, Result, Watch};
use rayon::prelude::*;

use super::crew::{Crew, Found, Order};
use super::cuda::{self, Visits};
use super::exact::emit;
use super::kernel::{CANDIDATES, Form, Simd};
use super::lists::{Lists, around};
use super::metric::Scale;
use super::progress::Progress;
use super::rank::{self, Ranking};
use super::rows::{Reader, Shelf};
use super::scan::{self, EMPTY, Key, Panels, Queries, scan};
use crate::Distances;

/// Lists of one task, at most: their cells share packed candidates.
const GROUP: usize = 16;
/// Tasks of a thread, at least. How the lists are dealt out changes no bit.
const TASKS: usize = 24;
/// Lists around a cell's own of which the repair knows whether the cell searched them, in words of 64. A repeated comparison beyond costs time
/// only.
pub(super) const WORDS: usize = 2;

/// Which lists a cell searches besides its own.
///
/// A cell that is `m` nearer to its own list's mean than to the plane half-way to another's has no one nearer than `m` in that list. Its
/// neighbours lie in many directions, so most lists with `m` well below the distance `r` of its k-th neighbour hold none either: those with
/// `m < reach · r` are searched, `r` taken from its own list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Lists looked at around a list.
    pub width: usize,
    /// See above; ∞ searches all that are looked at.
    pub reach: f32,
}

impl Reach {
    /// Before any search.
    pub(super) const NOWHERE: Reach = Reach { width: 0, reach: f32::NEG_INFINITY };
}

/// How far a cell is from the plane between two means: `(|x − c|² − |x − own|²) / 2 |c − own|`.
pub(super) fn margin(to_other: f32, to_own: f32, apart: f32) -> f32 {
    if apart > 0.0 { 0.5 * (to_other - to_own) / apart } else { 0.0 }
}

/// Neighbours found in the lists, and which lists were searched.
pub(super) struct Joined {
    /// In positions.
    pub distances: Distances,
    /// Which lists were searched.
    pub searched: Searched,
    /// Whether the row's neighbours are others than before the last join or repair.
    pub changed: Vec<bool>,
    /// What was searched.
    reach: Reach,
}

impl Joined {
    /// Nothing was searched.
    pub(super) fn nothing(n: usize, k: usize) -> Self {
        Joined {
            distances: Distances { k, indices: vec![0; n * k], distances: vec![0.0; n * k] },
            searched: Searched { near: Vec::new(), width: 0, bits: vec![0; n * WORDS] },
            changed: vec![true; n],
            reach: Reach::NOWHERE,
        }
    }

    /// Notes that every position searched all of the `width` lists around its own; `near` names those for which there are bits.
    fn saw_all(&mut self, near: Vec<u32>, width: usize) {
        (self.searched.near, self.searched.width) = (near, width.min(64 * WORDS));
        self.searched.bits.fill(u64::MAX);
        self.changed.fill(true);
        self.reach = Reach { width, reach: f32::INFINITY };
    }
}

/// The lists that each position searched.
pub(super) struct Searched {
    /// The lists nearest to each list, itself first: `(lists, width)`.
    near: Vec<u32>,
    width: usize,
    /// Bit i: whether the position searched the i-th of the lists near its own: `(n, WORDS)`.
    bits: Vec<u64>,
}

impl Searched {
    /// The lists that a position of list `own` searched, as far as is known.
    pub(super) fn of(&self, at: usize, own: u32) -> impl Iterator<Item = u32> + '_ {
        let near = &self.near[own as usize * self.width..][..self.width];
        self.bits[at * WORDS..(at + 1) * WORDS].iter().zip(near.chunks(64)).flat_map(|(&word, near)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let list = *near.get(left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(list)
            })
        })
    }
}

/// Searches, for every position, its own list and those within reach that were not searched yet; what it has stays where nothing is nearer.
/// `x` is in order of position; `k < n`.
pub(super) fn join(
    simd: Simd,
    x: Shelf<'_>,
    lists: &Lists,
    joined: &mut Joined,
    reach: Reach,
    scale: Scale,
    progress: &Progress,
) -> Result<()> {
    let Searched { near, width, bits } = &mut joined.searched;
    (*near, *width) = (around(simd, &lists.centres, x.d(), reach.width, 0..lists.len()), reach.width);
    let before = std::mem::replace(&mut joined.reach, reach);
    let Distances { k, indices, distances } = &mut joined.distances;
    let own = Own { indices, values: distances, searched: bits, changed: &mut joined.changed };
    search(simd, x, lists, 0..lists.len(), near, own, *k, (before, reach), scale, progress)
}

/// Rows of results, of the positions of some lists.
struct Own<'a> {
    /// `(rows, k)`, as the two that follow.
    indices: &'a mut [u32],
    values: &'a mut [f32],
    /// `(rows, WORDS)`.
    searched: &'a mut [u64],
    /// `(rows,)`.
    changed: &'a mut [bool],
}

impl<'a> Own<'a> {
    /// Takes the first `rows` off.
    fn split_off(&mut self, rows: usize, k: usize) -> Own<'a> {
        fn take<'a, T>(of: &mut &'a mut [T], n: usize) -> &'a mut [T] {
            let (taken, rest) = std::mem::take(of).split_at_mut(n);
            *of = rest;
            taken
        }
        Own {
            indices: take(&mut self.indices, rows * k),
            values: take(&mut self.values, rows * k),
            searched: take(&mut self.searched, rows * WORDS),
            changed: take(&mut self.changed, rows),
        }
    }
}

/// Searches for the positions of the lists `span`, whose nearest lists are `near`.
#[allow(clippy::too_many_arguments)]
fn search(
    simd: Simd,
    x: Shelf<'_>,
    lists: &Lists,
    span: Range<usize>,
    near: &[u32],
    mut all: Own<'_>,
    k: usize,
    (before, reach): (Reach, Reach),
    scale: Scale,
    progress: &Progress,
) -> Result<()> {
    let keep = rank::keep(k, x.n());
    let anew = before.width == 0;
    // Each task owns the rows of its lists.
    let group = (span.len() / (TASKS * rayon::current_num_threads())).clamp(1, GROUP);
    let tasks: Vec<(Range<usize>, Own<'_>)> = span
        .clone()
        .step_by(group)
        .map(|first| {
            let lists_of = first..(first + group).min(span.end);
            let rows = (lists.offsets[lists_of.end] - lists.offsets[lists_of.start]) as usize;
            let own = all.split_off(rows, k);
            (lists_of, own)
        })
        .collect();
    let room = || (Work::default(), x.reader());
    tasks.into_par_iter().try_for_each_init(room, |(work, reader), (lists_of, own)| {
        let Own { indices, values, searched, changed } = own;
        reader.start();
        let base = lists.offsets[lists_of.start];
        let rows = indices.len() / k;
        work.best.clear();
        work.best.resize(rows * keep, EMPTY);
        work.visits.clear();
        for list in lists_of {
            let near = &near[(list - span.start) * reach.width..][..reach.width];
            let rows = (lists.offsets[list] - base) as usize..(lists.offsets[list + 1] - base) as usize;
            work.own(simd, reader, lists, list, base, keep)?;
            work.choose(
                simd,
                reader,
                lists,
                near,
                (k, keep),
                (before, reach),
                rows.start,
                &mut searched[rows.start * WORDS..rows.end * WORDS],
            )?;
        }
        work.search(simd, reader, lists, base, keep)?;
        for slot in 0..rows {
            let (indices, values) = (&mut indices[slot * k..(slot + 1) * k], &mut values[slot * k..(slot + 1) * k]);
            let known: &[u32] = if anew { &[] } else { indices };
            let best = &work.best[slot * keep..(slot + 1) * keep];
            let ranked = work.ranking.rank(simd, reader, scale, base + slot as u32, best, known)?;
            changed[slot] = anew || ranked.iter().zip(&*indices).any(|(&key, &id)| scan::id(key) != id);
            emit(ranked, indices, values);
        }
        progress.add(rows, "join")
    })
}

/// A join on GPUs before any other, or after one: each cell against all of the `width` lists nearest to its own. Whether they could.
#[allow(clippy::too_many_arguments)]
pub(super) fn wide(
    devices: &[Arc<Device>],
    simd: Simd,
    x: Shelf<'_>,
    lists: &Lists,
    width: usize,
    joined: &mut Joined,
    scale: Scale,
    progress: &Progress,
) -> Result<bool> {
    let Shelf::Memory(rows) = x else { return Ok(false) };
    let Some(data) = rows.whole() else { return Ok(false) };
    let near = around(simd, &lists.centres, x.d(), width, 0..lists.len());
    let visits = Visits { starts: &lists.offsets, near: &near, lists: 0..lists.len(), width };
    let counted = Counted { progress, done: AtomicU64::new(0) };
    let Some((indices, distances)) = cuda::neighbours(devices, (data, x.d()), &visits, joined.distances.k, scale, &counted)? else {
        return Ok(false);
    };
    (joined.distances.indices, joined.distances.distances) = (indices, distances);
    let known = width.min(64 * WORDS);
    joined.saw_all(near.chunks_exact(width).flat_map(|near| &near[..known]).copied().collect(), width);
    Ok(true)
}

/// [`join`], or [`wide`], before any other, its lists dealt to a crew: the same bits. Whether GPUs did it.
pub(super) fn dealt(crew: &dyn Crew, simd: Simd, x: Shelf<'_>, order: &Order, joined: &mut Joined, progress: &Progress) -> Result<bool> {
    let (lists, k) = (&order.lists, order.k);
    let mut cells = 0;
    let on_gpus = crew.search(order, x.rows(), &Counted { progress, done: AtomicU64::new(0) }, &mut |list, found: Found| {
        let (at, rows) = (lists.offsets[list] as usize, found.indices.len() / k);
        if found.distances.len() != rows * k || found.searched.len() != rows * WORDS || at + rows > x.n() {
            return Err(Error::bug(format!("neighbours of {rows} cells from the {at}th on, of {}", x.n())));
        }
        joined.distances.indices[at * k..][..rows * k].copy_from_slice(&found.indices);
        joined.distances.distances[at * k..][..rows * k].copy_from_slice(&found.distances);
        joined.searched.bits[at * WORDS..][..rows * WORDS].copy_from_slice(&found.searched);
        cells += rows;
        Ok(())
    })?;
    if cells != x.n() {
        return Err(Error::bug(format!("neighbours of {cells} cells of {}", x.n())));
    }
    let near = |width| around(simd, &lists.centres, x.d(), width, 0..lists.len());
    if on_gpus {
        joined.saw_all(near(order.wide.min(64 * WORDS)), order.wide);
    } else {
        (joined.searched.near, joined.searched.width) = (near(order.width), order.width);
        joined.reach = Reach { width: order.width, reach: order.reach };
        joined.changed.fill(true);
    }
    Ok(on_gpus)
}

/// The part of a join that is about the positions of some lists.
pub(super) fn part(simd: Simd, x: Shelf<'_>, order: &Order, span: Range<usize>) -> Result<Found> {
    let (lists, k) = (&order.lists, order.k);
    let rows = (lists.offsets[span.end] - lists.offsets[span.start]) as usize;
    let mut found = Found { indices: vec![0; rows * k], distances: vec![0.0; rows * k], searched: vec![0; rows * WORDS] };
    let near = around(simd, &lists.centres, x.d(), order.width, span.clone());
    let mut changed = vec![true; rows];
    let own = Own { indices: &mut found.indices, values: &mut found.distances, searched: &mut found.searched, changed: &mut changed };
    let reach = Reach { width: order.width, reach: order.reach };
    search(simd, x, lists, span, &near, own, k, (Reach::NOWHERE, reach), order.scale, &Progress::new(&(), 0))?;
    Ok(found)
}

/// Rows done of one pass, told to the progress of all.
struct Counted<'a> {
    progress: &'a Progress<'a>,
    done: AtomicU64,
}

impl Watch for Counted<'_> {
    fn tick(&self, done: u64, _: u64, _: &str) -> Result<()> {
        let before = self.done.fetch_max(done, Ordering::Relaxed);
        self.progress.add(done.saturating_sub(before) as usize, "join")
    }
}

/// What a task needs, kept between tasks.
#[derive(Default)]
struct Work {
    queries: Queries,
    panels: Panels,
    /// `(rows, keep)`.
    best: Vec<Key>,
    /// (list, row of the task) in one number.
    visits: Vec<u64>,
    /// Squared distances of a list's cells to the means around it.
    to_means: Vec<f32>,
    ranking: Ranking,
}

impl Work {
    /// Compares the cells of a list with each other.
    fn own(&mut self, simd: Simd, x: &mut Reader<'_>, lists: &Lists, list: usize, base: u32, keep: usize) -> Result<()> {
        let (d, span) = (lists.d, lists.span(list));
        let centre = &lists.centres[list * d..(list + 1) * d];
        self.panels.pack(simd, Form::Dot, x.stretch(span.clone())?, centre);
        self.queries.clear(Form::Dot, d);
        for (row, at) in x.stretch(span.clone())?.zip(span.start as u32..) {
            self.queries.push(simd, row, centre, at - base, at);
        }
        scan(simd, &mut self.queries, &self.panels, 0..self.panels.len(), span.start as u32, &mut self.best, keep);
        Ok(())
    }

    /// Decides which of the lists `near` (the first is their own) the cells in `queries` search that were not within reach before; `first` is the
    /// first one's row.
    #[allow(clippy::too_many_arguments)]
    fn choose(
        &mut self,
        simd: Simd,
        x: &mut Reader<'_>,
        lists: &Lists,
        near: &[u32],
        (k, keep): (usize, usize),
        (before, reach): (Reach, Reach),
        first: usize,
        searched: &mut [u64],
    ) -> Result<()> {
        let d = lists.d;
        let mean = |list: u32| &lists.centres[list as usize * d..(list as usize + 1) * d];
        let own = mean(near[0]);
        let apart: Vec<f32> =
            near.iter().map(|&other| mean(other).iter().zip(own).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()).collect();
        self.panels.pack(simd, Form::Dot, near.iter().map(|&other| mean(other)), own);
        self.queries.clear(Form::Dot, d);
        for row in x.stretch(lists.span(near[0] as usize))? {
            self.queries.push(simd, row, own, 0, u32::MAX);
        }
        scan::all(simd, &mut self.queries, &self.panels, &mut self.to_means);
        let width = self.panels.len() * CANDIDATES;
        for (slot, (to_means, searched)) in self.to_means.chunks_exact(width).zip(searched.chunks_exact_mut(WORDS)).enumerate() {
            let row = first + slot;
            let radius = scan::distance(self.best[row * keep + k - 1]).sqrt();
            // A list is in its own reach.
            searched[0] |= 1;
            for (rank, ((&list, &apart), &far)) in near.iter().zip(&apart).zip(to_means).enumerate().skip(1) {
                let margin = margin(far, to_means[0], apart);
                if margin < reach.reach * radius {
                    if let Some(word) = searched.get_mut(rank / 64) {
                        *word |= 1 << (rank % 64);
                    }
                    if rank >= before.width || margin >= before.reach * radius {
                        self.visits.push(u64::from(list) << 32 | row as u64);
                    }
                }
            }
        }
        Ok(())
    }

    /// Compares cells with those of the lists that they search.
    fn search(&mut self, simd: Simd, x: &mut Reader<'_>, lists: &Lists, base: u32, keep: usize) -> Result<()> {
        let d = lists.d;
        self.visits.sort_unstable();
        for visits in self.visits.chunk_by(|a, b| a >> 32 == b >> 32) {
            let list = (visits[0] >> 32) as usize;
            let span = lists.span(list);
            let centre = &lists.centres[list * d..(list + 1) * d];
            self.panels.pack(simd, Form::Dot, x.stretch(span.clone())?, centre);
            self.queries.clear(Form::Dot, d);
            for &visit in visits {
                let slot = visit as u32;
                self.queries.push(simd, x.row((base + slot) as usize)?, centre, slot, base + slot);
            }
            scan(simd, &mut self.queries, &self.panels, 0..self.panels.len(), span.start as u32, &mut self.best, keep);
        }
        Ok(())
    }
}

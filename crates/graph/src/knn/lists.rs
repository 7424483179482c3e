//! Cells cut into lists of near ones: two levels of k-means, then every cell moves to the nearest of the lists around its own.

use std::ops::Range;

use cellmill_matrix::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::kernel::{Form, Simd};
use super::means::{assign, draw, mean, means, stratified};
use super::parts::{Cells, Parts};
use super::progress::Progress;
use super::scan::{self, EMPTY, Key, Panels, Queries, scan};
use crate::Embedding;

/// Cells of a list, about. Shorter lists follow the data more closely, longer ones fill the kernel's tiles better.
pub(super) const TARGET: usize = 512;
/// A list longer than this is cut again.
const LIMIT: usize = 2 * TARGET;
/// Training rows a list.
const TRAIN: usize = 128;
/// Rounds of Lloyd's algorithm at each level.
const ROUNDS: usize = 8;
/// Up to this many lists, one level does.
const ONE_LEVEL: usize = 48;
/// Lists around a cell's own among which it may move.
const AROUND: usize = 32;
/// Rounds of such moves.
const MOVES: usize = 2;

/// Cells by list.
#[derive(Serialize, Deserialize)]
pub(super) struct Lists {
    /// Positions at which lists begin, and the end: `(lists + 1,)`.
    pub offsets: Vec<u32>,
    /// The cell at each position: `(n,)`, ascending within a list. Of no use to those who search in rows by position.
    #[serde(skip)]
    pub order: Vec<u32>,
    /// Means of the lists' cells: `(lists, d)`.
    pub centres: Vec<f32>,
    /// Dimensions.
    pub d: usize,
}

impl Lists {
    /// Number of lists.
    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Positions of a list.
    pub(super) fn span(&self, list: usize) -> std::ops::Range<usize> {
        self.offsets[list] as usize..self.offsets[list + 1] as usize
    }

    /// The number of lists that hold more than `k` cells together, whichever they are.
    pub(super) fn enough(&self, k: usize) -> usize {
        let mut sizes: Vec<usize> = (0..self.len()).map(|list| self.span(list).len()).collect();
        sizes.sort_unstable();
        let mut cells = 0;
        1 + sizes
            .iter()
            .take_while(|&&size| {
                cells += size;
                cells <= k
            })
            .count()
    }

    /// The list of each position: `(n,)`.
    pub(super) fn of_position(&self) -> Vec<u32> {
        (0..self.len()).flat_map(|list| self.span(list).map(move |_| list as u32)).collect()
    }
}

/// Cuts the cells into lists.
pub(super) fn cut<'a>(simd: Simd, from: Cells<'a>, seed: u64, progress: &Progress) -> Result<(Lists, Parts<'a>)> {
    let (n, d) = (from.n(), from.d());
    let wanted = n.div_ceil(TARGET);
    let upper = if wanted <= ONE_LEVEL { 1 } else { (wanted as f64).sqrt().round() as usize };
    let parts = Parts::new(simd, from, upper, upper * 4 * TRAIN, ROUNDS, seed)?;
    progress.add(n / 2, "lists")?;

    // Each part by itself: lists of its places.
    let split_part = |part: usize| -> Result<Vec<Vec<u32>>> {
        let rows = parts.rows(part)?;
        let members = (0..parts.span(part).len() as u32).collect();
        Ok(split(simd, Embedding::of(&rows, d), members, draw(seed, 1 << 32 | part as u64), 0))
    };
    let found: Vec<Vec<Vec<u32>>> = (0..parts.len()).into_par_iter().map(split_part).collect::<Result<_>>()?;
    let mut list_of = vec![0u32; n];
    let mut next = 0;
    for (part, lists) in found.iter().enumerate() {
        for list in lists {
            list.iter().for_each(|&local| list_of[parts.starts[part] + local as usize] = next);
            next += 1;
        }
    }
    drop(found);
    progress.add(n - n / 2, "lists")?;

    let mut means = Means::over(&parts, next as usize, &list_of, d)?;
    for _ in 0..MOVES {
        let centres = means.centres(d);
        means = improve(simd, &parts, &centres, &mut list_of)?;
        // Lists that have lost all their cells are no more.
        let numbers = means.close_up(d);
        list_of.par_iter_mut().for_each(|list| *list = numbers[*list as usize]);
    }
    finish(simd, from, parts, list_of, means, seed)
}

/// Cuts long lists, numbers them all, and sorts the cells of each.
fn finish<'a>(simd: Simd, from: Cells<'a>, parts: Parts<'a>, list_of: Vec<u32>, means: Means, seed: u64) -> Result<(Lists, Parts<'a>)> {
    let d = from.d();
    let centres = means.centres(d);
    let cut_up = |(at, places): (usize, Vec<u32>)| -> Result<Vec<(Vec<u32>, Vec<f32>)>> {
        let mut cells: Vec<u32> = places.iter().map(|&place| parts.cells[place as usize]).collect();
        drop(places);
        cells.sort_unstable();
        if cells.len() <= LIMIT {
            return Ok(vec![(cells, centres[at * d..(at + 1) * d].to_vec())]);
        }
        let rows = from.gather(&cells)?;
        let x = Embedding::of(&rows, d);
        let pieces = split(simd, x, (0..cells.len() as u32).collect(), draw(seed, 2 << 32 | at as u64), 0);
        let centre = |piece: &[u32]| mean(&gather(x, piece), d);
        Ok(pieces.iter().map(|piece| (piece.iter().map(|&local| cells[local as usize]).collect(), centre(piece))).collect())
    };
    let lists: Vec<Vec<(Vec<u32>, Vec<f32>)>> =
        group(&list_of, means.counts.len()).into_par_iter().enumerate().map(cut_up).collect::<Result<_>>()?;
    drop(list_of);
    let mut all = Lists { offsets: vec![0u32], order: Vec::with_capacity(from.n()), centres: Vec::new(), d };
    for (cells, centre) in lists.into_iter().flatten() {
        all.order.extend_from_slice(&cells);
        all.centres.extend_from_slice(&centre);
        all.offsets.push(all.order.len() as u32);
    }
    Ok((all, parts))
}

/// Sums over the cells of lists: part after part, in order of place, so that they don't depend on who holds the rows.
struct Means {
    counts: Vec<u32>,
    /// `(lists, d)`.
    sums: Vec<f64>,
}

/// The lists that one part's cells are in, ascending, with counts and sums.
type Share = Vec<(u32, u32, Vec<f64>)>;

impl Means {
    fn over(parts: &Parts<'_>, n_lists: usize, list_of: &[u32], d: usize) -> Result<Self> {
        let share = |part: usize| Ok(share(&parts.rows(part)?, &list_of[parts.span(part)], d));
        let shares: Vec<Share> = (0..parts.len()).into_par_iter().map(share).collect::<Result<_>>()?;
        Ok(Self::of(&shares, n_lists, d))
    }

    fn of(shares: &[Share], n_lists: usize, d: usize) -> Self {
        let mut means = Means { counts: vec![0; n_lists], sums: vec![0.0; n_lists * d] };
        for (list, count, sum) in shares.iter().flatten() {
            let list = *list as usize;
            means.counts[list] += count;
            means.sums[list * d..(list + 1) * d].iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
        }
        means
    }

    /// Means of the lists: `(lists, d)`.
    fn centres(&self, d: usize) -> Vec<f32> {
        let mean = |(sum, &count): (&[f64], &u32)| sum.iter().map(|sum| (sum / f64::from(count.max(1))) as f32).collect::<Vec<_>>();
        self.sums.chunks_exact(d).zip(&self.counts).flat_map(mean).collect()
    }

    /// Leaves out empty lists; the new number of each list.
    fn close_up(&mut self, d: usize) -> Vec<u32> {
        let mut numbers = vec![0; self.counts.len()];
        let mut next = 0;
        for (list, number) in numbers.iter_mut().enumerate() {
            if self.counts[list] > 0 {
                *number = next as u32;
                self.counts[next] = self.counts[list];
                self.sums.copy_within(list * d..(list + 1) * d, next * d);
                next += 1;
            }
        }
        self.counts.truncate(next);
        self.sums.truncate(next * d);
        numbers
    }
}

/// Sums of `rows` by list.
fn share(rows: &[f32], list_of: &[u32], d: usize) -> Share {
    let mut places: Vec<u32> = (0..list_of.len() as u32).collect();
    places.sort_by_key(|&place| list_of[place as usize]);
    places
        .chunk_by(|&a, &b| list_of[a as usize] == list_of[b as usize])
        .map(|members| {
            let mut sum = vec![0f64; d];
            for &place in members {
                let row = &rows[place as usize * d..(place as usize + 1) * d];
                sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            }
            (list_of[members[0] as usize], members.len() as u32, sum)
        })
        .collect()
}

/// Moves each cell to the nearest mean among those around its list's; the new sums.
fn improve(simd: Simd, parts: &Parts<'_>, centres: &[f32], list_of: &mut [u32]) -> Result<Means> {
    let d = parts.d();
    let n_lists = centres.len() / d;
    let around = around(simd, centres, d, AROUND, 0..n_lists);
    let width = AROUND.min(n_lists);
    let mut places: Vec<&mut [u32]> = Vec::with_capacity(parts.len());
    let mut rest = list_of;
    for part in 0..parts.len() {
        let (own, later) = std::mem::take(&mut rest).split_at_mut(parts.span(part).len());
        places.push(own);
        rest = later;
    }
    let shares: Vec<Share> = places
        .into_par_iter()
        .enumerate()
        .map(|(part, list_of)| {
            let rows = parts.rows(part)?;
            let mut order: Vec<u32> = (0..list_of.len() as u32).collect();
            order.sort_by_key(|&place| list_of[place as usize]);
            let groups: Vec<&[u32]> = order.chunk_by(|&a, &b| list_of[a as usize] == list_of[b as usize]).collect();
            let moved: Vec<Vec<u32>> = groups
                .par_iter()
                .map_init(
                    || (Queries::default(), Panels::default(), Vec::<Key>::new()),
                    |(queries, panels, best), members| {
                        let list = list_of[members[0] as usize] as usize;
                        let near = &around[list * width..(list + 1) * width];
                        let centre = &centres[list * d..(list + 1) * d];
                        panels.pack(
                            simd,
                            Form::Dot,
                            near.iter().map(|&other| &centres[other as usize * d..(other as usize + 1) * d]),
                            centre,
                        );
                        best.clear();
                        best.resize(members.len(), EMPTY);
                        queries.clear(Form::Dot, d);
                        for (slot, &place) in members.iter().enumerate() {
                            queries.push(simd, &rows[place as usize * d..(place as usize + 1) * d], centre, slot as u32, u32::MAX);
                        }
                        scan(simd, queries, panels, 0..panels.len(), 0, best, 1);
                        best.iter().map(|&key| near[scan::id(key) as usize]).collect()
                    },
                )
                .collect();
            let order: Vec<(u32, u32)> =
                groups.iter().zip(&moved).flat_map(|(members, moved)| members.iter().copied().zip(moved.iter().copied())).collect();
            order.iter().for_each(|&(place, list)| list_of[place as usize] = list);
            Ok(share(&rows, list_of, d))
        })
        .collect::<Result<_>>()?;
    Ok(Means::of(&shares, n_lists, d))
}

/// Cuts `members` into lists near [`TARGET`], none longer than [`LIMIT`]. Serial but for the kernels inside.
fn split(simd: Simd, x: Embedding, members: Vec<u32>, seed: u64, depth: usize) -> Vec<Vec<u32>> {
    let wanted = (members.len() + TARGET / 2) / TARGET;
    if wanted <= 1 && members.len() <= LIMIT {
        return vec![members];
    }
    let wanted = wanted.max(2);
    let d = x.d;
    let rows = gather(x, &members);
    let training: Vec<u32> = stratified(members.len(), members.len().min(wanted * TRAIN), seed);
    let training: Vec<f32> = training.iter().flat_map(|&at| &rows[at as usize * d..(at as usize + 1) * d]).copied().collect();
    let centres = chained(&means(simd, Embedding::of(&training, d), wanted, ROUNDS, seed), d);
    let groups = group(&assign(simd, Embedding::of(&rows, d), &centres), wanted);
    let groups: Vec<Vec<u32>> = groups
        .into_iter()
        .filter(|group| !group.is_empty())
        .map(|group| group.into_iter().map(|at| members[at as usize]).collect())
        .collect();
    if groups.len() == 1 || depth == 8 {
        // Equal rows can't be told apart: cut them by number.
        return members.chunks(TARGET).map(<[u32]>::to_vec).collect();
    }
    groups
        .into_iter()
        .enumerate()
        .flat_map(|(at, group)| if group.len() > LIMIT { split(simd, x, group, draw(seed, at as u64), depth + 1) } else { vec![group] })
        .collect()
}

/// The `width` lists nearest to each of the lists `span`, itself first: `(span, min(width, lists))`, by distance of their means.
pub(super) fn around(simd: Simd, centres: &[f32], d: usize, width: usize, span: Range<usize>) -> Vec<u32> {
    let width = width.min(centres.len() / d);
    let origin = mean(centres, d);
    let mut panels = Panels::default();
    panels.pack(simd, Form::Dot, centres.chunks_exact(d), &origin);
    let others = width - 1;
    let mut around = vec![0u32; span.len() * width];
    around.par_chunks_mut(96 * width).enumerate().for_each_init(
        || (Queries::default(), Vec::<Key>::new()),
        |(queries, best), (block, out)| {
            let n = out.len() / width;
            let first = span.start + block * 96;
            best.clear();
            best.resize(n * others, EMPTY);
            queries.clear(Form::Dot, d);
            for (slot, list) in (first..first + n).enumerate() {
                queries.push(simd, &centres[list * d..(list + 1) * d], &origin, slot as u32, list as u32);
            }
            if others > 0 {
                scan(simd, queries, &panels, 0..panels.len(), 0, best, others);
            }
            for (slot, out) in out.chunks_exact_mut(width).enumerate() {
                out[0] = (first + slot) as u32;
                out[1..].iter_mut().zip(&best[slot * others..]).for_each(|(out, &key)| *out = scan::id(key));
            }
        },
    );
    around
}

/// Numbers `0..labels.len()` by label, ascending within each.
pub(super) fn group(labels: &[u32], n: usize) -> Vec<Vec<u32>> {
    let mut counts = vec![0usize; n];
    labels.iter().for_each(|&label| counts[label as usize] += 1);
    let mut groups: Vec<Vec<u32>> = counts.iter().map(|&count| Vec::with_capacity(count)).collect();
    labels.iter().enumerate().for_each(|(at, &label)| groups[label as usize].push(at as u32));
    groups
}

/// Copies rows together.
pub(super) fn gather(x: Embedding, rows: &[u32]) -> Vec<f32> {
    let mut data = vec![0f32; rows.len() * x.d];
    data.par_chunks_mut(1024 * x.d).zip(rows.par_chunks(1024)).for_each(|(data, rows)| {
        data.chunks_exact_mut(x.d).zip(rows).for_each(|(place, &row)| place.copy_from_slice(x.row(row as usize)));
    });
    data
}

/// The same centres in a chain, each followed by the nearest that is left, so that near lists get near numbers.
pub(super) fn chained(centres: &[f32], d: usize) -> Vec<f32> {
    let mut left: Vec<&[f32]> = centres.chunks_exact(d).collect();
    let mut chain = Vec::with_capacity(centres.len());
    let mut at = 0;
    while !left.is_empty() {
        let row = left.remove(at);
        chain.extend_from_slice(row);
        let squared = |other: &&[f32]| row.iter().zip(*other).map(|(x, y)| (x - y) * (x - y)).sum::<f32>();
        at = left.iter().map(squared).enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(at, _)| at);
    }
    chain
}

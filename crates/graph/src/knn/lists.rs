//! Cells cut into lists of near ones: two levels of k-means, then every cell moves to the nearest of the lists around its own.

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::kernel::{Form, Simd};
use super::means::{assign, draw, mean, means, stratified};
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
pub(super) struct Lists {
    /// Positions at which lists begin, and the end: `(lists + 1,)`.
    pub offsets: Vec<u32>,
    /// The cell at each position: `(n,)`, ascending within a list.
    pub order: Vec<u32>,
    /// Means of the lists' cells: `(lists, d)`.
    pub centres: Vec<f32>,
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

/// Cuts the cells of `x` into lists.
pub(super) fn cut(simd: Simd, x: Embedding, seed: u64, progress: &Progress) -> Result<Lists> {
    let (n, d) = (x.n(), x.d);
    let wanted = n.div_ceil(TARGET);
    let upper = if wanted <= ONE_LEVEL { 1 } else { (wanted as f64).sqrt().round() as usize };

    // Level 1: a sample makes the centres, all cells are assigned.
    let members = if upper == 1 {
        vec![(0..n as u32).collect()]
    } else {
        let training = gather(x, &stratified(n, n.min(upper * 4 * TRAIN), seed));
        let centres = chained(&means(simd, Embedding { data: &training, d }, upper, ROUNDS, seed), d);
        group(&assign(simd, x, &centres), upper)
    };
    progress.add(n / 2, "lists")?;

    // Level 2: each part by itself.
    let parts: Vec<Vec<Vec<u32>>> =
        members.into_par_iter().enumerate().map(|(at, members)| split(simd, x, members, draw(seed, 1 << 32 | at as u64), 0)).collect();
    let mut lists: Vec<Vec<u32>> = parts.into_iter().flatten().collect();
    progress.add(n - n / 2, "lists")?;

    for _ in 0..MOVES {
        let moved = improve(simd, x, &lists);
        lists = group(&moved, lists.len());
        lists.retain(|list| !list.is_empty());
    }
    let lists: Vec<Vec<u32>> = lists
        .into_par_iter()
        .enumerate()
        .flat_map_iter(|(at, list)| if list.len() > LIMIT { split(simd, x, list, draw(seed, 2 << 32 | at as u64), 0) } else { vec![list] })
        .collect();

    let mut offsets = vec![0u32];
    offsets.extend(lists.iter().scan(0u32, |end, list| {
        *end += list.len() as u32;
        Some(*end)
    }));
    let centres = centres(x, &lists);
    Ok(Lists { offsets, order: lists.concat(), centres })
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
    let centres = chained(&means(simd, Embedding { data: &training, d }, wanted, ROUNDS, seed), d);
    let groups = group(&assign(simd, Embedding { data: &rows, d }, &centres), wanted);
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

/// The new list of each cell: the nearest mean among those around its old list's.
fn improve(simd: Simd, x: Embedding, lists: &[Vec<u32>]) -> Vec<u32> {
    let d = x.d;
    let centres = centres(x, lists);
    let around = around(simd, &centres, d, AROUND);
    let width = AROUND.min(lists.len());
    let moved: Vec<Vec<u32>> = lists
        .par_iter()
        .enumerate()
        .map_init(
            || (Queries::default(), Panels::default(), Vec::<Key>::new()),
            |(queries, panels, best), (list, members)| {
                let near = &around[list * width..(list + 1) * width];
                let centre = &centres[list * d..(list + 1) * d];
                panels.pack(Form::Dot, near.iter().map(|&other| &centres[other as usize * d..(other as usize + 1) * d]), centre);
                best.clear();
                best.resize(members.len(), EMPTY);
                queries.clear(Form::Dot, d);
                for (slot, &row) in members.iter().enumerate() {
                    queries.push(x.row(row as usize), centre, slot as u32, u32::MAX);
                }
                scan(simd, queries, panels, 0..panels.len(), 0, best, 1);
                best.iter().map(|&key| near[scan::id(key) as usize]).collect()
            },
        )
        .collect();
    let mut list_of = vec![0u32; x.n()];
    for (members, moved) in lists.iter().zip(&moved) {
        members.iter().zip(moved).for_each(|(&row, &list)| list_of[row as usize] = list);
    }
    list_of
}

/// The `width` lists nearest to each list, itself first: `(lists, min(width, lists))`, by distance of their means.
pub(super) fn around(simd: Simd, centres: &[f32], d: usize, width: usize) -> Vec<u32> {
    let m = centres.len() / d;
    let width = width.min(m);
    let origin = mean(centres, d);
    let mut panels = Panels::default();
    panels.pack(Form::Dot, centres.chunks_exact(d), &origin);
    let others = width - 1;
    let mut around = vec![0u32; m * width];
    around.par_chunks_mut(96 * width).enumerate().for_each_init(
        || (Queries::default(), Vec::<Key>::new()),
        |(queries, best), (block, out)| {
            let n = out.len() / width;
            best.clear();
            best.resize(n * others, EMPTY);
            queries.clear(Form::Dot, d);
            for slot in 0..n {
                let list = block * 96 + slot;
                queries.push(&centres[list * d..(list + 1) * d], &origin, slot as u32, list as u32);
            }
            if others > 0 {
                scan(simd, queries, &panels, 0..panels.len(), 0, best, others);
            }
            for (slot, out) in out.chunks_exact_mut(width).enumerate() {
                out[0] = (block * 96 + slot) as u32;
                out[1..].iter_mut().zip(&best[slot * others..]).for_each(|(out, &key)| *out = scan::id(key));
            }
        },
    );
    around
}

/// Means of the lists' cells: `(lists, d)`.
fn centres(x: Embedding, lists: &[Vec<u32>]) -> Vec<f32> {
    let mut centres = vec![0f32; lists.len() * x.d];
    centres.par_chunks_mut(x.d).zip(lists).for_each(|(centre, list)| {
        let mut sum = vec![0f64; x.d];
        for &row in list {
            sum.iter_mut().zip(x.row(row as usize)).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        centre.iter_mut().zip(&sum).for_each(|(centre, sum)| *centre = (sum / list.len().max(1) as f64) as f32);
    });
    centres
}

/// Numbers `0..labels.len()` by label, ascending within each.
fn group(labels: &[u32], n: usize) -> Vec<Vec<u32>> {
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
fn chained(centres: &[f32], d: usize) -> Vec<f32> {
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

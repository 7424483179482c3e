//! The upper level of the lists: some tens or hundreds of parts, each small enough to be held.

use std::path::Path;

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::kernel::Simd;
use super::lists::{chained, gather, group};
use super::means::{assign, means, stratified};
use super::rows::{RowFile, Rows};
use crate::Embedding;

/// Rows that are read at a time.
const BLOCK: usize = 1 << 16;

/// Cells as they came.
#[derive(Clone, Copy)]
pub(super) enum Cells<'a> {
    /// All of them at hand.
    Memory(Embedding<'a>),
    /// To be read, and a folder for temporary files.
    Stream(&'a dyn Rows, &'a Path),
}

impl Cells<'_> {
    pub(super) fn n(&self) -> usize {
        match self {
            Cells::Memory(x) => x.n(),
            Cells::Stream(rows, _) => rows.n(),
        }
    }

    pub(super) fn d(&self) -> usize {
        match self {
            Cells::Memory(x) => x.d,
            Cells::Stream(rows, _) => rows.d(),
        }
    }

    /// Copies some rows (ascending) together.
    pub(super) fn gather(&self, cells: &[u32]) -> Result<Vec<f32>> {
        match self {
            Cells::Memory(x) => Ok(gather(*x, cells)),
            Cells::Stream(rows, _) => {
                let d = rows.d();
                let mut data = vec![0.0; cells.len() * d];
                data.par_chunks_mut(256 * d).zip(cells.par_chunks(256)).try_for_each(|(out, cells)| {
                    out.chunks_exact_mut(d).zip(cells).try_for_each(|(out, &cell)| rows.copy(cell as usize, out))
                })?;
                Ok(data)
            }
        }
    }

    /// Calls `f` with the first row's number and the rows of each block.
    fn blocks(&self, mut f: impl FnMut(usize, Embedding) -> Result<()>) -> Result<()> {
        let n = self.n();
        match self {
            Cells::Memory(x) => f(0, *x),
            Cells::Stream(rows, _) => {
                let mut data = Vec::new();
                (0..n).step_by(BLOCK).try_for_each(|first| {
                    data.resize(BLOCK.min(n - first) * rows.d(), 0.0);
                    let d = rows.d();
                    data.par_chunks_mut(4096 * d).enumerate().try_for_each(|(at, out)| rows.copy(first + at * 4096, out))?;
                    f(first, Embedding::of(&data, d))
                })
            }
        }
    }
}

/// Cells by part. A cell's place is its number when the parts stand one after the other.
pub(super) struct Parts<'a> {
    /// The cell at each place, ascending within a part: `(n,)`.
    pub cells: Vec<u32>,
    /// First place of each part: `(parts + 1,)`.
    pub starts: Vec<usize>,
    from: Cells<'a>,
    /// Rows in order of place, where they are not in memory.
    file: Option<RowFile>,
}

impl<'a> Parts<'a> {
    /// Cuts the cells into `n_parts` by k-means on a sample of `training` rows.
    pub(super) fn new(simd: Simd, from: Cells<'a>, n_parts: usize, training: usize, rounds: usize, seed: u64) -> Result<Self> {
        let (n, d) = (from.n(), from.d());
        let mut labels = vec![0u32; n];
        if n_parts > 1 {
            let training = from.gather(&stratified(n, n.min(training), seed))?;
            let centres = chained(&means(simd, Embedding::of(&training, d), n_parts, rounds, seed), d);
            drop(training);
            from.blocks(|first, x| {
                labels[first..first + x.n()].copy_from_slice(&assign(simd, x, &centres));
                Ok(())
            })?;
        }
        let members = group(&labels, n_parts);
        let mut starts = vec![0];
        starts.extend(members.iter().scan(0, |end, members| {
            *end += members.len();
            Some(*end)
        }));
        let cells = members.concat();
        drop(members);
        let file = match from {
            Cells::Memory(_) => None,
            Cells::Stream(_, folder) => {
                let file = RowFile::create(folder, n, d)?;
                let mut next = starts.clone();
                from.blocks(|first, x| {
                    // Rows of one part of the block lie together in the file.
                    let here = group(&labels[first..first + x.n()], n_parts);
                    let at: Vec<usize> =
                        next.iter_mut().zip(&here).map(|(next, here)| std::mem::replace(next, *next + here.len())).collect();
                    here.par_iter().zip(at).filter(|(here, _)| !here.is_empty()).try_for_each(|(here, at)| file.write(at, &gather(x, here)))
                })?;
                Some(file)
            }
        };
        Ok(Parts { cells, starts, from, file })
    }

    /// Dimensions.
    pub(super) fn d(&self) -> usize {
        self.from.d()
    }

    /// Number of parts.
    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Places of a part.
    pub(super) fn span(&self, part: usize) -> std::ops::Range<usize> {
        self.starts[part]..self.starts[part + 1]
    }

    /// Rows of a part: `(members, d)`.
    pub(super) fn rows(&self, part: usize) -> Result<Vec<f32>> {
        let span = self.span(part);
        match (&self.file, self.from) {
            (Some(file), _) => {
                let mut data = vec![0.0; span.len() * file.d()];
                file.read(span.start, &mut data)?;
                Ok(data)
            }
            (None, from) => from.gather(&self.cells[span]),
        }
    }

    /// Writes all rows to a file in an order: the position of each place. For cells that are streamed.
    pub(super) fn in_order(&self, position: &[u32], folder: &Path) -> Result<RowFile> {
        let d = self.from.d();
        let file = RowFile::create(folder, self.cells.len(), d)?;
        (0..self.len()).into_par_iter().try_for_each(|part| {
            let span = self.span(part);
            let rows = self.rows(part)?;
            let mut order: Vec<u32> = (0..span.len() as u32).collect();
            let at = |local: u32| position[span.start + local as usize];
            order.sort_unstable_by_key(|&local| at(local));
            // Positions that follow one another are written together.
            order
                .chunk_by(|&a, &b| at(a) + 1 == at(b))
                .try_for_each(|run| file.write(at(run[0]) as usize, &gather(Embedding::of(&rows, d), run)))
        })?;
        Ok(file)
    }
}

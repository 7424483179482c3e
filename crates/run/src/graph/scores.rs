//! `X_pca` while the graph is made.

use std::path::Path;

use cellmill_graph::Embedding;
use cellmill_graph::knn::{RowFile, Rows};
use cellmill_matrix::{Error, Result, Values};
use rayon::prelude::*;

/// Rows that are copied at a time.
const BLOCK: usize = 1 << 14;
/// Components that say where parts of the graph lie, and where a start from components begins.
const HEAD: usize = 8;

/// Where they are.
pub(super) enum Scores<'a> {
    /// All columns, how many there are, and how many are looked at.
    Memory(&'a [f32], usize, usize),
    /// Those that are looked at, and how many; the journal has all.
    Kept(&'a [f32], usize),
    /// In a file.
    File(&'a RowFile),
}

impl Scores<'_> {
    /// The first few coordinates of the cell at each position, and how many.
    pub fn head(&self, order: &[u32]) -> Result<(Vec<f32>, usize)> {
        Ok(match self {
            Scores::Memory(all, wide, d) => head(Embedding::columns(all, *wide, *d)?, order),
            Scores::Kept(all, d) => head(Embedding::columns(all, *d, *d)?, order),
            Scores::File(file) => return read_head(*file, order),
        })
    }
}

/// The numbers of `X_pca`.
pub(super) fn numbers(values: &Values) -> Result<&[f32]> {
    match values {
        Values::F32(numbers) => Ok(numbers),
        _ => Err(Error::bug("X_pca is not f32")),
    }
}

/// Writes `X_pca` to a temporary file.
pub(super) fn set_aside(scores: &[f32], wide: usize, folder: &Path) -> Result<RowFile> {
    let file = RowFile::create(folder, scores.len() / wide, wide)?;
    scores.par_chunks(BLOCK * wide).enumerate().try_for_each(|(at, rows)| file.write(at * BLOCK, rows))?;
    Ok(file)
}

fn head(x: Embedding<'_>, order: &[u32]) -> (Vec<f32>, usize) {
    let wide = HEAD.min(x.d());
    let mut head = vec![0.0; order.len() * wide];
    let cells = head.par_chunks_exact_mut(wide).zip(order).with_min_len(BLOCK / 4);
    cells.for_each(|(row, &cell)| row.copy_from_slice(&x.row(cell as usize)[..wide]));
    (head, wide)
}

/// The same of rows that are read.
fn read_head(rows: &dyn Rows, order: &[u32]) -> Result<(Vec<f32>, usize)> {
    let (n, d) = (rows.n(), rows.d());
    let wide = HEAD.min(d);
    let mut position = vec![0u32; n];
    order.iter().zip(0..).for_each(|(&cell, at)| position[cell as usize] = at);
    let mut head = vec![0.0; n * wide];
    let mut block = Vec::new();
    for first in (0..n).step_by(BLOCK) {
        block.resize(BLOCK.min(n - first) * d, 0.0);
        rows.copy(first, &mut block)?;
        for (row, &at) in block.chunks_exact(d).zip(&position[first..]) {
            head[at as usize * wide..][..wide].copy_from_slice(&row[..wide]);
        }
    }
    Ok((head, wide))
}

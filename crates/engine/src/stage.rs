//! Rows kept for a later pass, so that the source is not decoded again: the highly variable columns, transformed, task by task.

use std::ops::Range;

use cellmill_matrix::Csr;

/// Sparse rows in a smaller dress: 16-bit columns where they fit, values as they are.
#[derive(Clone, Debug)]
pub struct Stage {
    n_cols: usize,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
struct Block {
    rows: Range<u64>,
    ends: Vec<u32>,
    columns: Columns,
    data: Vec<f32>,
}

#[derive(Clone, Debug)]
enum Columns {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

impl Stage {
    /// An empty stage for rows of `n_cols` columns.
    pub fn new(n_cols: usize) -> Self {
        Stage { n_cols, blocks: Vec::new() }
    }

    /// Keeps the next rows.
    pub fn push(&mut self, x: &Csr) {
        let start = self.blocks.last().map_or(0, |b| b.rows.end);
        let columns = if self.n_cols <= 1 << 16 {
            Columns::Narrow(x.indices.iter().map(|&c| c as u16).collect())
        } else {
            Columns::Wide(x.indices.clone())
        };
        let ends = x.indptr.iter().skip(1).map(|&p| p as u32).collect();
        self.blocks.push(Block { rows: start..start + x.n_rows() as u64, ends, columns, data: x.data.clone() });
    }

    /// Number of blocks.
    pub fn n_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Kept rows of block `i`.
    pub fn rows(&self, i: usize) -> Range<u64> {
        self.blocks[i].rows.clone()
    }

    /// Unpacks block `i`.
    pub fn read(&self, i: usize, into: &mut Csr) {
        let block = &self.blocks[i];
        into.clear(self.n_cols);
        into.indptr.extend(block.ends.iter().map(|&e| u64::from(e)));
        match &block.columns {
            Columns::Narrow(c) => into.indices.extend(c.iter().map(|&c| u32::from(c))),
            Columns::Wide(c) => into.indices.extend_from_slice(c),
        }
        into.data.extend_from_slice(&block.data);
    }

    /// Bytes of memory in use.
    pub fn heap_bytes(&self) -> u64 {
        let entry = if self.n_cols <= 1 << 16 { 6 } else { 8 };
        self.blocks.iter().map(|b| (b.ends.len() * 4 + b.data.len() * entry) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_went_in() {
        for n_cols in [7, 70_000] {
            let mut x = Csr::empty(n_cols);
            x.push_row(&[1, 6], &[0.5, 300.0]);
            x.push_row(&[], &[]);
            x.push_row(&[n_cols as u32 - 1], &[-1.0]);
            let mut stage = Stage::new(n_cols);
            stage.push(&x);
            stage.push(&Csr::empty(n_cols));
            stage.push(&x);
            let mut back = Csr::default();
            stage.read(2, &mut back);
            assert_eq!(back, x);
            assert_eq!((stage.rows(0), stage.rows(1), stage.rows(2)), (0..3, 3..3, 3..6));
        }
    }
}

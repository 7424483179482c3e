//! Rows kept for a later pass, so that the source is not decoded again: the chosen columns as they were counted, bit-packed.

use cellmill_kernels::pack::{pack, unpack};
use cellmill_matrix::{Csr, Result};

use crate::chunk::Chunk;

/// Packed rows, block by block, with the sums that normalisation needs: about 1.4 bytes an entry where these are counts.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    blocks: Vec<Block>,
}

/// The rows of one task.
#[derive(Clone, Debug)]
pub struct Block {
    bytes: Box<[u8]>,
    normalizer: Option<Box<[f64]>>,
    n_rows: usize,
}

impl Block {
    /// Packs the rows of a chunk. `scratch` keeps its memory.
    pub fn of(chunk: &Chunk, scratch: &mut Vec<u8>) -> Self {
        pack(&chunk.x, scratch);
        Block { bytes: scratch[..].into(), normalizer: chunk.normalizer.as_deref().map(Into::into), n_rows: chunk.x.n_rows() }
    }

    /// Unpacks the rows. `buffer` is used for them and comes back inside the chunk.
    pub fn chunk(&self, mut buffer: Csr) -> Result<Chunk> {
        unpack(&self.bytes, &mut buffer)?;
        let mut chunk = Chunk::new(0..self.n_rows as u64, buffer, None);
        chunk.normalizer = self.normalizer.as_deref().map(Into::into);
        Ok(chunk)
    }

    /// Rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }
}

impl Stage {
    /// Keeps the next rows.
    pub fn push(&mut self, block: Block) {
        self.blocks.push(block);
    }

    /// The blocks, in order of rows.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Bytes of memory in use.
    pub fn heap_bytes(&self) -> u64 {
        self.blocks.iter().map(|b| (b.bytes.len() + b.normalizer.as_ref().map_or(0, |n| n.len() * 8)) as u64).sum()
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
            let mut chunk = Chunk::new(0..3, x, None);
            chunk.normalizer = Some(vec![1.0, 0.0, 2.5]);
            let block = Block::of(&chunk, &mut Vec::new());
            let back = block.chunk(Csr::default()).unwrap();
            assert_eq!((&back.x, &back.normalizer, block.n_rows()), (&chunk.x, &chunk.normalizer, 3));
        }
    }
}

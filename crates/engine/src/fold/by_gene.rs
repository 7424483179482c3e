//! Rows turned into genes: what ranks need. The state is the non-zero values of each gene with the groups of their cells.

use cellmill_matrix::Result;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};

/// Collects the non-zero entries of every gene. The groups are the chunk's batches; codes of 65,535 and above are one group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ByGene {
    /// Number of genes.
    pub n_vars: usize,
}

/// The entries of one task's rows, gene by gene.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Genes {
    /// Where each gene's entries begin: `(n_vars + 1,)`.
    pub starts: Vec<u32>,
    /// Non-zero values: `(nnz,)`, in row order within a gene.
    pub values: Vec<f32>,
    /// Group of each value's cell: `(nnz,)`.
    pub groups: Vec<u16>,
}

impl Genes {
    /// Values and groups of gene `j`.
    pub fn gene(&self, j: usize) -> (&[f32], &[u16]) {
        let span = self.starts[j] as usize..self.starts[j + 1] as usize;
        (&self.values[span.clone()], &self.groups[span])
    }
}

impl ByGene {
    /// Bytes that an entry takes in the state.
    pub const ENTRY_BYTES: u64 = 6;
    /// Bytes that an entry of a task that is on its way takes, with room to grow.
    pub const OPEN_BYTES: u64 = 26;
}

/// Entries of one task, row by row.
#[derive(Default)]
pub struct ByGeneAcc {
    columns: Vec<u32>,
    values: Vec<f32>,
    groups: Vec<u16>,
}

impl Fold for ByGene {
    type Acc = ByGeneAcc;
    /// Tasks in row order: merging is laying lists end to end, no entry is moved.
    type State = Vec<Genes>;
    type Output = Vec<Genes>;

    fn init(&self) -> Vec<Genes> {
        Vec::new()
    }

    fn open(&self) -> ByGeneAcc {
        ByGeneAcc::default()
    }

    fn accumulate(&self, acc: &mut ByGeneAcc, _: usize, chunk: &mut Chunk, _: &mut RowColumns) -> Result<()> {
        for i in 0..chunk.x.n_rows() {
            let group = chunk.batch.as_ref().map_or(0, |codes| codes[i].min(u32::from(u16::MAX)) as u16);
            let (columns, values) = chunk.x.row(i);
            acc.columns.extend_from_slice(columns);
            acc.values.extend_from_slice(values);
            acc.groups.resize(acc.values.len(), group);
        }
        Ok(())
    }

    fn close(&self, acc: ByGeneAcc) -> Vec<Genes> {
        let mut starts = vec![0u32; self.n_vars + 1];
        let entries = || acc.columns.iter().zip(&acc.values).zip(&acc.groups).filter(|((_, value), _)| **value != 0.0);
        entries().for_each(|((&column, _), _)| starts[column as usize + 1] += 1);
        for j in 0..self.n_vars {
            starts[j + 1] += starts[j];
        }
        let nnz = starts[self.n_vars] as usize;
        if nnz == 0 {
            return Vec::new();
        }
        let mut next = starts.clone();
        let (mut values, mut groups) = (vec![0.0; nnz], vec![0; nnz]);
        for ((&column, &value), &group) in entries() {
            let at = &mut next[column as usize];
            values[*at as usize] = value;
            groups[*at as usize] = group;
            *at += 1;
        }
        vec![Genes { starts, values, groups }]
    }

    fn merge(&self, into: &mut Vec<Genes>, later: Vec<Genes>) {
        into.extend(later);
    }

    fn finish(&self, state: Vec<Genes>) -> Vec<Genes> {
        state
    }
}

//! Quality control of raw counts: columns of obs for each row, totals of each gene.

use cellmill_kernels::totals::column_totals;
use cellmill_matrix::{Error, Place, Result, Values};
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::chunk::{Chunk, RowColumns};
use crate::recipe::{RowQc, row_qc};

/// `calculate_qc_metrics`: obs columns as rows, gene totals as state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Qc {
    /// Number of genes.
    pub n_vars: usize,
    /// What is wanted of each row.
    pub rows: RowQc,
    /// Whether negative or non-finite values are an error. True when X must hold counts.
    pub counts: bool,
}

/// Totals of each gene over all rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneTotals {
    /// Rows seen.
    pub n_obs: u64,
    /// Non-zero entries seen.
    pub nnz: u64,
    /// Σ over rows, f64: `(n_vars,)`.
    pub total: Vec<f64>,
    /// Rows with a non-zero entry: `(n_vars,)`.
    pub n_cells: Vec<u64>,
    /// Whether every value was a whole number.
    pub whole: bool,
    /// The largest value.
    pub largest: f32,
}

/// Gene sums and counts of one task, and what was noticed on the way.
pub struct QcAcc {
    n_obs: u64,
    columns: Vec<[f64; 2]>,
    whole: bool,
    largest: f32,
}

impl Fold for Qc {
    type Acc = QcAcc;
    type State = GeneTotals;
    type Output = GeneTotals;

    fn init(&self) -> GeneTotals {
        GeneTotals { total: vec![0.0; self.n_vars], n_cells: vec![0; self.n_vars], whole: true, ..GeneTotals::default() }
    }

    fn open(&self) -> QcAcc {
        QcAcc { n_obs: 0, columns: vec![[0.0; 2]; self.n_vars], whole: true, largest: 0.0 }
    }

    fn accumulate(&self, acc: &mut QcAcc, _: usize, chunk: &mut Chunk, rows: &mut RowColumns) -> Result<()> {
        let (whole, largest) = self.inspect(chunk)?;
        acc.whole &= whole;
        acc.largest = acc.largest.max(largest);
        acc.n_obs += chunk.x.n_rows() as u64;
        column_totals(&chunk.x, &mut acc.columns);
        for (name, values) in row_qc(&self.rows, chunk) {
            rows.extend(&name, values);
        }
        // The sum of each row before it was rounded to f32: normalisation and the median need it.
        rows.extend(EXACT_TOTAL, Values::F64(chunk.totals().total.clone()));
        Ok(())
    }

    fn close(&self, acc: QcAcc) -> GeneTotals {
        let n_cells: Vec<u64> = acc.columns.iter().map(|c| c[1] as u64).collect();
        GeneTotals {
            n_obs: acc.n_obs,
            nnz: n_cells.iter().sum(),
            total: acc.columns.iter().map(|c| c[0]).collect(),
            n_cells,
            whole: acc.whole,
            largest: acc.largest,
        }
    }

    fn merge(&self, into: &mut GeneTotals, later: GeneTotals) {
        into.n_obs += later.n_obs;
        into.nnz += later.nnz;
        into.whole &= later.whole;
        into.largest = into.largest.max(later.largest);
        into.total.iter_mut().zip(later.total).for_each(|(a, b)| *a += b);
        into.n_cells.iter_mut().zip(later.n_cells).for_each(|(a, b)| *a += b);
    }

    fn finish(&self, state: GeneTotals) -> GeneTotals {
        state
    }
}

/// The row column that holds Σ x of each row in f64; it never reaches obs.
pub const EXACT_TOTAL: &str = "\0total";

impl Qc {
    /// Looks every value in the face: whether all are whole, the largest, and the first that can't be a count.
    fn inspect(&self, chunk: &Chunk) -> Result<(bool, f32)> {
        let mut whole = true;
        let mut largest = 0f32;
        let mut good = true;
        for &v in &chunk.x.data {
            // Below 2^23 a float that equals its integer part is a whole number; above, every float is one. NaN fails both.
            whole &= v == (v as i32) as f32 || v.abs() >= 8_388_608.0;
            largest = largest.max(v);
            good &= (0.0..f32::INFINITY).contains(&v);
        }
        if self.counts && !good {
            let bad = |v: &f32| !(0.0..f32::INFINITY).contains(v);
            let at = chunk.x.data.iter().position(bad).unwrap_or(0);
            let row = chunk.x.indptr.partition_point(|&p| p as usize <= at).saturating_sub(1);
            let source = chunk.source.start + u64::from(chunk.rows.get(row).copied().unwrap_or(0));
            let place = Place { element: Some("X/data".into()), rows: Some(source..source + 1), store: None };
            let (value, column) = (chunk.x.data[at], chunk.x.indices[at]);
            return Err(Error::invalid(place, format!("the value {value} in column {column}"), "counts are finite and not negative"));
        }
        Ok((whole, largest))
    }
}

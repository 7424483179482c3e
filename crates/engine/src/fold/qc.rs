//! Quality control of raw counts: columns of obs for each row, totals of each gene.

use cellmill_kernels::totals::{COUNT_BITS, column_counts, column_totals};
use cellmill_matrix::{Error, Place, Result, Values};
use serde::{Deserialize, Serialize};

use super::{Counted, Fold};
use crate::chunk::{Chunk, RowColumns};
use crate::recipe::{RowQc, counted_qc, row_qc};

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
    /// Sums and counts of rows of whole numbers, since they were last moved to `columns`.
    counts: Vec<u64>,
    /// Rows that `counts` may still take.
    room: usize,
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
        QcAcc { n_obs: 0, counts: vec![0; self.n_vars], room: ROOM, columns: vec![[0.0; 2]; self.n_vars], whole: true, largest: 0.0 }
    }

    fn accumulate(&self, acc: &mut QcAcc, _: usize, chunk: &mut Chunk, rows: &mut RowColumns) -> Result<()> {
        let seen = chunk.look();
        if self.counts && !seen.counts {
            return Err(not_a_count(chunk));
        }
        acc.whole &= seen.whole;
        acc.largest = acc.largest.max(seen.largest);
        let n_rows = chunk.x.n_rows();
        acc.n_obs += n_rows as u64;
        // Sums of whole numbers are exact either way, so both ways give the same bits.
        if seen.whole && seen.counts && seen.largest < LARGEST && n_rows < ROOM {
            if acc.room < n_rows {
                acc.settle();
            }
            acc.room -= n_rows;
            column_counts(&chunk.x, &mut acc.counts);
        } else {
            acc.settle();
            column_totals(&chunk.x, &mut acc.columns);
        }
        for (name, values) in row_qc(&self.rows, chunk) {
            rows.extend(&name, values);
        }
        // The sum of each row before it was rounded to f32: normalisation and the median need it.
        rows.extend(EXACT_TOTAL, Values::F64(chunk.totals().total.clone()));
        Ok(())
    }

    fn takes_counts(&self) -> bool {
        self.rows.percent_top.is_empty()
    }

    fn count(&self, acc: &mut QcAcc, _: usize, counted: &Counted, rows: &mut RowColumns) {
        acc.largest = acc.largest.max(counted.largest);
        acc.n_obs += counted.totals.total.len() as u64;
        acc.columns.iter_mut().zip(&counted.genes).for_each(|(column, &word)| add_word(column, word));
        for (name, values) in counted_qc(&self.rows, counted) {
            rows.extend(&name, values);
        }
        rows.extend(EXACT_TOTAL, Values::F64(counted.totals.total.clone()));
    }

    fn close(&self, mut acc: QcAcc) -> GeneTotals {
        acc.settle();
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

/// Rows that a word of counts takes.
const ROOM: usize = (1 << COUNT_BITS) - 1;
/// Whole numbers below it are counted in words: `ROOM` of them stay below 2^(64 − COUNT_BITS).
const LARGEST: f32 = 8_388_608.0;

impl QcAcc {
    /// Moves sums and counts from words to floats.
    fn settle(&mut self) {
        if self.room == ROOM {
            return;
        }
        self.room = ROOM;
        for (column, word) in self.columns.iter_mut().zip(&mut self.counts) {
            add_word(column, std::mem::take(word));
        }
    }
}

/// Adds sum and count of a word of [`column_counts`].
fn add_word(column: &mut [f64; 2], word: u64) {
    column[0] += (word >> COUNT_BITS) as f64;
    column[1] += (word & ROOM as u64) as f64;
}

/// The first value that can't be a count.
fn not_a_count(chunk: &Chunk) -> Error {
    let bad = |v: &f32| !(0.0..f32::INFINITY).contains(v);
    let at = chunk.x.data.iter().position(bad).unwrap_or(0);
    let row = chunk.x.indptr.partition_point(|&p| p as usize <= at).saturating_sub(1);
    let source = chunk.source.start + u64::from(chunk.rows.get(row).copied().unwrap_or(0));
    let place = Place { element: Some("X/data".into()), rows: Some(source..source + 1), store: None };
    let (value, column) = (chunk.x.data[at], chunk.x.indices[at]);
    Error::invalid(
        place,
        format!("the value {value} in column {column}"),
        "counts are finite and not negative; if these are scaled or logged values, choose the counts with --matrix (raw/X or layers/NAME)",
    )
}

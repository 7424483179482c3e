//! Rows in flight.

use std::ops::Range;

use cellmill_kernels::totals::{Look, RowTotals, look, row_totals};
use cellmill_matrix::{Csr, Values};

/// Consecutive cells on their way through a recipe. Rows that a filter drops leave `x` and `rows`; their place in the source stays known.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Source rows that were read.
    pub source: Range<u64>,
    /// Rows that are left, as offsets from `source.start`, ascending: `(x.n_rows(),)`.
    pub rows: Vec<u32>,
    /// The rows that are left.
    pub x: Csr,
    /// Batch of each row that is left, when a batch key is in play.
    pub batch: Option<Vec<u32>>,
    /// Row sums that normalisation divides by, where they were taken before columns were dropped: `(x.n_rows(),)`.
    pub normalizer: Option<Vec<f64>>,
    seen: Option<Look>,
    known: Known,
}

/// What is known of the rows of a chunk as they are.
#[derive(Clone, Debug, Default)]
pub struct Known {
    totals: Option<RowTotals>,
    /// Whether all values are whole numbers from 0 on.
    whole: Option<bool>,
}

impl Chunk {
    /// Rows as they come from the source.
    pub fn new(source: Range<u64>, x: Csr, batch: Option<Vec<u32>>) -> Self {
        let rows = (0..x.n_rows() as u32).collect();
        Chunk { batch, ..Chunk::part(source, rows, x) }
    }

    /// Some rows of a range: `rows` are their offsets from `source.start`.
    pub fn part(source: Range<u64>, rows: Vec<u32>, x: Csr) -> Self {
        Chunk { source, rows, x, batch: None, normalizer: None, seen: None, known: Known::default() }
    }

    /// Totals of the rows as they are now; taken once, then remembered until the values change.
    pub fn totals(&mut self) -> &RowTotals {
        self.known.totals.get_or_insert_with(|| row_totals(&self.x))
    }

    /// What the values are like; looked at once.
    pub fn look(&mut self) -> Look {
        let seen = *self.seen.get_or_insert_with(|| look(&self.x.data));
        self.known.whole = Some(seen.whole && seen.counts);
        seen
    }

    /// Takes totals and a look, for those who ask later: [`Chunk::knowing`].
    pub fn know(&mut self) -> Known {
        self.look();
        self.totals();
        self.known.clone()
    }

    /// The same rows, of which this is known.
    pub fn knowing(self, known: Known) -> Self {
        Chunk { known, ..self }
    }

    /// Whether all values are known to be whole numbers from 0 on; seen once, then remembered until the values change.
    pub fn is_whole(&mut self) -> bool {
        match self.known.whole {
            Some(whole) => whole,
            None => {
                let seen = self.look();
                seen.whole && seen.counts
            }
        }
    }

    /// Drops rows whose flag is false.
    pub fn keep_rows(&mut self, keep: &[bool]) {
        if keep.iter().all(|k| *k) {
            return;
        }
        self.seen = None;
        cellmill_kernels::select::keep_rows(&mut self.x, keep);
        retain(&mut self.rows, keep);
        if let Some(batch) = &mut self.batch {
            retain(batch, keep);
        }
        if let Some(normalizer) = &mut self.normalizer {
            retain(normalizer, keep);
        }
        if let Some(totals) = &mut self.known.totals {
            retain(&mut totals.n_genes, keep);
            retain(&mut totals.total, keep);
        }
    }

    /// Row sums to normalise by: those taken earlier, or those of the rows as they are.
    pub fn row_sums(&mut self) -> Vec<f64> {
        match self.normalizer.take() {
            Some(sums) => sums,
            None => self.totals().total.clone(),
        }
    }

    /// Says that values or columns have changed.
    pub fn changed(&mut self) {
        self.seen = None;
        self.known = Known::default();
    }
}

/// Keeps the entries whose flag is true.
fn retain<T>(values: &mut Vec<T>, keep: &[bool]) {
    let mut flags = keep.iter();
    values.retain(|_| flags.next().copied().unwrap_or(false));
}

/// What is one value a row: columns that belong to the rows of a range, in row order.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RowColumns {
    /// Name and values; each as long as the rows that have passed.
    pub columns: Vec<(String, Values)>,
}

impl RowColumns {
    /// Appends values to a column, which is made at first use.
    pub fn extend(&mut self, name: &str, values: Values) {
        match self.columns.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => append(old, values),
            None => self.columns.push((name.to_string(), values)),
        }
    }

    /// Appends the columns of later rows.
    pub fn append(&mut self, later: RowColumns) {
        for (name, values) in later.columns {
            self.extend(&name, values);
        }
    }

    /// Takes a column out.
    pub fn take(&mut self, name: &str) -> Option<Values> {
        let at = self.columns.iter().position(|(n, _)| n == name)?;
        Some(self.columns.remove(at).1)
    }
}

/// Appends values of one type to values of the same type; rows of a column never change type, so anything else is left out.
fn append(old: &mut Values, more: Values) {
    match (old, more) {
        (Values::Bool(a), Values::Bool(b)) => a.extend(b),
        (Values::I32(a), Values::I32(b)) => a.extend(b),
        (Values::F32(a), Values::F32(b)) => a.extend(b),
        (Values::F64(a), Values::F64(b)) => a.extend(b),
        (old, more) => debug_assert!(false, "a row column of {} got {}", old.dtype(), more.dtype()),
    }
}

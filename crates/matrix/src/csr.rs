//! Consecutive rows of a sparse matrix.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Error, Place, Result};

/// Consecutive rows of a matrix, sparse: row `i` has columns `indices[indptr[i]..indptr[i + 1]]` with values `data[..]` at the
/// same positions. Inside a row columns are strictly increasing; `indptr[0]` is 0; explicit zeros are allowed.
///
/// Invariants are checked where data enter ([`Csr::check_indptr`], [`Csr::canonicalise`]) and relied upon afterwards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Csr {
    /// Number of columns (genes).
    pub n_cols: usize,
    /// Row starts: `(n_rows + 1,)`, first 0, never decreasing.
    pub indptr: Vec<u64>,
    /// Column of each entry: `(nnz,)`, `< n_cols`.
    pub indices: Vec<u32>,
    /// Value of each entry: `(nnz,)`.
    pub data: Vec<f32>,
}

impl Csr {
    /// No rows of `n_cols` columns.
    pub fn empty(n_cols: usize) -> Self {
        Csr { n_cols, indptr: vec![0], indices: Vec::new(), data: Vec::new() }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.indptr.len().saturating_sub(1)
    }

    /// Number of stored entries, explicit zeros included.
    pub fn nnz(&self) -> usize {
        self.indices.len()
    }

    /// Positions of row `i`'s entries.
    pub fn span(&self, i: usize) -> Range<usize> {
        self.indptr[i] as usize..self.indptr[i + 1] as usize
    }

    /// Columns and values of row `i`.
    pub fn row(&self, i: usize) -> (&[u32], &[f32]) {
        let span = self.span(i);
        (&self.indices[span.clone()], &self.data[span])
    }

    /// Forgets the rows but keeps the memory.
    pub fn clear(&mut self, n_cols: usize) {
        self.n_cols = n_cols;
        self.indptr.clear();
        self.indptr.push(0);
        self.indices.clear();
        self.data.clear();
    }

    /// Appends one row whose columns are already strictly increasing.
    pub fn push_row(&mut self, columns: &[u32], values: &[f32]) {
        self.indices.extend_from_slice(columns);
        self.data.extend_from_slice(values);
        self.indptr.push(self.indices.len() as u64);
    }

    /// Bytes of heap memory in use (capacities, not lengths).
    pub fn heap_bytes(&self) -> usize {
        self.indptr.capacity() * 8 + self.indices.capacity() * 4 + self.data.capacity() * 4
    }

    /// Checks that `indptr` starts at 0, never decreases and ends at the number of entries. `first_row` is the source row of row 0.
    pub fn check_indptr(&self, first_row: u64) -> Result<()> {
        let rows = first_row..first_row + self.n_rows() as u64;
        if let Some(i) = self.indptr.windows(2).position(|w| w[1] < w[0]) {
            let place = Place { element: Some("X/indptr".into()), rows: Some(first_row + i as u64..first_row + i as u64 + 1), store: None };
            return Err(Error::invalid(
                place,
                format!("row ends at {} before its start {}", self.indptr[i + 1], self.indptr[i]),
                "indptr never decreases",
            ));
        }
        if self.indptr.first() != Some(&0) || self.indptr.last() != Some(&(self.nnz() as u64)) || self.data.len() != self.nnz() {
            let place = Place { element: Some("X/indptr".into()), rows: Some(rows), store: None };
            return Err(Error::invalid(
                place,
                format!("indptr ends at {:?}", self.indptr.last()),
                format!("there are {} entries", self.nnz()),
            ));
        }
        Ok(())
    }

    /// Brings rows that are legal on disk (unsorted or duplicate columns) into canonical order: columns strictly increasing,
    /// duplicates summed in f64. Rows that are already canonical cost one comparison an entry. Rejects columns outside
    /// `0..n_cols`. Returns whether anything had to change.
    pub fn canonicalise(&mut self, first_row: u64) -> Result<bool> {
        let mut changed = false;
        let mut order: Vec<(u32, f32)> = Vec::new();
        let mut write = 0usize;
        let mut start = 0usize;
        for i in 0..self.n_rows() {
            let end = self.indptr[i + 1] as usize;
            let row = &self.indices[start..end];
            let increasing = row.windows(2).fold(true, |ok, w| ok & (w[0] < w[1]));
            let largest = if increasing { row.last().copied() } else { row.iter().copied().max() };
            if let Some(column) = largest.filter(|&c| c as usize >= self.n_cols) {
                let row = first_row + i as u64;
                let place = Place { element: Some("X/indices".into()), rows: Some(row..row + 1), store: None };
                return Err(Error::invalid(place, shown(column), format!("the store has {} genes (0..{})", self.n_cols, self.n_cols)));
            }
            if increasing {
                if changed {
                    self.indices.copy_within(start..end, write);
                    self.data.copy_within(start..end, write);
                }
                write += end - start;
            } else {
                changed = true;
                order.clear();
                order.extend(self.indices[start..end].iter().copied().zip(self.data[start..end].iter().copied()));
                order.sort_by_key(|entry| entry.0);
                let mut entries = order.iter().copied().peekable();
                while let Some((column, value)) = entries.next() {
                    let mut sum = f64::from(value);
                    while let Some((_, more)) = entries.next_if(|next| next.0 == column) {
                        sum += f64::from(more);
                    }
                    self.indices[write] = column;
                    self.data[write] = sum as f32;
                    write += 1;
                }
            }
            start = end;
            self.indptr[i + 1] = write as u64;
        }
        self.indices.truncate(write);
        self.data.truncate(write);
        Ok(changed)
    }
}

/// A column that is out of range; one that was negative on disk is shown as it was there.
fn shown(column: u32) -> String {
    match i32::try_from(column) {
        Ok(column) => format!("column {column}"),
        Err(_) => format!("column {} ({column} without a sign)", column as i32),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn canonical_rows_hold_the_same_numbers(rows in prop::collection::vec(prop::collection::vec((0u32..20, 1u8..9), 0..12), 0..8)) {
            let mut csr = Csr::empty(20);
            for row in &rows {
                let (columns, values): (Vec<u32>, Vec<f32>) = row.iter().map(|&(c, v)| (c, f32::from(v))).unzip();
                csr.push_row(&columns, &values);
            }
            csr.canonicalise(0).unwrap();
            csr.check_indptr(0).unwrap();
            prop_assert_eq!(csr.n_rows(), rows.len());
            for (i, row) in rows.iter().enumerate() {
                let mut want: BTreeMap<u32, f32> = BTreeMap::new();
                for &(c, v) in row {
                    *want.entry(c).or_default() += f32::from(v);
                }
                let (columns, values) = csr.row(i);
                prop_assert_eq!(columns, &want.keys().copied().collect::<Vec<_>>()[..]);
                prop_assert_eq!(values, &want.values().copied().collect::<Vec<_>>()[..]);
            }
        }
    }

    #[test]
    fn a_column_out_of_range_names_its_row() {
        let mut csr = Csr::empty(3);
        csr.push_row(&[0, 2], &[1.0, 1.0]);
        csr.push_row(&[1, 3], &[1.0, 1.0]);
        let error = csr.canonicalise(100).unwrap_err();
        assert_eq!(error.to_string(), "X/indices, rows 101..102: column 3, but the store has 3 genes (0..3)");
    }
}

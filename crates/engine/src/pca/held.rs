//! A source for tests.

use std::ops::Range;

use cellmill_matrix::{Csr, Result, Shape, Source, SourceRow};

/// Rows in memory.
pub(crate) struct Held(pub Csr);

impl Source for Held {
    fn shape(&self) -> Shape {
        Shape { n_obs: self.0.n_rows() as u64, n_vars: self.0.n_cols }
    }
    fn entries_before(&self, row: SourceRow) -> u64 {
        self.0.indptr[row.0 as usize]
    }
    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        into.clear(self.0.n_cols);
        for i in rows.start.0..rows.end.0 {
            let (columns, values) = self.0.row(i as usize);
            into.push_row(columns, values);
        }
        Ok(())
    }
    fn bytes_read(&self) -> u64 {
        0
    }
    fn bytes_decoded(&self) -> u64 {
        0
    }
    fn overhead_bytes(&self, _: usize) -> u64 {
        0
    }
    fn location(&self) -> &str {
        "held"
    }
}

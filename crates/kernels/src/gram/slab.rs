//! Some rows of a block turned into columns: the sparse operand of the products.

use cellmill_matrix::{Csr, Error, Result};

/// Rows of a slab. `SLAB * WIDTH` floats (256 KiB) stay in the second-level cache; a row number fits in u16.
pub(super) const SLAB: usize = 1024;

/// `SLAB` consecutive rows by columns. The columns are numbered by rank (0 = detected in most cells).
#[derive(Debug, Default)]
pub(super) struct Slab {
    /// Where each rank starts in `rows` and `values`: `(p + 1,)`.
    pub starts: Vec<u32>,
    /// Row of each entry, counted from the slab's first row: `(nnz,)`, `< SLAB`, increasing inside a column.
    pub rows: Vec<u16>,
    /// Value of each entry: `(nnz,)`.
    pub values: Vec<f32>,
    /// Sum of each rank's values in row order: `(p,)`.
    pub sums: Vec<f64>,
}

impl Slab {
    /// Takes rows `first..first + SLAB` (or to the end) of the pieces laid end to end. `rank[j]` is the rank of column `j`.
    pub fn fill(&mut self, pieces: &[&Csr], first: usize, rank: &[u32]) -> Result<()> {
        let p = rank.len();
        let Slab { starts, rows, values, sums } = self;
        starts.clear();
        starts.resize(p + 1, 0);
        sums.clear();
        sums.resize(p, 0.0);

        // A counting sort by rank; rows come in order, so a column's rows increase.
        for (csr, span) in parts(pieces, first) {
            for &column in &csr.indices[csr.indptr[span.start] as usize..csr.indptr[span.end] as usize] {
                let Some(&to) = rank.get(column as usize) else {
                    return Err(Error::bug(format!("column {column} of a block for a Gram matrix of {p} columns")));
                };
                starts[to as usize + 1] += 1;
            }
        }
        for j in 0..p {
            starts[j + 1] += starts[j];
        }
        let nnz = starts[p] as usize;
        rows.resize(nnz, 0);
        values.resize(nnz, 0.0);

        // `starts[j]` walks to the end of column j, which is the start of column j + 1: shifted back below.
        let mut row = 0u16;
        for (csr, span) in parts(pieces, first) {
            for i in span {
                let (columns, data) = csr.row(i);
                for (&column, &value) in columns.iter().zip(data) {
                    let to = rank[column as usize] as usize;
                    let at = starts[to] as usize;
                    starts[to] += 1;
                    rows[at] = row;
                    values[at] = value;
                    sums[to] += f64::from(value);
                }
                row += 1;
            }
        }
        for j in (1..=p).rev() {
            starts[j] = starts[j - 1];
        }
        starts[0] = 0;
        Ok(())
    }

    /// Rows and values of one rank.
    pub fn column(&self, rank: usize) -> (&[u16], &[f32]) {
        let span = self.starts[rank] as usize..self.starts[rank + 1] as usize;
        (&self.rows[span.clone()], &self.values[span])
    }

    /// Entries of consecutive ranks.
    pub fn entries(&self, ranks: std::ops::Range<usize>) -> usize {
        (self.starts[ranks.end] - self.starts[ranks.start]) as usize
    }

    /// Bytes of heap memory in use.
    pub fn heap_bytes(&self) -> usize {
        self.starts.capacity() * 4 + self.rows.capacity() * 2 + self.values.capacity() * 4 + self.sums.capacity() * 8
    }
}

/// The parts of the pieces that hold rows `first..first + SLAB` of the whole.
fn parts<'a>(pieces: &'a [&'a Csr], first: usize) -> impl Iterator<Item = (&'a Csr, std::ops::Range<usize>)> {
    let mut before = 0;
    pieces.iter().filter_map(move |&csr| {
        let start = before;
        before += csr.n_rows();
        let from = first.max(start);
        let to = (first + SLAB).min(before);
        (from < to).then(|| (csr, from - start..to - start))
    })
}

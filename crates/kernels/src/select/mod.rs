//! Keep some rows or some columns of a chunk.
//!
//! Contract: order is kept, values are untouched, columns are renumbered 0..kept.

use cellmill_matrix::Csr;

/// Where a column goes that is not kept.
pub const DROPPED: u32 = u32::MAX;

/// New number of each column: `(n_cols,)`, [`DROPPED`] for those that `keep` leaves out; and how many are kept.
pub fn renumbering(keep: &[bool]) -> (Vec<u32>, usize) {
    let mut next = 0u32;
    let map = keep
        .iter()
        .map(|&k| {
            if !k {
                return DROPPED;
            }
            next += 1;
            next - 1
        })
        .collect();
    (map, next as usize)
}

/// Keeps the rows whose flag is true, in place. `keep`: `(n_rows,)`.
pub fn keep_rows(x: &mut Csr, keep: &[bool]) {
    let mut write = 0usize;
    let mut row = 0usize;
    for (i, &keep) in keep.iter().enumerate() {
        if !keep {
            continue;
        }
        let span = x.span(i);
        if span.start != write {
            x.indices.copy_within(span.clone(), write);
            x.data.copy_within(span.clone(), write);
        }
        write += span.len();
        row += 1;
        x.indptr[row] = write as u64;
    }
    x.indptr.truncate(row + 1);
    x.indices.truncate(write);
    x.data.truncate(write);
}

/// Keeps the columns that `map` gives a number, in place, dropping explicit zeros too. `map`: `(n_cols,)` from [`renumbering`].
pub fn keep_columns(x: &mut Csr, map: &[u32], n_kept: usize) {
    let mut write = 0usize;
    let mut start = 0usize;
    for i in 0..x.n_rows() {
        let end = x.indptr[i + 1] as usize;
        for k in start..end {
            let column = map[x.indices[k] as usize];
            let value = x.data[k];
            // Written always, kept by advancing: no branch to mispredict.
            x.indices[write] = column;
            x.data[write] = value;
            write += usize::from(column != DROPPED && value != 0.0);
        }
        start = end;
        x.indptr[i + 1] = write as u64;
    }
    x.indices.truncate(write);
    x.data.truncate(write);
    x.n_cols = n_kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Csr {
        let mut x = Csr::empty(5);
        x.push_row(&[0, 3], &[1.0, 2.0]);
        x.push_row(&[], &[]);
        x.push_row(&[1, 2, 4], &[3.0, 0.0, 5.0]);
        x
    }

    #[test]
    fn rows_are_kept_in_order() {
        let mut x = sample();
        keep_rows(&mut x, &[false, true, true]);
        assert_eq!(x.indptr, [0, 0, 3]);
        assert_eq!(x.row(1), (&[1u32, 2, 4][..], &[3.0f32, 0.0, 5.0][..]));
        keep_rows(&mut x, &[false, false]);
        assert_eq!(x, Csr::empty(5));
    }

    #[test]
    fn columns_are_renumbered_and_zeros_dropped() {
        let mut x = sample();
        let (map, kept) = renumbering(&[false, true, true, true, false]);
        keep_columns(&mut x, &map, kept);
        assert_eq!(x.n_cols, 3);
        assert_eq!(x.indptr, [0, 1, 1, 2]);
        assert_eq!(x.indices, [2, 0]);
        assert_eq!(x.data, [2.0, 3.0]);
    }
}

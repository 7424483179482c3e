//! Parts of whole elements: the rows of an array, the rows and columns of a sparse matrix.

use crate::{Array, Sparse, SparseFormat, Values};

impl Array {
    /// The entries of the first axis whose `keep` is true, in order. `keep`: `(shape[0],)`.
    pub fn select(&self, keep: &[bool]) -> Array {
        let width: usize = self.shape.iter().skip(1).product();
        let flags: Vec<bool> = keep.iter().flat_map(|&k| std::iter::repeat_n(k, width)).collect();
        let mut shape = self.shape.clone();
        if let Some(n) = shape.first_mut() {
            *n = keep.iter().filter(|k| **k).count();
        }
        Array { shape, values: self.values.select(&flags) }
    }
}

impl Sparse {
    /// The rows and columns whose flag is true, in order; `None`: all. `rows`: `(shape[0],)`, `columns`: `(shape[1],)`.
    pub fn select(&self, rows: Option<&[bool]>, columns: Option<&[bool]>) -> Sparse {
        let (major, minor) = match self.format {
            SparseFormat::Csr => (rows, columns),
            SparseFormat::Csc => (columns, rows),
        };
        let new_index = minor.map(renumbered);
        let kept = |&c: &u32| new_index.as_ref().is_none_or(|new| new[c as usize].is_some());
        let mut indptr = vec![0u64];
        let mut flags = Vec::with_capacity(self.indices.len());
        let mut nnz = 0u64;
        for (line, ends) in self.indptr.windows(2).enumerate() {
            let span = &self.indices[ends[0] as usize..ends[1] as usize];
            let wanted = major.is_none_or(|keep| keep[line]);
            flags.extend(span.iter().map(|c| wanted && kept(c)));
            if wanted {
                nnz += span.iter().filter(|c| kept(c)).count() as u64;
                indptr.push(nnz);
            }
        }
        let indices = self.indices.iter().zip(&flags).filter(|(_, k)| **k);
        let indices = match &new_index {
            Some(new) => indices.filter_map(|(&c, _)| new[c as usize]).collect(),
            None => indices.map(|(&c, _)| c).collect(),
        };
        let left = |keep: Option<&[bool]>, n: usize| keep.map_or(n, |k| k.iter().filter(|k| **k).count());
        let shape = [left(rows, self.shape[0]), left(columns, self.shape[1])];
        let values: Values = self.values.select(&flags);
        Sparse { format: self.format, shape, indptr, indices, values }
    }
}

/// The new number of each kept entry.
fn renumbered(keep: &[bool]) -> Vec<Option<u32>> {
    let mut next = 0;
    keep.iter()
        .map(|&k| {
            k.then(|| {
                next += 1;
                next - 1
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: `[1 0 2], [0 0 0], [3 4 0]`.
    fn small(format: SparseFormat) -> Sparse {
        let (indptr, indices, values) = match format {
            SparseFormat::Csr => (vec![0, 2, 2, 4], vec![0, 2, 0, 1], vec![1.0, 2.0, 3.0, 4.0]),
            SparseFormat::Csc => (vec![0, 2, 3, 4], vec![0, 2, 2, 0], vec![1.0, 3.0, 4.0, 2.0]),
        };
        Sparse { format, shape: [3, 3], indptr, indices, values: Values::F32(values) }
    }

    #[test]
    fn both_ways_of_lying_give_the_same_part() {
        let (rows, columns) = ([true, false, true], [false, true, true]);
        let csr = small(SparseFormat::Csr).select(Some(&rows), Some(&columns));
        assert_eq!((csr.shape, &csr.indptr, &csr.indices), ([2, 2], &vec![0, 1, 2], &vec![1, 0]));
        assert_eq!(csr.values, Values::F32(vec![2.0, 4.0]));
        let csc = small(SparseFormat::Csc).select(Some(&rows), Some(&columns));
        assert_eq!((csc.shape, &csc.indptr, &csc.indices), ([2, 2], &vec![0, 1, 2], &vec![1, 0]));
        assert_eq!(csc.values, Values::F32(vec![4.0, 2.0]));
    }

    #[test]
    fn everything_is_the_matrix_itself() {
        for format in [SparseFormat::Csr, SparseFormat::Csc] {
            assert_eq!(small(format).select(None, None), small(format));
            assert_eq!(small(format).select(Some(&[true; 3]), Some(&[true; 3])), small(format));
        }
    }

    #[test]
    fn rows_of_an_array_keep_their_other_axes() {
        let cube = Array { shape: vec![3, 2, 1], values: Values::I32((0..6).collect()) };
        let part = cube.select(&[true, false, true]);
        assert_eq!((part.shape, part.values), (vec![2, 2, 1], Values::I32(vec![0, 1, 4, 5])));
    }
}

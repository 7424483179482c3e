//! `indptr` held compactly: two bytes a row where rows are short.

/// Rows between two absolute positions.
const BLOCK: usize = 256;

/// Row starts of a compressed matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Offsets {
    /// Position of row `BLOCK * i`.
    starts: Vec<u64>,
    /// Entries of each row, while all fit into 16 bits.
    short: Vec<u16>,
    /// Entries of each row, once one does not.
    long: Vec<u32>,
    total: u64,
}

impl Offsets {
    pub fn n_rows(&self) -> usize {
        self.short.len() + self.long.len()
    }

    /// Adds a row. `None` if it has 2^32 entries or more.
    pub fn push(&mut self, entries: u64) -> Option<()> {
        if self.n_rows().is_multiple_of(BLOCK) {
            self.starts.push(self.total);
        }
        if self.long.is_empty()
            && let Ok(short) = u16::try_from(entries)
        {
            self.short.push(short);
        } else {
            let long = u32::try_from(entries).ok()?;
            if self.long.is_empty() {
                self.long = std::mem::take(&mut self.short).into_iter().map(u32::from).collect();
            }
            self.long.push(long);
        }
        self.total += entries;
        Some(())
    }

    /// Entries of a row.
    pub fn len(&self, row: usize) -> u64 {
        if self.long.is_empty() { u64::from(self.short[row]) } else { u64::from(self.long[row]) }
    }

    /// Entries before a row; after the last row, all of them.
    pub fn before(&self, row: usize) -> u64 {
        if row >= self.n_rows() {
            return self.total;
        }
        let block = row / BLOCK;
        let part = block * BLOCK..row;
        let inside: u64 = if self.long.is_empty() {
            self.short[part].iter().map(|n| u64::from(*n)).sum()
        } else {
            self.long[part].iter().map(|n| u64::from(*n)).sum()
        };
        self.starts[block] + inside
    }

    pub fn heap_bytes(&self) -> usize {
        self.starts.capacity() * 8 + self.short.capacity() * 2 + self.long.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn positions_are_running_sums(rows in prop::collection::vec(prop_oneof![9 => 0u64..50, 1 => 60_000u64..70_000], 0..700)) {
            let mut offsets = Offsets::default();
            let mut sum = 0;
            let mut want = vec![0];
            for n in &rows {
                offsets.push(*n).unwrap();
                sum += n;
                want.push(sum);
            }
            for (i, before) in want.iter().enumerate() {
                prop_assert_eq!(offsets.before(i), *before);
            }
            for (i, n) in rows.iter().enumerate() {
                prop_assert_eq!(offsets.len(i), *n);
            }
        }
    }
}

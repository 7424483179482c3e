//! Unpacking and keeping some columns in one go.

use std::ops::Range;

use cellmill_matrix::{Csr, Error, Result};

use super::BLOCK;
use super::block::Lanes;
use super::decode::Reader;
use crate::select::DROPPED;
use crate::totals::RowTotals;

/// Unpacks what [`super::pack`] wrote and keeps the columns that `map` gives a number: what [`super::unpack`] and then
/// [`crate::select::keep_columns`] give (dropped columns and explicit zeros leave), without the rows in between. Replaces `into`,
/// keeps its capacity; after an error `into` has no rows. `map`: `(n_cols,)` from [`crate::select::renumbering`].
///
/// Returns the totals of the whole rows, dropped columns included, with the bits of [`crate::totals::row_totals`].
pub fn unpack_columns(bytes: &[u8], map: &[u32], n_kept: usize, into: &mut Csr) -> Result<RowTotals> {
    unpack_columns_with(Lanes::best(), bytes, map, n_kept, into)
}

pub(super) fn unpack_columns_with(lanes: Lanes, bytes: &[u8], map: &[u32], n_kept: usize, into: &mut Csr) -> Result<RowTotals> {
    let done = rows(lanes, bytes, map, into);
    if done.is_err() {
        into.clear(n_kept);
    }
    into.n_cols = n_kept;
    done
}

fn rows(lanes: Lanes, bytes: &[u8], map: &[u32], into: &mut Csr) -> Result<RowTotals> {
    let mut source = Vec::new();
    let mut reader = Reader::new(lanes, bytes, &mut source)?;
    if map.len() as u64 != reader.header.n_cols {
        return Err(Error::bug(format!("a map of {} columns for packed rows of {}", map.len(), reader.header.n_cols)));
    }
    // One byte a column instead of four: what every entry asks stays in the first cache.
    let kept: Vec<u8> = map.iter().map(|&column| u8::from(column != DROPPED)).collect();
    let n_rows = source.len() - 1;
    into.indptr.clear();
    into.indptr.push(0);
    let mut totals = RowTotals { n_genes: Vec::with_capacity(n_rows), total: Vec::with_capacity(n_rows) };
    let mut open = Sums::default();
    let mut write = 0usize;
    let (mut columns, mut values) = ([0; BLOCK], [0.0; BLOCK]);
    for _ in 0..reader.header.blocks() {
        let read = reader.block(&source, &mut columns, &mut values)?;
        // Not cleared: what is there is overwritten, so only growth is filled with zeros.
        if into.indices.len().min(into.data.len()) < write + BLOCK {
            let len = (write + BLOCK) * 2;
            into.indices.resize(len, 0);
            into.data.resize(len, 0.0);
        }
        let mut start = 0;
        while start < read.len {
            while source[totals.total.len() + 1] <= (read.entry + start) as u64 {
                open.close(&source, &mut totals);
                into.indptr.push(write as u64);
            }
            let end = (source[totals.total.len() + 1] as usize - read.entry).min(read.len);
            open.add(lanes, &values, start..end, read.zeros);
            write += choose(&columns, &values, start..end, (&kept, map), &mut into.indices[write..], &mut into.data[write..]);
            start = end;
        }
    }
    while totals.total.len() < n_rows {
        open.close(&source, &mut totals);
        into.indptr.push(write as u64);
    }
    into.indices.truncate(write);
    into.data.truncate(write);
    reader.finish()?;
    Ok(totals)
}

/// Writes the kept entries of `span` and returns how many they are.
#[inline]
fn choose(
    columns: &[u32; BLOCK],
    values: &[f32; BLOCK],
    span: Range<usize>,
    (kept, map): (&[u8], &[u32]),
    out_columns: &mut [u32],
    out_values: &mut [f32],
) -> usize {
    // Positions are written always, kept by advancing: no branch to mispredict, and one byte to write where most entries leave.
    let mut list = [0u8; 256];
    let mut n = 0u8;
    for k in span {
        list[usize::from(n)] = k as u8;
        n = n.wrapping_add(kept[columns[k] as usize]);
    }
    let mut write = 0;
    let (out_columns, out_values) = (&mut out_columns[..usize::from(n)], &mut out_values[..usize::from(n)]);
    for &k in &list[..usize::from(n)] {
        let k = usize::from(k) % BLOCK;
        out_columns[write] = map[columns[k] as usize];
        out_values[write] = values[k];
        write += usize::from(values[k] != 0.0);
    }
    write
}

/// Sums of the row that is being read.
#[derive(Default)]
struct Sums {
    /// One for each position in the matrix modulo 8, so that blocks are added as they lie; a row's own eight lanes are these,
    /// turned by where it starts.
    lanes: [f64; 8],
    /// Explicit zeros.
    zeros: u32,
}

impl Sums {
    #[inline]
    fn add(&mut self, lanes: Lanes, values: &[f32; BLOCK], span: Range<usize>, zeros: bool) {
        if zeros {
            self.zeros += values[span.clone()].iter().map(|&v| u32::from(v == 0.0)).sum::<u32>();
        }
        if span.len() == BLOCK {
            lanes.add(values, &mut self.lanes);
        } else {
            for k in span {
                self.lanes[k % 8] += f64::from(values[k]);
            }
        }
    }

    /// Ends row `totals.total.len()` and begins the next.
    fn close(&mut self, indptr: &[u64], totals: &mut RowTotals) {
        let row = totals.total.len();
        let mut lanes = [0.0; 8];
        for (position, sum) in self.lanes.iter().enumerate() {
            lanes[(position as u64).wrapping_sub(indptr[row]) as usize % 8] = *sum;
        }
        // The order of `totals::row_totals`.
        totals.total.push(((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7])));
        totals.n_genes.push((indptr[row + 1] - indptr[row]) as u32 - self.zeros);
        *self = Sums::default();
    }
}

/// Adds a block's values to eight sums.
#[inline(always)]
pub(super) fn add(values: &[f32; BLOCK], sums: &mut [f64; 8]) {
    let (groups, _) = values.as_chunks::<8>();
    let mut lanes = *sums;
    for group in groups {
        for l in 0..8 {
            lanes[l] += f64::from(group[l]);
        }
    }
    *sums = lanes;
}

//! Totals on the CPU.

use cellmill_matrix::Csr;

use super::RowTotals;

wide! {
    /// Non-zero entries and sum of each row.
    pub fn row_totals(x: &Csr) -> RowTotals = all_rows;
}

#[inline(always)]
fn all_rows(x: &Csr) -> RowTotals {
    let mut totals = RowTotals { n_genes: Vec::with_capacity(x.n_rows()), total: Vec::with_capacity(x.n_rows()) };
    for i in 0..x.n_rows() {
        let (_, values) = x.row(i);
        let (n_genes, total) = sum(values);
        totals.n_genes.push(n_genes);
        totals.total.push(total);
    }
    totals
}

/// Count of non-zeros and sum of a run of values; eight lanes, added pairwise at the end.
#[inline(always)]
fn sum(values: &[f32]) -> (u32, f64) {
    let mut count = [0u32; 8];
    let mut lanes = [0f64; 8];
    let (blocks, rest) = values.as_chunks::<8>();
    for block in blocks {
        for l in 0..8 {
            lanes[l] += f64::from(block[l]);
            count[l] += u32::from(block[l] != 0.0);
        }
    }
    for (l, &x) in rest.iter().enumerate() {
        lanes[l] += f64::from(x);
        count[l] += u32::from(x != 0.0);
    }
    let total = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    (count.iter().sum(), total)
}

/// Sum of each row over the genes of each mask: `masks[m]` is `(n_cols,)`; returns `(masks, n_rows)` in f64.
pub fn subset_totals(x: &Csr, masks: &[Vec<bool>]) -> Vec<Vec<f64>> {
    masks
        .iter()
        .map(|mask| {
            (0..x.n_rows())
                .map(|i| {
                    let (columns, values) = x.row(i);
                    // `sum` would make -0 of nothing.
                    let chosen = columns.iter().zip(values).filter(|(c, _)| mask[**c as usize]);
                    chosen.fold(0.0, |sum, (_, &v)| sum + f64::from(v))
                })
                .collect()
        })
        .collect()
}

/// Share of each row's total that lies in its `n` largest entries, in percent, for each `n`: `(ns, n_rows)` f64.
/// A row without counts gives NaN, as scanpy's division does.
pub fn top_shares(x: &Csr, totals: &RowTotals, ns: &[usize]) -> Vec<Vec<f64>> {
    let mut shares = vec![Vec::with_capacity(x.n_rows()); ns.len()];
    let Some(&largest) = ns.iter().max() else { return shares };
    let mut top: Vec<f32> = Vec::new();
    for i in 0..x.n_rows() {
        top.clear();
        top.extend_from_slice(x.row(i).1);
        if top.len() > largest {
            top.select_nth_unstable_by(largest, |a, b| b.total_cmp(a));
            top.truncate(largest);
        }
        top.sort_unstable_by(|a, b| b.total_cmp(a));
        for (share, &n) in shares.iter_mut().zip(ns) {
            let sum: f64 = top.iter().take(n).map(|&v| f64::from(v)).sum();
            share.push(sum / totals.total[i] * 100.0);
        }
    }
    shares
}

/// Adds each column's sum and count of non-zeros to `into[column]` = [sum, count], row after row.
pub fn column_totals(x: &Csr, into: &mut [[f64; 2]]) {
    for (&column, &value) in x.indices.iter().zip(&x.data) {
        let cell = &mut into[column as usize];
        cell[0] += f64::from(value);
        cell[1] += f64::from(u8::from(value != 0.0));
    }
}

/// [`column_totals`] for rows of whole numbers in `0..2^23`, one word a column: `into[column] += value << COUNT_BITS | (value != 0)`.
/// One addition an entry on half the memory. Takes up to `2^COUNT_BITS - 1` rows and sums below `2^(64 - COUNT_BITS)`.
pub fn column_counts(x: &Csr, into: &mut [u64]) {
    for (&column, &value) in x.indices.iter().zip(&x.data) {
        let number = u64::from(whole_number(value));
        into[column as usize] += number << COUNT_BITS | u64::from(number != 0);
    }
}

/// Bits of a word of [`column_counts`] that hold the count.
pub const COUNT_BITS: u32 = 16;

/// 2²³: from here on every f32 is a whole number, and up to here adding it leaves a whole number in the low 23 bits.
const EVERY: f32 = 8_388_608.0;

/// A whole number in `0..2^23` that is stored as a float. Cheaper than a cast, which has to look for NaN and overflow.
#[inline(always)]
pub fn whole_number(value: f32) -> u32 {
    (value + EVERY).to_bits() & 0x7f_ffff
}

/// What the values of some rows are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Whether all are whole numbers.
    pub whole: bool,
    /// Whether all are finite and not negative.
    pub counts: bool,
    /// The largest, at least 0.
    pub largest: f32,
}

wide! {
    /// Looks every value in the face.
    pub fn look(values: &[f32]) -> Look = all_values;
}

wide! {
    /// The largest magnitude; NaN if one is missing, 0 of none.
    pub fn largest(values: &[f32]) -> f32 = largest_of;
}

#[inline(always)]
fn largest_of(values: &[f32]) -> f32 {
    // As integers, floats from 0 on are in their order, and NaN comes last.
    f32::from_bits(values.iter().fold(0, |most, v| most.max(v.abs().to_bits() as i32)) as u32)
}

#[inline(always)]
fn all_values(values: &[f32]) -> Look {
    // As integers, floats from 0 on are in their order, those with a sign have the highest bit, and infinity and NaN come last: three
    // reductions without a branch tell everything about rows of counts.
    let (mut fraction, mut all, mut most) = (0u32, 0u32, 0i32);
    let (blocks, rest) = values.as_chunks::<64>();
    for block in blocks.iter().map(|b| &b[..]).chain([rest]) {
        for v in block {
            let size = v.abs();
            // Rounds to a whole number; NaN differs from itself.
            fraction |= u32::from((size + EVERY) - EVERY != size) & u32::from(size.to_bits() < EVERY.to_bits());
        }
        for v in block {
            all |= v.to_bits();
        }
        for v in block {
            most = most.max(v.to_bits() as i32);
        }
    }
    if all >> 31 == 0 && most < f32::INFINITY.to_bits() as i32 {
        return Look { whole: fraction == 0, counts: true, largest: f32::from_bits(most as u32) };
    }
    Look {
        whole: fraction == 0 && !values.iter().any(|v| v.is_nan()),
        counts: values.iter().all(|v| (0.0..f32::INFINITY).contains(v)),
        largest: values.iter().copied().fold(0.0, f32::max),
    }
}

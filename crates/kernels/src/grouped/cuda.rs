//! Sums over groups of rows in device memory.
//!
//! Sums are integers of 2^-scale, so they have the same bits whatever the order of rows; the scale is chosen so that no sum can overflow.
//! Tolerance against the CPU: each addend is rounded to `bound · 2^-k`, k = 62 − log2(rows) (squares: `bound²`); sums of counts are exact.

use std::sync::Arc;

use cellmill_cuda::{Buffer, Device, Grid, Kernel, Source, Stream};
use cellmill_matrix::{Error, Result};

use crate::pack::cuda::Rows;
use crate::transform::cuda::Logged;

/// The kernels.
pub const SOURCE: Source = Source {
    name: "grouped",
    parts: &[include_str!("../transform/logged.cuh"), include_str!("grouped.cu")],
    kernels: &["kept_totals", "grouped"],
};

/// The kernels on one device.
#[derive(Clone, Debug)]
pub struct Grouped {
    kept_totals: Kernel,
    grouped: Kernel,
}

/// Which columns count.
#[derive(Debug)]
pub struct Kept {
    /// The number of each column among those that are kept, `u32::MAX` for others; `None`: all are kept.
    map: Option<Buffer<u32>>,
    n_kept: usize,
    /// Whether rows are normalised by their sums over the kept columns, instead of all.
    totals: bool,
}

impl Kept {
    /// All of `n_cols` columns.
    pub fn all(n_cols: usize) -> Self {
        Kept { map: None, n_kept: n_cols, totals: false }
    }

    /// The columns for which `mask` is true, `(n_cols,)`. `totals`: rows are normalised by their sums over these, instead of all.
    pub fn some(stream: &Stream, mask: &[bool], totals: bool) -> Result<Self> {
        let (map, n_kept) = crate::select::renumbering(mask);
        Ok(Kept { map: Some(stream.upload(&map)?), n_kept, totals })
    }

    /// How many are kept.
    pub fn n_kept(&self) -> usize {
        self.n_kept
    }

    /// The number of each column among those that are kept; `None`: all are.
    pub(crate) fn map(&self) -> Option<&Buffer<u32>> {
        self.map.as_ref()
    }

    /// Whether rows of so many columns are meant.
    pub(crate) fn fits(&self, n_cols: usize) -> bool {
        self.map.as_ref().map_or(n_cols == self.n_kept, |map| map.len() >= n_cols)
    }
}

/// Sums of some rows so far: fixed point in device memory.
#[derive(Debug)]
pub struct Sums {
    n_groups: usize,
    n_kept: usize,
    sums: Buffer<u64>,
    counts: Buffer<u32>,
    beyond: Buffer<u32>,
    scales: [i32; 2],
    bound: f64,
}

/// Sums of groups as they come from devices, `(n_groups, n_kept)`; those of several are added up.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// Σ x and Σ x², as whole numbers.
    sums: Vec<u64>,
    /// Entries that are not zero.
    pub counts: Vec<u32>,
    scales: [i32; 2],
}

impl Sums {
    /// Bytes of device memory.
    pub fn bytes(n_groups: usize, n_kept: usize) -> u64 {
        20 * n_groups as u64 * n_kept as u64
    }

    /// Sums of `n_kept` columns over groups of at most `n_rows` rows, after `how`; `None` if values after it lie too far apart for fixed
    /// point. Values that are left as they are must be whole.
    pub fn new(stream: &Stream, n_groups: usize, n_kept: usize, n_rows: u64, how: &Logged) -> Result<Option<Self>> {
        let Some((bound, scales)) = scales(n_rows, how) else { return Ok(None) };
        Ok(Some(Sums {
            n_groups,
            n_kept,
            sums: stream.zeros(2 * n_groups * n_kept)?,
            counts: stream.zeros(n_groups * n_kept)?,
            beyond: stream.zeros(1)?,
            scales,
            bound,
        }))
    }

    /// What was added, once all of it is done; `None` if a value was beyond the bound.
    pub fn totals(&self, stream: &Stream) -> Result<Option<Totals>> {
        if stream.download(&self.beyond, 1)?[0] != 0 {
            return Ok(None);
        }
        let sums = stream.download(&self.sums, self.sums.len())?;
        Ok(Some(Totals { sums, counts: stream.download(&self.counts, self.counts.len())?, scales: self.scales }))
    }
}

/// The largest magnitude of `n_rows` values after `how` whose sums, and those of their squares, fit; and the scales of the two.
fn scales(n_rows: u64, how: &Logged) -> Option<(f64, [i32; 2])> {
    let bits = 62 - (u64::BITS - n_rows.leading_zeros()) as i32;
    match how.bound() {
        Some(bound) if how.log1p => {
            // The least e with bound <= 2^e.
            let e = bound.log2().ceil() as i32;
            Some((bound, [bits - e, bits - 2 * e]))
        }
        None if *how == Logged::IDENTITY => Some((f64::from(bits / 2).exp2(), [0, 0])),
        _ => None,
    }
}

impl Totals {
    /// Adds those of other rows.
    pub fn merge(&mut self, other: &Totals) {
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, more)| *sum = sum.wrapping_add(*more));
        self.counts.iter_mut().zip(&other.counts).for_each(|(n, more)| *n += more);
    }

    /// [Σ x, Σ x²] at a place, and how far the second may be off.
    pub fn at(&self, at: usize) -> ([f64; 2], f64) {
        let [unit, square_unit] = self.scales.map(|scale| (-f64::from(scale)).exp2());
        let [x, squares] = [self.sums[2 * at], self.sums[2 * at + 1]].map(|sum| sum.cast_signed() as f64);
        let off = if self.scales == [0, 0] { 0.0 } else { f64::from(self.counts[at]) * square_unit };
        ([x * unit, squares * square_unit], off)
    }
}

impl Grouped {
    /// Compiles them, if that was not done before.
    pub fn new(device: &Arc<Device>) -> Result<Self> {
        let program = device.program(&SOURCE)?;
        Ok(Grouped { kept_totals: program.kernel("kept_totals")?, grouped: program.kernel("grouped")? })
    }

    /// Adds the values of each row, transformed on the fly, to the sums of its group: [`super::add_row`] after the steps. `groups`:
    /// `(n_rows,)`, others than `0..n_groups` are left out. Several streams may add to the same sums.
    pub fn add(&self, stream: &Stream, rows: &mut Rows, how: &Logged, kept: &Kept, groups: &Buffer<u32>, into: &Sums) -> Result<()> {
        if !kept.fits(rows.n_cols) || groups.len() < rows.n_rows || into.n_kept != kept.n_kept {
            return Err(Error::bug(format!("sums of {} groups of {} columns, of {}", into.n_groups, into.n_kept, rows.n_cols)));
        }
        let [starts, ends] = rows.spans();
        let n_rows = (rows.n_rows as u32).into();
        let grid = Grid::new(rows.n_rows.div_ceil(8), 256);
        if let (true, Some(map)) = (kept.totals, &kept.map) {
            let (columns, values, found) = ((&rows.columns).into(), (&rows.values).into(), (&rows.found).into());
            let args = [starts, ends, columns, values, n_rows, map.into(), (&mut rows.total).into(), found];
            // SAFETY: the arguments of `kept_totals`; columns lie below `n_cols`, for which `map` has places, or a flag is set at which it
            // returns.
            unsafe { stream.launch(&self.kept_totals, grid, &args)? };
        }
        let [target, per, mode] = how.args();
        let args = [
            starts,
            ends,
            (&rows.columns).into(),
            (&rows.values).into(),
            n_rows,
            (&rows.total).into(),
            target,
            per,
            mode,
            groups.into(),
            (into.n_groups as u32).into(),
            kept.map.as_ref().into(),
            (kept.n_kept as u32).into(),
            into.bound.into(),
            into.scales[0].into(),
            into.scales[1].into(),
            (&into.sums).into(),
            (&into.counts).into(),
            (&rows.found).into(),
            (&into.beyond).into(),
        ];
        // SAFETY: the arguments of `grouped`; as above, and maps lead to columns below `n_kept`.
        unsafe { stream.launch(&self.grouped, grid, &args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sum_can_overflow() {
        let logged = Logged { target_sum: Some(1e4), log1p: true, base: None };
        for n_rows in [1, 4096, 1_306_127, 100_000_000] {
            for how in [logged, Logged::IDENTITY] {
                let (bound, scales) = scales(n_rows, &how).unwrap();
                for (scale, most) in scales.iter().zip([bound, bound * bound]) {
                    assert!(most * f64::from(*scale).exp2() * n_rows as f64 <= (2f64).powi(62), "{n_rows} rows, {how:?}");
                }
            }
        }
        assert!(scales(10, &Logged { log1p: false, ..logged }).is_none());
        assert!(scales(10, &Logged { target_sum: None, ..logged }).is_none());
    }

    #[test]
    fn sums_of_devices_are_added_up() {
        let mut a = Totals { sums: vec![3, 5, (-4i64).cast_unsigned(), 16], counts: vec![1, 2], scales: [1, 2] };
        a.merge(&Totals { sums: vec![1, 3, 2, 0], counts: vec![1, 1], scales: [1, 2] });
        assert_eq!(a.at(0), ([2.0, 2.0], 0.5));
        assert_eq!(a.at(1), ([-1.0, 4.0], 0.75));
    }
}

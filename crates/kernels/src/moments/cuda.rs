//! Sums of each column in device memory.
//!
//! Sums are integers of 2^-scale, so they have the same bits whatever the order of rows; the scale is chosen so that no sum can
//! overflow. Tolerance against the CPU: each addend is rounded to `bound · 2^-k`, k = 62 − log2(rows) (squares: `bound²`); sums of
//! whole numbers below 2^24 over up to 2^14 rows are exact.

use std::sync::Arc;

use cellmill_cuda::{Buffer, Device, Grid, Kernel, Source, Stream};
use cellmill_matrix::{Error, Result};

use crate::pack::cuda::Rows;
use crate::transform::cuda::Logged;

/// The kernels.
pub const SOURCE: Source = Source {
    name: "moments",
    parts: &[include_str!("../transform/logged.cuh"), include_str!("moments.cu")],
    kernels: &["moments", "column_totals", "take"],
};

/// The kernels on one device.
#[derive(Clone, Debug)]
pub struct Moments {
    moments: Kernel,
    column_totals: Kernel,
    take: Kernel,
}

/// Sums of one run of rows, open: fixed point in device memory.
#[derive(Debug)]
pub struct Sums {
    sums: Buffer<u64>,
    scale: i32,
    square_scale: i32,
    bound: f64,
    rows_left: usize,
    most_rows: usize,
}

impl Sums {
    /// Sums of `n_cols` columns over at most `rows` rows at a time, of values up to `bound` in magnitude.
    pub fn new(stream: &Stream, n_cols: usize, rows: usize, bound: f64) -> Result<Self> {
        if !bound.is_finite() || bound < 0.0 {
            return Err(Error::bug(format!("the bound of a column's values is {bound}")));
        }
        let rows_bits = (usize::BITS - rows.leading_zeros()) as i32;
        // The least e with bound <= 2^e.
        let e = if bound > 0.0 { bound.log2().ceil() as i32 } else { 0 };
        Ok(Sums {
            sums: stream.zeros(2 * n_cols)?,
            scale: 62 - rows_bits - e,
            square_scale: 62 - rows_bits - 2 * e,
            bound,
            rows_left: rows,
            most_rows: rows,
        })
    }
}

/// What a kernel is told beside the rows.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Sums for normalisation, `(n_rows,)`; `None`: those of the rows themselves.
    pub total: Option<&'a Buffer<f64>>,
    /// What is done to each value first.
    pub how: Logged,
    /// Rows that take part: `(n_rows,)`, 0 for those that don't; `None`: all.
    pub keep: Option<&'a Buffer<u8>>,
}

impl Moments {
    /// Compiles them, if that was not done before.
    pub fn new(device: &Arc<Device>) -> Result<Self> {
        let program = device.program(&SOURCE)?;
        Ok(Moments { moments: program.kernel("moments")?, column_totals: program.kernel("column_totals")?, take: program.kernel("take")? })
    }

    /// Adds values and squares of each column, transformed on the fly: [`super::accumulate`] after the steps. `maxima`: `(n_cols,)`,
    /// bits of the largest magnitudes so far, raised.
    pub fn accumulate(
        &self,
        stream: &Stream,
        rows: &mut Rows,
        input: &Input<'_>,
        maxima: Option<&mut Buffer<u32>>,
        into: &mut Sums,
    ) -> Result<()> {
        self.launch(&self.moments, stream, rows, input, maxima, into)
    }

    /// Adds values and counts of non-zeros: [`crate::totals::column_totals`].
    pub fn column_totals(&self, stream: &Stream, rows: &mut Rows, into: &mut Sums) -> Result<()> {
        into.square_scale = 0;
        let input = Input { total: None, how: Logged::IDENTITY, keep: None };
        self.launch(&self.column_totals, stream, rows, &input, None, into)
    }

    fn launch(
        &self,
        kernel: &Kernel,
        stream: &Stream,
        rows: &mut Rows,
        input: &Input<'_>,
        maxima: Option<&mut Buffer<u32>>,
        into: &mut Sums,
    ) -> Result<()> {
        let n = rows.n_rows;
        let short = input.total.is_some_and(|t| t.len() < n) || input.keep.is_some_and(|k| k.len() < n);
        if short || 2 * rows.n_cols > into.sums.len() || maxima.as_ref().is_some_and(|m| m.len() < rows.n_cols) || n > into.rows_left {
            return Err(Error::bug(format!("sums of {} x {} rows in smaller buffers", n, rows.n_cols)));
        }
        into.rows_left -= n;
        let [starts, ends] = rows.spans();
        let [target, per, mode] = input.how.args();
        let args = [
            starts,
            ends,
            (&rows.columns).into(),
            (&rows.values).into(),
            (n as u32).into(),
            input.total.unwrap_or(&rows.total).into(),
            target,
            per,
            mode,
            input.keep.into(),
            into.bound.into(),
            into.scale.into(),
            into.square_scale.into(),
            (&mut into.sums).into(),
            maxima.as_deref().into(),
            (&mut rows.found).into(),
        ];
        // SAFETY: the arguments of the kernel; columns lie below `n_cols`, rows in their buffers, or a flag is set at which it returns.
        unsafe { stream.launch(kernel, Grid::new(n.div_ceil(8), 256), &args) }
    }

    /// Gives the sums of each column, `[Σ x, Σ x²]` or `[Σ x, count]`, into `out`, `(n_cols, 2)`, and starts anew.
    pub fn take(&self, stream: &Stream, sums: &mut Sums, out: &mut Buffer<f64>) -> Result<()> {
        let n = sums.sums.len();
        if out.len() < n {
            return Err(Error::bug(format!("{n} sums into {} numbers", out.len())));
        }
        sums.rows_left = sums.most_rows;
        let args = [(&mut sums.sums).into(), (n as u32).into(), sums.scale.into(), sums.square_scale.into(), out.into()];
        // SAFETY: the arguments of `take`; both buffers have `n` elements.
        unsafe { stream.launch(&self.take, Grid::over(n, 256), &args) }
    }
}

//! Scores of sparse rows in device memory. Tolerance: none, the bits are those of the CPU.

use cellmill_cuda::{Buffer, Grid, Kernel, Source, Stream};
use cellmill_matrix::{Error, Result};

use crate::pack::cuda::{Found, Rows};

/// The kernels.
pub const SOURCE: Source = Source { name: "project", parts: &[include_str!("project.cu")], kernels: &["scores"] };

/// What the rows are multiplied with, in device memory: `W (p, k)` and `offset (k,)`.
#[derive(Debug)]
pub struct Projection {
    scores: Kernel,
    p: usize,
    k: usize,
    /// Components from one column to the next: `k` filled up to a multiple of 32.
    stride: usize,
    weights: Buffer<f32>,
    offset: Buffer<f64>,
    found: Buffer<u32>,
}

impl Projection {
    /// `weights`: `(p, k)` row by row; `offset`: `(k,)`. For centred scores, offset = -mean' W.
    pub fn new(stream: &Stream, weights: &[f64], p: usize, offset: &[f64]) -> Result<Self> {
        let k = offset.len();
        if weights.len() != p * k || k == 0 {
            return Err(Error::bug(format!("{} weights for {p} genes by {k} components", weights.len())));
        }
        let stride = k.next_multiple_of(32);
        let mut padded = vec![0f32; p * stride];
        for (out, row) in padded.chunks_exact_mut(stride).zip(weights.chunks_exact(k)) {
            out.iter_mut().zip(row).for_each(|(out, &w)| *out = w as f32);
        }
        let scores = stream.device().program(&SOURCE)?.kernel("scores")?;
        Ok(Projection { scores, p, k, stride, weights: stream.upload(&padded)?, offset: stream.upload(offset)?, found: stream.zeros(2)? })
    }

    /// Components.
    pub fn n_components(&self) -> usize {
        self.k
    }

    /// Bytes of device memory for `p` columns and `k` components.
    pub fn bytes(p: usize, k: usize) -> u64 {
        (4 * p * k.next_multiple_of(32) + 8 * k) as u64
    }

    /// An error if any of the rows were damaged. Every stream that asked for scores must have been waited for.
    pub fn check(&self, stream: &Stream) -> Result<()> {
        let found = stream.download(&self.found, 2)?;
        Found::new([found[0], found[1]]).map(drop)
    }

    /// Scores of the rows: `(n_rows, k)`, row by row.
    pub fn scores(&self, stream: &Stream, rows: &Rows) -> Result<Buffer<f32>> {
        if rows.n_cols != self.p {
            return Err(Error::bug(format!("rows of {} columns by a projection of {} genes", rows.n_cols, self.p)));
        }
        let mut out = stream.alloc(rows.n_rows * self.k)?;
        let [starts, ends] = rows.spans();
        let args = [
            starts,
            ends,
            (&rows.columns).into(),
            (&rows.values).into(),
            (rows.n_rows as u32).into(),
            (&self.weights).into(),
            (self.k as u32).into(),
            (self.stride as u32).into(),
            (&self.offset).into(),
            (&mut out).into(),
            (&rows.found).into(),
            (&self.found).into(),
        ];
        // SAFETY: the arguments of `scores`; columns lie below p, rows in their buffers, or a flag is set at which it returns.
        unsafe { stream.launch(&self.scores, Grid::new(rows.n_rows.div_ceil(8), 256), &args)? };
        Ok(out)
    }
}

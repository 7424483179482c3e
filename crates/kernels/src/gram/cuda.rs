//! The Gram matrix on a GPU, exact in integers.
//!
//! Values are rounded to `q · 2^-s`, `|q| < 2^23`, s for each column such that its bound fits, and `q` is cut into three signed digits
//! of eight bits. Products of digits are summed by tensor cores in 32-bit integers (no rounding, no overflow in 65,536 rows), and these
//! in 64 bits. So the result has the same bits on every card, in any order and cut of rows, and on any number of cards; the products
//! of the two lowest digits alone are left out. (Ootomo, Ozaki & Yokota 2024: double-precision products from integer tensor cores.)
//!
//! Tolerance against the CPU: a value is off by at most `bound · 2^-22`, rounded to nearest; a product by `bound_i bound_j · 2^-30`.
//! Both have no preferred sign, so covariances agree to about 1e-7 of `σ_i σ_j`.

use std::collections::VecDeque;

use cellmill_cuda::{Blas, Buffer, Grid, Kernel, Operand, Pending, Source, Stream};
use cellmill_matrix::{Error, Place, Result};

use super::{MAX_COLUMNS, Totals};
use crate::pack::cuda::{Found, Rows};

/// The kernels.
pub const SOURCE: Source =
    Source { name: "gram", parts: &[include_str!("gram.cu")], kernels: &["digits", "fold", "covariance", "sums", "add"] };

/// Rows whose digits are multiplied at once.
pub const BLOCK: usize = 16_384;
/// Products of at most this many rows are summed in 32 bits: 128 · 128 · 65,536 = 2^30.
const ROWS_A_FOLD: usize = 65_536;
/// Columns of the products that are known to be symmetric are taken in panels, and only their upper parts.
const PANEL: usize = 1_280;
/// Numbers that go from one device to another at a time: 8 MiB.
const PIECE: usize = 1 << 20;
/// Largest |q|: all three digits 127.
const LARGEST: f64 = 8_355_711.0;

/// Sums of products of `p` columns, open on one device.
#[derive(Debug)]
pub struct Gram {
    stream: Stream,
    blas: Blas,
    kernels: [Kernel; 5],
    p: usize,
    /// `p + 1` and what the products like.
    n_pad: usize,
    shifts: Buffer<i32>,
    /// Three planes of digits: `(BLOCK, n_pad)` each, column by column.
    planes: Buffer<i8>,
    /// Rows in the planes.
    filled: usize,
    /// Products of digits: (1,1), (1,2), (1,3), (2,2), (2,3).
    products: [Buffer<i32>; 5],
    /// Rows in the products.
    multiplied: usize,
    /// `(n_pad, n_pad)`, upper part: units of `2^(8 - s_i - s_j)`.
    totals: Buffer<i64>,
    /// Flags, and in two words the entries.
    found: Buffer<u32>,
    n_rows: u64,
}

impl Gram {
    /// No rows of `bounds.len()` columns; `bounds[j]`: no value of column `j` is larger in magnitude.
    pub fn new(stream: &Stream, bounds: &[f32]) -> Result<Self> {
        let p = bounds.len();
        if p >= MAX_COLUMNS {
            return Err(Error::option("n_top_genes", p, format!("at most {} genes are taken", MAX_COLUMNS - 1)));
        }
        if let Some(bad) = bounds.iter().find(|b| !b.is_finite() || **b < 0.0) {
            return Err(Error::bug(format!("the bound of a column is {bad}")));
        }
        let mut shifts: Vec<i32> = bounds.iter().map(|&b| shift(b)).collect();
        let n_pad = (p + 1).next_multiple_of(64);
        shifts.resize(n_pad, 0);
        let program = stream.device().program(&SOURCE)?;
        let square = || stream.zeros::<i32>(n_pad * n_pad);
        Ok(Gram {
            stream: stream.clone(),
            blas: Blas::new(stream)?,
            kernels: [
                program.kernel("digits")?,
                program.kernel("fold")?,
                program.kernel("covariance")?,
                program.kernel("sums")?,
                program.kernel("add")?,
            ],
            p,
            n_pad,
            shifts: stream.upload(&shifts)?,
            planes: stream.zeros(3 * BLOCK * n_pad)?,
            filled: 0,
            products: [square()?, square()?, square()?, square()?, square()?],
            multiplied: 0,
            totals: stream.zeros(n_pad * n_pad)?,
            found: stream.zeros(4)?,
            n_rows: 0,
        })
    }

    /// Bytes of device memory for `p` columns.
    pub fn bytes(p: usize) -> u64 {
        let n = (p + 1).next_multiple_of(64);
        (3 * BLOCK * n + 28 * n * n) as u64
    }

    /// Rows added so far.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Adds rows, on this matrix's stream: the rows' stream must have been waited for.
    pub fn add(&mut self, rows: &Rows) -> Result<()> {
        if rows.n_cols != self.p || rows.n_rows > BLOCK {
            return Err(Error::bug(format!("{} x {} rows for a Gram matrix of {} columns", rows.n_rows, rows.n_cols, self.p)));
        }
        if rows.n_rows == 0 {
            return Ok(());
        }
        if self.filled + rows.n_rows > BLOCK {
            self.multiply()?;
        }
        let [starts, ends] = rows.spans();
        let args = [
            starts,
            ends,
            (&rows.columns).into(),
            (&rows.values).into(),
            (rows.n_rows as u32).into(),
            (self.filled as u32).into(),
            (BLOCK as u32).into(),
            (self.n_pad as u32).into(),
            (self.p as u32).into(),
            (&self.shifts).into(),
            (&mut self.planes).into(),
            (&rows.found).into(),
            (&mut self.found).into(),
        ];
        // SAFETY: the arguments of `digits`; columns lie below p < n_pad, rows below BLOCK, or a flag is set at which it returns.
        unsafe { self.stream.launch(&self.kernels[0], Grid::new(rows.n_rows.div_ceil(8), 256), &args)? };
        self.filled += rows.n_rows;
        self.n_rows += rows.n_rows as u64;
        Ok(())
    }

    /// Multiplies what the planes hold and empties them.
    fn multiply(&mut self) -> Result<()> {
        if self.filled == 0 {
            return Ok(());
        }
        if self.multiplied + self.filled > ROWS_A_FOLD {
            self.fold()?;
        }
        let n = self.n_pad;
        let add = self.multiplied > 0;
        let k = self.filled.next_multiple_of(64);
        let plane = |s: usize, column: usize| Operand { buffer: &self.planes, at: (s * n + column) * BLOCK, stride: BLOCK };
        for (d, [a, b]) in [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2]].into_iter().enumerate() {
            let into = |column: usize| Operand { buffer: &self.products[d], at: column * n, stride: n };
            if a == b {
                for first in (0..n).step_by(PANEL) {
                    let end = (first + PANEL).min(n);
                    self.blas.products(end, end - first, k, plane(a, 0), plane(b, first), into(first), add)?;
                }
            } else {
                self.blas.products(n, n, k, plane(a, 0), plane(b, 0), into(0), add)?;
            }
        }
        self.stream.clear(&mut self.planes)?;
        self.multiplied += self.filled;
        self.filled = 0;
        Ok(())
    }

    /// Adds the products to the totals.
    fn fold(&mut self) -> Result<()> {
        if self.multiplied == 0 {
            return Ok(());
        }
        let [d11, d12, d13, d22, d23] = &self.products;
        let n = self.n_pad;
        let args = [d11.into(), d12.into(), d13.into(), d22.into(), d23.into(), (n as u32).into(), (&mut self.totals).into()];
        let tiles = n.div_ceil(32) as u32;
        // SAFETY: the arguments of `fold`; all six are (n, n).
        unsafe { self.stream.launch(&self.kernels[1], Grid { blocks: (tiles, tiles), threads: 256, shared: 0 }, &args)? };
        self.multiplied = 0;
        Ok(())
    }

    /// The totals of all rows: `(n, n)`, n = p + 1 and a little.
    fn totals(&mut self) -> Result<Vec<i64>> {
        self.multiply()?;
        self.fold()?;
        self.stream.download(&self.totals, self.totals.len())
    }

    /// The same on the host, for other processes: what lies above the diagonal, and nothing of the columns that fill up.
    pub fn on_host(&mut self) -> Result<Totals> {
        let (n, totals) = (self.n_pad, self.totals()?);
        let products = (0..=self.p).flat_map(|j| totals[j * n..=j * n + j].iter().copied()).collect();
        Ok(Totals { shifts: self.stream.download(&self.shifts, self.p)?, n_rows: self.n_rows, products })
    }

    /// Adds the totals of another device, made with the same bounds: piece by piece through page-locked memory, of which one comes while
    /// another goes.
    pub fn merge(&mut self, other: &mut Gram) -> Result<()> {
        for gram in [&mut *self, &mut *other] {
            gram.multiply()?;
            gram.fold()?;
        }
        let len = self.totals.len();
        if other.totals.len() != len {
            return Err(Error::bug("two Gram matrices of different genes are merged"));
        }
        let mut free = Vec::new();
        let mut coming: VecDeque<(usize, usize, Pending<i64>)> = VecDeque::new();
        let mut starts = (0..len).step_by(PIECE);
        loop {
            let start = starts.next();
            if let Some(at) = start {
                let piece = other.stream.part(&other.totals, at..(at + PIECE).min(len))?;
                let memory = free.pop().map_or_else(|| other.stream.device().pinned(PIECE), Ok)?;
                coming.push_back((at, piece.len(), other.stream.download_later(&piece, memory)?));
            }
            if start.is_some() && coming.len() < 2 {
                continue;
            }
            let Some((at, n, pending)) = coming.pop_front() else { break };
            let (piece, lent) = self.stream.upload_later(pending.wait()?, 0..n)?;
            let args = [(&piece).into(), (n as u32).into(), (at as u64).into(), (&mut self.totals).into()];
            // SAFETY: the arguments of `add`: n numbers from `at` on lie in the totals.
            unsafe { self.stream.launch(&self.kernels[4], Grid::over(n, 256), &args)? };
            free.push(lent.wait()?);
        }
        self.n_rows += other.n_rows;
        Ok(())
    }

    /// Covariance of the columns, ddof 1, `(p, p)`, and their sums, `(p,)`, in device memory.
    pub fn covariance(&mut self) -> Result<(Buffer<f64>, Buffer<f64>)> {
        self.multiply()?;
        self.fold()?;
        if self.n_rows < 2 {
            let place = Place::element("", "X");
            return Err(Error::invalid(place, format!("{} cells", self.n_rows), "a covariance needs at least 2"));
        }
        let p = self.p;
        let mut covariance = self.stream.alloc::<f64>(p * p)?;
        let mut sums = self.stream.alloc::<f64>(p)?;
        let (n, columns) = ((self.n_pad as u32).into(), (p as u32).into());
        let args = [(&self.totals).into(), n, columns, (&self.shifts).into(), (self.n_rows as f64).into(), (&mut covariance).into()];
        let grid = Grid { blocks: (p.div_ceil(256) as u32, p as u32), threads: 256, shared: 0 };
        // SAFETY: the arguments of `covariance`; `totals` is (n, n), p < n, the result (p, p).
        unsafe { self.stream.launch(&self.kernels[2], grid, &args)? };
        let args = [(&self.totals).into(), n, columns, (&self.shifts).into(), (&mut sums).into()];
        // SAFETY: the arguments of `sums`, which writes p numbers.
        unsafe { self.stream.launch(&self.kernels[3], Grid::over(p, 256), &args)? };
        Ok((covariance, sums))
    }

    /// Waits and says how many entries were added; an error if any rows were damaged or a value was beyond its bound.
    pub fn check(&self) -> Result<u64> {
        let found = self.stream.download(&self.found, 4)?;
        Found::new([found[0], found[1]])?;
        Ok(u64::from(found[2]) | u64::from(found[3]) << 32)
    }
}

/// The largest s with `bound · 2^s <= LARGEST`.
pub(super) fn shift(bound: f32) -> i32 {
    if bound <= 0.0 {
        return 0;
    }
    // A subnormal bound needs no more digits than the least normal one.
    let bound = f64::from(bound.max(f32::MIN_POSITIVE));
    let mut s = (LARGEST / bound).log2().floor() as i32;
    while bound * (2.0f64).powi(s) > LARGEST {
        s -= 1;
    }
    s
}

//! Transforms in device memory, with the roundings of the CPU's. Tolerance: 1 unit in the last place, where CUDA's `log1p` in f64
//! rounds otherwise than `libm`'s.

use std::sync::Arc;

use cellmill_cuda::{Buffer, Device, Grid, Kernel, Source, Stream};
use cellmill_matrix::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::pack::cuda::Rows;

/// The kernels.
pub const SOURCE: Source = Source {
    name: "transform",
    parts: &[include_str!("logged.cuh"), include_str!("transform.cu")],
    kernels: &["transform", "scale_columns"],
};

/// What is done to each value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// Rows are scaled to this sum; `None`: left as they are.
    pub target_sum: Option<f64>,
    /// Whether logarithms are taken: ln(1 + x).
    pub log1p: bool,
    /// Base of the logarithm; natural without.
    pub base: Option<f64>,
}

impl Logged {
    /// Values as they are.
    pub const IDENTITY: Logged = Logged { target_sum: None, log1p: false, base: None };

    /// Target, factor of the logarithm and mode, as kernels take them.
    pub(crate) fn args(&self) -> [cellmill_cuda::Arg; 3] {
        let per = self.base.map_or(1.0, |b| 1.0 / libm::log(b));
        let mode = u32::from(self.target_sum.is_some()) | u32::from(self.log1p) << 1;
        [self.target_sum.unwrap_or(1.0).into(), per.into(), mode.into()]
    }

    /// A bound of what comes out of rows of counts: no entry is above its row's sum. `None` for values that are left as they are.
    pub fn bound(&self) -> Option<f64> {
        let sum = self.target_sum?;
        let per = self.base.map_or(1.0, |b| 1.0 / libm::log(b));
        // Rounding to f32 may lift it by one unit.
        Some(if self.log1p { libm::log1p(sum) * per } else { sum } * (1.0 + 1e-6))
    }
}

/// The kernels on one device.
#[derive(Clone, Debug)]
pub struct Transform {
    transform: Kernel,
    scale_columns: Kernel,
}

impl Transform {
    /// Compiles them, if that was not done before.
    pub fn new(device: &Arc<Device>) -> Result<Self> {
        let program = device.program(&SOURCE)?;
        Ok(Transform { transform: program.kernel("transform")?, scale_columns: program.kernel("scale_columns")? })
    }

    /// [`super::normalize_total`], [`super::log1p`] or both. `total`: `(n_rows,)`, the sums to divide by.
    pub fn apply(&self, stream: &Stream, rows: &mut Rows, total: &Buffer<f64>, how: &Logged) -> Result<()> {
        if total.len() < rows.n_rows {
            return Err(Error::bug(format!("{} totals for {} rows", total.len(), rows.n_rows)));
        }
        self.launch(stream, rows, total.address(), how)
    }

    /// [`Transform::apply`] with the sums of the rows themselves.
    pub fn apply_own(&self, stream: &Stream, rows: &mut Rows, how: &Logged) -> Result<()> {
        let total = rows.total.address();
        self.launch(stream, rows, total, how)
    }

    fn launch(&self, stream: &Stream, rows: &mut Rows, total: u64, how: &Logged) -> Result<()> {
        let [starts, ends] = rows.spans();
        let [target, per, mode] = how.args();
        let n_rows = (rows.n_rows as u32).into();
        let args = [starts, ends, (&mut rows.values).into(), n_rows, total.into(), target, per, mode, (&rows.found).into()];
        // SAFETY: the arguments of `transform`; rows lie in their buffers, or a flag is set at which the kernel returns.
        unsafe { stream.launch(&self.transform, Grid::new(rows.n_rows.div_ceil(8), 256), &args) }
    }

    /// [`super::scale_columns`]. `inverse_std`: `(n_cols,)`.
    pub fn scale_columns(&self, stream: &Stream, rows: &mut Rows, inverse_std: &Buffer<f64>, max_value: Option<f64>) -> Result<()> {
        if inverse_std.len() < rows.n_cols {
            return Err(Error::bug(format!("{} standard deviations for {} columns", inverse_std.len(), rows.n_cols)));
        }
        let [starts, ends] = rows.spans();
        let clip = max_value.unwrap_or(f64::INFINITY).into();
        let n_rows = (rows.n_rows as u32).into();
        let values = (&mut rows.values).into();
        let args = [starts, ends, (&rows.columns).into(), values, n_rows, inverse_std.into(), clip, (&rows.found).into()];
        // SAFETY: the arguments of `scale_columns`; columns lie below `n_cols`.
        unsafe { stream.launch(&self.scale_columns, Grid::new(rows.n_rows.div_ceil(8), 256), &args) }
    }
}

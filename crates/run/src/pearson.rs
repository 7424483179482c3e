//! `normalize_pearson_residuals` for a chosen set of genes: dense rows.

use cellmill_engine::fold::Moments;
use cellmill_kernels::residual::Model;
use cellmill_matrix::{Csr, Error, Result, Watch};

use crate::view::{View, dense_rows};

/// Residuals of rows, once the totals are known.
#[derive(Clone, Debug)]
pub struct PearsonResiduals {
    /// Each gene's share of all counts: `(n_vars,)`.
    pub share: Vec<f64>,
    /// Overdispersion and clip.
    pub model: Model,
}

impl PearsonResiduals {
    /// From one pass over the view's rows. `clip`: √n of the cells by default. `reads` counts passes that decode the source.
    pub fn fit(view: &View<'_>, theta: f64, clip: Option<f64>, reads: &mut u32, watch: &dyn Watch) -> Result<Self> {
        if theta.is_nan() || theta <= 0.0 {
            return Err(Error::option("theta", theta, "Pearson residuals need a number above 0"));
        }
        if clip.is_some_and(|c| c.is_nan() || c < 0.0) {
            return Err(Error::option("clip", clip.unwrap_or(f64::NAN), "a number from 0 on is needed, or none for the root of the cells"));
        }
        let done = view.pass(&view.steps(), &Moments { n_vars: view.n_vars, n_batches: 1 }, None, watch)?;
        *reads += u32::from(done.decoded);
        let moments = done.output.into_iter().next().ok_or_else(|| Error::bug("moments were not taken"))?;
        let total: f64 = moments.mean.iter().sum();
        let share = moments.mean.iter().map(|m| if total > 0.0 { m / total } else { 0.0 }).collect();
        let clip = clip.unwrap_or_else(|| (moments.n_obs as f64).sqrt());
        Ok(PearsonResiduals { share, model: Model { theta, clip } })
    }

    /// Appends the residuals of rows, `(n_rows, n_vars)`, as `of` makes them of f64. Where nothing is expected the residual is 0 (scanpy: NaN).
    pub fn rows<T>(&self, x: &Csr, of: impl Fn(f64) -> T, into: &mut Vec<T>) {
        for i in 0..x.n_rows() {
            let start = into.len();
            let total: f64 = x.row(i).1.iter().map(|&v| f64::from(v)).sum();
            into.extend(self.share.iter().map(|s| of(self.model.residual(0.0, s * total))));
            let (columns, values) = x.row(i);
            for (&column, &value) in columns.iter().zip(values) {
                into[start + column as usize] = of(self.model.residual(f64::from(value), self.share[column as usize] * total));
            }
        }
    }
}

/// Residuals of all kept cells, `(n_obs, n_vars)` f32, handed to `take` by blocks of rows, in order. Two passes.
pub fn normalize_pearson_residuals(
    view: &View<'_>,
    theta: f64,
    clip: Option<f64>,
    watch: &dyn Watch,
    mut take: impl FnMut(Vec<f32>) -> Result<()> + Send,
) -> Result<(PearsonResiduals, u32)> {
    let mut reads = 0;
    let model = PearsonResiduals::fit(view, theta, clip, &mut reads, watch)?;
    let decoded = dense_rows(view, |x, _, dense| model.rows(x, |r| r as f32, dense), watch, &mut take)?;
    Ok((model, reads + u32::from(decoded)))
}

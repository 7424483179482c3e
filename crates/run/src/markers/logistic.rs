//! Markers by logistic regression: the coefficients of scikit-learn's `LogisticRegression()` (L2 penalty, C = 1, intercepts free).

use cellmill_engine::fold::{Logistic, NO_GROUP};
use cellmill_engine::host::lbfgs::minimise;
use cellmill_matrix::{Error, Result, Watch};

use super::{Markers, Options, Regression, listed};
use crate::view::{Groups, View};

/// Coefficients of each tested group against the other tested groups.
pub(super) fn rank(
    view: &View<'_>,
    groups: &Groups<'_>,
    tested: &[u32],
    options: &Options,
    mut out: Markers,
    watch: &dyn Watch,
) -> Result<Markers> {
    // Cells of groups that are not tested take no part; classes are in the order of the groups' numbers.
    let mut classes = tested.to_vec();
    classes.sort_unstable();
    if classes.len() < 2 {
        return Err(Error::option("groups", "a single group", "a logistic regression compares at least two"));
    }
    let class = |code: &u32| classes.iter().position(|c| c == code).map_or(NO_GROUP, |c| c as u32);
    let codes: Vec<u32> = groups.codes.iter().map(class).collect();
    let mut fold = Logistic { n_vars: view.n_vars, n_groups: classes.len(), weights: Vec::new() };
    let k = fold.columns();
    let steps = view.steps();
    out.passes = 0;
    let Regression { c, tol, max_iter } = options.regression;
    if c.is_nan() || c <= 0.0 {
        return Err(Error::option("C", c, "a number above 0 is needed"));
    }
    let start = vec![0.0; (view.n_vars + 1) * k];
    let found = minimise(start, tol, max_iter, |weights| {
        fold.weights = weights.to_vec();
        let done = view.pass(&steps, &fold, Some(&codes), watch)?;
        out.passes += 1;
        out.reads += u32::from(done.decoded);
        let n = done.output.n_obs.max(1) as f64;
        let (mut value, mut slope) = (done.output.loss / n, done.output.gradient);
        slope.iter_mut().for_each(|g| *g /= n);
        // The mean loss and its penalty, as scikit-learn scales them: Σ w² / (2 C n); intercepts are free.
        for (g, w) in slope.iter_mut().zip(weights).take(view.n_vars * k) {
            value += w * w / (2.0 * c * n);
            *g += w / (c * n);
        }
        Ok((value, slope))
    })?;
    if !found.converged {
        out.warnings.push(format!("the regression has not converged after {max_iter} steps; its coefficients are near the optimum only"));
    }
    // Two groups share one column; scanpy lists it under the first group.
    let shown = if k == 1 { &tested[..1] } else { tested };
    for &group in shown {
        let column = if k == 1 { 0 } else { classes.iter().position(|c| *c == group).unwrap_or(0) };
        let scores: Vec<f64> = (0..view.n_vars).map(|j| found.x[j * k + column]).collect();
        out.ranked.push(listed(group, &scores, None, options)?);
    }
    Ok(out)
}

//! `regress_out`: what is left of each chosen gene once columns of obs have explained what they can. Dense rows, two passes.

use cellmill_engine::fold::{Cross, NO_GROUP};
use cellmill_engine::host::least_squares::solve;
use cellmill_matrix::{Error, Result, Watch};

use crate::grouped::grouped;
use crate::view::{Groups, View, dense_rows};

/// What explains the genes.
#[derive(Clone, Copy, Debug)]
pub enum Regressors<'a> {
    /// Numbers of each source row: `(n_obs of the source,)` a column. An intercept goes with them. Rows that are not kept may hold anything.
    Numbers(&'a [Vec<f64>]),
    /// One category a source row: each gene loses its mean in the category.
    Categories(&'a [u32]),
}

/// Residuals of all kept cells, `(n_obs, n_vars)` f32, handed to `take` by blocks of rows, in order. Returns passes that decoded the
/// source. A gene that is the same everywhere stays as it is where categories are regressed out, as in scanpy.
pub fn regress_out(
    view: &View<'_>,
    regressors: Regressors<'_>,
    watch: &dyn Watch,
    mut take: impl FnMut(Vec<f32>) -> Result<()> + Send,
) -> Result<u32> {
    let n = view.feed.source.shape().n_obs as usize;
    match regressors {
        Regressors::Numbers(columns) => {
            if let Some(column) = columns.iter().find(|c| c.len() != n) {
                return Err(Error::bug(format!("a regressor of {} values for {n} rows", column.len())));
            }
            let width = columns.len() + 1;
            let mut flat = Vec::with_capacity(n * width);
            (0..n).for_each(|i| flat.extend(std::iter::once(1.0).chain(columns.iter().map(|c| c[i]))));
            let fold = Cross { n_vars: view.n_vars, width, regressors: flat };
            let done = view.pass(&view.steps(), &fold, None, watch)?;
            if done.output.gram.iter().any(|g| !g.is_finite()) {
                let found = "a value that is missing or infinite";
                return Err(Error::invalid(Default::default(), found, "numbers are needed in each column that is regressed out"));
            }
            let coefficients = solve(done.output.gram, done.output.cross, width);
            let decoded = dense_rows(
                view,
                |x, rows, dense| {
                    for (i, &row) in rows.iter().enumerate() {
                        let start = dense.len();
                        let r = &fold.regressors[row as usize * width..][..width];
                        let mut left = vec![0.0f64; view.n_vars];
                        for (coefficients, r) in coefficients.chunks_exact(view.n_vars.max(1)).zip(r) {
                            left.iter_mut().zip(coefficients).for_each(|(left, c)| *left -= r * c);
                        }
                        let (columns, values) = x.row(i);
                        columns.iter().zip(values).for_each(|(&c, &v)| left[c as usize] += f64::from(v));
                        dense.extend(left.iter().map(|&v| v as f32));
                        debug_assert_eq!(dense.len() - start, view.n_vars);
                    }
                },
                watch,
                &mut take,
            )?;
            Ok(u32::from(done.decoded) + u32::from(decoded))
        }
        Regressors::Categories(codes) => {
            view.check_codes(codes)?;
            let most = codes.iter().filter(|c| **c != NO_GROUP).max().map_or(0, |c| *c as usize + 1);
            let names: Vec<String> = (0..most).map(|i| i.to_string()).collect();
            let (stats, reads) = grouped(view, &Groups { codes, names: &names }, watch)?;
            if stats.rest.n_obs > 0 {
                let found = format!("{} cells without a category", stats.rest.n_obs);
                return Err(Error::invalid(Default::default(), found, "each cell needs one"));
            }
            let mut all = stats.rest.clone();
            stats.groups.iter().for_each(|g| all.merge(g));
            let varies: Vec<bool> = all.squares.iter().map(|s| *s > 0.0).collect();
            let means: Vec<Vec<f64>> =
                stats.groups.iter().map(|g| (0..view.n_vars).map(|j| if varies[j] { g.mean(j) } else { 0.0 }).collect()).collect();
            let decoded = dense_rows(
                view,
                |x, rows, dense| {
                    for (i, &row) in rows.iter().enumerate() {
                        let start = dense.len();
                        let means = &means[codes[row as usize] as usize];
                        dense.extend(means.iter().map(|m| -m as f32));
                        let (columns, values) = x.row(i);
                        for (&c, &v) in columns.iter().zip(values) {
                            dense[start + c as usize] = (f64::from(v) - means[c as usize]) as f32;
                        }
                    }
                },
                watch,
                &mut take,
            )?;
            Ok(reads + u32::from(decoded))
        }
    }
}

//! `regress_out`: what is left of each chosen gene once columns of obs have explained what they can. Dense rows, two passes.

use cellmill_engine::fold::{Cross, NO_GROUP};
use cellmill_engine::host::least_squares::solve;
use cellmill_matrix::{Csr, Error, Result, Watch};

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

/// What the regressors explain of each gene.
#[derive(Clone, Debug)]
pub struct Effects {
    /// Of the intercept and each column of numbers, or of each category: `(n_effects, n_vars)`.
    pub coefficients: Vec<f64>,
    /// Genes.
    pub n_vars: usize,
}

impl Effects {
    /// From one pass over the view's rows. `reads` counts passes that decode the source. A gene that is the same everywhere stays as it is
    /// where categories are regressed out, as in scanpy.
    pub fn fit(view: &View<'_>, regressors: Regressors<'_>, reads: &mut u32, watch: &dyn Watch) -> Result<Self> {
        let coefficients = match regressors {
            Regressors::Numbers(columns) => of_numbers(view, columns, reads, watch)?,
            Regressors::Categories(codes) => of_categories(view, codes, reads, watch)?,
        };
        Ok(Effects { coefficients, n_vars: view.n_vars })
    }

    /// Appends what is left of rows, `(n_rows, n_vars)` f32. `numbers`: those of the rows in the source.
    pub fn rows(&self, x: &Csr, numbers: &[u64], regressors: Regressors<'_>, into: &mut Vec<f32>) {
        let effect = |k: usize| &self.coefficients[k * self.n_vars..][..self.n_vars];
        let mut left = vec![0.0f64; self.n_vars];
        for (i, &row) in numbers.iter().enumerate() {
            match regressors {
                Regressors::Numbers(columns) => {
                    left.iter_mut().zip(effect(0)).for_each(|(left, c)| *left = -c);
                    for (k, column) in columns.iter().enumerate() {
                        let number = column[row as usize];
                        left.iter_mut().zip(effect(k + 1)).for_each(|(left, c)| *left -= number * c);
                    }
                }
                Regressors::Categories(codes) => {
                    left.iter_mut().zip(effect(codes[row as usize] as usize)).for_each(|(left, mean)| *left = -mean);
                }
            }
            let (columns, values) = x.row(i);
            columns.iter().zip(values).for_each(|(&c, &v)| left[c as usize] += f64::from(v));
            into.extend(left.iter().map(|&v| v as f32));
        }
    }
}

fn of_numbers(view: &View<'_>, columns: &[Vec<f64>], reads: &mut u32, watch: &dyn Watch) -> Result<Vec<f64>> {
    let n = view.feed.source.shape().n_obs as usize;
    if let Some(column) = columns.iter().find(|c| c.len() != n) {
        return Err(Error::bug(format!("a regressor of {} values for {n} rows", column.len())));
    }
    let width = columns.len() + 1;
    let mut flat = Vec::with_capacity(n * width);
    (0..n).for_each(|i| flat.extend(std::iter::once(1.0).chain(columns.iter().map(|c| c[i]))));
    let done = view.pass(&view.steps(), &Cross { n_vars: view.n_vars, width, regressors: flat }, None, watch)?;
    *reads += u32::from(done.decoded);
    if done.output.gram.iter().any(|g| !g.is_finite()) {
        let found = "a value that is missing or infinite";
        return Err(Error::invalid(Default::default(), found, "numbers are needed in each column that is regressed out"));
    }
    Ok(solve(done.output.gram, done.output.cross, width))
}

fn of_categories(view: &View<'_>, codes: &[u32], reads: &mut u32, watch: &dyn Watch) -> Result<Vec<f64>> {
    view.check_codes(codes)?;
    let most = codes.iter().filter(|c| **c != NO_GROUP).max().map_or(0, |c| *c as usize + 1);
    let names: Vec<String> = (0..most).map(|i| i.to_string()).collect();
    let (stats, passes) = grouped(view, &Groups { codes, names: &names }, watch)?;
    *reads += passes;
    if stats.rest.n_obs > 0 {
        let found = format!("{} cells without a category", stats.rest.n_obs);
        return Err(Error::invalid(Default::default(), found, "each cell needs one"));
    }
    let mut all = stats.rest.clone();
    stats.groups.iter().for_each(|g| all.merge(g));
    let varies: Vec<bool> = all.squares.iter().map(|s| *s > 0.0).collect();
    Ok(stats.groups.iter().flat_map(|g| varies.iter().enumerate().map(|(j, &v)| if v { g.mean(j) } else { 0.0 })).collect())
}

/// Residuals of all kept cells, `(n_obs, n_vars)` f32, handed to `take` by blocks of rows, in order. Returns passes that decoded the source.
pub fn regress_out(
    view: &View<'_>,
    regressors: Regressors<'_>,
    watch: &dyn Watch,
    mut take: impl FnMut(Vec<f32>) -> Result<()> + Send,
) -> Result<u32> {
    let mut reads = 0;
    let effects = Effects::fit(view, regressors, &mut reads, watch)?;
    let decoded = dense_rows(view, |x, numbers, dense| effects.rows(x, numbers, regressors, dense), watch, &mut take)?;
    Ok(reads + u32::from(decoded))
}

//! Components of more genes than a covariance has room for: the eigensolver multiplies by the covariance row by row, from the stage.

use cellmill_kernels::product::{self, LANES, Lane};
use cellmill_matrix::{Csr, Error, Result, Watch};

use super::{Columns, Fit, Pass};
use crate::exec::{cut, in_order};
use crate::host::eigen::{Operator, top_eigenpairs_of};
use crate::recipe::apply_all;
use crate::stage::Stage;

/// Sums of the columns, from one pass that packs them.
struct Sums {
    sum: Vec<f64>,
    squares: f64,
    n_obs: u64,
    nnz: u64,
}

/// The covariance of all rows, `(Σ x x' − n μ μ') / (n − 1)`, by what it does to vectors: one pass over the rows each time. With a centre μ
/// of zeros it is that of values that are not centred.
struct Covariance<'a> {
    pass: Pass<'a>,
    selected: &'a Stage,
    centre: &'a [f64],
    n_obs: u64,
    watch: &'a dyn Watch,
}

/// Components of the chosen columns.
pub(super) fn fit(pass: Pass<'_>, columns: &Columns, n_comps: usize, selected: &Stage, watch: &dyn Watch) -> Result<Fit> {
    let p = columns.detection.len();
    let Sums { sum, squares, n_obs, nnz } = sums(pass, p, selected, watch)?;
    let most = (n_obs as usize).min(p).saturating_sub(1);
    if n_comps == 0 || n_comps > most {
        return Err(Error::option("n_comps", n_comps, format!("{n_obs} cells and {p} genes allow 1 to {most}")));
    }
    let n = n_obs as f64;
    let mean: Vec<f64> = sum.iter().map(|s| s / n).collect();
    let total = (squares - n * mean.iter().map(|m| m * m).sum::<f64>()) / (n - 1.0);
    let zeros = vec![0.0; p];
    let operator = Covariance { pass, selected, centre: if columns.centred { &mean } else { &zeros }, n_obs, watch };
    let pairs = top_eigenpairs_of(&operator, n_comps, watch)?;
    Ok(Fit::new(pairs, mean, total, columns.centred, n_obs, nnz))
}

fn sums(pass: Pass<'_>, p: usize, selected: &Stage, watch: &dyn Watch) -> Result<Sums> {
    let n_source = pass.rows.feed.source.shape().n_obs;
    let tasks = cut(n_source);
    let mut all = Sums { sum: vec![0.0; p], squares: 0.0, n_obs: 0, nnz: 0 };
    in_order(
        tasks.len(),
        1,
        |i| {
            let mut chunk = pass.selected(&tasks[i])?;
            pass.keep(selected, i, &chunk);
            apply_all(pass.rows.transform, &mut chunk)?;
            let mut sum = vec![0.0; p];
            let mut squares = 0.0;
            for (&column, &value) in chunk.x.indices.iter().zip(&chunk.x.data) {
                let value = f64::from(value);
                sum[column as usize] += value;
                squares += value * value;
            }
            Ok((sum, squares, chunk.x.n_rows() as u64, chunk.x.nnz() as u64))
        },
        |i, (sum, squares, n_obs, nnz)| {
            all.sum.iter_mut().zip(sum).for_each(|(a, b)| *a += b);
            all.squares += squares;
            all.n_obs += n_obs;
            all.nnz += nnz;
            watch.tick(tasks[i].end, n_source, "")
        },
    )?;
    Ok(all)
}

impl Operator for Covariance<'_> {
    fn size(&self) -> usize {
        self.centre.len()
    }

    fn times(&self, block: &[Lane], out: &mut [Lane]) -> Result<()> {
        let tasks = cut(self.pass.rows.feed.source.shape().n_obs);
        let p = self.centre.len();
        out.fill([0.0; LANES]);
        in_order(
            tasks.len(),
            1,
            |i| {
                let x: Csr = self.pass.transformed(self.selected, i, &tasks[i])?.x;
                let mut part = vec![[0.0; LANES]; p];
                product::add(&x, block, &mut part);
                Ok(part)
            },
            |i, part| {
                out.as_flattened_mut().iter_mut().zip(part.as_flattened()).for_each(|(a, b)| *a += b);
                self.watch.tick(i as u64 + 1, tasks.len() as u64, "eigenvectors")
            },
        )?;
        let n = self.n_obs as f64;
        let mut along = [0.0; LANES];
        for (m, row) in self.centre.iter().zip(block) {
            along.iter_mut().zip(row).for_each(|(a, v)| *a += m * v);
        }
        for (m, row) in self.centre.iter().zip(out) {
            row.iter_mut().zip(along).for_each(|(x, a)| *x = (*x - n * m * a) / (n - 1.0));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;
    use crate::exec::Feed;
    use crate::host::eigen::top_eigenpairs;
    use crate::pca::Rows;
    use crate::pca::held::Held;
    use crate::stage::{Allowance, Spill};
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn it_finds_what_the_covariance_has() {
        let (n, p, k) = (9000usize, 600usize, 5);
        let mut x = Csr::empty(p);
        for i in 0..n {
            let columns: Vec<u32> = (0..p as u32).filter(|j| (i as u32 * 31 + j * j * 17) % 13 < 3).collect();
            let values: Vec<f32> = columns.iter().map(|j| ((i % 7) as f32 + 1.0) * ((j % 5) as f32 + 1.0) + (i * 3 % 11) as f32).collect();
            x.push_row(&columns, &values);
        }
        let mut dense = vec![0.0f64; n * p];
        for i in 0..n {
            let (columns, values) = x.row(i);
            columns.iter().zip(values).for_each(|(&c, &v)| dense[i * p + c as usize] = f64::from(v));
        }
        let mean: Vec<f64> = (0..p).map(|j| (0..n).map(|i| dense[i * p + j]).sum::<f64>() / n as f64).collect();
        let mut covariance = vec![0.0; p * p];
        for row in dense.chunks_exact(p) {
            for a in 0..p {
                let x = row[a] - mean[a];
                (0..p).for_each(|b| covariance[a * p + b] += x * (row[b] - mean[b]) / (n as f64 - 1.0));
            }
        }
        let (values, vectors) = top_eigenpairs(&covariance, p, k, &()).unwrap();
        let total: f64 = (0..p).map(|j| covariance[j * p + j]).sum();
        let source = Held(x);
        let allowance = Allowance::new(1 << 14);
        let dir = tempfile::tempdir().unwrap();
        let selected = Stage::new(3, &allowance, Some(Arc::new(Spill::new(dir.path()))));
        let decoded = AtomicBool::new(false);
        let rows = Rows { feed: Feed::source(&source), select: &[], n_genes: p, transform: &[], last: true, crew: None, stay: None };
        let columns = Columns { detection: vec![0.2; p], bound: 0.0, largest: None, centred: true };
        let found = fit(Pass { rows, decoded: &decoded, memory: &Memory::default() }, &columns, k, &selected, &()).unwrap();
        assert_eq!(selected.n_kept(), 3);
        for c in 0..k {
            assert!((found.variance[c] / values[c] - 1.0).abs() < 1e-9);
            assert!((found.variance_ratio[c] - values[c] / total).abs() < 1e-9);
            let cosine: f64 = (0..p).map(|j| found.components[j * k + c] * vectors[j * k + c]).sum();
            assert!(cosine > 1.0 - 1e-9, "component {c}: {cosine}");
        }
        // Of values that are not centred: Σ x x' / (n − 1), and the variance that the scores have about their mean.
        let found =
            fit(Pass { rows, decoded: &decoded, memory: &Memory::default() }, &Columns { centred: false, ..columns }, k, &selected, &())
                .unwrap();
        assert!(found.centre.iter().all(|c| *c == 0.0));
        let project = |c: usize| -> Vec<f64> {
            dense.chunks_exact(p).map(|row| (0..p).map(|j| row[j] * found.components[j * k + c]).sum()).collect()
        };
        let scores: Vec<Vec<f64>> = (0..k).map(project).collect();
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for (c, own) in scores.iter().enumerate() {
            let mean = own.iter().sum::<f64>() / n as f64;
            let variance = own.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>() / n as f64;
            assert!((found.variance[c] / variance - 1.0).abs() < 1e-6, "component {c}: {} {variance}", found.variance[c]);
            // Eigenvectors of Σ x x': the scores are at right angles without being centred.
            let others: f64 = scores[..c].iter().map(|s| product(own, s).abs()).sum();
            assert!(others < 1e-6 * product(own, own), "component {c}: {others}");
        }
    }
}

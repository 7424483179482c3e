//! What a GPU has summed, on the host: exact integers, so those of other GPUs and other rows are added in any order, to the same bits.

use cellmill_matrix::{Error, Place, Result};
use serde::{Deserialize, Serialize};

/// Sums of products of `p` columns and of a column of ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Column j was multiplied by `2^shifts[j]`: `(p,)`.
    pub(super) shifts: Vec<i32>,
    pub(super) n_rows: u64,
    /// For each column j of `p + 1` its products with the columns `0..=j`, in units of `2^(8 - s_i - s_j)`. The last column is 2^16.
    pub(super) products: Vec<i64>,
}

impl Totals {
    /// Rows added so far.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Adds those of other rows, made with the same bounds.
    pub fn merge(&mut self, other: &Totals) -> Result<()> {
        if self.shifts != other.shifts || self.products.len() != other.products.len() {
            return Err(Error::bug("sums of products of different genes or bounds are merged"));
        }
        self.n_rows += other.n_rows;
        self.products.iter_mut().zip(&other.products).for_each(|(a, b)| *a = a.wrapping_add(*b));
        Ok(())
    }

    /// The product of columns `i <= j`, as it was summed.
    fn product(&self, i: usize, j: usize) -> f64 {
        self.products[j * (j + 1) / 2 + i] as f64
    }

    /// `2^-shift` times the sum of a column.
    fn scaled_sum(&self, j: usize) -> f64 {
        self.product(j, self.shifts.len()) * (2.0f64).powi(-8)
    }

    /// Sum of each column: `(p,)`.
    pub fn sums(&self) -> Vec<f64> {
        self.shifts.iter().enumerate().map(|(j, &shift)| self.scaled_sum(j) * (2.0f64).powi(-shift)).collect()
    }

    /// Covariance of the columns, ddof 1: `(p, p)`, symmetric; the bits of the device's own.
    pub fn covariance(&self) -> Result<Vec<f64>> {
        if self.n_rows < 2 {
            let place = Place::element("", "X");
            return Err(Error::invalid(place, format!("{} cells", self.n_rows), "a covariance needs at least 2"));
        }
        let (p, n) = (self.shifts.len(), self.n_rows as f64);
        let sums: Vec<f64> = (0..p).map(|j| self.scaled_sum(j)).collect();
        let mut covariance = vec![0.0; p * p];
        for j in 0..p {
            for i in 0..=j {
                // Chan, Golub & LeVeque 1983: sum (x - mean_x)(y - mean_y) = sum xy - (sum x)(sum y) / n
                let centred = (self.product(i, j) * 256.0 - sums[i] * sums[j] / n) / (n - 1.0);
                let value = centred * (2.0f64).powi(-(self.shifts[i] + self.shifts[j]));
                covariance[j * p + i] = value;
                covariance[i * p + j] = value;
            }
        }
        Ok(covariance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gram::cuda::shift;

    /// What the kernels sum, written down plainly: three digits a value, and the product of the two lowest left out.
    fn totals(rows: &[Vec<f32>], bounds: &[f32]) -> Totals {
        let shifts: Vec<i32> = bounds.iter().map(|&bound| shift(bound)).collect();
        let p = shifts.len();
        let mut products = vec![0i64; (p + 1) * (p + 2) / 2];
        for row in rows {
            let mut q: Vec<i64> =
                row.iter().zip(&shifts).map(|(&x, &s)| (f64::from(x) * (2.0f64).powi(s)).round_ties_even() as i64).collect();
            q.push(1 << 16);
            let lowest = |q: i64| i64::from(q as u8 as i8);
            for j in 0..=p {
                for i in 0..=j {
                    products[j * (j + 1) / 2 + i] += (q[i] * q[j] - lowest(q[i]) * lowest(q[j])) >> 8;
                }
            }
        }
        Totals { shifts, n_rows: rows.len() as u64, products }
    }

    #[test]
    fn totals_of_parts_give_the_covariance_of_all_rows() {
        let (n, p) = (400, 7);
        let mut state = 9u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let bounds: Vec<f32> = (0..p).map(|j| 3.0 * (j as f32 + 0.3)).collect();
        let rows: Vec<Vec<f32>> =
            (0..n).map(|_| bounds.iter().map(|b| if random() < 0.4 { random() * b } else { 0.0 }).collect()).collect();
        let whole = totals(&rows, &bounds);
        let mut parts = totals(&rows[250..], &bounds);
        parts.merge(&totals(&rows[..100], &bounds)).unwrap();
        parts.merge(&totals(&rows[100..250], &bounds)).unwrap();
        assert_eq!(parts, whole);

        let column = |j: usize| rows.iter().map(move |row| f64::from(row[j]));
        let mean: Vec<f64> = (0..p).map(|j| column(j).sum::<f64>() / n as f64).collect();
        let exact = |i: usize, j: usize| column(i).zip(column(j)).map(|(x, y)| (x - mean[i]) * (y - mean[j])).sum::<f64>() / (n - 1) as f64;
        let covariance = whole.covariance().unwrap();
        for i in 0..p {
            assert!((whole.sums()[i] / n as f64 - mean[i]).abs() < 1e-6 * f64::from(bounds[i]));
            for j in 0..p {
                let scale = (exact(i, i) * exact(j, j)).sqrt();
                assert!((covariance[i * p + j] - exact(i, j)).abs() < 1e-6 * scale, "{i} {j}");
                assert_eq!(covariance[i * p + j], covariance[j * p + i]);
            }
        }
        assert!(parts.merge(&totals(&rows, &bounds[..5])).is_err());
        assert!(totals(&rows[..1], &bounds).covariance().unwrap_err().to_string().contains("at least 2"));
    }
}

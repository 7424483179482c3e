//! Rows times a block of vectors and back: what an eigensolver asks of a matrix that is too wide for its Gram matrix.
//!
//! Contract: `out += X' (X block)` for sparse rows X, `(n, p)`, and a block of [`LANES`] vectors, `(p, LANES)` f64. Rows one after the
//! other; in each, both sums run over the row's entries in order, by fused multiply-add. Tolerance: none between portable and AVX2 code.

use cellmill_matrix::Csr;

/// Vectors of a block: two 256-bit registers of f64.
pub const LANES: usize = 8;

/// One row of a block of vectors.
pub type Lane = [f64; LANES];

/// Adds `X' (X block)`. `block` and `out`: `(x.n_cols,)` lanes.
///
/// # Panics
/// If a column is beyond `block` or `out`.
pub fn add(x: &Csr, block: &[Lane], out: &mut [Lane]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has AVX2 and FMA.
        return unsafe { add_avx2(x, block, out) };
    }
    add_rows(x, block, out);
}

/// [`add_rows`] with 256-bit registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn add_avx2(x: &Csr, block: &[Lane], out: &mut [Lane]) {
    add_rows(x, block, out);
}

#[inline(always)]
fn add_rows(x: &Csr, block: &[Lane], out: &mut [Lane]) {
    for i in 0..x.n_rows() {
        let (columns, values) = x.row(i);
        let mut image = [0.0; LANES];
        for (&column, &value) in columns.iter().zip(values) {
            image = fused(f64::from(value), &block[column as usize], image);
        }
        for (&column, &value) in columns.iter().zip(values) {
            let sum = &mut out[column as usize];
            *sum = fused(f64::from(value), &image, *sum);
        }
    }
}

#[inline(always)]
fn fused(a: f64, x: &Lane, sum: Lane) -> Lane {
    std::array::from_fn(|l| a.mul_add(x[l], sum[l]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Csr {
        let mut x = Csr::empty(30);
        for i in 0..50u32 {
            let columns: Vec<u32> = (0..30).filter(|j| (i * 7 + j * j) % 3 == 0).collect();
            let values: Vec<f32> = columns.iter().map(|j| (i + j) as f32 / 7.0 - 3.0).collect();
            x.push_row(&columns, &values);
        }
        x
    }

    #[test]
    fn it_is_the_dense_product() {
        let x = rows();
        let block: Vec<Lane> = (0..30).map(|j| std::array::from_fn(|l| ((j * 5 + l * 3) % 11) as f64 - 4.5)).collect();
        let mut out = vec![[1.0; LANES]; 30];
        add(&x, &block, &mut out);
        for (j, lanes) in out.iter().enumerate() {
            for l in 0..LANES {
                let expected: f64 = (0..50)
                    .map(|i| {
                        let (c, v) = x.row(i);
                        let at = |j: usize| c.iter().position(|&c| c as usize == j).map_or(0.0, |k| f64::from(v[k]));
                        at(j) * (0..30).map(|m| at(m) * block[m][l]).sum::<f64>()
                    })
                    .sum();
                assert!((lanes[l] - 1.0 - expected).abs() < 1e-9 * expected.abs().max(1.0));
            }
        }
    }

    #[test]
    fn both_codes_give_the_same_bits() {
        let x = rows();
        let block: Vec<Lane> = (0..30).map(|j| std::array::from_fn(|l| ((j * 13 + l * 7) as f64).sin())).collect();
        let (mut a, mut b) = (vec![[0.0; LANES]; 30], vec![[0.0; LANES]; 30]);
        add(&x, &block, &mut a);
        add_rows(&x, &block, &mut b);
        assert_eq!(a, b);
    }
}

//! Leading eigenpairs of a dense symmetric matrix that has no negative eigenvalues.
//!
//! Block Krylov-Schur: a block Lanczos basis with full orthogonalisation, restarted from its best Ritz vectors (Stewart 2001, A
//! Krylov-Schur algorithm for large eigenproblems; Wu & Simon 2000, thick-restart Lanczos). It stops on residuals. Small problems and
//! those that do not converge go to the full decomposition.
//!
//! Work is cut by fixed numbers of rows and each sum has a fixed order, so the bits do not depend on the number of threads.

use cellmill_kernels::product::{LANES, Lane};
use cellmill_matrix::{Error, Result, Watch};
use faer::{Mat, MatRef, Side};
use rayon::prelude::*;

use super::symmetric;
use crate::exec::Spare;

/// Vectors of a block.
const BLOCK: usize = LANES;

/// A symmetric matrix without negative eigenvalues, known by what it does to vectors.
pub trait Operator: Sync {
    /// Rows and columns.
    fn size(&self) -> usize;
    /// `out = C block`; both `(size,)` lanes. The same bits each time.
    fn times(&self, block: &[Lane], out: &mut [Lane]) -> Result<()>;
}

/// A matrix that is there: `(p, p)` row by row.
struct Dense<'a> {
    c: &'a [f64],
    p: usize,
    sums: Spare<Vec<Lane>>,
}

impl Operator for Dense<'_> {
    fn size(&self) -> usize {
        self.p
    }
    fn times(&self, block: &[Lane], out: &mut [Lane]) -> Result<()> {
        let mut sums = self.sums.take();
        symmetric::times(self.c, self.p, block, &mut sums, out);
        self.sums.give(sums);
        Ok(())
    }
}

/// Residuals `|C v - value v|` are at most this share of the largest eigenvalue.
const TOLERANCE: f64 = 1e-9;

/// Up to this size the full decomposition takes milliseconds.
pub(crate) const SMALL: usize = 500;

/// Restarts before the full decomposition takes over.
const MAX_RESTARTS: usize = 60;

/// Blocks of the search for eigenvectors that the first basis could not contain.
const PROBE: usize = 8;

/// The `k` largest eigenvalues of `c` (descending) and their eigenvectors.
///
/// `c`: `(p, p)`, symmetric, no negative eigenvalue but for rounding. Values: `(k,)`, at least 0. Vectors: `(p, k)`, row by row,
/// orthonormal columns, also where eigenvalues are zero or equal; in each column the entry of the largest magnitude is positive (the
/// first on a tie).
pub fn top_eigenpairs(c: &[f64], p: usize, k: usize, watch: &dyn Watch) -> Result<(Vec<f64>, Vec<f64>)> {
    if c.len() != p * p {
        return Err(Error::bug(format!("{} numbers for a matrix of {p} x {p}", c.len())));
    }
    if k == 0 || k > p {
        return Err(Error::option("n_comps", k, format!("between 1 and {p}, the number of genes")));
    }
    if c.par_chunks(p).any(|row| row.iter().any(|x| !x.is_finite())) {
        return Err(Error::bug("the covariance has entries that are not finite"));
    }
    watch.tick(0, k as u64, "")?;
    let found = if p <= SMALL || 4 * k > p { None } else { krylov(&Dense { c, p, sums: Spare::default() }, k, watch)? };
    let pairs = match found {
        Some(pairs) => pairs,
        None => full(c, p, k)?,
    };
    watch.tick(k as u64, k as u64, "")?;
    Ok(by_row(pairs, p, k))
}

/// Whether `k` of `p` eigenvalues are few enough for a Krylov basis of twice as many.
pub fn few(k: usize, p: usize) -> bool {
    4 * k + 2 * BLOCK <= p
}

/// [`top_eigenpairs`] of a matrix that is too large to be written down. At most a quarter of its eigenvalues.
pub fn top_eigenpairs_of(operator: &dyn Operator, k: usize, watch: &dyn Watch) -> Result<(Vec<f64>, Vec<f64>)> {
    let p = operator.size();
    if k == 0 || !few(k, p) {
        return Err(Error::option("n_comps", k, format!("between 1 and {}, a quarter of the {p} genes", p / 4)));
    }
    let pairs = krylov(operator, k, watch)?.ok_or_else(|| Error::bug("the eigensolver did not converge"))?;
    Ok(by_row(pairs, p, k))
}

/// Values from 0 on; vectors row by row, their signs fixed.
pub(crate) fn by_row((mut values, mut vectors): (Vec<f64>, Vec<f64>), p: usize, k: usize) -> (Vec<f64>, Vec<f64>) {
    values.iter_mut().for_each(|value| *value = value.max(0.0));
    flip(&mut vectors, p);
    let mut by_row = vec![0.0; p * k];
    by_row.par_chunks_mut(k).enumerate().for_each(|(i, row)| {
        for (component, out) in row.iter_mut().enumerate() {
            *out = vectors[component * p + i];
        }
    });
    (values, by_row)
}

/// Makes the first of each vector's largest entries positive. `vectors`: `(k, p)`.
fn flip(vectors: &mut [f64], p: usize) {
    for vector in vectors.chunks_exact_mut(p) {
        let largest = vector.iter().fold(0.0f64, |best, &x| if x.abs() > best.abs() { x } else { best });
        if largest < 0.0 {
            vector.iter_mut().for_each(|x| *x = -*x);
        }
    }
}

/// By the full decomposition: values `(k,)` and vectors `(k, p)`.
fn full(c: &[f64], p: usize, k: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let (values, vectors) = decompose(MatRef::from_row_major_slice(c, p, p))?;
    let by_row = (0..k).flat_map(|i| vectors.col(p - 1 - i).iter().copied().collect::<Vec<_>>()).collect();
    Ok((values.into_iter().rev().take(k).collect(), by_row))
}

/// All eigenvalues, ascending, and their vectors as columns.
fn decompose(matrix: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>)> {
    let eigen = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| Error::bug("the eigendecomposition did not converge"))?;
    Ok((eigen.S().column_vector().iter().copied().collect(), eigen.U().to_owned()))
}

/// The basis and the matrix projected on it.
struct Basis<'a> {
    c: &'a dyn Operator,
    p: usize,
    /// Orthonormal vectors: `(m, p)`.
    vectors: Vec<f64>,
    /// `V C V'`: `(m, m)` in the corner of `(most, most)`.
    projected: Mat<f64>,
    /// The next block, orthonormal and orthogonal to the basis: `(p,)` lanes.
    next: Vec<Lane>,
    /// `C v_last - V' (V C v_last) = next coupling`: upper triangular.
    coupling: [Lane; BLOCK],
    /// A bound of the norm of `C` seen so far.
    norm: f64,
    /// State of the random numbers.
    seed: u64,
}

/// Ritz values (descending), the coefficients of their vectors in the basis (as columns) and their residuals.
struct Ritz {
    values: Vec<f64>,
    coefficients: Mat<f64>,
    residuals: Vec<f64>,
}

/// By block Krylov-Schur: values `(k,)` and vectors `(k, p)`, or `None` where it does not converge.
fn krylov(c: &dyn Operator, k: usize, watch: &dyn Watch) -> Result<Option<(Vec<f64>, Vec<f64>)>> {
    let p = c.size();
    let most = (2 * k + 10 * BLOCK).min(p - BLOCK) / BLOCK * BLOCK;
    let mut basis = Basis::new(c, most);
    basis.restart_at_random()?;
    // The eigenvalues before the search for missed ones.
    let mut before: Option<Vec<f64>> = None;
    let mut limit = most;
    for _ in 0..MAX_RESTARTS {
        let ritz = loop {
            basis.grow()?;
            if basis.len() + BLOCK > limit {
                break basis.ritz()?;
            }
            watch.tick(0, k as u64, "")?;
        };
        let largest = ritz.values[0].abs();
        let converged = ritz.residuals[..k].iter().take_while(|&&r| r <= TOLERANCE * largest).count();
        watch.tick(converged.min(k - 1) as u64, k as u64, "")?;
        if converged < k {
            // Ritz vectors beyond k widen the gap that governs convergence.
            let keep = (k + (most - k) / 2).min(basis.len() - BLOCK);
            basis.keep(&ritz, keep);
            limit = most;
            continue;
        }
        // A block of b vectors finds at most b of equal eigenvalues, so another random block looks for more of them.
        if let Some(before) = &before
            && before.iter().zip(&ritz.values).all(|(a, b)| (a - b).abs() <= TOLERANCE * largest)
        {
            basis.keep(&ritz, k);
            if basis.largest_residual(&ritz.values[..k])? <= 2.0 * TOLERANCE * largest {
                let mut values = ritz.values;
                values.truncate(k);
                return Ok(Some((values, basis.vectors)));
            }
            return Ok(None);
        }
        basis.keep(&ritz, k);
        basis.restart_at_random()?;
        limit = (k + PROBE * BLOCK).min(most);
        before = Some(ritz.values[..k].to_vec());
    }
    Ok(None)
}

impl<'a> Basis<'a> {
    fn new(c: &'a dyn Operator, most: usize) -> Self {
        let p = c.size();
        let vectors = Vec::with_capacity(most * p);
        let next = vec![[0.0; BLOCK]; p];
        Basis { c, p, vectors, projected: Mat::zeros(most, most), next, coupling: [[0.0; BLOCK]; BLOCK], norm: 0.0, seed: 0 }
    }

    fn len(&self) -> usize {
        self.vectors.len() / self.p
    }

    /// Takes a random block, orthogonal to the basis, as the next one.
    fn restart_at_random(&mut self) -> Result<()> {
        for c in 0..BLOCK {
            random_column(&mut self.next, c, &mut self.seed);
        }
        let mut next = std::mem::take(&mut self.next);
        self.project_out(&mut next, None);
        self.orthonormalise(&mut next, 1.0)?;
        self.next = next;
        self.coupling = [[0.0; BLOCK]; BLOCK];
        Ok(())
    }

    /// Takes the next block into the basis and computes the one after it.
    fn grow(&mut self) -> Result<()> {
        let m = self.len();
        for lane in 0..BLOCK {
            self.vectors.extend(self.next.iter().map(|row| row[lane]));
        }
        let mut block = vec![[0.0; BLOCK]; self.p];
        self.c.times(&self.next, &mut block)?;
        self.norm = (0..BLOCK).map(|lane| dot(&block, lane, lane).sqrt()).fold(self.norm, f64::max);

        let mut products = vec![[0.0; BLOCK]; m + BLOCK];
        for _ in 0..2 {
            self.project_out(&mut block, Some(&mut products));
        }
        for (i, row) in products.iter().enumerate() {
            for (lane, &x) in row.iter().enumerate() {
                self.projected[(i, m + lane)] = x;
                self.projected[(m + lane, i)] = x;
            }
        }
        self.coupling = self.orthonormalise(&mut block, self.norm)?;
        self.next = block;
        Ok(())
    }

    /// `block -= V' (V block)`; adds `V block` to `products`.
    fn project_out(&self, block: &mut [Lane], products: Option<&mut [Lane]>) {
        let mut h = vec![[0.0; BLOCK]; self.len()];
        dots(&self.vectors, self.p, block, &mut h);
        if let Some(products) = products {
            products.as_flattened_mut().iter_mut().zip(h.as_flattened()).for_each(|(sum, x)| *sum += x);
        }
        h.as_flattened_mut().iter_mut().for_each(|x| *x = -*x);
        combine(&self.vectors, self.p, &h, block);
    }

    /// Makes the block's columns orthonormal (modified Gram-Schmidt, twice) and returns the triangular factor. A column that is but
    /// rounding beside `norm` is replaced by a random one orthogonal to the basis, with a zero on the factor's diagonal.
    fn orthonormalise(&mut self, block: &mut [Lane], norm: f64) -> Result<[Lane; BLOCK]> {
        let mut factor = [[0.0; BLOCK]; BLOCK];
        let mut weak = false;
        for column in 0..BLOCK {
            let taken = take_out_earlier(block, column);
            for (row, x) in factor.iter_mut().zip(taken) {
                row[column] = x;
            }
            let length = dot(block, column, column).sqrt();
            if length > 1e-14 * norm {
                factor[column][column] = length;
                scale(block, column, 1.0 / length);
                weak |= length < 1e-5 * norm;
            } else {
                random_column(block, column, &mut self.seed);
                take_out_earlier(block, column);
                let length = dot(block, column, column).sqrt();
                scale(block, column, 1.0 / length);
                weak = true;
            }
        }
        // What was small has been scaled up, with its rounding errors: orthogonal to the basis once more, twice.
        for _ in 0..if weak { 2 } else { 0 } {
            self.project_out(block, None);
            for column in 0..BLOCK {
                take_out_earlier(block, column);
                let length = dot(block, column, column).sqrt();
                if !length.is_finite() || length < 1e-8 {
                    return Err(Error::bug("a block of eigenvectors could not be made orthogonal"));
                }
                scale(block, column, 1.0 / length);
            }
        }
        Ok(factor)
    }

    /// The Rayleigh-Ritz step. The residual of a vector y of coefficients is `coupling y_last`, as `next` is orthonormal.
    fn ritz(&self) -> Result<Ritz> {
        let m = self.len();
        let (mut values, vectors) = decompose(self.projected.submatrix(0, 0, m, m))?;
        values.reverse();
        let coefficients = Mat::from_fn(m, m, |i, j| vectors[(i, m - 1 - j)]);
        let residual = |j: usize| -> f64 {
            let part = |row: &Lane| (0..BLOCK).map(|lane| row[lane] * coefficients[(m - BLOCK + lane, j)]).sum::<f64>();
            self.coupling.iter().map(|row| part(row).powi(2)).sum::<f64>().sqrt()
        };
        let residuals = (0..m).map(residual).collect();
        Ok(Ritz { values, coefficients, residuals })
    }

    /// Replaces the basis by its first `keep` Ritz vectors.
    fn keep(&mut self, ritz: &Ritz, keep: usize) {
        let (m, p) = (self.len(), self.p);
        let mut kept = vec![0.0; keep * p];
        kept.par_chunks_mut(BLOCK * p).enumerate().for_each(|(block, rows)| {
            let first = block * BLOCK;
            let n = rows.len() / p;
            let weights: Vec<Lane> =
                (0..m).map(|i| std::array::from_fn(|lane| if lane < n { ritz.coefficients[(i, first + lane)] } else { 0.0 })).collect();
            let mut lanes = vec![[0.0; BLOCK]; p];
            combine(&self.vectors, p, &weights, &mut lanes);
            for (lane, row) in rows.chunks_exact_mut(p).enumerate() {
                row.iter_mut().zip(&lanes).for_each(|(out, from)| *out = from[lane]);
            }
        });
        self.vectors.clear();
        self.vectors.extend_from_slice(&kept);
        for i in 0..keep {
            for j in 0..keep {
                self.projected[(i, j)] = if i == j { ritz.values[i] } else { 0.0 };
            }
        }
    }

    /// The largest `|C v - value v|` over the basis, from the matrix itself.
    fn largest_residual(&self, values: &[f64]) -> Result<f64> {
        let p = self.p;
        let mut largest = 0.0f64;
        for (rows, values) in self.vectors.chunks(BLOCK * p).zip(values.chunks(BLOCK)) {
            let n = values.len();
            let block: Vec<Lane> = (0..p).map(|i| std::array::from_fn(|lane| if lane < n { rows[lane * p + i] } else { 0.0 })).collect();
            let mut image = vec![[0.0; BLOCK]; p];
            self.c.times(&block, &mut image)?;
            for (lane, value) in values.iter().enumerate() {
                let square: f64 = image.iter().zip(&block).map(|(image, v)| (image[lane] - value * v[lane]).powi(2)).sum();
                largest = largest.max(square.sqrt());
            }
        }
        Ok(largest)
    }
}

/// `sum over rows of block[a] * block[b]`.
fn dot(block: &[Lane], a: usize, b: usize) -> f64 {
    block.iter().map(|row| row[a] * row[b]).sum()
}

fn scale(block: &mut [Lane], column: usize, by: f64) {
    block.iter_mut().for_each(|row| row[column] *= by);
}

/// Makes a column orthogonal to those before it, in two passes; returns the coefficients taken out.
fn take_out_earlier(block: &mut [Lane], column: usize) -> Lane {
    let mut taken = [0.0; BLOCK];
    for _ in 0..2 {
        for (earlier, sum) in taken.iter_mut().enumerate().take(column) {
            let x = dot(block, earlier, column);
            block.iter_mut().for_each(|row| row[column] -= x * row[earlier]);
            *sum += x;
        }
    }
    taken
}

/// Fills a column with numbers in -1..1 from a counter (SplitMix64, Steele et al. 2014).
fn random_column(block: &mut [Lane], column: usize, seed: &mut u64) {
    for row in block {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        row[column] = ((z ^ (z >> 31)) >> 11) as f64 * (2.0f64).powi(-52) - 1.0;
    }
}

/// `out[r] = sum over i of rows[r, i] * block[i]`. `rows`: `(out.len(), p)`.
fn dots(rows: &[f64], p: usize, block: &[Lane], out: &mut [Lane]) {
    const ROWS: usize = 32;
    let wide = wide();
    out.par_chunks_mut(ROWS).zip(rows.par_chunks(ROWS * p)).for_each(|(out, rows)| match wide {
        false => dots_some(rows, p, block, out),
        // SAFETY: `wide` has seen that this machine has AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        true => unsafe { dots_avx2(rows, p, block, out) },
        #[cfg(not(target_arch = "x86_64"))]
        true => {}
    });
}

/// [`dots_some`] with 256-bit registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dots_avx2(rows: &[f64], p: usize, block: &[Lane], out: &mut [Lane]) {
    dots_some(rows, p, block, out);
}

#[inline(always)]
fn dots_some(rows: &[f64], p: usize, block: &[Lane], out: &mut [Lane]) {
    let mut fours = rows.chunks_exact(4 * p);
    let mut outs = out.chunks_exact_mut(4);
    for (four, out) in (&mut fours).zip(&mut outs) {
        let (a, rest) = four.split_at(p);
        let (b, rest) = rest.split_at(p);
        let (c, d) = rest.split_at(p);
        let mut sums = [[0.0; BLOCK]; 4];
        for ((((x, a), b), c), d) in block.iter().zip(a).zip(b).zip(c).zip(d) {
            sums[0] = fused(*a, x, sums[0]);
            sums[1] = fused(*b, x, sums[1]);
            sums[2] = fused(*c, x, sums[2]);
            sums[3] = fused(*d, x, sums[3]);
        }
        out.copy_from_slice(&sums);
    }
    for (row, out) in fours.remainder().chunks_exact(p).zip(outs.into_remainder()) {
        *out = block.iter().zip(row).fold([0.0; BLOCK], |sum, (x, a)| fused(*a, x, sum));
    }
}

/// `out[i] += sum over r of rows[r, i] * weights[r]`, r in order. `rows`: `(weights.len(), p)`.
fn combine(rows: &[f64], p: usize, weights: &[Lane], out: &mut [Lane]) {
    const COLUMNS: usize = 256;
    let wide = wide();
    out.par_chunks_mut(COLUMNS).enumerate().for_each(|(chunk, out)| match wide {
        false => combine_some(rows, p, chunk * COLUMNS, weights, out),
        // SAFETY: `wide` has seen that this machine has AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        true => unsafe { combine_avx2(rows, p, chunk * COLUMNS, weights, out) },
        #[cfg(not(target_arch = "x86_64"))]
        true => {}
    });
}

/// [`combine_some`] with 256-bit registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn combine_avx2(rows: &[f64], p: usize, first: usize, weights: &[Lane], out: &mut [Lane]) {
    combine_some(rows, p, first, weights, out);
}

#[inline(always)]
fn combine_some(rows: &[f64], p: usize, first: usize, weights: &[Lane], out: &mut [Lane]) {
    let n = out.len();
    let mut fours = weights.chunks_exact(4);
    let mut at = first;
    for w in &mut fours {
        let (a, b) = (&rows[at..at + n], &rows[at + p..at + p + n]);
        let (c, d) = (&rows[at + 2 * p..at + 2 * p + n], &rows[at + 3 * p..at + 3 * p + n]);
        for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *out = fused(*d, &w[3], fused(*c, &w[2], fused(*b, &w[1], fused(*a, &w[0], *out))));
        }
        at += 4 * p;
    }
    for w in fours.remainder() {
        out.iter_mut().zip(&rows[at..at + n]).for_each(|(out, a)| *out = fused(*a, w, *out));
        at += p;
    }
}

/// `sum + a x`, each entry rounded once.
#[inline(always)]
pub(super) fn fused(a: f64, x: &Lane, sum: Lane) -> Lane {
    std::array::from_fn(|lane| a.mul_add(x[lane], sum[lane]))
}

/// Whether this machine has AVX2 and FMA.
fn wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(test)]
mod tests {
    use rayon::ThreadPoolBuilder;

    use super::*;

    /// `Q diag(values) Q'` for an orthonormal Q: reflections of random vectors (Householder).
    fn with_spectrum(values: &[f64]) -> Vec<f64> {
        let p = values.len();
        let mut c = vec![0.0; p * p];
        for (i, value) in values.iter().enumerate() {
            c[i * (p + 1)] = *value;
        }
        let mut seed = 99;
        for _ in 0..3 {
            let mut lanes = vec![[0.0; BLOCK]; p];
            random_column(&mut lanes, 0, &mut seed);
            let square = dot(&lanes, 0, 0);
            let v: Vec<f64> = lanes.iter().map(|lane| lane[0]).collect();
            // (I - 2 v v' / v'v) C (I - 2 v v' / v'v) = C - v w' - w v', w = 2 (u - (v'u / v'v) v) / v'v, u = C v.
            let u: Vec<f64> = c.chunks_exact(p).map(|row| row.iter().zip(&v).map(|(a, b)| a * b).sum()).collect();
            let share = u.iter().zip(&v).map(|(a, b)| a * b).sum::<f64>() / square;
            let w: Vec<f64> = u.iter().zip(&v).map(|(u, v)| 2.0 * (u - share * v) / square).collect();
            for i in 0..p {
                for j in 0..p {
                    c[i * p + j] -= v[i] * w[j] + w[i] * v[j];
                }
            }
        }
        c
    }

    /// The defining properties, and the eigenvalues that the matrix was made from.
    fn check(spectrum: &[f64], k: usize) {
        let p = spectrum.len();
        let c = with_spectrum(spectrum);
        let (values, vectors) = top_eigenpairs(&c, p, k, &()).unwrap();
        let mut want = spectrum.to_vec();
        want.sort_by(|a, b| b.total_cmp(a));
        let largest = want[0].max(1e-300);
        for (got, want) in values.iter().zip(&want) {
            assert!((got - want).abs() <= 2e-9 * largest, "p {p} k {k}: {got} for {want}");
        }
        let column = |a: usize| (0..p).map(|i| vectors[i * k + a]).collect::<Vec<f64>>();
        for (a, &value) in values.iter().enumerate() {
            let v = column(a);
            let image: Vec<f64> = c.chunks_exact(p).map(|row| row.iter().zip(&v).map(|(a, b)| a * b).sum()).collect();
            let residual = image.iter().zip(&v).map(|(y, x)| (y - value * x).powi(2)).sum::<f64>().sqrt();
            assert!(residual <= 2.1e-9 * largest, "residual {residual}");
            let first = v.iter().fold(0.0f64, |best, &x| if x.abs() > best.abs() { x } else { best });
            assert!(first > 0.0);
            for b in 0..=a {
                let product: f64 = v.iter().zip(column(b)).map(|(x, y)| x * y).sum();
                assert!((product - f64::from(u8::from(a == b))).abs() <= 1e-11, "{a} {b}: {product}");
            }
        }
    }

    #[test]
    fn decaying_spectrum() {
        check(&(0..40).map(|i| 100.0 / (1.0 + f64::from(i))).collect::<Vec<_>>(), 40);
        check(&(0..600).map(|i| 100.0 / (1.0 + f64::from(i))).collect::<Vec<_>>(), 30);
    }

    #[test]
    fn signals_above_a_flat_floor() {
        let spectrum: Vec<f64> =
            (0..700).map(|i| if i < 20 { 50.0 - 2.0 * f64::from(i) } else { 1.0 + f64::from(700 - i) / 700.0 }).collect();
        check(&spectrum, 50);
    }

    #[test]
    fn fewer_signals_than_components() {
        check(&(0..600).map(|i| if i < 7 { f64::from(9 - i) } else { 0.0 }).collect::<Vec<_>>(), 20);
        check(&vec![0.0; 600], 10);
        check(&[0.0; 30], 10);
    }

    #[test]
    fn equal_eigenvalues() {
        check(&vec![3.0; 600], 20);
        // Thirty copies of 5: more than a block holds.
        check(&(0..600).map(|i| if i < 30 { 5.0 } else { 1.0 / f64::from(i) }).collect::<Vec<_>>(), 40);
        check(&(0..600).map(|i| if i < 30 { 5.0 } else { 1.0 / f64::from(i) }).collect::<Vec<_>>(), 25);
        check(&(0..600).map(|i| f64::from(10 - i / 60)).collect::<Vec<_>>(), 70);
    }

    #[test]
    fn iteration_and_full_decomposition_agree() {
        let p = 560;
        let c = with_spectrum(&(0..p).map(|i| 30.0 * (-0.02 * i as f64).exp()).collect::<Vec<_>>());
        let (values, vectors) = krylov(&Dense { c: &c, p, sums: Spare::default() }, 25, &()).unwrap().unwrap();
        let (all, exact) = full(&c, p, 25).unwrap();
        for (a, (x, y)) in vectors.chunks(p).zip(exact.chunks(p)).enumerate() {
            assert!((values[a] - all[a]).abs() <= 1e-9 * all[0]);
            let cosine: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
            assert!(1.0 - cosine.abs() <= 1e-12, "{cosine}");
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let c = with_spectrum(&(0..600).map(|i| 10.0 / (1.0 + f64::from(i)).sqrt()).collect::<Vec<_>>());
        let run = |threads: usize| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| top_eigenpairs(&c, 600, 30, &())).unwrap()
        };
        let one = run(1);
        for threads in [2, 3, 8] {
            assert_eq!(run(threads), one);
        }
    }

    #[test]
    fn both_instruction_sets_give_the_same_bits() {
        let (p, m) = (301, 37);
        let mut seed = 5;
        let mut lanes = vec![[0.0; BLOCK]; p.max(m * p / BLOCK + 1)];
        (0..BLOCK).for_each(|column| random_column(&mut lanes, column, &mut seed));
        let rows = &lanes.as_flattened()[..m * p];
        let (mut a, mut b) = (vec![[0.0; BLOCK]; m], vec![[0.0; BLOCK]; m]);
        dots(rows, p, &lanes[..p], &mut a);
        b.chunks_mut(32).zip(rows.chunks(32 * p)).for_each(|(out, rows)| dots_some(rows, p, &lanes[..p], out));
        assert_eq!(a, b);
        let (mut x, mut y) = (lanes[..p].to_vec(), lanes[..p].to_vec());
        combine(rows, p, &a, &mut x);
        combine_some(rows, p, 0, &a, &mut y);
        assert_eq!(x, y);
    }

    #[test]
    fn bad_input_and_a_stop_are_errors() {
        struct Stop;
        impl Watch for Stop {
            fn tick(&self, _: u64, _: u64, _: &str) -> Result<()> {
                Err(cellmill_matrix::ErrorKind::Interrupted.into())
            }
        }
        assert!(top_eigenpairs(&[1.0; 3], 2, 1, &()).is_err());
        assert!(top_eigenpairs(&[1.0; 4], 2, 3, &()).is_err());
        assert!(top_eigenpairs(&[f64::NAN; 4], 2, 1, &()).is_err());
        assert!(top_eigenpairs(&[1.0; 4], 2, 1, &Stop).is_err());
    }
}

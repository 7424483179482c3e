//! Welch's t-test.

use super::student_two_sided;

/// What is known of one gene in one set of cells.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Cells.
    pub n: f64,
    /// Mean.
    pub mean: f64,
    /// Variance, ddof 1.
    pub variance: f64,
}

/// Score and two-sided p-value of unequal means; 0 and 1 where both samples are constant and equal. As
/// `scipy.stats.ttest_ind_from_stats(equal_var=False)`.
pub fn welch(a: Sample, b: Sample) -> (f64, f64) {
    let (va, vb) = (a.variance / a.n, b.variance / b.n);
    // Welch 1947: df = (va + vb)² / (va² / (na − 1) + vb² / (nb − 1)).
    let df = (va + vb) * (va + vb) / (va * va / (a.n - 1.0) + vb * vb / (b.n - 1.0));
    let df = if df.is_nan() { 1.0 } else { df };
    let score = (a.mean - b.mean) / (va + vb).sqrt();
    if score.is_nan() {
        return (0.0, 1.0);
    }
    (score, student_two_sided(score, df))
}

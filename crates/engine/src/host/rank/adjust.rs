//! p-values of many genes at once, and the order in which genes are shown.

/// Benjamini & Hochberg 1995: p n / rank, made monotone from the largest p down. NaN counts as 1.
pub fn benjamini_hochberg(pvals: &[f64]) -> Vec<f64> {
    let n = pvals.len();
    let p = |i: usize| if pvals[i].is_nan() { 1.0 } else { pvals[i] };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| p(a).total_cmp(&p(b)));
    let mut adjusted = vec![0.0; n];
    let mut least = 1.0f64;
    for (rank, &i) in order.iter().enumerate().rev() {
        // statsmodels divides by rank/n.
        least = least.min(p(i) / ((rank + 1) as f64 / n as f64));
        adjusted[i] = least;
    }
    adjusted
}

/// Bonferroni: p n, at most 1.
pub fn bonferroni(pvals: &[f64]) -> Vec<f64> {
    pvals.iter().map(|p| (p * pvals.len() as f64).min(1.0)).collect()
}

/// The `count` genes of largest score, or of largest |score|, best first. Ties in the genes' order (scanpy: in no order).
pub fn best_first(scores: &[f64], by_abs: bool, count: usize) -> Vec<u32> {
    let key = |i: u32| if by_abs { scores[i as usize].abs() } else { scores[i as usize] };
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    let before = |a: &u32, b: &u32| key(*b).total_cmp(&key(*a)).then(a.cmp(b));
    if count < order.len() {
        if count > 0 {
            order.select_nth_unstable_by(count - 1, before);
        }
        order.truncate(count);
    }
    order.sort_unstable_by(before);
    order
}

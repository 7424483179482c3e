//! Bins of the mean, as pandas and numpy cut them, and what a bin says of its genes.

use cellmill_matrix::{Error, Place, Result};

/// Edges of bins, ascending and distinct: bin b holds edges[b] < x <= edges[b + 1].
#[derive(Debug)]
pub(super) struct Bins {
    edges: Vec<f64>,
    /// Edges that were equal to the one before and were dropped.
    pub(super) dropped: usize,
}

impl Bins {
    fn new(mut edges: Vec<f64>) -> Self {
        let given = edges.len();
        edges.dedup();
        Bins { dropped: given - edges.len(), edges }
    }

    /// `n_bins` bins of equal width over the range of `values`; NaN is passed over.
    ///
    /// pandas `cut` with a number of bins: the lowest edge is lowered by 0.1 % of the range, so that the least value
    /// is in the first bin; a range of zero is widened by 0.1 % of the value (0.001 at zero) on both sides first.
    pub(super) fn equal_width(values: &[f64], n_bins: usize) -> Result<Self> {
        let mut low = f64::INFINITY;
        let mut high = f64::NEG_INFINITY;
        for &value in values.iter().filter(|value| !value.is_nan()) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            return Ok(Bins::new(Vec::new()));
        }
        if low.is_infinite() || high.is_infinite() {
            return Err(Error::invalid(
                Place::default(),
                "the mean of a gene is infinite",
                "bins of equal width need finite means; is this log1p data?",
            ));
        }
        let flat = low == high;
        if flat {
            low -= if low != 0.0 { 0.001 * low.abs() } else { 0.001 };
            high += if high != 0.0 { 0.001 * high.abs() } else { 0.001 };
        }
        // numpy linspace: i · step + start, the last edge exact; i / n · range where the step underflows.
        let range = high - low;
        let step = range / n_bins as f64;
        let mut edges: Vec<f64> = (0..n_bins)
            .map(|i| if step == 0.0 { i as f64 / n_bins as f64 * range + low } else { i as f64 * step + low })
            .chain([high])
            .collect();
        if !flat {
            edges[0] -= range * 0.001;
        }
        Ok(Bins::new(edges))
    }

    /// 20 bins of nearly equal size: -inf, the percentiles 10, 15, …, 100 of `values`, +inf; NaN is passed over.
    pub(super) fn equal_size(values: &[f64]) -> Self {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        if sorted.is_empty() {
            return Bins::new(Vec::new());
        }
        let percentiles = (10..105).step_by(5).map(|q| quantile(&sorted, f64::from(q) / 100.0));
        Bins::new([f64::NEG_INFINITY].into_iter().chain(percentiles).chain([f64::INFINITY]).collect())
    }

    /// How many bins there are.
    pub(super) fn len(&self) -> usize {
        self.edges.len().saturating_sub(1)
    }

    /// The bin of a value; none for NaN and for values outside the edges.
    pub(super) fn of(&self, value: f64) -> Option<usize> {
        let below = self.edges.partition_point(|edge| *edge < value);
        if value.is_nan() || below == 0 || below == self.edges.len() { None } else { Some(below - 1) }
    }
}

/// Quantile of sorted, non-empty values by numpy's default method `linear`: between the two nearest ranks.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len() - 1;
    let virtual_index = last as f64 * q;
    let index = virtual_index.floor();
    if index as usize >= last {
        return sorted[last];
    }
    let (a, b) = (sorted[index as usize], sorted[index as usize + 1]);
    let t = virtual_index - index;
    // numpy `_lerp` starts from the nearer end.
    if t >= 0.5 { b - (b - a) * (1.0 - t) } else { a + (b - a) * t }
}

/// Mean by Kahan's compensated sum, as pandas `groupby.mean`; NaN values are passed over, none left gives NaN.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut compensation, mut count) = (0.0, 0.0, 0u64);
    for value in values.filter(|value| !value.is_nan()) {
        count += 1;
        let y = value - compensation;
        let t = sum + y;
        compensation = t - sum - y;
        if compensation.is_nan() {
            compensation = 0.0;
        }
        sum = t;
    }
    sum / count as f64
}

/// Standard deviation (ddof 1) by Welford's update, as pandas `groupby.std`: exactly 0 for equal values.
///
/// NaN values are passed over; fewer than two left give NaN.
pub(super) fn deviation(values: impl Iterator<Item = f64>) -> f64 {
    let (mut mean, mut squares, mut count) = (0.0, 0.0, 0u64);
    for value in values.filter(|value| !value.is_nan()) {
        count += 1;
        let before = mean;
        mean += (value - before) / count as f64;
        squares += (value - mean) * (value - before);
    }
    if count < 2 { f64::NAN } else { (squares / (count - 1) as f64).sqrt() }
}

/// Median; NaN values are passed over, none left gives NaN.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[half],
        _ => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}

/// Third quartile of the standard normal distribution: makes the MAD of normal values their standard deviation.
const NORMAL_QUARTILE: f64 = 0.674_489_750_196_081_7;

/// Median absolute deviation from `centre`, over 0.6745 (statsmodels `robust.mad`).
pub(super) fn absolute_deviation(values: impl Iterator<Item = f64>, centre: f64) -> f64 {
    median(values.map(|value| (value - centre).abs() / NORMAL_QUARTILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_width_as_pandas_cut() {
        // pd.cut([0, 1, 2, 3, 4, 5], 5): codes 0, 0, 1, 2, 3, 4 (right-closed, lowest edge lowered).
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let bins = Bins::equal_width(&values, 5).unwrap();
        assert_eq!(values.map(|v| bins.of(v)), [Some(0), Some(0), Some(1), Some(2), Some(3), Some(4)]);
        assert_eq!(bins.edges[0], -0.005);
        assert_eq!(bins.of(-0.005), None);
        assert_eq!(bins.of(5.1), None);
        assert_eq!(bins.of(f64::NAN), None);
    }

    #[test]
    fn a_range_of_zero_is_widened() {
        // pd.cut([2, 2], 4, retbins=True): edges 1.998, 1.999, 2, 2.001, 2.002; 2 is in the second.
        let bins = Bins::equal_width(&[2.0, 2.0, f64::NAN], 4).unwrap();
        assert_eq!((bins.edges[0], bins.edges[4]), (1.998, 2.002));
        assert_eq!(bins.of(2.0), Some(1));
        assert_eq!(Bins::equal_width(&[0.0], 2).unwrap().edges, [-0.001, 0.0, 0.001]);
        assert!(Bins::equal_width(&[1.0, f64::INFINITY], 2).is_err());
        assert_eq!(Bins::equal_width(&[f64::NAN], 2).unwrap().len(), 0);
    }

    #[test]
    fn percentiles_as_numpy() {
        // np.percentile([0, 1, 4, 9, 16], [10, 15, 90, 100]) = 0.4, 0.6, 13.2, 16
        let sorted = [0.0, 1.0, 4.0, 9.0, 16.0];
        let found = [0.1, 0.15, 0.9, 1.0].map(|q| quantile(&sorted, q));
        for (found, expected) in found.iter().zip([0.4, 0.6, 13.2, 16.0]) {
            assert!((found - expected).abs() < 1e-14, "{found} {expected}");
        }
        let bins = Bins::equal_size(&sorted);
        assert_eq!((bins.len(), bins.dropped), (20, 0));
        assert_eq!(bins.of(16.0), Some(18));
    }

    #[test]
    fn equal_edges_are_merged() {
        let mut values = vec![1e-12; 60];
        values.extend((1..=40).map(f64::from));
        let bins = Bins::equal_size(&values);
        // Percentiles 10..=55 are all 1e-12: ten edges become one.
        assert_eq!(bins.dropped, 9);
        assert_eq!(bins.of(1e-12), Some(0));
    }

    #[test]
    fn statistics_of_a_bin() {
        let values = [1.0, f64::NAN, 2.0, 4.0, 9.0];
        assert_eq!(mean(values.into_iter()), 4.0);
        assert!((deviation(values.into_iter()) - (38.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(median(values.into_iter()), 3.0);
        // |x - 3| = 2, 1, 1, 6: median 1.5.
        assert!((absolute_deviation(values.into_iter(), 3.0) - 1.5 / 0.674_489_750_196_081_7).abs() < 1e-15);
        assert!(mean([].into_iter()).is_nan() && median([].into_iter()).is_nan() && deviation([1.0].into_iter()).is_nan());
        assert_eq!(deviation([0.1, 0.1, 0.1].into_iter()), 0.0);
    }
}

//! Where an axis has its ticks and what they say.

/// An axis: the values at its ends, and whether it is logarithmic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    pub low: f64,
    pub high: f64,
    pub log: bool,
}

/// One tick. Minor ticks have an empty label.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    pub value: f64,
    pub label: String,
}

impl Scale {
    /// The range of the finite values (the positive ones on a log axis), with `margin` of its length added on both sides.
    /// `None` when there are no such values.
    pub(crate) fn around(values: impl Iterator<Item = f64>, margin: f64, log: bool) -> Option<Scale> {
        let mut ends: Option<(f64, f64)> = None;
        for value in values.filter(|v| v.is_finite() && (!log || *v > 0.0)) {
            ends = Some(ends.map_or((value, value), |(low, high)| (low.min(value), high.max(value))));
        }
        let (low, high) = ends?;
        Some(if log {
            let (low, high) = (low.log10(), high.log10());
            let pad = if high > low { (high - low) * margin } else { 0.5 };
            Scale { low: 10_f64.powf(low - pad), high: 10_f64.powf(high + pad), log }
        } else {
            // Halves, so that the length of a range from the lowest to the highest f64 stays finite.
            let half = high / 2.0 - low / 2.0;
            let tiny = low.abs().max(high.abs()) * 1e-12;
            let pad = if half > tiny { 2.0 * (half * margin) } else { (low.abs() * 0.05).max(0.5) };
            Scale { low: (low - pad).max(f64::MIN / 4.0), high: (high + pad).min(f64::MAX / 4.0), log }
        })
    }

    /// Where a value lies: 0 at the low end, 1 at the high end.
    pub(crate) fn part(&self, value: f64) -> f64 {
        if self.log {
            (value.log10() - self.low.log10()) / (self.high.log10() - self.low.log10())
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// Ticks inside the range, with about `most` labels or fewer.
    pub(crate) fn ticks(&self, most: usize) -> Vec<Tick> {
        if self.log { self.log_ticks(most.max(2)) } else { self.linear_ticks(most.max(2)) }
    }

    fn linear_ticks(&self, most: usize) -> Vec<Tick> {
        let length = self.high - self.low;
        if !(length > 0.0 && length.is_finite()) {
            return Vec::new();
        }
        // The smallest of 1, 2, 2.5 or 5 times a power of ten that makes few enough ticks.
        let power = 10_f64.powf((length / most as f64).log10().floor());
        let fits = |step: f64| (self.high / step).floor() - (self.low / step).ceil() < most as f64;
        let step = [1.0, 2.0, 2.5, 5.0, 10.0, 20.0].map(|k| k * power).into_iter().find(|step| fits(*step)).unwrap_or(length);
        let (first, last) = ((self.low / step - 1e-9).ceil(), (self.high / step + 1e-9).floor());
        let count = (last - first).clamp(0.0, 100.0) as usize + 1;
        let values: Vec<f64> = (0..count).map(|k| (first + k as f64) * step).filter(|v| v.is_finite()).collect();
        let labels = labels(&values, step);
        values.into_iter().zip(labels).map(|(value, label)| Tick { value, label }).collect()
    }

    fn log_ticks(&self, most: usize) -> Vec<Tick> {
        let inside = |v: f64| v >= self.low * (1.0 - 1e-9) && v <= self.high * (1.0 + 1e-9);
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let decades: Vec<i32> = (first..=last).filter(|e| inside(10_f64.powi(*e))).collect();
        let every = decades.len().div_ceil(most).max(1) as i32;
        // With few decades the values between them get labels too, as plain numbers.
        let between: &[u32] = match decades.len() {
            0 | 1 => &[1, 2, 3, 4, 5, 6, 7, 8, 9],
            2 if most >= 6 => &[1, 2, 5],
            _ => &[1],
        };
        let plain = decades.len() <= 2 && self.high < 1e5 && self.low > 1e-4;
        let mut ticks = Vec::new();
        for e in first..=last {
            for k in 1..=9_u32 {
                let value = f64::from(k) * 10_f64.powi(e);
                if !inside(value) || (k > 1 && decades.len() > 8) {
                    continue;
                }
                let labelled = between.contains(&k) && e.rem_euclid(every) == 0;
                let label = match (labelled, plain) {
                    (false, _) => String::new(),
                    (true, true) => labels(&[value], value)[0].clone(),
                    (true, false) => power_of_ten(f64::from(k), e),
                };
                ticks.push(Tick { value, label });
            }
        }
        // A narrow range between two decades can hold more labels than fit.
        let shown = ticks.iter().filter(|t| !t.label.is_empty()).count();
        if shown > most {
            let skip = shown.div_ceil(most);
            for (k, tick) in ticks.iter_mut().filter(|t| !t.label.is_empty()).enumerate() {
                if k % skip != 0 {
                    tick.label.clear();
                }
            }
        }
        if shown < 2 && decades.is_empty() {
            return Scale { log: false, ..*self }.linear_ticks(most);
        }
        ticks
    }
}

/// The values with as many decimals as the step between them needs; very large and very small ones as powers of ten.
fn labels(values: &[f64], step: f64) -> Vec<String> {
    let largest = values.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    let decimals_of = |step: f64| {
        (0..=12).find(|d| {
            let scaled = step * 10_f64.powi(*d);
            (scaled - scaled.round()).abs() < 1e-6 * scaled.abs().max(1e-300) && scaled.round() != 0.0
        })
    };
    if largest >= 1e6 || (largest > 0.0 && largest < 1e-3) {
        let power = largest.log10().floor() as i32;
        let unit = 10_f64.powi(power);
        let decimals = decimals_of(step / unit).unwrap_or(2).min(6) as usize;
        return values
            .iter()
            .map(|v| if *v == 0.0 { "0".to_owned() } else { minus(&format!("{:.decimals$}×10{}", v / unit, superscript(power))) })
            .collect();
    }
    let decimals = decimals_of(step).unwrap_or(6) as usize;
    values.iter().map(|v| minus(&format!("{:.decimals$}", if *v == 0.0 { 0.0 } else { *v }))).collect()
}

fn power_of_ten(k: f64, power: i32) -> String {
    if k == 1.0 { format!("10{}", superscript(power)) } else { format!("{k}×10{}", superscript(power)) }
}

/// The typographic minus.
fn minus(text: &str) -> String {
    text.replace('-', "\u{2212}")
}

fn superscript(power: i32) -> String {
    let digits = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    power.to_string().chars().map(|c| c.to_digit(10).map_or('⁻', |d| digits[d as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(low: f64, high: f64, log: bool, most: usize) -> Vec<String> {
        Scale { low, high, log }.ticks(most).into_iter().map(|t| t.label).filter(|l| !l.is_empty()).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(said(0.0, 10.0, false, 6), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(said(-0.13, 0.31, false, 5), ["−0.1", "0.0", "0.1", "0.2", "0.3"]);
        assert_eq!(said(0.0, 3.1e6, false, 4), ["0", "1×10⁶", "2×10⁶", "3×10⁶"]);
        assert_eq!(said(0.0, 2.2e-4, false, 3), ["0", "1×10⁻⁴", "2×10⁻⁴"]);
        assert_eq!(said(900.0, 1.1e6, true, 6), ["10³", "10⁴", "10⁵", "10⁶"]);
        assert_eq!(said(1.0, 60.0, true, 6), ["1", "2", "5", "10", "20", "50"]);
        assert_eq!(
            said(0.0, 60_000.0, false, 6),
            ["0", "10000", "20000", "30000", "40000", "50000", "60000"][..].iter().step_by(2).copied().collect::<Vec<_>>()
        );
    }

    proptest! {
        #[test]
        fn ticks_lie_inside_and_are_few(low in -1e9_f64..1e9, length in 1e-9_f64..1e9, most in 2_usize..10) {
            let scale = Scale { low, high: low + length, log: false };
            prop_assume!(scale.high - scale.low > low.abs() * 1e-9);
            let ticks = scale.ticks(most);
            prop_assert!(ticks.len() <= most + 1);
            let slack = (scale.high - scale.low) * 1e-6;
            prop_assert!(ticks.iter().all(|t| t.value >= scale.low - slack && t.value <= scale.high + slack));
        }

        #[test]
        fn log_ticks_lie_inside(low in -12.0_f64..8.0, length in 0.01_f64..12.0, most in 2_usize..10) {
            let scale = Scale { low: 10_f64.powf(low), high: 10_f64.powf(low + length), log: true };
            let ticks = scale.ticks(most);
            prop_assert!(ticks.iter().all(|t| t.value >= scale.low * 0.999 && t.value <= scale.high * 1.001));
            prop_assert!(ticks.iter().filter(|t| !t.label.is_empty()).count() <= most + 1);
            prop_assert!(!ticks.is_empty());
        }

        #[test]
        fn a_range_around_values_holds_them(values in proptest::collection::vec(proptest::num::f64::ANY, 1..20)) {
            if let Some(scale) = Scale::around(values.iter().copied(), 0.05, false) {
                prop_assert!(scale.low < scale.high);
                for v in values.iter().filter(|v| v.abs() < f64::MAX / 8.0) {
                    let part = scale.part(*v);
                    prop_assert!((0.0..=1.0).contains(&part), "{part}");
                }
            }
        }
    }
}

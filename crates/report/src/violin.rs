//! Distributions of QC columns, one panel each, after `scanpy.pl.violin(..., jitter=0.4, multi_panel=True)`.

use cellmill_matrix::{Error, Place, Result};

use crate::axes::{Axes, left_margin};
use crate::color::Rgb;
use crate::discs::{Disc, shuffled, splitmix};
use crate::figure::{Area, Figure, Item, Stroke};
use crate::font::Fonts;
use crate::ticks::Scale;

/// Width and height of a panel's axes in points.
const PANEL: (f32, f32) = (150.0, 230.0);
/// Points on the curve of a violin, and bins under it.
const GRID: usize = 160;
const BINS: usize = 2048;
/// The most cells drawn as points; of more, a fixed random part is drawn. The curve always knows all.
const MOST_POINTS: usize = 3000;
/// The violin's half width as a part of the panel's width.
const HALF: f32 = 0.42;

/// Violins of columns, with jittered points: each column has a name and a value a cell. Values that are not finite are
/// left out; a column without finite values is an error.
pub fn violin(columns: &[(&str, &[f64])]) -> Result<Figure> {
    if columns.is_empty() {
        return Err(Error::option("keys", "nothing", "a violin plot has at least one column"));
    }
    let fonts = Fonts::open()?;
    let mut panels = Vec::with_capacity(columns.len());
    for (name, values) in columns {
        let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        let scale = Scale::around(finite.iter().copied(), 0.05, false).ok_or_else(|| {
            let found = format!("{} values, none of them finite", values.len());
            Error::invalid(Place { element: Some((*name).to_owned()), ..Place::default() }, found, "a violin needs at least one")
        })?;
        panels.push((*name, finite, scale));
    }
    let (w, h) = PANEL;
    let lefts: Vec<f32> = panels.iter().map(|(_, _, scale)| left_margin(scale, h, "", &fonts)).collect();
    let page = lefts.iter().map(|left| left + w + 14.0).sum();
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let mut figure = Figure::new(page, h + 44.0, format!("Distributions of {}", names.join(", ")));
    let mut from = 0.0;
    for ((name, values, scale), left) in panels.iter().zip(lefts) {
        let area = Area::new(from + left, 30.0, w, h);
        let axes = Axes { area, x: Scale { low: 0.0, high: 1.0, log: false }, y: *scale };
        body(&mut figure, &axes, values);
        points(&mut figure, &axes, values);
        axes.left(&mut figure, "", &fonts);
        axes.floor(&mut figure);
        axes.title(&mut figure, name, w + left, &fonts);
        from += left + w + 14.0;
    }
    Ok(figure)
}

/// The violin: its half width at a value is the density there, the widest place filling the panel.
fn body(figure: &mut Figure, axes: &Axes, values: &[f64]) {
    let Some(density) = density(values) else { return };
    let highest = density.iter().map(|(_, d)| *d).fold(0.0, f64::max);
    let middle = axes.area.x + axes.area.width / 2.0;
    let side =
        |sign: f32, (value, d): &(f64, f64)| [middle + sign * HALF * axes.area.width * (d / highest) as f32, axes.at(0.5, *value)[1]];
    let outline = density.iter().map(|at| side(1.0, at)).chain(density.iter().rev().map(|at| side(-1.0, at)));
    let stroke = Some(Stroke { color: Rgb::new(0x33, 0x4d, 0x66), width: 1.0 });
    figure.push(Item::Path { points: outline.collect(), fill: Some(Rgb::new(0x1f, 0x77, 0xb4).lighter(0.5)), stroke });
}

/// Gaussian kernel density from the lowest to the highest value, (GRID,) of (value, density up to a factor), with the
/// bandwidth of Scott 1992, std * n^(-1/5). Values are first spread on BINS bins. `None` where all values are equal.
fn density(values: &[f64]) -> Option<Vec<(f64, f64)>> {
    let n = values.len() as f64;
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let length = high - low;
    // Computed on 0..1, where nothing overflows.
    let part = |v: f64| (v - low) / length;
    if !(length > 0.0 && length.is_finite()) {
        return None;
    }
    let mean = values.iter().map(|v| part(*v)).sum::<f64>() / n;
    let variance = values.iter().map(|v| (part(*v) - mean).powi(2)).sum::<f64>() / (n - 1.0);
    // No narrower than half a step of the curve, or a thin heap could fall between its points.
    let bandwidth = (variance.sqrt() * n.powf(-0.2)).max(0.5 / (GRID - 1) as f64);
    let mut bins = vec![0.0; BINS + 1];
    for value in values {
        let place = part(*value) * (BINS - 1) as f64;
        let bin = place as usize;
        let share = place - bin as f64;
        bins[bin] += 1.0 - share;
        bins[bin + 1] += share;
    }
    let at = |k: usize| {
        let place = k as f64 / (GRID - 1) as f64;
        let kernel = |bin: usize| (-0.5 * ((bin as f64 / (BINS - 1) as f64 - place) / bandwidth).powi(2)).exp();
        let sum: f64 = bins.iter().enumerate().filter(|(_, count)| **count > 0.0).map(|(bin, count)| count * kernel(bin)).sum();
        (low + place * length, sum)
    };
    let curve: Vec<(f64, f64)> = (0..GRID).map(at).collect();
    curve.iter().any(|(_, d)| *d > 0.0).then_some(curve)
}

fn points(figure: &mut Figure, axes: &Axes, values: &[f64]) {
    let mut state = 1;
    let discs = shuffled(values.len()).into_iter().take(MOST_POINTS).map(|cell| {
        let jitter = (splitmix(&mut state) >> 11) as f64 / (1_u64 << 53) as f64;
        let [x, y] = axes.at(0.5 + (jitter - 0.5) * 0.8, values[cell as usize]);
        Disc { x, y, color: Rgb::BLACK }
    });
    let discs: Vec<Disc> = discs.collect();
    let radius = if discs.len() <= 200 { 1.2 } else { 0.7 };
    let opacity = if discs.len() <= 500 { 0.9 } else { 0.55 };
    figure.push(Item::Discs { area: axes.area, discs, radius, opacity });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_density_of_two_heaps_has_two_tops() {
        // Compared with scipy.stats.gaussian_kde on the same values: bandwidth 0.4693 * std.
        let values: Vec<f64> = (0..44).map(|k| if k % 2 == 0 { 0.0 } else { 10.0 } + f64::from(k) / 44.0).collect();
        let curve = density(&values).unwrap_or_default();
        assert_eq!(curve.len(), GRID);
        let near = |v: f64| curve.iter().min_by(|a, b| (a.0 - v).abs().total_cmp(&(b.0 - v).abs())).map_or(0.0, |at| at.1);
        assert!(near(0.5) > 1.2 * near(5.5) && near(10.5) > 1.2 * near(5.5));
        assert!((near(0.5) / near(10.5) - 1.0).abs() < 0.05);
        assert!(density(&[2.0, 2.0]).is_none() && density(&[2.0]).is_none());
    }
}

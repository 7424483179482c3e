//! Bars in groups, for example the time of each stage by tool.

use cellmill_matrix::{Error, Place, Result};

use crate::axes::{Axes, TICK_SIZE, bottom_margin, left_margin};
use crate::chart::Axis;
use crate::color::Rgb;
use crate::figure::{Anchor, Area, Figure, Item, Text};
use crate::font::{Fonts, HALF_CAPITAL};
use crate::legend::Names;
use crate::palette::categorical;
use crate::ticks::Scale;

/// Widths of a bar and of the space between groups, and the axes' height, in points.
const BAR: f32 = 24.0;
const BETWEEN: f32 = 18.0;
const HEIGHT: f32 = 220.0;
/// Size of the values over the bars.
const VALUE_SIZE: f32 = 8.0;

/// Bars: for each series one bar in each group.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// The title; may be empty.
    pub title: String,
    /// The axis of the values, all 0 or more; a linear one starts at 0.
    pub y: Axis,
    /// The groups' names, along the horizontal axis.
    pub groups: Vec<String>,
    /// Each series' name and its value in each group: (n_groups,). NaN leaves a bar out.
    pub series: Vec<(String, Vec<f64>)>,
}

/// The figure of bars, each with its value over it.
pub fn bars(bars: &Bars) -> Result<Figure> {
    let place = |name: &str| Place { element: Some(name.to_owned()), ..Place::default() };
    for (name, values) in &bars.series {
        if values.len() != bars.groups.len() {
            let expected = format!("there are {} groups", bars.groups.len());
            return Err(Error::invalid(place(name), format!("{} values", values.len()), expected));
        }
        if let Some(value) = values.iter().find(|v| v.is_infinite() || **v < 0.0 || (bars.y.log && **v == 0.0)) {
            let expected = if bars.y.log { "a bar on a logarithmic axis is above 0" } else { "a bar is 0 or more" };
            return Err(Error::invalid(place(name), value.to_string(), expected));
        }
    }
    let values = || bars.series.iter().flat_map(|(_, values)| values.iter().copied()).filter(|v| v.is_finite());
    let Some(scale) = Scale::around(values().chain(bars.y.holds.iter().copied()), 0.08, bars.y.log) else {
        return Err(Error::invalid(place(&bars.title), "no value", "bars need at least one"));
    };
    let scale = if bars.y.log { scale } else { Scale { low: 0.0, ..scale } };
    let fonts = Fonts::open()?;
    let per_group = bars.series.len() as f32;
    let step = per_group * BAR + BETWEEN;
    let colors = categorical(bars.series.len());
    let entries: Vec<(String, Rgb)> = bars.series.iter().map(|s| s.0.clone()).zip(colors.iter().copied()).collect();
    let names = (entries.len() > 1).then(|| Names::new(&entries, HEIGHT, &fonts));
    // Names of groups that are wider than their group are read upwards.
    let turned = bars.groups.iter().any(|g| fonts.width(g, TICK_SIZE, false) > step - 4.0);
    let groups: Vec<String> = bars.groups.iter().map(|g| fonts.fit(g, TICK_SIZE, false, if turned { 140.0 } else { step })).collect();
    let below = if turned { groups.iter().map(|g| fonts.width(g, TICK_SIZE, false)).fold(0.0, f32::max) + 14.0 } else { bottom_margin("") };
    let left = left_margin(&scale, HEIGHT, &bars.y.label, &fonts);
    let top = if bars.title.is_empty() { 14.0 } else { 32.0 };
    let width = step * bars.groups.len() as f32;
    let right = 14.0 + names.as_ref().map_or(0.0, Names::width);
    let about = if bars.title.is_empty() { bars.y.label.clone() } else { bars.title.clone() };
    let mut figure = Figure::new(left + width + right, top + HEIGHT + below, about);
    let area = Area::new(left, top, width, HEIGHT);
    let axes = Axes { area, x: Scale { low: 0.0, high: 1.0, log: false }, y: scale };
    axes.rows(&mut figure);
    for (g, name) in groups.iter().enumerate() {
        let from = area.x + g as f32 * step + BETWEEN / 2.0;
        for (s, (_, values)) in bars.series.iter().enumerate() {
            let value = values[g];
            if value.is_finite() {
                let top = axes.at(0.0, value)[1];
                let bar = Area::new(from + s as f32 * BAR + 1.0, top, BAR - 2.0, (area.bottom() - top).max(0.01));
                figure.push(Item::Rect { area: bar, fill: Some(colors[s]), stroke: None });
                figure.text(Text::new(short(value), bar.x + bar.width / 2.0, top - 3.0, VALUE_SIZE, Anchor::Middle));
            }
        }
        let middle = from + per_group * BAR / 2.0;
        if turned {
            let text = Text::new(name, middle + HALF_CAPITAL * TICK_SIZE, area.bottom() + 6.0, TICK_SIZE, Anchor::End);
            figure.text(text.upwards());
        } else {
            figure.text(Text::new(name, middle, area.bottom() + 5.0 + 0.8 * TICK_SIZE, TICK_SIZE, Anchor::Middle));
        }
    }
    axes.left(&mut figure, &bars.y.label, &fonts);
    axes.floor(&mut figure);
    axes.title(&mut figure, &bars.title, width + left, &fonts);
    if let Some(names) = names {
        names.draw(&mut figure, &area);
    }
    Ok(figure)
}

/// Three digits that matter: 0.0123, 1.23, 12.3, 123, 12300.
fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let power = value.abs().log10().floor() as i32;
    if !(-4..7).contains(&power) {
        return format!("{value:.1e}");
    }
    let unit = 10_f64.powi(power - 2);
    let rounded = (value / unit).round() * unit;
    let text = format!("{rounded:.*}", (2 - power).max(0) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits() {
        let known =
            [(0.01234, "0.0123"), (1.0, "1"), (1.239, "1.24"), (12.34, "12.3"), (123.4, "123"), (12_345.0, "12300"), (1e9, "1.0e9")];
        for (value, text) in known {
            assert_eq!(short(value), text);
        }
    }
}

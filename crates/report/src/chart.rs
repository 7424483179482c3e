//! Lines and points on axes, for example time against cells.

use cellmill_matrix::{Error, Place, Result};

use crate::axes::{Axes, bottom_margin, left_margin};
use crate::color::Rgb;
use crate::discs::Disc;
use crate::figure::{Area, Figure, Item};
use crate::font::Fonts;
use crate::legend::Names;
use crate::palette::categorical;
use crate::ticks::Scale;

/// One axis of a chart or of bars.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// What is measured, with its unit: `cells`, `time (s)`.
    pub label: String,
    /// Whether the axis is logarithmic; then every value is above 0.
    pub log: bool,
    /// Values that the axis must show besides the data's, for example 0.
    pub holds: Vec<f64>,
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: impl Into<String>) -> Self {
        Axis { label: label.into(), ..Axis::default() }
    }

    /// A logarithmic axis.
    pub fn log(label: impl Into<String>) -> Self {
        Axis { label: label.into(), log: true, ..Axis::default() }
    }

    /// The same axis, going at least to `value`.
    pub fn holding(mut self, value: f64) -> Self {
        self.holds.push(value);
        self
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// A line with a disc at each point.
    #[default]
    LinePoints,
    /// A line.
    Line,
    /// Discs.
    Points,
}

/// A named series of pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// (n,).
    pub x: Vec<f64>,
    /// (n,).
    pub y: Vec<f64>,
    /// How it is drawn.
    pub mark: Mark,
    /// Its colour; the next of the palette when `None`.
    pub color: Option<Rgb>,
}

impl Series {
    /// A line with points, in the next colour.
    pub fn new(name: impl Into<String>, x: Vec<f64>, y: Vec<f64>) -> Self {
        Series { name: name.into(), x, y, mark: Mark::default(), color: None }
    }
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// The title; may be empty.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn. With more than one series there is a legend.
    pub series: Vec<Series>,
    /// Width and height of the axes in points; 360 x 240 is a good size.
    pub size: (f32, f32),
}

/// The figure of a chart. Pairs that are not finite are left out, and break a line.
pub fn chart(chart: &Chart) -> Result<Figure> {
    let place = |name: &str| Place { element: Some(name.to_owned()), ..Place::default() };
    for series in &chart.series {
        if series.x.len() != series.y.len() {
            let found = format!("{} x and {} y", series.x.len(), series.y.len());
            return Err(Error::invalid(place(&series.name), found, "a series has as many of both"));
        }
        for (axis, values) in [(&chart.x, &series.x), (&chart.y, &series.y)] {
            if let Some(value) = values.iter().find(|v| axis.log && **v <= 0.0) {
                return Err(Error::invalid(place(&series.name), value.to_string(), "a logarithmic axis shows values above 0 only"));
            }
        }
    }
    let (w, h) = sides(chart.size)?;
    let pairs = || chart.series.iter().flat_map(|s| s.x.iter().copied().zip(s.y.iter().copied())).filter(finite);
    let x = Scale::around(pairs().map(|p| p.0).chain(chart.x.holds.iter().copied()), 0.05, chart.x.log);
    let y = Scale::around(pairs().map(|p| p.1).chain(chart.y.holds.iter().copied()), 0.06, chart.y.log);
    let (Some(x), Some(y), true) = (x, y, pairs().next().is_some()) else {
        return Err(Error::invalid(place(&chart.title), "no finite point", "a chart needs at least one"));
    };
    let (x, y) = (from_zero(x, &chart.x, pairs().map(|p| p.0)), from_zero(y, &chart.y, pairs().map(|p| p.1)));
    let fonts = Fonts::open()?;
    let palette = categorical(chart.series.len());
    let colors: Vec<Rgb> = chart.series.iter().zip(palette).map(|(s, next)| s.color.unwrap_or(next)).collect();
    let entries: Vec<(String, Rgb)> = chart.series.iter().map(|s| s.name.clone()).zip(colors.iter().copied()).collect();
    let names = (entries.len() > 1).then(|| Names::new(&entries, h, &fonts));
    let left = left_margin(&y, h, &chart.y.label, &fonts);
    let top = if chart.title.is_empty() { 14.0 } else { 30.0 };
    let right = 18.0 + names.as_ref().map_or(0.0, Names::width);
    let about = if chart.title.is_empty() { format!("{} against {}", chart.y.label, chart.x.label) } else { chart.title.clone() };
    let mut figure = Figure::new(left + w + right, top + h + bottom_margin(&chart.x.label), about);
    let area = Area::new(left, top, w, h);
    let axes = Axes { area, x, y };
    axes.grid(&mut figure);
    for (series, color) in chart.series.iter().zip(colors) {
        draw(&mut figure, &axes, series, color);
    }
    axes.left(&mut figure, &chart.y.label, &fonts);
    axes.bottom(&mut figure, &chart.x.label, &fonts);
    axes.title(&mut figure, &chart.title, w + left, &fonts);
    if let Some(names) = names {
        names.draw(&mut figure, &area);
    }
    Ok(figure)
}

fn finite(pair: &(f64, f64)) -> bool {
    pair.0.is_finite() && pair.1.is_finite()
}

/// The sides of the axes, checked.
pub(crate) fn sides((w, h): (f32, f32)) -> Result<(f32, f32)> {
    if (20.0..=7200.0).contains(&w) && (20.0..=7200.0).contains(&h) {
        Ok((w, h))
    } else {
        Err(Error::option("size", format!("{w} x {h} points"), "the sides lie between 20 and 7200 points"))
    }
}

/// An axis that must show 0 and has only values of 0 or more starts exactly there.
pub(crate) fn from_zero(scale: Scale, axis: &Axis, mut values: impl Iterator<Item = f64>) -> Scale {
    let zero = !axis.log && axis.holds.contains(&0.0) && scale.low < 0.0 && values.all(|v| v >= 0.0);
    if zero { Scale { low: 0.0, ..scale } } else { scale }
}

fn draw(figure: &mut Figure, axes: &Axes, series: &Series, color: Rgb) {
    let pairs: Vec<(f64, f64)> = series.x.iter().copied().zip(series.y.iter().copied()).collect();
    if series.mark != Mark::Points {
        for run in pairs.split(|p| !finite(p)).filter(|run| run.len() > 1) {
            figure.line(run.iter().map(|(x, y)| axes.at(*x, *y)).collect(), color, 1.6);
        }
    }
    if series.mark != Mark::Line {
        let discs = pairs.iter().filter(|p| finite(p)).map(|(x, y)| {
            let [x, y] = axes.at(*x, *y);
            Disc { x, y, color }
        });
        let radius = if pairs.len() > 500 { 1.2 } else { 2.8 };
        // A disc on the rim of the axes is drawn whole.
        let area = Area::new(axes.area.x - 4.0, axes.area.y - 4.0, axes.area.width + 8.0, axes.area.height + 8.0);
        figure.push(Item::Discs { area, discs: discs.collect(), radius, opacity: 1.0 });
    }
}

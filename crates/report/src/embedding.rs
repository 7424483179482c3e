//! Cells on an embedding (UMAP, PCA, any `obsm`), one panel for each colour, after `scanpy.pl.embedding`.

use cellmill_matrix::{Error, Place, Result};

use crate::axes::{Axes, LABEL_SIZE, LINE, TICK_SIZE, TITLE_SIZE};
use crate::color::Rgb;
use crate::colormap::Colormap;
use crate::discs::{Disc, shuffled};
use crate::figure::{Anchor, Area, Figure, INK, Item, Stroke, Text};
use crate::font::Fonts;
use crate::legend::{self, Names};
use crate::palette::{MISSING, categorical};
use crate::ticks::Scale;

/// What cells are coloured by.
#[derive(Clone, Debug)]
pub enum Colour<'a> {
    /// All cells alike, in scanpy's light gray.
    Plain,
    /// A categorical column.
    Categories {
        /// Each cell's category: (n_obs,), -1 where it is missing.
        codes: &'a [i32],
        /// The categories' names: (n_categories,).
        names: &'a [String],
        /// The categories' colours, for example from `uns`; scanpy's when `None`.
        palette: Option<Vec<Rgb>>,
    },
    /// A number a cell: (n_obs,). NaN and infinite values are missing.
    Values(&'a [f64]),
}

/// Where the names of categories go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Legend {
    /// Beside the axes, in columns.
    #[default]
    RightMargin,
    /// At the median of each category's cells.
    OnData,
    /// Nowhere.
    None,
}

/// What is drawn around the cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frame {
    /// Two short lines in the lower left corner with the axes' names.
    #[default]
    Corner,
    /// A box, with the axes' names below it and on its left.
    Box,
    /// Nothing.
    None,
}

/// One panel of the figure.
#[derive(Clone, Debug)]
pub struct Panel<'a> {
    /// The title; scanpy's is the colour's key.
    pub title: String,
    /// The cells' colours.
    pub colour: Colour<'a>,
    /// The values at the ends of the colour bar; the lowest and highest when `None`. Values beyond them take the end's colour.
    pub range: Option<(f64, f64)>,
}

impl<'a> Panel<'a> {
    /// A panel with its key as the title.
    pub fn new(title: impl Into<String>, colour: Colour<'a>) -> Self {
        Panel { title: title.into(), colour, range: None }
    }
}

/// How an embedding is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingOptions {
    /// Panels side by side. Default 4, as in scanpy.
    pub columns: usize,
    /// Width and height of a panel's axes in points. Default 288 x 288 (4 inches).
    pub panel: (f32, f32),
    /// Area of a point in square points, matplotlib's `s`. Default `None`: see [`point_size`].
    pub size: Option<f32>,
    /// Where the names of categories go. Default: right margin.
    pub legend: Legend,
    /// What is drawn around the cells. Default: a corner.
    pub frame: Frame,
    /// Colours of continuous values. Default: viridis.
    pub colormap: Colormap,
}

impl Default for EmbeddingOptions {
    fn default() -> Self {
        EmbeddingOptions {
            columns: 4,
            panel: (288.0, 288.0),
            size: None,
            legend: Legend::default(),
            frame: Frame::default(),
            colormap: Colormap::default(),
        }
    }
}

/// Area of a point in square points for `n` cells: scanpy's 120000 / n, between 0.1 and 80 (a diameter of 10 points), so
/// that few cells are no blobs. Where that is less than a pixel wide, a pixel is drawn.
pub fn point_size(n: usize) -> f32 {
    (120_000.0 / n.max(1) as f32).clamp(0.1, 80.0)
}

/// What scanpy writes on the axes of an embedding: `X_umap` or `umap` gives `UMAP`, `X_pca` gives `PC`.
pub fn axis_name(key: &str) -> String {
    // scanpy.plotting._tools.scatterplots._basis2name
    let basis = key.strip_prefix("X_").unwrap_or(key);
    match basis {
        "umap" => "UMAP".to_owned(),
        "pca" => "PC".to_owned(),
        "tsne" => "tSNE".to_owned(),
        "diffmap" => "DC".to_owned(),
        _ if basis.contains("draw_graph") => basis.replace("draw_graph_", "").to_uppercase(),
        _ => basis.to_owned(),
    }
}

/// A panel's colours, ready to draw.
struct Painted {
    /// One colour a cell.
    colors: Vec<Rgb>,
    /// Cells in the order in which they are drawn.
    order: Vec<u32>,
    side: Side,
}

/// What stands at the right of a panel.
enum Side {
    Nothing,
    Names(Names),
    Bar(Scale),
}

/// The figure of an embedding.
///
/// `coordinates` holds a row of `width` numbers for each cell (`obsm[key]`, C order), of which `dims` are drawn (0-based);
/// `key` names the embedding. Cells with a coordinate that is not finite are left out. Missing cells are drawn first;
/// categories in a fixed random order, so that none hides another; values from low to high, as scanpy does.
pub fn embedding(
    coordinates: &[f32],
    width: usize,
    dims: [usize; 2],
    key: &str,
    panels: &[Panel<'_>],
    options: &EmbeddingOptions,
) -> Result<Figure> {
    let place = || Place { element: Some(format!("obsm/{key}")), ..Place::default() };
    if width == 0 || !coordinates.len().is_multiple_of(width) {
        let found = format!("{} numbers in rows of {width}", coordinates.len());
        return Err(Error::invalid(place(), found, "an embedding has whole rows"));
    }
    if let Some(dim) = dims.iter().find(|d| **d >= width) {
        return Err(Error::invalid(place(), format!("dimension {}", dim + 1), format!("the embedding has {width}")));
    }
    let n = coordinates.len() / width;
    if n >= u32::MAX as usize {
        return Err(Error::invalid(place(), format!("{n} cells"), "a figure shows fewer than 4294967295"));
    }
    if panels.is_empty() {
        return Err(Error::option("color", "nothing", "a figure has at least one panel"));
    }
    let (w, h) = options.panel;
    if !(20.0..=7200.0).contains(&w) || !(20.0..=7200.0).contains(&h) {
        return Err(Error::option("panel", format!("{w} x {h} points"), "the sides lie between 20 and 7200 points"));
    }
    if options.size.is_some_and(|s| !(s > 0.0 && s <= 1e6)) {
        return Err(Error::option("size", options.size.unwrap_or_default(), "a point's area lies between 0 and 1e6 square points"));
    }
    let at = |cell: usize, dim: usize| f64::from(coordinates[cell * width + dims[dim]]);
    let shown: Vec<bool> = (0..n).map(|cell| at(cell, 0).is_finite() && at(cell, 1).is_finite()).collect();
    let ends = |dim: usize| Scale::around((0..n).filter(|c| shown[*c]).map(|c| at(c, dim)), 0.05, false);
    let (Some(x), Some(y)) = (ends(0), ends(1)) else {
        let found = if n == 0 { "no cells".to_owned() } else { format!("{n} cells, none with finite coordinates") };
        return Err(Error::invalid(place(), found, "a plot needs at least one"));
    };
    let fonts = Fonts::open()?;
    let painted = panels.iter().map(|panel| paint(panel, n, &shown, options, &fonts)).collect::<Result<Vec<_>>>()?;

    // The grid: columns are as wide as their widest legend.
    let columns = options.columns.clamp(1, panels.len());
    let rows = panels.len().div_ceil(columns);
    let (left, bottom, top) = match options.frame {
        Frame::Box => (26.0, 26.0, 28.0),
        Frame::Corner => (20.0, 20.0, 28.0),
        Frame::None => (10.0, 10.0, 28.0),
    };
    let side = |painted: &Painted| match &painted.side {
        Side::Nothing => 0.0,
        Side::Names(names) => names.width(),
        Side::Bar(scale) => legend::bar_width(scale, h, &fonts),
    };
    let right: Vec<f32> = (0..columns).map(|c| painted.iter().skip(c).step_by(columns).map(side).fold(0.0, f32::max) + 12.0).collect();
    let page = right.iter().map(|r| left + w + r).sum::<f32>();
    let titles: Vec<&str> = panels.iter().map(|p| p.title.as_str()).filter(|t| !t.is_empty()).collect();
    let about = match titles.as_slice() {
        [] => format!("{} of {n} cells", axis_name(key)),
        titles => format!("{} of {n} cells, coloured by {}", axis_name(key), titles.join(", ")),
    };
    let mut figure = Figure::new(page, rows as f32 * (top + h + bottom), about);

    let radius = (options.size.unwrap_or_else(|| point_size(n))).sqrt() / 2.0;
    for (k, (panel, painted)) in panels.iter().zip(painted).enumerate() {
        let (row, column) = (k / columns, k % columns);
        let from: f32 = right[..column].iter().map(|r| left + w + r).sum();
        let area = Area::new(from + left, row as f32 * (top + h + bottom) + top, w, h);
        let axes = Axes { area, x, y };
        let spot = |cell: u32| axes.at(at(cell as usize, 0), at(cell as usize, 1));
        let discs = painted.order.iter().map(|&cell| {
            let [x, y] = spot(cell);
            Disc { x, y, color: painted.colors[cell as usize] }
        });
        figure.push(Item::Discs { area, discs: discs.collect(), radius, opacity: 1.0 });
        frame(&mut figure, &area, options.frame, key, dims);
        axes.title(&mut figure, &panel.title, w + right[column], &fonts);
        match &painted.side {
            Side::Nothing => {}
            Side::Names(names) => names.draw(&mut figure, &area),
            Side::Bar(scale) => legend::draw_bar(&mut figure, &area, scale, options.colormap),
        }
        if let (Colour::Categories { codes, names, .. }, Legend::OnData) = (&panel.colour, options.legend) {
            legend::on_data(&mut figure, &area, &medians(codes, names, &shown, spot), &fonts);
        }
    }
    Ok(figure)
}

/// Checks a panel's colours and finds each cell's, the order of drawing and what stands beside the axes.
fn paint(panel: &Panel<'_>, n: usize, shown: &[bool], options: &EmbeddingOptions, fonts: &Fonts) -> Result<Painted> {
    let place = || Place { element: Some(panel.title.clone()), ..Place::default() };
    let counted = |found: usize| {
        if found == n { Ok(()) } else { Err(Error::invalid(place(), format!("{found} colours"), format!("the embedding has {n} cells"))) }
    };
    let visible = |cell: &u32| shown[*cell as usize];
    match &panel.colour {
        Colour::Plain => {
            let order = (0..n as u32).filter(visible).collect();
            Ok(Painted { colors: vec![MISSING; n], order, side: Side::Nothing })
        }
        Colour::Categories { codes, names, palette } => {
            counted(codes.len())?;
            if let Some(cell) = codes.iter().position(|c| *c < -1 || *c >= names.len() as i32) {
                let found = format!("cell {cell} has code {}", codes[cell]);
                return Err(Error::invalid(place(), found, format!("there are {} categories; -1 is missing", names.len())));
            }
            let palette = match palette {
                None => categorical(names.len()),
                Some(own) if own.len() >= names.len() => own.clone(),
                Some(own) => {
                    return Err(Error::invalid(place(), format!("{} colours", own.len()), format!("there are {} categories", names.len())));
                }
            };
            let colors = codes.iter().map(|c| usize::try_from(*c).map_or(MISSING, |c| palette[c])).collect();
            let missing = |cell: &u32| codes[*cell as usize] < 0;
            let random = shuffled(n);
            let mut order: Vec<u32> = random.iter().copied().filter(missing).filter(visible).collect();
            let any_missing = !order.is_empty();
            order.extend(random.into_iter().filter(|cell| !missing(cell)).filter(visible));
            let mut entries: Vec<(String, Rgb)> = names.iter().cloned().zip(palette).collect();
            if any_missing {
                entries.push(("NA".to_owned(), MISSING));
            }
            let side = if options.legend == Legend::RightMargin && !entries.is_empty() {
                Side::Names(Names::new(&entries, options.panel.1, fonts))
            } else {
                Side::Nothing
            };
            Ok(Painted { colors, order, side })
        }
        Colour::Values(values) => {
            counted(values.len())?;
            let scale = value_scale(values, panel.range)
                .ok_or_else(|| Error::invalid(place(), "no finite value", "a colour bar needs at least one"))?;
            if !(scale.low < scale.high && scale.low.is_finite() && scale.high.is_finite()) {
                return Err(Error::option("range", format!("{} to {}", scale.low, scale.high), "the low end lies below the high end"));
            }
            let color = |v: &f64| if v.is_finite() { options.colormap.at(scale.part(*v)) } else { MISSING };
            let colors = values.iter().map(color).collect();
            // Sorted by value, missing ones first; a key of an order-preserving 32 bits above the cell's number.
            let mut keys: Vec<u64> = (0..n).filter(|c| shown[*c]).map(|c| (u64::from(rank(values[c])) << 32) | c as u64).collect();
            keys.sort_unstable();
            Ok(Painted { colors, order: keys.into_iter().map(|k| k as u32).collect(), side: Side::Bar(scale) })
        }
    }
}

/// The ends of a colour bar. Where all values are equal, the bar goes around them, and from 0 to 1 for zeros.
fn value_scale(values: &[f64], range: Option<(f64, f64)>) -> Option<Scale> {
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    let found = Scale::around(finite(), 0.0, false)?;
    let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    Some(match range {
        Some((low, high)) => Scale { low, high, log: false },
        None if low == 0.0 && high == 0.0 => Scale { low: 0.0, high: 1.0, log: false },
        None => found,
    })
}

/// 32 bits that sort as the value does; what is not finite sorts first.
fn rank(value: f64) -> u32 {
    if !value.is_finite() {
        return 0;
    }
    let bits = (value as f32).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 }
}

/// Each category that has cells, with the median of their places on the page.
fn medians(codes: &[i32], names: &[String], shown: &[bool], spot: impl Fn(u32) -> [f32; 2]) -> Vec<(String, [f32; 2])> {
    let mut places: Vec<(Vec<f32>, Vec<f32>)> = vec![(Vec::new(), Vec::new()); names.len()];
    for (cell, code) in codes.iter().enumerate() {
        if let (true, Ok(code)) = (shown[cell], usize::try_from(*code)) {
            let [x, y] = spot(cell as u32);
            places[code].0.push(x);
            places[code].1.push(y);
        }
    }
    let middle = |values: &mut Vec<f32>| {
        let half = values.len() / 2;
        *values.select_nth_unstable_by(half, f32::total_cmp).1
    };
    let named = names.iter().zip(&mut places).filter(|(_, (xs, _))| !xs.is_empty());
    named.map(|(name, (xs, ys))| (name.clone(), [middle(xs), middle(ys)])).collect()
}

fn frame(figure: &mut Figure, area: &Area, frame: Frame, key: &str, dims: [usize; 2]) {
    let name = axis_name(key);
    let [x_name, y_name] = dims.map(|d| format!("{name}{}", d + 1));
    match frame {
        Frame::None => {}
        Frame::Box => {
            figure.push(Item::Rect { area: *area, fill: None, stroke: Some(Stroke { color: INK, width: LINE }) });
            let (x, y) = (area.x + area.width / 2.0, area.y + area.height / 2.0);
            figure.text(Text::new(x_name, x, area.bottom() + 6.0 + 0.8 * LABEL_SIZE, LABEL_SIZE, Anchor::Middle));
            figure.text(Text::new(y_name, area.x - 7.0, y, LABEL_SIZE, Anchor::Middle).upwards());
        }
        Frame::Corner => {
            let length = (area.width.min(area.height) * 0.18).clamp(24.0, 60.0);
            let (x, y) = (area.x - 3.0, area.bottom() + 3.0);
            figure.line(vec![[x, y - length], [x, y], [x + length, y]], INK, LINE);
            figure.text(Text::new(x_name, x, y + 3.0 + 0.8 * TICK_SIZE, TICK_SIZE, Anchor::Start));
            figure.text(Text::new(y_name, x - 4.0, y, TICK_SIZE, Anchor::Start).upwards());
        }
    }
}

/// The title's height is part of a panel's upper margin.
const _: () = assert!(TITLE_SIZE < 21.0);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn axes_are_named_as_scanpy_names_them() {
        let known = [("X_umap", "UMAP"), ("X_pca", "PC"), ("X_tsne", "tSNE"), ("X_draw_graph_fa", "FA"), ("spatial", "spatial")];
        for (key, name) in known {
            assert_eq!(axis_name(key), name);
        }
    }

    proptest! {
        #[test]
        fn ranks_sort_as_values(a in -1e30_f32..1e30, b in -1e30_f32..1e30) {
            prop_assert_eq!(a.total_cmp(&b), rank(f64::from(a)).cmp(&rank(f64::from(b))));
            prop_assert!(rank(f64::NAN) < rank(f64::from(a)));
        }
    }
}

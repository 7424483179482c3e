//! Cells on an embedding (UMAP, PCA, any `obsm`), one panel for each colour, after `scanpy.pl.embedding`.

use cellmill_matrix::{Error, Place, Result};

use crate::axes::{Axes, LABEL_SIZE, LINE, TICK_SIZE, TITLE_SIZE};
use crate::color::Rgb;
use crate::colormap::Colormap;
use crate::discs::Disc;
use crate::figure::{Anchor, Area, Figure, INK, Item, Stroke, Text};
use crate::font::Fonts;
use crate::legend;
use crate::paint::{Painted, Side, paint};
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

    #[test]
    fn axes_are_named_as_scanpy_names_them() {
        let known = [("X_umap", "UMAP"), ("X_pca", "PC"), ("X_tsne", "tSNE"), ("X_draw_graph_fa", "FA"), ("spatial", "spatial")];
        for (key, name) in known {
            assert_eq!(axis_name(key), name);
        }
    }
}

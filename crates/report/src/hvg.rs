//! Dispersions of genes against their means, after `scanpy.pl.highly_variable_genes`.

use cellmill_matrix::{Error, Place, Result};

use crate::axes::{Axes, bottom_margin, left_margin};
use crate::color::Rgb;
use crate::discs::Disc;
use crate::figure::{Area, Figure, Item};
use crate::font::Fonts;
use crate::legend::Names;
use crate::ticks::Scale;

/// Genes that are not highly variable: scanpy's `grey`.
const OTHER: Rgb = Rgb::new(0x80, 0x80, 0x80);
/// Width and height of each panel's axes, in points.
const PANEL: (f32, f32) = (260.0, 240.0);

/// What the two panels show: one value a gene in each slice, (n_vars,).
#[derive(Clone, Copy, Debug)]
pub struct Hvg<'a> {
    /// `var['means']`.
    pub means: &'a [f64],
    /// `var['dispersions']`, or `var['variances']` with flavor `seurat_v3`.
    pub dispersions: &'a [f64],
    /// `var['dispersions_norm']`, or `var['variances_norm']`.
    pub dispersions_norm: &'a [f64],
    /// `var['highly_variable']`.
    pub highly_variable: &'a [bool],
    /// The axis' word: `dispersions` or `variances`.
    pub what: &'a str,
    /// Both axes logarithmic; genes with a mean or a dispersion of 0 or less are then left out.
    pub log: bool,
}

/// Two panels, normalised and not; black are the highly variable genes. Genes without a finite pair are left out.
pub fn hvg(genes: &Hvg<'_>) -> Result<Figure> {
    let n = genes.means.len();
    let place = || Place { element: Some("var".to_owned()), ..Place::default() };
    let lengths = [("dispersions", genes.dispersions.len()), ("dispersions_norm", genes.dispersions_norm.len())];
    for (name, found) in lengths.into_iter().chain([("highly_variable", genes.highly_variable.len())]) {
        if found != n {
            return Err(Error::invalid(place(), format!("{found} values of {name}"), format!("there are {n} means")));
        }
    }
    let fonts = Fonts::open()?;
    let (w, h) = PANEL;
    let chosen = genes.highly_variable.iter().filter(|h| **h).count();
    let entries = [(format!("highly variable genes ({chosen})"), Rgb::BLACK), (format!("other genes ({})", n - chosen), OTHER)];
    let names = Names::new(&entries, h, &fonts);
    let x_label = "mean expressions of genes";
    let usable = |x: f64, y: f64| x.is_finite() && y.is_finite() && (!genes.log || (x > 0.0 && y > 0.0));
    let mut panels = Vec::new();
    for (values, kind) in [(genes.dispersions_norm, "normalized"), (genes.dispersions, "not normalized")] {
        let shown = || (0..n).filter(|g| usable(genes.means[*g], values[*g]));
        let x = Scale::around(shown().map(|g| genes.means[g]), 0.04, genes.log);
        let y = Scale::around(shown().map(|g| values[g]), 0.04, genes.log);
        let (Some(x), Some(y)) = (x, y) else {
            let found = format!("{n} genes, none with a mean and {} ({kind}) that can be drawn", genes.what);
            return Err(Error::invalid(place(), found, "a plot needs at least one"));
        };
        let label = format!("{} of genes ({kind})", genes.what);
        let left = left_margin(&y, h, &label, &fonts);
        panels.push((values, x, y, label, left));
    }
    let page = panels.iter().map(|p| p.4 + w + 16.0).sum::<f32>() + names.width();
    let about = format!("{} of {n} genes against their means, {chosen} of them highly variable", genes.what);
    let mut figure = Figure::new(page, 14.0 + h + bottom_margin(x_label), about);
    let mut from = 0.0;
    for (values, x, y, label, left) in panels {
        let area = Area::new(from + left, 14.0, w, h);
        let axes = Axes { area, x, y };
        let group = |wanted: bool, color: Rgb| {
            let axes = &axes;
            (0..n).filter(move |g| genes.highly_variable[*g] == wanted && usable(genes.means[*g], values[*g])).map(move |g| {
                let [x, y] = axes.at(genes.means[g], values[g]);
                Disc { x, y, color }
            })
        };
        let discs = group(false, OTHER).chain(group(true, Rgb::BLACK)).collect();
        let radius = if n <= 2000 { 1.2 } else { 0.8 };
        figure.push(Item::Discs { area, discs, radius, opacity: 1.0 });
        axes.left(&mut figure, &label, &fonts);
        axes.bottom(&mut figure, x_label, &fonts);
        from += left + w + 16.0;
        if from + names.width() >= page - 0.5 {
            names.draw(&mut figure, &area);
        }
    }
    Ok(figure)
}

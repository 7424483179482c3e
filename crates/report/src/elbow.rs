//! The part of the variance that each principal component holds, after `scanpy.pl.pca_variance_ratio`.

use cellmill_matrix::{Error, Place, Result};

use crate::axes::{Axes, bottom_margin, left_margin};
use crate::color::Rgb;
use crate::discs::Disc;
use crate::figure::{Anchor, Area, Figure, INK, Item, Text};
use crate::font::{Fonts, HALF_CAPITAL};
use crate::ticks::Scale;

/// Size of the components' names at their points, in points; and the width that one needs.
const NAME_SIZE: f32 = 8.0;
const STEP: f32 = 9.5;
/// Named components; of more, every second, third … has its name.
const MOST_NAMES: usize = 60;
const HEIGHT: f32 = 240.0;

/// Variance ratios of the first `n_pcs` components (`uns['pca']['variance_ratio']`, scanpy shows 30), on a logarithmic
/// axis when `log`. Each point carries its component's number.
pub fn pca_variance_ratio(ratio: &[f64], n_pcs: usize, log: bool) -> Result<Figure> {
    let place = || Place { element: Some("uns/pca/variance_ratio".to_owned()), ..Place::default() };
    let shown = &ratio[..n_pcs.min(ratio.len())];
    if let Some(pc) = shown.iter().position(|r| !r.is_finite() || *r < 0.0) {
        return Err(Error::invalid(place(), format!("PC{} has {}", pc + 1, shown[pc]), "a ratio is a number of 0 or more"));
    }
    let drawn = || shown.iter().copied().filter(|r| !log || *r > 0.0);
    let Some(tight) = Scale::around(drawn(), 0.0, log) else {
        return Err(Error::invalid(place(), "no component to draw", "a plot needs at least one"));
    };
    let fonts = Fonts::open()?;
    let n = shown.len();
    // The names stand on their points, so the axis goes on above the highest.
    let room = f64::from((fonts.width(&format!("PC{n}"), NAME_SIZE, false) + 8.0) / HEIGHT);
    let y = if log {
        let (low, high) = (tight.low.log10(), tight.high.log10());
        let length = high - low;
        Scale { low: 10_f64.powf(low - 0.04 * length), high: 10_f64.powf(high + room * length / (1.0 - room)), log }
    } else {
        let high = drawn().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        Scale { low: 0.0, high: high / (1.0 - room), log }
    };
    let x = Scale { low: -0.4, high: n as f64 + 0.9, log: false };
    let width = (STEP * n.min(MOST_NAMES) as f32 + 20.0).max(260.0);
    let (x_label, y_label) = ("ranking", if log { "variance ratio (log)" } else { "variance ratio" });
    let left = left_margin(&y, HEIGHT, y_label, &fonts);
    let page = (left + width + 14.0, 14.0 + HEIGHT + bottom_margin(x_label));
    let mut figure = Figure::new(page.0, page.1, format!("Variance ratios of {n} principal components"));
    let axes = Axes { area: Area::new(left, 14.0, width, HEIGHT), x, y };
    axes.left(&mut figure, y_label, &fonts);
    axes.bottom(&mut figure, x_label, &fonts);
    let places: Vec<(usize, [f32; 2])> =
        shown.iter().enumerate().filter(|(_, r)| !log || **r > 0.0).map(|(k, r)| (k + 1, axes.at((k + 1) as f64, *r))).collect();
    figure.line(places.iter().map(|(_, at)| *at).collect(), Rgb::new(0xc8, 0xd0, 0xd8), 1.0);
    let every = n.div_ceil(MOST_NAMES);
    for (pc, [x, y]) in places.iter().filter(|(pc, _)| (pc - 1) % every == 0) {
        let mut name = Text::new(format!("PC{pc}"), x + HALF_CAPITAL * NAME_SIZE, y - 5.0, NAME_SIZE, Anchor::Start).upwards();
        name.halo = 1.5;
        figure.text(name);
    }
    let discs = places.iter().map(|(_, [x, y])| Disc { x: *x, y: *y, color: INK }).collect();
    figure.push(Item::Discs { area: axes.area, discs, radius: 1.8, opacity: 1.0 });
    Ok(figure)
}

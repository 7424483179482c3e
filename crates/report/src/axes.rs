//! A pair of axes with ticks, labels and, if wanted, a light grid.

use crate::color::Rgb;
use crate::figure::{Anchor, Area, Figure, INK, Text};
use crate::font::{Fonts, HALF_CAPITAL};
use crate::ticks::{Scale, Tick};

/// Size of tick labels, axis labels and titles, in points: matplotlib's 10, 10 and 12, the ticks a little smaller.
pub(crate) const TICK_SIZE: f32 = 9.0;
pub(crate) const LABEL_SIZE: f32 = 10.0;
pub(crate) const TITLE_SIZE: f32 = 12.0;
/// Width of axes and ticks, in points.
pub(crate) const LINE: f32 = 0.8;
/// Lengths of major and minor ticks, and the space between a tick and its label.
const TICK: f32 = 3.5;
const MINOR: f32 = 2.0;
const GAP: f32 = 3.0;
/// The grid's gray.
const GRID: Rgb = Rgb::new(0xe6, 0xe6, 0xe6);

/// Where values lie on the page.
pub(crate) struct Axes {
    pub area: Area,
    pub x: Scale,
    pub y: Scale,
}

/// Ticks of a vertical axis so many points high.
pub(crate) fn vertical_ticks(scale: &Scale, height: f32) -> Vec<Tick> {
    scale.ticks((height / 34.0) as usize)
}

/// Ticks of a horizontal axis so many points wide.
pub(crate) fn horizontal_ticks(scale: &Scale, width: f32) -> Vec<Tick> {
    scale.ticks((width / 52.0) as usize)
}

/// Width of the widest label.
pub(crate) fn widest(ticks: &[Tick], fonts: &Fonts) -> f32 {
    ticks.iter().map(|t| fonts.width(&t.label, TICK_SIZE, false)).fold(0.0, f32::max)
}

/// Space that a vertical axis needs on its left: labels of ticks, and its own label when it has one.
pub(crate) fn left_margin(scale: &Scale, height: f32, label: &str, fonts: &Fonts) -> f32 {
    let own = if label.is_empty() { 0.0 } else { LABEL_SIZE + 6.0 };
    widest(&vertical_ticks(scale, height), fonts) + TICK + GAP + own + 8.0
}

/// Space that a horizontal axis needs below it.
pub(crate) fn bottom_margin(label: &str) -> f32 {
    let own = if label.is_empty() { 0.0 } else { LABEL_SIZE + 6.0 };
    TICK + GAP + TICK_SIZE + own + 8.0
}

impl Axes {
    /// Where a pair of values lies on the page, in points.
    pub(crate) fn at(&self, x: f64, y: f64) -> [f32; 2] {
        let part = |v: f64| v.clamp(-10.0, 11.0) as f32;
        [self.area.x + part(self.x.part(x)) * self.area.width, self.area.bottom() - part(self.y.part(y)) * self.area.height]
    }

    /// Light lines at the labelled ticks; goes under the data.
    pub(crate) fn grid(&self, figure: &mut Figure) {
        for tick in horizontal_ticks(&self.x, self.area.width).iter().filter(|t| !t.label.is_empty()) {
            let x = self.at(tick.value, self.y.low)[0];
            figure.line(vec![[x, self.area.y], [x, self.area.bottom()]], GRID, LINE);
        }
        self.rows(figure);
    }

    /// Only the grid's horizontal lines.
    pub(crate) fn rows(&self, figure: &mut Figure) {
        for tick in vertical_ticks(&self.y, self.area.height).iter().filter(|t| !t.label.is_empty()) {
            let y = self.at(self.x.low, tick.value)[1];
            figure.line(vec![[self.area.x, y], [self.area.right(), y]], GRID, LINE);
        }
    }

    /// The left axis with its ticks and label.
    pub(crate) fn left(&self, figure: &mut Figure, label: &str, fonts: &Fonts) {
        let ticks = vertical_ticks(&self.y, self.area.height);
        let x = self.area.x;
        for tick in &ticks {
            let y = self.at(self.x.low, tick.value)[1];
            let length = if tick.label.is_empty() { MINOR } else { TICK };
            figure.line(vec![[x - length, y], [x, y]], INK, LINE);
            figure.text(Text::new(&tick.label, x - TICK - GAP, y + HALF_CAPITAL * TICK_SIZE, TICK_SIZE, Anchor::End));
        }
        figure.line(vec![[x, self.area.y], [x, self.area.bottom() + LINE / 2.0]], INK, LINE);
        let left = x - TICK - GAP - widest(&ticks, fonts) - 6.0;
        let label = fonts.fit(label, LABEL_SIZE, false, self.area.height + 30.0);
        figure.text(Text::new(label, left, self.area.y + self.area.height / 2.0, LABEL_SIZE, Anchor::Middle).upwards());
    }

    /// The bottom axis with its ticks and label.
    pub(crate) fn bottom(&self, figure: &mut Figure, label: &str, fonts: &Fonts) {
        let y = self.area.bottom();
        for tick in horizontal_ticks(&self.x, self.area.width) {
            let x = self.at(tick.value, self.y.low)[0];
            let length = if tick.label.is_empty() { MINOR } else { TICK };
            figure.line(vec![[x, y], [x, y + length]], INK, LINE);
            figure.text(Text::new(&tick.label, x, y + TICK + GAP + 0.8 * TICK_SIZE, TICK_SIZE, Anchor::Middle));
        }
        self.floor(figure);
        let below = y + TICK + GAP + TICK_SIZE + 6.0 + 0.8 * LABEL_SIZE;
        let label = fonts.fit(label, LABEL_SIZE, false, self.area.width + 30.0);
        figure.text(Text::new(label, self.area.x + self.area.width / 2.0, below, LABEL_SIZE, Anchor::Middle));
    }

    /// The bottom axis as a bare line.
    pub(crate) fn floor(&self, figure: &mut Figure) {
        let y = self.area.bottom();
        figure.line(vec![[self.area.x - LINE / 2.0, y], [self.area.right(), y]], INK, LINE);
    }

    /// A title over the axes, cut to `limit` points.
    pub(crate) fn title(&self, figure: &mut Figure, title: &str, limit: f32, fonts: &Fonts) {
        let title = fonts.fit(title, TITLE_SIZE, false, limit);
        figure.text(Text::new(title, self.area.x + self.area.width / 2.0, self.area.y - 7.0, TITLE_SIZE, Anchor::Middle));
    }
}

//! Legends: names with their colours at the right margin, or at their cells; and the colour bar of a value.

use crate::axes::{LINE, TICK_SIZE, vertical_ticks, widest};
use crate::color::Rgb;
use crate::colormap::Colormap;
use crate::discs::Disc;
use crate::figure::{Anchor, Area, Figure, INK, Item, Stroke, Text};
use crate::font::{Fonts, HALF_CAPITAL};
use crate::ticks::Scale;

/// Space between the axes and a legend or colour bar, in points.
const GAP: f32 = 10.0;
/// Width of a colour bar.
const BAR: f32 = 10.0;
/// Space between a disc and its name, and between columns.
const PAD: f32 = 5.0;
const BETWEEN: f32 = 12.0;

/// The most names of a legend; after them it says how many more there are.
const MOST: usize = 240;

/// A name as it is drawn, the whole name where that is cut, and its colour.
struct Entry {
    name: String,
    whole: Option<String>,
    color: Rgb,
}

/// Names and their colours in columns, laid out for axes of a given height.
pub(crate) struct Names {
    entries: Vec<Entry>,
    columns: Vec<f32>,
    rows: usize,
    size: f32,
    line: f32,
}

impl Names {
    /// Lays the names out. Columns are scanpy's (one up to 14 names, two up to 30, else three) unless their rows would be
    /// higher than the axes; then there are more columns, of smaller letters.
    pub(crate) fn new(entries: &[(String, Rgb)], height: f32, fonts: &Fonts) -> Self {
        let rest = entries.len().saturating_sub(MOST);
        let n = entries.len().min(MOST) + usize::from(rest > 0);
        let size: f32 = match n {
            0..=30 => 10.0,
            31..=60 => 9.0,
            _ => 8.0,
        };
        let line = size * 1.45;
        let wanted = match n {
            0..=14 => 1,
            15..=30 => 2,
            _ => 3,
        };
        let fit = ((height / line) as usize).max(1);
        let columns = wanted.max(n.div_ceil(fit)).max(1);
        let rows = n.div_ceil(columns).max(1);
        let limit = match columns {
            1 => 240.0,
            2 => 180.0,
            _ => 130.0,
        };
        let mut kept: Vec<Entry> = entries
            .iter()
            .take(MOST)
            .map(|(name, color)| {
                let cut = fonts.fit(name, size, false, limit);
                let whole = (cut != *name).then(|| name.clone());
                Entry { name: cut, whole, color: *color }
            })
            .collect();
        if rest > 0 {
            kept.push(Entry { name: format!("… {rest} more"), whole: None, color: Rgb::WHITE });
        }
        let entries = kept;
        let width = |column: &[Entry]| column.iter().map(|e| fonts.width(&e.name, size, false)).fold(0.0, f32::max);
        let columns = entries.chunks(rows).map(|column| size * 0.8 + PAD + width(column)).collect();
        Names { entries, columns, rows, size, line }
    }

    /// Space that the legend needs to the right of the axes.
    pub(crate) fn width(&self) -> f32 {
        GAP + self.columns.iter().sum::<f32>() + BETWEEN * (self.columns.len().max(1) - 1) as f32
    }

    /// Height of its rows.
    pub(crate) fn height(&self) -> f32 {
        self.rows as f32 * self.line
    }

    /// Draws it right of `axes`, in the middle of its height.
    pub(crate) fn draw(&self, figure: &mut Figure, axes: &Area) {
        let top = axes.y + (axes.height - self.height()) / 2.0;
        let radius = self.size * 0.36;
        let mut left = axes.right() + GAP;
        let mut discs = Vec::with_capacity(self.entries.len());
        for (column, width) in self.entries.chunks(self.rows).zip(&self.columns) {
            for (row, entry) in column.iter().enumerate() {
                let y = top + (row as f32 + 0.5) * self.line;
                discs.push(Disc { x: left + radius, y, color: entry.color });
                let x = left + self.size * 0.8 + PAD;
                let mut text = Text::new(&entry.name, x, y + HALF_CAPITAL * self.size, self.size, Anchor::Start);
                text.whole.clone_from(&entry.whole);
                figure.text(text);
            }
            left += width + BETWEEN;
        }
        let area = Area::new(axes.right(), top.min(axes.y), left - axes.right(), self.height().max(axes.height));
        figure.push(Item::Discs { area, discs, radius, opacity: 1.0 });
    }
}

/// Space that a colour bar needs to the right of the axes.
pub(crate) fn bar_width(scale: &Scale, height: f32, fonts: &Fonts) -> f32 {
    GAP + BAR + 6.5 + widest(&vertical_ticks(scale, height), fonts)
}

/// Draws the colour bar of `scale` right of `axes`.
pub(crate) fn draw_bar(figure: &mut Figure, axes: &Area, scale: &Scale, colormap: Colormap) {
    let area = Area::new(axes.right() + GAP, axes.y, BAR, axes.height);
    let colors = (0..256).map(|k| colormap.at((f64::from(k) + 0.5) / 256.0)).collect();
    figure.push(Item::Ramp { area, colors });
    figure.push(Item::Rect { area, fill: None, stroke: Some(Stroke { color: INK, width: LINE * 0.75 }) });
    for tick in vertical_ticks(scale, area.height) {
        let y = area.bottom() - scale.part(tick.value) as f32 * area.height;
        let length = if tick.label.is_empty() { 2.0 } else { 3.5 };
        figure.line(vec![[area.right(), y], [area.right() + length, y]], INK, LINE);
        let x = area.right() + 6.5;
        figure.text(Text::new(tick.label, x, y + HALF_CAPITAL * TICK_SIZE, TICK_SIZE, Anchor::Start));
    }
}

/// Names at their places in the axes, bold with a white outline, pushed apart where they would lie over each other.
pub(crate) fn on_data(figure: &mut Figure, axes: &Area, names: &[(String, [f32; 2])], fonts: &Fonts) {
    let size: f32 = match names.len() {
        0..=30 => 10.0,
        31..=60 => 9.0,
        _ => 8.0,
    };
    let names: Vec<(String, [f32; 2])> =
        names.iter().map(|(name, place)| (fonts.fit(name, size, true, axes.width * 0.45), *place)).collect();
    let mut boxes: Vec<Area> = names
        .iter()
        .map(|(name, [x, y])| {
            let width = fonts.width(name, size, true) + 2.0;
            Area::new(x - width / 2.0, y - size * 0.55, width, size * 1.1)
        })
        .collect();
    push_apart(&mut boxes, axes);
    for ((name, _), area) in names.iter().zip(&boxes) {
        let y = area.y + area.height / 2.0 + HALF_CAPITAL * size;
        let mut text = Text::new(name, area.x + area.width / 2.0, y, size, Anchor::Middle);
        (text.bold, text.halo, text.color) = (true, 2.5, Rgb::BLACK);
        figure.text(text);
    }
}

/// Moves overlapping boxes apart along the shorter way, both by half, at most 200 times; they stay within `axes`.
fn push_apart(boxes: &mut [Area], axes: &Area) {
    for _ in 0..200 {
        let mut moved = false;
        for i in 0..boxes.len() {
            for j in i + 1..boxes.len() {
                let (a, b) = (boxes[i], boxes[j]);
                if !a.overlaps(&b) {
                    continue;
                }
                moved = true;
                let centre = |area: &Area| (area.x + area.width / 2.0, area.y + area.height / 2.0);
                let ((ax, ay), (bx, by)) = (centre(&a), centre(&b));
                let across = (a.width + b.width) / 2.0 - (ax - bx).abs();
                let down = (a.height + b.height) / 2.0 - (ay - by).abs();
                if across < down {
                    let step = (across / 2.0 + 0.05) * if ax <= bx { 1.0 } else { -1.0 };
                    boxes[i].x -= step;
                    boxes[j].x += step;
                } else {
                    let step = (down / 2.0 + 0.05) * if ay <= by { 1.0 } else { -1.0 };
                    boxes[i].y -= step;
                    boxes[j].y += step;
                }
            }
        }
        for area in boxes.iter_mut() {
            area.x = area.x.min(axes.right() - area.width).max(axes.x);
            area.y = area.y.min(axes.bottom() - area.height).max(axes.y);
        }
        if !moved {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cellmill_matrix::Result;

    #[test]
    fn a_legend_is_never_higher_than_its_axes() -> Result<()> {
        let fonts = Fonts::open()?;
        for n in [1, 3, 14, 15, 30, 31, 60, 100, 200, 240, 10_000] {
            let entries: Vec<_> = (0..n).map(|k| (format!("cluster {k}"), Rgb::BLACK)).collect();
            let names = Names::new(&entries, 288.0, &fonts);
            assert!(names.height() <= 288.0, "{n} names: {}", names.height());
            assert!(names.columns.len() * names.rows >= n.min(MOST));
        }
        Ok(())
    }

    #[test]
    fn labels_are_pushed_apart() {
        let axes = Area::new(0.0, 0.0, 300.0, 300.0);
        let mut boxes = vec![Area::new(140.0, 150.0, 40.0, 11.0); 12];
        push_apart(&mut boxes, &axes);
        for i in 0..boxes.len() {
            for j in i + 1..boxes.len() {
                assert!(!boxes[i].overlaps(&boxes[j]), "{i} and {j}");
            }
        }
    }
}

//! A figure as data: what lies where on a page measured in points. PNG and SVG are two readings of it.

use std::path::Path;

use cellmill_matrix::{Error, Result};

use crate::color::Rgb;
use crate::discs::Disc;
use crate::{pixels, save, svg};

/// The ink of axes, ticks and text.
pub(crate) const INK: Rgb = Rgb::new(0x1a, 0x1a, 0x1a);

/// A rectangle on the page: points (1/72 inch), y down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Area {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

impl Area {
    pub(crate) fn new(x: f32, y: f32, width: f32, height: f32) -> Self {
        Area { x, y, width, height }
    }

    pub(crate) fn right(&self) -> f32 {
        self.x + self.width
    }

    pub(crate) fn bottom(&self) -> f32 {
        self.y + self.height
    }

    /// Whether two rectangles share more than an edge.
    pub(crate) fn overlaps(&self, other: &Area) -> bool {
        self.x < other.right() && other.x < self.right() && self.y < other.bottom() && other.y < self.bottom()
    }
}

/// A line's colour and width in points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stroke {
    pub color: Rgb,
    pub width: f32,
}

/// Which point of a line of text its position names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// One line of text.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub text: String,
    /// The anchor's place on the baseline.
    pub x: f32,
    pub y: f32,
    pub size: f32,
    pub anchor: Anchor,
    pub color: Rgb,
    pub bold: bool,
    /// Read upwards instead of to the right.
    pub upwards: bool,
    /// Width of a white outline behind the letters, in points; 0 for none.
    pub halo: f32,
    /// The whole text where `text` is cut; SVG shows it under the pointer.
    pub whole: Option<String>,
}

impl Text {
    /// Plain text in ink.
    pub(crate) fn new(text: impl Into<String>, x: f32, y: f32, size: f32, anchor: Anchor) -> Self {
        Text { text: text.into(), x, y, size, anchor, color: INK, bold: false, upwards: false, halo: 0.0, whole: None }
    }

    pub(crate) fn upwards(mut self) -> Self {
        self.upwards = true;
        self
    }
}

/// One thing on the page; later things lie over earlier ones.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A rectangle.
    Rect { area: Area, fill: Option<Rgb>, stroke: Option<Stroke> },
    /// Straight lines through points, closed when filled.
    Path { points: Vec<[f32; 2]>, fill: Option<Rgb>, stroke: Option<Stroke> },
    /// Many discs, drawn in their order and cut at `area`.
    Discs { area: Area, discs: Vec<Disc>, radius: f32, opacity: f32 },
    /// A colour bar, the first colour at the bottom.
    Ramp { area: Area, colors: Vec<Rgb> },
    /// Text.
    Text(Text),
}

/// A figure: its size in points, what it shows, and a sentence for those who can't see it.
#[derive(Clone, Debug)]
pub struct Figure {
    pub(crate) width: f32,
    pub(crate) height: f32,
    pub(crate) about: String,
    pub(crate) items: Vec<Item>,
}

impl Figure {
    /// A good resolution for screens and slides, dots an inch.
    pub const DPI: f32 = 150.0;

    /// An empty page.
    pub(crate) fn new(width: f32, height: f32, about: impl Into<String>) -> Self {
        Figure { width, height, about: about.into(), items: Vec::new() }
    }

    pub(crate) fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    pub(crate) fn text(&mut self, text: Text) {
        if !text.text.is_empty() {
            self.items.push(Item::Text(text));
        }
    }

    pub(crate) fn line(&mut self, points: Vec<[f32; 2]>, color: Rgb, width: f32) {
        self.items.push(Item::Path { points, fill: None, stroke: Some(Stroke { color, width }) });
    }

    /// Width and height in points (1/72 inch).
    pub fn size(&self) -> (f32, f32) {
        (self.width, self.height)
    }

    /// What the figure shows, in a sentence.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// The figure as a PNG of `dpi` dots an inch (20 to 1200), on white. Same figure, same bytes.
    pub fn render_png(&self, dpi: f32) -> Result<Vec<u8>> {
        pixels::render(self, dpi)
    }

    /// The figure as SVG: text and lines as vectors, many points as an embedded image of 300 dots an inch.
    pub fn render_svg(&self) -> Result<String> {
        svg::render(self, "")
    }

    /// Writes `path` as its ending says, `.png` (at `dpi`) or `.svg`. The file appears whole or not at all.
    pub fn save(&self, path: &Path, dpi: f32) -> Result<()> {
        let ending = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).unwrap_or_default();
        let bytes = match ending.as_str() {
            "png" => self.render_png(dpi)?,
            "svg" => self.render_svg()?.into_bytes(),
            _ => return Err(Error::option("output", path.display(), "a figure's file ends in .png or .svg")),
        };
        save::write(path, &bytes)
    }
}

//! The bundled font (DejaVu Sans, see `assets/LICENSE_DEJAVU`): widths of text for layout, outlines for rendering.

use ab_glyph::{Font, FontRef, OutlineCurve};
use cellmill_matrix::{Error, Result};
use tiny_skia::PathBuilder;

/// CSS families for SVG. Verdana has nearly the widths of DejaVu Sans, so layout holds where the font is not installed.
pub(crate) const FAMILIES: &str = "DejaVu Sans, Bitstream Vera Sans, Verdana, sans-serif";

/// Half the height of a capital, as a part of the size: text centred on a line has its baseline so far below it.
pub(crate) const HALF_CAPITAL: f32 = 0.36;

/// The two faces.
pub(crate) struct Fonts {
    regular: FontRef<'static>,
    bold: FontRef<'static>,
}

impl Fonts {
    /// Opens the bundled faces.
    pub(crate) fn open() -> Result<Self> {
        let face =
            |bytes: &'static [u8]| FontRef::try_from_slice(bytes).map_err(|e| Error::bug(format!("the bundled font can't be read: {e}")));
        Ok(Fonts {
            regular: face(include_bytes!("../assets/DejaVuSans.ttf"))?,
            bold: face(include_bytes!("../assets/DejaVuSans-Bold.ttf"))?,
        })
    }

    fn face(&self, bold: bool) -> &FontRef<'static> {
        if bold { &self.bold } else { &self.regular }
    }

    /// Width of one line of text at `size` points, in points.
    pub(crate) fn width(&self, text: &str, size: f32, bold: bool) -> f32 {
        self.glyphs(text, bold).1 * size
    }

    /// Each glyph with its pen position, and the width of all; both in ems.
    fn glyphs(&self, text: &str, bold: bool) -> (Vec<(ab_glyph::GlyphId, f32)>, f32) {
        let face = self.face(bold);
        let em = face.units_per_em().unwrap_or(2048.0);
        let mut pen = 0.0;
        let mut last = None;
        let mut out = Vec::with_capacity(text.len());
        for character in text.chars() {
            let id = face.glyph_id(character);
            if let Some(last) = last {
                pen += face.kern_unscaled(last, id) / em;
            }
            out.push((id, pen));
            pen += face.h_advance_unscaled(id) / em;
            last = Some(id);
        }
        (out, pen)
    }

    /// Adds the outline of a line of text to `path`: `place` takes points in ems (x to the right of the start, y up
    /// from the baseline) to where they go.
    pub(crate) fn outline(&self, text: &str, bold: bool, place: impl Fn(f32, f32) -> (f32, f32), path: &mut PathBuilder) {
        let face = self.face(bold);
        let em = face.units_per_em().unwrap_or(2048.0);
        for (id, pen) in self.glyphs(text, bold).0 {
            let Some(outline) = face.outline(id) else { continue };
            let put = |p: ab_glyph::Point| place(pen + p.x / em, p.y / em);
            let mut end: Option<ab_glyph::Point> = None;
            for curve in &outline.curves {
                let first = match curve {
                    OutlineCurve::Line(p, _) | OutlineCurve::Quad(p, ..) | OutlineCurve::Cubic(p, ..) => *p,
                };
                if end != Some(first) {
                    if end.is_some() {
                        path.close();
                    }
                    let (x, y) = put(first);
                    path.move_to(x, y);
                }
                end = Some(match *curve {
                    OutlineCurve::Line(_, p) => {
                        let (x, y) = put(p);
                        path.line_to(x, y);
                        p
                    }
                    OutlineCurve::Quad(_, a, p) => {
                        let ((ax, ay), (x, y)) = (put(a), put(p));
                        path.quad_to(ax, ay, x, y);
                        p
                    }
                    OutlineCurve::Cubic(_, a, b, p) => {
                        let ((ax, ay), (bx, by), (x, y)) = (put(a), put(b), put(p));
                        path.cubic_to(ax, ay, bx, by, x, y);
                        p
                    }
                });
            }
            if end.is_some() {
                path.close();
            }
        }
    }

    /// `text` on one line, cut in its middle (`CD4 mem…activated`) to be at most `limit` points wide.
    pub(crate) fn fit(&self, text: &str, size: f32, bold: bool, limit: f32) -> String {
        let text = one_line(text);
        if self.width(&text, size, bold) <= limit {
            return text;
        }
        let letters: Vec<char> = text.chars().collect();
        let cut = |keep: usize| {
            let head = keep.div_ceil(2);
            let tail = letters.len() - (keep - head);
            let head: String = letters[..head].iter().collect();
            let tail: String = letters[tail..].iter().collect();
            format!("{}…{}", head.trim_end(), tail.trim_start())
        };
        // The largest number of letters that fits; widths grow with it, but for a space that is trimmed.
        let (mut low, mut high) = (0, letters.len().saturating_sub(1));
        while low < high {
            let middle = (low + high).div_ceil(2);
            if self.width(&cut(middle), size, bold) <= limit { low = middle } else { high = middle - 1 }
        }
        cut(low)
    }
}

/// The text with line breaks and other control characters as spaces: what XML forbids never reaches a figure.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_dejavu() -> Result<()> {
        let fonts = Fonts::open()?;
        // DejaVu Sans: 'M' is 1767 of 2048 units wide, '0' 1303.
        assert!((fonts.width("M", 2048.0, false) - 1767.0).abs() < 1e-2);
        assert!((fonts.width("00", 2048.0, false) - 2606.0).abs() < 1e-2);
        assert!(fonts.width("abc", 10.0, true) > fonts.width("abc", 10.0, false));
        assert_eq!(fonts.width("", 10.0, false), 0.0);
        Ok(())
    }

    #[test]
    fn long_text_is_cut_in_the_middle() -> Result<()> {
        let fonts = Fonts::open()?;
        let name = "CD4-positive, alpha-beta memory T cell, CD45RO-positive, γδ";
        let cut = fonts.fit(name, 10.0, false, 120.0);
        assert!(fonts.width(&cut, 10.0, false) <= 120.0);
        assert!(cut.starts_with("CD4") && cut.ends_with("γδ") && cut.contains('…'), "{cut}");
        assert_eq!(fonts.fit("a\nb", 10.0, false, 120.0), "a b");
        assert_eq!(fonts.fit("WWWW", 10.0, false, 0.0), "…");
        Ok(())
    }
}

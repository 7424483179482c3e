//! A figure as SVG.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cellmill_matrix::{Error, Result};

use crate::figure::{Anchor, Area, Figure, Item, Stroke, Text};
use crate::font::FAMILIES;
use crate::pixels;

/// More discs than this become an embedded image.
const MOST_VECTORS: usize = 2000;
/// Resolution of that image, dots an inch.
const IMAGE_DPI: f32 = 300.0;
/// The most pixels that it may have; larger axes get a coarser image.
const MOST_PIXELS: f32 = 6.4e7;
/// Colour stops of a colour bar; between them the viewer interpolates.
const STOPS: usize = 33;

/// The whole document. `prefix` makes ids unique where several figures share a page.
pub(crate) fn render(figure: &Figure, prefix: &str) -> Result<String> {
    let mut out = String::new();
    write_figure(&mut out, figure, prefix).map_err(|e| match e {
        Failure::Format => Error::bug("formatting an SVG failed"),
        Failure::Image(e) => e,
    })?;
    Ok(out)
}

enum Failure {
    Format,
    Image(Error),
}

impl From<std::fmt::Error> for Failure {
    fn from(_: std::fmt::Error) -> Self {
        Failure::Format
    }
}

fn write_figure(out: &mut String, figure: &Figure, prefix: &str) -> Result<(), Failure> {
    let (w, h) = (number(figure.width), number(figure.height));
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
         width=\"{w}pt\" height=\"{h}pt\" viewBox=\"0 0 {w} {h}\" role=\"img\" font-family=\"{FAMILIES}\">"
    )?;
    writeln!(out, "<title>{}</title>", escape(&figure.about))?;
    writeln!(out, "<rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>")?;
    for (k, item) in figure.items.iter().enumerate() {
        write_item(out, item, &format!("{prefix}{k}"))?;
    }
    writeln!(out, "</svg>")?;
    Ok(())
}

fn write_item(out: &mut String, item: &Item, id: &str) -> Result<(), Failure> {
    match item {
        Item::Rect { area, fill, stroke } => {
            write!(out, "<rect {}{}", place(area), filled(*fill))?;
            stroked(out, *stroke)?;
            writeln!(out, "/>")?;
        }
        Item::Path { points, fill, stroke } => {
            write!(out, "<path d=\"")?;
            for (k, [x, y]) in points.iter().enumerate() {
                write!(out, "{}{} {}", if k == 0 { "M" } else { "L" }, number(*x), number(*y))?;
            }
            write!(out, "{}\"{}", if fill.is_some() { "Z" } else { "" }, filled(*fill))?;
            stroked(out, *stroke)?;
            writeln!(out, "/>")?;
        }
        Item::Discs { area, discs, radius, opacity } if discs.len() > MOST_VECTORS => {
            let dpi = IMAGE_DPI.min(72.0 * (MOST_PIXELS / (area.width * area.height)).sqrt());
            let image = pixels::cloud(area, discs, *radius, *opacity, dpi).map_err(Failure::Image)?;
            write!(out, "<image {} preserveAspectRatio=\"none\" xlink:href=\"data:image/png;base64,", place(area))?;
            STANDARD.encode_string(image, out);
            writeln!(out, "\"/>")?;
        }
        Item::Discs { area, discs, radius, opacity } => {
            writeln!(out, "<clipPath id=\"clip{id}\"><rect {}/></clipPath>", place(area))?;
            writeln!(out, "<g clip-path=\"url(#clip{id})\" fill-opacity=\"{}\">", number(*opacity))?;
            for disc in discs {
                let (x, y, r) = (number(disc.x), number(disc.y), number(*radius));
                writeln!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"{}\"/>", disc.color)?;
            }
            writeln!(out, "</g>")?;
        }
        Item::Ramp { area, colors } => {
            writeln!(out, "<linearGradient id=\"ramp{id}\" x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\">")?;
            for stop in 0..STOPS {
                let t = stop as f32 / (STOPS - 1) as f32;
                let Some(color) = colors.get((t * (colors.len().max(1) - 1) as f32).round() as usize) else { continue };
                writeln!(out, "<stop offset=\"{}\" stop-color=\"{color}\"/>", number(t))?;
            }
            writeln!(out, "</linearGradient>")?;
            writeln!(out, "<rect {} fill=\"url(#ramp{id})\"/>", place(area))?;
        }
        Item::Text(text) => write_text(out, text)?,
    }
    Ok(())
}

fn write_text(out: &mut String, text: &Text) -> std::fmt::Result {
    let (x, y) = (number(text.x), number(text.y));
    if text.upwards {
        write!(out, "<text transform=\"translate({x} {y}) rotate(-90)\"")?;
    } else {
        write!(out, "<text x=\"{x}\" y=\"{y}\"")?;
    }
    write!(out, " font-size=\"{}\" fill=\"{}\"", number(text.size), text.color)?;
    match text.anchor {
        Anchor::Start => {}
        Anchor::Middle => write!(out, " text-anchor=\"middle\"")?,
        Anchor::End => write!(out, " text-anchor=\"end\"")?,
    }
    if text.bold {
        write!(out, " font-weight=\"bold\"")?;
    }
    if text.halo > 0.0 {
        let width = number(text.halo);
        write!(out, " paint-order=\"stroke\" stroke=\"#ffffff\" stroke-width=\"{width}\" stroke-linejoin=\"round\"")?;
    }
    let whole = text.whole.as_ref().map(|whole| format!("<title>{}</title>", escape(whole))).unwrap_or_default();
    writeln!(out, ">{whole}{}</text>", escape(&text.text))
}

fn place(area: &Area) -> String {
    let [x, y, w, h] = [area.x, area.y, area.width, area.height].map(number);
    format!("x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\"")
}

fn filled(fill: Option<crate::Rgb>) -> String {
    fill.map_or_else(|| " fill=\"none\"".to_owned(), |color| format!(" fill=\"{color}\""))
}

fn stroked(out: &mut String, stroke: Option<Stroke>) -> std::fmt::Result {
    match stroke {
        Some(stroke) => {
            write!(out, " stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"", stroke.color, number(stroke.width))
        }
        None => Ok(()),
    }
}

/// At most two decimals, without the zeros at the end: a hundredth of a point is less than a pixel on any screen.
fn number(value: f32) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Text as the content of an element or a quoted attribute of XML and HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [(1.0, "1"), (0.126, "0.13"), (-0.001, "0"), (100.0, "100"), (12.5, "12.5")] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn markup_in_names_is_text() {
        assert_eq!(escape("<b>\"T & B\"</b>'\u{0}\u{1b}"), "&lt;b&gt;&quot;T &amp; B&quot;&lt;/b&gt;&#39;  ");
    }
}

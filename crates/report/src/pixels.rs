//! A figure as pixels, and pixels as a PNG.

use cellmill_matrix::{Error, Result};
use tiny_skia::{Color, FillRule, LineCap, LineJoin, Paint, PathBuilder, Pixmap, Rect, Transform};

use crate::color::Rgb;
use crate::discs::{self, Raster, Window};
use crate::figure::{Anchor, Area, Figure, Item, Text};
use crate::font::Fonts;

/// The most pixels of one picture: 256 million, about a gigabyte.
const MOST_PIXELS: f64 = 2.56e8;

/// The figure at `dpi` dots an inch, as the bytes of a PNG.
pub(crate) fn render(figure: &Figure, dpi: f32) -> Result<Vec<u8>> {
    if !(20.0..=1200.0).contains(&dpi) {
        return Err(Error::option("dpi", dpi, "it lies between 20 and 1200"));
    }
    let scale = dpi / 72.0;
    let (width, height) = ((figure.width * scale).ceil(), (figure.height * scale).ceil());
    if f64::from(width) * f64::from(height) > MOST_PIXELS {
        let found = format!("{dpi} dots an inch make a picture of {width} x {height} pixels");
        return Err(Error::option("dpi", found, "a picture has at most 256 million pixels; use fewer dots an inch or fewer panels"));
    }
    let mut page = Pixmap::new(width as u32, height as u32).ok_or_else(|| Error::bug(format!("a page of {width} x {height}")))?;
    page.fill(Color::WHITE);
    let fonts = Fonts::open()?;
    for item in &figure.items {
        draw(&mut page, item, scale, &fonts);
    }
    // The page is opaque, so premultiplied colours are plain ones.
    let rgb: Vec<u8> = page.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    encode(&rgb, page.width(), page.height(), png::ColorType::Rgb, dpi)
}

/// The bytes of a PNG of 8 bits a channel.
fn encode(pixels: &[u8], width: u32, height: u32, color: png::ColorType, dpi: f32) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    let per_metre = (dpi / 0.0254).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter }));
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(pixels).and_then(|()| writer.finish()));
    written.map_err(|e| Error::bug(format!("a PNG of {width} x {height} pixels: {e}")))?;
    Ok(bytes)
}

/// The discs of a cloud alone, on nothing, as a PNG that fills `area`.
pub(crate) fn cloud(area: &Area, cloud: &[discs::Disc], radius: f32, opacity: f32, dpi: f32) -> Result<Vec<u8>> {
    let scale = dpi / 72.0;
    let (width, height) = ((area.width * scale).round().max(1.0) as usize, (area.height * scale).round().max(1.0) as usize);
    let mut pixels = vec![0; width * height * 4];
    let mut raster = Raster { pixels: &mut pixels, width, height };
    let window = Window { columns: (0, width), rows: (0, height) };
    discs::paint(&mut raster, window, cloud, radius, opacity, scale, [area.x, area.y]);
    // PNG's colours are not premultiplied.
    for pixel in pixels.chunks_exact_mut(4) {
        let alpha = u32::from(pixel[3]);
        if alpha > 0 && alpha < 255 {
            for channel in &mut pixel[..3] {
                *channel = ((u32::from(*channel) * 255 + alpha / 2) / alpha).min(255) as u8;
            }
        }
    }
    encode(&pixels, width as u32, height as u32, png::ColorType::Rgba, dpi)
}

fn draw(page: &mut Pixmap, item: &Item, scale: f32, fonts: &Fonts) {
    match item {
        Item::Rect { area, fill, stroke } => {
            let Some(rect) = Rect::from_xywh(area.x * scale, area.y * scale, area.width * scale, area.height * scale) else { return };
            let path = PathBuilder::from_rect(rect);
            if let Some(color) = fill {
                page.fill_path(&path, &paint(*color), FillRule::Winding, Transform::identity(), None);
            }
            if let Some(stroke) = stroke {
                page.stroke_path(&path, &paint(stroke.color), &pen(stroke.width * scale), Transform::identity(), None);
            }
        }
        Item::Path { points, fill, stroke } => {
            let mut builder = PathBuilder::new();
            for (k, [x, y]) in points.iter().enumerate() {
                if k == 0 { builder.move_to(x * scale, y * scale) } else { builder.line_to(x * scale, y * scale) }
            }
            if fill.is_some() {
                builder.close();
            }
            let Some(path) = builder.finish() else { return };
            if let Some(color) = fill {
                page.fill_path(&path, &paint(*color), FillRule::Winding, Transform::identity(), None);
            }
            if let Some(stroke) = stroke {
                page.stroke_path(&path, &paint(stroke.color), &pen(stroke.width * scale), Transform::identity(), None);
            }
        }
        Item::Discs { area, discs, radius, opacity } => {
            let (width, height) = (page.width() as usize, page.height() as usize);
            let pixel = |points: f32| (points * scale).round().max(0.0) as usize;
            let window = Window { columns: (pixel(area.x), pixel(area.right())), rows: (pixel(area.y), pixel(area.bottom())) };
            let mut raster = Raster { pixels: page.data_mut(), width, height };
            discs::paint(&mut raster, window, discs, *radius, *opacity, scale, [0.0, 0.0]);
        }
        Item::Ramp { area, colors } => ramp(page, area, colors, scale),
        Item::Text(text) => write(page, text, scale, fonts),
    }
}

/// A colour bar: each row of pixels takes the colour at its middle.
fn ramp(page: &mut Pixmap, area: &Area, colors: &[Rgb], scale: f32) {
    let (width, height) = (page.width() as usize, page.height() as usize);
    let pixel = |points: f32, most: usize| ((points * scale).round().max(0.0) as usize).min(most);
    let (left, right) = (pixel(area.x, width), pixel(area.right(), width));
    let (top, bottom) = (pixel(area.y, height), pixel(area.bottom(), height));
    if colors.is_empty() {
        return;
    }
    let rows = bottom.saturating_sub(top);
    for (k, y) in (top..bottom).enumerate() {
        let color = colors[((rows - 1 - k) * 2 + 1) * colors.len() / (rows * 2)];
        for pixel in page.data_mut()[(y * width + left) * 4..(y * width + right) * 4].chunks_exact_mut(4) {
            pixel.copy_from_slice(&[color.r, color.g, color.b, 255]);
        }
    }
}

fn write(page: &mut Pixmap, text: &Text, scale: f32, fonts: &Fonts) {
    let shift = match text.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => 0.5,
        Anchor::End => 1.0,
    };
    let start = -shift * fonts.width(&text.text, text.size, text.bold);
    let mut builder = PathBuilder::new();
    let place = |x: f32, y: f32| {
        let (along, up) = (start + x * text.size, y * text.size);
        let (x, y) = if text.upwards { (text.x - up, text.y - along) } else { (text.x + along, text.y - up) };
        (x * scale, y * scale)
    };
    fonts.outline(&text.text, text.bold, place, &mut builder);
    let Some(path) = builder.finish() else { return };
    if text.halo > 0.0 {
        page.stroke_path(&path, &paint(Rgb::WHITE), &pen(text.halo * scale), Transform::identity(), None);
    }
    page.fill_path(&path, &paint(text.color), FillRule::Winding, Transform::identity(), None);
}

fn paint(color: Rgb) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(color.r, color.g, color.b, 255);
    paint.anti_alias = true;
    paint
}

fn pen(width: f32) -> tiny_skia::Stroke {
    tiny_skia::Stroke { width, line_cap: LineCap::Butt, line_join: LineJoin::Round, ..tiny_skia::Stroke::default() }
}

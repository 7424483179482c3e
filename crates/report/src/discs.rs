//! Many small discs on a raster, with anti-aliased edges: the points of an embedding.
//!
//! A disc's coverage of pixels depends only on its radius and on where in a pixel its centre lies. So masks are made
//! once for a grid of such places, and each disc is one small blend. Two million discs take well under a second.

use crate::color::Rgb;

/// A point of a cloud: its centre on the page in points, and its colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Disc {
    pub x: f32,
    pub y: f32,
    pub color: Rgb,
}

/// Discs of less than half a pixel would fade; this is the smallest radius drawn, in pixels.
const SMALLEST: f32 = 0.5;

/// A raster of premultiplied RGBA, 8 bits a channel.
pub(crate) struct Raster<'a> {
    pub pixels: &'a mut [u8],
    pub width: usize,
    pub height: usize,
}

/// Pixels that may be painted: columns and rows, half-open.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub columns: (usize, usize),
    pub rows: (usize, usize),
}

/// Coverage masks of one disc radius, for `steps * steps` places of the centre in its pixel.
struct Masks {
    steps: usize,
    /// Pixels from the centre's pixel to the mask's edge; a mask is `2 * reach + 1` pixels square.
    reach: usize,
    /// Coverage times 255, one mask after another.
    coverage: Vec<u8>,
}

impl Masks {
    fn new(radius: f32, opacity: f32) -> Self {
        let steps = if radius < 8.0 { 8 } else { 4 };
        let reach = (radius + 0.5).ceil() as usize;
        let side = 2 * reach + 1;
        let mut coverage = Vec::with_capacity(steps * steps * side * side);
        for place in 0..steps * steps {
            let centre = |k: usize| reach as f32 + (k as f32 + 0.5) / steps as f32;
            let (cx, cy) = (centre(place % steps), centre(place / steps));
            for row in 0..side {
                for column in 0..side {
                    let part = if radius < 3.0 {
                        sampled(column as f32 - cx, row as f32 - cy, radius)
                    } else {
                        // Near a large disc's edge, coverage falls linearly over a pixel.
                        let (dx, dy) = (column as f32 + 0.5 - cx, row as f32 + 0.5 - cy);
                        (radius + 0.5 - (dx * dx + dy * dy).sqrt()).clamp(0.0, 1.0)
                    };
                    coverage.push((part * opacity * 255.0).round() as u8);
                }
            }
        }
        Masks { steps, reach, coverage }
    }
}

/// The part of the pixel with its corner at (x, y) that a disc at the origin covers, by 16 x 16 samples.
fn sampled(x: f32, y: f32, radius: f32) -> f32 {
    let inside = |k: usize, from: f32| from + (k as f32 + 0.5) / 16.0;
    let hits = (0..256).filter(|k| {
        let (dx, dy) = (inside(k % 16, x), inside(k / 16, y));
        dx * dx + dy * dy <= radius * radius
    });
    hits.count() as f32 / 256.0
}

/// Paints the discs in their order. `scale` is pixels a point, `origin` the page's point at the raster's corner.
pub(crate) fn paint(raster: &mut Raster, window: Window, discs: &[Disc], radius: f32, opacity: f32, scale: f32, origin: [f32; 2]) {
    let masks = Masks::new((radius * scale).max(SMALLEST), opacity);
    let (reach, steps) = (masks.reach as isize, masks.steps as f32);
    let side = 2 * masks.reach + 1;
    let columns = (window.columns.0 as isize, window.columns.1.min(raster.width) as isize);
    let rows = (window.rows.0 as isize, window.rows.1.min(raster.height) as isize);
    for disc in discs {
        let (x, y) = ((disc.x - origin[0]) * scale, (disc.y - origin[1]) * scale);
        let (px, py) = (x.floor(), y.floor());
        let step = |part: f32| ((part * steps) as usize).min(masks.steps - 1);
        let place = step(y - py) * masks.steps + step(x - px);
        let mask = &masks.coverage[place * side * side..(place + 1) * side * side];
        let (left, top) = ((px as isize).saturating_sub(reach), (py as isize).saturating_sub(reach));
        let from = columns.0.saturating_sub(left).clamp(0, side as isize) as usize;
        let to = columns.1.saturating_sub(left).clamp(0, side as isize) as usize;
        for (row, line) in mask.chunks_exact(side).enumerate() {
            let y = top.saturating_add(row as isize);
            if y < rows.0 || y >= rows.1 || from >= to {
                continue;
            }
            let start = (y as usize * raster.width + (left + from as isize) as usize) * 4;
            let pixels = raster.pixels[start..start + (to - from) * 4].chunks_exact_mut(4);
            for (pixel, &coverage) in pixels.zip(&line[from..to]) {
                over(pixel, disc.color, coverage);
            }
        }
    }
}

/// Porter-Duff "over" on premultiplied RGBA.
#[inline]
fn over(pixel: &mut [u8], color: Rgb, coverage: u8) {
    if coverage == 0 {
        return;
    }
    if coverage == 255 {
        pixel.copy_from_slice(&[color.r, color.g, color.b, 255]);
        return;
    }
    let (new, old) = (u32::from(coverage), 255 - u32::from(coverage));
    for (below, above) in pixel.iter_mut().zip([color.r, color.g, color.b, 255]) {
        let sum = u32::from(above) * new + u32::from(*below) * old + 127;
        *below = (sum / 255) as u8;
    }
}

/// Numbers 0..n in a fixed random order, so that no group of points lies above all others.
pub(crate) fn shuffled(n: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..n).rev() {
        let other = ((u128::from(splitmix(&mut state)) * (at as u128 + 1)) >> 64) as usize;
        order.swap(at, other);
    }
    order
}

/// splitmix64 (Steele, Lea and Flood 2014): the next of a fixed stream of 64 random bits.
pub(crate) fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_covers_the_area_of_its_disc() {
        for radius in [0.5_f32, 0.8, 1.7, 4.0, 12.0] {
            let masks = Masks::new(radius, 1.0);
            let side = 2 * masks.reach + 1;
            for mask in masks.coverage.chunks_exact(side * side) {
                let sum: f32 = mask.iter().map(|&c| f32::from(c) / 255.0).sum();
                let area = std::f32::consts::PI * radius * radius;
                assert!((sum - area).abs() < 0.03 * area + 0.02, "radius {radius}: {sum} is not {area}");
                let rim = (0..side).flat_map(|k| [mask[k], mask[k * side], mask[(side - 1) * side + k], mask[k * side + side - 1]]);
                assert!(rim.max() <= Some(255) && mask[masks.reach * side + masks.reach] > 0);
            }
        }
    }

    #[test]
    fn painting_stays_in_its_window_and_the_last_disc_is_on_top() {
        let mut pixels = vec![0; 20 * 20 * 4];
        let red = Rgb::new(255, 0, 0);
        let blue = Rgb::new(0, 0, 255);
        let discs: Vec<Disc> = [(10.0, 10.0, red), (10.0, 10.0, blue), (-30.0, 4.0, red), (1e9, -1e9, red), (5.0, 5.0, red)]
            .into_iter()
            .map(|(x, y, color)| Disc { x, y, color })
            .collect();
        let mut raster = Raster { pixels: &mut pixels, width: 20, height: 20 };
        paint(&mut raster, Window { columns: (5, 15), rows: (5, 15) }, &discs, 3.0, 1.0, 1.0, [0.0, 0.0]);
        let pixel = |x: usize, y: usize| &pixels[(y * 20 + x) * 4..][..4];
        assert_eq!(pixel(10, 10), [0, 0, 255, 255]);
        assert_eq!(pixel(5, 5), [255, 0, 0, 255]);
        assert_eq!(pixel(4, 5), [0, 0, 0, 0]);
        assert_eq!(pixel(5, 4), [0, 0, 0, 0]);
    }

    #[test]
    fn the_shuffle_is_a_permutation_and_fixed() {
        let mut order = shuffled(1000);
        assert_eq!(order, shuffled(1000));
        assert_ne!(order[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(k, &v)| k as u32 == v));
        assert!(shuffled(0).is_empty());
    }
}

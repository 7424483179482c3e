//! What a panel of an embedding gives each cell: its colour and its turn to be drawn.

use cellmill_matrix::{Error, Place, Result};

use crate::color::Rgb;
use crate::discs::shuffled;
use crate::embedding::{Colour, EmbeddingOptions, Legend, Panel};
use crate::font::Fonts;
use crate::legend::Names;
use crate::palette::{MISSING, categorical};
use crate::ticks::Scale;

/// A panel's colours, ready to draw.
pub(crate) struct Painted {
    /// One colour a cell.
    pub colors: Vec<Rgb>,
    /// Cells in the order in which they are drawn.
    pub order: Vec<u32>,
    pub side: Side,
}

/// What stands at the right of a panel.
pub(crate) enum Side {
    Nothing,
    Names(Names),
    Bar(Scale),
}

/// Checks a panel's colours and finds each cell's, the order of drawing and what stands beside the axes.
pub(crate) fn paint(panel: &Panel<'_>, n: usize, shown: &[bool], options: &EmbeddingOptions, fonts: &Fonts) -> Result<Painted> {
    let place = || Place { element: Some(panel.title.clone()), ..Place::default() };
    let counted = |found: usize| {
        if found == n { Ok(()) } else { Err(Error::invalid(place(), format!("{found} colours"), format!("the embedding has {n} cells"))) }
    };
    let visible = |cell: &u32| shown[*cell as usize];
    match &panel.colour {
        Colour::Plain => {
            let order = (0..n as u32).filter(visible).collect();
            Ok(Painted { colors: vec![MISSING; n], order, side: Side::Nothing })
        }
        Colour::Categories { codes, names, palette } => {
            counted(codes.len())?;
            if let Some(cell) = codes.iter().position(|c| *c < -1 || *c >= names.len() as i32) {
                let found = format!("cell {cell} has code {}", codes[cell]);
                return Err(Error::invalid(place(), found, format!("there are {} categories; -1 is missing", names.len())));
            }
            let palette = match palette {
                None => categorical(names.len()),
                Some(own) if own.len() >= names.len() => own.clone(),
                Some(own) => {
                    return Err(Error::invalid(place(), format!("{} colours", own.len()), format!("there are {} categories", names.len())));
                }
            };
            let colors = codes.iter().map(|c| usize::try_from(*c).map_or(MISSING, |c| palette[c])).collect();
            let missing = |cell: &u32| codes[*cell as usize] < 0;
            let random = shuffled(n);
            let mut order: Vec<u32> = random.iter().copied().filter(missing).filter(visible).collect();
            let any_missing = !order.is_empty();
            order.extend(random.into_iter().filter(|cell| !missing(cell)).filter(visible));
            let mut entries: Vec<(String, Rgb)> = names.iter().cloned().zip(palette).collect();
            if any_missing {
                entries.push(("NA".to_owned(), MISSING));
            }
            let side = if options.legend == Legend::RightMargin && !entries.is_empty() {
                Side::Names(Names::new(&entries, options.panel.1, fonts))
            } else {
                Side::Nothing
            };
            Ok(Painted { colors, order, side })
        }
        Colour::Values(values) => {
            counted(values.len())?;
            let scale = value_scale(values, panel.range)
                .ok_or_else(|| Error::invalid(place(), "no finite value", "a colour bar needs at least one"))?;
            if !(scale.low < scale.high && scale.low.is_finite() && scale.high.is_finite()) {
                return Err(Error::option("range", format!("{} to {}", scale.low, scale.high), "the low end lies below the high end"));
            }
            let color = |v: &f64| if v.is_finite() { options.colormap.at(scale.part(*v)) } else { MISSING };
            let colors = values.iter().map(color).collect();
            // Sorted by value, missing ones first; a key of an order-preserving 32 bits above the cell's number.
            let mut keys: Vec<u64> = (0..n).filter(|c| shown[*c]).map(|c| (u64::from(rank(values[c])) << 32) | c as u64).collect();
            keys.sort_unstable();
            Ok(Painted { colors, order: keys.into_iter().map(|k| k as u32).collect(), side: Side::Bar(scale) })
        }
    }
}

/// The ends of a colour bar. Where all values are equal, the bar goes around them, and from 0 to 1 for zeros.
fn value_scale(values: &[f64], range: Option<(f64, f64)>) -> Option<Scale> {
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    let found = Scale::around(finite(), 0.0, false)?;
    let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    Some(match range {
        Some((low, high)) => Scale { low, high, log: false },
        None if low == 0.0 && high == 0.0 => Scale { low: 0.0, high: 1.0, log: false },
        None => found,
    })
}

/// 32 bits that sort as the value does; what is not finite sorts first.
fn rank(value: f64) -> u32 {
    if !value.is_finite() {
        return 0;
    }
    let bits = (value as f32).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranks_sort_as_values(a in -1e30_f32..1e30, b in -1e30_f32..1e30) {
            prop_assert_eq!(a.total_cmp(&b), rank(f64::from(a)).cmp(&rank(f64::from(b))));
            prop_assert!(rank(f64::NAN) < rank(f64::from(a)));
        }
    }

    #[test]
    fn missing_cells_come_first_and_values_rise() -> Result<()> {
        let fonts = Fonts::open()?;
        let options = EmbeddingOptions::default();
        let values = [3.0, f64::NAN, -1.0, 2.0, f64::INFINITY];
        let shown = [true, true, true, false, true];
        let painted = paint(&Panel::new("g", Colour::Values(&values)), 5, &shown, &options, &fonts)?;
        assert_eq!(painted.order, [1, 4, 2, 0]);
        assert_eq!(painted.colors[1], MISSING);
        let names = vec!["a".to_owned(), "b".to_owned()];
        let colour = Colour::Categories { codes: &[0, -1, 1, 1, 0], names: &names, palette: None };
        let painted = paint(&Panel::new("k", colour), 5, &shown, &options, &fonts)?;
        assert_eq!(painted.order[0], 1);
        let mut order = painted.order.clone();
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 4]);
        Ok(())
    }

    #[test]
    fn a_bar_has_two_ends() {
        let ends = |values: &[f64]| value_scale(values, None).map(|s| (s.low, s.high));
        assert_eq!(ends(&[1.0, f64::NAN, 3.0]), Some((1.0, 3.0)));
        assert_eq!(ends(&[0.0, 0.0]), Some((0.0, 1.0)));
        assert_eq!(ends(&[7.0]), Some((6.5, 7.5)));
        assert_eq!(ends(&[f64::NAN]), None);
    }
}

//! The colours of categories, as scanpy chooses them.

use crate::color::Rgb;

/// Points whose category or value is missing: scanpy's `na_color`, `lightgray`.
pub const MISSING: Rgb = Rgb::new(0xd3, 0xd3, 0xd3);

/// matplotlib's `tab10`, which scanpy uses for up to 10 categories.
const VEGA_10: [&str; 10] = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];

/// scanpy's `default_20` (`vega_20_scanpy`).
const VEGA_20: [&str; 20] = [
    "#1f77b4", "#ff7f0e", "#279e68", "#d62728", "#aa40fc", "#8c564b", "#e377c2", "#b5bd61", "#17becf", "#aec7e8", "#ffbb78", "#98df8a",
    "#ff9896", "#c5b0d5", "#c49c94", "#f7b6d2", "#dbdb8d", "#9edae5", "#ad494a", "#8c6d31",
];

/// scanpy's `default_28` (`zeileis_28`).
const ZEILEIS_28: [&str; 28] = [
    "#023fa5", "#7d87b9", "#bec1d4", "#d6bcc0", "#bb7784", "#8e063b", "#4a6fe3", "#8595e1", "#b5bbe3", "#e6afb9", "#e07b91", "#d33f6a",
    "#11c638", "#8dd593", "#c6dec7", "#ead3c6", "#f0b98d", "#ef9708", "#0fcfc0", "#9cded6", "#d5eae7", "#f3e1eb", "#f6c4e1", "#f79cd4",
    "#7f7f7f", "#c7c7c7", "#1CE6FF", "#336600",
];

/// scanpy's `default_102` (`godsnot_102`).
const GODSNOT_102: [&str; 102] = [
    "#FFFF00", "#1CE6FF", "#FF34FF", "#FF4A46", "#008941", "#006FA6", "#A30059", "#FFDBE5", "#7A4900", "#0000A6", "#63FFAC", "#B79762",
    "#004D43", "#8FB0FF", "#997D87", "#5A0007", "#809693", "#6A3A4C", "#1B4400", "#4FC601", "#3B5DFF", "#4A3B53", "#FF2F80", "#61615A",
    "#BA0900", "#6B7900", "#00C2A0", "#FFAA92", "#FF90C9", "#B903AA", "#D16100", "#DDEFFF", "#000035", "#7B4F4B", "#A1C299", "#300018",
    "#0AA6D8", "#013349", "#00846F", "#372101", "#FFB500", "#C2FFED", "#A079BF", "#CC0744", "#C0B9B2", "#C2FF99", "#001E09", "#00489C",
    "#6F0062", "#0CBD66", "#EEC3FF", "#456D75", "#B77B68", "#7A87A1", "#788D66", "#885578", "#FAD09F", "#FF8A9A", "#D157A0", "#BEC459",
    "#456648", "#0086ED", "#886F4C", "#34362D", "#B4A8BD", "#00A6AA", "#452C2C", "#636375", "#A3C8C9", "#FF913F", "#938A81", "#575329",
    "#00FECF", "#B05B6F", "#8CD0FF", "#3B9700", "#04F757", "#C8A1A1", "#1E6E00", "#7900D7", "#A77500", "#6367A9", "#A05837", "#6B002C",
    "#772600", "#D790FF", "#9B9700", "#549E79", "#FFF69F", "#201625", "#72418F", "#BC23FF", "#99ADC0", "#3A2465", "#922329", "#5B4534",
    "#FDE8DC", "#404E55", "#0089A3", "#CB7E98", "#A4E804", "#324E72",
];

/// Hex colours of `n` categories as scanpy writes them to `uns['leiden_colors']`: (n,), `#rrggbb` in lower case.
///
/// The tables and their limits are those of `scanpy.plotting._utils._set_default_colors_for_categorical_obs`: `tab10` up
/// to 10 categories, then `default_20`, `default_28` and `default_102`; more categories than 102 are all gray.
pub fn categorical_colors(n: usize) -> Vec<String> {
    categorical(n).into_iter().map(|color| color.to_string()).collect()
}

/// The same colours as [`categorical_colors`], as numbers: (n,).
pub fn categorical(n: usize) -> Vec<Rgb> {
    let table: &[&str] = match n {
        0..=10 => &VEGA_10,
        11..=20 => &VEGA_20,
        21..=28 => &ZEILEIS_28,
        29..=102 => &GODSNOT_102,
        _ => return vec![Rgb::new(0x80, 0x80, 0x80); n],
    };
    table.iter().take(n).filter_map(|hex| Rgb::parse(hex)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_chosen_as_scanpy_chooses_them() {
        // (number of categories, first, last), read off scanpy 1.11.5.
        let known = [
            (3, "#1f77b4", "#2ca02c"),
            (10, "#1f77b4", "#17becf"),
            (11, "#1f77b4", "#ffbb78"),
            (20, "#1f77b4", "#8c6d31"),
            (21, "#023fa5", "#d5eae7"),
            (28, "#023fa5", "#336600"),
            (29, "#ffff00", "#ff90c9"),
            (102, "#ffff00", "#324e72"),
            (103, "#808080", "#808080"),
        ];
        for (n, first, last) in known {
            let colors = categorical_colors(n);
            assert_eq!(colors.len(), n);
            assert_eq!((colors[0].as_str(), colors[n - 1].as_str()), (first, last), "{n} categories");
        }
        assert_eq!(categorical_colors(11)[2], "#279e68");
        assert!(categorical_colors(0).is_empty());
    }
}

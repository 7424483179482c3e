//! Figures and the HTML report as data: plain slices and strings in, a [`Figure`] out, which renders itself as PNG and as
//! SVG. Nothing here knows an algorithm or reads a store, and no system library or installed font is needed.

mod axes;
mod bars;
mod chart;
mod color;
mod colormap;
mod discs;
mod elbow;
mod embedding;
mod figure;
mod font;
mod html;
mod hvg;
mod legend;
mod paint;
mod palette;
mod pixels;
mod save;
mod svg;
mod ticks;
mod violin;

pub use bars::{Bars, bars};
pub use chart::{Axis, Chart, Mark, Series, chart};
pub use color::Rgb;
pub use colormap::Colormap;
pub use elbow::pca_variance_ratio;
pub use embedding::{Colour, EmbeddingOptions, Frame, Legend, Panel, axis_name, embedding, point_size};
pub use figure::Figure;
pub use html::{Embed, Report};
pub use hvg::{Hvg, hvg};
pub use palette::{MISSING, categorical, categorical_colors};
pub use violin::violin;

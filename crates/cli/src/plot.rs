//! `cellmill plot`: a figure from a store, as PNG or SVG.

use std::io::Write;
use std::path::PathBuf;

use cellmill_matrix::keys;
use cellmill_report::Figure;
use clap::Args;

use crate::Voice;
use crate::figures::Open;

/// Draw a figure.
#[derive(Args)]
pub struct Plot {
    /// The store
    store: PathBuf,
    /// umap, pca or any key of obsm; or violin, hvg, pca_variance_ratio
    #[arg(default_value = "umap")]
    figure: String,
    /// Columns of obs or genes, one panel each
    #[arg(long, short, value_delimiter = ',', value_name = "KEY")]
    color: Vec<String>,
    /// The picture: .png or .svg
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Write names of clusters on the cells instead of beside them
    #[arg(long)]
    legend_on_data: bool,
    /// Area of a point, as matplotlib's s [default: 120000 / cells]
    #[arg(long, value_name = "X")]
    size: Option<f32>,
    /// Dots per inch of a PNG
    #[arg(long, default_value_t = Figure::DPI)]
    dpi: f32,
}

impl Plot {
    /// Draws it.
    pub fn run(&self, voice: Voice) -> anyhow::Result<()> {
        let open = Open::new(&self.store)?;
        let figure = match self.figure.as_str() {
            "violin" => {
                let mut columns = self.color.clone();
                if columns.is_empty() {
                    let made = [keys::N_GENES_BY_COUNTS, keys::TOTAL_COUNTS];
                    columns.extend(made.iter().map(|k| k.to_string()));
                    columns.extend(open.obs.names().filter(|n| n.starts_with("pct_counts_") && !n.contains("_in_top_")).map(String::from));
                }
                open.draw_violin(&columns)?
            }
            "hvg" | "highly_variable_genes" => open.draw_hvg()?,
            "pca_variance_ratio" => open.draw_variance()?,
            basis => open.draw_embedding(basis, &self.color, self.legend_on_data, self.size)?,
        };
        figure.save(&self.output, self.dpi)?;
        if voice.json {
            writeln!(std::io::stdout(), "{}", serde_json::json!({ "figure": self.output.display().to_string() }))?;
        } else if !voice.quiet {
            writeln!(std::io::stdout(), "{}", self.output.display())?;
        }
        Ok(())
    }
}

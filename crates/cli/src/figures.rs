//! Figures from a store: which columns they need, and what is drawn.

use cellmill_matrix::{Array, Column, Element, Error, Place, Table, Values, keys};
use cellmill_report::{Colour, EmbeddingOptions, Figure, Hvg, Legend, Panel, Rgb};
use cellmill_store::anndata::AnnData;

/// A store with its data frames read.
pub struct Open {
    /// The store.
    pub store: AnnData,
    /// Cells.
    pub obs: Table,
    /// Genes.
    pub var: Table,
}

impl Open {
    /// Opens a store.
    pub fn new(path: &std::path::Path) -> anyhow::Result<Self> {
        let store = AnnData::open(path)?;
        let mut warnings = Vec::new();
        let (obs, var) = (store.obs(&mut warnings)?, store.var(&mut warnings)?);
        Ok(Open { store, obs, var })
    }

    fn missing(&self, element: &str, key: &str, known: Vec<String>) -> anyhow::Error {
        Error::missing(Place::element(self.store.location(), element), key, known).into()
    }

    /// An embedding of obsm as f32, and its width. `umap` means `X_umap`.
    pub fn embedding(&self, basis: &str) -> anyhow::Result<(String, Vec<f32>, usize)> {
        let known = self.store.names("obsm")?;
        let key = [basis.to_string(), format!("X_{basis}")].into_iter().find(|k| known.contains(k));
        let key = match key {
            Some(key) => key,
            None if known.is_empty() => {
                let place = Place::element(self.store.location(), "obsm");
                return Err(Error::invalid(
                    place,
                    format!("no '{basis}' and nothing else"),
                    "an embedding is drawn; `cellmill run` makes X_pca and X_umap",
                )
                .into());
            }
            None => return Err(self.missing("obsm", basis, known)),
        };
        match self.store.element(&format!("obsm/{key}"), &mut Vec::new())? {
            Some(Element::Array(Array { shape, values })) if shape.len() == 2 => {
                let data = match values {
                    Values::F32(v) => v,
                    other => (0..other.len()).map(|i| other.number(i).unwrap_or(f64::NAN) as f32).collect(),
                };
                Ok((key, data, shape[1]))
            }
            _ => {
                Err(Error::invalid(Place::element(self.store.location(), format!("obsm/{key}")), "not a matrix", "an embedding is one")
                    .into())
            }
        }
    }

    /// What cells are coloured by: a column of obs, or a gene of X.
    pub fn color(&self, key: &str) -> anyhow::Result<Color> {
        if let Some(column) = self.obs.column(key) {
            return Ok(match column {
                Column::Categorical { codes, categories, .. } => Color::Categories {
                    codes: codes.clone(),
                    names: (0..categories.len()).map(|c| categories.text(c)).collect(),
                    palette: self.palette(key, categories.len()),
                },
                Column::Plain(Values::Str(_) | Values::Bool(_)) => {
                    let text: Vec<String> = (0..column.len()).map(|i| column.text(i).unwrap_or_default()).collect();
                    let mut names = text.clone();
                    names.sort();
                    names.dedup();
                    let codes = text.iter().map(|t| names.binary_search(t).map_or(-1, |c| c as i32)).collect();
                    Color::Categories { codes, palette: self.palette(key, names.len()), names }
                }
                _ => Color::Values((0..column.len()).map(|i| column.number(i).unwrap_or(f64::NAN)).collect()),
            });
        }
        match self.var.index.iter().position(|g| g == key) {
            Some(gene) => Ok(Color::Values(self.gene(gene)?)),
            None => {
                let known = self.obs.names().map(String::from).chain(self.var.index.iter().cloned()).collect();
                Err(self.missing("obs", key, known))
            }
        }
    }

    /// Values of one gene over all cells.
    fn gene(&self, gene: usize) -> anyhow::Result<Vec<f64>> {
        let source = self.store.source("X").map_err(|e| e.at(&Place::element(self.store.location(), "X")))?;
        let n = source.shape().n_obs;
        let mut values = Vec::with_capacity(n as usize);
        let mut rows = cellmill_matrix::Csr::default();
        for range in cellmill_engine::exec::cut(n) {
            source.read(cellmill_matrix::SourceRow(range.start)..cellmill_matrix::SourceRow(range.end), &mut rows)?;
            for i in 0..rows.n_rows() {
                let (columns, data) = rows.row(i);
                values.push(columns.binary_search(&(gene as u32)).map_or(0.0, |k| f64::from(data[k])));
            }
        }
        Ok(values)
    }

    /// Colours that scanpy left in uns, if they fit.
    fn palette(&self, key: &str, n: usize) -> Option<Vec<Rgb>> {
        let element = self.store.element(&format!("uns/{key}_colors"), &mut Vec::new()).ok()??;
        let Element::Array(Array { values: Values::Str(colors), .. }) = element else { return None };
        let parsed: Option<Vec<Rgb>> = colors.iter().map(|c| Rgb::parse(c)).collect();
        parsed.filter(|p| p.len() >= n)
    }

    fn numbers(&self, table: &Table, element: &str, key: &str) -> anyhow::Result<Vec<f64>> {
        let column = table.column(key).ok_or_else(|| self.missing(element, key, table.names().map(String::from).collect()))?;
        Ok((0..column.len()).map(|i| column.number(i).unwrap_or(f64::NAN)).collect())
    }

    /// Cells on an embedding.
    pub fn draw_embedding(&self, basis: &str, keys: &[String], on_data: bool, size: Option<f32>) -> anyhow::Result<Figure> {
        let (key, data, width) = self.embedding(basis)?;
        let colors = keys.iter().map(|k| self.color(k)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut panels: Vec<Panel<'_>> = keys.iter().zip(&colors).map(|(k, c)| Panel::new(k.clone(), c.as_colour())).collect();
        if panels.is_empty() {
            panels.push(Panel::new("", Colour::Plain));
        }
        let legend = if on_data { Legend::OnData } else { Legend::RightMargin };
        let options = EmbeddingOptions { legend, size, ..EmbeddingOptions::default() };
        Ok(cellmill_report::embedding(&data, width, [0, 1], &key, &panels, &options)?)
    }

    /// Violins of columns of obs.
    pub fn draw_violin(&self, keys: &[String]) -> anyhow::Result<Figure> {
        let columns = keys.iter().map(|k| self.numbers(&self.obs, "obs", k)).collect::<anyhow::Result<Vec<_>>>()?;
        let pairs: Vec<(&str, &[f64])> = keys.iter().zip(&columns).map(|(k, c)| (k.as_str(), &c[..])).collect();
        Ok(cellmill_report::violin(&pairs)?)
    }

    /// Means against dispersions of genes.
    pub fn draw_hvg(&self) -> anyhow::Result<Figure> {
        let of = |column: &str| self.var.column(column).is_some();
        let (v3, residuals) = (of(keys::VARIANCES_NORM), of(keys::RESIDUAL_VARIANCES));
        let (what, y, y_norm) = if v3 {
            ("variances", keys::VARIANCES, keys::VARIANCES_NORM)
        } else if residuals {
            ("variances", keys::VARIANCES, keys::RESIDUAL_VARIANCES)
        } else {
            ("dispersions", keys::DISPERSIONS, keys::DISPERSIONS_NORM)
        };
        let chosen: Vec<bool> = self.numbers(&self.var, "var", keys::HIGHLY_VARIABLE)?.iter().map(|x| *x != 0.0).collect();
        let (means, y, y_norm) =
            (self.numbers(&self.var, "var", keys::MEANS)?, self.numbers(&self.var, "var", y)?, self.numbers(&self.var, "var", y_norm)?);
        Ok(cellmill_report::hvg(&Hvg {
            means: &means,
            dispersions: &y,
            dispersions_norm: &y_norm,
            highly_variable: &chosen,
            what,
            log: v3 || residuals,
        })?)
    }

    /// Variance ratio of the components.
    pub fn draw_variance(&self) -> anyhow::Result<Figure> {
        match self.store.element("uns/pca/variance_ratio", &mut Vec::new())? {
            Some(Element::Array(Array { values, .. })) => {
                let ratio: Vec<f64> = (0..values.len()).filter_map(|i| values.number(i)).collect();
                Ok(cellmill_report::pca_variance_ratio(&ratio, ratio.len().min(50), true)?)
            }
            _ => Err(self.missing("uns/pca", "variance_ratio", self.store.names("uns")?)),
        }
    }
}

/// What cells are coloured by, owned.
pub enum Color {
    /// A categorical column.
    Categories {
        /// −1 is missing.
        codes: Vec<i32>,
        /// Names of the categories.
        names: Vec<String>,
        /// Their colours, if the store has them.
        palette: Option<Vec<Rgb>>,
    },
    /// Numbers.
    Values(Vec<f64>),
}

impl Color {
    fn as_colour(&self) -> Colour<'_> {
        match self {
            Color::Categories { codes, names, palette } => Colour::Categories { codes, names, palette: palette.clone() },
            Color::Values(values) => Colour::Values(values),
        }
    }
}

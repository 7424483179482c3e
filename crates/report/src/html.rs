//! The HTML report: one file that needs nothing beside it.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cellmill_matrix::Result;

use crate::figure::Figure;
use crate::svg::escape;
use crate::{save, svg};

/// How a figure stands in the report.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Embed {
    /// As SVG: sharp at any size.
    #[default]
    Svg,
    /// As a PNG of so many dots an inch.
    Png(f32),
}

/// A report in parts; each `with_…` call adds one at the end, but the methods stand last.
#[derive(Clone, Debug, Default)]
pub struct Report {
    title: String,
    summary: String,
    facts: Vec<(String, String)>,
    parts: Vec<Part>,
    methods: Vec<String>,
    footer: String,
}

#[derive(Clone, Debug)]
enum Part {
    Heading(String),
    Text(String),
    Figure { figure: Figure, caption: String, embed: Embed },
    Table { caption: String, header: Vec<String>, rows: Vec<Vec<String>> },
}

impl Report {
    /// An empty report.
    pub fn new(title: impl Into<String>) -> Self {
        Report { title: title.into(), ..Report::default() }
    }

    /// A sentence or two under the title.
    pub fn with_summary(mut self, text: impl Into<String>) -> Self {
        self.summary = text.into();
        self
    }

    /// A row of the table of key facts: `cells kept`, `2,638 of 2,700`.
    pub fn with_fact(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.facts.push((name.into(), value.into()));
        self
    }

    /// A heading.
    pub fn with_heading(mut self, text: impl Into<String>) -> Self {
        self.parts.push(Part::Heading(text.into()));
        self
    }

    /// A paragraph.
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.parts.push(Part::Text(text.into()));
        self
    }

    /// A figure with its caption.
    pub fn with_figure(mut self, figure: Figure, caption: impl Into<String>, embed: Embed) -> Self {
        self.parts.push(Part::Figure { figure, caption: caption.into(), embed });
        self
    }

    /// A table. Cells that read as numbers stand at the right.
    pub fn with_table(mut self, caption: impl Into<String>, header: Vec<String>, rows: Vec<Vec<String>>) -> Self {
        self.parts.push(Part::Table { caption: caption.into(), header, rows });
        self
    }

    /// A paragraph of the Methods section.
    pub fn with_methods(mut self, text: impl Into<String>) -> Self {
        self.methods.push(text.into());
        self
    }

    /// A small line at the end, for example the program and its version.
    pub fn with_footer(mut self, text: impl Into<String>) -> Self {
        self.footer = text.into();
        self
    }

    /// The whole file. Same report, same bytes.
    pub fn render(&self) -> Result<String> {
        let mut body = format!("<h1>{}</h1>\n", escape(&self.title));
        if !self.summary.is_empty() {
            body += &format!("<p class=\"summary\">{}</p>\n", escape(&self.summary));
        }
        if !self.facts.is_empty() {
            body += "<table class=\"facts\">\n";
            for (name, value) in &self.facts {
                body += &format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(name), escape(value));
            }
            body += "</table>\n";
        }
        for (k, part) in self.parts.iter().enumerate() {
            body += &render_part(part, k)?;
        }
        if !self.methods.is_empty() {
            body += "<h2>Methods</h2>\n";
            for text in &self.methods {
                body += &format!("<p class=\"methods\">{}</p>\n", escape(text));
            }
        }
        if !self.footer.is_empty() {
            body += &format!("<footer>{}</footer>\n", escape(&self.footer));
        }
        Ok(format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n\
             <body>\n<main>\n{body}</main>\n</body>\n</html>\n",
            escape(&self.title)
        ))
    }

    /// Writes the file, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<()> {
        save::write(path, self.render()?.as_bytes())
    }
}

fn render_part(part: &Part, k: usize) -> Result<String> {
    Ok(match part {
        Part::Heading(text) => format!("<h2>{}</h2>\n", escape(text)),
        Part::Text(text) => format!("<p>{}</p>\n", escape(text)),
        Part::Figure { figure, caption, embed } => {
            let picture = match embed {
                Embed::Svg => svg::render(figure, &format!("f{k}-"))?,
                Embed::Png(dpi) => {
                    let bytes = STANDARD.encode(figure.render_png(*dpi)?);
                    // Points are 1/72 inch, CSS pixels 1/96.
                    let width = figure.size().0 * 96.0 / 72.0;
                    format!("<img width=\"{width:.0}\" alt=\"{}\" src=\"data:image/png;base64,{bytes}\">\n", escape(figure.about()))
                }
            };
            let caption = if caption.is_empty() { String::new() } else { format!("<figcaption>{}</figcaption>\n", escape(caption)) };
            format!("<figure>\n<div class=\"sheet\">\n{picture}</div>\n{caption}</figure>\n")
        }
        Part::Table { caption, header, rows } => {
            let mut out = String::from("<table>\n");
            if !caption.is_empty() {
                out += &format!("<caption>{}</caption>\n", escape(caption));
            }
            if !header.is_empty() {
                let right = |k: usize| rows.iter().any(|row| row.get(k).is_some_and(|cell| numeric(cell)));
                let class = |k: usize| if right(k) { " class=\"n\"" } else { "" };
                let cells = header.iter().enumerate().map(|(k, h)| format!("<th scope=\"col\"{}>{}</th>", class(k), escape(h)));
                let cells: String = cells.collect();
                out += &format!("<thead><tr>{cells}</tr></thead>\n");
            }
            for row in rows {
                let cells: String =
                    row.iter().map(|c| format!("<td{}>{}</td>", if numeric(c) { " class=\"n\"" } else { "" }, escape(c))).collect();
                out += &format!("<tr>{cells}</tr>\n");
            }
            out + "</table>\n"
        }
    })
}

/// Whether a cell starts as a number does: `1,234`, `0.5 s`, `−3`.
fn numeric(cell: &str) -> bool {
    let mut letters = cell.trim_start_matches(['-', '\u{2212}', '+']).chars();
    letters.next().is_some_and(|c| c.is_ascii_digit())
}

const STYLE: &str = "\
:root { --ink: #1c2430; --soft: #5b6675; --line: #dfe3e8; --page: #ffffff; --band: #f6f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --soft: #9aa5b4; --line: #343c48; --page: #14181e; --band: #1b2129; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
p { max-width: 44rem; margin: 0 0 1rem; white-space: pre-line; }
.summary, figcaption, caption, footer { color: var(--soft); }
table { border-collapse: collapse; margin: 1.25rem 0; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { text-align: left; padding: .35rem 1.5rem .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid var(--line); }
.facts th { font-weight: 500; color: var(--soft); white-space: nowrap; }
th.n, td.n { text-align: right; padding-right: .6rem; }
.facts th.n, td.n { text-align: left; }
figure { margin: 1.5rem 0 2rem; }
.sheet { background: #ffffff; border: 1px solid var(--line); border-radius: 8px; padding: .75rem; overflow-x: auto; }
.sheet svg, .sheet img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { font-size: .9rem; margin-top: .5rem; max-width: 44rem; }
.methods { background: var(--band); border-left: 3px solid var(--line); padding: .75rem 1rem; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: .85rem; }
@media print { .sheet { border: 0; padding: 0; } figure, table { break-inside: avoid; } }
";

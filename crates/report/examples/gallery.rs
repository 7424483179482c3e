//! Draws every kind of figure from made-up cells: `cargo run -p cellmill-report --example gallery -- FOLDER [CELLS]`.

use std::error::Error;
use std::path::PathBuf;

use cellmill_report::{
    Axis, Bars, Chart, Colour, Embed, EmbeddingOptions, Figure, Frame, Hvg, Legend, Panel, Report, Series, bars, chart, embedding, hvg,
    pca_variance_ratio, violin,
};

/// A fixed stream of numbers between 0 and 1.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1_u64 << 31) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.next().max(1e-12).ln()).sqrt() * (std::f64::consts::TAU * self.next()).cos()
    }
}

/// Clusters as curved heaps: coordinates (n, 2) and each cell's cluster.
fn cells(n: usize, clusters: usize) -> (Vec<f32>, Vec<i32>) {
    let mut stream = Stream(7);
    let heaps: Vec<[f64; 5]> = (0..clusters)
        .map(|_| {
            let (r, a) = (8.0 * stream.next().sqrt(), std::f64::consts::TAU * stream.next());
            [r * a.cos(), r * a.sin(), 0.3 + 0.6 * stream.next(), 0.2 + 0.4 * stream.next(), std::f64::consts::TAU * stream.next()]
        })
        .collect();
    let mut places = Vec::with_capacity(2 * n);
    let mut codes = Vec::with_capacity(n);
    for _ in 0..n {
        let k = ((stream.next().powf(1.6)) * clusters as f64) as usize % clusters;
        let [x, y, a, b, turn] = heaps[k];
        let (u, v) = (stream.normal() * a, stream.normal() * b);
        let v = v + 0.5 * u * u;
        places.push((x + u * turn.cos() - v * turn.sin()) as f32);
        places.push((y + u * turn.sin() + v * turn.cos()) as f32);
        codes.push(k as i32);
    }
    (places, codes)
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|k| k.to_string()).collect()
}

fn clusters(n: usize, k: usize, legend: Legend, frame: Frame) -> cellmill_matrix::Result<Figure> {
    let (places, codes) = cells(n, k);
    let names = names(k);
    let options = EmbeddingOptions { legend, frame, ..EmbeddingOptions::default() };
    embedding(
        &places,
        2,
        [0, 1],
        "X_umap",
        &[Panel::new("leiden", Colour::Categories { codes: &codes, names: &names, palette: None })],
        &options,
    )
}

fn types(n: usize, legend: Legend) -> cellmill_matrix::Result<Figure> {
    let (places, mut codes) = cells(n, 12);
    codes.iter_mut().step_by(40).for_each(|c| *c = -1);
    let names: Vec<String> = [
        "CD4-positive, alpha-beta memory T cell",
        "CD8⁺ αβ T cell",
        "γδ T cell",
        "natural killer cell",
        "B-Zelle (naïv)",
        "мегакариоцит",
        "CD14+ monocyte",
        "FCGR3A+ monocyte",
        "plasmacytoid dendritic cell, human, activated, of unknown origin",
        "Ki-67 > 10 & <proliferating>",
        "erythrocyte",
        "hematopoietic stem cell",
    ]
    .map(str::to_owned)
    .to_vec();
    let values: Vec<f64> = places.chunks(2).map(|p| (f64::from(p[0] + 8.0) * 300.0).max(200.0)).collect();
    let gene: Vec<f64> =
        places.chunks(2).enumerate().map(|(k, p)| if k % 17 == 0 { f64::NAN } else { f64::from(p[1]).max(0.0).sqrt() }).collect();
    let panels = [
        Panel::new("cell_type", Colour::Categories { codes: &codes, names: &names, palette: None }),
        Panel::new("n_genes_by_counts", Colour::Values(&values)),
        Panel::new("CST3", Colour::Values(&gene)),
    ];
    let options = EmbeddingOptions { legend, columns: 2, ..EmbeddingOptions::default() };
    embedding(&places, 2, [0, 1], "X_umap", &panels, &options)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("give a folder")?);
    let only: Option<usize> = arguments.next().map(|n| n.parse()).transpose()?;
    if let Some(n) = only {
        return Ok(clusters(n, 25, Legend::RightMargin, Frame::Corner)?.save(&folder.join(format!("umap-{n}.png")), 150.0)?);
    }
    let mut figures: Vec<(String, Figure)> = Vec::new();
    for (n, k) in [(20, 3), (500, 3), (3000, 12), (50_000, 25), (20_000, 60), (20_000, 100)] {
        figures.push((format!("umap-{n}-{k}"), clusters(n, k, Legend::RightMargin, Frame::Corner)?));
    }
    figures.push(("umap-ondata-12".into(), clusters(3000, 12, Legend::OnData, Frame::Box)?));
    figures.push(("umap-ondata-60".into(), clusters(50_000, 60, Legend::OnData, Frame::None)?));
    figures.push(("types".into(), types(3000, Legend::RightMargin)?));
    figures.push(("types-ondata".into(), types(3000, Legend::OnData)?));

    let mut stream = Stream(3);
    let total: Vec<f64> = (0..2700).map(|_| (7.7 + 0.5 * stream.normal()).exp()).collect();
    let genes: Vec<f64> = total.iter().map(|t| t.powf(0.85) * (1.0 + 0.1 * stream.normal()).max(0.2)).collect();
    let mt: Vec<f64> = (0..2700).map(|_| (0.8 + 0.5 * stream.normal()).exp()).collect();
    figures.push(("violin".into(), violin(&[("n_genes_by_counts", &genes), ("total_counts", &total), ("pct_counts_mt", &mt)])?));

    let means: Vec<f64> = (0..13_000).map(|_| (stream.normal() * 1.3 - 2.0).exp()).collect();
    let norm: Vec<f64> =
        means.iter().map(|_| stream.normal() * 0.8 + if stream.next() > 0.93 { 3.0 * stream.next() } else { 0.0 }).collect();
    let dispersions: Vec<f64> = norm.iter().zip(&means).map(|(d, m)| d * 0.6 + m.ln_1p()).collect();
    let chosen: Vec<bool> = norm.iter().zip(&means).map(|(d, m)| *d > 0.9 && *m > 0.0125 && *m < 3.0).collect();
    let shown = Hvg {
        means: &means,
        dispersions: &dispersions,
        dispersions_norm: &norm,
        highly_variable: &chosen,
        what: "dispersions",
        log: false,
    };
    figures.push(("hvg".into(), hvg(&shown)?));
    figures.push(("hvg-log".into(), hvg(&Hvg { log: true, ..shown })?));

    let ratio: Vec<f64> = (0..100).map(|k| 0.21 * (-f64::from(k) * 0.45).exp() + 0.004 * (-f64::from(k) * 0.01).exp()).collect();
    figures.push(("elbow".into(), pca_variance_ratio(&ratio, 30, false)?));
    figures.push(("elbow-log-50".into(), pca_variance_ratio(&ratio, 50, true)?));
    figures.push(("elbow-100".into(), pca_variance_ratio(&ratio, 100, true)?));

    let sizes = vec![1e4, 3e4, 1e5, 3e5, 1e6];
    let series = |name: &str, a: f64| Series::new(name, sizes.clone(), sizes.iter().map(|n| a * n.powf(0.95)).collect());
    figures.push((
        "bench".into(),
        chart(&Chart {
            title: "Time through PCA, 2 threads".into(),
            x: Axis::log("cells"),
            y: Axis::log("time (s)"),
            series: vec![series("cellmill", 1e-4), series("scanpy", 9e-4), series("CREST", 8e-4)],
            size: (360.0, 240.0),
        })?,
    ));
    figures.push((
        "line".into(),
        chart(&Chart {
            title: String::new(),
            x: Axis::linear("epoch"),
            y: Axis::linear("memory (GiB)").holding(0.0),
            series: vec![Series::new("peak", (0..20).map(f64::from).collect(), (0..20).map(|k| f64::from(k).sqrt()).collect())],
            size: (300.0, 200.0),
        })?,
    ));
    let stages = ["read 1", "read 2", "neighbors", "umap", "leiden"].map(str::to_owned).to_vec();
    figures.push((
        "bars".into(),
        bars(&Bars {
            title: "Time by stage".into(),
            y: Axis::linear("time (s)"),
            groups: stages,
            series: vec![("cellmill".into(), vec![3.1, 1.2, 4.0, 5.56, 0.9]), ("scanpy".into(), vec![33.0, 21.0, 14.0, f64::NAN, 8.0])],
        })?,
    ));

    let mut report = Report::new("PBMC <3k> & friends")
        .with_summary("Made-up cells, drawn to look at.")
        .with_fact("cells", "2,638 of 2,700")
        .with_fact("genes", "13,714");
    for (name, figure) in figures {
        figure.save(&folder.join(format!("{name}.png")), 110.0)?;
        figure.save(&folder.join(format!("{name}.svg")), 110.0)?;
        let embed = if name.starts_with("umap") { Embed::Png(150.0) } else { Embed::Svg };
        report = report.with_figure(figure, name, embed);
    }
    let rows = vec![vec!["read 1".to_owned(), "3.1 s".to_owned()], vec!["read 2".to_owned(), "1.2 s".to_owned()]];
    let report = report.with_table("Stages", vec!["stage".into(), "time".into()], rows);
    Ok(report
        .with_methods("Counts were normalised to 10,000 a cell and log-transformed.")
        .with_footer("cellmill 0.1.0")
        .save(&folder.join("report.html"))?)
}

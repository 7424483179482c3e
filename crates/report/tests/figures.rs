//! Figures as a caller sees them: the SVG's structure, the PNG's pixels, and errors for input that can't be drawn.

use cellmill_matrix::{ErrorKind, Result};
use cellmill_report::{
    Axis, Bars, Chart, Colour, Embed, EmbeddingOptions, Figure, Frame, Hvg, Legend, Panel, Report, Rgb, Series, bars, categorical, chart,
    embedding, hvg, pca_variance_ratio, violin,
};

/// A decoded picture.
struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    fn of(figure: &Figure, dpi: f32) -> Self {
        Picture::decode(&figure.render_png(dpi).expect("a figure renders"))
    }

    fn decode(bytes: &[u8]) -> Self {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
        let mut rgb = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut rgb).expect("pixels");
        assert_eq!(info.color_type, png::ColorType::Rgb);
        Picture { width: info.width as usize, height: info.height as usize, rgb }
    }

    fn at(&self, x: f32, y: f32) -> Rgb {
        let start = (y as usize * self.width + x as usize) * 3;
        Rgb::new(self.rgb[start], self.rgb[start + 1], self.rgb[start + 2])
    }

    fn count(&self, color: Rgb) -> usize {
        self.rgb.chunks_exact(3).filter(|p| **p == [color.r, color.g, color.b]).count()
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn one(panel: Panel<'_>, coordinates: &[f32], options: &EmbeddingOptions) -> Result<Figure> {
    embedding(coordinates, 2, [0, 1], "X_umap", &[panel], options)
}

const SQUARE: [f32; 10] = [0.0, 0.0, 10.0, 0.0, 0.0, 10.0, 10.0, 10.0, 5.0, 5.0];

#[test]
fn the_svg_of_an_embedding() -> Result<()> {
    let names = names(&["B & T", "<NK>", "γδ"]);
    let colour = Colour::Categories { codes: &[0, 1, 2, 0, -1], names: &names, palette: None };
    let values = [0.0, 1.0, 2.0, f64::NAN, 4.0];
    let panels = [Panel::new("leiden", colour), Panel::new("CST3", Colour::Values(&values))];
    let figure = embedding(&SQUARE, 2, [0, 1], "X_umap", &panels, &EmbeddingOptions::default())?;
    insta::assert_snapshot!("embedding", figure.render_svg()?);
    Ok(())
}

#[test]
fn the_svg_of_charts() -> Result<()> {
    let series = vec![Series::new("a", vec![1e3, 1e4, 1e5], vec![1.0, 9.0, 80.0]), Series::new("b", vec![1e3, 1e5], vec![5.0, 300.0])];
    let figure = chart(&Chart { title: "Time".into(), x: Axis::log("cells"), y: Axis::log("time (s)"), series, size: (200.0, 150.0) })?;
    insta::assert_snapshot!("chart", figure.render_svg()?);
    let figure = bars(&Bars {
        title: String::new(),
        y: Axis::linear("GiB"),
        groups: names(&["qc", "a stage with a long name"]),
        series: vec![("peak".into(), vec![1.5, 0.25])],
    })?;
    insta::assert_snapshot!("bars", figure.render_svg()?);
    insta::assert_snapshot!("elbow", pca_variance_ratio(&[0.5, 0.2, 0.1], 30, false)?.render_svg()?);
    Ok(())
}

#[test]
fn a_point_has_its_colour_where_it_lies() -> Result<()> {
    let names = names(&["0", "1", "2", "3", "4"]);
    let colour = Colour::Categories { codes: &[0, 1, 2, 3, -1], names: &names, palette: None };
    let options = EmbeddingOptions { frame: Frame::None, legend: Legend::None, ..EmbeddingOptions::default() };
    let picture = Picture::of(&one(Panel::new("k", colour), &SQUARE, &options)?, 72.0);
    // Axes of 288 points start at (10, 28); a margin of 5% lies around the data.
    let pixel = |x: f32, y: f32| (10.0 + (x + 0.5) / 11.0 * 288.0, 28.0 + (10.5 - y) / 11.0 * 288.0);
    let colors = categorical(5);
    for (k, (x, y)) in [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0), (10.0, 10.0)].into_iter().enumerate() {
        let (px, py) = pixel(x, y);
        assert_eq!(picture.at(px, py), colors[k], "cell {k}");
    }
    let (px, py) = pixel(5.0, 5.0);
    assert_eq!(picture.at(px, py), cellmill_report::MISSING);
    // A disc of 10 points across has an area of 78.5; those of its pixels that are whole are a little fewer.
    assert!((50..=80).contains(&picture.count(colors[0])), "{}", picture.count(colors[0]));
    assert_eq!((picture.width, picture.height), (310, 326));
    Ok(())
}

#[test]
fn dpi_scales_the_picture() -> Result<()> {
    let figure = one(Panel::new("", Colour::Plain), &SQUARE, &EmbeddingOptions::default())?;
    let (w, h) = figure.size();
    for dpi in [50.0, 150.0, 300.0] {
        let picture = Picture::of(&figure, dpi);
        assert_eq!((picture.width, picture.height), ((w * dpi / 72.0).ceil() as usize, (h * dpi / 72.0).ceil() as usize));
    }
    assert!(figure.render_png(5.0).is_err() && figure.render_png(f32::NAN).is_err());
    Ok(())
}

#[test]
fn values_run_from_the_first_colour_to_the_last() -> Result<()> {
    let values = [0.0, 0.25, 0.5, 1.0, f64::NAN];
    let options = EmbeddingOptions { frame: Frame::None, ..EmbeddingOptions::default() };
    let picture = Picture::of(&one(Panel::new("gene", Colour::Values(&values)), &SQUARE, &options)?, 72.0);
    for hex in ["#440154", "#fde725", "#21918c", "#d3d3d3"] {
        let color = Rgb::parse(hex).expect("a colour");
        assert!(picture.count(color) > 40, "{hex}: {}", picture.count(color));
    }
    // With a range, values beyond it take the end's colour.
    let mut panel = Panel::new("gene", Colour::Values(&values));
    panel.range = Some((0.0, 0.2));
    let picture = Picture::of(&one(panel, &SQUARE, &options)?, 72.0);
    assert!(picture.count(Rgb::new(0xfd, 0xe7, 0x25)) > 3 * 40);
    Ok(())
}

#[test]
fn no_category_hides_another() -> Result<()> {
    // Two categories on the same disc of points, one wholly after the other in the file: each must keep about half.
    let n = 200_000;
    let mut coordinates = Vec::new();
    for k in 0..n {
        let (r, a) = ((((k * 7919) % n) as f32 / n as f32).sqrt(), k as f32 * 2.399_963);
        coordinates.extend([r * a.cos(), r * a.sin()]);
    }
    let codes: Vec<i32> = (0..n).map(|k| i32::from(k >= n / 2)).collect();
    let names = names(&["first", "second"]);
    let colour = Colour::Categories { codes: &codes, names: &names, palette: None };
    let options = EmbeddingOptions { legend: Legend::None, ..EmbeddingOptions::default() };
    let picture = Picture::of(&one(Panel::new("", colour), &coordinates, &options)?, 72.0);
    let near = |a: Rgb, b: Rgb| [(a.r, b.r), (a.g, b.g), (a.b, b.b)].iter().map(|(x, y)| x.abs_diff(*y) as usize).sum::<usize>();
    let colors = categorical(2);
    let (mut first, mut second) = (0, 0);
    for p in picture.rgb.chunks_exact(3).map(|p| Rgb::new(p[0], p[1], p[2])).filter(|p| *p != Rgb::WHITE) {
        if near(p, colors[0]) < near(p, colors[1]) { first += 1 } else { second += 1 }
    }
    let share = f64::from(first) / f64::from(first + second);
    assert!((0.45..0.55).contains(&share), "{share}");
    Ok(())
}

#[test]
fn many_points_are_an_image_under_vector_text() -> Result<()> {
    let n = 5000;
    let coordinates: Vec<f32> = (0..2 * n).map(|k| ((k * k) % 9973) as f32).collect();
    let svg = one(Panel::new("all", Colour::Plain), &coordinates, &EmbeddingOptions::default())?.render_svg()?;
    assert_eq!(svg.matches("<image ").count(), 1);
    assert_eq!(svg.matches("<circle ").count(), 0);
    assert!(svg.contains(">UMAP1</text>") && svg.contains(">all</text>"));
    Ok(())
}

#[test]
fn the_same_figure_gives_the_same_bytes() -> Result<()> {
    let values: Vec<f64> = (0..500).map(|k| f64::from(k * k % 977)).collect();
    let draw = || -> Result<(Vec<u8>, String)> {
        let figure = violin(&[("total_counts", &values), ("pct_counts_mt", &values)])?;
        Ok((figure.render_png(100.0)?, figure.render_svg()?))
    };
    assert_eq!(draw()?, draw()?);
    Ok(())
}

#[test]
fn every_category_of_a_long_legend_is_named() -> Result<()> {
    for n in [1_usize, 3, 12, 25, 60, 102] {
        let names: Vec<String> = (0..n).map(|k| format!("cluster-{k}")).collect();
        let codes: Vec<i32> = (0..n as i32).collect();
        let coordinates: Vec<f32> = (0..2 * n).map(|k| k as f32).collect();
        for legend in [Legend::RightMargin, Legend::OnData] {
            let colour = Colour::Categories { codes: &codes, names: &names, palette: None };
            let options = EmbeddingOptions { legend, ..EmbeddingOptions::default() };
            let svg = one(Panel::new("leiden", colour), &coordinates, &options)?.render_svg()?;
            assert_eq!(svg.matches(">cluster-").count(), n, "{n} names, {legend:?}");
        }
    }
    Ok(())
}

#[test]
fn input_that_cannot_be_drawn_is_an_error() {
    let options = EmbeddingOptions::default();
    let names = names(&["a"]);
    let categories = |codes: &'static [i32]| Panel::new("leiden", Colour::Categories { codes, names: &names, palette: None });
    let said = |result: Result<Figure>| {
        let error = result.expect_err("an error");
        assert!(!matches!(error.kind(), ErrorKind::Bug { .. }), "{error}");
        error.to_string()
    };
    let plain = || Panel::new("", Colour::Plain);
    assert_eq!(said(one(plain(), &[], &options)), "obsm/X_umap: no cells, but a plot needs at least one");
    assert!(said(one(plain(), &[f32::NAN; 4], &options)).contains("none with finite coordinates"));
    assert!(said(one(plain(), &[1.0; 3], &options)).contains("whole rows"));
    assert!(said(embedding(&[1.0; 4], 2, [0, 2], "X_pca", &[plain()], &options)).contains("dimension 3"));
    assert!(said(embedding(&[1.0; 4], 0, [0, 1], "X_pca", &[plain()], &options)).contains("whole rows"));
    assert!(said(embedding(&[1.0; 4], 2, [0, 1], "X_pca", &[], &options)).contains("at least one panel"));
    assert_eq!(said(one(categories(&[0]), &SQUARE, &options)), "leiden: 1 colours, but the embedding has 5 cells");
    assert!(said(one(categories(&[0, 0, 1, 0, 0]), &SQUARE, &options)).contains("cell 2 has code 1"));
    assert!(said(one(categories(&[0, 0, -2, 0, 0]), &SQUARE, &options)).contains("code -2"));
    let few = Panel::new("k", Colour::Categories { codes: &[0; 5], names: &names, palette: Some(Vec::new()) });
    assert!(said(one(few, &SQUARE, &options)).contains("0 colours"));
    assert!(said(one(Panel::new("g", Colour::Values(&[f64::NAN; 5])), &SQUARE, &options)).contains("no finite value"));
    let mut turned = Panel::new("g", Colour::Values(&[1.0; 5]));
    turned.range = Some((2.0, 1.0));
    assert!(said(one(turned, &SQUARE, &options)).contains("low end"));
    let huge = EmbeddingOptions { panel: (f32::INFINITY, 1.0), ..options.clone() };
    assert!(said(one(plain(), &SQUARE, &huge)).contains("panel"));
    let size = EmbeddingOptions { size: Some(-1.0), ..options };
    assert!(said(one(plain(), &SQUARE, &size)).contains("size"));

    assert!(said(violin(&[])).contains("at least one column"));
    assert!(said(violin(&[("total_counts", &[f64::NAN])])).starts_with("total_counts: 1 values"));
    assert!(said(pca_variance_ratio(&[], 30, false)).contains("no component"));
    assert!(said(pca_variance_ratio(&[0.1, f64::NAN], 30, false)).contains("PC2"));
    assert!(said(pca_variance_ratio(&[0.0], 30, true)).contains("no component"));
    let genes =
        Hvg { means: &[1.0], dispersions: &[], dispersions_norm: &[1.0], highly_variable: &[true], what: "dispersions", log: false };
    assert!(said(hvg(&genes)).contains("0 values of dispersions"));
    assert!(said(hvg(&Hvg { dispersions: &[f64::NAN], ..genes })).contains("at least one"));
    let empty = Chart { title: "t".into(), x: Axis::linear("x"), y: Axis::log("y"), series: Vec::new(), size: (100.0, 100.0) };
    assert!(said(chart(&empty)).contains("no finite point"));
    let zero = Chart { series: vec![Series::new("s", vec![1.0], vec![0.0])], ..empty.clone() };
    assert!(said(chart(&zero)).contains("above 0"));
    let uneven = Chart { series: vec![Series::new("s", vec![1.0], vec![])], ..empty };
    assert!(said(chart(&uneven)).contains("1 x and 0 y"));
    let none = Bars { title: String::new(), y: Axis::linear("y"), groups: vec!["g".into()], series: vec![("s".into(), vec![f64::NAN])] };
    assert!(said(bars(&none)).contains("no value"));
    assert!(said(bars(&Bars { series: vec![("s".into(), vec![-1.0])], ..none })).contains("0 or more"));
}

#[test]
fn odd_input_is_drawn() -> Result<()> {
    let options = EmbeddingOptions::default();
    // One cell; cells that are all in one place; a constant value; values as large as they get.
    one(Panel::new("", Colour::Plain), &[3.0, 4.0], &options)?.render_png(72.0)?;
    one(Panel::new("zero", Colour::Values(&[0.0; 3])), &[1.0; 6], &options)?.render_png(72.0)?;
    one(Panel::new("large", Colour::Values(&[f64::MAX, -f64::MAX, 1.0])), &[f32::MAX, 0.0, -f32::MAX, 0.0, 1.0, 1.0], &options)?
        .render_png(72.0)?;
    violin(&[("constant", &[2.0; 50]), ("large", &[f64::MAX, -f64::MAX, 0.0]), ("one", &[1.0])])?.render_png(72.0)?;
    // A name that no font can write, an empty one, and one that would break XML.
    let names = names(&["細胞", "", "a\u{0}\n</text>"]);
    let colour = Colour::Categories { codes: &[0, 1, 2, 0, 1], names: &names, palette: None };
    let figure = one(Panel::new("\u{1}", colour), &SQUARE, &options)?;
    figure.render_png(72.0)?;
    let svg = figure.render_svg()?;
    assert!(svg.contains("細胞") && !svg.contains('\u{0}') && !svg.contains('\u{1}') && svg.contains("&lt;/text&gt;"));
    Ok(())
}

#[test]
fn a_figure_is_saved_by_its_ending() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let figure = one(Panel::new("", Colour::Plain), &SQUARE, &EmbeddingOptions::default())?;
    let path = |name: &str| folder.path().join(name);
    figure.save(&path("a.PNG"), 72.0)?;
    figure.save(&path("a.svg"), 72.0)?;
    let bytes = std::fs::read(path("a.PNG")).expect("the file");
    assert_eq!(Picture::decode(&bytes).width, figure.size().0.ceil() as usize);
    assert!(std::fs::read_to_string(path("a.svg")).expect("the file").starts_with("<svg "));
    let error = figure.save(&path("a.pdf"), 72.0).expect_err("an error").to_string();
    assert!(error.contains(".png or .svg"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 2);
    Ok(())
}

#[test]
fn the_report_is_one_safe_file() -> Result<()> {
    let values = [0.0, 1.0, 2.0, 3.0, 4.0];
    let draw = || one(Panel::new("<script>", Colour::Values(&values)), &SQUARE, &EmbeddingOptions::default());
    let html = Report::new("PBMC <3k> & \"friends\"")
        .with_summary("a < b")
        .with_fact("cells", "2,638 of 2,700")
        .with_heading("Figures")
        .with_figure(draw()?, "one", Embed::Svg)
        .with_figure(draw()?, "two", Embed::Svg)
        .with_figure(draw()?, "three", Embed::Png(72.0))
        .with_table("stages", names(&["stage", "time"]), vec![names(&["read <1>", "3.1 s"])])
        .with_methods("Counts were normalised.")
        .with_footer("cellmill")
        .render()?;
    assert!(html.contains("<title>PBMC &lt;3k&gt; &amp; &quot;friends&quot;</title>"));
    assert!(!html.contains("<script>") && !html.contains("<3k>") && html.contains("read &lt;1&gt;"));
    assert_eq!(html.matches("<svg ").count(), 2);
    assert_eq!(html.matches("src=\"data:image/png;base64,").count(), 1);
    // Nothing is fetched, and no id is used twice.
    assert!(!html.contains("src=\"http") && !html.contains("href=\"http") && !html.contains("@import"));
    let mut ids: Vec<&str> = html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert!(count > 0 && ids.len() == count);
    Ok(())
}

//! `cellmill demo`: everything, on a small real data set that is part of the program.

use std::io::Write;
use std::path::PathBuf;

use cellmill_matrix::{Error, Place};
use cellmill_report::{Embed, Figure, Report};
use cellmill_run::job::Job;
use cellmill_run::recipe::{Recipe, Stage};
use clap::Args;

use crate::Voice;
use crate::figures::Open;
use crate::options::Machine;
use crate::progress::Terminal;

/// 2,700 peripheral blood mononuclear cells, 32,738 genes, of 10x Genomics (CC BY 4.0); see data/SOURCES.md.
const CELLS: &[u8] = include_bytes!("../../../data/pbmc3k.h5ad");

/// Run everything on a small data set.
#[derive(Args)]
pub struct Demo {
    /// Folder for data, results and pictures
    #[arg(default_value = "cellmill-demo")]
    folder: PathBuf,
    #[command(flatten)]
    machine: Machine,
}

impl Demo {
    /// Runs it.
    pub fn run(&self, voice: Voice) -> anyhow::Result<()> {
        let io = |path: &std::path::Path| Place::store(path.display().to_string());
        std::fs::create_dir_all(&self.folder).map_err(|e| Error::io(io(&self.folder), &e))?;
        let input = self.folder.join("pbmc3k.h5ad");
        std::fs::write(&input, CELLS).map_err(|e| Error::io(io(&input), &e))?;
        let output = self.folder.join("pbmc3k_analysed.zarr");
        let mut recipe = Recipe::default();
        recipe.qc.qc_vars.insert("mt".into(), "prefix:MT-".into());
        recipe.filter.cells = "200 <= n_genes_by_counts <= 2500 & pct_counts_mt < 5".into();
        recipe.hvg.n_top_genes = Some(2000);
        recipe.pca.n_comps = Some(50);
        recipe.neighbors.n_pcs = Some(30);
        let job = Job {
            input: input.clone(),
            output: output.clone(),
            format: None,
            overwrite: true,
            in_place: false,
            with_x: None,
            recipe,
            through: Stage::Leiden,
            threads: self.machine.threads()?,
            memory: self.machine.memory()?,
            genome: None,
            spill_dir: None,
            resume: false,
            device: self.machine.device()?,
        };
        let summary = job.run(&Terminal::new(voice.quiet))?;
        let open = Open::new(&output)?;
        let keys = |list: &[&str]| list.iter().map(|k| k.to_string()).collect::<Vec<_>>();
        let umap = open.draw_embedding("umap", &keys(&["leiden", "n_genes_by_counts"]), false, None)?;
        let qc = open.draw_violin(&keys(&["n_genes_by_counts", "total_counts", "pct_counts_mt"]))?;
        let (hvg, variance) = (open.draw_hvg()?, open.draw_variance()?);
        let figures = [
            ("umap", umap, "Cells by UMAP, coloured by Leiden cluster and by genes seen."),
            ("qc", qc, "Quality control of the kept cells."),
            ("hvg", hvg, "Genes: dispersion against mean."),
            ("pca_variance_ratio", variance, "Variance of the principal components."),
        ];
        let mut report = Report::new("cellmill demo: 2,700 blood cells")
            .with_fact("cells kept", summary.kept[0].to_string())
            .with_fact("highly variable genes", summary.n_hvg.to_string())
            .with_fact("clusters", summary.n_clusters.to_string())
            .with_fact("seconds", format!("{:.1}", summary.wall_s));
        for (name, figure, caption) in figures {
            figure.save(&self.folder.join(format!("{name}.png")), Figure::DPI)?;
            report = report.with_figure(figure, caption, Embed::Png(Figure::DPI));
        }
        report.with_methods(summary.methods.clone()).save(&self.folder.join("report.html"))?;
        let mut out = std::io::stdout();
        if voice.json {
            return Ok(writeln!(out, "{}", serde_json::to_string(&summary)?)?);
        }
        let folder = self.folder.display();
        writeln!(
            out,
            "Analysed {} of 2,700 blood cells (PBMC 3k, 10x Genomics) in {:.1} s: QC, {} variable genes, {} components, UMAP, {} clusters.",
            summary.kept[0], summary.wall_s, summary.n_hvg, summary.n_comps, summary.n_clusters
        )?;
        writeln!(out, "Look at {folder}/umap.png or {folder}/report.html; qc.png, hvg.png and pca_variance_ratio.png lie beside them.")?;
        writeln!(
            out,
            "Go on in scanpy: anndata.read_zarr('{}'), or run your own file: cellmill run YOUR.h5ad -o OUT.zarr",
            output.display()
        )?;
        Ok(())
    }
}

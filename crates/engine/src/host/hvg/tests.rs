//! The choice against scanpy's own on made-up counts (tests/data/hvg), and the cases at the edges.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Cells, counts, and scanpy's columns: see tests/data/hvg/make.py.
struct Fixture {
    batch: Vec<char>,
    names: Vec<String>,
    /// Counts by gene, then cell.
    counts: Vec<Vec<f64>>,
    columns: HashMap<String, Vec<f64>>,
}

const N_TOP: usize = 60;

fn fixture() -> Fixture {
    let mut lines = include_str!("../../../../../tests/data/hvg/counts.tsv").lines();
    let batch = lines.next().unwrap().chars().collect();
    let header: Vec<&str> = lines.next().unwrap().split('\t').collect();
    let mut all = Fixture { batch, names: Vec::new(), counts: Vec::new(), columns: HashMap::new() };
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        all.names.push(fields[0].to_owned());
        all.counts.push(fields[1].chars().map(|digit| f64::from(digit.to_digit(36).unwrap())).collect());
        for (name, field) in header.iter().zip(&fields).skip(2) {
            all.columns.entry((*name).to_owned()).or_default().push(field.parse().unwrap());
        }
    }
    all
}

impl Fixture {
    fn cells(&self, batch: Option<char>) -> Vec<usize> {
        (0..self.batch.len()).filter(|cell| batch.is_none_or(|batch| batch == self.batch[*cell])).collect()
    }

    /// log1p of counts for 10,000 in each cell.
    fn logged(&self) -> Vec<Vec<f64>> {
        let total: Vec<f64> = (0..self.batch.len()).map(|cell| self.counts.iter().map(|gene| gene[cell]).sum()).collect();
        self.counts.iter().map(|gene| gene.iter().zip(&total).map(|(x, total)| (x / total * 1e4).ln_1p()).collect()).collect()
    }

    fn column(&self, name: &str) -> &[f64] {
        &self.columns[name]
    }
}

/// Means and variances (ddof 1) in two passes.
fn moments_of(values: &[Vec<f64>], cells: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let n = cells.len() as f64;
    let mean: Vec<f64> = values.iter().map(|gene| cells.iter().map(|cell| gene[*cell]).sum::<f64>() / n).collect();
    let squares = |gene: &Vec<f64>, mean: f64| cells.iter().map(|cell| (gene[*cell] - mean).powi(2)).sum::<f64>();
    let var = values.iter().zip(&mean).map(|(gene, mean)| squares(gene, *mean) / (n - 1.0)).collect();
    (mean, var)
}

/// Equal to 9 digits, NaN and infinities in the same places.
fn assert_close(found: &[f64], expected: &[f64], rel: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (gene, (found, expected)) in found.iter().zip(expected).enumerate() {
        let same = found == expected || (found.is_nan() && expected.is_nan());
        assert!(same || (found - expected).abs() <= rel * expected.abs().max(1e-3), "{what}, gene {gene}: {found}, scanpy {expected}");
    }
}

fn numbers(flags: &[bool]) -> Vec<f64> {
    flags.iter().map(|flag| f64::from(u8::from(*flag))).collect()
}

#[test]
fn dispersions_as_scanpy() {
    let data = fixture();
    for flavor in [Flavor::Seurat, Flavor::CellRanger] {
        let mut values = data.logged();
        if flavor == Flavor::Seurat {
            values.iter_mut().flatten().for_each(|value| *value = value.exp_m1());
        }
        for (tag, batches) in [("", vec![None]), ("/batch", vec![Some('a'), Some('b')])] {
            let cells: Vec<Vec<usize>> = batches.iter().map(|batch| data.cells(*batch)).collect();
            let owned: Vec<_> = cells.iter().map(|cells| moments_of(&values, cells)).collect();
            let moments: Vec<Moments> =
                owned.iter().zip(&cells).map(|((mean, var), cells)| Moments { n_obs: cells.len() as u64, mean, var }).collect();
            for (cut, n_top_genes) in [("", Some(N_TOP)), ("/cut", None)] {
                let options = Options { n_top_genes, ..Options::default() };
                let found = match moments.as_slice() {
                    [moments] => dispersions(moments, flavor, &options).unwrap(),
                    batches => dispersions_by_batch(batches, Some(&data.names), flavor, &options).unwrap(),
                };
                let name = format!("{}{tag}", flavor.name());
                let chosen = format!("{name}/highly_variable{cut}");
                assert_close(&numbers(&found.highly_variable), data.column(&chosen), 0.0, &chosen);
                if n_top_genes.is_none() {
                    continue;
                }
                let norms: Vec<f64> = found.dispersions_norm.iter().map(|norm| f64::from(*norm)).collect();
                assert_close(&norms, data.column(&format!("{name}/dispersions_norm")), 1e-6, &name);
                if let Some(nbatches) = found.nbatches {
                    let nbatches: Vec<f64> = nbatches.iter().map(|count| *count as f64).collect();
                    assert_close(&nbatches, data.column(&format!("{name}/highly_variable_nbatches")), 0.0, &name);
                    let both: Vec<bool> = nbatches.iter().map(|count| *count == 2.0).collect();
                    assert_eq!(found.intersection.unwrap(), both);
                }
            }
        }
    }
}

#[test]
fn variances_as_scanpy() {
    let data = fixture();
    let (mean, var) = moments_of(&data.counts, &data.cells(None));
    let overall = Moments { n_obs: data.batch.len() as u64, mean: &mean, var: &var };
    for (tag, batches) in [("", vec![None]), ("/batch", vec![Some('a'), Some('b')])] {
        let mut fits = Vec::new();
        let mut sums = Vec::new();
        for cells in batches.iter().map(|batch| data.cells(*batch)) {
            let (mean, var) = moments_of(&data.counts, &cells);
            let fit = fit(&Moments { n_obs: cells.len() as u64, mean: &mean, var: &var }, 0.3).unwrap();
            let over = |power: i32| -> Vec<f64> {
                let clipped = |gene: usize, cell: usize| data.counts[gene][cell].min(fit.clip[gene]).powi(power);
                (0..data.names.len()).map(|gene| cells.iter().map(|cell| clipped(gene, *cell)).sum()).collect()
            };
            sums.push((over(1), over(2)));
            fits.push(fit);
        }
        let sums: Vec<ClippedSums> = sums.iter().map(|(sum, squares)| ClippedSums { sum, squares }).collect();
        for flavor in [Flavor::SeuratV3, Flavor::SeuratV3Paper] {
            let options = Options { n_top_genes: Some(N_TOP), ..Options::default() };
            let found = rank(&overall, &fits, &sums, flavor, &options).unwrap();
            assert_eq!(found.warnings, Vec::<String>::new());
            let chosen = format!("{}{tag}/highly_variable", flavor.name());
            assert_close(&numbers(&found.highly_variable), data.column(&chosen), 0.0, &chosen);
            assert_close(&found.variances_norm, data.column(&format!("seurat_v3{tag}/variances_norm")), 1e-8, &chosen);
            let ranks: Vec<f64> = found.highly_variable_rank.iter().map(|rank| f64::from(*rank)).collect();
            assert_close(&ranks, data.column(&format!("seurat_v3{tag}/highly_variable_rank")), 0.0, &chosen);
            assert_eq!((&found.means, &found.variances), (&mean, &var));
            if let Some(expected) = data.columns.get(&format!("seurat_v3{tag}/highly_variable_nbatches")) {
                let nbatches: Vec<f64> = found.highly_variable_nbatches.iter().map(|count| *count as f64).collect();
                assert_close(&nbatches, expected, 0.0, &chosen);
            }
        }
    }
}

#[test]
fn the_two_v3_flavours_differ_over_batches() {
    let data = fixture();
    assert_ne!(data.column("seurat_v3/batch/highly_variable"), data.column("seurat_v3_paper/batch/highly_variable"));
}

/// Moments of `n` genes with distinct means and variances.
fn gradual(n: usize) -> (Vec<f64>, Vec<f64>) {
    (0..n).map(|i| (0.1 + i as f64 * 0.01, 0.2 + ((i * 37) % 101) as f64 * 0.01)).unzip()
}

#[test]
fn a_bin_of_one_gene_normalises_to_one() {
    // Means 0, 1 and 100: each alone in its bin of 20; the fourth gene does not vary.
    let (mean, var) = ([0.0, 1.0, 100.0, 30.0], [0.0, 3.0, 700.0, 0.0]);
    let found = dispersions(&Moments { n_obs: 9, mean: &mean, var: &var }, Flavor::Seurat, &Options::default()).unwrap();
    assert!(found.dispersions_norm[0].is_nan() && found.dispersions_norm[3].is_nan());
    assert_eq!(found.dispersions_norm[1..3], [1.0, 1.0]);
    assert_eq!(found.highly_variable, [false, true, false, false]);
}

#[test]
fn nan_stays_with_its_gene() {
    let (mut mean, mut var) = gradual(200);
    for flavor in [Flavor::Seurat, Flavor::CellRanger] {
        let options = Options { n_top_genes: Some(20), ..Options::default() };
        let clean = dispersions(&Moments { n_obs: 50, mean: &mean, var: &var }, flavor, &options).unwrap();
        mean.push(f64::NAN);
        var.push(f64::NAN);
        let found = dispersions(&Moments { n_obs: 50, mean: &mean, var: &var }, flavor, &options).unwrap();
        assert_eq!(found.dispersions_norm[..200], clean.dispersions_norm[..]);
        assert_eq!(found.highly_variable[..200], clean.highly_variable[..]);
        assert!(!found.highly_variable[200] && found.dispersions_norm[200].is_nan());
        mean.pop();
        var.pop();
    }
}

#[test]
fn without_variation_nothing_is_chosen() {
    for flavor in [Flavor::Seurat, Flavor::CellRanger] {
        for (mean, options) in [
            (vec![0.0; 30], Options::default()),
            (vec![2.0; 3], Options { n_bins: 50, ..Options::default() }),
            (vec![], Options { n_top_genes: Some(5), ..Options::default() }),
        ] {
            let var = vec![0.0; mean.len()];
            let moments = Moments { n_obs: 10, mean: &mean, var: &var };
            assert!(!dispersions(&moments, flavor, &options).unwrap().highly_variable.contains(&true), "{flavor:?}");
            let found = dispersions_by_batch(&[moments, moments], None, flavor, &Options { n_top_genes: None, ..options }).unwrap();
            assert!(!found.highly_variable.contains(&true));
        }
    }
}

#[test]
fn a_batch_of_one_cell_chooses_nothing() {
    let (mean, var) = gradual(120);
    let large = Moments { n_obs: 50, mean: &mean, var: &var };
    let zeros = vec![0.0; 120];
    let one = Moments { n_obs: 1, mean: &mean, var: &zeros };
    let options = Options { n_top_genes: Some(10), ..Options::default() };
    for flavor in [Flavor::Seurat, Flavor::CellRanger] {
        let alone = dispersions(&large, flavor, &options).unwrap();
        let found = dispersions_by_batch(&[large, one], None, flavor, &options).unwrap();
        assert_eq!(found.highly_variable, alone.highly_variable);
        assert_eq!(found.dispersions_norm, alone.dispersions_norm);
        assert_eq!(found.nbatches.unwrap().iter().max(), Some(&1));
        assert!(found.warnings.iter().any(|text| text.starts_with("batch 1: fewer than 2 cells")), "{:?}", found.warnings);
    }
    assert!(fit(&one, 0.3).is_err());
}

#[test]
fn more_genes_asked_for_than_there_are() {
    let (mean, var) = gradual(90);
    let moments = Moments { n_obs: 50, mean: &mean, var: &var };
    let options = Options { n_top_genes: Some(1000), ..Options::default() };
    let found = dispersions(&moments, Flavor::CellRanger, &options).unwrap();
    assert!(found.highly_variable.iter().all(|chosen| *chosen));
    assert_eq!(found.warnings.len(), 1);
    let fit = fit(&moments, 0.3).unwrap();
    let sums: (Vec<f64>, Vec<f64>) = (mean.iter().map(|m| m * 50.0).collect(), mean.iter().map(|m| m * m * 60.0).collect());
    let sums = [ClippedSums { sum: &sums.0, squares: &sums.1 }];
    let found = rank(&moments, &[fit], &sums, Flavor::SeuratV3, &options).unwrap();
    assert!(found.highly_variable.iter().all(|chosen| *chosen));
}

#[test]
fn ties_at_the_cutoff_are_all_chosen() {
    let mean = vec![1.0; 40];
    let var: Vec<f64> = (0..40).map(|gene| if gene < 5 { 9.0 } else { 1.0 + f64::from(gene) / 100.0 }).collect();
    let options = Options { n_top_genes: Some(3), ..Options::default() };
    let found = dispersions(&Moments { n_obs: 50, mean: &mean, var: &var }, Flavor::Seurat, &options).unwrap();
    assert_eq!(found.highly_variable.iter().filter(|chosen| **chosen).count(), 5);
}

#[test]
fn names_settle_ties_over_batches() {
    // Two genes with the same moments; one place for both.
    let (mut mean, mut var) = gradual(200);
    (mean[150], var[150]) = (mean[3], 50.0);
    var[3] = 50.0;
    let moments = Moments { n_obs: 50, mean: &mean, var: &var };
    let options = Options { n_top_genes: Some(1), ..Options::default() };
    let by_place = dispersions_by_batch(&[moments, moments], None, Flavor::CellRanger, &options).unwrap();
    assert_eq!(by_place.highly_variable.iter().position(|chosen| *chosen), Some(3));
    let names: Vec<String> = (0..200).map(|gene| format!("{:03}", 199 - gene)).collect();
    let by_name = dispersions_by_batch(&[moments, moments], Some(&names), Flavor::CellRanger, &options).unwrap();
    assert_eq!(by_name.highly_variable.iter().position(|chosen| *chosen), Some(150));
    assert_eq!(by_name.highly_variable.iter().filter(|chosen| **chosen).count(), 1);
}

#[test]
fn options_are_checked() {
    let (mean, var) = gradual(40);
    let moments = Moments { n_obs: 50, mean: &mean, var: &var };
    let default = Options::default();
    for wrong in [
        Options { n_top_genes: Some(0), ..default.clone() },
        Options { n_bins: 0, ..default.clone() },
        Options { n_bins: usize::MAX, ..default.clone() },
        Options { min_disp: f64::NAN, ..default.clone() },
        Options { span: 1.5, ..default.clone() },
    ] {
        assert!(dispersions(&moments, Flavor::Seurat, &wrong).is_err(), "{wrong:?}");
    }
    assert!(fit(&moments, 0.0).is_err() && fit(&moments, 0.05).is_err());
    assert!(dispersions(&moments, Flavor::SeuratV3, &default).is_err());
    assert!(dispersions(&Moments { var: &var[1..], ..moments }, Flavor::Seurat, &default).is_err());
    assert!(dispersions_by_batch(&[], None, Flavor::Seurat, &default).is_err());
    assert!(
        dispersions_by_batch(&[moments, Moments { mean: &mean[1..], var: &var[1..], n_obs: 3 }], None, Flavor::Seurat, &default).is_err()
    );
    let negative: Vec<f64> = mean.iter().map(|mean| -mean).collect();
    assert!(fit(&Moments { mean: &negative, ..moments }, 0.3).is_err());
    let ignored = Options { n_top_genes: Some(5), max_mean: 7.0, ..default };
    assert_eq!(dispersions(&moments, Flavor::Seurat, &ignored).unwrap().warnings.len(), 1);
}

#[test]
fn options_have_scanpys_names() {
    let read: Options = serde_json::from_str(r#"{"n_top_genes": 500, "n_bins": 30}"#).unwrap();
    assert_eq!(read, Options { n_top_genes: Some(500), n_bins: 30, ..Options::default() });
    for flavor in [Flavor::Seurat, Flavor::CellRanger, Flavor::SeuratV3, Flavor::SeuratV3Paper] {
        assert_eq!(serde_json::to_string(&flavor).unwrap(), format!("\"{}\"", flavor.name()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The order of the genes does not matter: no gene's result depends on its place.
    #[test]
    fn genes_may_be_turned(
        genes in proptest::collection::vec((0.0f64..4.0, 0.0f64..9.0), 1..120),
        turn in 0usize..120,
        n_top_genes in proptest::option::of(1usize..60),
    ) {
        let turned = |column: &[f64]| { let mut c = column.to_vec(); c.rotate_left(turn % column.len()); c };
        let (mean, var): (Vec<f64>, Vec<f64>) = genes.into_iter().unzip();
        let (mean_turned, var_turned) = (turned(&mean), turned(&var));
        let options = Options { n_top_genes, ..Options::default() };
        for flavor in [Flavor::Seurat, Flavor::CellRanger] {
            let found = dispersions(&Moments { n_obs: 30, mean: &mean, var: &var }, flavor, &options).unwrap();
            let after = dispersions(&Moments { n_obs: 30, mean: &mean_turned, var: &var_turned }, flavor, &options).unwrap();
            let norms: Vec<f64> = found.dispersions_norm.iter().map(|norm| f64::from(*norm)).collect();
            let norms_after: Vec<f64> = after.dispersions_norm.iter().map(|norm| f64::from(*norm)).collect();
            assert_close(&norms_after, &turned(&norms), 1e-5, "norms");
            // Chosen are the largest norms that exist, with their ties.
            if let Some(n) = n_top_genes {
                let mut sorted: Vec<f32> = found.dispersions_norm.iter().copied().filter(|norm| !norm.is_nan()).collect();
                sorted.sort_by(|a, b| b.total_cmp(a));
                let chosen = found.highly_variable.iter().filter(|chosen| **chosen).count();
                if sorted.iter().all(|norm| norm.is_finite()) {
                    prop_assert!(chosen >= n.min(sorted.len()) && chosen <= sorted.len());
                }
            }
        }
    }

    /// A batch of its own is chosen as without batches, if no gene is empty there.
    #[test]
    fn one_batch_is_all_cells(genes in proptest::collection::vec((0.01f64..4.0, 0.01f64..9.0), 1..80)) {
        let (mean, var): (Vec<f64>, Vec<f64>) = genes.into_iter().unzip();
        let moments = Moments { n_obs: 30, mean: &mean, var: &var };
        let found = dispersions(&moments, Flavor::Seurat, &Options::default()).unwrap();
        let batch = dispersions_by_batch(&[moments], None, Flavor::Seurat, &Options::default()).unwrap();
        prop_assert_eq!(&found.highly_variable, &batch.highly_variable);
        prop_assert_eq!(found.means, batch.means);
        prop_assert_eq!(Some(found.highly_variable), batch.intersection);
    }
}

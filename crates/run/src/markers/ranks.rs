//! Wilcoxon's rank sum test of every gene. Entries are gathered gene by gene: of all genes in one pass where that fits under the memory
//! ceiling, else of a run of genes a pass.

use cellmill_engine::exec::TASK_ROWS;
use cellmill_engine::fold::{ByGene, Genes, Grouped, GroupedStats};
use cellmill_engine::host::rank::{GeneRanks, Ranks, pair};
use cellmill_matrix::{Error, ErrorKind, Result, Watch};
use rayon::prelude::*;

use super::{Markers, Options, Scores};
use crate::grouped::on_gpus;
use crate::plan::densest_task;
use crate::view::{Groups, View, mask_of, runs};

/// Groups up to this size are small for the normal approximation (scanpy's bound).
const FEW: u64 = 25;

/// Says which groups are small.
pub(super) fn warn_of_few(sizes: &[u64], against: &[u32], reference: Option<u32>, warnings: &mut Vec<String>) {
    let few = against.iter().chain(&reference).filter(|g| sizes[**g as usize] <= FEW).count();
    if few > 0 && reference.is_some() {
        warnings.push(format!("{few} groups have at most {FEW} cells: the normal approximation of rank sums is rough there"));
    }
}

/// Bytes of entries of tasks on their way.
fn open_bytes(view: &View<'_>) -> u64 {
    densest_task(view.feed.source) * ByGene::OPEN_BYTES * rayon::current_num_threads() as u64
}

/// Bytes of the tables that say where each gene of each task begins.
fn starts_bytes(view: &View<'_>, genes: usize) -> u64 {
    view.feed.source.shape().n_obs.div_ceil(TASK_ROWS) * (genes as u64 + 1) * 4
}

/// Whether statistics and entries of all genes fit in memory together.
pub(super) fn fits(view: &View<'_>, groups: &Groups<'_>) -> bool {
    let stats = Grouped { n_vars: view.n_vars, n_groups: groups.names.len() }.state_bytes() * (view.states() + 1);
    let entries = view.entries() * ByGene::ENTRY_BYTES + starts_bytes(view, view.n_vars) + open_bytes(view);
    view.flight_bytes() + stats + entries <= view.memory
}

/// What ranks are made of: what one pass has found of all genes.
pub(super) enum Entries {
    /// Their entries.
    Listed(Vec<Genes>),
    /// Their rank sums.
    Ranked(Vec<GeneRanks>),
}

/// Statistics and rank sums of all genes among all cells by a GPU, if there is one that is fit for it.
pub(super) fn by_gpu(
    view: &View<'_>,
    groups: &Groups<'_>,
    options: &Options,
    out: &mut Markers,
    watch: &dyn Watch,
) -> Result<Option<(GroupedStats, Vec<GeneRanks>)>> {
    if !options.is_for_gpus() {
        return Ok(None);
    }
    let (found, reads) = on_gpus(view, groups, true, watch)?;
    out.reads += reads;
    Ok(found.and_then(|found| Some((found.stats?, found.ranks))))
}

/// Statistics and entries of all genes, and whether the source was decoded.
pub(super) fn one_pass(view: &View<'_>, groups: &Groups<'_>, watch: &dyn Watch) -> Result<(GroupedStats, Vec<Genes>, u32)> {
    let grouped = Grouped { n_vars: view.n_vars, n_groups: groups.names.len() };
    let done = view.pass(&view.steps(), &(grouped, ByGene { n_vars: view.n_vars }), Some(groups.codes), watch)?;
    let (stats, genes) = done.output;
    Ok((stats, genes, u32::from(done.decoded)))
}

/// What is asked of every gene.
pub(super) struct Ask<'a> {
    /// Groups that are tested.
    pub against: &'a [u32],
    /// The group that they are compared with.
    pub reference: Option<u32>,
    /// Cells of each group, those of no group last.
    pub sizes: &'a [u64],
    pub options: &'a Options,
}

impl Ask<'_> {
    /// Gathers runs of genes, a pass each.
    pub fn in_runs(
        &self,
        view: &View<'_>,
        groups: &Groups<'_>,
        stats: &GroupedStats,
        out: &mut Markers,
        watch: &dyn Watch,
    ) -> Result<Vec<Scores>> {
        let all = || stats.groups.iter().chain([&stats.rest]);
        let weights: Vec<u64> =
            (0..view.n_vars).map(|j| all().map(|g| g.n_cells[j]).sum::<u64>() * ByGene::ENTRY_BYTES + starts_bytes(view, 0)).collect();
        let total: u64 = weights.iter().sum::<u64>().max(1);
        let kept = Grouped { n_vars: view.n_vars, n_groups: groups.names.len() }.state_bytes()
            + self.against.len() as u64 * view.n_vars as u64 * 16
            + view.flight_bytes();
        // What is on its way grows with the share of the genes that a pass takes: room = run + open · run / total.
        let room = view.memory.saturating_sub(kept) as f64;
        let most = (room / (1.0 + open_bytes(view) as f64 / total as f64)) as u64;
        let heaviest = weights.iter().copied().max().unwrap_or(0);
        if heaviest > most {
            let what = "the ranks of one gene".to_string();
            return Err(ErrorKind::Budget { what, needs: kept + heaviest * 2, ceiling: view.memory }.into());
        }
        let mut scores: Vec<Scores> = self.against.iter().map(|_| Scores::default()).collect();
        for run in runs(&weights, most) {
            let steps = view.steps_of(&mask_of(&run, view.n_vars));
            let done = view.pass(&steps, &ByGene { n_vars: run.len() }, Some(groups.codes), watch)?;
            out.passes += 1;
            out.reads += u32::from(done.decoded);
            for (all, (z, p)) in scores.iter_mut().zip(self.of_genes(&done.output, run.len())) {
                all.0.extend(z);
                all.1.extend(p);
            }
        }
        match scores.iter().all(|s| s.0.len() == view.n_vars) {
            true => Ok(scores),
            false => Err(Error::bug("runs of genes do not cover all genes")),
        }
    }

    /// Scores and p-values of gathered genes.
    pub fn of_genes(&self, parts: &[Genes], n_vars: usize) -> Vec<Scores> {
        let largest = || parts.par_iter().map(|p| p.values.iter().copied().fold(0.0, f32::max)).reduce(|| 0.0, f32::max);
        let step = self.options.n_bins.map(|bins| largest() / bins as f32).filter(|s| *s > 0.0);
        let new = || (Ranks::new(self.sizes), Vec::new(), Vec::new());
        let by_gene: Vec<Vec<(f64, f64)>> = (0..n_vars)
            .into_par_iter()
            .map_init(new, |(ranks, lists, binned), j| {
                ranks.clear();
                for part in parts {
                    let (values, groups) = part.gene(j);
                    match step {
                        None => ranks.add(values, groups),
                        Some(step) => {
                            binned.clear();
                            binned.extend(values.iter().map(|v| (v / step).ceil()));
                            ranks.add(binned, groups);
                        }
                    }
                }
                self.test(ranks, lists)
            })
            .collect();
        (0..self.against.len()).map(|k| by_gene.iter().map(|gene| gene[k]).unzip()).collect()
    }

    /// Scores and p-values from rank sums of all genes.
    pub fn of_ranks(&self, genes: &[GeneRanks]) -> Vec<Scores> {
        let by_gene: Vec<Vec<(f64, f64)>> = genes.par_iter().map(|gene| self.among_all(gene)).collect();
        (0..self.against.len()).map(|k| by_gene.iter().map(|gene| gene[k]).unzip()).collect()
    }

    fn score(&self, twice: u64, cubes: f64, n: u64, n_all: u64) -> (f64, f64) {
        let Options { tie_correct, use_continuity, return_u_values, .. } = *self.options;
        let (z, p) = GeneRanks::test(twice, tie_correct.then_some(cubes), use_continuity, n, n_all);
        // U = R − n (n + 1) / 2.
        (if return_u_values { (twice as f64 - (n * (n + 1)) as f64) / 2.0 } else { z }, p)
    }

    /// Scores and p-values of one gene, of groups among all cells.
    fn among_all(&self, all: &GeneRanks) -> Vec<(f64, f64)> {
        let n_all = self.sizes.iter().sum();
        let of = |&g: &u32| self.score(all.twice[g as usize], all.ties, self.sizes[g as usize], n_all);
        self.against.iter().map(of).collect()
    }

    /// Scores and p-values of one gene.
    fn test(&self, ranks: &mut Ranks, lists: &mut Vec<Vec<u32>>) -> Vec<(f64, f64)> {
        let Some(reference) = self.reference else { return self.among_all(ranks.all()) };
        ranks.by_group(lists);
        let list = |g: u32| (&lists[g as usize][..], self.sizes[g as usize]);
        let of = |&g: &u32| {
            let (own, other) = (list(g), list(reference));
            let (twice, cubes) = pair(own, other);
            self.score(twice, cubes, own.1, own.1 + other.1)
        };
        self.against.iter().map(of).collect()
    }
}

//! `rank_genes_groups`: the genes that mark each group of cells. t-tests take one pass; exact rank sums take a pass more for each run of
//! genes whose entries fit in memory.

mod job;
mod logistic;
mod ranks;
mod table;

use std::fmt;
use std::sync::Arc;

use cellmill_engine::fold::{GroupStats, GroupedStats};
use cellmill_engine::host::rank::{Sample, benjamini_hochberg, best_first, bonferroni, log_fold_change, log2_ratio, welch};
use cellmill_engine::recipe::Step;
use cellmill_matrix::{Error, Result, Watch};
use rayon::prelude::*;

pub use self::job::{Gene, Group, Job, Output, Summary};
use self::ranks::Entries;
pub use self::table::{Params, table, uns};
use crate::grouped::{check_sizes, grouped};
use crate::view::{Groups, View};
use crate::wide;

/// How groups are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Welch's t-test.
    #[default]
    TTest,
    /// The same with the group's own size for both, which overestimates the variance of small groups' tests.
    TTestOverestimVar,
    /// Wilcoxon's rank sum test, exact ranks.
    Wilcoxon,
    /// The coefficients of a logistic regression; no p-values.
    LogReg,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 4] = [Method::TTest, Method::TTestOverestimVar, Method::Wilcoxon, Method::LogReg];

    /// scanpy's name.
    pub fn name(self) -> &'static str {
        match self {
            Method::TTest => "t-test",
            Method::TTestOverestimVar => "t-test_overestim_var",
            Method::Wilcoxon => "wilcoxon",
            Method::LogReg => "logreg",
        }
    }

    /// The method of that name.
    pub fn of_name(name: &str) -> Result<Method> {
        let names: Vec<&str> = Method::ALL.iter().map(|m| m.name()).collect();
        let found = Method::ALL.into_iter().find(|m| m.name() == name);
        found.ok_or_else(|| Error::option("method", format!("'{name}'"), format!("it is one of {}", names.join(", "))))
    }
}

/// How p-values of many genes are corrected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Correction {
    /// The false discovery rate of Benjamini & Hochberg.
    #[default]
    BenjaminiHochberg,
    /// p times the number of genes.
    Bonferroni,
}

impl Correction {
    /// scanpy's name.
    pub fn name(self) -> &'static str {
        match self {
            Correction::BenjaminiHochberg => "benjamini-hochberg",
            Correction::Bonferroni => "bonferroni",
        }
    }

    /// The correction of that name.
    pub fn of_name(name: &str) -> Result<Correction> {
        match name {
            "benjamini-hochberg" => Ok(Correction::BenjaminiHochberg),
            "bonferroni" => Ok(Correction::Bonferroni),
            _ => Err(Error::option("corr_method", format!("'{name}'"), "it is benjamini-hochberg or bonferroni")),
        }
    }
}

/// scanpy's options, with its defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How groups are compared.
    pub method: Method,
    /// Groups that are tested, by number; empty: all. Cells of other groups still belong to the rest.
    pub groups: Vec<u32>,
    /// The group that others are compared with; `None`: with all other cells.
    pub reference: Option<u32>,
    /// Genes that are listed for each group; `None`: all.
    pub n_genes: Option<usize>,
    /// Whether genes are ordered by the size of the score, not by the score.
    pub rankby_abs: bool,
    /// Whether the shares of cells that express a gene are wanted.
    pub pts: bool,
    /// How p-values are corrected.
    pub correction: Correction,
    /// Whether ties lower the variance of rank sums.
    pub tie_correct: bool,
    /// Whether rank sums are brought half a rank nearer to what is expected.
    pub use_continuity: bool,
    /// Whether scores of rank sums are Mann and Whitney's U, not z.
    pub return_u_values: bool,
    /// Rank sums of values in so many steps of equal width up to the largest value, rather than of the values themselves: near the exact
    /// scores, cheaper to sort. At least 2.
    pub n_bins: Option<usize>,
    /// Whether fold changes (and t-tests) are of means of the values before the logarithm, not of means of logarithms.
    pub means_of_expm1: bool,
    /// The base of the logarithm that the values are; `None`: natural.
    pub log_base: Option<f64>,
    /// How a logistic regression is solved.
    pub regression: Regression,
    /// Who puts genes in order; `None`: of genes of equal score the first wins.
    pub order: Option<Order>,
}

impl Options {
    /// Whether GPUs know what is asked of the groups: their sums, or their ranks among all cells.
    pub fn is_for_gpus(&self) -> bool {
        match self.method {
            Method::LogReg => false,
            Method::Wilcoxon => self.reference.is_none() && self.n_bins.is_none(),
            Method::TTest | Method::TTestOverestimVar => true,
        }
    }
}

/// Gives the places of so many of some scores, `(n_vars,)`, best first.
pub type BestFirst = dyn Fn(&[f64], usize) -> Result<Vec<u32>> + Send + Sync;

/// Who puts genes in order.
#[derive(Clone)]
pub struct Order(pub Arc<BestFirst>);

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Order")
    }
}

/// scikit-learn's options of `LogisticRegression`, with its defaults.
#[derive(Clone, Copy, Debug)]
pub struct Regression {
    /// Inverse strength of the penalty, above 0: mean loss + Σ w² / (2 C n).
    pub c: f64,
    /// No derivative of the mean loss exceeds this at the end.
    pub tol: f64,
    /// Steps of the solver at most; each is one pass over the rows, or few.
    pub max_iter: usize,
}

impl Default for Regression {
    fn default() -> Self {
        Regression { c: 1.0, tol: 1e-4, max_iter: 100 }
    }
}

/// The genes of one group, best first.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// The group.
    pub group: u32,
    /// Genes by number.
    pub genes: Vec<u32>,
    /// Score of each.
    pub scores: Vec<f64>,
    /// What the tests say of each; a regression says nothing.
    pub tests: Option<Tests>,
}

/// What tests say of genes.
#[derive(Clone, Debug)]
pub struct Tests {
    /// p-values.
    pub pvals: Vec<f64>,
    /// Corrected p-values.
    pub pvals_adj: Vec<f64>,
    /// log2 of the ratio of mean expressions.
    pub log_fold_changes: Vec<f64>,
}

/// Shares of cells that express each gene, for each group: `(groups, n_vars)`.
#[derive(Clone, Debug)]
pub struct Shares {
    /// The groups.
    pub groups: Vec<u32>,
    /// In the group.
    pub within: Vec<Vec<f64>>,
    /// In the other cells; only where these are the reference.
    pub rest: Option<Vec<Vec<f64>>>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Markers {
    /// Each tested group.
    pub ranked: Vec<Ranked>,
    /// Whether scores are U values, of which f32 does not hold large ones.
    pub u_values: bool,
    /// Shares of cells, if wanted.
    pub shares: Option<Shares>,
    /// Passes over the rows.
    pub passes: u32,
    /// Passes that decoded the source.
    pub reads: u32,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Score and p-value of every gene: `(n_vars,)` each.
type Scores = (Vec<f64>, Vec<f64>);

/// Ranks the genes of each group. Work happens in the installed rayon pool.
pub fn rank_genes_groups(view: &View<'_>, groups: &Groups<'_>, options: &Options, watch: &dyn Watch) -> Result<Markers> {
    view.check()?;
    view.check_codes(groups.codes)?;
    let tested = tested(groups, options)?;
    if let Some(sizes) = view.sizes(groups) {
        check_sizes(&sizes, &tested, groups.names, 2)?;
    }
    let u_values = options.return_u_values && options.method == Method::Wilcoxon;
    let mut out = Markers { ranked: Vec::new(), u_values, shares: None, passes: 1, reads: 0, warnings: Vec::new() };
    if options.method == Method::LogReg {
        return logistic::rank(view, groups, &tested, options, out, watch);
    }
    let values: Vec<Step> = view.values.iter().cloned().chain([Step::Expm1 { base: options.log_base }]).collect();
    let linear = View { values: &values, ..*view };
    let together = options.method == Method::Wilcoxon && ranks::fits(view, groups);
    let by_gpu = match options.method {
        Method::Wilcoxon => ranks::by_gpu(view, groups, options, &mut out, watch)?,
        _ => None,
    };
    let (stats, genes) = if let Some((stats, ranks)) = by_gpu {
        (stats, Some(Entries::Ranked(ranks)))
    } else if together {
        let (stats, genes, reads) = ranks::one_pass(view, groups, watch)?;
        out.reads += reads;
        let stats = wide::grouped(view, groups, watch)?.unwrap_or(stats);
        (stats, Some(Entries::Listed(genes)))
    } else {
        // What a GPU could not rank, the CPU sums, too: the rows that it reads for that are staged for the ranks.
        let alone = View { gpus: &[], ..*view };
        let view = if options.method == Method::Wilcoxon && options.is_for_gpus() { &alone } else { view };
        let tests_linear = options.means_of_expm1 && options.method != Method::Wilcoxon;
        let (stats, reads) = grouped(if tests_linear { &linear } else { view }, groups, watch)?;
        out.reads += reads;
        (stats, None)
    };
    let sizes: Vec<u64> = stats.groups.iter().chain([&stats.rest]).map(|g| g.n_obs).collect();
    check_sizes(&sizes, &tested, groups.names, 2)?;
    let against: Vec<u32> = tested.iter().copied().filter(|g| Some(*g) != options.reference).collect();
    let scores = match options.method {
        Method::Wilcoxon => {
            ranks::warn_of_few(&sizes, &against, options.reference, &mut out.warnings);
            let ask = ranks::Ask { against: &against, reference: options.reference, sizes: &sizes, options };
            match genes {
                Some(Entries::Ranked(genes)) => ask.of_ranks(&genes),
                Some(Entries::Listed(genes)) => ask.of_genes(&genes, view.n_vars),
                None => ask.in_runs(view, groups, &stats, &mut out, watch)?,
            }
        }
        _ => t_tests(&stats, &against, options),
    };
    let ranked_linear = match options.method {
        Method::Wilcoxon if options.means_of_expm1 => {
            let (stats, reads) = grouped(&linear, groups, watch)?;
            out.passes += 1;
            out.reads += reads;
            Some(stats)
        }
        _ => None,
    };
    let means = ranked_linear.as_ref().unwrap_or(&stats);
    let other = |group: u32| match options.reference {
        Some(reference) => Other::Group(&means.groups[reference as usize]),
        None => Other::Rest(complement_of_sums(means, group)),
    };
    let list = |(&group, (scores, pvals)): (&u32, (Vec<f64>, Vec<f64>))| {
        let reference = other(group);
        let own = &means.groups[group as usize];
        let change = |j: usize| match options.means_of_expm1 {
            true => log2_ratio(own.mean(j), reference.mean(j)),
            false => log_fold_change(own.mean(j), reference.mean(j), options.log_base),
        };
        listed(group, &scores, Some((&pvals[..], &change as &dyn Fn(usize) -> f64)), options)
    };
    out.ranked = against.par_iter().zip(scores).map(list).collect::<Result<_>>()?;
    if options.pts {
        let within = tested.iter().map(|&g| (0..view.n_vars).map(|j| stats.groups[g as usize].share(j)).collect()).collect();
        let rest = options.reference.is_none().then(|| tested.iter().map(|&g| rest_shares(&stats, g)).collect());
        out.shares = Some(Shares { groups: tested, within, rest });
    }
    Ok(out)
}

/// The groups that are tested, in the order in which they are shown; the reference is one of them.
fn tested(groups: &Groups<'_>, options: &Options) -> Result<Vec<u32>> {
    let n = groups.names.len() as u32;
    let mut tested = if options.groups.is_empty() { (0..n).collect() } else { options.groups.clone() };
    if let Some(reference) = options.reference.filter(|r| !tested.contains(r)) {
        tested.push(reference);
    }
    if tested.iter().any(|g| *g >= n) || n >= u32::from(u16::MAX) {
        return Err(Error::bug(format!("groups {tested:?} of {n}")));
    }
    let compared = tested.len() - usize::from(options.reference.is_some());
    if compared == 0 || (options.reference.is_none() && n < 2 && options.method == Method::LogReg) {
        return Err(Error::option("groups", "no group to compare", "at least one besides the reference is needed"));
    }
    if options.n_bins.is_some_and(|b| b < 2) {
        return Err(Error::option("n_bins", options.n_bins.unwrap_or(0), "at least 2 are needed"));
    }
    Ok(tested)
}

/// p-values, and the fold change of a gene.
type Tested<'a> = (&'a [f64], &'a dyn Fn(usize) -> f64);

/// The best genes of a group with everything that is said of them.
fn listed(group: u32, scores: &[f64], tests: Option<Tested<'_>>, options: &Options) -> Result<Ranked> {
    let count = options.n_genes.unwrap_or(scores.len()).min(scores.len());
    let genes = match &options.order {
        None => best_first(scores, options.rankby_abs, count),
        Some(Order(order)) if options.rankby_abs => order(&scores.iter().map(|s| s.abs()).collect::<Vec<f64>>(), count)?,
        Some(Order(order)) => order(scores, count)?,
    };
    if genes.iter().any(|&j| j as usize >= scores.len()) {
        return Err(Error::bug(format!("a gene in the order of {} that is none of them", scores.len())));
    }
    let pick = |values: &[f64]| genes.iter().map(|&j| values[j as usize]).collect();
    let tests = tests.map(|(pvals, change)| {
        let adjusted = match options.correction {
            Correction::BenjaminiHochberg => benjamini_hochberg(pvals),
            Correction::Bonferroni => bonferroni(pvals),
        };
        Tests { pvals: pick(pvals), pvals_adj: pick(&adjusted), log_fold_changes: genes.iter().map(|&j| change(j as usize)).collect() }
    });
    Ok(Ranked { group, scores: pick(scores), genes, tests })
}

/// Welch's test of every gene for each group of `against`.
fn t_tests(stats: &GroupedStats, against: &[u32], options: &Options) -> Vec<Scores> {
    let n_vars = stats.rest.sum.len();
    let by_gene: Vec<Vec<(f64, f64)>> = (0..n_vars)
        .into_par_iter()
        .map(|j| {
            let own: Vec<Moment> = stats.groups.iter().chain([&stats.rest]).map(|g| Moment::of(g, j)).collect();
            let rest = if options.reference.is_none() { complements(&own) } else { Vec::new() };
            let test = |&g: &u32| {
                let other = options.reference.map_or_else(|| rest[g as usize], |r| own[r as usize]);
                let (a, mut b) = (own[g as usize].sample(), other.sample());
                if options.method == Method::TTestOverestimVar {
                    b.n = a.n;
                }
                welch(a, b)
            };
            against.iter().map(test).collect()
        })
        .collect();
    (0..against.len()).map(|k| by_gene.iter().map(|gene| gene[k]).unzip()).collect()
}

/// One gene in one set of cells.
#[derive(Clone, Copy, Default)]
struct Moment {
    n: f64,
    sum: f64,
    squares: f64,
}

impl Moment {
    fn of(stats: &GroupStats, j: usize) -> Self {
        Moment { n: stats.n_obs as f64, sum: stats.sum[j], squares: stats.squares[j] }
    }

    /// Both sets together: Chan, Golub & LeVeque 1979, (2.1).
    fn and(self, other: Moment) -> Moment {
        if self.n == 0.0 || other.n == 0.0 {
            return if self.n == 0.0 { other } else { self };
        }
        let delta = other.sum / other.n - self.sum / self.n;
        let n = self.n + other.n;
        Moment { n, sum: self.sum + other.sum, squares: self.squares + other.squares + delta * delta * (self.n * other.n / n) }
    }

    fn sample(self) -> Sample {
        // Of no cells there is no mean: score 0, p 1.
        Sample { n: self.n, mean: self.sum / self.n, variance: self.squares / (self.n.max(2.0) - 1.0) }
    }
}

/// All cells but those of each set, without a subtraction: what comes before it and what comes after it.
fn complements(own: &[Moment]) -> Vec<Moment> {
    let mut out = vec![Moment::default(); own.len()];
    let mut before = Moment::default();
    for (out, own) in out.iter_mut().zip(own) {
        *out = before;
        before = before.and(*own);
    }
    let mut after = Moment::default();
    for (out, own) in out.iter_mut().zip(own).rev() {
        *out = out.and(after);
        after = own.and(after);
    }
    out
}

/// What a group is compared with.
enum Other<'a> {
    Group(&'a GroupStats),
    Rest((u64, Vec<f64>)),
}

impl Other<'_> {
    fn mean(&self, j: usize) -> f64 {
        match self {
            Other::Group(stats) => stats.mean(j),
            // Not a number where there are no other cells, as in scanpy.
            Other::Rest((n, sums)) => sums[j] / *n as f64,
        }
    }
}

/// Cells and sums of every gene over all cells but those of a group.
fn complement_of_sums(stats: &GroupedStats, group: u32) -> (u64, Vec<f64>) {
    let mut sums = vec![0.0; stats.rest.sum.len()];
    let mut n = 0;
    for (_, other) in stats.groups.iter().chain([&stats.rest]).enumerate().filter(|(g, _)| *g != group as usize) {
        n += other.n_obs;
        sums.iter_mut().zip(&other.sum).for_each(|(sum, more)| *sum += more);
    }
    (n, sums)
}

/// Shares of all cells but a group's.
fn rest_shares(stats: &GroupedStats, group: u32) -> Vec<f64> {
    let others = || stats.groups.iter().chain([&stats.rest]).enumerate().filter(|(g, _)| *g != group as usize).map(|(_, s)| s);
    let n: u64 = others().map(|s| s.n_obs).sum();
    (0..stats.rest.sum.len()).map(|j| others().map(|s| s.n_cells[j]).sum::<u64>() as f64 / n as f64).collect()
}

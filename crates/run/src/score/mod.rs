//! `score_genes` and `score_genes_cell_cycle`: the mean of a set of genes less that of control genes of like expression.

mod job;
mod random;

use std::collections::BTreeSet;

use cellmill_engine::fold::{Moments, SetSums};
use cellmill_matrix::{Error, Result, Values, Watch};

pub use self::job::{Job, Output, Summary};
pub use self::random::Mt19937;
use crate::view::View;

/// scanpy's options, with its defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// Control genes taken from each bin of expression.
    pub ctrl_size: usize,
    /// Bins of expression.
    pub n_bins: usize,
    /// Whether genes of the set may fill places among the drawn control genes (they are left out afterwards); false draws from others only.
    pub ctrl_as_ref: bool,
    /// Genes that control genes are drawn from, by number; `None`: all.
    pub gene_pool: Option<Vec<u32>>,
    /// Where drawing starts, as numpy's `RandomState`.
    pub random_state: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options { ctrl_size: 50, n_bins: 25, ctrl_as_ref: true, gene_pool: None, random_state: 0 }
    }
}

/// Mean of every gene over kept cells: `(n_vars,)`; one pass.
pub fn gene_means(view: &View<'_>, watch: &dyn Watch) -> Result<(Vec<f64>, u32)> {
    view.check()?;
    let done = view.pass(&view.steps(), &Moments { n_vars: view.n_vars, n_batches: 1 }, None, watch)?;
    let mean = done.output.into_iter().next().map(|m| m.mean).unwrap_or_default();
    Ok((mean, u32::from(done.decoded)))
}

/// The control genes that scanpy 1.11 draws for a set, ascending. `means`: `(n_vars,)`.
pub fn control_genes(means: &[f64], genes: &[u32], options: &Options) -> Result<Vec<u32>> {
    let place = |found: String, expected: &str| Error::invalid(Default::default(), found, expected);
    if options.n_bins < 2 {
        return Err(Error::option("n_bins", options.n_bins, "at least 2 are needed"));
    }
    let all: Vec<u32> = (0..means.len() as u32).collect();
    let pool: Vec<u32> = options.gene_pool.as_ref().unwrap_or(&all).iter().copied().filter(|&j| means[j as usize].is_finite()).collect();
    // numpy rounds halves to even.
    let n_items = (pool.len() as f64 / (options.n_bins - 1) as f64).round_ties_even();
    if n_items < 1.0 {
        let found = format!("No control genes found in any cut: {} genes to draw from", pool.len());
        return Err(place(found, "a bin holds at least one; take fewer with n_bins"));
    }
    let mut sorted: Vec<f64> = pool.iter().map(|&j| means[j as usize]).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    // rank(method='min') // n_items
    let cut = |j: u32| {
        let rank = sorted.partition_point(|m| *m < means[j as usize]) + 1;
        (rank as f64 / n_items).floor() as u64
    };
    if let Some(gene) = genes.iter().find(|g| !pool.contains(g)) {
        return Err(place(format!("gene {gene} of the set is not in the pool"), "the pool holds the genes of the set"));
    }
    let wanted: BTreeSet<u32> = genes.iter().copied().collect();
    let cuts: BTreeSet<u64> = genes.iter().map(|&j| cut(j)).collect();
    let bins: Vec<(u32, u64)> = pool.iter().map(|&j| (j, cut(j))).collect();
    let mut random = Mt19937::new(options.random_state);
    let mut drawn: BTreeSet<u32> = BTreeSet::new();
    for bin in cuts {
        let like: Vec<u32> =
            bins.iter().filter(|(j, c)| *c == bin && (options.ctrl_as_ref || !wanted.contains(j))).map(|(j, _)| *j).collect();
        if options.ctrl_size < like.len() {
            drawn.extend(random.permutation(like.len()).into_iter().take(options.ctrl_size).map(|k| like[k]));
        } else {
            drawn.extend(like);
        }
    }
    let drawn: Vec<u32> = drawn.into_iter().filter(|j| !wanted.contains(j)).collect();
    if drawn.is_empty() {
        return Err(place("No control genes found in any cut".into(), "draw from more genes, or say ctrl_as_ref=False"));
    }
    Ok(drawn)
}

/// Genes whose mean is scored, and the genes whose mean is taken away.
#[derive(Clone, Debug)]
pub struct Set {
    /// The set.
    pub genes: Vec<u32>,
    /// Its control genes.
    pub control: Vec<u32>,
}

/// Score of each kept cell for each set: `(sets, n_obs)` f64; one pass for any number of sets.
pub fn scores(view: &View<'_>, sets: &[Set], watch: &dyn Watch) -> Result<(Vec<Vec<f64>>, u32)> {
    view.check()?;
    let mask = |genes: &[u32]| {
        let mut mask = vec![false; view.n_vars];
        genes.iter().for_each(|&j| mask[j as usize] = true);
        mask
    };
    let named =
        sets.iter().enumerate().flat_map(|(i, s)| [(format!("{i} set"), mask(&s.genes)), (format!("{i} control"), mask(&s.control))]);
    let mut done = view.pass(&view.steps(), &SetSums { sets: named.collect() }, None, watch)?;
    let mut out = Vec::new();
    for (i, set) in sets.iter().enumerate() {
        let mut take = |what: &str, n: usize| match done.rows.take(&format!("{i} {what}")) {
            Some(Values::F64(sums)) => Ok(sums.into_iter().map(move |s| s / n as f64).collect::<Vec<f64>>()),
            // No row has passed.
            _ => Ok::<_, Error>(Vec::new()),
        };
        let (own, control) = (take("set", set.genes.len())?, take("control", set.control.len())?);
        out.push(own.into_iter().zip(control).map(|(a, b)| a - b).collect());
    }
    Ok((out, u32::from(done.decoded)))
}

/// The phase of each cell by its two scores, as scanpy decides it: `S` unless G2M is higher, `G1` where both are negative.
pub fn phases(s: &[f64], g2m: &[f64]) -> Vec<&'static str> {
    let phase = |(&s, &g2m): (&f64, &f64)| match (s < 0.0 && g2m < 0.0, g2m > s) {
        (true, _) => "G1",
        (_, true) => "G2M",
        _ => "S",
    };
    s.iter().zip(g2m).map(phase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_scanpys() {
        assert_eq!(phases(&[1.0, -1.0, 0.5, 0.0], &[0.5, -0.1, 0.6, -1.0]), ["S", "G1", "G2M", "S"]);
    }

    #[test]
    fn control_genes_are_of_like_expression_and_not_of_the_set() {
        let means: Vec<f64> = (0..200).map(|j| f64::from(j) / 10.0).collect();
        let options = Options { ctrl_size: 5, n_bins: 11, ..Options::default() };
        let found = control_genes(&means, &[3, 150], &options).unwrap();
        assert!(found.len() <= 10 && found.len() >= 8 && !found.contains(&3) && !found.contains(&150));
        // Bins of 20 genes: 3 is in the first, 150 in the eighth.
        assert!(found.iter().all(|j| *j < 20 || (139..160).contains(j)), "{found:?}");
        assert!(control_genes(&means[..3], &[1], &Options::default()).is_err());
    }
}

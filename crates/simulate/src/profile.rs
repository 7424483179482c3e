//! A type's or a gradient's genes, laid out for drawing.

use crate::alias::Alias;
use crate::expression::{Expression, N_PROGRAMMES};

/// Genes with at least this many expected counts in the mean library are drawn one by one.
const HEAD_MEAN: f64 = 0.15;

/// The genes of one type, or of two types and the cells between them.
pub(crate) struct Profile {
    /// Genes drawn one by one, increasing: `(n_head,)`.
    pub(crate) genes: Vec<u32>,
    /// Their dispersion classes: `(n_head,)`.
    pub(crate) classes: Vec<u8>,
    /// Their log expression in the (first) type, less half the variance of the programmes: `(n_head,)`.
    pub(crate) logs: Vec<f32>,
    /// What has to be added to reach the second type: `(n_head,)`, empty for one type.
    pub(crate) steps: Vec<f32>,
    /// Their loadings: `(N_PROGRAMMES, n_head)`.
    pub(crate) loadings: Vec<f32>,
    /// The genes drawn together, in the first and in the second type.
    pub(crate) tails: Vec<Tail>,
}

/// Genes drawn together.
pub(crate) struct Tail {
    /// Their share of the expression.
    pub(crate) mass: f64,
    /// Which one a count belongs to.
    pub(crate) genes: Alias,
}

impl Profile {
    /// Lays out one or two types for a mean library size.
    pub(crate) fn new(expression: &Expression, types: &[usize], mean_library: f64) -> Self {
        let logs: Vec<&[f32]> = types.iter().map(|&t| &expression.log_profiles[t][..]).collect();
        let least = libm::log(HEAD_MEAN / mean_library) as f32;
        let is_head: Vec<bool> = (0..logs[0].len()).map(|g| logs.iter().any(|l| l[g] >= least)).collect();
        let genes: Vec<u32> = (0..is_head.len() as u32).filter(|&g| is_head[g as usize]).collect();
        let loadings: Vec<f32> = (0..N_PROGRAMMES).flat_map(|k| genes.iter().map(move |&g| expression.loadings[k][g as usize])).collect();
        // E exp(a l) = exp(l² / 2) for a standard normal activity a: taken off, so that programmes leave the means alone.
        let excess = |i: usize| -> f32 { (0..N_PROGRAMMES).map(|k| loadings[k * genes.len() + i]).map(|l| 0.5 * l * l).sum() };
        let tails = logs
            .iter()
            .map(|l| {
                let weights: Vec<f64> = (0..l.len()).map(|g| if is_head[g] { 0.0 } else { libm::exp(f64::from(l[g])) }).collect();
                Tail { mass: weights.iter().sum(), genes: Alias::new(&weights) }
            })
            .collect();
        Profile {
            classes: genes.iter().map(|&g| expression.classes[g as usize]).collect(),
            logs: genes.iter().enumerate().map(|(i, &g)| logs[0][g as usize] - excess(i)).collect(),
            steps: logs.get(1).map_or_else(Vec::new, |second| genes.iter().map(|&g| second[g as usize] - logs[0][g as usize]).collect()),
            loadings,
            tails,
            genes,
        }
    }

    /// Bytes of heap memory.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.genes.len() * (4 + 1 + 4 + 4 * N_PROGRAMMES)
            + self.steps.len() * 4
            + self.tails.iter().map(|t| t.genes.heap_bytes()).sum::<usize>()
    }
}

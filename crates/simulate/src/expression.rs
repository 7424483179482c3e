//! Expression profiles: the shared base, families of types, types with markers, programmes and batch effects.

use rayon::prelude::*;

use crate::Options;
use crate::dispersion::class_of;
use crate::random::{Key, Purpose};

/// Names of the mitochondrial genes: the last columns, as at the end of a human or mouse reference.
pub(crate) const MITOCHONDRIAL: [&str; 13] =
    ["MT-ND1", "MT-ND2", "MT-CO1", "MT-CO2", "MT-ATP8", "MT-ATP6", "MT-CO3", "MT-ND3", "MT-ND4L", "MT-ND4", "MT-ND5", "MT-ND6", "MT-CYB"];
/// Mean share of each of them in a cell's counts: 6 % together.
const MITOCHONDRIAL_SHARE: [f64; 13] = [0.005, 0.005, 0.012, 0.009, 0.0004, 0.007, 0.009, 0.002, 0.0008, 0.006, 0.0012, 0.0003, 0.0023];

/// Activities of a cell that move many genes at once; the first moves the mitochondrial genes.
pub(crate) const N_PROGRAMMES: usize = 6;
/// Log expression of the mitochondrial genes at activity 1.
const MITOCHONDRIAL_LOADING: f64 = 0.4;
/// Share of the genes in each of the other programmes, and the standard deviation of their loadings.
const PROGRAMME: (f64, f64) = (0.10, 0.35);

/// Base profile: log p = -POWER log(rank + SHIFT) - CUT (rank / n)^BEND + N(0, ROUGH²), ranks in random order. SHIFT scales
/// with the number of genes. Chosen so that of 27,998 genes at 2,000 a cell about 90 are seen in 90 % of the cells, 800 in
/// half of them, and half of all genes in less than 1 %.
const POWER: f64 = 1.0;
const SHIFT: f64 = 55.0;
const CUT: f64 = 7.5;
const BEND: f64 = 2.2;
const ROUGH: f64 = 0.3;

/// A quarter of the genes vary between types in full, the others by this part.
const QUIET: f64 = 0.15;
/// Standard deviation of the log profiles of families.
const FAMILY_SIGMA: f64 = 0.7;
/// Least and largest standard deviation of a type's log profile around its family: near types and distant ones.
const TYPE_SIGMA: (f64, f64) = (0.2, 0.5);
/// Markers a family and a type, for 27,998 genes.
const FAMILY_MARKERS: f64 = 60.0;
const TYPE_MARKERS: f64 = 20.0;
/// Mean and standard deviation of a marker's log fold change.
const MARKER: (f64, f64) = (1.8, 0.6);
/// Rare types are this share of the cells; one type in twelve is rare.
const RARE: f64 = 0.001;
/// One type in this number is the start of a gradient to another type of its family.
const TYPES_PER_GRADIENT: usize = 8;

/// What the genes do in each type, programme and batch.
pub(crate) struct Expression {
    /// Log of each type's profile (each sums to 1): `n_types` vectors of `(n_vars,)`.
    pub(crate) log_profiles: Vec<Vec<f32>>,
    /// Dispersion class of each gene: `(n_vars,)`.
    pub(crate) classes: Vec<u8>,
    /// Log fold change of each gene at activity 1: `N_PROGRAMMES` vectors of `(n_vars,)`.
    pub(crate) loadings: Vec<Vec<f32>>,
    /// Log fold change of each gene in each batch: `n_batches` vectors of `(n_vars,)`, none for one batch.
    pub(crate) batches: Vec<Vec<f32>>,
    /// Share of each type among the cells: `(n_types,)`, sums to 1.
    pub(crate) weights: Vec<f64>,
    /// Pairs of types of one family with cells between them. A type is in at most one.
    pub(crate) gradients: Vec<(usize, usize)>,
}

/// How many of the mitochondrial genes a set of this many genes has: all from 104 genes on.
pub(crate) fn n_mitochondrial(n_vars: usize) -> usize {
    (n_vars / 8).min(MITOCHONDRIAL.len())
}

impl Expression {
    pub(crate) fn new(options: &Options) -> Self {
        let (n_vars, n_types, seed) = (options.n_vars, options.n_types, options.seed);
        let n_nuclear = n_vars - n_mitochondrial(n_vars);
        let ranks = order(seed, n_nuclear);
        let base_key = Key::new(seed, Purpose::Base, 0);
        let shift = (SHIFT * n_vars as f64 / 27_998.0).max(2.0);
        let base: Vec<f64> = (0..n_nuclear)
            .map(|g| {
                let rank = f64::from(ranks[g]);
                -POWER * libm::log(rank + shift) - CUT * libm::pow(rank / n_nuclear as f64, BEND) + ROUGH * base_key.normal(3 * g as u64)
            })
            .collect();
        let spread: Vec<f64> = (0..n_nuclear).map(|g| if base_key.uniform(3 * g as u64 + 1) < 0.25 { 1.0 } else { QUIET }).collect();
        let classes = (0..n_vars).map(|g| class_of(libm::exp(1.0 + 0.6 * base_key.normal(3 * g as u64 + 2)))).collect();

        let n_families = n_types.div_ceil(4).min(n_types);
        let families: Vec<Vec<f64>> = (0..n_families)
            .into_par_iter()
            .map(|f| changes(Key::new(seed, Purpose::Family, f as u64), FAMILY_SIGMA, FAMILY_MARKERS, &spread, &ranks))
            .collect();
        let kin = family_of(seed, n_types, n_families);
        let log_profiles = (0..n_types)
            .into_par_iter()
            .map(|t| {
                let key = Key::new(seed, Purpose::Type, t as u64);
                let sigma = TYPE_SIGMA.0 + (TYPE_SIGMA.1 - TYPE_SIGMA.0) * key.uniform(u64::MAX);
                let own = changes(key, sigma, TYPE_MARKERS, &spread, &ranks);
                let logs: Vec<f64> = (0..n_nuclear).map(|g| base[g] + families[kin[t]][g] + own[g]).collect();
                normalised(&logs, n_vars)
            })
            .collect();
        Expression {
            log_profiles,
            classes,
            loadings: loadings(seed, n_vars, n_nuclear),
            batches: batches(options),
            weights: weights(seed, n_types),
            gradients: gradients(&kin, n_types),
        }
    }
}

/// Rank of each gene: a random order (Fisher & Yates).
fn order(seed: u64, n: usize) -> Vec<u32> {
    let key = Key::new(seed, Purpose::Order, 0);
    let mut ranks: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        ranks.swap(i, (key.uniform(i as u64) * (i + 1) as f64) as usize);
    }
    ranks
}

/// Log fold changes of a family or type: normal for all genes, and markers among the genes of middle expression.
fn changes(key: Key, sigma: f64, n_markers: f64, spread: &[f64], ranks: &[u32]) -> Vec<f64> {
    let n = ranks.len();
    let middle = n / 60..n.div_ceil(3);
    let chance = (n_markers * n as f64 / 27_998.0).max(4.0) / middle.len() as f64;
    (0..n)
        .map(|g| {
            let at = 4 * g as u64;
            let marked = middle.contains(&(ranks[g] as usize)) && key.uniform(at + 1) < chance;
            let marker = if marked { MARKER.0 + MARKER.1 * key.normal(at + 2) } else { 0.0 };
            sigma * spread[g] * key.normal(at) + marker
        })
        .collect()
}

/// Family of each type: each family has at least one, the other types join at random.
fn family_of(seed: u64, n_types: usize, n_families: usize) -> Vec<usize> {
    let key = Key::new(seed, Purpose::Family, u64::MAX);
    (0..n_types).map(|t| if t < n_families { t } else { (key.uniform(t as u64) * n_families as f64) as usize }).collect()
}

/// Log profile that sums to 1, the mitochondrial genes appended with their shares.
fn normalised(logs: &[f64], n_vars: usize) -> Vec<f32> {
    let shares = &MITOCHONDRIAL_SHARE[..n_vars - logs.len()];
    let rest = 1.0 - shares.iter().sum::<f64>();
    let scale = libm::log(rest / logs.iter().map(|&x| libm::exp(x)).sum::<f64>());
    logs.iter().map(|&x| (x + scale) as f32).chain(shares.iter().map(|&s| libm::log(s) as f32)).collect()
}

/// Loadings of the programmes.
fn loadings(seed: u64, n_vars: usize, n_nuclear: usize) -> Vec<Vec<f32>> {
    (0..N_PROGRAMMES)
        .map(|k| {
            let key = Key::new(seed, Purpose::Programme, k as u64);
            (0..n_vars)
                .map(|g| match (k == 0, g < n_nuclear) {
                    (true, true) | (false, false) => 0.0,
                    (true, false) => MITOCHONDRIAL_LOADING as f32,
                    (false, true) if key.uniform(2 * g as u64) >= PROGRAMME.0 => 0.0,
                    (false, true) => (PROGRAMME.1 * key.normal(2 * g as u64 + 1)) as f32,
                })
                .collect()
        })
        .collect()
}

/// Normal log fold changes of each batch, cut at three standard deviations.
fn batches(options: &Options) -> Vec<Vec<f32>> {
    if options.n_batches == 1 {
        return Vec::new();
    }
    (0..options.n_batches)
        .into_par_iter()
        .map(|b| {
            let key = Key::new(options.seed, Purpose::Batch, b as u64);
            (0..options.n_vars).map(|g| (options.batch_sigma * key.normal(g as u64).clamp(-3.0, 3.0)) as f32).collect()
        })
        .collect()
}

/// Log-normal sizes (sigma 1); the last twelfth of the types is rare.
fn weights(seed: u64, n_types: usize) -> Vec<f64> {
    let key = Key::new(seed, Purpose::Weight, 0);
    let n_rare = n_types / 12;
    let raw: Vec<f64> = (0..n_types - n_rare).map(|t| libm::exp(key.normal(t as u64))).collect();
    let rest = 1.0 - RARE * n_rare as f64;
    let total: f64 = raw.iter().sum();
    raw.iter().map(|w| w / total * rest).chain(std::iter::repeat_n(RARE, n_rare)).collect()
}

/// Pairs of common types of one family, first come.
fn gradients(kin: &[usize], n_types: usize) -> Vec<(usize, usize)> {
    let common = n_types - n_types / 12;
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    let mut taken = vec![false; common];
    for a in 0..common {
        if pairs.len() >= n_types.div_ceil(TYPES_PER_GRADIENT) || taken[a] {
            continue;
        }
        if let Some(b) = (a + 1..common).find(|&b| kin[b] == kin[a] && !taken[b]) {
            (taken[a], taken[b]) = (true, true);
            pairs.push((a, b));
        }
    }
    pairs
}

//! The counts of one cell.

use cellmill_matrix::Csr;

use crate::cell::Cell;
use crate::dispersion::N_STEPS;
use crate::exponential::exponentials;
use crate::poisson;
use crate::profile::Profile;
use crate::random::{Key, Purpose, mix};

/// Effects of the batches, ready for drawing.
pub(crate) struct Batches {
    /// Log fold change of each gene in each batch: `n_batches` vectors of `(n_vars,)`, none for one batch.
    pub(crate) logs: Vec<Vec<f32>>,
    /// The same as the chance (in 2⁻³²) to keep a count drawn at the largest effect.
    pub(crate) keep: Vec<Vec<u32>>,
    /// The largest effect, as a factor.
    pub(crate) most: f64,
}

impl Batches {
    pub(crate) fn new(logs: Vec<Vec<f32>>) -> Self {
        let most = logs.iter().flatten().fold(0.0f32, |m, &x| m.max(x));
        let chance = |x: f32| (libm::exp(f64::from(x - most)) * 4_294_967_296.0) as u32;
        let keep = logs.iter().map(|batch| batch.iter().map(|&x| chance(x)).collect()).collect();
        Batches { logs, keep, most: libm::exp(f64::from(most)) }
    }
}

/// Memory for one cell at a time.
pub(crate) struct Bench {
    /// Count of each gene, all zero between cells: `(n_vars,)`.
    counts: Vec<u32>,
    /// One bit for each gene that has a count.
    seen: Vec<u64>,
    /// Rates of the genes drawn one by one, and the chance of no count.
    rates: Vec<f32>,
    none: Vec<f32>,
    /// The random number of each.
    uniforms: Vec<f32>,
}

impl Bench {
    pub(crate) fn new(n_vars: usize) -> Self {
        Bench { counts: vec![0; n_vars], seen: vec![0; n_vars.div_ceil(64)], rates: Vec::new(), none: Vec::new(), uniforms: Vec::new() }
    }

    /// Most bytes that a bench for this many genes takes: the three vectors of rates may grow to twice their length.
    pub(crate) fn bytes(n_vars: usize) -> usize {
        n_vars * 4 + n_vars.div_ceil(64) * 8 + 3 * 2 * n_vars * 4
    }

    /// Draws the cell of a seed and row number and appends it as a row.
    pub(crate) fn draw(
        &mut self,
        (seed, row): (u64, u64),
        cell: &Cell,
        profile: &Profile,
        gamma: &[f32],
        batches: &Batches,
        into: &mut Csr,
    ) {
        self.draw_head(Key::new(seed, Purpose::Head, row), cell, profile, gamma, batches);
        let place = cell.between.map_or(0.0, |(_, place)| f64::from(place));
        for (i, tail) in profile.tails.iter().enumerate() {
            let part = if i == 0 { 1.0 - place } else { place };
            let rate = libm::exp(cell.log_library) * tail.mass * part;
            let key = Key::new(seed, Purpose::Tail, 2 * row + i as u64);
            match batches.keep.get(cell.batch) {
                None => {
                    for at in 1..=u64::from(poisson::count(rate, key.uniform(0))) {
                        self.add(tail.genes.draw(key.bits(at)), 1);
                    }
                }
                // Poisson counts at the largest effect, of which each is kept with the chance of its gene's effect.
                Some(keep) => {
                    for at in 1..=u64::from(poisson::count(rate * batches.most, key.uniform(0))) {
                        let bits = key.bits(at);
                        let gene = tail.genes.draw(bits);
                        if (mix(bits) as u32) < keep[gene as usize] {
                            self.add(gene, 1);
                        }
                    }
                }
            }
        }
        self.finish(into);
    }

    /// Genes drawn one by one: Poisson(L exp(log p + Σ a l + b) m), m ~ Gamma(r, 1/r).
    fn draw_head(&mut self, key: Key, cell: &Cell, profile: &Profile, gamma: &[f32], batches: &Batches) {
        let n = profile.genes.len();
        let (rates, none, uniforms) = (&mut self.rates, &mut self.none, &mut self.uniforms);
        rates.clear();
        rates.extend(profile.logs.iter().map(|x| x + cell.log_library as f32));
        if let Some((_, place)) = cell.between {
            rates.iter_mut().zip(&profile.steps).for_each(|(x, step)| *x += place * step);
        }
        for (loadings, a) in profile.loadings.chunks_exact(n.max(1)).zip(cell.activities) {
            rates.iter_mut().zip(loadings).for_each(|(x, loading)| *x += a * loading);
        }
        if let Some(batch) = batches.logs.get(cell.batch) {
            rates.iter_mut().zip(&profile.genes).for_each(|(x, &g)| *x += batch[g as usize]);
        }
        exponentials(rates);
        // 23 bits for the uniform number (its middle is exact in f32), 8 others for the gamma step.
        uniforms.clear();
        uniforms.extend(rates.iter_mut().zip(&profile.genes).zip(&profile.classes).map(|((rate, &gene), &class)| {
            let bits = key.bits(u64::from(gene));
            *rate *= gamma[class as usize * N_STEPS + (bits as usize & (N_STEPS - 1))];
            ((bits >> 41) as u32 as f32 + 0.5) * (1.0 / (1u32 << 23) as f32)
        }));
        none.clear();
        none.extend(rates.iter().map(|rate| -rate));
        exponentials(none);
        for i in 0..n {
            let (rate, none, u) = (self.rates[i], self.none[i], self.uniforms[i]);
            if u < none {
                continue;
            }
            let count = if rate >= poisson::LARGE { poisson::large(f64::from(rate), f64::from(u)) } else { poisson::small(rate, none, u) };
            if count > 0 {
                self.add(profile.genes[i], count);
            }
        }
    }

    #[inline(always)]
    fn add(&mut self, gene: u32, count: u32) {
        self.counts[gene as usize] += count;
        self.seen[gene as usize / 64] |= 1 << (gene % 64);
    }

    /// Moves the counts into a row, genes increasing.
    fn finish(&mut self, into: &mut Csr) {
        for (i, word) in self.seen.iter_mut().enumerate() {
            let mut bits = std::mem::take(word);
            while bits != 0 {
                let gene = i * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                into.indices.push(gene as u32);
                into.data.push(std::mem::take(&mut self.counts[gene]) as f32);
            }
        }
        into.indptr.push(into.indices.len() as u64);
    }
}

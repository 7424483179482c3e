//! From roughly ranked candidates to a row of the result: exact distances, order (distance, id).

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::kernel::Simd;
use super::metric::Scale;
use super::rows::{Reader, Shelf};
use super::scan::{self, Key};

/// Room for the candidates of one row at a time.
#[derive(Default)]
pub(super) struct Ranking {
    ids: Vec<u32>,
    squared: Vec<f32>,
    keys: Vec<Key>,
}

impl Ranking {
    /// Exact keys of `candidates` (empty places are left out) and of the rows `known`, seen from row `own`, ascending by (distance, id); the
    /// distance in a key is the metric's own.
    pub(super) fn rank(
        &mut self,
        simd: Simd,
        x: &mut Reader<'_>,
        scale: Scale,
        own: u32,
        candidates: &[Key],
        known: &[u32],
    ) -> Result<&[Key]> {
        self.ids.clear();
        self.ids.extend(known);
        self.ids.extend(candidates.iter().filter(|&&key| key != scan::EMPTY).map(|&key| scan::id(key)));
        x.squared(simd, own as usize, &self.ids, &mut self.squared)?;
        self.keys.clear();
        self.keys.extend(self.ids.iter().zip(&self.squared).map(|(&id, &squared)| scan::key(scale.distance(squared), id)));
        self.keys.sort_unstable();
        self.keys.dedup();
        Ok(&self.keys)
    }
}

/// Candidates kept for `k` results: a few more, so that rounding in the scan costs none.
pub(super) fn keep(k: usize, n: usize) -> usize {
    (k + (k / 8).max(4)).min(n - 1)
}

/// Mean of each coordinate over all cells: `(d,)`, summed in f64 over blocks of fixed size in order.
pub(super) fn centre(x: Shelf<'_>) -> Result<Vec<f32>> {
    const ROWS: usize = 4096;
    let (n, d) = (x.n(), x.d());
    let sums: Vec<Vec<f64>> = (0..n.div_ceil(ROWS))
        .into_par_iter()
        .map_init(
            || x.reader(),
            |reader, block| {
                reader.start();
                let mut sum = vec![0f64; d];
                for row in reader.stretch(block * ROWS..n.min((block + 1) * ROWS))? {
                    sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
                }
                Ok(sum)
            },
        )
        .collect::<Result<_>>()?;
    let mut mean = vec![0f64; d];
    for sum in &sums {
        mean.iter_mut().zip(sum).for_each(|(mean, sum)| *mean += sum);
    }
    Ok(mean.iter().map(|sum| (sum / n as f64) as f32).collect())
}

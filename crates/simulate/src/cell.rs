//! What a cell is, before its genes are counted.

use crate::Options;
use crate::expression::{Expression, N_PROGRAMMES};
use crate::library::LOW_QUALITY;
use crate::random::{Key, Purpose};

/// Share of the cells of a type in a gradient that lie between the two types.
const BETWEEN: f64 = 0.4;
/// Activity of the mitochondrial programme in a cell of low quality, on top of its own.
const LOW_QUALITY_MITOCHONDRIAL: f32 = 3.0;

/// A cell's place in the model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    /// Type; on a gradient the nearer one.
    pub(crate) cell_type: usize,
    /// Gradient and place on it (0 the first type, 1 the second), if between two types.
    pub(crate) between: Option<(usize, f32)>,
    /// Batch.
    pub(crate) batch: usize,
    /// Log of the library size.
    pub(crate) log_library: f64,
    /// Activity of each programme.
    pub(crate) activities: [f32; N_PROGRAMMES],
}

/// How the cells are spread over types and batches.
pub(crate) struct Population {
    /// Upper ends of the types' shares.
    ends: Vec<f64>,
    /// For each type its gradient and which end of it, if any.
    ends_of: Vec<Option<(usize, bool)>>,
    n_batches: usize,
    seed: u64,
    size_sigma: f64,
    low_quality: f64,
    log_mean_library: f64,
}

impl Population {
    pub(crate) fn new(expression: &Expression, options: &Options, mean_library: f64) -> Self {
        let mut ends_of = vec![None; options.n_types];
        for (i, &(a, b)) in expression.gradients.iter().enumerate() {
            ends_of[a] = Some((i, false));
            ends_of[b] = Some((i, true));
        }
        let mut sum = 0.0;
        let ends = expression
            .weights
            .iter()
            .map(|w| {
                sum += w;
                sum
            })
            .collect();
        Population {
            ends,
            ends_of,
            n_batches: options.n_batches,
            seed: options.seed,
            size_sigma: options.size_sigma,
            low_quality: options.low_quality,
            log_mean_library: libm::log(mean_library),
        }
    }

    /// The cell of a row.
    pub(crate) fn cell(&self, row: u64) -> Cell {
        let key = Key::new(self.seed, Purpose::Cell, row);
        let at = key.uniform(0);
        let cell_type = self.ends.partition_point(|&end| end <= at).min(self.ends.len() - 1);
        let between = self.ends_of[cell_type].filter(|_| key.uniform(1) < BETWEEN).map(|(gradient, second)| {
            let near = 0.5 * key.uniform(2) as f32;
            (gradient, if second { 1.0 - near } else { near })
        });
        let batch = ((key.uniform(3) * self.n_batches as f64) as usize).min(self.n_batches - 1);
        let low = key.uniform(4) < self.low_quality;
        let z = key.normal(5);
        let log_library = self.log_mean_library
            + if low {
                libm::log(LOW_QUALITY.0) + LOW_QUALITY.1 * z
            } else {
                self.size_sigma * z - 0.5 * self.size_sigma * self.size_sigma
            };
        let mut activities = std::array::from_fn(|k| key.normal(6 + k as u64) as f32);
        if low {
            activities[0] += LOW_QUALITY_MITOCHONDRIAL;
        }
        Cell { cell_type, between, batch, log_library, activities }
    }
}

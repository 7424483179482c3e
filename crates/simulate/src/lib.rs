//! Simulated raw counts, as a [`Source`](cellmill_matrix::Source): for sizing machines, for benchmarks and for tests.
//!
//! Row `i` is a pure function of the options (without `n_obs`) and `i`: any cut of the rows, any number of threads and any
//! machine give the same bits, and a longer run begins with a shorter one. Random numbers come from a hash of (seed,
//! purpose, row, gene); logarithms and exponentials from the `libm` crate or from a polynomial of additions and
//! multiplications.
//!
//! # Model
//!
//! * **Base profile.** log p(g) = -log(rank + 55) - 7.5 (rank / n)^2.2 + N(0, 0.3²), ranks in random order.
//! * **Types.** Each of about n / 4 families adds N(0, 0.7²) and 60 markers to the base, each type N(0, σ²) with σ from 0.2
//!   to 0.5 and 20 markers. The normal part is full for a quarter of the genes and 15 % for the others; a marker is a
//!   gene of middle rank with log fold change N(1.8, 0.6²). Profiles sum to 1, 6 % of it mitochondrial. Type sizes are
//!   log-normal (sigma 1); one type in twelve has 0.1 % of the cells.
//! * **Gradients.** In one pair of near types for every 8 types, 40 % of the cells lie between the two: their log
//!   expression is (1 - s) log p₁ + s log p₂, s uniform; the truth is the nearer type.
//! * **Programmes.** Five activities a cell, N(0, 1), each with loadings N(0, 0.35²) on a tenth of the genes, and a sixth that
//!   moves the mitochondrial genes.
//! * **Library.** log L = log L̄ - σ²/2 + σ N(0, 1), σ = 0.5; L̄ is solved for the wanted mean number of genes. 2 % of the cells
//!   are of low quality: median library 0.03 L̄, more mitochondrial.
//! * **Batches.** Each multiplies each gene by exp N(0, 0.15²).
//! * **Counts.** Genes with 0.15 or more expected counts in the mean library (about 4,000 of 28,000 in a type):
//!   Poisson(μ m), m ~ Gamma(r, 1/r), that is negative binomial with mean μ = L p exp(Σ a l + b) and variance μ + μ²/r, r
//!   log-normal around e (gamma in 256 steps of equal probability, r in 16 classes). The other genes
//!   share one Poisson number of counts, spread over them by an alias table: Poisson each, where μ²/r would add
//!   less than 6 % to the variance at the median r; programmes don't move them.
//!
//! # What comes out
//!
//! Defaults, seed 0, the first 20,000 cells:
//!
//! | property | value |
//! |---|---|
//! | genes a cell | mean 1,993, standard deviation 727; 1, 50, 99 %: 125, 1,926, 4,003 |
//! | counts a cell | median 4,032; 1, 99 %: 149, 12,967 |
//! | genes seen in > 90 %, > 50 %, < 1 % of the cells | 81, 783, 50 % of all |
//! | mitochondrial share, good and low quality | 5.5 %, 16 % |
//! | counts of 1, of 2, up to 15; largest | 66 %, 15 %, 98.6 %; 1,360 |
//! | variance / mean at means 0.01–0.1, 0.1–0.3, 0.3–1, 1–3, 3–10, > 10 (medians) | 1.02, 1.17, 1.57, 2.9, 6.2, 20.5 |
//! | (variance - mean) / mean², one type, scaled for depth, means 0.3–1, 1–3, > 3 | 0.72, 0.51, 0.50 |
//! | neighbours (k = 15, 50 PCs of 2,000 genes, scanpy) of the same type | 92 % |
//! | Leiden in scanpy at resolution 0.5, 1, 2 | 13, 16, 20 clusters, ARI with the truth 0.84, 0.92, 0.85 |
//!
//! A cell of 2,000 genes costs about 120 µs of one core (x86-64 without AVX).

mod alias;
mod cell;
mod counts;
mod dispersion;
mod exponential;
mod expression;
mod library;
mod options;
mod poisson;
mod profile;
mod random;
mod simulation;

pub use options::Options;
pub use simulation::Simulation;

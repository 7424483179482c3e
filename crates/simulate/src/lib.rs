//! Simulated raw counts.

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

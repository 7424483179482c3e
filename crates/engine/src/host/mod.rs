//! Small dense mathematics that runs once, on the host, after the folds.

pub mod eigen;
pub mod hvg;
pub mod lbfgs;
pub mod least_squares;
pub mod rank;
mod symmetric;

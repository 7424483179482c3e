//! What happens to a chunk, as data: a list of steps that prints, hashes and travels.

mod expression;
mod step;

pub use expression::Expression;
pub use step::{RowQc, Rows, Step, apply, apply_all, counted_qc, kept, row_qc};

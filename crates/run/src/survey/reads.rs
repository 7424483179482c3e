//! The reads that the survey knows, each with the fold that it asks: whoever is told the name of a read knows the fold.

use cellmill_engine::fold::{At, Clipped, Fold, Moments, Qc, Residuals};

use super::silent::Silent;

/// Moments of the kept cells at the three places where a flavour may look: raw, linear, logged.
pub(crate) type MomentFolds = (Option<At<Moments>>, (Option<At<Moments>>, Option<At<Moments>>));
/// Totals of all rows and of the kept ones, and moments.
pub(crate) type First = (At<Qc>, (Option<Silent<At<Qc>>>, MomentFolds));
/// Totals of the kept genes, and raw moments.
pub(crate) type Totals = (At<Qc>, Option<At<Moments>>);

/// A fold that the survey asks.
pub(crate) trait Read: Fold + 'static {
    /// What the read is called.
    const NAME: &str;
}

impl Read for First {
    const NAME: &str = "quality control";
}
impl Read for Totals {
    const NAME: &str = "totals";
}
impl Read for MomentFolds {
    const NAME: &str = "moments";
}
impl Read for At<Clipped> {
    const NAME: &str = "clipped sums";
}
impl Read for At<Residuals> {
    const NAME: &str = "residuals";
}

//! The reads that are known, each with the fold that it asks: whoever is told the name of a read knows the fold.

use cellmill_engine::fold::{At, ByGene, Clipped, Cross, Fold, Grouped, Logistic, Moments, Qc, Residuals, SetSums};

use crate::survey::Silent;

/// Moments of the kept cells at the three places where a flavour may look: raw, linear, logged.
pub(crate) type MomentFolds = (Option<At<Moments>>, (Option<At<Moments>>, Option<At<Moments>>));
/// Totals of all rows and of the kept ones, and moments.
pub(crate) type First = (At<Qc>, (Option<Silent<At<Qc>>>, MomentFolds));
/// Totals of the kept genes, and raw moments.
pub(crate) type Totals = (At<Qc>, Option<At<Moments>>);

/// Groups, and the values of each gene in them.
pub(crate) type GroupedValues = At<(Grouped, ByGene)>;

/// A fold that is asked of the rows.
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
impl Read for At<Grouped> {
    const NAME: &str = "groups";
}
impl Read for At<ByGene> {
    const NAME: &str = "values";
}
impl Read for GroupedValues {
    const NAME: &str = "groups and values";
}
impl Read for At<Logistic> {
    const NAME: &str = "slopes";
}
impl Read for At<Cross> {
    const NAME: &str = "products";
}
impl Read for At<Moments> {
    const NAME: &str = "moments of genes";
}
impl Read for At<SetSums> {
    const NAME: &str = "sums of sets";
}

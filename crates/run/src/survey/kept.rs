//! What a survey keeps, as steps of a recipe.

use cellmill_engine::recipe::{Rows, Step};

/// The steps that lead to the kept cells and genes, once these are known.
pub fn kept_steps(keep: &[bool], keep_genes: Option<&[bool]>) -> Vec<Step> {
    let mut steps = Vec::new();
    if keep.contains(&false) {
        steps.push(Step::KeepObs { rows: Rows::Mask { keep: keep.to_vec(), first: 0 } });
    }
    if let Some(mask) = keep_genes {
        steps.push(Step::KeepVar { mask: mask.to_vec() });
    }
    steps
}

//! Rows of a matrix brought into memory, and the order of steps in which they are had at the least cost.

use std::ops::Range;

use cellmill_engine::exec::{Feed, Scratch, Task, cut, in_order, sliced};
use cellmill_engine::fold::Collect;
use cellmill_engine::recipe::Step;
use cellmill_kernels::transform::base_row;
use cellmill_matrix::{Csr, Result, Watch};

/// The same steps with choices of columns as early as they can be: before logarithms and roots, which know one value at a time, before
/// a scaling that loses the columns' numbers, and before one normalisation, whose sums are taken first.
pub fn columns_first(steps: &[Step]) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::with_capacity(steps.len() + 1);
    for step in steps {
        out.push(step.clone());
        let mut at = out.len() - 1;
        while at > 0 {
            let Step::KeepVar { mask } = &out[at] else { break };
            let pick = |v: &[f64]| v.iter().zip(mask).filter(|(_, k)| **k).map(|(x, _)| *x).collect::<Vec<f64>>();
            match &out[at - 1] {
                Step::Log1p { .. } | Step::Expm1 { .. } | Step::Sqrt => out.swap(at - 1, at),
                Step::Scale { mean, inverse_std, max_value } => {
                    let scale = Step::Scale { mean: mean.as_deref().map(pick), inverse_std: pick(inverse_std), max_value: *max_value };
                    out[at - 1] = scale;
                    out.swap(at - 1, at);
                }
                // Sums that were taken already are those of this normalisation.
                Step::NormalizeTotal { .. } if out[..at - 1].iter().any(|s| matches!(s, Step::NormalizeTotal { .. })) => break,
                Step::NormalizeTotal { .. } => {
                    out.swap(at - 1, at);
                    if !out[..at - 1].iter().any(|s| matches!(s, Step::TakeTotals | Step::TakeTotalsOf { .. })) {
                        out.insert(at - 1, Step::TakeTotals);
                    }
                    break;
                }
                _ => break,
            }
            at -= 1;
        }
    }
    out
}

/// Everything up to the last choice of rows or columns, which selects, and the rest, which transforms.
pub fn selecting(recipe: &[Step]) -> (&[Step], &[Step]) {
    let last = recipe.iter().rposition(|s| matches!(s, Step::KeepObs { .. } | Step::KeepVar { .. }));
    recipe.split_at(last.map_or(0, |at| at + 1))
}

/// What a zero becomes, f32, if the last step on values centres them: `(n_vars,)`.
pub fn base(steps: &[Step]) -> Option<Vec<f32>> {
    let mut base: Option<Vec<f32>> = None;
    for step in steps {
        match (step, &mut base) {
            (Step::Scale { mean: Some(mean), inverse_std, max_value }, base) => {
                *base = Some(base_row(mean, inverse_std, *max_value).into_iter().map(|b| b as f32).collect());
            }
            (Step::KeepVar { mask }, Some(base)) => {
                let mut flags = mask.iter();
                base.retain(|_| flags.next() == Some(&true));
            }
            (Step::KeepVar { .. } | Step::TakeTotals | Step::TakeTotalsOf { .. }, _) => {}
            (_, base) => *base = None,
        }
    }
    base
}

/// The mask over the origin's `n_source` rows for a range of the `n_obs` rows that `keep` leaves; none for all of all.
pub fn range(keep: Option<&[bool]>, n_source: usize, n_obs: usize, wanted: Range<usize>) -> Option<Vec<bool>> {
    if wanted == (0..n_obs) {
        return keep.map(<[bool]>::to_vec);
    }
    let mut at = 0;
    let kept = |i: usize| keep.is_none_or(|k| k[i]);
    Some(
        (0..n_source)
            .map(|i| {
                let inside = kept(i) && wanted.contains(&at);
                at += usize::from(kept(i));
                inside
            })
            .collect(),
    )
}

/// Rows after a recipe, laid end to end; tasks of which `keep` leaves nothing are not read.
pub fn collect(feed: Feed<'_>, recipe: &[Step], keep: Option<&[bool]>, n_vars: usize, watch: &dyn Watch) -> Result<Csr> {
    let n_obs = feed.source.shape().n_obs;
    let mut tasks = cut(n_obs);
    tasks.retain(|rows| keep.is_none_or(|k| k[rows.start as usize..rows.end as usize].contains(&true)));
    let mut all = Csr::empty(n_vars);
    in_order(
        tasks.len(),
        2,
        |i| {
            let steps = sliced(recipe, &tasks[i]);
            let fold = Collect::new(steps.len(), n_vars);
            Ok(Task { recipe: &steps, fold: &fold, rows: tasks[i].clone(), batch: None }.run(feed, &mut Scratch::default())?.state.x)
        },
        |i, x| {
            let before = all.nnz() as u64;
            all.indptr.extend(x.indptr.iter().skip(1).map(|end| before + end));
            all.indices.extend_from_slice(&x.indices);
            all.data.extend_from_slice(&x.data);
            watch.tick(tasks[i].end, n_obs, "")
        },
    )?;
    Ok(all)
}

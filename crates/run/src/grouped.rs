//! Statistics of every gene in each group, under the memory ceiling: in one pass, or gene run by gene run where groups are very many.

use cellmill_engine::fold::{Fold, Grouped, GroupedStats};
use cellmill_engine::groups::{self as gpu, Found, Question};
use cellmill_engine::recipe::{Rows, Step};
use cellmill_kernels::transform::cuda::Logged;
use cellmill_matrix::{Error, ErrorKind, Result, Watch};

use crate::device::is_of_gpu;
use crate::subject::holds_counts;
use crate::view::{Groups, View, mask_of, runs};
use crate::wide;

/// Statistics of every gene in each group, and the passes that decoded the source.
pub fn grouped(view: &View<'_>, groups: &Groups<'_>, watch: &dyn Watch) -> Result<(GroupedStats, u32)> {
    view.check()?;
    view.check_codes(groups.codes)?;
    let (found, wasted) = on_gpus(view, groups, false, watch)?;
    if let Some(Found { stats: Some(found), .. }) = found {
        return Ok((found, wasted));
    }
    let fold = Grouped { n_vars: view.n_vars, n_groups: groups.names.len() };
    // One state is the result; the others come and go.
    let a_gene = fold.state_bytes() / (view.n_vars as u64).max(1);
    let room = view.memory.saturating_sub(view.flight_bytes()).saturating_sub(fold.state_bytes());
    let genes = room / view.states() / a_gene.max(1);
    if genes == 0 {
        let needs = view.flight_bytes() + fold.state_bytes() + view.states() * a_gene;
        return Err(ErrorKind::Budget { what: format!("statistics of {} groups", groups.names.len()), needs, ceiling: view.memory }.into());
    }
    if genes >= view.n_vars as u64 {
        if let Some(found) = wide::grouped(view, groups, watch)? {
            return Ok((found, wasted));
        }
        let done = view.pass(&view.steps(), &fold, Some(groups.codes), watch)?;
        return Ok((done.output, wasted + u32::from(done.decoded)));
    }
    let mut whole = fold.finish(fold.init());
    let mut reads = wasted;
    for run in runs(&vec![1; view.n_vars], genes) {
        let part = Grouped { n_vars: run.len(), n_groups: groups.names.len() };
        let steps = view.steps_of(&mask_of(&run, view.n_vars));
        let done = view.pass(&steps, &part, Some(groups.codes), watch)?;
        reads += u32::from(done.decoded);
        let parts = done.output.groups.iter().chain([&done.output.rest]);
        for (into, from) in whole.groups.iter_mut().chain([&mut whole.rest]).zip(parts) {
            into.n_obs = from.n_obs;
            into.sum[run.clone()].copy_from_slice(&from.sum);
            into.squares[run.clone()].copy_from_slice(&from.squares);
            into.n_cells[run.clone()].copy_from_slice(&from.n_cells);
        }
    }
    Ok((whole, reads))
}

/// Whether so many GPUs can take the sums (and the ranks) over `n_groups` groups in the memory that is left beside their drivers.
pub(crate) fn fits_gpus(view: &View<'_>, n_groups: usize, n_devices: usize, ranked: bool) -> bool {
    gpu::host_bytes(view.feed.source, n_groups, view.n_vars, n_devices, ranked) <= view.memory
}

/// The same by GPUs, if there are any and they are fit for it, and ranks, if they are asked for; and the reads that it took.
pub(crate) fn on_gpus(view: &View<'_>, groups: &Groups<'_>, ranked: bool, watch: &dyn Watch) -> Result<(Option<Found>, u32)> {
    let Some(device) = view.gpus.first() else { return Ok((None, 0)) };
    if view.cluster.is_some() {
        return Ok((None, 0));
    }
    let Some(ask) = question(view.select, view.values, groups).map(|ask| Question { ranked, ..ask }) else {
        device.leave("it knows no sums over groups after these steps".into());
        return Ok((None, 0));
    };
    if !fits_gpus(view, groups.names.len(), view.gpus.len(), ranked) {
        device.leave("the memory ceiling has no room for packed rows on their way to it".into());
        return Ok((None, 0));
    }
    // Where the first rows are no counts, others are none either.
    if !holds_counts(view.feed.source)? {
        return Ok((None, 0));
    }
    match gpu::grouped(view.gpus, view.feed, &ask, watch) {
        Err(error) if is_of_gpu(&error) && !device.is_required() => {
            device.leave(error.to_string());
            Ok((None, 0))
        }
        found => Ok(found?.map_or((None, 0), |found| {
            let decoded = u32::from(found.decoded);
            (Some(found), decoded)
        })),
    }
}

/// What is asked beside the engine's passes; `None` for steps that are not known there.
pub(crate) fn question<'a>(select: &'a [Step], values: &[Step], groups: &Groups<'a>) -> Option<Question<'a>> {
    let how = match values {
        [] => Logged::IDENTITY,
        [Step::NormalizeTotal { target_sum }, Step::Log1p { base }] => Logged { target_sum: Some(*target_sum), log1p: true, base: *base },
        _ => return None,
    };
    let (rows, genes) = match select {
        [Step::KeepObs { rows: Rows::Mask { keep, first: 0 } }, genes @ ..] => (Some(&keep[..]), genes),
        genes => (None, genes),
    };
    let (genes, totals_of_genes) = match genes {
        [] => (None, false),
        [Step::KeepVar { mask }] => (Some(&mask[..]), true),
        [Step::TakeTotals, Step::KeepVar { mask }] => (Some(&mask[..]), false),
        _ => return None,
    };
    Some(Question { codes: groups.codes, n_groups: groups.names.len(), rows, genes, totals_of_genes, how, ranked: false })
}

/// Refuses groups of fewer than two cells: they have no variance.
pub fn check_sizes(sizes: &[u64], tested: &[u32], names: &[String], least: u64) -> Result<()> {
    match tested.iter().find(|&&g| sizes[g as usize] < least) {
        None => Ok(()),
        Some(&g) => {
            let n = sizes[g as usize];
            let cells = if n == 1 { "1 cell".to_string() } else { format!("{n} cells") };
            let found = format!("the group '{}' has {cells}", names[g as usize]);
            Err(Error::invalid(Default::default(), found, format!("at least {least} are needed; choose others with --groups")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_asked_what_the_steps_say() {
        let (codes, names) = (vec![0; 20], vec!["a".to_string()]);
        let groups = Groups { codes: &codes, names: &names };
        let keep = Step::KeepObs { rows: Rows::Mask { keep: vec![true; 20], first: 0 } };
        let genes = Step::KeepVar { mask: vec![true, false, true, true] };
        let logged = [Step::NormalizeTotal { target_sum: 1e4 }, Step::Log1p { base: Some(2.0) }];
        let asked = |select: &[Step], values: &[Step]| {
            question(select, values, &groups).map(|ask| (ask.rows.is_some(), ask.genes.map(<[bool]>::len), ask.totals_of_genes, ask.how))
        };
        let how = Logged { target_sum: Some(1e4), log1p: true, base: Some(2.0) };
        assert_eq!(asked(&[], &[]), Some((false, None, false, Logged::IDENTITY)));
        assert_eq!(asked(std::slice::from_ref(&keep), &logged), Some((true, None, false, how)));
        assert_eq!(asked(&[keep.clone(), genes.clone()], &logged), Some((true, Some(4), true, how)));
        assert_eq!(asked(&[Step::TakeTotals, genes.clone()], &logged), Some((false, Some(4), false, how)));
        assert_eq!(asked(&[genes, keep], &logged), None, "another order");
        assert_eq!(asked(&[], &logged[..1]), None, "no logarithm");
        assert_eq!(asked(&[], &logged[1..]), None, "no sum");
    }
}

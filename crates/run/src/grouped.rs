//! Statistics of every gene in each group, under the memory ceiling: in one pass, or gene run by gene run where groups are very many.

use cellmill_engine::fold::{Fold, Grouped, GroupedStats};
use cellmill_engine::groups::{self as gpu, Question};
use cellmill_engine::recipe::{Rows, Step};
use cellmill_kernels::transform::cuda::Logged;
use cellmill_matrix::{Error, ErrorKind, Result, Watch};

use crate::device::is_of_gpu;
use crate::view::{Groups, View, mask_of, runs};

/// Statistics of every gene in each group, and the passes that decoded the source.
pub fn grouped(view: &View<'_>, groups: &Groups<'_>, watch: &dyn Watch) -> Result<(GroupedStats, u32)> {
    view.check()?;
    view.check_codes(groups.codes)?;
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
        if let Some(found) = on_gpus(view, groups, watch)? {
            return Ok(found);
        }
        let done = view.pass(&view.steps(), &fold, Some(groups.codes), watch)?;
        return Ok((done.output, u32::from(done.decoded)));
    }
    let mut whole = fold.finish(fold.init());
    let mut reads = 0;
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

/// The same by GPUs, if there are any and they are fit for it.
fn on_gpus(view: &View<'_>, groups: &Groups<'_>, watch: &dyn Watch) -> Result<Option<(GroupedStats, u32)>> {
    let how = match view.values {
        [] => Logged::IDENTITY,
        [Step::NormalizeTotal { target_sum }, Step::Log1p { base }] => Logged { target_sum: Some(*target_sum), log1p: true, base: *base },
        _ => return Ok(None),
    };
    let (rows, genes) = match view.select {
        [Step::KeepObs { rows: Rows::Mask { keep, first: 0 } }, genes @ ..] => (Some(&keep[..]), genes),
        genes => (None, genes),
    };
    let (genes, totals_of_genes) = match genes {
        [] => (None, false),
        [Step::KeepVar { mask }] => (Some(&mask[..]), true),
        [Step::TakeTotals, Step::KeepVar { mask }] => (Some(&mask[..]), false),
        _ => return Ok(None),
    };
    if view.cluster.is_some() {
        return Ok(None);
    }
    let ask = Question { codes: groups.codes, n_groups: groups.names.len(), rows, genes, totals_of_genes, how };
    let found = match (gpu::grouped(view.gpus, view.feed, &ask, watch), view.gpus.first()) {
        (Err(error), Some(device)) if is_of_gpu(&error) && !device.is_required() => {
            device.leave(error.to_string());
            None
        }
        (done, _) => done?,
    };
    Ok(found.map(|found| (found.stats, u32::from(found.decoded))))
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

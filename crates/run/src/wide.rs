//! Sums over groups of cells whose values are float64 in memory. The engine's rows are float32.

use cellmill_engine::exec::{cut, in_order};
use cellmill_engine::fold::{Fold, Grouped, GroupedStats};
use cellmill_matrix::{Result, Watch};

use crate::grouped::question;
use crate::view::{Groups, View};

/// Rows of f64.
pub trait Wide: Sync {
    /// Replaces `columns` and `values` by the entries of a row, in the order of their columns, each column once. Columns are below `n_vars`.
    fn row(&self, row: u64, columns: &mut Vec<u32>, values: &mut Vec<f64>) -> Result<()>;
}

/// Statistics of every gene in each group; `None` where the view has no such rows, or changes their values.
pub fn grouped(view: &View<'_>, groups: &Groups<'_>, watch: &dyn Watch) -> Result<Option<GroupedStats>> {
    let (Some(wide), [], None) = (view.wide, view.values, view.cluster) else { return Ok(None) };
    let Some(ask) = question(view.select, view.values, groups) else { return Ok(None) };
    let n_obs = view.feed.source.shape().n_obs;
    let tasks = cut(n_obs);
    let fold = Grouped { n_vars: view.n_vars, n_groups: groups.names.len() };
    // Place of each gene among those that are left.
    let places: Option<Vec<Option<u32>>> = ask.genes.map(|keep| {
        let mut next = 0..;
        keep.iter().map(|&kept| if kept { next.next() } else { None }).collect()
    });
    let mut whole = fold.init();
    in_order(
        tasks.len(),
        1,
        |i| {
            let mut acc = fold.open();
            let (mut columns, mut values) = (Vec::new(), Vec::new());
            for row in tasks[i].clone().filter(|&row| ask.rows.is_none_or(|keep| keep[row as usize])) {
                wide.row(row, &mut columns, &mut values)?;
                if let Some(places) = &places {
                    let mut left = 0;
                    for at in 0..columns.len() {
                        if let Some(place) = places[columns[at] as usize] {
                            (columns[left], values[left]) = (place, values[at]);
                            left += 1;
                        }
                    }
                    columns.truncate(left);
                    values.truncate(left);
                }
                acc.add(&fold, ask.codes[row as usize], &columns, &values);
            }
            Ok(fold.close(acc))
        },
        |i, state| {
            fold.merge(&mut whole, state);
            watch.tick(tasks[i].end, n_obs, "")
        },
    )?;
    Ok(Some(fold.finish(whole)))
}

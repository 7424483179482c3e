//! How rows get to a GPU: as they are staged, to be selected and transformed there, or as they enter the analysis.

use cellmill_kernels::pack::cuda::ABSENT;
use cellmill_kernels::select::{DROPPED, renumbering};
use cellmill_kernels::transform::cuda::Logged;

use super::Rows;
use crate::recipe::Step;

/// What a GPU does to packed rows. Decided by the recipe alone.
#[derive(Debug, PartialEq)]
pub(super) struct Route<'a> {
    /// The filters of rows behind which packed rows of all genes are staged; `None`: the CPU packs chosen columns that are transformed.
    pub staged: Option<&'a [Step]>,
    /// New number of each packed column.
    pub map: Vec<u32>,
    /// What is done to the values of the chosen columns.
    pub how: Logged,
    /// 1 / standard deviation of each chosen column, which its values are multiplied by afterwards, and the largest that is left.
    pub scale: Option<(&'a [f64], Option<f64>)>,
}

impl<'a> Route<'a> {
    pub fn of(rows: &Rows<'a>) -> Self {
        let staged = rows.feed.stage.and_then(|_| Self::staged(rows.feed.filters(rows.select), rows.select, rows.transform));
        let p = rows.n_genes as u32;
        staged.unwrap_or_else(|| Route { staged: None, map: (0..p).collect(), how: Logged::IDENTITY, scale: None })
    }

    /// From rows of all genes, if these steps are what the kernels can do.
    fn staged(filters: &'a [Step], select: &'a [Step], transform: &'a [Step]) -> Option<Self> {
        let (transform, scale) = match transform {
            [rest @ .., Step::Scale { mean: None, inverse_std, max_value }] => (rest, Some((&inverse_std[..], *max_value))),
            all => (all, None),
        };
        let (target_sum, log) = match transform {
            [] => (None, None),
            [Step::NormalizeTotal { target_sum }] => (Some(*target_sum), None),
            [Step::Log1p { base }] => (None, Some(*base)),
            [Step::NormalizeTotal { target_sum }, Step::Log1p { base }] => (Some(*target_sum), Some(*base)),
            _ => return None,
        };
        let (genes, totals, mask) = match &select[filters.len()..] {
            [Step::KeepVar { mask }] => (None, false, mask),
            [Step::TakeTotals, Step::KeepVar { mask }] => (None, true, mask),
            [Step::KeepVar { mask: genes }, Step::TakeTotals, Step::KeepVar { mask }] => (Some(genes), true, mask),
            _ => return None,
        };
        // Else rows would be normalised by the sums of what is chosen.
        if target_sum.is_some() && !totals {
            return None;
        }
        let (chosen, _) = renumbering(mask);
        let map = match genes {
            None => chosen,
            Some(genes) => {
                let mut chosen = chosen.into_iter();
                genes.iter().map(|&there| if there { chosen.next().unwrap_or(DROPPED) } else { ABSENT }).collect()
            }
        };
        let how = Logged { target_sum, log1p: log.is_some(), base: log.flatten() };
        Some(Route { staged: Some(filters), map, how, scale })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Rows;

    #[test]
    fn what_the_kernels_can_do_is_left_to_them() {
        let keep = |mask: &[bool]| Step::KeepVar { mask: mask.to_vec() };
        let scale = |mean| Step::Scale { mean, inverse_std: vec![2.0, 3.0], max_value: Some(9.0) };
        let values = [Step::NormalizeTotal { target_sum: 1e4 }, Step::Log1p { base: None }, scale(None)];
        let plain = [Step::TakeTotals, keep(&[false, true, true])];
        let route = Route::staged(&[], &plain, &values).unwrap();
        assert_eq!(route.map, [DROPPED, 0, 1]);
        assert_eq!(route.how, Logged { target_sum: Some(1e4), log1p: true, base: None });
        assert_eq!(route.scale, Some((&[2.0, 3.0][..], Some(9.0))));
        assert!(Route::staged(&[], &plain, &values[..2]).unwrap().scale.is_none());
        assert!(Route::staged(&[], &plain, &[scale(Some(vec![0.0; 2]))]).is_none(), "centred");
        let filtered = [keep(&[true, false, true, true]), Step::TakeTotals, keep(&[false, true, true])];
        assert_eq!(Route::staged(&[], &filtered, &values).unwrap().map, [DROPPED, ABSENT, 0, 1]);
        assert!(Route::staged(&[], &plain[1..], &values).is_none(), "sums of the chosen columns alone");
        assert!(Route::staged(&[], &plain[1..], &values[1..]).is_some());
        assert!(Route::staged(&[], &plain, &[Step::Sqrt]).is_none());
        let keep = Step::KeepObs { rows: Rows::Mask { keep: vec![true], first: 0 } };
        let behind = [keep, plain[0].clone(), plain[1].clone()];
        assert_eq!(Route::staged(&behind[..1], &behind, &values).unwrap().staged, Some(&behind[..1]));
        assert!(Route::staged(&[], &behind, &values).is_none(), "rows of the stage that a filter drops");
    }
}

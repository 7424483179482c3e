//! Groups of cells from columns of obs.

use std::collections::BTreeMap;

use cellmill_engine::fold::NO_GROUP;
use cellmill_matrix::{Column, Error, Place, Result, Table, Values};

/// Labels of cells, combined.
#[derive(Clone, Debug)]
pub struct Combined {
    /// Group of each row of the frame; [`NO_GROUP`] where a label is missing.
    pub codes: Vec<u32>,
    /// One row a group that has cells, in the order of the categories: its name (labels joined by `_`) and its labels.
    pub labels: Table,
}

/// Groups of the rows of `obs` by one or several columns, as scanpy forms them: categories in their order (sorted, where a column is none),
/// combinations that have no row left out.
pub fn combine(obs: &Table, by: &[String], location: &str) -> Result<Combined> {
    if by.is_empty() {
        return Err(Error::option("by", "nothing", "at least one column of obs is needed"));
    }
    let mut parts = Vec::new();
    for name in by {
        let place = Place::element(location, "obs");
        let column = obs.column(name).ok_or_else(|| Error::missing(place, name, obs.names()))?;
        parts.push(categories(column, obs.n_rows()));
    }
    let mut found: BTreeMap<Vec<u32>, u32> = BTreeMap::new();
    let keys: Vec<Option<Vec<u32>>> =
        (0..obs.n_rows()).map(|i| parts.iter().map(|(codes, _)| (codes[i] != NO_GROUP).then_some(codes[i])).collect()).collect();
    keys.iter().flatten().for_each(|key| _ = found.entry(key.clone()).or_default());
    found.values_mut().zip(0..).for_each(|(number, i)| *number = i);
    let codes = keys.iter().map(|key| key.as_ref().and_then(|k| found.get(k)).copied().unwrap_or(NO_GROUP)).collect();
    let name = |key: &Vec<u32>| key.iter().zip(&parts).map(|(&c, (_, values))| values.text(c as usize)).collect::<Vec<_>>().join("_");
    let mut labels = Table::of_index(found.keys().map(name).collect());
    for (at, (name, (_, values))) in by.iter().zip(&parts).enumerate() {
        let codes = found.keys().map(|key| key[at] as i32).collect();
        labels.set(name, Column::Categorical { codes, categories: values.clone(), ordered: false });
    }
    Ok(Combined { codes, labels })
}

/// Codes of a column and the categories that are in use, in order.
pub fn categories(column: &Column, n: usize) -> (Vec<u32>, Values) {
    if let Column::Categorical { codes, categories, .. } = column {
        let mut used = vec![false; categories.len()];
        codes.iter().filter_map(|c| usize::try_from(*c).ok()).for_each(|c| used[c] = true);
        let mut number = vec![NO_GROUP; used.len()];
        number.iter_mut().zip(&used).filter(|(_, u)| **u).zip(0..).for_each(|((n, _), i)| *n = i);
        let codes = codes.iter().map(|c| usize::try_from(*c).map_or(NO_GROUP, |c| number[c])).collect();
        return (codes, categories.select(&used));
    }
    // pandas sorts the values of a column that is no categorical.
    let values = match column {
        Column::Plain(values) | Column::Nullable { values, .. } => values,
        Column::Categorical { categories, .. } => categories,
    };
    let missing = |i: usize| column.text(i).is_none() || values.number(i).is_some_and(f64::is_nan);
    let mut order: Vec<usize> = (0..n).filter(|&i| !missing(i)).collect();
    let numeric = !matches!(values, Values::Str(_));
    let compare = |a: usize, b: usize| match (numeric, values.number(a), values.number(b)) {
        (true, Some(x), Some(y)) => x.total_cmp(&y),
        _ => values.text(a).cmp(&values.text(b)),
    };
    order.sort_by(|&a, &b| compare(a, b));
    let mut codes = vec![NO_GROUP; n];
    let mut first = vec![false; n];
    let mut number = 0;
    for (k, &i) in order.iter().enumerate() {
        let new = k == 0 || compare(order[k - 1], i).is_ne();
        number += u32::from(new && k > 0);
        first[i] = new;
        codes[i] = number;
    }
    // `select` keeps row order; the categories are wanted in sorted order.
    let firsts: Vec<usize> = order.into_iter().filter(|&i| first[i]).collect();
    (codes, picked(values, &firsts))
}

/// Values at these places.
fn picked(values: &Values, at: &[usize]) -> Values {
    let whole = |i: &usize| values.number(*i).unwrap_or(f64::NAN);
    match values {
        Values::Bool(v) => Values::Bool(at.iter().map(|&i| v[i]).collect()),
        Values::F32(_) | Values::F64(_) => Values::F64(at.iter().map(whole).collect()),
        Values::Str(v) => Values::Str(at.iter().map(|&i| v[i].clone()).collect()),
        _ => Values::I64(at.iter().map(|i| whole(i) as i64).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_combine_in_the_order_of_their_categories() {
        let mut obs = Table::of_index((0..5).map(|i| i.to_string()).collect());
        let kinds = Values::Str(vec!["z".into(), "unused".into(), "a".into()]);
        obs.set("kind", Column::Categorical { codes: vec![2, 0, 2, -1, 0], categories: kinds, ordered: false });
        obs.set("day", Column::Plain(Values::I32(vec![10, 9, 10, 9, 10])));
        let found = combine(&obs, &["kind".into(), "day".into()], "x").unwrap();
        assert_eq!(found.labels.index, ["z_9", "z_10", "a_10"]);
        assert_eq!(found.codes, [2, 0, 2, NO_GROUP, 1]);
        assert!(combine(&obs, &["kin".into()], "x.zarr").unwrap_err().to_string().contains("did you mean 'kind'"));
    }

    #[test]
    fn missing_numbers_are_in_no_group() {
        let column = Column::Plain(Values::F64(vec![2.5, f64::NAN, 1.0, 2.5]));
        assert_eq!(categories(&column, 4), (vec![1, NO_GROUP, 0, 1], Values::F64(vec![1.0, 2.5])));
    }
}

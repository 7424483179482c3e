//! Columns of obs and var that a recipe names: gene sets, batches, totals.

use cellmill_matrix::{Column, Error, Place, Result, Table};

/// The genes of a set: by prefix, regular expression or a boolean column of var.
pub(super) fn gene_set(name: &str, selector: &str, var: &Table, location: &str) -> Result<Vec<bool>> {
    let option = format!("qc.qc_vars.{name}");
    let mask: Vec<bool> = if let Some(pattern) = selector.strip_prefix("regex:") {
        let regex = regex::Regex::new(pattern).map_err(|e| {
            // The parser draws a picture of several lines; the last one says what is wrong.
            let what = e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
            Error::option(&option, format!("'{pattern}': {what}"), "a regular expression is needed")
        })?;
        var.index.iter().map(|gene| regex.is_match(gene)).collect()
    } else if let Some(column) = selector.strip_prefix("column:") {
        let values = var.column(column).ok_or_else(|| Error::missing(Place::element(location, "var"), column, var.names()))?;
        (0..var.n_rows()).map(|j| values.number(j).is_some_and(|x| x != 0.0)).collect()
    } else {
        let prefix = selector.strip_prefix("prefix:").unwrap_or(selector);
        var.index.iter().map(|gene| gene.starts_with(prefix)).collect()
    };
    Ok(mask)
}

/// Batch of each cell and the batches' names, in the order of their categories (sorted, if the column is plain).
pub(super) fn batches(obs: &Table, key: &str, location: &str) -> Result<(Vec<u32>, Vec<String>)> {
    let column = obs.column(key).ok_or_else(|| Error::missing(Place::element(location, "obs"), key, obs.names()))?;
    let text: Vec<String> = (0..obs.n_rows())
        .map(|i| {
            column.text(i).ok_or_else(|| {
                let place = Place::element(location, format!("obs/{key}")).rows(i as u64..i as u64 + 1);
                Error::invalid(place, "a missing value", "each cell needs a batch")
            })
        })
        .collect::<Result<_>>()?;
    let mut names: Vec<String> = match column {
        Column::Categorical { categories, .. } => (0..categories.len()).map(|c| categories.text(c)).collect(),
        _ => {
            let mut all = text.clone();
            all.sort();
            all.dedup();
            all
        }
    };
    let present: std::collections::HashSet<&String> = text.iter().collect();
    names.retain(|name| present.contains(name));
    let number: std::collections::HashMap<&String, u32> = names.iter().zip(0..).collect();
    let codes = text.iter().map(|t| number.get(t).copied().unwrap_or(0)).collect();
    Ok((codes, names))
}

/// Median of the totals above 0, as numpy takes it.
pub(crate) fn median_of_positive(totals: &[f64]) -> Option<f64> {
    let mut positive: Vec<f64> = totals.iter().copied().filter(|&t| t > 0.0).collect();
    if positive.is_empty() {
        return None;
    }
    positive.sort_unstable_by(f64::total_cmp);
    let n = positive.len();
    Some(if n % 2 == 1 { positive[n / 2] } else { (positive[n / 2 - 1] + positive[n / 2]) / 2.0 })
}

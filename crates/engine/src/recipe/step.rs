//! The vocabulary of recipes, and what each word does to a chunk.

use cellmill_kernels::totals::{self, RowTotals};
use cellmill_kernels::{select, transform};
use cellmill_matrix::{Column, Error, Place, Result, Table, Values, keys};
use serde::{Deserialize, Serialize};

use super::Expression;
use crate::Chunk;
use crate::fold::Counted;

/// Which quality-control values of a row are wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowQc {
    /// Name and genes of each set (scanpy's `qc_vars`): masks of `(n_vars,)`.
    pub qc_vars: Vec<(String, Vec<bool>)>,
    /// Sizes of the top lists (scanpy's `percent_top`).
    pub percent_top: Vec<usize>,
    /// Whether `log1p_` columns are wanted.
    pub log1p: bool,
}

/// Which rows go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rows {
    /// Those for which a rule on the row's own QC values and on its columns in obs holds.
    Where {
        /// The rule.
        rule: Expression,
        /// QC values that the rule may ask for.
        qc: RowQc,
        /// Columns of obs that it may ask for, of this task's rows alone.
        obs: Vec<(String, Column)>,
        /// Source row of the first entry of `obs`.
        first: u64,
    },
    /// Those whose flag is true; flags of this task's rows alone.
    Mask {
        /// One flag a source row from `first` on.
        keep: Vec<bool>,
        /// Source row of the first flag.
        first: u64,
    },
}

/// One step of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Drops rows.
    KeepObs {
        /// Which stay.
        rows: Rows,
    },
    /// Drops columns (and explicit zeros).
    KeepVar {
        /// `(n_vars,)` as the columns are at this point.
        mask: Vec<bool>,
    },
    /// Takes the row sums now; a later normalisation uses them though columns are dropped in between.
    TakeTotals,
    /// Takes the row sums over some columns now, for the next normalisation.
    TakeTotalsOf {
        /// Columns that count: `(n_vars,)` as the columns are at this point.
        mask: Vec<bool>,
    },
    /// x · target / Σ row.
    NormalizeTotal {
        /// The sum that rows get.
        target_sum: f64,
    },
    /// ln(1 + x) / ln(base).
    Log1p {
        /// Base of the logarithm; natural without.
        base: Option<f64>,
    },
    /// e^(x · ln(base)) − 1: back from [`Step::Log1p`].
    Expm1 {
        /// Base of the logarithm that was taken; natural without.
        base: Option<f64>,
    },
    /// √x.
    Sqrt,
    /// (x − mean) / std clipped, minus what a zero becomes: the chunk stays as sparse as it was, and that base row is kept apart.
    Scale {
        /// Mean of each column as the columns are at this point; `None` leaves the data uncentred.
        mean: Option<Vec<f64>>,
        /// 1 / standard deviation of each column as the columns are at this point.
        inverse_std: Vec<f64>,
        /// Largest value that is left.
        max_value: Option<f64>,
    },
}

/// Applies the first of these steps, or several that can be fused. Returns how many were done.
pub fn apply(steps: &[Step], chunk: &mut Chunk) -> Result<usize> {
    match steps {
        [Step::NormalizeTotal { target_sum }, Step::Log1p { base }, ..] => {
            let totals = chunk.row_sums();
            let whole = chunk.is_whole();
            transform::normalize_log1p(&mut chunk.x, whole, &totals, *target_sum, *base);
            chunk.changed();
            return Ok(2);
        }
        [Step::KeepObs { rows: Rows::Mask { keep, first } }, ..] => {
            let at = (chunk.source.start - first) as usize;
            let flags: Vec<bool> = chunk.rows.iter().map(|&r| keep[at + r as usize]).collect();
            chunk.keep_rows(&flags);
        }
        [Step::KeepObs { rows: Rows::Where { rule, qc, obs, first } }, ..] => {
            let made = row_qc(qc, chunk);
            let flags = where_holds(rule, made, obs, chunk.source.start - first, &chunk.rows)?;
            chunk.keep_rows(&flags);
        }
        [Step::KeepVar { mask }, ..] => {
            let (map, kept) = select::renumbering(mask);
            select::keep_columns(&mut chunk.x, &map, kept);
            chunk.changed();
        }
        [Step::TakeTotals, ..] => chunk.normalizer = Some(chunk.totals().total.clone()),
        [Step::TakeTotalsOf { mask }, ..] => chunk.normalizer = totals::subset_totals(&chunk.x, std::slice::from_ref(mask)).pop(),
        [Step::NormalizeTotal { target_sum }, ..] => {
            let totals = chunk.row_sums();
            transform::normalize_total(&mut chunk.x, &totals, *target_sum);
            chunk.changed();
        }
        [Step::Log1p { base }, ..] => {
            transform::log1p(&mut chunk.x, *base);
            chunk.changed();
        }
        [Step::Expm1 { base }, ..] => {
            transform::expm1(&mut chunk.x, *base);
            chunk.changed();
        }
        [Step::Sqrt, ..] => {
            transform::sqrt(&mut chunk.x);
            chunk.changed();
        }
        [Step::Scale { mean, inverse_std, max_value }, ..] => {
            match mean {
                None => transform::scale_columns(&mut chunk.x, inverse_std, *max_value),
                Some(mean) => transform::center_columns(&mut chunk.x, mean, inverse_std, *max_value),
            }
            chunk.changed();
        }
        [] => return Ok(0),
    }
    Ok(1)
}

/// Applies all of these steps.
pub fn apply_all(steps: &[Step], chunk: &mut Chunk) -> Result<()> {
    let mut done = 0;
    while done < steps.len() {
        done += apply(&steps[done..], chunk)?;
    }
    Ok(())
}

/// QC columns of the rows of a chunk, named and typed as scanpy's `calculate_qc_metrics` writes them to obs.
pub fn row_qc(qc: &RowQc, chunk: &mut Chunk) -> Vec<(String, Values)> {
    let row = chunk.totals().clone();
    let shares = totals::top_shares(&chunk.x, &row, &qc.percent_top);
    let masks: Vec<Vec<bool>> = qc.qc_vars.iter().map(|(_, mask)| mask.clone()).collect();
    named(qc, &row, shares, &totals::subset_totals(&chunk.x, &masks))
}

/// [`row_qc`] of rows of which no more than that is known. `percent_top` must be empty, and the sums of each set known.
pub fn counted_qc(qc: &RowQc, counted: &Counted) -> Vec<(String, Values)> {
    let sums = |name: &String| counted.sets.iter().find(|(known, _)| known == name).map(|(_, sums)| sums.clone()).unwrap_or_default();
    let sums: Vec<Vec<f64>> = qc.qc_vars.iter().map(|(name, _)| sums(name)).collect();
    named(qc, &counted.totals, Vec::new(), &sums)
}

/// The columns from totals of the rows, shares of the top lists and sums over the sets.
fn named(qc: &RowQc, row: &RowTotals, shares: Vec<Vec<f64>>, sums: &[Vec<f64>]) -> Vec<(String, Values)> {
    let log1p32 = |v: &[f64]| Values::F32(v.iter().map(|&x| libm::log1p(x) as f32).collect());
    let as_f32 = |v: &[f64]| v.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let mut out = vec![(keys::N_GENES_BY_COUNTS.to_string(), Values::I32(row.n_genes.iter().map(|&n| n as i32).collect()))];
    if qc.log1p {
        out.push((keys::log1p_of(keys::N_GENES_BY_COUNTS), Values::F64(row.n_genes.iter().map(|&n| libm::log1p(f64::from(n))).collect())));
    }
    out.push((keys::TOTAL_COUNTS.to_string(), Values::F32(as_f32(&row.total))));
    if qc.log1p {
        out.push((keys::log1p_of(keys::TOTAL_COUNTS), log1p32(&row.total)));
    }
    for (share, n) in shares.into_iter().zip(&qc.percent_top) {
        out.push((format!("pct_counts_in_top_{n}_genes"), Values::F64(share)));
    }
    for (sums, (name, _)) in sums.iter().zip(&qc.qc_vars) {
        out.push((format!("total_counts_{name}"), Values::F32(as_f32(sums))));
        if qc.log1p {
            out.push((format!("log1p_total_counts_{name}"), log1p32(sums)));
        }
        let pct = sums.iter().zip(&row.total).map(|(part, all)| (part / all * 100.0) as f32).collect();
        out.push((format!("pct_counts_{name}"), Values::F32(pct)));
    }
    out
}

/// Which of the rows from source row `first` on stay, of which no more than that is known: `None` if `filters` are not one filter at most.
pub fn kept(filters: &[Step], first: u64, counted: &Counted) -> Result<Option<Vec<bool>>> {
    let n = counted.totals.total.len();
    Ok(match filters {
        [] => Some(vec![true; n]),
        [Step::KeepObs { rows: Rows::Mask { keep, first: from } }] => Some(keep[(first - from) as usize..][..n].to_vec()),
        [Step::KeepObs { rows: Rows::Where { rule, qc, obs, first: from } }] if qc.percent_top.is_empty() => {
            let rows: Vec<u32> = (0..n as u32).collect();
            Some(where_holds(rule, counted_qc(qc, counted), obs, first - from, &rows)?)
        }
        _ => None,
    })
}

/// Evaluates a row rule on QC values of `rows` and on columns of obs, in which row 0 is at `at`.
fn where_holds(rule: &Expression, made: Vec<(String, Values)>, obs: &[(String, Column)], at: u64, rows: &[u32]) -> Result<Vec<bool>> {
    let mut table = Table::of_index(vec![String::new(); rows.len()]);
    for (name, column) in obs {
        let mut keep = vec![false; column.len()];
        rows.iter().for_each(|&r| keep[at as usize + r as usize] = true);
        table.columns.push((name.clone(), column.select(&keep)));
    }
    for (name, values) in made {
        table.set(&name, Column::Plain(values));
    }
    let known: Vec<String> = table.names().map(String::from).collect();
    let place = Place { element: Some("obs".into()), ..Place::default() };
    rule.evaluate(rows.len(), |name| table.column(name), &known, &place).map_err(|e: Error| e.at(&place))
}

//! Which cells are kept, and their obs.

use cellmill_engine::chunk::RowColumns;
use cellmill_engine::fold::EXACT_TOTAL;
use cellmill_engine::recipe::{Expression, RowQc, Rows, Step};
use cellmill_matrix::{Column, Error, Result, Table, Values, keys};
use rayon::prelude::*;

use super::Surveyor;

impl Surveyor<'_> {
    /// The cell filter as one expression.
    fn cell_rule(&self) -> Result<Option<Expression>> {
        let f = &self.recipe.filter;
        let mut parts = Vec::new();
        if !f.cells.is_empty() {
            parts.push(format!("({})", f.cells));
        }
        let mut bound = |column: &str, sign: &str, value: Option<String>| {
            if let Some(value) = value {
                parts.push(format!("{column} {sign} {value}"));
            }
        };
        bound(keys::N_GENES_BY_COUNTS, ">=", f.min_genes.map(|x| x.to_string()));
        bound(keys::N_GENES_BY_COUNTS, "<=", f.max_genes.map(|x| x.to_string()));
        bound(keys::TOTAL_COUNTS, ">=", f.min_counts.map(|x| x.to_string()));
        bound(keys::TOTAL_COUNTS, "<=", f.max_counts.map(|x| x.to_string()));
        if parts.is_empty() { Ok(None) } else { Expression::parse(&parts.join(" & ")).map(Some) }
    }

    /// The step that drops cells in the first read.
    pub(super) fn cell_step(&self) -> Result<Option<Step>> {
        let Some(rule) = self.cell_rule()? else { return Ok(None) };
        let asked = rule.columns();
        // Only the QC values that the rule asks for are taken again for it.
        let qc = RowQc {
            qc_vars: self
                .row_qc
                .qc_vars
                .iter()
                .filter(|(name, _)| asked.iter().any(|a| a.ends_with(&format!("_{name}"))))
                .cloned()
                .collect(),
            percent_top: self
                .row_qc
                .percent_top
                .iter()
                .copied()
                .filter(|n| asked.contains(&format!("pct_counts_in_top_{n}_genes")))
                .collect(),
            log1p: self.row_qc.log1p && asked.iter().any(|a| a.starts_with("log1p_")),
        };
        let made = self.qc_names();
        let known = || made.iter().cloned().chain(self.obs.names().map(String::from));
        let mut columns = Vec::new();
        for name in &asked {
            match (made.contains(name), self.obs.column(name)) {
                (true, _) => {}
                (false, Some(column)) => columns.push((name.clone(), column.clone())),
                (false, None) => return Err(Error::missing(self.place("obs"), name, known())),
            }
        }
        Ok(Some(Step::KeepObs { rows: Rows::Where { rule, qc, obs: columns, first: 0 } }))
    }

    /// Names of the QC columns that this run makes.
    pub(super) fn qc_names(&self) -> Vec<String> {
        let mut names = vec![keys::N_GENES_BY_COUNTS.to_string(), keys::TOTAL_COUNTS.to_string()];
        names.extend(self.row_qc.percent_top.iter().map(|n| format!("pct_counts_in_top_{n}_genes")));
        for (name, _) in &self.row_qc.qc_vars {
            names.push(format!("total_counts_{name}"));
            names.push(format!("pct_counts_{name}"));
        }
        if self.row_qc.log1p {
            names.push(keys::log1p_of(keys::N_GENES_BY_COUNTS));
            names.push(keys::log1p_of(keys::TOTAL_COUNTS));
            names.extend(self.row_qc.qc_vars.iter().map(|(name, _)| format!("log1p_total_counts_{name}")));
        }
        names
    }

    /// obs of the kept cells.
    pub(super) fn decide_cells(&mut self, mut rows: RowColumns) -> Result<()> {
        let n = self.obs.n_rows();
        if let Some(Values::F64(total)) = rows.take(EXACT_TOTAL) {
            self.exact_total = total;
        }
        let made: Vec<(String, Column)> = rows.columns.into_iter().map(|(name, values)| (name, Column::Plain(values))).collect();
        let column = |name: &str| made.iter().find(|(made, _)| made == name).map(|(_, column)| column);
        self.keep = match self.cell_rule()? {
            None => vec![true; n],
            Some(rule) => {
                let new = made.iter().map(|(name, _)| &name[..]).filter(|name| self.obs.column(name).is_none());
                let known: Vec<String> = self.obs.names().chain(new).map(String::from).collect();
                rule.evaluate(n, |name| column(name).or_else(|| self.obs.column(name)), &known, &self.place("obs"))?
            }
        };
        let kept = self.keep.iter().filter(|k| **k).count();
        if n == 0 {
            return Err(Error::invalid(self.place("obs"), "no cells", "there is at least one to analyse"));
        }
        if kept == 0 {
            let rule = self.cell_rule()?.map(|r| r.to_string()).unwrap_or_default();
            return Err(Error::invalid(
                self.place("obs"),
                format!("no cell of {n} passes the filter {rule}"),
                "at least one must; loosen --filter-cells",
            ));
        }
        // A million names, and what is known of them: copied once, by all threads.
        let keep = &self.keep;
        let names = self.obs.index.par_iter().zip(keep).filter(|(_, kept)| **kept).map(|(name, _)| name.clone());
        let select = |(name, column): &(String, Column)| (name.clone(), column.select(keep));
        self.out_obs = Table {
            index_name: self.obs.index_name.clone(),
            index: names.collect(),
            columns: self.obs.columns.par_iter().map(select).collect(),
        };
        let made: Vec<(String, Column)> = made.par_iter().map(select).collect();
        made.into_iter().for_each(|(name, column)| self.out_obs.set(&name, column));
        self.exact_total = self.exact_total.iter().zip(&self.keep).filter(|(_, k)| **k).map(|(t, _)| *t).collect();
        let f = &self.recipe.filter;
        if (f.min_genes.is_some() || f.max_genes.is_some())
            && let Some(Column::Plain(Values::I32(n_genes))) = self.out_obs.column(keys::N_GENES_BY_COUNTS)
        {
            let n_genes = n_genes.iter().map(|&n| i64::from(n)).collect();
            self.out_obs.set(keys::N_GENES, Column::Plain(Values::I64(n_genes)));
        }
        if (f.min_counts.is_some() || f.max_counts.is_some())
            && let Some(counts) = self.out_obs.column(keys::TOTAL_COUNTS).cloned()
        {
            self.out_obs.set(keys::N_COUNTS, counts);
        }
        Ok(())
    }
}

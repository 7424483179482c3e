//! Markers as scanpy keeps them in uns, and as a table.

use cellmill_matrix::{Column, Element, Table, Values};

use super::{Correction, Markers, Method, Ranked, Shares};

/// What `uns['rank_genes_groups']['params']` says.
#[derive(Clone, Debug)]
pub struct Params<'a> {
    /// Column of obs with the groups.
    pub groupby: &'a str,
    /// `rest`, or the name of a group.
    pub reference: &'a str,
    /// How groups were compared.
    pub method: Method,
    /// Whether raw was used.
    pub use_raw: bool,
    /// The layer, if one was used.
    pub layer: Option<&'a str>,
    /// How p-values were corrected.
    pub correction: Correction,
}

/// `uns['rank_genes_groups']`: records of one field a group, `(n_genes,)` each, best gene first. `genes`, `groups`: their names.
pub fn uns(found: &Markers, params: &Params<'_>, genes: &[String], groups: &[String]) -> Element {
    let mut about = vec![
        ("groupby".to_string(), Element::string(params.groupby)),
        ("reference".into(), Element::string(params.reference)),
        ("method".into(), Element::string(params.method.name())),
        ("use_raw".into(), Element::bool(params.use_raw)),
    ];
    // scanpy writes None for no layer; readers before anndata 0.12 know no None.
    about.extend(params.layer.map(|layer| ("layer".to_string(), Element::string(layer))));
    about.push(("corr_method".into(), Element::string(params.correction.name())));
    let mut entries = vec![("params".to_string(), Element::Dict(about))];
    let records =
        |of: &dyn Fn(&Ranked) -> Values| Element::Records(found.ranked.iter().map(|r| (groups[r.group as usize].clone(), of(r))).collect());
    if let Some(shares) = &found.shares {
        entries.push(("pts".into(), frame(&shares.within, shares, genes, groups)));
        if let Some(rest) = &shares.rest {
            entries.push(("pts_rest".into(), frame(rest, shares, genes, groups)));
        }
    }
    entries.push(("names".into(), records(&|r| Values::Str(r.genes.iter().map(|&j| genes[j as usize].clone()).collect()))));
    entries.push(("scores".into(), records(&|r| scores(found, r.scores.clone()))));
    if found.ranked.iter().all(|r| r.tests.is_some()) {
        let tests = |of: fn(&super::Tests) -> Values| records(&|r| r.tests.as_ref().map_or(Values::F64(Vec::new()), of));
        entries.push(("pvals".into(), tests(|t| Values::F64(t.pvals.clone()))));
        entries.push(("pvals_adj".into(), tests(|t| Values::F64(t.pvals_adj.clone()))));
        entries.push(("logfoldchanges".into(), tests(|t| Values::F32(t.log_fold_changes.iter().map(|&x| x as f32).collect()))));
    }
    Element::Dict(entries)
}

/// Scores in the type that they are kept in.
fn scores(of: &Markers, scores: Vec<f64>) -> Values {
    if of.u_values { Values::F64(scores) } else { Values::F32(scores.into_iter().map(|x| x as f32).collect()) }
}

/// Shares as a data frame of genes by groups.
fn frame(shares: &[Vec<f64>], of: &Shares, genes: &[String], groups: &[String]) -> Element {
    let mut table = Table::of_index(genes.to_vec());
    for (&g, values) in of.groups.iter().zip(shares) {
        table.columns.push((groups[g as usize].clone(), Column::Plain(Values::F64(values.clone()))));
    }
    Element::Table(table.into())
}

/// One line a group and gene, with the columns of `scanpy.get.rank_genes_groups_df`.
pub fn table(found: &Markers, genes: &[String], groups: &[String]) -> Table {
    let lines: usize = found.ranked.iter().map(|r| r.genes.len()).sum();
    let mut out = Table::of_index((0..lines).map(|i| i.to_string()).collect());
    let mut column = |name: &str, values: Values| out.columns.push((name.to_string(), Column::Plain(values)));
    let all = |of: &dyn Fn(&Ranked) -> Vec<f64>| found.ranked.iter().flat_map(of).collect::<Vec<f64>>();
    let names = found.ranked.iter().flat_map(|r| std::iter::repeat_n(groups[r.group as usize].clone(), r.genes.len()));
    column("group", Values::Str(names.collect()));
    column("names", Values::Str(found.ranked.iter().flat_map(|r| &r.genes).map(|&j| genes[j as usize].clone()).collect()));
    column("scores", scores(found, all(&|r| r.scores.clone())));
    if found.ranked.iter().all(|r| r.tests.is_some()) {
        let tests = |of: fn(&super::Tests) -> &Vec<f64>| all(&|r| r.tests.as_ref().map(of).cloned().unwrap_or_default());
        column("logfoldchanges", Values::F32(tests(|t| &t.log_fold_changes).into_iter().map(|x| x as f32).collect()));
        column("pvals", Values::F64(tests(|t| &t.pvals)));
        column("pvals_adj", Values::F64(tests(|t| &t.pvals_adj)));
    }
    if let Some(shares) = &found.shares {
        let of = |list: &[Vec<f64>]| {
            all(&|r| {
                let at = shares.groups.iter().position(|g| *g == r.group).unwrap_or(0);
                r.genes.iter().map(|&j| list[at][j as usize]).collect()
            })
        };
        column("pct_nz_group", Values::F64(of(&shares.within)));
        if let Some(rest) = &shares.rest {
            column("pct_nz_reference", Values::F64(of(rest)));
        }
    }
    out
}

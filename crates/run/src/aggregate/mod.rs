//! `scanpy.get.aggregate`: sums, means, variances and counts of every gene over groups of cells (pseudobulk).

mod job;
mod labels;

use cellmill_engine::fold::{GroupStats, NO_GROUP};
use cellmill_matrix::{Error, Result, Watch};

pub use self::job::{Job, Summary};
pub use self::labels::{Combined, categories, combine};
use crate::grouped::grouped;
use crate::view::{Groups, View};

/// What is taken over the cells of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Func {
    /// Σ x.
    Sum,
    /// Σ x / n.
    Mean,
    /// Variance.
    Var,
    /// Cells with a non-zero entry.
    CountNonzero,
    /// Σ x² (rapids-singlecell's).
    SqSum,
}

impl Func {
    /// All of them.
    pub const ALL: [Func; 5] = [Func::Sum, Func::Mean, Func::Var, Func::CountNonzero, Func::SqSum];

    /// scanpy's name, and the layer's.
    pub fn name(self) -> &'static str {
        match self {
            Func::Sum => "sum",
            Func::Mean => "mean",
            Func::Var => "var",
            Func::CountNonzero => "count_nonzero",
            Func::SqSum => "sq_sum",
        }
    }

    /// The function of that name.
    pub fn of_name(name: &str) -> Result<Func> {
        let names: Vec<&str> = Func::ALL.iter().map(|f| f.name()).collect();
        let found = Func::ALL.into_iter().find(|f| f.name() == name);
        found.ok_or_else(|| Error::option("func", format!("'{name}'"), format!("it is one of {}", names.join(", "))))
    }
}

/// One dense layer a function: `(n_groups, n_vars)` f64, row by row.
#[derive(Clone, Debug)]
pub struct Aggregated {
    /// The layers, in the order asked for.
    pub layers: Vec<(Func, Vec<f64>)>,
    /// Cells of each group.
    pub n_obs: Vec<u64>,
    /// Passes that decoded the source.
    pub reads: u32,
}

/// Aggregates the cells of each group. `mask`: source rows that count (`None`: all). `dof`: degrees of freedom that a variance loses.
pub fn aggregate(
    view: &View<'_>,
    groups: &Groups<'_>,
    funcs: &[Func],
    mask: Option<&[bool]>,
    dof: u32,
    watch: &dyn Watch,
) -> Result<Aggregated> {
    view.check_codes(groups.codes)?;
    let masked: Option<Vec<u32>> = mask.map(|m| groups.codes.iter().zip(m).map(|(&c, &keep)| if keep { c } else { NO_GROUP }).collect());
    let (stats, reads) = grouped(view, &Groups { codes: masked.as_deref().unwrap_or(groups.codes), ..*groups }, watch)?;
    let n_obs = stats.groups.iter().map(|g| g.n_obs).collect();
    let layers = funcs.iter().map(|&func| (func, stats.groups.iter().flat_map(|g| values(func, g, f64::from(dof))).collect())).collect();
    Ok(Aggregated { layers, n_obs, reads })
}

/// One function of every gene in one group; means and variances of no cells are NaN.
fn values(func: Func, g: &GroupStats, dof: f64) -> Vec<f64> {
    let n = g.n_obs as f64;
    match func {
        Func::Sum => g.sum.clone(),
        Func::Mean => g.sum.iter().map(|s| s / n).collect(),
        Func::CountNonzero => g.n_cells.iter().map(|&c| c as f64).collect(),
        Func::SqSum => g.squares.iter().zip(&g.sum).map(|(squares, sum)| squares + sum * sum / g.n_obs.max(1) as f64).collect(),
        Func::Var => {
            let var = |(squares, sum): (&f64, &f64)| {
                let var = squares / n;
                let mean = sum / n;
                // scanpy calls a variance 0 that float32 could not tell from 0 beside the mean.
                let var = if PRECISION * var < mean * mean { 0.0 } else { var };
                if dof == 0.0 { var } else { var * (n / (n - dof)) }
            };
            g.squares.iter().zip(&g.sum).map(var).collect()
        }
    }
}

/// 2 << 20: scanpy's for float32 values.
const PRECISION: f64 = 2_097_152.0;

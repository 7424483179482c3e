//! What cells without a count of a gene add, by their totals.

use super::Model;

/// Lanes that are summed side by side; added pairwise at the end, so every instruction set gives the same bits.
const LANES: usize = 8;

wide! {
    /// [Σ r(0), Σ r(0)²] over cells. `totals`: each total above 0 and in how many cells it occurs.
    pub fn of_zeros(share: f64, totals: &[(f64, f64)], model: &Model) -> [f64; 2] = all;
}

#[inline(always)]
fn all(share: f64, totals: &[(f64, f64)], model: &Model) -> [f64; 2] {
    if share <= 0.0 {
        return [0.0; 2];
    }
    // r(0) = −√(μ / (1 + μ/θ)), the formula of the contract with x = 0.
    let (inverse, most) = (1.0 / model.theta, model.clip * model.clip);
    let (mut sums, mut squares) = ([0.0; LANES], [0.0; LANES]);
    let (blocks, rest) = totals.as_chunks::<LANES>();
    for block in blocks {
        for l in 0..LANES {
            let mu = share * block[l].0;
            let square = (mu / (1.0 + mu * inverse)).min(most);
            sums[l] -= block[l].1 * square.sqrt();
            squares[l] += block[l].1 * square;
        }
    }
    for (l, (total, cells)) in rest.iter().enumerate() {
        let mu = share * total;
        let square = (mu / (1.0 + mu * inverse)).min(most);
        sums[l] -= cells * square.sqrt();
        squares[l] += cells * square;
    }
    let add = |x: [f64; LANES]| ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
    [add(sums), add(squares)]
}

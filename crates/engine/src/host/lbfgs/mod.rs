//! Limited-memory BFGS (Nocedal 1980) for smooth functions that are dear to evaluate. Steps, line search and ends are those of L-BFGS-B
//! (Zhu, Byrd, Lu & Nocedal 1997) without bounds, so that a search that is stopped early stops where scipy's does.

mod search;

use cellmill_matrix::Result;
use search::{Said, Search};

/// Pairs of steps and changes of slope that are remembered (scipy's default).
const MEMORY: usize = 10;
/// Points that are tried along one direction (scikit-learn's number).
const TRIES: usize = 50;
/// Steps whose relative decrease is smaller end the search: 64 roundings, as scikit-learn asks of scipy.
const LEAST: f64 = 64.0 * f64::EPSILON;

/// Where the search has ended.
#[derive(Clone, Debug)]
pub struct Minimum {
    /// The point.
    pub x: Vec<f64>,
    /// Steps taken.
    pub steps: usize,
    /// Whether the largest derivative has fallen below the tolerance (or no step brings anything).
    pub converged: bool,
}

/// Minimises `f`, which gives value and gradient, from `x`: until no derivative exceeds `tolerance` or `most` steps are done.
pub fn minimise(mut x: Vec<f64>, tolerance: f64, most: usize, mut f: impl FnMut(&[f64]) -> Result<(f64, Vec<f64>)>) -> Result<Minimum> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let small = |g: &[f64]| g.iter().all(|d| d.abs() <= tolerance);
    let (mut value, mut slope) = f(&x)?;
    let mut pairs: Vec<(Vec<f64>, Vec<f64>, f64)> = Vec::new();
    for steps in 0..most {
        if small(&slope) {
            return Ok(Minimum { x, steps, converged: true });
        }
        // Nocedal & Wright 2006, algorithm 7.4.
        let mut way: Vec<f64> = slope.iter().map(|g| -g).collect();
        let mut weights = Vec::new();
        for (s, y, rho) in pairs.iter().rev() {
            let weight = rho * dot(s, &way);
            way.iter_mut().zip(y).for_each(|(w, y)| *w -= weight * y);
            weights.push(weight);
        }
        if let Some((_, y, rho)) = pairs.last() {
            let scale = 1.0 / (rho * dot(y, y));
            way.iter_mut().for_each(|w| *w *= scale);
        }
        for ((s, y, rho), weight) in pairs.iter().zip(weights.iter().rev()) {
            let other = rho * dot(y, &way);
            way.iter_mut().zip(s).for_each(|(w, s)| *w += (weight - other) * s);
        }
        let promised = dot(&way, &slope);
        let mut length = if steps == 0 { 1.0 / dot(&way, &way).sqrt() } else { 1.0 };
        let mut search = Search::new(value, promised, length);
        let mut next = None;
        for _ in 0..TRIES {
            let there: Vec<f64> = x.iter().zip(&way).map(|(x, w)| x + length * w).collect();
            let (v, g) = f(&there)?;
            let said = search.tell(length, v, dot(&way, &g));
            match said {
                Said::Try(other) => length = other,
                Said::Done => next = Some((there, v, g)),
                Said::Stuck if v < value => next = Some((there, v, g)),
                Said::Stuck => {}
            }
            if !matches!(said, Said::Try(_)) {
                break;
            }
        }
        let Some((there, v, g)) = next else { return Ok(Minimum { x, steps, converged: true }) };
        let step: Vec<f64> = there.iter().zip(&x).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = g.iter().zip(&slope).map(|(a, b)| a - b).collect();
        let curvature = dot(&step, &change);
        if curvature > f64::EPSILON * -promised * length {
            if pairs.len() == MEMORY {
                pairs.remove(0);
            }
            pairs.push((step, change, 1.0 / curvature));
        }
        let done = value - v <= LEAST * value.abs().max(v.abs()).max(1.0);
        (x, value, slope) = (there, v, g);
        if done {
            return Ok(Minimum { x, steps: steps + 1, converged: true });
        }
    }
    let converged = small(&slope);
    Ok(Minimum { x, steps: most, converged })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_bottom_of_a_valley() {
        // Rosenbrock 1960.
        let valley = |x: &[f64]| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            Ok((a * a + 100.0 * b * b, vec![-2.0 * a - 400.0 * x[0] * b, 200.0 * b]))
        };
        let found = minimise(vec![-1.2, 1.0], 1e-8, 200, valley).unwrap();
        assert!(found.converged && found.x.iter().all(|x| (x - 1.0).abs() < 1e-6), "{found:?}");
        assert!(!minimise(vec![-1.2, 1.0], 1e-8, 3, valley).unwrap().converged);
    }
}

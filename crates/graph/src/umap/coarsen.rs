//! A smaller graph that stands for a large one: each cell joins a nearby centre.
//!
//! Centres are a maximal independent set (Luby 1986, with priorities drawn from the seed), and every other cell joins the neighbouring
//! centre to which it is tied most strongly. The smaller graph is Galerkin's: weights and degrees of a group are sums over its cells.

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::random::{self, Use};
use super::start::DeviceGraph;
use crate::Connectivities;
use crate::leiden::aggregate::{Members, fold};

/// Rows of one task.
const ROWS: usize = 1 << 12;

/// What a cell is in the choice of centres.
const OPEN: u8 = 0;
const CENTRE: u8 = 1;
const COVERED: u8 = 2;

/// The smaller graph.
pub(super) struct Coarse {
    pub graph: Connectivities,
    /// Degree of each group, what lies inside it counted: `(groups,)`.
    pub degrees: Vec<f32>,
    /// The group of each cell.
    pub groups: Vec<u32>,
}

/// Groups the cells of a graph whose cells have these `degrees`; edges below `least` do not count. `on_gpu` is the same graph.
pub(super) fn coarsen(graph: &Connectivities, least: f32, degrees: &[f32], seed: u64, on_gpu: Option<&DeviceGraph>) -> Result<Coarse> {
    let n = graph.n();
    let joined = match on_gpu {
        Some(graph) => graph.centres(seed)?,
        None => centres(graph, least, seed),
    };
    let mut number = vec![0u32; n];
    let mut n_groups = 0;
    for (i, number) in number.iter_mut().enumerate() {
        if joined[i] as usize == i {
            *number = n_groups;
            n_groups += 1;
        }
    }
    let groups: Vec<u32> = joined.par_iter().map(|&centre| number[centre as usize]).collect();
    drop((joined, number));
    let smaller = match (on_gpu, exact(graph, least)) {
        (Some(on_gpu), Some(scale)) => on_gpu.contracted(&groups, n_groups as usize, scale)?,
        _ => None,
    };
    let smaller = smaller.unwrap_or_else(|| {
        let (indptr, indices, weights) = fold(&Members::new(&groups, n_groups as usize), &groups, |i| {
            let (indices, weights) = graph.row(i as usize);
            indices.iter().zip(weights).filter(move |edge| *edge.1 >= least).map(|(&j, &w)| (j, f64::from(w)))
        });
        Connectivities { indptr, indices, weights: weights.iter().map(|&w| w as f32).collect() }
    });
    let mut sums = vec![0f64; n_groups as usize];
    groups.iter().zip(degrees).for_each(|(&group, &degree)| sums[group as usize] += f64::from(degree));
    Ok(Coarse { graph: smaller, degrees: sums.into_iter().map(|sum| sum as f32).collect(), groups })
}

/// Of which fraction all weights that count are multiples, as its inverse, if sums of them are exact both in f64 and in whole numbers.
fn exact(graph: &Connectivities, least: f32) -> Option<f64> {
    let smallest = graph.weights.par_iter().copied().filter(|&w| w >= least).reduce(|| f32::INFINITY, f32::min);
    let largest = graph.weights.par_iter().copied().reduce(|| 0.0, f32::max);
    if !(f32::MIN_POSITIVE..f32::INFINITY).contains(&smallest) {
        return None;
    }
    let scale = 2f64.powi(23 - f64::from(smallest).log2().floor() as i32);
    // The sums of a million edges are.
    (f64::from(largest) * scale < 2f64.powi(53 - 20)).then_some(scale)
}

/// The centre that each cell joins, a centre itself.
fn centres(graph: &Connectivities, least: f32, seed: u64) -> Vec<u32> {
    let n = graph.n();
    let edges = |i: usize| {
        let (indices, weights) = graph.row(i);
        indices.iter().zip(weights).filter(move |edge| *edge.1 >= least).map(|(&j, &w)| (j as usize, w))
    };
    let priority = |i: usize| (random::bits(seed, Use::Centres, i as u64, 0) >> 32, i);
    let mut state = vec![OPEN; n];
    loop {
        // A cell whose open neighbours all come after it becomes a centre; then the neighbours of centres are covered.
        let centre = |i: usize| match state[i] {
            OPEN if edges(i).all(|(j, _)| state[j] != OPEN || priority(j) < priority(i)) => CENTRE,
            other => other,
        };
        let chosen: Vec<u8> = (0..n).into_par_iter().with_min_len(ROWS).map(centre).collect();
        let cover = |i: usize| match chosen[i] {
            OPEN if edges(i).any(|(j, _)| chosen[j] == CENTRE) => COVERED,
            other => other,
        };
        (0..n).into_par_iter().with_min_len(ROWS).map(cover).collect_into_vec(&mut state);
        if !state.contains(&OPEN) {
            break;
        }
    }
    let nearest = |i: usize| {
        let mut best = (i, 0.0f32);
        if state[i] != CENTRE {
            // The first of the strongest ties.
            edges(i).filter(|&(j, _)| state[j] == CENTRE).for_each(|(j, w)| {
                if w > best.1 {
                    best = (j, w);
                }
            });
        }
        best.0 as u32
    };
    (0..n).into_par_iter().with_min_len(ROWS).map(nearest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_neighbours_of_their_centre_and_weights_add_up() {
        // A ring of 500 cells, each tied to the two next on either side.
        let n = 500u32;
        let mut graph = Connectivities { indptr: vec![0], indices: vec![], weights: vec![] };
        for i in 0..n {
            let mut row: Vec<(u32, f32)> = [1, 2, n - 2, n - 1].map(|s| ((i + s) % n, if s == 1 || s == n - 1 { 1.0 } else { 0.5 })).into();
            row.sort_by_key(|e| e.0);
            graph.indices.extend(row.iter().map(|e| e.0));
            graph.weights.extend(row.iter().map(|e| e.1));
            graph.indptr.push(graph.indices.len() as u64);
        }
        let degrees = vec![3.0; n as usize];
        let Coarse { graph: small, degrees: sums, groups } = coarsen(&graph, 0.0, &degrees, 3, None).unwrap();
        assert_eq!(groups.len(), n as usize);
        assert_eq!(small.n(), sums.len());
        // Independent centres two apart at least, none farther than five from the next.
        assert!((100..=167).contains(&small.n()), "{}", small.n());
        assert_eq!(sums.iter().sum::<f32>(), 1500.0);
        for g in 0..small.n() {
            let (neighbours, weights) = small.row(g);
            for (&h, &w) in neighbours.iter().zip(weights) {
                let direct: f32 = (0..n as usize)
                    .filter(|&i| groups[i] as usize == g)
                    .flat_map(|i| graph.row(i).0.iter().zip(graph.row(i).1).filter(|e| groups[*e.0 as usize] == h).map(|e| *e.1))
                    .sum();
                assert_eq!(w, direct);
            }
        }
    }
}

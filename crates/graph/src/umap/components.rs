//! Parts of the graph that no edge joins, and where they go.

use cellmill_matrix::Result;
use rayon::prelude::*;

use super::start::DeviceGraph;
use crate::Connectivities;

/// Connected components of the edges with weight at least `least`: a label a cell, labels by descending size, ties by first cell;
/// and the sizes. `on_gpu` is the same graph.
pub(super) fn components(graph: &Connectivities, least: f32, on_gpu: Option<&DeviceGraph>) -> Result<(Vec<u32>, Vec<u32>)> {
    let n = graph.n();
    let mut labels = match on_gpu {
        Some(graph) => graph.first_of_part()?,
        None => first_of_part(graph, least),
    };
    let mut sizes = vec![0u32; n];
    labels.iter().for_each(|&own| sizes[own as usize] += 1);
    let mut roots: Vec<u32> = (0..n as u32).filter(|&i| sizes[i as usize] > 0).collect();
    roots.sort_by_key(|&i| (std::cmp::Reverse(sizes[i as usize]), i));
    let mut rank = vec![0u32; n];
    for (r, &i) in roots.iter().enumerate() {
        rank[i as usize] = r as u32;
    }
    labels.par_iter_mut().for_each(|label| *label = rank[*label as usize]);
    Ok((labels, roots.iter().map(|&i| sizes[i as usize]).collect()))
}

/// The first cell of each cell's part.
fn first_of_part(graph: &Connectivities, least: f32) -> Vec<u32> {
    let n = graph.n();
    let mut parent: Vec<u32> = (0..n as u32).collect();
    // Union by smaller root, with path halving.
    fn root(parent: &mut [u32], mut i: u32) -> u32 {
        while parent[i as usize] != i {
            parent[i as usize] = parent[parent[i as usize] as usize];
            i = parent[i as usize];
        }
        i
    }
    for i in 0..n {
        let (indices, weights) = graph.row(i);
        let mut own = root(&mut parent, i as u32);
        for (&j, &w) in indices.iter().zip(weights) {
            if j as usize > i && w >= least {
                let other = root(&mut parent, j);
                let (low, high) = (own.min(other), own.max(other));
                parent[high as usize] = low;
                own = low;
            }
        }
    }
    (0..n as u32).map(|i| root(&mut parent, i)).collect()
}

/// Radius that a component of `size` cells gets: equal area a cell.
pub(super) fn radius(size: u32) -> f64 {
    f64::from(size).sqrt()
}

/// Centres, in the first two dimensions, of discs of these (descending) radii: the first at the origin, the others on rings around it,
/// each ring filled before the next. In one dimension they stand in a row, to the right and left in turn.
pub(super) fn places(sizes: &[u32], n_components: usize) -> Vec<[f64; 2]> {
    let mut centres = vec![[0.0, 0.0]];
    let first = sizes.first().map_or(0.0, |&size| radius(size));
    if n_components == 1 {
        let mut ends = [first, first];
        for (i, &size) in sizes.iter().enumerate().skip(1) {
            let side = i % 2;
            let centre = ends[side] + radius(size);
            ends[side] = centre + radius(size);
            centres.push([if side == 0 { -centre } else { centre }, 0.0]);
        }
        return centres;
    }
    let mut edge = first;
    let mut at = 1;
    while at < sizes.len() {
        let largest = radius(sizes[at]);
        let ring = edge + largest;
        // Half the angle under which a disc is seen from the origin.
        let half = |size: u32| (radius(size) / ring).min(1.0).asin();
        let mut taken = 0.0;
        let mut end = at;
        while end < sizes.len() && (end == at || taken + 2.0 * half(sizes[end]) <= std::f64::consts::TAU) {
            taken += 2.0 * half(sizes[end]);
            end += 1;
        }
        let gap = ((std::f64::consts::TAU - taken) / (end - at) as f64).max(0.0);
        let mut angle = 0.0f64;
        for &size in &sizes[at..end] {
            angle += half(size) + gap / 2.0;
            centres.push([ring * angle.cos(), ring * angle.sin()]);
            angle += half(size) + gap / 2.0;
        }
        edge = ring + largest;
        at = end;
    }
    centres
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discs_do_not_overlap() {
        let mut sizes: Vec<u32> = (0..200).map(|i| 1 + (i * i * 37) % 500).collect();
        sizes.push(4000);
        sizes.sort_by(|a, b| b.cmp(a));
        for n_components in [1, 2] {
            let centres = places(&sizes, n_components);
            assert_eq!(centres.len(), sizes.len());
            for i in 0..sizes.len() {
                for j in 0..i {
                    let apart = (centres[i][0] - centres[j][0]).hypot(centres[i][1] - centres[j][1]);
                    assert!(apart >= (radius(sizes[i]) + radius(sizes[j])) * 0.999, "{i} {j}");
                }
            }
        }
    }

    #[test]
    fn components_are_found_whatever_their_numbers() {
        // 0-4-2 and 1-3, and 5 alone; the edge 2-1 is too weak.
        let graph = Connectivities {
            indptr: vec![0, 1, 3, 5, 6, 8, 8],
            indices: vec![4, 2, 3, 1, 4, 1, 0, 2],
            weights: vec![1.0, 0.1, 1.0, 0.1, 1.0, 1.0, 1.0, 1.0],
        };
        assert_eq!(components(&graph, 0.5, None).unwrap(), (vec![0, 1, 0, 1, 0, 2], vec![3, 2, 1]));
        assert_eq!(components(&graph, 0.0, None).unwrap(), (vec![0, 0, 0, 0, 0, 1], vec![5, 1]));
    }
}

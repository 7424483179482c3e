//! The graph between some of the cells.

use cellmill_matrix::{Error, Place, Result};

use crate::Connectivities;

/// The graph between the cells with `keep`, renumbered in their order.
pub(super) fn subset(graph: &Connectivities, keep: &[bool]) -> Result<Connectivities> {
    if keep.len() + 1 != graph.indptr.len() {
        return Err(Error::invalid(
            Place::default(),
            format!("a choice of {} cells", keep.len()),
            format!("the graph has {}", graph.indptr.len().saturating_sub(1)),
        ));
    }
    let mut next = 0u32;
    let number: Vec<Option<u32>> = keep
        .iter()
        .map(|&keep| {
            let number = keep.then_some(next);
            next += u32::from(keep);
            number
        })
        .collect();
    let mut part = Connectivities { indptr: vec![0], indices: Vec::new(), weights: Vec::new() };
    for i in (0..keep.len()).filter(|&i| keep[i]) {
        let (neighbours, weights) = graph.row(i);
        for (&u, &weight) in neighbours.iter().zip(weights) {
            if let Some(number) = number.get(u as usize).copied().flatten() {
                part.indices.push(number);
                part.weights.push(weight);
            }
        }
        part.indptr.push(part.indices.len() as u64);
    }
    Ok(part)
}

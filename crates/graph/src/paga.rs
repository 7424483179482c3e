//! PAGA: how strongly clusters are connected.
//!
//! Wolf et al., "PAGA: graph abstraction reconciles clustering with trajectory inference", 2019; as `scanpy.tl.paga`: its model v1.2
//! counts the directed edges of the neighbour lists (`obsp["distances"]`), v1.0 the pairs of the graph (`obsp["connectivities"]`).

use cellmill_matrix::{Error, Place, Result, Sparse, SparseFormat, Values};

use crate::Distances;
use crate::leiden::aggregate::{Members, fold};

/// What edges between two clusters are compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Model {
    /// Those expected at random between clusters of as many edges.
    V12,
    /// `n_neighbors` times the geometric mean of the clusters' sizes.
    V10 {
        /// Neighbours of each cell.
        n_neighbors: usize,
    },
}

/// The abstracted graph of K clusters.
#[derive(Clone, Debug, PartialEq)]
pub struct Paga {
    /// Symmetric (K, K) CSR of f64: edges between two clusters over what the model compares them with; at most 1 by v1.2.
    pub connectivities: Sparse,
    /// The edges of `connectivities` on its maximum spanning tree (v1.0: that of the numbers of edges) (a forest if clusters are apart), each stored once, above the diagonal:
    /// (K, K) CSR of f64.
    pub connectivities_tree: Sparse,
    /// Cells in each cluster: `(K,)`.
    pub sizes: Vec<u64>,
}

/// Folds neighbour lists by cluster, model v1.2. `labels`: `(n,)`, `< n_clusters`.
pub fn paga(distances: &Distances, labels: &[u32], n_clusters: usize) -> Result<Paga> {
    let k = distances.k;
    paga_of(distances.n(), |cell| &distances.indices[cell as usize * k..(cell as usize + 1) * k], labels, n_clusters, Model::V12)
}

/// Folds the rows of a sparse matrix by cluster: cell `i` points to `indices[indptr[i]..indptr[i + 1]]`, which are neighbour lists (v1.2)
/// or a symmetric graph (v1.0).
pub fn paga_sparse(indptr: &[u64], indices: &[u32], labels: &[u32], n_clusters: usize, model: Model) -> Result<Paga> {
    if indptr.first() != Some(&0) || indptr.last() != Some(&(indices.len() as u64)) || indptr.windows(2).any(|w| w[1] < w[0]) {
        return Err(invalid("row starts that don't cover the entries", "they rise from 0 to the number of entries"));
    }
    let row = |cell: u32| &indices[indptr[cell as usize] as usize..indptr[cell as usize + 1] as usize];
    paga_of(indptr.len() - 1, row, labels, n_clusters, model)
}

fn invalid(found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::invalid(Place { element: Some("obsp/distances".into()), ..Place::default() }, found, expected)
}

fn paga_of<'a>(n: usize, row: impl Fn(u32) -> &'a [u32] + Sync, labels: &[u32], n_clusters: usize, model: Model) -> Result<Paga> {
    if labels.len() != n {
        return Err(invalid(format!("{n} cells"), format!("there are {} labels", labels.len())));
    }
    if n_clusters > u32::MAX as usize - 1 {
        return Err(invalid(format!("{n_clusters} clusters"), "there are fewer than 2^32 - 1"));
    }
    if let Some(label) = labels.iter().find(|&&label| label as usize >= n_clusters) {
        return Err(invalid(format!("label {label}"), format!("there are {n_clusters} clusters")));
    }
    if let Some(cell) = (0..n as u32).flat_map(&row).find(|&&cell| cell as usize >= n) {
        return Err(invalid(format!("neighbour {cell}"), format!("there are {n} cells")));
    }
    let members = Members::new(labels, n_clusters);
    let (indptr, indices, counts) = fold(&members, labels, |cell| row(cell).iter().map(|&other| (other, 1.0)));
    let sizes: Vec<u64> = (0..n_clusters).map(|c| members.of(c).len() as u64).collect();
    // Edges that start in a cluster, those inside it included.
    let edges: Vec<f64> = (0..n_clusters).map(|c| members.of(c).iter().map(|&cell| row(cell).len() as f64).sum()).collect();

    // ε_ij + ε_ji.
    let mut both: Vec<(u32, u32, f64)> = Vec::with_capacity(2 * indices.len());
    for i in 0..n_clusters {
        for at in indptr[i] as usize..indptr[i + 1] as usize {
            both.push((i as u32, indices[at], counts[at]));
            both.push((indices[at], i as u32, counts[at]));
        }
    }
    both.sort_unstable_by_key(|&(i, j, _)| (i, j));
    let mut entries: Vec<(u32, u32, f64)> = Vec::with_capacity(both.len());
    for (i, j, count) in both {
        match entries.last_mut() {
            Some(last) if (last.0, last.1) == (i, j) => last.2 += count,
            _ => entries.push((i, j, count)),
        }
    }
    let scaled = |&(i, j, count): &(u32, u32, f64)| {
        // Ordered so that (i, j) and (j, i) round alike.
        let (a, b) = (i.min(j) as usize, i.max(j) as usize);
        let value = match model {
            // Over (e_i n_j + e_j n_i) / (n − 1), at most 1 (scanpy, `_compute_connectivities_v1_2`).
            Model::V12 => {
                let expected = (edges[a] * sizes[b] as f64 + edges[b] * sizes[a] as f64) / (n as f64 - 1.0);
                if expected == 0.0 { 1.0 } else { (count / expected).min(1.0) }
            }
            // Each pair is there from both its ends; over sqrt(k² n_i n_j) (scanpy, `_compute_connectivities_v1_0`).
            Model::V10 { n_neighbors } => {
                let mean = ((n_neighbors * n_neighbors) as f64 * sizes[a] as f64 * sizes[b] as f64).sqrt();
                if mean == 0.0 { 1.0 } else { count / 2.0 / mean }
            }
        };
        (i, j, value)
    };
    let values: Vec<_> = entries.iter().map(scaled).collect();
    let tree = match model {
        Model::V12 => tree(&values, n_clusters),
        Model::V10 { .. } => tree(&entries, n_clusters).iter().map(scaled).collect(),
    };
    Ok(Paga { connectivities_tree: sparse(&tree, n_clusters), connectivities: sparse(&values, n_clusters), sizes })
}

/// Kruskal's maximum spanning tree; ties by (i, j). Edges come back ascending by (i, j).
fn tree(entries: &[(u32, u32, f64)], n_clusters: usize) -> Vec<(u32, u32, f64)> {
    let mut edges: Vec<(u32, u32, f64)> = entries.iter().copied().filter(|(i, j, _)| i < j).collect();
    edges.sort_by(|a, b| b.2.total_cmp(&a.2));
    let mut parent: Vec<u32> = (0..n_clusters as u32).collect();
    let mut root = |mut c: u32, join: Option<u32>| {
        while parent[c as usize] != c {
            parent[c as usize] = parent[parent[c as usize] as usize];
            c = parent[c as usize];
        }
        if let Some(other) = join {
            parent[c as usize] = other;
        }
        c
    };
    edges.retain(|&(i, j, _)| {
        let (a, b) = (root(i, None), root(j, None));
        if a != b {
            root(a, Some(b));
        }
        a != b
    });
    edges.sort_by_key(|&(i, j, _)| (i, j));
    edges
}

/// Entries ascending by (i, j) as a (K, K) CSR matrix.
fn sparse(entries: &[(u32, u32, f64)], n: usize) -> Sparse {
    let mut indptr = vec![0u64; n + 1];
    for &(i, ..) in entries {
        indptr[i as usize + 1] += 1;
    }
    for i in 0..n {
        indptr[i + 1] += indptr[i];
    }
    Sparse {
        format: SparseFormat::Csr,
        shape: [n, n],
        indptr,
        indices: entries.iter().map(|entry| entry.1).collect(),
        values: Values::F64(entries.iter().map(|entry| entry.2).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six cells on a line of three clusters; each points to two others.
    fn line() -> Distances {
        Distances { k: 2, indices: vec![1, 2, 0, 2, 1, 3, 2, 4, 3, 5, 4, 3], distances: vec![1.0; 12] }
    }

    #[test]
    fn values_are_counted_by_hand() {
        let paga = paga(&line(), &[0, 0, 1, 1, 2, 2], 3).unwrap();
        assert_eq!(paga.sizes, [2, 2, 2]);
        // 0 -> 1: two edges (0-2, 1-2), back one (2-1). 1 -> 2: one (3-4), back two (4-3, 5-3). Expected (4 * 2 + 4 * 2) / 5.
        assert_eq!(paga.connectivities.indptr, [0, 1, 3, 4]);
        assert_eq!(paga.connectivities.indices, [1, 0, 2, 1]);
        assert_eq!(paga.connectivities.values, Values::F64(vec![3.0 / 3.2; 4]));
        assert_eq!(paga.connectivities_tree.indices, [1, 2]);
    }

    #[test]
    fn pairs_are_counted_by_hand() {
        // Clusters of 4, 1 and 1 cells: three pairs between the first and the second, two between the first and the third, one between these.
        let pairs = [(0, 4), (1, 4), (2, 4), (0, 5), (1, 5), (4, 5), (2, 3)];
        let mut rows = vec![Vec::new(); 6];
        pairs.iter().for_each(|&(i, j)| {
            rows[i as usize].push(j);
            rows[j as usize].push(i);
        });
        let mut indptr = vec![0];
        rows.iter().for_each(|row| indptr.push(indptr[indptr.len() - 1] + row.len() as u64));
        let paga = paga_sparse(&indptr, &rows.concat(), &[0, 0, 0, 0, 1, 2], 3, Model::V10 { n_neighbors: 2 }).unwrap();
        assert_eq!(paga.connectivities.indices, [1, 2, 0, 2, 0, 1]);
        assert_eq!(paga.connectivities.values, Values::F64(vec![0.75, 0.5, 0.75, 0.5, 0.5, 0.5]));
        // The pairs decide, not the values, of which one is as large as the second.
        assert_eq!((paga.connectivities_tree.indices, paga.connectivities_tree.values), (vec![1, 2], Values::F64(vec![0.75, 0.5])));
    }

    #[test]
    fn the_tree_keeps_the_strongest_edges() {
        let edges = [(0, 1, 0.2), (0, 2, 0.9), (1, 2, 0.5), (3, 4, 0.1)];
        assert_eq!(tree(&edges, 6), [(0, 2, 0.9), (1, 2, 0.5), (3, 4, 0.1)]);
    }

    #[test]
    fn bad_input_is_refused() {
        assert!(paga(&line(), &[0; 5], 1).is_err());
        assert!(paga(&line(), &[0, 0, 0, 0, 0, 3], 3).is_err());
        assert!(paga_sparse(&[0, 2], &[0], &[0], 1, Model::V12).is_err());
        assert!(paga_sparse(&[0, 1], &[7], &[0], 1, Model::V12).is_err());
        assert_eq!(paga_sparse(&[0], &[], &[], 0, Model::V12).unwrap().sizes, []);
    }
}

use std::collections::BTreeSet;

use cellmill_matrix::{ErrorKind, Result, Watch};
use proptest::prelude::*;

use super::*;
use crate::louvain;

/// A graph from undirected edges; those given twice count once.
pub(super) fn graph(n: usize, edges: impl IntoIterator<Item = (u32, u32, f32)>) -> Connectivities {
    let mut rows = vec![std::collections::BTreeMap::new(); n];
    for (i, j, weight) in edges.into_iter().filter(|edge| edge.0 != edge.1) {
        rows[i as usize].insert(j, weight);
        rows[j as usize].insert(i, weight);
    }
    let mut graph = Connectivities { indptr: vec![0], indices: Vec::new(), weights: Vec::new() };
    for row in rows {
        graph.indices.extend(row.keys());
        graph.weights.extend(row.values());
        graph.indptr.push(graph.indices.len() as u64);
    }
    graph
}

/// `n` vertices in `n_groups` groups (vertex v in v mod n_groups); each draws `within` neighbours in its group and `between` anywhere.
pub(super) fn planted(n: u32, n_groups: u32, within: u64, between: u64, seed: u64) -> Connectivities {
    let draw = |v: u32, j: u64| mix(mix(seed, u64::from(v)), j);
    let edges = (0..n).flat_map(|v| {
        (0..within + between).map(move |j| {
            let r = draw(v, j);
            let any = (r >> 32) as u32 % n;
            let other = if j < within { any - any % n_groups + v % n_groups } else { any };
            (v, other.min(n - 1), 0.2 + 0.8 * random::unit(mix(r, 9)) as f32)
        })
    });
    graph(n as usize, edges.collect::<Vec<_>>())
}

/// Modularity from the definition, over all pairs.
fn by_pairs(graph: &Connectivities, labels: &[u32], resolution: f64) -> f64 {
    let n = graph.n();
    let k: Vec<f64> = (0..n).map(|i| graph.row(i).1.iter().map(|&w| f64::from(w)).sum()).collect();
    let total: f64 = k.iter().sum();
    let mut q = 0.0;
    for i in 0..n {
        let (neighbours, weights) = graph.row(i);
        for j in (0..n).filter(|&j| labels[i] == labels[j]) {
            let weight = neighbours.binary_search(&(j as u32)).map_or(0.0, |at| f64::from(weights[at]));
            q += weight - resolution * k[i] * k[j] / total;
        }
    }
    if total == 0.0 { 0.0 } else { q / total }
}

/// Connected parts of the graph inside labels, by repeated spreading of the smallest number.
pub(super) fn n_parts(graph: &Connectivities, labels: &[u32]) -> usize {
    let mut part: Vec<u32> = (0..graph.n() as u32).collect();
    loop {
        let mut changed = false;
        for i in (0..graph.n()).chain((0..graph.n()).rev()) {
            for &j in graph.row(i).0.iter().filter(|&&j| labels[j as usize] == labels[i]) {
                if part[j as usize] < part[i] {
                    part[i] = part[j as usize];
                    changed = true;
                }
            }
        }
        if !changed {
            return part.iter().collect::<BTreeSet<_>>().len();
        }
    }
}

/// Adjusted Rand index (Hubert and Arabie 1985).
fn ari(a: &[u32], b: &[u32]) -> f64 {
    let pairs = |counts: std::collections::BTreeMap<(u32, u32), f64>| counts.values().map(|c| c * (c - 1.0) / 2.0).sum::<f64>();
    let count = |key: &dyn Fn(usize) -> (u32, u32)| {
        let mut counts = std::collections::BTreeMap::new();
        (0..a.len()).for_each(|i| *counts.entry(key(i)).or_insert(0.0) += 1.0);
        pairs(counts)
    };
    let (both, left, right) = (count(&|i| (a[i], b[i])), count(&|i| (a[i], 0)), count(&|i| (0, b[i])));
    let expected = left * right / (a.len() as f64 * (a.len() as f64 - 1.0) / 2.0);
    (both - expected) / ((left + right) / 2.0 - expected)
}

fn check(graph: &Connectivities, found: &Clustering) {
    assert_eq!(found.labels.len(), graph.n());
    let mut sizes = vec![0u32; found.n_clusters];
    let mut first = vec![usize::MAX; found.n_clusters];
    for (i, &label) in found.labels.iter().enumerate() {
        sizes[label as usize] += 1;
        first[label as usize] = first[label as usize].min(i);
    }
    for c in 1..found.n_clusters {
        assert!(sizes[c] > 0 && (sizes[c - 1], usize::MAX - first[c - 1]) > (sizes[c], usize::MAX - first[c]), "labels are not in order");
    }
    assert!(found.history.windows(2).all(|w| w[1] >= w[0] - 1e-12), "modularity fell: {:?}", found.history);
    assert_eq!(found.history.last(), Some(&found.modularity));
}

fn pace(key: u64, size: usize) -> Pace<'static> {
    Pace { key, size, enough: 0.0, tick: &|| Ok(()) }
}

fn on<T: Send>(n_threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap().install(f)
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    // Large enough for batches, and small enough for single visits with several starts.
    for (n, n_starts) in [(3 << 14, None), (3000, Some(3))] {
        let graph = planted(n, 12, 4, 5, 7);
        let options = Options { beta: Some(0.05), n_starts, ..Options::default() };
        let one = on(1, || leiden(&graph, &options, &()).unwrap());
        check(&graph, &one);
        assert_eq!(n_parts(&graph, &one.labels), one.n_clusters);
        for n_threads in [1, 2, 3, 8] {
            let again = on(n_threads, || leiden(&graph, &options, &()).unwrap());
            assert_eq!(again.labels, one.labels);
            assert_eq!(again.modularity.to_bits(), one.modularity.to_bits());
        }
    }
}

#[test]
fn planted_groups_are_found() {
    for (n, n_groups) in [(2000u32, 10u32), (40_000, 20)] {
        let graph = planted(n, n_groups, 8, 2, 3);
        let truth: Vec<u32> = (0..n).map(|v| v % n_groups).collect();
        for found in [leiden(&graph, &Options::default(), &()).unwrap(), louvain(&graph, &Options::default(), &()).unwrap()] {
            check(&graph, &found);
            assert!(ari(&truth, &found.labels) >= 0.99);
            assert!(found.modularity >= modularity(&graph, &truth, 1.0).unwrap() - 1e-4);
        }
    }
}

#[test]
fn a_ring_of_cliques_falls_into_its_cliques() {
    let (cliques, size) = (12u32, 6u32);
    let inner = (0..cliques).flat_map(|c| (0..size).flat_map(move |i| (0..i).map(move |j| (c * size + i, c * size + j, 1.0))));
    let ring = (0..cliques).map(|c| (c * size, (c + 1) % cliques * size + 1, 1.0));
    let graph = graph((cliques * size) as usize, inner.chain(ring).collect::<Vec<_>>());
    let found = leiden(&graph, &Options { n_iterations: -1, ..Options::default() }, &()).unwrap();
    assert_eq!(found.labels, (0..cliques * size).map(|v| v / size).collect::<Vec<_>>());
    // At resolution 0 there is nothing against one cluster.
    assert_eq!(leiden(&graph, &Options { resolution: 0.0, ..Options::default() }, &()).unwrap().n_clusters, 1);
    let fine = leiden(&graph, &Options { resolution: 500.0, ..Options::default() }, &()).unwrap();
    assert_eq!(fine.n_clusters, graph.n());
}

#[test]
fn many_resolutions_equal_one_by_one() {
    let graph = planted(600, 6, 5, 3, 1);
    let options = Options { n_iterations: -1, ..Options::default() };
    let many = leiden_many(&graph, &[0.3, 1.0, 3.0], &options, &()).unwrap();
    for (found, resolution) in many.iter().zip([0.3, 1.0, 3.0]) {
        assert_eq!(*found, leiden(&graph, &Options { resolution, ..options.clone() }, &()).unwrap());
    }
    assert!(many[0].n_clusters <= many[1].n_clusters && many[1].n_clusters < many[2].n_clusters);
}

#[test]
fn a_subset_is_clustered_by_the_graph_between_its_cells() {
    let all = planted(400, 4, 6, 2, 5);
    let keep: Vec<bool> = (0..400).map(|v| v % 4 < 2).collect();
    let found = leiden_within(&all, &keep, &Options::default(), &()).unwrap();
    check(&subset::subset(&all, &keep).unwrap(), &found);
    let truth: Vec<u32> = (0..200).map(|v| v % 2).collect();
    assert!(ari(&truth, &found.labels) >= 0.9);
    assert_eq!(leiden_within(&all, &[true; 400], &Options::default(), &()).unwrap(), leiden(&all, &Options::default(), &()).unwrap());
    assert!(leiden_within(&all, &[true], &Options::default(), &()).is_err());
}

#[test]
fn tiny_graphs() {
    for n in [0usize, 1, 3] {
        let found = leiden(&graph(n, []), &Options { n_iterations: -1, ..Options::default() }, &()).unwrap();
        assert_eq!(found.labels, (0..n as u32).collect::<Vec<_>>());
        assert_eq!((found.n_clusters, found.modularity), (n, 0.0));
    }
    let found = leiden(&graph(5, [(1, 3, 0.5), (3, 4, 0.5)]), &Options::default(), &()).unwrap();
    assert_eq!(found.labels, [1, 0, 2, 0, 0]);
}

#[test]
fn bad_input_is_refused() {
    let good = graph(3, [(0, 1, 1.0), (1, 2, 1.0)]);
    for options in [
        Options { resolution: f64::NAN, ..Options::default() },
        Options { resolution: -1.0, ..Options::default() },
        Options { n_iterations: 0, ..Options::default() },
        Options { beta: Some(0.0), ..Options::default() },
        Options { n_starts: Some(0), ..Options::default() },
    ] {
        assert!(matches!(leiden(&good, &options, &()).unwrap_err().kind(), ErrorKind::Option { .. }));
        assert!(louvain(&good, &options, &()).is_err());
    }
    let broken: [fn(&mut Connectivities); 6] = [
        |g| g.weights[0] = 0.0,
        |g| g.weights[1] = f32::INFINITY,
        |g| g.indices[0] = 9,
        |g| g.indices[0] = 0,
        |g| g.indptr[1] = 9,
        |g| g.indptr.clear(),
    ];
    for break_it in broken {
        let mut bad = good.clone();
        break_it(&mut bad);
        assert!(leiden(&bad, &Options::default(), &()).is_err());
    }
}

#[test]
fn the_watcher_can_stop_it() {
    struct Stop;
    impl Watch for Stop {
        fn tick(&self, done: u64, total: u64, _: &str) -> Result<()> {
            assert_eq!(total, 2);
            if done == 1 { Err(ErrorKind::Interrupted.into()) } else { Ok(()) }
        }
    }
    assert_eq!(*leiden(&planted(300, 3, 4, 1, 1), &Options::default(), &Stop).unwrap_err().kind(), ErrorKind::Interrupted);
}

prop_compose! {
    fn any_graph()(n in 2usize..60)(
        n in Just(n),
        edges in prop::collection::vec((0..n as u32, 0..n as u32, 1u32..100), 0..4 * n),
    ) -> Connectivities {
        graph(n, edges.into_iter().map(|(i, j, w)| (i, j, w as f32 / 50.0)))
    }
}

proptest! {
    #[test]
    fn communities_are_connected_and_modularity_is_igraphs(graph in any_graph(), resolution in 0.1f64..4.0, seed in 0u64..100, sampled in any::<bool>()) {
        let options = Options { resolution, n_iterations: 4, seed, beta: sampled.then_some(0.1), n_starts: Some(1) };
        let found = leiden(&graph, &options, &()).unwrap();
        check(&graph, &found);
        prop_assert_eq!(n_parts(&graph, &found.labels), found.n_clusters);
        prop_assert!((found.modularity - by_pairs(&graph, &found.labels, resolution)).abs() < 1e-9);
        let found = louvain(&graph, &options, &()).unwrap();
        check(&graph, &found);
        prop_assert!((found.modularity - by_pairs(&graph, &found.labels, resolution)).abs() < 1e-9);
    }

    #[test]
    fn phases_keep_their_promises(graph in any_graph(), resolution in 0.1f64..3.0, key in 0u64..1000, start in 1u32..9, size in 1usize..20) {
        let strength = strengths(&graph).unwrap();
        let network = level_0(&graph, &strength);
        let n = network.n();
        let mut membership: Vec<u32> = (0..n as u32).map(|v| v % start % n as u32).collect();
        let quality = |membership: &[u32]| quality::modularity(&network, membership, n, resolution);
        let before = quality(&membership);
        local_move::local_move(&network, &mut membership, resolution, &pace(key, size)).unwrap();
        prop_assert!(quality(&membership) >= before - 1e-12);
        let n_communities = labels::compact(&mut membership);
        let rule = refine::Rule { resolution, beta: None };
        let place = refine::refine(&network, &membership, n_communities, rule, &pace(key, size)).unwrap();
        // Clusters lie inside communities and are connected; none is better off in pieces of one vertex.
        for (v, &(community, cluster)) in place.iter().enumerate() {
            prop_assert_eq!(community, membership[v]);
            prop_assert_eq!(membership[cluster as usize], community);
        }
        let clusters: Vec<u32> = place.iter().map(|place| place.1).collect();
        prop_assert_eq!(n_parts(&graph, &clusters), clusters.iter().collect::<BTreeSet<_>>().len());
        let single: Vec<u32> = (0..n as u32).collect();
        prop_assert!(quality(&clusters) >= quality(&single) - 1e-12);

        let (groups, communities) = labels::by_community(&place, n_communities);
        let coarse = aggregate(&network, &groups, communities.len());
        prop_assert!((coarse.strength.iter().sum::<f64>() - network.total).abs() <= 1e-9 * network.total);
        for g in 0..communities.len() {
            let row = coarse.network().edges(g as u32).collect::<Vec<_>>();
            prop_assert!(row.windows(2).all(|w| w[0].0 < w[1].0));
            for h in (0..communities.len()).filter(|&h| h != g) {
                let mut want = 0.0;
                for v in (0..n).filter(|&v| groups[v] == g as u32) {
                    want += network.edges(v as u32).filter(|&(u, _)| groups[u as usize] == h as u32).map(|(_, w)| w).sum::<f64>();
                }
                let found = row.iter().find(|edge| edge.0 == h as u32).map_or(0.0, |edge| edge.1);
                prop_assert!((found - want).abs() < 1e-9);
            }
        }
        // Communities are worth the same on both levels, once what lies inside the groups is counted.
        let loops: f64 = (0..communities.len()).map(|g| coarse.strength[g] - coarse.network().edges(g as u32).map(|(_, w)| w).sum::<f64>()).sum();
        if network.total > 0.0 {
            let above = quality::modularity(&coarse.network(), &communities, n_communities, resolution) + loops / network.total;
            prop_assert!((above - quality(&membership)).abs() < 1e-9);
        }
    }
}

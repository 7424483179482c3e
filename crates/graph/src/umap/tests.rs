use proptest::prelude::*;

use super::*;
use crate::fuzzy::{Method, connectivities};

/// A graph from undirected edges, each once.
fn graph(n: usize, edges: &[(u32, u32, f32)]) -> Connectivities {
    let mut rows = vec![std::collections::BTreeMap::new(); n];
    for &(i, j, w) in edges.iter().filter(|edge| edge.0 != edge.1) {
        rows[i as usize].insert(j, w);
        rows[j as usize].insert(i, w);
    }
    let mut graph = Connectivities { indptr: vec![0], indices: vec![], weights: vec![] };
    for row in rows {
        graph.indices.extend(row.keys());
        graph.weights.extend(row.values());
        graph.indptr.push(graph.indices.len() as u64);
    }
    graph
}

/// `n` cells of three dimensions in three clumps, the first two joined by a bridge; each copied cell is a duplicate.
fn clumps(n: usize, n_copies: usize) -> Connectivities {
    let draw = |i: usize, c: usize| random::normal(random::bits(11, random::Use::Start, i as u64, c as u64));
    let points: Vec<[f64; 3]> = (0..n)
        .map(|i| if i < n_copies { n } else { i })
        .map(|i| [draw(i, 0) + 4.0 * (i % 3) as f64, draw(i, 1) + 30.0 * (i % 3 / 2) as f64, draw(i, 2)])
        .collect();
    connectivities(&crate::fuzzy::tests::brute(&points, 8), Method::UMAP).unwrap()
}

fn in_pool(n_threads: usize, graph: &Connectivities, options: &Options) -> Vec<u32> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
    pool.install(|| umap(graph, options, &()).unwrap().iter().map(|x| x.to_bits()).collect())
}

fn assert_sane(layout: &[f32], n: usize, d: usize) {
    assert_eq!(layout.len(), n * d);
    assert!(layout.iter().all(|x| x.is_finite() && x.abs() < 1e3));
}

#[test]
fn any_number_of_threads_and_any_rerun_gives_the_same_bits() {
    // More cells than one task moves in a block.
    let n = 12_000;
    let edges: Vec<_> = (0..n as u32).flat_map(|i| (1..5).map(move |s| (i, (i + s * s) % n as u32, 1.0 / s as f32))).collect();
    let ring = graph(n, &edges);
    for n_components in [2, 3] {
        let options = Options { n_components, n_epochs: Some(5), seed: 3, ..Options::default() };
        let one = in_pool(1, &ring, &options);
        for n_threads in [1, 2, 3, 8] {
            assert!(one == in_pool(n_threads, &ring, &options));
        }
        assert!(one != in_pool(1, &ring, &Options { seed: 4, ..options }));
    }
}

#[test]
fn a_sample_pushes_where_there_are_many_cells() {
    let n = 265_000;
    let edges: Vec<_> = (0..n as u32).flat_map(|i| (1..3).map(move |s| (i, (i + s) % n as u32, 1.0))).collect();
    let ring = graph(n, &edges);
    let options = Options { n_epochs: Some(2), init: Init::Random, ..Options::default() };
    let one = in_pool(1, &ring, &options);
    assert!(one == in_pool(3, &ring, &options));
    assert_sane(&one.iter().map(|&x| f32::from_bits(x)).collect::<Vec<_>>(), n, 2);
}

#[test]
fn an_epoch_needs_only_its_number_and_the_layout_before() {
    let graph = clumps(400, 0);
    let plan = Plan { a: 0.583, b: 1.334, gamma: 1.0, alpha: 1.0, negative_sample_rate: 5, n_epochs: 60, seed: 1, least: 0.02, most: 1.0 };
    let start: Vec<[f32; 2]> = (0..400).map(|i| [(i % 20) as f32, (i / 20) as f32]).collect();
    let blocks = layout::Blocks::new(&graph, &plan);
    let whole = layout::optimise(&blocks, &plan, start.clone(), 0..60, &Processor::Cpu, &()).unwrap();
    let half = layout::optimise(&blocks, &plan, start, 0..23, &Processor::Cpu, &()).unwrap();
    assert_eq!(whole, layout::optimise(&blocks, &plan, half, 23..60, &Processor::Cpu, &()).unwrap());
}

#[test]
fn clumps_stay_clumps() {
    let n = 600;
    let graph = clumps(n, 0);
    for n_components in [1, 2, 3, 4, 5, 16, 17, 32] {
        for init in [Init::Spectral, Init::Random] {
            let layout = umap(&graph, &Options { n_components, init, ..Options::default() }, &()).unwrap();
            assert_sane(&layout, n, n_components);
            if n_components == 1 {
                continue;
            }
            // The nearest cell in the layout is of the same clump; clumps 0 and 1 touch a little.
            let row = |i: usize| &layout[i * n_components..(i + 1) * n_components];
            let apart = |i: usize, j: usize| row(i).iter().zip(row(j)).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
            let same = (0..n)
                .filter(|&i| {
                    let near = (0..n).filter(|&j| j != i).min_by(|&a, &b| apart(i, a).total_cmp(&apart(i, b))).unwrap();
                    (near % 3 == 2) == (i % 3 == 2)
                })
                .count();
            assert!(same >= n * 99 / 100, "{n_components} {init:?}: {same} of {n}");
        }
    }
}

#[test]
fn copies_hubs_and_scattered_cells_have_finite_places() {
    let copies = clumps(300, 120);
    assert_sane(&umap(&copies, &Options::default(), &()).unwrap(), 300, 2);
    // One hub of 3000 spokes, two pairs, and ten cells alone.
    let n = 3015;
    let mut edges: Vec<_> = (1..=3000).map(|i| (0, i, 1.0)).collect();
    edges.extend([(3001, 3002, 0.5), (3003, 3004, 1.0)]);
    let hub = graph(n, &edges);
    for n_components in [1, 2, 3] {
        let options = Options { n_components, n_epochs: Some(30), ..Options::default() };
        let one = in_pool(1, &hub, &options);
        assert!(one == in_pool(3, &hub, &options));
        assert_sane(&one.iter().map(|&x| f32::from_bits(x)).collect::<Vec<_>>(), n, n_components);
    }
}

#[test]
fn every_start_works_and_wrong_ones_are_named() {
    let n = 60;
    let graph = clumps(n, 0);
    let flat = vec![1.0f32; n * 2];
    let ramp: Vec<f32> = (0..n * 2).map(|x| x as f32).collect();
    let groups: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
    let paga = Init::Paga { positions: &[0.0, 0.0, 1.0, 0.0, 5.0, 5.0], nearest: &[1, 0, 2], groups: &groups };
    for init in [Init::Pca(&ramp), Init::Given(&ramp), Init::Given(&flat), Init::Pca(&flat), paga] {
        assert_sane(&umap(&graph, &Options { init, ..Options::default() }, &()).unwrap(), n, 2);
    }
    let wrong = |options: Options| umap(&graph, &options, &()).unwrap_err().to_string();
    assert!(wrong(Options { init: Init::Given(&ramp[1..]), ..Options::default() }).contains("60 x 2"));
    assert!(wrong(Options { init: Init::Pca(&[f32::NAN; 120]), ..Options::default() }).contains("finite"));
    let far = Init::Paga { positions: &[0.0, 0.0], nearest: &[0], groups: &groups };
    assert!(wrong(Options { init: far, ..Options::default() }).contains("groups"));
    for options in [
        Options { n_components: 0, ..Options::default() },
        Options { n_epochs: Some(0), ..Options::default() },
        Options { spread: 0.0, ..Options::default() },
        Options { min_dist: f64::NAN, ..Options::default() },
        Options { a: Some(1.0), ..Options::default() },
        Options { a: Some(1.0), b: Some(-1.0), ..Options::default() },
        Options { gamma: -1.0, ..Options::default() },
    ] {
        assert!(umap(&graph, &options, &()).is_err(), "{options:?}");
    }
    let far = Connectivities { indptr: vec![0, 1], indices: vec![7], weights: vec![1.0] };
    assert!(umap(&far, &Options::default(), &()).is_err());
}

#[test]
fn who_watches_can_stop() {
    struct Stop;
    impl Watch for Stop {
        fn tick(&self, done: u64, total: u64, _: &str) -> Result<()> {
            if total == 500 && done == 7 { Err(cellmill_matrix::ErrorKind::Interrupted.into()) } else { Ok(()) }
        }
    }
    let error = umap(&clumps(100, 0), &Options::default(), &Stop).unwrap_err();
    assert_eq!(*error.kind(), cellmill_matrix::ErrorKind::Interrupted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_small_graph_has_a_layout(
        n in 0usize..70,
        edges in prop::collection::vec((0u32..70, 0u32..70, 1e-4f32..1.0), 0..200),
        n_components in 1usize..=9,
        seed in 0u64..5,
    ) {
        let edges: Vec<_> = edges.into_iter().filter(|e| (e.0 as usize) < n && (e.1 as usize) < n).collect();
        let options = Options { n_components, n_epochs: Some(20), seed, ..Options::default() };
        assert_sane(&umap(&graph(n, &edges), &options, &()).unwrap(), n, n_components);
    }
}

/// Clusters without structure that nothing joins: all eigenvalues of their walks lie close together, far from 1.
#[test]
fn unconnected_noise_has_a_layout() {
    let n = 8 * 1000;
    let draw = |i: usize, c: usize| random::normal(random::bits(17, random::Use::Start, i as u64, c as u64)) as f32;
    let x: Vec<f32> = (0..n * 50).map(|at| draw(at / 50, at % 50) + if at / 50 % 8 == at % 50 { 40.0 } else { 0.0 }).collect();
    let found = crate::knn::knn(crate::Embedding::new(&x, 50).unwrap(), &crate::knn::Options::default(), &()).unwrap();
    let graph = connectivities(&found.distances, Method::UMAP).unwrap();
    let layout = umap(&graph, &Options { n_epochs: Some(5), ..Options::default() }, &()).unwrap();
    assert_sane(&layout, n, 2);
}

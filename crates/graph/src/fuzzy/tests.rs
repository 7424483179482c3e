use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// All pairs by brute force: `k` others a row by (distance, id).
pub(crate) fn brute<const D: usize>(points: &[[f64; D]], k: usize) -> Distances {
    let n = points.len();
    let mut all = Distances { k, indices: vec![], distances: vec![] };
    for i in 0..n {
        let mut row: Vec<(f32, u32)> = (0..n)
            .filter(|&j| j != i)
            .map(|j| (points[i].iter().zip(&points[j]).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt() as f32, j as u32))
            .collect();
        row.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all.indices.extend(row[..k].iter().map(|e| e.1));
        all.distances.extend(row[..k].iter().map(|e| e.0));
    }
    all
}

/// umap-learn's procedure written plainly: rows with the cell itself, f64, a table of pairs.
fn plain(distances: &Distances, r: f64) -> BTreeMap<(u32, u32), f64> {
    let (n, k) = (distances.n(), distances.k);
    let target = ((k + 1) as f64).log2();
    let mean_all = distances.distances.iter().map(|&d| f64::from(d)).sum::<f64>() / (n * (k + 1)) as f64;
    let mut a = BTreeMap::new();
    for i in 0..n {
        let mut row = vec![0.0f64];
        row.extend(distances.distances[i * k..(i + 1) * k].iter().map(|&d| f64::from(d)));
        let rho = row.iter().copied().find(|&d| d > 0.0).unwrap_or(0.0);
        let (mut low, mut high, mut mid) = (0.0, f64::from(f32::MAX), 1.0);
        for _ in 0..64 {
            let mut sum = 0.0;
            for &d in &row[1..] {
                sum += if d > rho { (-(d - rho) / mid).exp() } else { 1.0 };
            }
            if f64::abs(sum - target) < 1e-5 {
                break;
            }
            if sum > target {
                high = mid;
                mid = (low + high) / 2.0;
            } else {
                low = mid;
                mid = if high == f64::from(f32::MAX) { mid * 2.0 } else { (low + high) / 2.0 };
            }
        }
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        mid = mid.max(1e-3 * if rho > 0.0 { mean } else { mean_all });
        for (&j, &d) in distances.indices[i * k..(i + 1) * k].iter().zip(&row[1..]) {
            a.insert((i as u32, j), if d > rho { (-(d - rho) / mid).exp() } else { 1.0 });
        }
    }
    let mut w = BTreeMap::new();
    for &(i, j) in a.keys() {
        let (x, y) = (a[&(i, j)], a.get(&(j, i)).copied().unwrap_or(0.0));
        let value = r * (x + y - x * y) + (1.0 - r) * x * y;
        w.insert((i, j), value);
        w.insert((j, i), value);
    }
    w
}

fn assert_symmetric(graph: &Connectivities) {
    for i in 0..graph.n() {
        let (indices, weights) = graph.row(i);
        assert!(indices.windows(2).all(|w| w[0] < w[1]));
        for (&j, &w) in indices.iter().zip(weights) {
            assert!(j as usize != i && w > 0.0);
            let (back, there) = graph.row(j as usize);
            assert_eq!(there[back.binary_search(&(i as u32)).unwrap()].to_bits(), w.to_bits());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn equals_the_plain_fuzzy_set(
        points in prop::collection::vec(prop::array::uniform3(prop_oneof![-5.0f64..5.0, Just(0.0), Just(100.0)]), 2..60),
        k in 1usize..12,
        r in prop_oneof![Just(1.0f32), Just(0.0), 0.0f32..1.0],
    ) {
        let distances = brute(&points, k.min(points.len() - 1));
        let graph = connectivities(&distances, Method::Umap { set_op_mix_ratio: r, local_connectivity: 1.0 }).unwrap();
        assert_symmetric(&graph);
        let want = plain(&distances, f64::from(r));
        let mut found = 0;
        for (&(i, j), &w) in &want {
            let (indices, weights) = graph.row(i as usize);
            let got = indices.binary_search(&j).map_or(0.0, |at| f64::from(weights[at]));
            found += usize::from(got > 0.0);
            prop_assert!((got - w).abs() < 2e-5, "{i} {j}: {got} {w}");
        }
        prop_assert_eq!(found, graph.indices.len());
    }

    #[test]
    fn gauss_and_jaccard_follow_their_formulas(
        points in prop::collection::vec(prop::array::uniform3(-5.0f64..5.0), 4..50), k in 2usize..9,
    ) {
        let distances = brute(&points, k.min(points.len() - 1));
        let k = distances.k;
        let row = |i: usize| &distances.indices[i * k..(i + 1) * k];
        let width = |i: usize| {
            let mut squares: Vec<f64> = distances.distances[i * k..(i + 1) * k].iter().map(|&d| f64::from(d).powi(2)).collect();
            squares.sort_by(f64::total_cmp);
            (squares[(k - 1) / 2] + squares[k / 2]) / 2.0
        };
        let overlap = |i: usize, j: usize| {
            let shared = row(i).iter().filter(|c| row(j).contains(c)).count();
            if row(i).contains(&(j as u32)) { shared as f64 / (2 * k - shared) as f64 } else { 0.0 }
        };
        let gauss = connectivities(&distances, Method::Gauss).unwrap();
        let jaccard = connectivities(&distances, Method::Jaccard).unwrap();
        assert_symmetric(&gauss);
        assert_symmetric(&jaccard);
        for i in 0..points.len() {
            for j in 0..points.len() {
                let near = row(i).contains(&(j as u32)) || row(j).contains(&(i as u32));
                let of = |graph: &Connectivities| {
                    let (indices, weights) = graph.row(i);
                    indices.binary_search(&(j as u32)).map_or(0.0, |at| f64::from(weights[at]))
                };
                let d2: f64 = points[i].iter().zip(&points[j]).map(|(a, b)| (a - b) * (a - b)).sum();
                let sum = width(i) + width(j);
                let want = if near { (2.0 * (width(i) * width(j)).sqrt() / sum).sqrt() * (-d2 / sum).exp() } else { 0.0 };
                prop_assert!((of(&gauss) - want).abs() < 1e-5);
                prop_assert!((of(&jaccard) - (overlap(i, j) + overlap(j, i)) / 2.0).abs() < 1e-6);
            }
        }
    }
}

/// A ring of cells with a few hubs, more than one block of rows.
fn ring(n: usize, k: usize) -> Distances {
    let mut ring = Distances { k, indices: vec![], distances: vec![] };
    for i in 0..n {
        for step in 1..=k {
            let far = if step == k && i > 4 && i < n - k { i % 3 } else { (i + step) % n };
            ring.indices.push(far as u32);
            ring.distances.push(step as f32 + (i * 7919 % 101) as f32 / 101.0);
        }
    }
    ring
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let distances = ring(3 * ROWS + 17, 6);
    for method in [Method::UMAP, Method::Gauss, Method::Jaccard] {
        let of = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| connectivities(&distances, method).unwrap())
        };
        let one = of(1);
        assert_symmetric(&one);
        for n_threads in [2, 3, 8] {
            assert_eq!(one, of(n_threads));
        }
    }
}

#[test]
fn copies_of_one_cell_are_all_at_weight_one() {
    let graph = connectivities(&brute(&[[1.0; 3]; 9], 4), Method::UMAP).unwrap();
    assert!(graph.weights.iter().all(|&w| w == 1.0));
    for method in [Method::Gauss, Method::Jaccard] {
        let graph = connectivities(&brute(&[[1.0; 3]; 9], 4), method).unwrap();
        assert!(graph.weights.iter().all(|w| w.is_finite()));
    }
}

#[test]
fn wrong_neighbours_are_named() {
    let of = |indices: Vec<u32>, distances: Vec<f32>| connectivities(&Distances { k: 1, indices, distances }, Method::UMAP);
    assert!(of(vec![1, 1], vec![1.0, 1.0]).unwrap_err().to_string().contains("rows 1..2"));
    assert!(of(vec![1, 2], vec![1.0, 1.0]).is_err());
    assert!(of(vec![1, 0], vec![1.0, f32::NAN]).is_err());
    assert!(of(vec![1, 0], vec![1.0]).is_err());
    assert!(connectivities(&Distances { k: 2, indices: vec![1, 1, 0, 2, 0, 1], distances: vec![1.0; 6] }, Method::UMAP).is_err());
    assert_eq!(of(vec![], vec![]).unwrap().n(), 0);
    let range = Method::Umap { set_op_mix_ratio: 1.5, local_connectivity: 1.0 };
    assert!(connectivities(&Distances { k: 1, indices: vec![1, 0], distances: vec![1.0; 2] }, range).is_err());
}

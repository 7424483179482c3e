//! Every metric against its plain definition in f64.

use super::*;

/// Metrics with their names.
const ALL: [(&str, Option<f64>, Metric); 14] = [
    ("euclidean", None, Metric::Euclidean),
    ("sqeuclidean", None, Metric::SqEuclidean),
    ("cosine", None, Metric::Cosine),
    ("correlation", None, Metric::Correlation),
    ("hellinger", None, Metric::Hellinger),
    ("inner_product", None, Metric::InnerProduct),
    ("l1", None, Metric::Manhattan),
    ("linf", None, Metric::Chebyshev),
    ("minkowski", Some(3.0), Metric::Minkowski(3.0)),
    ("lp", Some(0.5), Metric::Minkowski(0.5)),
    ("canberra", None, Metric::Canberra),
    ("braycurtis", None, Metric::BrayCurtis),
    ("hamming", None, Metric::Hamming),
    ("jensenshannon", None, Metric::JensenShannon),
];

/// The distance of two rows; the similarity below 0.
pub(super) fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let pairs: Vec<(f64, f64)> = a.iter().zip(b).map(|(&x, &y)| (f64::from(x), f64::from(y))).collect();
    let sum = |term: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|&(x, y)| term(x, y)).sum::<f64>();
    let (left, right) = (sum(&|x, _| x), sum(&|_, y| y));
    // Of rows less something: 1 − cos.
    let angle = |mean: (f64, f64), blank: bool| {
        let dot = sum(&|x, y| (x - mean.0) * (y - mean.1));
        let norms = (sum(&|x, _| (x - mean.0).powi(2)) * sum(&|_, y| (y - mean.1).powi(2))).sqrt();
        if blank { 1.0 } else { 1.0 - dot / norms }
    };
    let constant = |row: &[f32]| row.iter().all(|&x| x == row[0]);
    let zero = |row: &[f32]| row.iter().all(|&x| x == 0.0);
    match metric {
        Metric::Euclidean => sum(&|x, y| (x - y).powi(2)).sqrt(),
        Metric::SqEuclidean => sum(&|x, y| (x - y).powi(2)),
        Metric::Cosine => angle((0.0, 0.0), zero(a) || zero(b)),
        Metric::Correlation => {
            let d = a.len() as f64;
            angle((left / d, right / d), constant(a) || constant(b))
        }
        Metric::Hellinger if zero(a) || zero(b) => f64::from(zero(a) != zero(b)),
        Metric::Hellinger => (1.0 - sum(&|x, y| (x / left * y / right).sqrt())).max(0.0).sqrt(),
        Metric::InnerProduct => 0.0 - sum(&|x, y| x * y),
        Metric::Manhattan => sum(&|x, y| (x - y).abs()),
        Metric::Chebyshev => pairs.iter().map(|(x, y)| (x - y).abs()).fold(0.0, f64::max),
        Metric::Minkowski(p) => sum(&|x, y| (x - y).abs().powf(p)).powf(1.0 / p),
        Metric::Canberra => sum(&|x, y| if x == y { 0.0 } else { (x - y).abs() / (x.abs() + y.abs()) }),
        Metric::BrayCurtis if a == b => 0.0,
        Metric::BrayCurtis => sum(&|x, y| (x - y).abs()) / sum(&|x, y| x.abs() + y.abs()),
        Metric::Hamming => sum(&|x, y| f64::from(x != y)) / a.len() as f64,
        Metric::JensenShannon if zero(a) || zero(b) => std::f64::consts::LN_2.sqrt() * f64::from(zero(a) != zero(b)),
        Metric::JensenShannon => {
            let against = |x: f64, m: f64| if x > 0.0 { x * (x / m).ln() } else { 0.0 };
            let both = |x: f64, y: f64| against(x, (x + y) / 2.0) + against(y, (x + y) / 2.0);
            (sum(&|x, y| both(x / left, y / right)) / 2.0).max(0.0).sqrt()
        }
    }
}

/// Whether a result has what a plain search has: the distances of its pairs, ascending, and none farther than the truth but for rounding.
fn check_all(x: Embedding, found: &Distances, metric: Metric) {
    let k = found.k;
    for row in 0..x.n() {
        let truth = brute(x, row, metric);
        let places = found.indices[row * k..][..k].iter().zip(&found.distances[row * k..][..k]);
        for ((&id, &distance), &(nearest, _)) in places.zip(&truth) {
            let distance = if metric == Metric::InnerProduct { -f64::from(distance) } else { f64::from(distance) };
            let own = super::metrics::distance(metric, x.row(row), x.row(id as usize));
            let slack = match metric {
                Metric::InnerProduct => 1e-6 * x.row(row).iter().map(|x| f64::from(x * x)).sum::<f64>().max(100.0),
                _ => 1e-5,
            };
            assert!((distance - own).abs() <= slack + 1e-5 * own.abs(), "{metric:?}, {row} and {id}: {distance}, but it is {own}");
            assert!(distance <= nearest + slack + 1e-5 * nearest.abs(), "{metric:?}, row {row}: {distance}, but there is {nearest}");
        }
        let mut ids = found.indices[row * k..][..k].to_vec();
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() == k && !ids.contains(&(row as u32)));
    }
}

#[test]
fn all_metrics_are_what_they_say() {
    // More than a block, a panel and a part of the coordinates; equal rows, a row of zeros and a constant one.
    let (n, d) = (300, 70);
    let mut data = cells(n, d, 3.0);
    data.copy_within(0..d, 5 * d);
    data[9 * d..10 * d].fill(0.0);
    data[11 * d..12 * d].fill(2.0);
    let shares: Vec<f32> = data.iter().map(|x| (x - 1.0).max(0.0)).collect();
    for (name, p, metric) in ALL {
        assert_eq!(Metric::named(name, p).unwrap(), metric);
        let x = Embedding::of(if matches!(metric, Metric::Hellinger | Metric::JensenShannon) { &shares } else { &data }, d);
        check_all(x, &knn(x, &options(12, Mode::Exact, metric), &()).unwrap().distances, metric);
    }
}

#[test]
fn lists_serve_what_the_euclidean_distance_gives() {
    let data: Vec<f32> = cells(4000, 20, 12.0).iter().map(|x| x.abs()).collect();
    let x = Embedding::of(&data, 20);
    for metric in [Metric::SqEuclidean, Metric::Correlation, Metric::Hellinger] {
        let found = by_lists(x, &options(15, Mode::Accurate, metric));
        assert!(found.order.iter().zip(0..).any(|(&cell, at)| cell != at));
        assert!(recall(x, &found.in_original_order(), metric, 7) >= 0.99, "{metric:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    // Small whole numbers make these exact, ties included: ids must be equal.
    #[test]
    fn pairs_are_brute_force_by_distance_and_id(
        (d, data) in (1usize..90, 2usize..150).prop_flat_map(|(d, n)| (Just(d), proptest::collection::vec(-2i8..3, n * d))),
        share in 0f64..1.0,
    ) {
        let data: Vec<f32> = data.into_iter().map(f32::from).collect();
        let x = Embedding::of(&data, d);
        let k = 1 + (share * (x.n() - 2) as f64) as usize;
        for metric in [Metric::Manhattan, Metric::Chebyshev, Metric::Hamming, Metric::InnerProduct] {
            let found = knn(x, &options(k + 1, Mode::Accurate, metric), &()).unwrap().distances;
            for row in 0..x.n() {
                let truth: Vec<u32> = brute(x, row, metric).iter().take(k).map(|pair| pair.1).collect();
                prop_assert_eq!(&found.indices[row * k..][..k], &truth[..], "{:?}", metric);
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit_of_pairs() {
    let data = cells(1000, 25, 6.0);
    let x = Embedding::of(&data, 25);
    for metric in [Metric::Manhattan, Metric::Canberra, Metric::BrayCurtis] {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| knn(x, &options(15, Mode::Accurate, metric), &()).unwrap())
        };
        assert!(with(1) == with(3), "{metric:?}");
    }
}

#[test]
fn similarities_become_gaps_for_the_weights() {
    let found = Distances { k: 2, indices: vec![1, 2, 0, 2, 0, 1], distances: vec![5.0, 2.0, 5.0, 5.0, 2.0, -1.0] };
    assert_eq!(Metric::InnerProduct.for_weights(&found).distances, [3.0, 6.0, 1.0, 1.0, 3.0, 6.0]);
    assert_eq!(*Metric::Manhattan.for_weights(&found), found);
}

#[test]
fn names_and_values_that_no_metric_has() {
    let error = Metric::named("mahalanobis", None).unwrap_err().to_string();
    assert!(error.contains("mahalanobis") && error.contains("euclidean, l2") && error.contains("jensenshannon"), "{error}");
    assert!(Metric::named("cosine", Some(3.0)).unwrap_err().to_string().contains("minkowski has an exponent"));
    assert!(Metric::named("minkowski", Some(0.0)).is_err() && Metric::named("lp", Some(f64::NAN)).is_err());
    for (p, metric) in [(None, Metric::Euclidean), (Some(1.0), Metric::Manhattan), (Some(f64::INFINITY), Metric::Chebyshev)] {
        assert_eq!(Metric::named("minkowski", p).unwrap(), metric);
    }
    let error = |data: &[f32], metric| knn(Embedding::of(data, 2), &options(2, Mode::Exact, metric), &()).unwrap_err().to_string();
    assert!(error(&[1.0, 0.0, 0.0, -1.0], Metric::Hellinger).contains("-1 in dimension 1 of cell 1"));
    assert!(error(&[1e9, 2.0, -1e9, -2.0], Metric::Minkowski(50.0)).contains("finite distances"));
}

//! Neighbours against brute force in f64, on easy, hard and degenerate data.

mod metrics;

use std::sync::atomic::{AtomicU64, Ordering};

use cellmill_matrix::ErrorKind;
use proptest::prelude::*;

use super::means::draw;
use super::*;

/// Never all pairs.
fn engine(simd: Simd) -> Engine<'static> {
    Engine { simd, all_pairs: 0, ..Engine::new() }
}

/// A standard normal that depends on its arguments alone (Box & Muller 1958).
fn normal(seed: u64, at: usize) -> f64 {
    let unit = |at: u64| ((draw(seed, at) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    (-2.0 * unit(2 * at as u64).ln()).sqrt() * (std::f64::consts::TAU * unit(2 * at as u64 + 1)).cos()
}

/// 30 clusters of unequal size with a gradient in each, over 12 dimensions of signal and flat noise in the others: `(n, d)`.
/// `signal` 12 is like cells of many types, 3 is hard.
fn cells(n: usize, d: usize, signal: f64) -> Vec<f32> {
    let value = |at: usize| {
        let (cell, j) = (at / d, at % d);
        let cluster = (draw(1, cell as u64) % 30).min(draw(2, cell as u64) % 30) as usize;
        let along = (draw(3, cell as u64) % 4096) as f64 / 4096.0;
        let scale = if j < 12 { signal / (1.0 + j as f64).sqrt() } else { 0.0 };
        (scale * (normal(4, cluster * 64 + j) + along * normal(5, cluster * 64 + j)) + normal(6, at)) as f32
    };
    (0..n * d).map(value).collect()
}

/// All others of each cell in order of (distance, id), the distances in f64.
fn brute(x: Embedding, row: usize, metric: Metric) -> Vec<(f64, u32)> {
    let distance = |other: usize| metrics::distance(metric, x.row(row), x.row(other));
    let mut all: Vec<(f64, u32)> = (0..x.n()).filter(|&other| other != row).map(|other| (distance(other), other as u32)).collect();
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    all
}

/// The share of places as near as the true ones, over every `stride`-th cell.
fn recall(x: Embedding, found: &Distances, metric: Metric, stride: usize) -> f64 {
    let (mut hits, mut places) = (0, 0);
    for row in (0..x.n()).step_by(stride) {
        let farthest = brute(x, row, metric)[found.k - 1].0 * (1.0 + 1e-5) + 1e-7;
        hits += found.distances[row * found.k..(row + 1) * found.k].iter().filter(|&&d| f64::from(d) <= farthest).count();
        places += found.k;
    }
    hits as f64 / places as f64
}

/// Rows ascend by (distance, id), hold k different others, and every distance is that of its pair.
fn check_rows(x: Embedding, found: &Distances, metric: Metric) {
    assert_eq!(found.indices.len(), x.n() * found.k);
    for row in 0..x.n() {
        let (ids, distances) = (&found.indices[row * found.k..][..found.k], &found.distances[row * found.k..][..found.k]);
        let keys: Vec<(f32, u32)> = distances.iter().copied().zip(ids.iter().copied()).collect();
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "row {row}: {keys:?}");
        let mut seen = ids.to_vec();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), found.k);
        assert!(!ids.contains(&(row as u32)) && ids.iter().all(|&id| (id as usize) < x.n()));
        let pair = [x.row(row), x.row(ids[0] as usize)].concat();
        let nearest = brute(Embedding::of(&pair, x.d), 0, metric)[0].0;
        assert!((nearest - f64::from(distances[0])).abs() <= 1e-5 * nearest + 1e-6, "row {row}: {} for {nearest}", distances[0]);
    }
}

fn options(n_neighbors: usize, mode: Mode, metric: Metric) -> Options {
    Options { n_neighbors, mode, metric, seed: 0 }
}

/// By lists, however few the cells are.
fn by_lists(x: Embedding, options: &Options) -> Knn {
    run(&engine(Simd::detect()), x, options, &()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    // Whole numbers make every distance exact, ties included: ids must be equal.
    #[test]
    fn exact_is_brute_force_by_distance_and_id(
        (d, data) in (1usize..12, 2usize..90).prop_flat_map(|(d, n)| (Just(d), proptest::collection::vec(-2i8..3, n * d))),
        share in 0f64..1.0,
    ) {
        let data: Vec<f32> = data.into_iter().map(f32::from).collect();
        let x = Embedding::of(&data, d);
        let n_neighbors = 2 + (share * (x.n() - 2) as f64) as usize;
        let found = knn(x, &options(n_neighbors, Mode::Exact, Metric::Euclidean), &()).unwrap();
        prop_assert!(found.order.iter().enumerate().all(|(at, &cell)| at == cell as usize));
        for row in 0..x.n() {
            let truth: Vec<u32> = brute(x, row, Metric::Euclidean).iter().take(n_neighbors - 1).map(|pair| pair.1).collect();
            prop_assert_eq!(&found.distances.indices[row * (n_neighbors - 1)..][..n_neighbors - 1], &truth[..]);
        }
    }
}

#[test]
fn exact_finds_all() {
    let data = cells(1500, 50, 12.0);
    let x = Embedding::of(&data, 50);
    let found = knn(x, &options(15, Mode::Exact, Metric::Euclidean), &()).unwrap().in_original_order();
    check_rows(x, &found, Metric::Euclidean);
    assert_eq!(recall(x, &found, Metric::Euclidean, 1), 1.0);
}

#[test]
fn exact_survives_tight_clusters_far_from_the_centre() {
    // Two clusters 2e4 apart and 0.05 wide: the dot form has no digit left and the rows are scanned again.
    let mut data = cells(400, 20, 0.0);
    data.chunks_exact_mut(20).enumerate().for_each(|(cell, row)| {
        row.iter_mut().for_each(|x| *x = *x * 0.05 + if cell % 2 == 0 { 1e4 } else { -1e4 });
    });
    let x = Embedding::of(&data, 20);
    let found = knn(x, &options(15, Mode::Exact, Metric::Euclidean), &()).unwrap().in_original_order();
    check_rows(x, &found, Metric::Euclidean);
    assert_eq!(recall(x, &found, Metric::Euclidean, 1), 1.0);
}

#[test]
fn lists_reach_the_recall_of_their_mode() {
    for (signal, n) in [(12.0, 8000), (3.0, 6000), (0.0, 4000)] {
        let data = cells(n, 50, signal);
        let x = Embedding::of(&data, 50);
        for (mode, least) in [(Mode::Accurate, 0.99), (Mode::Fast, 0.95)] {
            let found = by_lists(x, &options(15, mode, Metric::Euclidean)).in_original_order();
            check_rows(x, &found, Metric::Euclidean);
            let recall = recall(x, &found, Metric::Euclidean, 13);
            assert!(recall >= least, "signal {signal}, {mode:?}: {recall}");
        }
    }
}

#[test]
fn many_neighbours() {
    let data = cells(5000, 20, 12.0);
    let x = Embedding::of(&data, 20);
    for mode in [Mode::Exact, Mode::Accurate] {
        let found = by_lists(x, &options(201, mode, Metric::Euclidean)).in_original_order();
        check_rows(x, &found, Metric::Euclidean);
        assert!(recall(x, &found, Metric::Euclidean, 29) >= 0.99);
    }
}

#[test]
fn duplicates_are_at_distance_zero() {
    // Every cell four times; and 1,500 equal cells, more than a list holds.
    let mut data = cells(900, 30, 12.0).repeat(4);
    data.extend([7.0].repeat(1500 * 30));
    let x = Embedding::of(&data, 30);
    for mode in [Mode::Exact, Mode::Accurate, Mode::Fast] {
        let found = by_lists(x, &options(10, mode, Metric::Euclidean)).in_original_order();
        check_rows(x, &found, Metric::Euclidean);
        let zeros = |row: usize| found.distances[row * 9..(row + 1) * 9].iter().filter(|&&d| d == 0.0).count();
        assert!((0..3600).all(|row| zeros(row) == 3) && (3600..5100).all(|row| zeros(row) == 9), "{mode:?}");
    }
}

#[test]
fn constant_data() {
    for (n, mode) in [(2, Mode::Exact), (40, Mode::Accurate), (3000, Mode::Exact), (3000, Mode::Accurate), (3000, Mode::Fast)] {
        let data = vec![3.5f32; n * 5];
        let x = Embedding::of(&data, 5);
        let found = by_lists(x, &options(n.min(15), mode, Metric::Euclidean)).in_original_order();
        check_rows(x, &found, Metric::Euclidean);
        assert!(found.distances.iter().all(|&d| d == 0.0));
    }
}

#[test]
fn cosine_is_one_minus_cos_and_zero_rows_are_at_one() {
    let mut data = cells(3000, 20, 12.0);
    for cell in [0, 17, 2999] {
        data[cell * 20..(cell + 1) * 20].fill(0.0);
    }
    let x = Embedding::of(&data, 20);
    for mode in [Mode::Exact, Mode::Accurate] {
        let found = by_lists(x, &options(15, mode, Metric::Cosine)).in_original_order();
        check_rows(x, &found, Metric::Cosine);
        assert!(recall(x, &found, Metric::Cosine, 7) >= 0.99);
        assert_eq!(&found.indices[17 * 14..18 * 14], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        assert!(found.distances[17 * 14..18 * 14].iter().all(|&d| d == 1.0));
    }
}

#[test]
fn threads_and_instructions_do_not_change_a_bit() {
    let data = cells(5000, 25, 6.0);
    let x = Embedding::of(&data, 25);
    for mode in [Mode::Exact, Mode::Accurate] {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| by_lists(x, &options(15, mode, Metric::Euclidean)))
        };
        let one = with(1);
        for threads in [2, 3, 8] {
            assert!(one == with(threads), "{mode:?}, {threads} threads");
        }
        let small = Embedding::of(&data[..25 * 1500], 25);
        let options = options(15, mode, Metric::Euclidean);
        assert!(by_lists(small, &options) == run(&engine(Simd::Portable), small, &options, &()).unwrap(), "{mode:?}, portable");
    }
}

#[test]
fn streamed_rows_give_the_same_bits() {
    // Enough cells for several parts, in rows wider than the search looks at.
    let (n, wide, d) = (40_000, 9, 8);
    let mut data = cells(n, wide, 6.0);
    for cell in [3, 20_000, n - 1] {
        data[cell * wide..(cell + 1) * wide].fill(0.0);
    }
    let x = Embedding::columns(&data, wide, d).unwrap();
    let folder = std::env::temp_dir();
    let file = RowFile::create(&folder, n, wide).unwrap();
    file.write(0, &data).unwrap();
    let file = file.columns(d);
    for metric in [Metric::Euclidean, Metric::Cosine] {
        let options = options(15, Mode::Accurate, metric);
        let here = run(&engine(Simd::detect()), x, &options, &()).unwrap();
        let there = stream(&engine(Simd::detect()), &file, &options, &folder, &()).unwrap();
        assert!(here == there, "{metric:?}");
    }
    data[7 * wide + 2] = f32::NAN;
    file.write(0, &data).unwrap();
    let error = knn_streamed(&file, &Options::default(), &folder, None, &()).unwrap_err().to_string();
    assert!(error.contains("dimension 2 of cell 7"), "{error}");
}

/// A crew that carries out its orders at once, from a file, in parts of five lists, the last first; on a GPU if it has one.
struct Alone(Option<Arc<Device>>);

impl Crew for Alone {
    fn search(&self, order: &Order, rows: &dyn Rows, watch: &dyn Watch, take: &mut dyn FnMut(usize, Found) -> Result<()>) -> Result<bool> {
        let (n, d) = (rows.n(), order.d());
        let path = std::env::temp_dir().join(format!("cellmill-crew-{}-{d}", std::process::id()));
        let mut data = vec![0f32; n * d];
        rows.copy(0, &mut data)?;
        std::fs::write(&path, bytemuck::cast_slice(&data)).unwrap();
        let file = RowFile::open(&path, n, d)?;
        std::fs::remove_file(&path).unwrap();
        assert!(order.n_lists() > 20);
        for first in (0..order.n_lists()).step_by(5).rev() {
            let end = (first + 5).min(order.n_lists());
            let found = match &self.0 {
                None => order.carry_out(&file, first..end)?,
                Some(device) => order.carry_out_on(device, &file, first..end)?.unwrap(),
            };
            take(first, found)?;
            watch.tick(n as u64 - order.cells_before(first), n as u64, "")?;
        }
        Ok(self.0.is_some())
    }
}

#[test]
fn a_crew_finds_the_same_bits() {
    let (n, d) = (20_000, 8);
    let data = cells(n, d, 3.0);
    let x = Embedding::of(&data, d);
    for (mode, metric) in [(Mode::Accurate, Metric::Euclidean), (Mode::Fast, Metric::Cosine)] {
        let options = options(15, mode, metric);
        let dealt = Engine { crew: Some(&Alone(None)), ..engine(Simd::detect()) };
        assert!(run(&dealt, x, &options, &()).unwrap() == by_lists(x, &options), "{mode:?}, {metric:?}");
    }
    let error = RowFile::open(Path::new("Cargo.toml"), 3, 5).err().unwrap().to_string();
    assert!(error.contains("3 rows of 5 numbers have 60"), "{error}");
}

/// Runs where there is a GPU.
#[test]
fn gpus_that_search_in_lists_find_what_all_pairs_have() {
    let Ok(device) = Device::open(&cellmill_cuda::Options::default()) else { return };
    let gpu = Processor::Cuda(vec![device.clone()]);
    let (n, d) = (40_000, 50);
    for (signal, mode, metric, least) in [
        (12.0, Mode::Accurate, Metric::Euclidean, 0.99),
        (3.0, Mode::Accurate, Metric::Cosine, 0.99),
        (3.0, Mode::Fast, Metric::Euclidean, 0.95),
    ] {
        let data = cells(n, d, signal);
        let (x, options) = (Embedding::of(&data, d), options(15, mode, metric));
        let all = run(&Engine { processor: &gpu, ..Engine::new() }, x, &options, &()).unwrap();
        let by_lists = Engine { all_pairs_on_gpu: 0, processor: &gpu, ..engine(Simd::detect()) };
        let found = run(&by_lists, x, &options, &()).unwrap();
        assert_eq!(all.order, found.order);
        let k = all.distances.k;
        let rows = all.distances.indices.chunks(k).zip(found.distances.indices.chunks(k));
        let hits: usize = rows.map(|(all, found)| found.iter().filter(|id| all.contains(id)).count()).sum();
        assert!(hits as f64 >= least * (n * k) as f64, "{hits} of {}, {mode:?}, {metric:?}", n * k);
        // A crew's GPUs find the same bits, in lists and in all pairs.
        let crew = Alone(Some(device.clone()));
        for (all_pairs_on_gpu, wanted) in [(0, &found), (n, &all)] {
            let dealt = Engine { crew: Some(&crew), all_pairs_on_gpu, ..engine(Simd::detect()) };
            assert!(run(&dealt, x, &options, &()).unwrap() == *wanted, "{mode:?}, {metric:?}");
        }
    }
}

#[test]
fn the_order_is_a_permutation_and_can_be_undone() {
    let data = cells(4000, 10, 12.0);
    let x = Embedding::of(&data, 10);
    let found = by_lists(x, &Options::default());
    let mut cells = found.order.clone();
    cells.sort_unstable();
    assert!(cells.iter().enumerate().all(|(at, &cell)| at == cell as usize));
    let moved: Vec<f32> = found.order.iter().flat_map(|&cell| x.row(cell as usize)).copied().collect();
    check_rows(Embedding::of(&moved, 10), &found.distances, Metric::Euclidean);
    // Near cells have near numbers.
    let n = found.order.len();
    let span: f64 = (0..n * 14).map(|at| (found.distances.indices[at] as f64 - (at / 14) as f64).abs()).sum::<f64>() / (n * 14) as f64;
    assert!(span < 0.1 * n as f64, "{span}");
}

#[test]
fn another_seed_changes_the_lists_but_not_the_recall() {
    let data = cells(5000, 30, 12.0);
    let x = Embedding::of(&data, 30);
    let seeded = |seed| by_lists(x, &Options { seed, ..Options::default() });
    assert_ne!(seeded(1).order, seeded(2).order);
    assert!(recall(x, &seeded(2).in_original_order(), Metric::Euclidean, 13) >= 0.99);
}

#[test]
fn refuses_what_it_cannot_do() {
    let mut data = cells(20, 5, 1.0);
    let ask = |data: &[f32], n_neighbors: usize| knn(Embedding::of(data, 5), &options(n_neighbors, Mode::Accurate, Metric::Euclidean), &());
    assert!(matches!(ask(&data, 21).unwrap_err().kind(), ErrorKind::Option { .. }));
    assert!(matches!(ask(&data, 0).unwrap_err().kind(), ErrorKind::Option { .. }));
    assert!(matches!(ask(&[], 15).unwrap_err().kind(), ErrorKind::Option { .. }));
    assert_eq!(ask(&data[..5], 1).unwrap().distances.indices.len(), 0);
    assert_eq!(ask(&data, 20).unwrap().distances.k, 19);
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        data[7 * 5 + 2] = bad;
        let error = ask(&data, 15).unwrap_err().to_string();
        assert!(error.contains("dimension 2 of cell 7"), "{error}");
    }
}

/// Stops at the tick after `left`.
struct Stop {
    left: AtomicU64,
}

impl Watch for Stop {
    fn tick(&self, done: u64, total: u64, _: &str) -> Result<()> {
        assert!(done <= total);
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        if left == 0 { Err(ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

#[test]
fn an_interrupt_stops_every_pass() {
    let data = cells(3000, 10, 3.0);
    let x = Embedding::of(&data, 10);
    for left in 0..12 {
        let stop = Stop { left: AtomicU64::new(left) };
        let stopped = run(&engine(Simd::detect()), x, &Options::default(), &stop);
        if left < 6 || stopped.is_err() {
            assert_eq!(stopped.unwrap_err().kind(), &ErrorKind::Interrupted);
        }
    }
}

#[test]
fn a_widened_join_finds_what_a_wide_one_finds() {
    let (n, d, k) = (9000, 20, 14);
    let data = cells(n, d, 3.0);
    let x = Embedding::of(&data, d);
    let simd = Simd::detect();
    let progress = Progress::new(&(), 1);
    let lists = lists::cut(simd, Cells::Memory(x), 0, &progress).unwrap().0;
    let rows = lists::gather(x, &lists.order);
    let x = Shelf::Memory(Embedding::of(&rows, d));
    let join = |joined: &mut Joined, width: usize, reach: f32| {
        join::join(simd, x, &lists, joined, Reach { width, reach }, Scale::Root, &progress).unwrap();
    };
    let [mut narrow, mut wide, mut widened] = [(); 3].map(|()| Joined::nothing(n, k));
    join(&mut narrow, 4, 0.2);
    join(&mut wide, lists.len(), 0.7);
    join(&mut widened, 4, 0.2);
    assert!(widened.changed.iter().all(|&changed| changed));
    join(&mut widened, lists.len(), 0.7);
    assert_ne!(narrow.distances, wide.distances);
    assert!(widened.distances == wide.distances);
    // Rows that are marked are those that differ, and what is known to be searched is the same.
    let list_of = lists.of_position();
    for (at, &list) in list_of.iter().enumerate() {
        let span = at * k..(at + 1) * k;
        assert_eq!(widened.changed[at], narrow.distances.indices[span.clone()] != wide.distances.indices[span]);
        assert!(widened.searched.of(at, list).eq(wide.searched.of(at, list)));
    }
    assert!(widened.changed.iter().any(|&changed| !changed));
}

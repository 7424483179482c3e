use cellmill_matrix::Csr;
use proptest::prelude::*;

use super::block::Lanes;
use super::columns::unpack_columns_with;
use super::decode::unpack_with;
use super::encode::pack_with;
use super::header::HEADER_BYTES;
use super::*;
use crate::select::{keep_columns, renumbering};
use crate::totals::row_totals;

/// The same bits, NaN included.
fn assert_same(a: &Csr, b: &Csr) {
    assert_eq!((a.n_cols, &a.indptr, &a.indices), (b.n_cols, &b.indptr, &b.indices));
    let bits = |x: &Csr| x.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(a), bits(b));
}

fn from_rows(n_cols: usize, rows: Vec<Vec<(u32, f32)>>) -> Csr {
    let mut x = Csr::empty(n_cols);
    for mut row in rows {
        row.sort_by_key(|entry| entry.0);
        row.dedup_by_key(|entry| entry.0);
        let (columns, values): (Vec<u32>, Vec<f32>) = row.into_iter().unzip();
        x.push_row(&columns, &values);
    }
    x
}

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        60 => (1u8..5).prop_map(f32::from),
        10 => (0u32..=1 << 24).prop_map(|v| v as f32),
        2 => Just(0.0f32),
        1 => any::<u32>().prop_map(f32::from_bits),
    ]
}

fn count() -> impl Strategy<Value = f32> {
    prop_oneof![8 => (1u8..4).prop_map(f32::from), 1 => (1u32..=1 << 24).prop_map(|v| v as f32)]
}

/// Rows of every shape: narrow and dense, wide and sparse, empty, nearly 2^32 columns.
fn rows() -> impl Strategy<Value = Csr> {
    let n_cols = prop_oneof![Just(1u32), Just(7), Just(300), Just(30_000), Just(1 << 24), Just(u32::MAX - 1)];
    (n_cols, any::<bool>(), any::<bool>()).prop_flat_map(|(n_cols, whole, long)| {
        let values = if whole { count().boxed() } else { value().boxed() };
        let (n_rows, most) = if long { (3usize, 700usize) } else { (300, 8) };
        let column = prop_oneof![20 => 0..n_cols.min(2000), 1 => 0..n_cols, 1 => n_cols.saturating_sub(200)..n_cols];
        prop::collection::vec(prop::collection::vec((column, values), 0..=most), 0..=n_rows)
            .prop_map(move |rows| from_rows(n_cols as usize, rows))
    })
}

fn both() -> Vec<Lanes> {
    let mut lanes = vec![Lanes::Portable];
    if Lanes::best() != Lanes::Portable {
        lanes.push(Lanes::best());
    }
    lanes
}

/// Packs, unpacks and selects by each back end; all agree with the rows and with the plain kernels. Returns the bytes.
fn check(x: &Csr) -> Vec<u8> {
    let mut first = Vec::new();
    pack(x, &mut first);
    let mut again = Csr::empty(3);
    again.push_row(&[0, 2], &[f32::NAN, 1.0]);
    for lanes in both() {
        let mut bytes = vec![0xAA; 100];
        pack_with(lanes, x, &mut bytes);
        assert_eq!(bytes, first);
        unpack_with(lanes, &bytes, &mut again).unwrap();
        assert_same(&again, x);
        again.check_indptr(0).unwrap();
        if x.n_cols < 1 << 20 {
            for step in [1, 3, 50] {
                let (map, kept) = renumbering(&(0..x.n_cols).map(|j| j % step == 0).collect::<Vec<_>>());
                let mut want = x.clone();
                keep_columns(&mut want, &map, kept);
                let mut some = Csr::empty(0);
                let totals = unpack_columns_with(lanes, &bytes, &map, kept, &mut some).unwrap();
                assert_same(&some, &want);
                let plain = row_totals(x);
                assert_eq!(totals.n_genes, plain.n_genes);
                // One NaN is any NaN: which payload a sum of two keeps is not defined.
                let bits = |t: &[f64]| t.iter().map(|v| if v.is_nan() { 0 } else { v.to_bits() }).collect::<Vec<_>>();
                assert_eq!(bits(&totals.total), bits(&plain.total));
            }
        }
    }
    let header = header(&first).unwrap();
    assert_eq!((header.n_rows, header.n_cols, header.nnz), (x.n_rows() as u64, x.n_cols as u64, x.nnz() as u64));
    assert_eq!(header.len, first.len() as u64);
    first
}

/// Any bytes give rows or an error, and rows are canonical.
fn survives(bytes: &[u8]) -> bool {
    let mut sound = None;
    for lanes in both() {
        let mut x = Csr::default();
        let mut some = Csr::default();
        let ok = unpack_with(lanes, bytes, &mut x).is_ok();
        assert_eq!(*sound.get_or_insert(ok), ok);
        if ok {
            x.check_indptr(0).unwrap();
            assert!(!x.canonicalise(0).unwrap());
        } else {
            assert_eq!((x.n_rows(), x.nnz()), (0, 0));
        }
        if let Ok(header) = header(bytes)
            && header.n_cols < 1 << 16
        {
            let (map, kept) = renumbering(&(0..header.n_cols).map(|j| j % 2 == 0).collect::<Vec<_>>());
            assert_eq!(unpack_columns_with(lanes, bytes, &map, kept, &mut some).is_ok(), ok);
        }
    }
    sound == Some(true)
}

/// Writes checksums that fit, as one does who wants to deceive.
fn reseal(bytes: &mut [u8], change: impl FnOnce(&mut Header)) {
    let mut header = header(bytes).unwrap();
    change(&mut header);
    header.checksum = checksum::of(&bytes[HEADER_BYTES..]);
    bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rows_come_back(x in rows()) {
        check(&x);
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_an_error(x in rows(), bit in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        pack(&x, &mut bytes);
        prop_assert!(survives(&bytes));
        prop_assert!(!survives(&bytes[..cut.index(bytes.len())]));
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!survives(&bytes));
    }

    #[test]
    fn bytes_made_to_deceive_do_no_harm(
        x in rows(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
        sizes in any::<Option<(u8, u8, u8)>>(),
    ) {
        let mut bytes = Vec::new();
        pack(&x, &mut bytes);
        let payload = header(&bytes).unwrap().payload();
        for (at, byte, control) in changes {
            let at = if control && payload > HEADER_BYTES { HEADER_BYTES + at.index(payload - HEADER_BYTES) } else { HEADER_BYTES + at.index(bytes.len() - HEADER_BYTES) };
            bytes[at] = byte;
        }
        reseal(&mut bytes, |header| if let Some((rows, columns, nnz)) = sizes {
            header.n_rows = header.n_rows.wrapping_add(u64::from(rows)).wrapping_sub(64);
            header.n_cols = header.n_cols.wrapping_add(u64::from(columns)).wrapping_sub(64);
            header.nnz = header.nnz.wrapping_add(u64::from(nnz)).wrapping_sub(64);
        });
        survives(&bytes);
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&bytes);
    }
}

#[test]
fn every_bit_of_a_small_chunk_counts() {
    let x = from_rows(500, (0..5u32).map(|i| (0..60).map(|j| (j * 8 + i, (j % 7) as f32)).collect()).collect());
    let mut bytes = check(&x);
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(unpack(&bytes, &mut Csr::default()).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    for len in 0..bytes.len() {
        assert!(unpack(&bytes[..len], &mut Csr::default()).is_err(), "{len} bytes");
    }
    bytes.push(0);
    assert!(unpack(&bytes, &mut Csr::default()).is_err());
}

#[test]
fn a_refused_size_takes_no_memory() {
    let mut bytes = Vec::new();
    pack(&Csr::empty(10), &mut bytes);
    for change in [
        |h: &mut Header| h.nnz = u64::MAX,
        |h: &mut Header| h.nnz = 1 << 40,
        |h: &mut Header| h.n_rows = u64::MAX,
        |h: &mut Header| h.n_cols = 1 << 32,
        |h: &mut Header| h.len = u64::MAX,
    ] {
        let mut bytes = bytes.clone();
        reseal(&mut bytes, change);
        assert!(unpack(&bytes, &mut Csr::default()).is_err());
    }
}

#[test]
fn rows_of_every_kind_come_back() {
    check(&Csr::empty(0));
    check(&Csr::empty(28_000));
    let mut x = Csr::empty(28_000);
    for _ in 0..1000 {
        x.push_row(&[], &[]);
    }
    check(&x);
    // One giant row, all columns.
    let columns: Vec<u32> = (0..200_000).collect();
    let mut x = Csr::empty(200_000);
    x.push_row(&columns, &columns.iter().map(|&c| (c % 300) as f32).collect::<Vec<_>>());
    x.push_row(&[], &[]);
    check(&x);
    // Dense rows: no bits for columns, none for ones.
    let mut x = Csr::empty(100);
    for _ in 0..64 {
        x.push_row(&columns[..100], &[1.0; 100]);
    }
    assert!(check(&x).len() < 64 * 100 / 128 * 4 + 200);
    // Every width, alone and with exceptions, for columns and values.
    for width in 0..32u32 {
        let step = 1u32 << width;
        let rows = (0..300u32).map(|i| vec![(i % 3, 1.0), (step - 1 + 3, (step - 1) as f32), (u32::MAX - 2, 2.0)]).collect();
        check(&from_rows(u32::MAX as usize - 1, rows));
    }
    // What is no whole number up to 2^24.
    for odd in
        [-0.0, 0.5, -1.0, f32::NAN, -f32::NAN, f32::INFINITY, 16_777_218.0, 2_147_483_648.0, f32::MIN_POSITIVE, f32::from_bits(0x7F80_0001)]
    {
        check(&from_rows(300, vec![(0..300).map(|j| (j, if j == 150 { odd } else { 3.0 })).collect(), vec![(5, odd)]]));
    }
}

/// Counts of `n_rows` cells over 28,000 genes in shuffled order: a shifted power law with a falling tail, log-normal library
/// sizes (sigma 0.5), negative binomial with size 2, about 2,000 genes a cell.
pub(super) fn cells(n_rows: usize) -> Csr {
    let n_cols = 28_000usize;
    let mut state = 1u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = (state >> 33) ^ (state >> 17);
        (x.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut profile: Vec<f64> = (0..n_cols).map(|i| (-7.5 * i as f64 / n_cols as f64).exp() / (i as f64 + 50.0)).collect();
    for i in (1..n_cols).rev() {
        profile.swap(i, (uniform() * (i + 1) as f64) as usize);
    }
    let sum: f64 = profile.iter().sum();
    let mut x = Csr::empty(n_cols);
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    for _ in 0..n_rows {
        let normal = (-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let library = 7_000.0 * (0.5 * normal).exp();
        columns.clear();
        values.clear();
        for (gene, weight) in profile.iter().enumerate() {
            // Negative binomial with mean m and size 2, by inversion: p(0) = (2 / (2 + m))^2, p(k) = p(k - 1) q (k + 1) / k.
            let m = library * weight / sum;
            let (mut p, q) = ((2.0 / (2.0 + m)).powi(2), m / (2.0 + m));
            let mut u = uniform() - p;
            let mut k = 0u32;
            while u >= 0.0 && k < 100_000 {
                k += 1;
                p *= q * f64::from(k + 1) / f64::from(k);
                u -= p;
            }
            if k > 0 {
                columns.push(gene as u32);
                values.push(k as f32);
            }
        }
        x.push_row(&columns, &values);
    }
    x
}

#[test]
fn a_sealed_chunk_is_a_packed_one() {
    for x in [cells(150), from_rows(9, vec![]), from_rows(9, vec![vec![(3, 0.5)], vec![]])] {
        let mut bytes = Vec::new();
        pack(&x, &mut bytes);
        let mut bare = bytes.clone();
        bare[..HEADER_BYTES].fill(0);
        seal(x.n_rows(), x.n_cols, x.nnz(), &mut bare).unwrap();
        assert_eq!(bare, bytes);
        let longer = [&bytes[..], &[0]].concat();
        for mut wrong in [bytes[..HEADER_BYTES].to_vec(), longer] {
            assert!(seal(x.n_rows(), x.n_cols, x.nnz(), &mut wrong).is_err(), "{} bytes", wrong.len());
        }
    }
}

#[test]
fn counts_take_less_than_1_point_9_bytes() {
    let x = cells(300);
    let bytes = check(&x);
    let header = header(&bytes).unwrap();
    let per = |n: u64| n as f64 / x.nnz() as f64;
    let mean = x.nnz() as f64 / 300.0;
    assert!((1_500.0..2_800.0).contains(&mean), "{mean} genes a cell");
    assert!(per(header.len) < 1.9, "{} = {} + {}", per(header.len), per(header.index_bytes), per(header.value_bytes));
}

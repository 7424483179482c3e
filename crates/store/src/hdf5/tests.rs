//! Files made by h5py (`tests/data/hdf5/make.py`), files of our own, and damaged ones.

use std::path::{Path, PathBuf};

use cellmill_matrix::{Array, Column, DType, ErrorKind, Values};
use proptest::prelude::*;
use serde_json::json;

use super::{COMPOUND, Hdf5Tree, Hdf5Writer};
use crate::tree::{Attrs, Node, Tree, TreeWriter};

pub(crate) fn data(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|a| a.join("tests/data")).find(|p| p.join("hdf5").is_dir());
    root.expect("tests/data").join(name)
}

fn open(name: &str) -> Hdf5Tree {
    Hdf5Tree::open(&data("hdf5").join(name)).unwrap()
}

fn one() -> Values {
    Values::F32((0..1000).map(|i| (i * 7 % 251) as f32).collect())
}

fn two() -> Values {
    Values::I32((0..23 * 17).map(|i| i % 97).collect())
}

/// Every array decodes whole, by rows and by chunks to the same entries.
fn agrees(tree: &Hdf5Tree, path: &str, shape: &[usize], expected: &Values) {
    let whole = tree.read(path).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((whole.shape.as_slice(), &whole.values), (shape, expected), "{path}");
    let row = expected.len() / shape[0];
    for rows in [0..shape[0], 1..shape[0].min(4), shape[0] / 2..shape[0], 3..3] {
        let keep: Vec<bool> = (0..expected.len()).map(|i| rows.contains(&(i / row))).collect();
        assert_eq!(tree.read_rows(path, rows.start as u64..rows.end as u64).unwrap(), expected.select(&keep), "{path} {rows:?}");
    }
    let chunks = tree.chunks(path).unwrap();
    let size = chunks.info().dtype.unwrap().size().unwrap();
    let (mut scratch, mut out) = (vec![1; 5], vec![2; 7]);
    for i in 0..chunks.n_chunks() {
        chunks.decode(i, &mut scratch, &mut out).unwrap();
        assert_eq!(out.len() as u64, chunks.info().chunk.iter().product::<u64>() * size as u64);
        let mut direct = vec![3; out.len()];
        chunks.decode_into(i, &mut scratch, &mut direct).unwrap();
        assert_eq!(direct, out);
        assert!(chunks.decode_into(i, &mut scratch, &mut vec![0; out.len() + 1]).is_err());
    }
}

#[test]
fn filters_and_layouts_of_h5py() {
    let tree = open("filters.h5");
    for name in tree.children("one").unwrap() {
        agrees(&tree, &format!("one/{name}"), &[1000], &one());
        agrees(&tree, &format!("two/{name}"), &[23, 17], &two());
        agrees(&tree, &format!("grows/{name}"), &[1000], &one());
    }
    agrees(&tree, "contiguous", &[23, 17], &two());
    agrees(&tree, "big_endian", &[1000], &one());
    let wide = Values::F64((0..1000).map(|i| f64::from(i * 7 % 251)).collect());
    agrees(&tree, "big_endian_gzip", &[1000], &wide);
    agrees(&tree, "rank3", &[7, 5, 3], &Values::I64((0..105).collect()));
    let noise = tree.chunks("noise").unwrap();
    assert_eq!((noise.info().codec.as_str(), noise.n_chunks()), ("lzf shuffle", 4));
    agrees(&tree, "noise", &[2000], &tree.read("noise").unwrap().values);
    let Some(Node::Array(info)) = tree.node("one/all").unwrap() else { panic!() };
    assert_eq!((info.codec.as_str(), info.chunk, info.shape), ("gzip-4 fletcher32 shuffle", vec![300], vec![1000]));
    for name in tree.children("types").unwrap().iter().filter(|n| *n != "f16") {
        let values = tree.read(&format!("types/{name}")).unwrap().values;
        assert_eq!((0..5).map(|i| values.number(i).unwrap()).collect::<Vec<_>>(), [0.0, 1.0, 1.0, 0.0, 1.0], "{name}");
    }
    assert_eq!(tree.read("types/bool").unwrap().values.dtype(), DType::Bool);
    agrees(&tree, "types/f16", &[3], &Values::F32(vec![0.0; 3]));
}

#[test]
fn chunk_lists_of_the_latest_format() {
    let tree = open("latest.h5");
    for path in ["single", "fixed", "fixed_plain"] {
        agrees(&tree, path, &[23, 17], &two());
    }
    for path in ["extensible", "extensible_plain"] {
        agrees(&tree, path, &[1000], &one());
    }
    agrees(&tree, "tree2", &[23, 17], &two());
    assert_eq!(tree.children("many").unwrap().len(), 40);
    assert_eq!(tree.node("many").unwrap().unwrap().attrs()["a39"], json!(39));
}

#[test]
fn what_hdf5_2_calls_latest() {
    let tree = open("newest.h5");
    for path in ["single", "fixed", "fixed_plain", "tree2", "tree2_deep", "tree2_plain", "tree2_shrunk"] {
        agrees(&tree, path, &[23, 17], &two());
    }
    agrees(&tree, "extensible", &[1000], &one());
    agrees(&tree, "implicit", &[1000], &one());
}

#[test]
fn a_damaged_version_2_tree_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(data("hdf5/newest.h5")).unwrap();
    for sign in [&b"BTHD"[..], b"BTLF", b"BTIN"] {
        for (at, _) in whole.windows(4).enumerate().filter(|(_, w)| *w == sign) {
            for byte in [at + 1, at + 5, at + 8, at + 20, at + 26] {
                let mut bad = whole.clone();
                bad[byte] ^= 0x41;
                let path = dir.path().join("bad.h5");
                std::fs::write(&path, bad).unwrap();
                let tree = Hdf5Tree::open(&path).unwrap();
                for name in ["tree2", "tree2_deep", "tree2_plain"] {
                    match tree.read(name) {
                        Ok(read) => assert_eq!(read.values, two(), "damage at byte {byte} was not seen"),
                        Err(error) => assert!(error.to_string().contains(name), "{error}"),
                    }
                }
            }
        }
    }
}

#[test]
fn plugins() {
    let tree = open("plugins.h5");
    let expected = |dtype: &str| {
        let numbers = (0..4000).map(|i| i * 7 % 251 / 9);
        match dtype {
            "f4" => Values::F32(numbers.map(|x| x as f32).collect()),
            "i8" => Values::I64(numbers.collect()),
            _ => Values::U8(numbers.map(|x| x as u8).collect()),
        }
    };
    let names = tree.children("").unwrap();
    assert_eq!(names.len(), 17 + 2 * 5 + 2);
    for name in names.iter().filter(|n| n.contains('_')) {
        agrees(&tree, name, &[4000], &expected(&name[..2]));
    }
    assert_eq!(tree.read("noise").unwrap().values.len(), 3000);
    let Values::U8(far) = tree.read("far").unwrap().values else { panic!() };
    assert_eq!(far[..12000], far[12000..]);
}

#[test]
fn strings_scalars_and_attributes() {
    let tree = open("strings.h5");
    let text: Vec<String> = ["", "a", "gène", &"x".repeat(300), "αβγ"].iter().map(|s| s.to_string()).collect();
    let text = Values::Str((0..40).map(|i| text[i % 5].clone()).collect());
    for path in ["vlen", "vlen_gzip", "fixed"] {
        assert_eq!(tree.read(path).unwrap(), Array::vector(text.clone()), "{path}");
    }
    let Values::Str(some) = tree.read_rows("vlen_gzip", 6..9).unwrap() else { panic!() };
    assert_eq!(some, ["a", "gène", &"x".repeat(300)]);
    let scalar = |path: &str| tree.read(path).unwrap();
    assert_eq!(scalar("scalar"), Array { shape: vec![], values: Values::Str(vec!["one".into()]) });
    assert_eq!(scalar("scalar_fixed").values, Values::Str(vec!["two".into()]));
    assert_eq!(scalar("number"), Array { shape: vec![], values: Values::F64(vec![1.5]) });
    assert_eq!(scalar("yes").values, Values::Bool(vec![true]));
    assert!(tree.read("null").is_err());
    let attrs = tree.node("attrs").unwrap().unwrap().attrs().clone();
    let expected = json!({
        "bytes": "old", "no_texts": [], "none": [], "one_text": ["a"], "ordered": true, "shape": [3, 4], "text": "csr_matrix",
        "texts": ["a", "b"], "x": 0.5,
    });
    assert_eq!(serde_json::Value::Object(attrs), expected);
    assert_eq!(tree.node("obs/cell_type").unwrap().unwrap().attrs()["categories"], json!("obs/__categories/cell_type"));
    assert!(tree.node("absent").unwrap().is_none() && tree.node("vlen/deeper").unwrap().is_none());
    let error = tree.read("obs/cell_typ").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Missing { .. }) && error.to_string().contains("did you mean 'cell_type'"), "{error}");
}

#[test]
fn records() {
    let tree = open("strings.h5");
    let Some(Node::Array(info)) = tree.node("record").unwrap() else { panic!() };
    assert_eq!((info.dtype, &info.attrs[COMPOUND]), (None, &json!(["index", "n", "x", "flag", "pair"])));
    let columns = tree.read_compound("record").unwrap();
    let plain = |v| Column::Plain(v);
    let expected = [
        ("index", plain(Values::Str(vec!["a".into(), "bc".into()]))),
        ("n", plain(Values::I32(vec![1, 2]))),
        ("x", plain(Values::F64(vec![0.5, 1.5]))),
        ("flag", plain(Values::Bool(vec![true, false]))),
    ];
    assert_eq!(columns, expected.map(|(n, c)| (n.to_string(), c)));
    let pair = tree.read_compound_arrays("record").unwrap().pop().unwrap();
    assert_eq!(pair, ("pair".into(), Array { shape: vec![2, 2], values: Values::F32(vec![1.0, 2.0, 3.0, 4.0]) }));
    assert_eq!(tree.fields("record").unwrap().map(|f| f.len()), Some(5));
    assert!(tree.fields("vlen").unwrap().is_none() && tree.stored_bytes("vlen_gzip").unwrap() > Some(50));
    assert!(tree.read("record").is_err() && tree.read_compound("vlen").is_err());
}

fn attrs(value: serde_json::Value) -> Attrs {
    value.as_object().unwrap().clone()
}

fn write(path: &Path, fill: impl FnOnce(&Hdf5Writer)) {
    let writer = Box::new(Hdf5Writer::create(path, false).unwrap());
    fill(&writer);
    writer.finish().unwrap();
}

#[test]
fn what_is_written_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.h5ad");
    let root =
        attrs(json!({"encoding-type": "anndata", "names": ["a", ""], "none": [], "one": ["x"], "n": -3, "x": [0.5, 1.0], "yes": true}));
    let many: Vec<String> = (0..3000).map(|i| format!("c{i}")).collect();
    write(&path, |w| {
        w.group("", root.clone()).unwrap();
        w.group("obs", attrs(json!({ "column-order": many }))).unwrap();
        w.array("obs/n", &Array { shape: vec![], values: Values::I64(vec![7]) }, Attrs::new()).unwrap();
        w.array("obs/empty", &Array { shape: vec![0, 5], values: Values::F32(vec![]) }, Attrs::new()).unwrap();
        w.array("obs/text", &Array { shape: vec![], values: Values::Str(vec!["αβ".into()]) }, attrs(json!({"a": "b"}))).unwrap();
    });
    let tree = Hdf5Tree::open(&path).unwrap();
    let mut sorted: Vec<_> = root.into_iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(tree.node("").unwrap().unwrap().attrs(), &sorted.into_iter().collect::<Attrs>());
    assert_eq!(tree.node("obs").unwrap().unwrap().attrs()["column-order"], json!(many));
    assert_eq!(tree.children("obs").unwrap(), ["empty", "n", "text"]);
    assert_eq!(tree.read("obs/empty").unwrap(), Array { shape: vec![0, 5], values: Values::F32(vec![]) });
    assert_eq!(tree.read("obs/text").unwrap().values, Values::Str(vec!["αβ".into()]));
    assert_eq!(tree.chunks("obs/empty").unwrap().n_chunks(), 0);
}

#[test]
fn nothing_appears_before_finish() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.h5ad");
    let writer = Hdf5Writer::create(&path, false).unwrap();
    assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    assert!(!path.exists());
    drop(writer);
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    std::fs::write(&path, "old").unwrap();
    assert!(Hdf5Writer::create(&path, false).is_err());
    let writer = Box::new(Hdf5Writer::create(&path, true).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    let stream = writer.stream("x", DType::F32, &[0], &[10], Attrs::new()).unwrap();
    assert!(writer.finish().is_err(), "an open stream");
    drop(stream);
    assert_eq!((std::fs::read(&path).unwrap().as_slice(), dir.path().read_dir().unwrap().count()), (b"old".as_slice(), 1));
    Box::new(Hdf5Writer::create(&path, true).unwrap()).finish().unwrap();
    assert!(Hdf5Tree::open(&path).unwrap().children("").unwrap().is_empty());
}

/// Bytes do not depend on how rows are cut, nor on the number of threads.
#[test]
fn streams_are_bit_identical() {
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..60_000).map(|i| (i % 251 * (i % 17)) as f32).collect();
    let bytes = |name: &str, step: usize, threads: usize| {
        let path = dir.path().join(name);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            write(&path, |w| {
                let mut s = w.stream("x", DType::F32, &[0, 3], &[100, 2], Attrs::new()).unwrap();
                values.chunks(step).for_each(|v| s.append(&Values::F32(v.to_vec())).unwrap());
                s.close().unwrap();
            })
        });
        assert_eq!(Hdf5Tree::open(&path).unwrap().read("x").unwrap().values, Values::F32(values.clone()));
        std::fs::read(path).unwrap()
    };
    let one = bytes("a", 60_000, 1);
    assert!(one == bytes("b", 60_000, 4) && one == bytes("c", 33, 2));
}

/// A list of chunks of several levels: 64 children a node.
#[test]
fn many_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.h5");
    let values = Values::U16((0..20_000).map(|i| (i % 65_000) as u16).collect());
    write(&path, |w| {
        let mut s = w.stream("x", DType::U16, &[0], &[4], Attrs::new()).unwrap();
        s.append(&values).unwrap();
        s.close().unwrap();
    });
    let tree = Hdf5Tree::open(&path).unwrap();
    assert_eq!(tree.chunks("x").unwrap().n_chunks(), 5000);
    assert_eq!(tree.read("x").unwrap().values, values);
}

fn any_values() -> impl Strategy<Value = Values> {
    prop_oneof![
        prop::collection::vec(any::<bool>(), 0..3000).prop_map(Values::Bool),
        prop::collection::vec(any::<i8>(), 0..3000).prop_map(Values::I8),
        prop::collection::vec(any::<u16>(), 0..3000).prop_map(Values::U16),
        prop::collection::vec(any::<i32>(), 0..3000).prop_map(Values::I32),
        prop::collection::vec(any::<u64>(), 0..3000).prop_map(Values::U64),
        prop::collection::vec(-1e9f32..1e9, 0..3000).prop_map(Values::F32),
        prop::collection::vec(-1e9f64..1e9, 0..3000).prop_map(Values::F64),
        prop::collection::vec("[a-zα]{0,12}", 0..1200).prop_map(Values::Str),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn arrays_round_trip(values in any_values(), width in 1usize..6, chunk in 1u64..700, across in 1u64..6) {
        let n = values.len() / width * width;
        let values = values.select(&(0..values.len()).map(|i| i < n).collect::<Vec<_>>());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.h5");
        let array = Array { shape: vec![n / width, width], values };
        write(&path, |w| {
            w.group("g", Attrs::new()).unwrap();
            w.array("g/whole", &array, Attrs::new()).unwrap();
            let mut s = w.stream("g/stream", array.values.dtype(), &[0, width as u64], &[chunk, across], Attrs::new()).unwrap();
            for half in [true, false] {
                let keep: Vec<bool> = (0..n).map(|i| (i / width < n / width / 2) == half).collect();
                s.append(&array.values.select(&keep)).unwrap();
            }
            s.close().unwrap();
        });
        let tree = Hdf5Tree::open(&path).unwrap();
        prop_assert_eq!(&tree.read("g/whole").unwrap(), &array);
        prop_assert_eq!(&tree.read("g/stream").unwrap(), &array);
    }

    #[test]
    fn lzf_of_anything(bytes in prop::collection::vec(any::<u8>(), 0..400), expected in 0usize..500) {
        let mut out = vec![0; expected];
        super::lzf::decode(&bytes, &mut out);
    }
}

/// Reads all that a file holds; errors are fine.
fn walk(tree: &Hdf5Tree, path: &str, left: &mut usize) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    match tree.node(path) {
        Ok(Some(Node::Group(_))) => {
            for child in tree.children(path).unwrap_or_default() {
                walk(tree, &if path.is_empty() { child } else { format!("{path}/{child}") }, left);
            }
        }
        Ok(Some(Node::Array(_))) => {
            let _ = tree.read(path);
            let _ = tree.read_compound(path);
            if let Ok(chunks) = tree.chunks(path) {
                let _ = chunks.decode(0, &mut Vec::new(), &mut Vec::new());
            }
        }
        _ => {}
    }
}

/// Bit flips, overwritten words and cut-off ends give errors, or other values; never a panic.
#[test]
fn damaged_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.h5");
    let ours = dir.path().join("ours.h5");
    write(&ours, |w| {
        w.group("obs", attrs(json!({"column-order": ["a", "b"]}))).unwrap();
        w.array("obs/a", &Array::vector(Values::Str((0..50).map(|i| format!("cell{i}")).collect())), Attrs::new()).unwrap();
        w.array("b", &Array { shape: vec![60, 20], values: Values::F64((0..1200).map(f64::from).collect()) }, Attrs::new()).unwrap();
    });
    let cases = std::env::var("CELLMILL_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(60u64);
    let mut seed = 1u64;
    let mut random = move |n: usize| {
        // Marsaglia's xorshift64.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % n.max(1) as u64) as usize
    };
    let names = ["strings", "latest", "newest", "filters", "links", "links_new", "half"];
    let files: Vec<_> = [ours].into_iter().chain(names.map(|name| data(&format!("hdf5/{name}.h5")))).collect();
    for file in &files {
        let sound = std::fs::read(file).unwrap();
        for case in 0..cases {
            let mut bytes = sound.clone();
            if case % 5 == 0 {
                bytes.truncate(random(sound.len()));
            } else {
                for _ in 0..1 + random(12) {
                    // Metadata lie at the front of h5py's files: damage them more often.
                    let at = if case % 2 == 0 { random(bytes.len()) } else { random(bytes.len().min(4096)) };
                    match random(3) {
                        0 => bytes[at] ^= 1 << random(8),
                        1 => bytes[at] = 0xff,
                        _ => {
                            let end = (at + 8).min(bytes.len());
                            bytes[at..end].fill([0x00, 0x7f, 0xff][random(3)]);
                        }
                    }
                }
            }
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(tree) = Hdf5Tree::open(&path) {
                walk(&tree, "", &mut 120);
            }
        }
    }
}

/// A flipped bit in compressed data is found, and the error says where.
#[test]
fn a_flipped_bit_in_a_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.h5");
    let values = Values::U32((0..5000u32).map(|i| i.wrapping_mul(2_654_435_761) >> 20).collect());
    write(&path, |w| {
        let mut s = w.stream("x", DType::U32, &[0], &[1000], Attrs::new()).unwrap();
        s.append(&values).unwrap();
        s.close().unwrap();
    });
    let sound = std::fs::read(&path).unwrap();
    // The first chunk follows the superblock.
    for at in [60, 400, 1000] {
        let mut bytes = sound.clone();
        bytes[at] ^= 16;
        std::fs::write(&path, &bytes).unwrap();
        let error = Hdf5Tree::open(&path).unwrap().read("x").unwrap_err().to_string();
        assert!(error.contains("a.h5: x, rows 0..1000: ") && error.contains("gzip"), "{error}");
    }
    std::fs::write(&path, &sound[..sound.len() / 2]).unwrap();
    assert!(Hdf5Tree::open(&path).map(|t| t.read("x").map(|_| ())).is_ok_and(|r| r.is_err()) || Hdf5Tree::open(&path).is_err());
}

/// A forged shape asks for terabytes; it is refused before memory is taken.
#[test]
fn forged_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.h5");
    for (name, size) in [("small", 10usize), ("large", 5000)] {
        let _ = std::fs::remove_file(&path);
        write(&path, |w| w.array(name, &Array::vector(Values::F64(vec![1.0; size])), Attrs::new()).unwrap());
        let tree = Hdf5Tree::open(&path).unwrap();
        assert_eq!(tree.read(name).unwrap().values.len(), size);
        drop(tree);
        let mut bytes = std::fs::read(&path).unwrap();
        let header = bytes.windows(4).position(|w| w == b"OHDR").unwrap();
        // Header: 10 bytes, message of 4 bytes before the dataspace, whose length follows 4 bytes.
        let at = header + 10 + 4 + 4;
        assert_eq!(bytes[at..at + 8], (size as u64).to_le_bytes());
        bytes[at..at + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
        let length = u32::from_le_bytes(bytes[header + 6..header + 10].try_into().unwrap()) as usize;
        let end = header + 10 + length;
        let sum = super::message::checksum(&bytes[header..end]);
        bytes[end..end + 4].copy_from_slice(&sum.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let tree = Hdf5Tree::open(&path).unwrap();
        let Some(Node::Array(info)) = tree.node(name).unwrap() else { panic!() };
        assert_eq!(info.shape, [1 << 40]);
        let error = tree.read(name).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("damaged"), "{error}");
        assert!(tree.chunks(name).is_err() && tree.read_rows(name, 0..10).is_err());
    }
}

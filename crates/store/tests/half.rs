//! float16 is read as f32, of which it is a part.

use std::path::Path;

use cellmill_matrix::{Array, Csr, DType, Source, SourceRow, Values};
use cellmill_store::hdf5::Hdf5Tree;
use cellmill_store::source::DenseSource;
use cellmill_store::tree::{Node, Tree};
use cellmill_store::zarr::ZarrTree;

/// The values that the arrays hold, by their bits in float16.
const VALUES: [(u16, f32); 6] =
    [(0, 0.0), (0x3c00, 1.0), (0xc100, -2.5), (0x7bff, 65504.0), (1, 1.0 / 16_777_216.0), (0x3555, 0.333_251_95)];

fn whole(shape: &[usize]) -> Array {
    let n = shape.iter().product();
    Array { shape: shape.to_vec(), values: Values::F32(VALUES.iter().cycle().map(|v| v.1).take(n).collect()) }
}

fn agrees(tree: &dyn Tree, path: &str) {
    let expected = whole(&[12, 5]);
    assert_eq!(tree.read(path).unwrap(), expected, "{path}");
    let keep: Vec<bool> = (0..60).map(|i| (15..40).contains(&i)).collect();
    assert_eq!(tree.read_rows(path, 3..8).unwrap(), expected.values.select(&keep), "{path}");
    let Some(Node::Array(info)) = tree.node(path).unwrap() else { panic!("{path}") };
    assert_eq!(info.dtype, Some(DType::F32));
    let chunks = tree.chunks(path).unwrap();
    for i in 0..chunks.n_chunks() {
        let (mut out, mut direct) = (Vec::new(), vec![9; info.chunk.iter().product::<u64>() as usize * 4]);
        chunks.decode(i, &mut Vec::new(), &mut out).unwrap();
        chunks.decode_into(i, &mut Vec::new(), &mut direct).unwrap();
        assert_eq!(out, direct, "{path}");
        assert!(chunks.read_stored(i, &mut Vec::new()).is_none(), "nobody else takes it for f32");
    }
    let source = DenseSource::open(tree, path).unwrap();
    let mut rows = Csr::default();
    source.read(SourceRow(2)..SourceRow(9), &mut rows).unwrap();
    let Values::F32(all) = expected.values else { panic!() };
    let dense: Vec<f32> = all[10..45].iter().copied().filter(|x| *x != 0.0).collect();
    assert_eq!(rows.data, dense, "{path}");
}

#[test]
fn of_hdf5() {
    let tree = Hdf5Tree::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/hdf5/half.h5")).unwrap();
    for path in ["contiguous", "big_endian", "gzip"] {
        agrees(&tree, path);
    }
    assert_eq!(tree.read("scalar").unwrap().values, Values::F32(vec![0.5]));
    let record = tree.read_compound_arrays("record").unwrap();
    assert_eq!(record[1], ("x".into(), Array { shape: vec![2], values: Values::F32(vec![0.5, -1.5]) }));
}

#[test]
fn of_zarr() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    // Chunks of 5 x 5; the last reaches past the end, and the second of `filled` is missing: it is all ones.
    let chunk = |i: usize, big: bool| -> Vec<u8> {
        let entry = |k: usize| VALUES[k % 6].0;
        (i * 25..i * 25 + 25).flat_map(|k| if big { entry(k).to_be_bytes() } else { entry(k).to_le_bytes() }).collect()
    };
    write("zarr.json", r#"{"zarr_format":3,"node_type":"group"}"#.into());
    for (name, endian, fill) in [("little", "little", "0.0"), ("big", "big", "\"0x3c00\""), ("filled", "little", "1.0")] {
        let array = format!(
            r#"{{"zarr_format":3,"node_type":"array","shape":[12,5],"data_type":"float16","fill_value":{fill},
            "chunk_grid":{{"name":"regular","configuration":{{"chunk_shape":[5,5]}}}},
            "chunk_key_encoding":{{"name":"default"}},"codecs":[{{"name":"bytes","configuration":{{"endian":"{endian}"}}}}]}}"#
        );
        write(&format!("{name}/zarr.json"), array);
        for i in (0..3).filter(|i| name != "filled" || *i != 1) {
            let path = dir.path().join(format!("{name}/c/{i}/0"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, chunk(i, endian == "big")).unwrap();
        }
    }
    let tree = ZarrTree::open(dir.path()).unwrap();
    agrees(&tree, "little");
    agrees(&tree, "big");
    let Values::F32(filled) = tree.read("filled").unwrap().values else { panic!() };
    assert_eq!((filled[24], &filled[25..50], filled[50]), (VALUES[0].1, &[1.0; 25][..], VALUES[2].1));

    let old = tempfile::tempdir().unwrap();
    std::fs::write(old.path().join(".zgroup"), r#"{"zarr_format":2}"#).unwrap();
    for (name, dtype) in [("little", "<f2"), ("big", ">f2")] {
        std::fs::create_dir(old.path().join(name)).unwrap();
        let array = format!(
            r#"{{"zarr_format":2,"shape":[12,5],"chunks":[5,5],"dtype":"{dtype}",
            "compressor":null,"fill_value":0.0,"order":"C","filters":null}}"#
        );
        std::fs::write(old.path().join(name).join(".zarray"), array).unwrap();
        for i in 0..3 {
            std::fs::write(old.path().join(name).join(format!("{i}.0")), chunk(i, name == "big")).unwrap();
        }
    }
    let tree = ZarrTree::open(old.path()).unwrap();
    agrees(&tree, "little");
    agrees(&tree, "big");
}

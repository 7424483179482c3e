//! Stores that anndata wrote, in every version and codec (`tests/data/store/make.py`), read back.

use std::path::PathBuf;

use cellmill_matrix::{Column, Compression, Csr, Element, Part, SourceRow, Streams, Values};
use cellmill_store::anndata::AnnData;
use cellmill_store::tree::Tree;
use cellmill_store::zarr::ZarrTree;

const N_OBS: u64 = 90;
const N_VARS: usize = 40;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/store")
}

/// The matrix that `make.py` describes.
fn counts() -> Csr {
    let mut csr = Csr::empty(N_VARS);
    for i in 0..N_OBS {
        let mut row: Vec<(u32, f32)> = (0..i % 6).map(|k| (((7 * i + 3 * k) % N_VARS as u64) as u32, (1 + (i + k) % 5) as f32)).collect();
        row.sort_by_key(|entry| entry.0);
        let (columns, values): (Vec<u32>, Vec<f32>) = row.into_iter().unzip();
        csr.push_row(&columns, &values);
    }
    csr
}

fn read_whole(store: &AnnData, matrix: &str, step: u64) -> Csr {
    let source = store.matrix(matrix).unwrap().into_rows(&std::env::temp_dir(), 1 << 20, &()).unwrap();
    let mut whole = Csr::empty(N_VARS);
    let mut part = Csr::default();
    for start in (0..N_OBS).step_by(step as usize) {
        source.read(SourceRow(start)..SourceRow((start + step).min(N_OBS)), &mut part).unwrap();
        for i in 0..part.n_rows() {
            let (columns, values) = part.row(i);
            whole.push_row(columns, values);
        }
    }
    whole
}

#[test]
fn every_codec_gives_the_same_matrix() {
    let mut n = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".zarr") || name == "arrays.zarr" {
            continue;
        }
        n += 1;
        let store = AnnData::open(&path).unwrap();
        for step in [1, 13, 90] {
            assert_eq!(read_whole(&store, "X", step), counts(), "{name}");
        }
        let info = store.matrix_info("X").unwrap();
        assert_eq!((info.nnz, info.shape.n_obs, info.shape.n_vars), (counts().nnz() as u64, N_OBS, N_VARS));
    }
    assert!(n >= 16, "only {n} stores");
}

/// What streams say that stored bytes are: entries of `size` bytes, `n` of them.
fn undo(bytes: &[u8], found: &Streams, n: usize, size: usize) -> Vec<u8> {
    let mut planes = vec![0; n * size];
    for s in &found.streams {
        let (body, part) = (&bytes[s.from as usize..][..s.stored as usize], &mut planes[s.to as usize..][..s.len as usize]);
        let len = match found.compression {
            _ if s.stored == s.len => {
                part.copy_from_slice(body);
                body.len()
            }
            Compression::Lz4 => lz4::block::decompress_to_buffer(body, Some(s.len as i32), part).unwrap(),
            Compression::Zstd => zstd::bulk::decompress_to_buffer(body, part).unwrap(),
        };
        assert_eq!(len, s.len as usize);
    }
    if !found.shuffled {
        return planes;
    }
    let blocks = planes.chunks(found.block as usize * size);
    blocks.flat_map(|block| (0..block.len()).map(|k| block[k % size * (block.len() / size) + k / size])).collect()
}

#[test]
fn chunks_are_handed_out_with_what_undoes_them() {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".zarr") || name == "arrays.zarr" {
            continue;
        }
        let source = AnnData::open(&path).unwrap().matrix("X").unwrap().into_rows(&std::env::temp_dir(), 1 << 20, &()).unwrap();
        let Some(stored) = source.stored() else { continue };
        let (dtype, chunk) = stored.vector(Part::Columns);
        let size = dtype.size().unwrap();
        let (mut columns, mut bytes) = (Vec::new(), Vec::new());
        let n = counts().nnz();
        while columns.len() < n {
            let Some(streams) = stored.read_stored(Part::Columns, columns.len() as u64 / chunk, &mut bytes) else { break };
            columns.extend(undo(&bytes, &streams, chunk as usize, size).chunks(size).map(|entry| u32::from(entry[0])));
            found.push((streams.compression, streams.shuffled));
        }
        columns.truncate(n);
        assert!(columns.is_empty() || columns == counts().indices, "{name}");
    }
    for kind in [(Compression::Lz4, true), (Compression::Lz4, false), (Compression::Zstd, false)] {
        assert!(found.contains(&kind), "{kind:?} in {found:?}");
    }
}

#[test]
fn every_encoding_is_read() {
    for version in ["v2.zarr", "v3.zarr"] {
        let store = AnnData::open(&folder().join(version)).unwrap();
        let mut warnings = Vec::new();
        for matrix in ["layers/csc", "layers/dense", "layers/dense f64", "layers/counts", "raw/X"] {
            assert_eq!(read_whole(&store, matrix, 17), counts(), "{version} {matrix}");
        }
        let obs = store.obs(&mut warnings).unwrap();
        assert_eq!(obs.index[89], "cell89");
        assert_eq!(obs.column("i64").unwrap().number(89), Some(89e10));
        assert_eq!(obs.column("flag").unwrap().text(3).as_deref(), Some("True"));
        assert_eq!(obs.column("name").unwrap().text(4).as_deref(), Some("Zelle 4 ä€𝄞"));
        let Some(Column::Categorical { codes, categories, ordered: true }) = obs.column("kind") else { panic!("kind") };
        assert_eq!(&codes[..7], [1, 2, 0, 1, 2, 0, -1]);
        assert_eq!(categories, &Values::Str(vec!["c".into(), "a".into(), "b".into()]));
        assert_eq!(obs.column("batch").unwrap().number(89), Some(2.0));
        assert_eq!(obs.column("nullable int").unwrap().number(4), None);
        assert_eq!(obs.column("nullable int").unwrap().number(5), Some(5.0));
        assert_eq!(obs.column("nullable bool").unwrap().text(1).as_deref(), Some("True"));
        assert_eq!(obs.column("nullable text").unwrap().text(6), None);
        let var = store.var(&mut warnings).unwrap();
        assert_eq!((var.index_name.as_str(), var.index[3].as_str()), ("gene", "g1"));
        let uns = store.element("uns/nested", &mut warnings).unwrap().unwrap();
        assert_eq!(uns.get("int"), Some(&Element::int(3)));
        assert_eq!(uns.get("text"), Some(&Element::string("grüße")));
        assert_eq!(uns.get("none"), Some(&Element::Null));
        let Some(Element::Array(cube)) = uns.get("cube") else { panic!("cube") };
        assert_eq!((&cube.shape[..], &cube.values), (&[2, 3, 4][..], &Values::I16((0..24).collect())));
        let Some(Element::Sparse(graph)) = store.element("obsp/graph", &mut warnings).unwrap() else { panic!("graph") };
        assert_eq!(graph.indices, (0..90).collect::<Vec<u32>>());
        assert_eq!(warnings, Vec::<String>::new());
    }
}

#[test]
fn types_orders_and_fills_of_plain_arrays() {
    let tree = ZarrTree::open(&folder().join("arrays.zarr")).unwrap();
    for name in ["ti4b", "tf8b", "tu2", "ti1", "tu8b", "fortran"] {
        let array = tree.read(name).unwrap();
        assert_eq!(array.shape, [3, 4, 5], "{name}");
        for i in 0..60 {
            assert_eq!(array.values.number(i), Some(i as f64), "{name}");
        }
        let rows = tree.read_rows(name, 1..3).unwrap();
        assert_eq!((rows.len(), rows.number(0)), (40, Some(20.0)), "{name}");
    }
    assert_eq!(tree.read("fixed").unwrap().values, Values::Str(vec!["ab".into(), "äöü".into(), String::new()]));
    assert_eq!(tree.read("filled").unwrap().values, Values::F32(vec![1.5, 1.5, 7.0, 7.0, 1.5]));
    assert!(tree.read("nan").unwrap().values.number(2).unwrap().is_nan());
}

#[test]
fn what_is_missing_is_named() {
    let store = AnnData::open(&folder().join("v3.zarr")).unwrap();
    let error = store.source("layers/count").err().unwrap().to_string();
    assert!(error.ends_with("there is no 'layers/count'; did you mean 'layers/counts'?"), "{error}");
    let error = AnnData::open(&folder().join("arrays.zarr")).err().unwrap().to_string();
    assert!(error.ends_with("no 'obs', but an AnnData store has obs and var; was it written by anndata?"), "{error}");
    assert!(store.source("layers/csc").is_err());
}

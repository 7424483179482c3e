//! What the writers write, the readers read: any matrix, any chunks, several threads, damage.

use std::path::Path;

use cellmill_matrix::{Csr, Element, Result, SourceRow, Table, Values};
use cellmill_store::anndata::AnnData;
use cellmill_store::tree::{Attrs, TreeWriter};
use cellmill_store::write::{self, CsrStream, Format};
use cellmill_store::zarr::ZarrWriter;
use proptest::prelude::*;

const N_VARS: usize = 30;

/// Rows of (column, value) as they may lie on disk: unsorted, with duplicates.
type Rows = Vec<Vec<(u32, u8)>>;

fn rows() -> impl Strategy<Value = Rows> {
    prop::collection::vec(prop::collection::vec((0u32..N_VARS as u32, 1u8..200), 0..14), 1..60)
}

fn raw(rows: &Rows) -> Csr {
    let mut csr = Csr::empty(N_VARS);
    for row in rows {
        let (columns, values): (Vec<u32>, Vec<f32>) = row.iter().map(|&(c, v)| (c, f32::from(v))).unzip();
        csr.push_row(&columns, &values);
    }
    csr
}

/// Writes a store whose X has chunks of `chunk` entries, with indices of one of several types.
fn store(path: &Path, csr: &Csr, chunk: u64, format: Format, wide: bool) -> Result<()> {
    let writer = write::create(path, format, true)?;
    write::write_root(&*writer)?;
    let names = |n: usize| Table::of_index((0..n).map(|i| format!("n{i}")).collect());
    write::write_table(&*writer, "obs", &names(csr.n_rows()))?;
    write::write_table(&*writer, "var", &names(N_VARS))?;
    let mut attrs = Attrs::new();
    attrs.insert("encoding-type".into(), "csr_matrix".into());
    attrs.insert("encoding-version".into(), "0.1.0".into());
    attrs.insert("shape".into(), vec![csr.n_rows(), N_VARS].into());
    writer.group("X", attrs)?;
    let vector = |name: &str, values: Values| -> Result<()> {
        let mut stream = writer.stream(&format!("X/{name}"), values.dtype(), &[0], &[chunk], Attrs::new())?;
        stream.append(&values)?;
        stream.close()
    };
    if wide {
        vector("indices", Values::I64(csr.indices.iter().map(|i| i64::from(*i)).collect()))?;
        vector("data", Values::U16(csr.data.iter().map(|x| *x as u16).collect()))?;
        vector("indptr", Values::U64(csr.indptr.clone()))?;
    } else {
        vector("indices", Values::I32(csr.indices.iter().map(|i| *i as i32).collect()))?;
        vector("data", Values::F32(csr.data.clone()))?;
        vector("indptr", Values::I32(csr.indptr.iter().map(|i| *i as i32).collect()))?;
    }
    writer.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn rows_come_back_in_any_cut_from_any_thread(
        rows in rows(), chunk in 1u64..70, step in 1u64..25, format in prop_oneof![Just(Format::Zarr2), Just(Format::Zarr3)], wide: bool,
    ) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.zarr");
        let csr = raw(&rows);
        store(&path, &csr, chunk, format, wide).unwrap();
        let mut want = csr.clone();
        want.canonicalise(0).unwrap();
        let source = AnnData::open(&path).unwrap().source("X").unwrap();
        let n = rows.len() as u64;
        prop_assert_eq!(source.entries_before(SourceRow(n)), csr.nnz() as u64);
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                let (source, want) = (&source, &want);
                scope.spawn(move || {
                    let mut part = Csr::default();
                    for start in (0..n).step_by(step as usize).skip(thread as usize) {
                        let end = (start + step).min(n);
                        source.read(SourceRow(start)..SourceRow(end), &mut part).unwrap();
                        for i in start..end {
                            assert_eq!(part.row((i - start) as usize), want.row(i as usize));
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn damage_is_an_error_or_other_numbers_and_never_a_panic(
        rows in rows(), chunk in 8u64..70, format in prop_oneof![Just(Format::Zarr2), Just(Format::Zarr3)],
        which in any::<prop::sample::Index>(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.zarr");
        let csr = raw(&rows);
        store(&path, &csr, chunk, format, false).unwrap();
        let mut files = Vec::new();
        list(&path, &mut files);
        files.sort();
        let file = which.get(&files);
        let mut bytes = std::fs::read(file).unwrap();
        for (at, value) in &flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        std::fs::write(file, &bytes).unwrap();
        let _ = read_all(&path);
    }
}

fn list(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { list(&path, into) } else { into.push(path) }
    }
}

fn read_all(path: &Path) -> Result<Csr> {
    let store = AnnData::open(path)?;
    let mut warnings = Vec::new();
    store.obs(&mut warnings)?;
    store.var(&mut warnings)?;
    let _ = store.element("X", &mut warnings)?;
    let source = store.source("X")?;
    let mut csr = Csr::default();
    source.read(SourceRow(0)..SourceRow(source.shape().n_obs), &mut csr)?;
    Ok(csr)
}

fn example(n: usize) -> Csr {
    raw(&(0..n).map(|i| (0..i % 7).map(|k| ((k * 4) as u32, 1 + (i % 9) as u8)).collect()).collect())
}

#[test]
fn a_cut_chunk_and_a_bad_column_say_where() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.zarr");
    let mut csr = example(40);
    store(&path, &csr, 50, Format::Zarr3, false).unwrap();
    let chunk = path.join("X/indices/c/1");
    let bytes = std::fs::read(&chunk).unwrap();
    std::fs::write(&chunk, &bytes[..bytes.len() / 2]).unwrap();
    let error = read_all(&path).unwrap_err().to_string();
    assert!(error.contains("X/indices, rows 50..100: "), "{error}");
    csr.indices[60] = 30;
    store(&path, &csr, 50, Format::Zarr2, false).unwrap();
    let source = AnnData::open(&path).unwrap().source("X").unwrap();
    let error = source.read(SourceRow(0)..SourceRow(40), &mut Csr::default()).unwrap_err().to_string();
    assert!(error.contains("X/indices, rows ") && error.ends_with("column 30, but the store has 30 genes (0..30)"), "{error}");
    csr.indptr[5] = 3;
    store(&path, &csr, 50, Format::Zarr2, false).unwrap();
    let error = AnnData::open(&path).unwrap().source("X").err().unwrap().to_string();
    assert!(error.contains("X/indptr, rows 4..5: row ends at 3 before its start 6"), "{error}");
}

#[test]
fn a_forged_shape_takes_no_memory() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.zarr");
    store(&path, &example(40), 50, Format::Zarr3, false).unwrap();
    for (file, from, to) in [("obs/_index", "40", "4000000000000"), ("X/data", "120", "9000000000000")] {
        let json = path.join(file).join("zarr.json");
        let mut meta: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        let old = std::fs::read(&json).unwrap();
        meta["shape"][0] = to.parse::<u64>().unwrap().into();
        std::fs::write(&json, serde_json::to_vec(&meta).unwrap()).unwrap();
        assert!(read_all(&path).is_err(), "{file} {from}");
        std::fs::write(&json, old).unwrap();
    }
    read_all(&path).unwrap();
}

#[test]
fn nothing_is_left_of_an_output_that_was_not_finished() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.zarr");
    let writer = write::create(&path, Format::Zarr3, false).unwrap();
    write::write_root(&*writer).unwrap();
    let mut stream = CsrStream::create(&*writer, "X", 40, N_VARS).unwrap();
    stream.append(&example(40)).unwrap();
    drop((stream.finish(), writer));
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    store(&path, &example(3), 9, Format::Zarr3, false).unwrap();
    assert!(write::create(&path, Format::Zarr3, false).is_err());
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
}

/// Folders that a change in place has left in a store.
fn hidden(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".cellmill")).count()
}

#[test]
fn elements_are_exchanged_in_place() {
    for format in [Format::Zarr2, Format::Zarr3] {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.zarr");
        store(&path, &example(40), 50, format, false).unwrap();
        for value in [1, 2] {
            let writer = Box::new(ZarrWriter::in_place(&path).unwrap());
            write::write_root(&*writer).unwrap();
            let fresh = Element::Dict(vec![(format!("only {value}"), Element::int(value))]);
            write::write_element(&*writer, "uns/pca", &fresh).unwrap();
            write::write_element(&*writer, &format!("uns/kept {value}"), &Element::float(0.5)).unwrap();
            writer.finish().unwrap();
        }
        let store = AnnData::open(&path).unwrap();
        assert_eq!(store.names("uns").unwrap(), ["kept 1", "kept 2", "pca"]);
        let pca = store.element("uns/pca", &mut Vec::new()).unwrap().unwrap();
        assert_eq!((pca.get("only 1"), pca.get("only 2")), (None, Some(&Element::int(2))));
        read_all(&path).unwrap();
        assert_eq!(hidden(&path), 0);
    }
}

#[test]
fn what_a_killed_change_in_place_has_set_aside_is_put_back() {
    for format in [Format::Zarr2, Format::Zarr3] {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.zarr");
        store(&path, &example(40), 50, format, false).unwrap();
        let before = AnnData::open(&path).unwrap().obs(&mut Vec::new()).unwrap();
        // Between the two renames, where names can't be exchanged: obs is gone.
        let old = path.join(".cellmill-killed/old");
        std::fs::create_dir_all(&old).unwrap();
        std::fs::create_dir_all(path.join(".cellmill-killed/new/var")).unwrap();
        std::fs::rename(path.join("obs"), old.join("obs")).unwrap();
        let writer = Box::new(ZarrWriter::in_place(&path).unwrap());
        write::write_element(&*writer, "uns/more", &Element::int(7)).unwrap();
        writer.finish().unwrap();
        let store = AnnData::open(&path).unwrap();
        assert_eq!(store.obs(&mut Vec::new()).unwrap(), before);
        assert_eq!(store.element("uns/more", &mut Vec::new()).unwrap(), Some(Element::int(7)));
        assert_eq!(hidden(&path), 0);
    }
}

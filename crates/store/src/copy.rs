//! A matrix taken over as it lies: its encoding, its types and every bit of its values, a piece at a time.

use std::ops::Range;

use cellmill_matrix::{DType, Encoding, Error, Result, Values, Watch};

use crate::anndata::{AnnData, MatrixInfo};
use crate::element::{attrs, encoding, join, place};
use crate::tree::{ArrayInfo, Attrs, Tree, TreeWriter};

/// Bytes of a piece, about.
const PIECE: u64 = 16 << 20;
/// Entries of a chunk of the copy.
const CHUNK: u64 = 1 << 19;

/// Looks at the entries of a piece.
type Check<'a> = &'a dyn Fn(Range<u64>, &Values) -> Result<()>;

/// Copies a matrix of cells by genes (`X`, `layers/NAME`, `raw/X`) under the same name; groups above it exist already. Lengths
/// and indices are checked. Returns the entries stored.
pub fn copy(store: &AnnData, matrix: &str, writer: &dyn TreeWriter, watch: &dyn Watch) -> Result<u64> {
    let tree = &**store.tree();
    let info = store.matrix_info(matrix)?;
    let path = store.matrix_path(matrix)?;
    let Some(sparse) = &info.sparse else {
        array(tree, &path, &info.data, writer, matrix, encoding("array", "0.2.0"), &|_, _| Ok(()), watch)?;
        return Ok(info.nnz);
    };
    writer.group(matrix, attrs(sparse.format, sparse.shape))?;
    let minor = sparse.shape[usize::from(info.encoding == Encoding::Csr)];
    let last = sparse.indptr.shape[0] - 1;
    let before = std::cell::Cell::new(0.0);
    let starts = |rows: Range<u64>, values: &Values| {
        for (row, end) in rows.zip((0..values.len()).map(|i| values.number(i).unwrap_or(f64::NAN))) {
            let bound = if row == 0 { 0.0..=0.0 } else { before.get()..=info.nnz as f64 };
            if !bound.contains(&end) || (row == last && end != info.nnz as f64) {
                let expected = format!("indptr runs from 0 to {} and never decreases", info.nnz);
                return Err(Error::invalid(place(tree, &join(&path, "indptr")).rows(row..row + 1), format!("an entry of {end}"), expected));
            }
            before.set(end);
        }
        Ok(())
    };
    let indices = |rows: Range<u64>, values: &Values| {
        let outside = (0..values.len()).find(|&i| !values.number(i).is_some_and(|x| x >= 0.0 && x < minor as f64));
        outside.map_or(Ok(()), |i| {
            let at = rows.start + i as u64;
            let found = format!("index {}", values.text(i));
            let place = place(tree, &join(&path, "indices")).rows(at..at + 1);
            Err(Error::invalid(place, found, format!("that axis has {minor} (0..{minor})")))
        })
    };
    let parts: [(&str, &ArrayInfo, Check<'_>); 3] =
        [("data", &sparse.data, &|_, _| Ok(())), ("indices", &sparse.indices, &indices), ("indptr", &sparse.indptr, &starts)];
    for (name, part, check) in parts {
        array(tree, &join(&path, name), part, writer, &join(matrix, name), Attrs::new(), check, watch)?;
    }
    Ok(info.nnz)
}

/// Whether a matrix's values are of a type whose numbers float32 can't all hold.
pub fn is_wide(info: &MatrixInfo) -> bool {
    matches!(info.data.dtype, Some(DType::F64 | DType::I32 | DType::I64 | DType::U32 | DType::U64))
}

#[expect(clippy::too_many_arguments, reason = "from where, to where, and what is watched")]
fn array(
    tree: &dyn Tree,
    from: &str,
    info: &ArrayInfo,
    writer: &dyn TreeWriter,
    to: &str,
    attrs: Attrs,
    check: Check<'_>,
    watch: &dyn Watch,
) -> Result<()> {
    let (Some(dtype), Some(&n)) = (info.dtype, info.shape.first()) else {
        return Err(Error::invalid(place(tree, from), format!("entries of type {}", info.dtype_name), "numbers are expected"));
    };
    let row: u64 = info.shape[1..].iter().product();
    let bytes = row.max(1).saturating_mul(dtype.size().unwrap_or(1) as u64);
    if row == 0 || n == 0 {
        return writer.array(to, &tree.read(from)?, attrs);
    }
    let mut chunk = info.shape.clone();
    chunk[0] = (CHUNK / row).clamp(1, n);
    let mut stream = writer.stream(to, dtype, &info.shape, &chunk, attrs)?;
    // Whole chunks at a time, so that each is decoded once.
    let step = (PIECE / bytes).max(1).next_multiple_of(info.chunk[0].max(1));
    let mut at = 0;
    while at < n {
        let end = at.saturating_add(step).min(n);
        let values = tree.read_rows(from, at..end)?;
        check(at..end, &values)?;
        stream.append(&values)?;
        at = end;
        watch.tick(at, n, "")?;
    }
    stream.close()
}

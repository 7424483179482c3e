//! Folders of 10x Genomics in Matrix Market format: `matrix.mtx`, `barcodes.tsv`, `genes.tsv` (Cell Ranger 2) or
//! `features.tsv` (3 and later), each as it is or as `.gz`, and all with the same prefix or none.
//!
//! The matrix is text, genes by cells, an entry a line. It is turned into rows of cells once: in one pass where the entries
//! are sorted by cell, as Cell Ranger writes them, else through buckets of cells. What does not fit into memory goes to a file.

mod files;
mod lines;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cellmill_matrix::{Column, Csr, Error, Place, Result, Shape, Source, SourceRow, Table, Values, Watch};
use flate2::read::MultiGzDecoder;

pub use self::files::MtxFiles;
use self::lines::{BUFFER, Lines, integer, number, skip};
use crate::hdf5::raw::RawFile;
use crate::tenx::GENE_EXPRESSION;

/// Bytes of a spilled entry: column (u32), value (f32).
const ENTRY: u64 = 8;
/// Bytes of an entry in a bucket: cell (u32), column (u32), value (f32).
const RECORD: u64 = 12;
/// Spilled entries that are read at once.
const STEP: u64 = 1 << 17;
/// Buckets that are open at once.
const MOST_BUCKETS: u64 = 256;

/// Which column names the genes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VarNames {
    /// The second column; the ids become the column `gene_ids`.
    #[default]
    GeneSymbols,
    /// The first column; the symbols become the column `gene_symbols`.
    GeneIds,
}

/// What to read. The defaults are those of `scanpy.read_10x_mtx`.
#[derive(Clone, Debug)]
pub struct MtxOptions {
    /// Which column names the genes.
    pub var_names: VarNames,
    /// Appends `-1`, `-2`, … to gene symbols that occurred before.
    pub make_unique: bool,
    /// Keeps features of type `Gene Expression` alone (Cell Ranger 3).
    pub gex_only: bool,
}

impl Default for MtxOptions {
    fn default() -> Self {
        MtxOptions { var_names: VarNames::GeneSymbols, make_unique: true, gex_only: true }
    }
}

/// A matrix whose tables have been read, and the head of its matrix.
#[derive(Debug)]
pub struct Mtx {
    /// Cells, by barcode.
    pub obs: Table,
    /// The features that are kept.
    pub var: Table,
    /// Entries of the stored matrix, dropped features included.
    pub n_entries: u64,
    /// Column of each stored feature among those that are kept; `u32::MAX` for those dropped.
    columns: Vec<u32>,
    matrix: PathBuf,
    pattern: bool,
}

fn place(path: &Path) -> Place {
    Place::store(path.display().to_string())
}

/// The text of a file, decompressed if it is gzip (by its first bytes, whatever its name).
fn text_of(path: &Path) -> Result<Box<dyn Read>> {
    let open = || -> std::io::Result<Box<dyn Read>> {
        let mut magic = [0; 2];
        let gz = File::open(path)?.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
        let file = File::open(path)?;
        Ok(if gz { Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file))) } else { Box::new(file) })
    };
    open().map_err(|e| Error::io(place(path), &e))
}

/// The fields of each line of a table.
fn table(path: &Path, separator: char) -> Result<Vec<Vec<String>>> {
    let mut bytes = Vec::new();
    text_of(path)?.read_to_end(&mut bytes).map_err(|e| Error::io(place(path), &e))?;
    let text = String::from_utf8_lossy(&bytes);
    let field = |f: &str| f.strip_prefix('"').and_then(|f| f.strip_suffix('"')).unwrap_or(f).to_string();
    Ok(text.lines().filter(|l| !l.is_empty()).map(|l| l.split(separator).map(field).collect()).collect())
}

/// A column of text as pandas would read it: integers if all entries are.
fn inferred(texts: Vec<String>) -> Values {
    let integers: Option<Vec<i64>> = texts.iter().map(|t| t.parse().ok()).collect();
    match integers {
        Some(all) if !all.is_empty() => Values::I64(all),
        _ => Values::Str(texts),
    }
}

fn names(values: &Values) -> Vec<String> {
    (0..values.len()).map(|i| values.text(i)).collect()
}

/// Makes names unique as `anndata.utils.make_index_unique` does: the second `A` becomes `A-1`, or the next number whose name
/// is free.
pub fn make_unique(names: &mut [String]) {
    let mut taken: HashSet<String> = names.iter().cloned().collect();
    if taken.len() == names.len() {
        return;
    }
    let mut seen: HashMap<String, u64> = HashMap::new();
    for name in names.iter_mut() {
        match seen.get_mut(name.as_str()) {
            None => {
                seen.insert(name.clone(), 0);
            }
            Some(count) => loop {
                *count += 1;
                let new = format!("{name}-{count}");
                if taken.insert(new.clone()) {
                    *name = new;
                    break;
                }
            },
        }
    }
}

impl Mtx {
    /// Reads the tables beside a matrix and its head. `path`: a folder that holds one, or the matrix itself.
    pub fn open(path: &Path, options: &MtxOptions) -> Result<Mtx> {
        let MtxFiles { matrix, barcodes, features: genes, legacy } = MtxFiles::of(path)?;
        let barcodes = table(&barcodes, ',')?;
        let barcodes = inferred(barcodes.into_iter().map(|mut f| f.swap_remove(0)).collect());
        let rows = table(&genes, '\t')?;
        if let Some(i) = rows.iter().position(|r| r.len() < 2) {
            return Err(Error::invalid(
                place(&genes),
                format!("line {} has {} field", i + 1, rows[i].len()),
                "it has an id and a name, with a tab between them",
            ));
        }
        let typed = !legacy && rows.iter().all(|r| r.len() > 2);
        let column = |i: usize| -> Vec<String> { rows.iter().map(|r| r[i].clone()).collect() };
        let types = typed.then(|| column(2));
        let (ids, symbols) = (inferred(column(0)), inferred(column(1)));
        let mut var = match options.var_names {
            VarNames::GeneSymbols => {
                let mut index = names(&symbols);
                if options.make_unique {
                    make_unique(&mut index);
                }
                Table { columns: vec![("gene_ids".into(), Column::Plain(ids))], ..Table::of_index(index) }
            }
            VarNames::GeneIds => Table { columns: vec![("gene_symbols".into(), Column::Plain(symbols))], ..Table::of_index(names(&ids)) },
        };
        let mut columns: Vec<u32> = (0..var.n_rows() as u32).collect();
        if let Some(types) = types {
            let keep: Vec<bool> = types.iter().map(|t| !options.gex_only || t == GENE_EXPRESSION).collect();
            var.columns.push(("feature_types".into(), Column::Plain(Values::Str(types))));
            if !keep.contains(&true) && !keep.is_empty() {
                return Err(Error::invalid(
                    place(&genes),
                    format!("no feature of type '{GENE_EXPRESSION}'"),
                    "there is one; all features can be kept by gex_only = false",
                ));
            }
            let mut next = 0;
            for (column, &keep) in columns.iter_mut().zip(&keep) {
                *column = if keep { next } else { u32::MAX };
                next += u32::from(keep);
            }
            var = var.select(&keep);
        }
        let obs = Table::of_index(names(&barcodes));
        let mut lines = Lines::open(&matrix)?;
        let head = lines.head()?;
        let wanted = [columns.len() as u64, obs.n_rows() as u64];
        if head.shape != wanted {
            let turned = if [head.shape[1], head.shape[0]] == wanted { " (the matrix is cells by genes: transpose it)" } else { "" };
            return Err(Error::invalid(
                place(&matrix),
                format!("a matrix of {} x {}", head.shape[0], head.shape[1]),
                format!("there are {} genes and {} barcodes{turned}", wanted[0], wanted[1]),
            ));
        }
        // An entry takes 4 bytes at least ("1 1\n"), and gzip does not shrink more than 1032 times.
        let bytes = matrix.metadata().map_err(|e| Error::io(place(&matrix), &e))?.len();
        if head.entries > bytes.saturating_mul(1032) / 4 + 1 {
            return Err(Error::invalid(
                place(&matrix),
                format!("{} entries in a file of {bytes} bytes", head.entries),
                "the file holds what it says; it is truncated or damaged",
            ));
        }
        Ok(Mtx { obs, var, n_entries: head.entries, columns, matrix, pattern: head.pattern })
    }

    /// Converts the matrix to rows of cells. Up to `memory_bytes` are used; what does not fit goes to files in `scratch`,
    /// which are removed when the result is dropped.
    pub fn to_rows(&self, memory_bytes: u64, scratch: &Path, watch: &dyn Watch) -> Result<MtxSource> {
        let fits = |per_entry: u64| self.n_entries.saturating_mul(per_entry) <= memory_bytes;
        let mut rows = Rows::new(self, if fits(ENTRY) { None } else { Some(scratch) })?;
        if self.sorted(&mut rows, watch)? {
            return rows.finish(self);
        }
        drop(rows);
        let mut rows = Rows::new(self, if fits(2 * ENTRY + RECORD) { None } else { Some(scratch) })?;
        self.bucketed(&mut rows, memory_bytes, scratch, watch)?;
        rows.finish(self)
    }

    /// Streams entries that are sorted by cell. False where they are not.
    fn sorted(&self, rows: &mut Rows, watch: &dyn Watch) -> Result<bool> {
        let mut row = Csr::empty(self.var.n_rows());
        let mut cell = 0u32;
        let end = self.entries(watch, |entry_cell, column, value| {
            if entry_cell != cell {
                if entry_cell < cell {
                    return Ok(false);
                }
                while cell < entry_cell {
                    rows.push(&mut row, cell)?;
                    cell += 1;
                }
            }
            if column != u32::MAX {
                row.indices.push(column);
                row.data.push(value);
            }
            Ok(true)
        })?;
        if end {
            while u64::from(cell) < self.obs.n_rows() as u64 {
                rows.push(&mut row, cell)?;
                cell += 1;
            }
        }
        Ok(end)
    }

    /// Sorts entries by cell through buckets of consecutive cells.
    fn bucketed(&self, rows: &mut Rows, memory_bytes: u64, scratch: &Path, watch: &dyn Watch) -> Result<()> {
        let n_cells = self.obs.n_rows() as u64;
        // A bucket is held twice while it is sorted; the other half of the memory is for uneven buckets.
        let each = (memory_bytes / 4 / RECORD).max(1 << 14);
        let n_buckets = if rows.file.is_none() { 1 } else { self.n_entries.div_ceil(each).clamp(1, MOST_BUCKETS) };
        let cells = n_cells.div_ceil(n_buckets).max(1);
        let mut buckets: Vec<Bucket> = Vec::new();
        for _ in 0..n_cells.div_ceil(cells) {
            buckets.push(if rows.file.is_none() {
                Bucket { held: Vec::new(), file: None }
            } else {
                Bucket { held: Vec::new(), file: Some(Spill::create(scratch)?) }
            });
        }
        self.entries(watch, |cell, column, value| {
            if column != u32::MAX {
                buckets[(u64::from(cell) / cells) as usize].push(cell, column, value)?;
            }
            Ok(true)
        })?;
        let mut row = Csr::empty(self.var.n_rows());
        for (i, bucket) in buckets.into_iter().enumerate() {
            let records = bucket.records()?;
            let first = i as u64 * cells;
            let n = cells.min(n_cells - first) as usize;
            // Counting sort: where each cell begins, then each entry into its place, in the order of the file.
            let mut next = vec![0usize; n + 1];
            let cell_of = |r: &[u8; RECORD as usize]| (u64::from(word(r, 0)) - first) as usize;
            let records = records.as_chunks::<{ RECORD as usize }>().0;
            records.iter().for_each(|r| next[cell_of(r) + 1] += 1);
            (0..n).for_each(|k| next[k + 1] += next[k]);
            let starts = next.clone();
            let (mut columns, mut values) = (vec![0u32; records.len()], vec![0f32; records.len()]);
            for record in records {
                let at = &mut next[cell_of(record)];
                columns[*at] = word(record, 1);
                values[*at] = f32::from_bits(word(record, 2));
                *at += 1;
            }
            for k in 0..n {
                row.indices.extend_from_slice(&columns[starts[k]..starts[k + 1]]);
                row.data.extend_from_slice(&values[starts[k]..starts[k + 1]]);
                rows.push(&mut row, (first + k as u64) as u32)?;
            }
        }
        Ok(())
    }

    /// Gives each entry (cell, column among those kept, value) in the order of the file, until `take` says false.
    fn entries(&self, watch: &dyn Watch, mut take: impl FnMut(u32, u32, f32) -> Result<bool>) -> Result<bool> {
        let mut lines = Lines::open(&self.matrix)?;
        lines.head()?;
        let (n_genes, n_cells) = (self.columns.len() as u64, self.obs.n_rows() as u64);
        let mut done = 0u64;
        let mut told = 0u64;
        while lines.fill()? {
            let mut text = &lines.buffer[..lines.whole];
            loop {
                text = skip(text, b" \t\r\n");
                if text.is_empty() {
                    break;
                }
                let bad = |what: String| {
                    Error::invalid(
                        place(&self.matrix),
                        format!("entry {}: {what}", done + 1),
                        format!("a line has a gene (1..={n_genes}), a cell (1..={n_cells}) and a count; the file is damaged"),
                    )
                };
                let line =
                    || String::from_utf8_lossy(&text[..text.iter().position(|&b| b == b'\n').unwrap_or(text.len()).min(60)]).into_owned();
                let Some((gene, rest)) = integer(text) else { return Err(bad(format!("'{}'", line()))) };
                let Some((cell, rest)) = integer(skip(rest, b" \t")) else { return Err(bad(format!("'{}'", line()))) };
                let (value, rest) =
                    if self.pattern { (1.0, rest) } else { number(skip(rest, b" \t")).ok_or_else(|| bad(format!("'{}'", line())))? };
                if gene == 0
                    || gene > n_genes
                    || cell == 0
                    || cell > n_cells
                    || !matches!(rest.first(), None | Some(b'\n' | b'\r' | b' ' | b'\t'))
                {
                    return Err(bad(format!("'{}'", line())));
                }
                done += 1;
                if done > self.n_entries {
                    return Err(Error::invalid(
                        place(&self.matrix),
                        format!("more than {} entries", self.n_entries),
                        "its head says how many there are",
                    ));
                }
                if !take((cell - 1) as u32, self.columns[(gene - 1) as usize], value)? {
                    return Ok(false);
                }
                text = rest;
            }
            if done - told > 1 << 20 {
                told = done;
                watch.tick(done, self.n_entries, "")?;
            }
        }
        if done != self.n_entries {
            return Err(Error::invalid(
                place(&self.matrix),
                format!("{done} entries"),
                format!("its head says {}; the file is truncated, fetch it again", self.n_entries),
            ));
        }
        watch.tick(done, self.n_entries, "")?;
        Ok(true)
    }
}

/// Number `i` of a record.
fn word(record: &[u8], i: usize) -> u32 {
    record.as_chunks::<4>().0.get(i).map_or(0, |b| u32::from_le_bytes(*b))
}

/// A file of entries that is removed when dropped.
#[derive(Debug)]
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // If it can't be removed, there is nobody to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A temporary file that is being written.
#[derive(Debug)]
struct Spill {
    to: BufWriter<File>,
    removed: Removed,
}

impl Spill {
    fn create(scratch: &Path) -> Result<Spill> {
        for attempt in 0u32.. {
            let path = scratch.join(format!(".cellmill-mtx-{}-{attempt}", std::process::id()));
            match File::create_new(&path) {
                Ok(file) => return Ok(Spill { to: BufWriter::with_capacity(1 << 16, file), removed: Removed(path) }),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && attempt < 1 << 20 => {}
                Err(e) => return Err(Error::io(place(&path), &e)),
            }
        }
        Err(Error::bug("no free name for a temporary file"))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(|e| Error::io(place(&self.removed.0), &e))
    }

    /// Ends writing; the file stays until what comes back is dropped.
    fn end(mut self) -> Result<Removed> {
        self.to.flush().map_err(|e| Error::io(place(&self.removed.0), &e))?;
        Ok(self.removed)
    }
}

/// Entries of some consecutive cells.
struct Bucket {
    held: Vec<u8>,
    file: Option<Spill>,
}

impl Bucket {
    fn push(&mut self, cell: u32, column: u32, value: f32) -> Result<()> {
        for word in [cell, column, value.to_bits()] {
            self.held.extend_from_slice(&word.to_le_bytes());
        }
        if let Some(file) = &mut self.file
            && self.held.len() >= 1 << 14
        {
            file.write(&self.held)?;
            self.held.clear();
        }
        Ok(())
    }

    fn records(self) -> Result<Vec<u8>> {
        let Some(mut file) = self.file else { return Ok(self.held) };
        file.write(&self.held)?;
        let removed = file.end()?;
        std::fs::read(&removed.0).map_err(|e| Error::io(place(&removed.0), &e))
    }
}

/// Rows of cells as they become whole: in memory, or in a file.
struct Rows {
    csr: Csr,
    file: Option<Spill>,
    bytes: Vec<u8>,
    store: String,
}

impl Rows {
    fn new(mtx: &Mtx, scratch: Option<&Path>) -> Result<Rows> {
        let file = scratch.map(Spill::create).transpose()?;
        Ok(Rows { csr: Csr::empty(mtx.var.n_rows()), file, bytes: Vec::new(), store: mtx.matrix.display().to_string() })
    }

    /// Takes the entries of one cell out of `row`.
    fn push(&mut self, row: &mut Csr, cell: u32) -> Result<()> {
        row.indptr.truncate(1);
        row.indptr.push(row.indices.len() as u64);
        row.canonicalise(u64::from(cell)).map_err(|e| e.at(&Place::store(&self.store)))?;
        match &mut self.file {
            None => self.csr.push_row(&row.indices, &row.data),
            Some(file) => {
                self.bytes.clear();
                for (column, value) in row.indices.iter().zip(&row.data) {
                    self.bytes.extend_from_slice(&column.to_le_bytes());
                    self.bytes.extend_from_slice(&value.to_le_bytes());
                }
                file.write(&self.bytes)?;
                let before = self.csr.indptr.last().copied().unwrap_or(0);
                self.csr.indptr.push(before + row.nnz() as u64);
            }
        }
        row.clear(self.csr.n_cols);
        Ok(())
    }

    fn finish(self, mtx: &Mtx) -> Result<MtxSource> {
        let read = mtx.matrix.metadata().map_or(0, |m| m.len());
        let spilled = match self.file {
            None => None,
            Some(file) => {
                let removed = file.end()?;
                Some((RawFile::open(&removed.0)?, removed))
            }
        };
        Ok(MtxSource { csr: self.csr, spilled, location: self.store, read: AtomicU64::new(read), decoded: AtomicU64::new(0) })
    }
}

/// A Matrix Market matrix as rows of cells.
#[derive(Debug)]
pub struct MtxSource {
    /// The rows; of spilled rows only where each begins.
    csr: Csr,
    spilled: Option<(RawFile, Removed)>,
    location: String,
    read: AtomicU64,
    decoded: AtomicU64,
}

impl MtxSource {
    /// The whole matrix, if it is in memory.
    pub fn csr(&self) -> Option<&Csr> {
        self.spilled.is_none().then_some(&self.csr)
    }
}

impl Source for MtxSource {
    fn shape(&self) -> Shape {
        Shape { n_obs: self.csr.n_rows() as u64, n_vars: self.csr.n_cols }
    }

    fn entries_before(&self, row: SourceRow) -> u64 {
        self.csr.indptr.get(row.index()).or(self.csr.indptr.last()).copied().unwrap_or(0)
    }

    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        let n = self.csr.n_rows() as u64;
        if rows.start > rows.end || rows.end.0 > n {
            let place = Place::store(&self.location).rows(rows.start.0..rows.end.0);
            return Err(Error::invalid(place, "rows out of range", format!("there are {n} cells")));
        }
        into.clear(self.csr.n_cols);
        let starts = &self.csr.indptr[rows.start.index()..=rows.end.index()];
        let (first, last) = (starts[0], starts[starts.len() - 1]);
        into.indptr.extend(starts[1..].iter().map(|&end| end - first));
        into.indices.reserve((last - first) as usize);
        into.data.reserve((last - first) as usize);
        match &self.spilled {
            None => {
                let span = first as usize..last as usize;
                into.indices.extend_from_slice(&self.csr.indices[span.clone()]);
                into.data.extend_from_slice(&self.csr.data[span]);
            }
            Some((file, _)) => {
                let mut bytes = Vec::new();
                let mut at = first;
                while at < last {
                    let n = STEP.min(last - at);
                    file.read(at * ENTRY, n * ENTRY, &mut bytes, || Place::store(&file.location))?;
                    let entries = bytes.as_chunks::<{ ENTRY as usize }>().0;
                    into.indices.extend(entries.iter().map(|e| word(e, 0)));
                    into.data.extend(entries.iter().map(|e| f32::from_bits(word(e, 1))));
                    at += n;
                }
                self.read.fetch_add((last - first) * ENTRY, Ordering::Relaxed);
            }
        }
        self.decoded.fetch_add((last - first) * ENTRY, Ordering::Relaxed);
        Ok(())
    }

    fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn bytes_decoded(&self) -> u64 {
        self.decoded.load(Ordering::Relaxed)
    }

    fn overhead_bytes(&self, n_threads: usize) -> u64 {
        self.csr.heap_bytes() as u64 + if self.spilled.is_some() { n_threads as u64 * STEP * ENTRY } else { 0 }
    }

    fn location(&self) -> &str {
        &self.location
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::hdf5::test_data as data;

    fn all(source: &MtxSource) -> Csr {
        let mut csr = Csr::default();
        source.read(SourceRow(0)..SourceRow(source.shape().n_obs), &mut csr).unwrap();
        csr.check_indptr(0).unwrap();
        csr
    }

    fn texts(column: Option<&Column>) -> Vec<String> {
        column.map(|c| (0..c.len()).filter_map(|i| c.text(i)).collect()).unwrap_or_default()
    }

    #[test]
    fn cell_ranger_3() {
        let mtx = Mtx::open(&data("10x_small/3.0.0/filtered_feature_bc_matrix"), &MtxOptions::default()).unwrap();
        assert_eq!((mtx.obs.n_rows(), mtx.var.n_rows(), mtx.n_entries), (1107, 507, 23866));
        assert_eq!(mtx.var.names().collect::<Vec<_>>(), ["gene_ids", "feature_types"]);
        let dir = tempfile::tempdir().unwrap();
        let held = mtx.to_rows(1 << 30, dir.path(), &()).unwrap();
        let spilled = mtx.to_rows(1000, dir.path(), &()).unwrap();
        assert!(held.csr().is_some() && spilled.csr().is_none());
        assert_eq!(all(&held), all(&spilled));
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
        drop(spilled);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        // The same cells as the h5 file of the same run.
        let h5 = crate::tenx::TenX::open(&data("10x_small/3.0.0/filtered_feature_bc_matrix.h5"), &Default::default()).unwrap();
        let (csr, tree) = (all(&held), &h5.tree);
        assert_eq!(mtx.obs.index, h5.obs.index);
        let Values::I64(indptr) = crate::tree::Tree::read(tree, &h5.indptr()).unwrap().values else { panic!() };
        assert_eq!(csr.indptr, indptr.iter().map(|&x| x as u64).collect::<Vec<_>>());
        let total: f64 = csr.data.iter().map(|&x| f64::from(x)).sum();
        let data = crate::tree::Tree::read(tree, &h5.data()).unwrap().values;
        assert_eq!(total, (0..data.len()).filter_map(|i| data.number(i)).sum::<f64>());
    }

    #[test]
    fn cell_ranger_2_and_integer_ids() {
        let mtx = Mtx::open(&data("10x_small/1.2.0/filtered_gene_bc_matrices/hg19_chr21"), &MtxOptions::default()).unwrap();
        assert_eq!((mtx.obs.n_rows(), mtx.var.n_rows(), mtx.var.names().collect::<Vec<_>>()), (12, 343, vec!["gene_ids"]));
        let ids = Mtx::open(&data("10x_small/int-ids"), &MtxOptions::default()).unwrap();
        assert_eq!(ids.var.column("gene_ids").unwrap().number(4), Some(100862323.0));
        let options = MtxOptions { var_names: VarNames::GeneIds, ..MtxOptions::default() };
        let ids = Mtx::open(&data("10x_small/int-ids"), &options).unwrap();
        assert_eq!((ids.var.index[0].as_str(), texts(ids.var.column("gene_symbols"))[0].as_str()), ("574405", "Pwwp4b"));
        let csr = all(&ids.to_rows(1 << 20, Path::new("."), &()).unwrap());
        assert_eq!((csr.row(2), csr.n_rows()), ((&[3u32, 4, 5][..], &[6f32, 1., 1.][..]), 5));
    }

    #[test]
    fn unique_names() {
        let mut names: Vec<String> = ["A", "A", "B", "A-1", "A", "B"].map(String::from).to_vec();
        make_unique(&mut names);
        // anndata.utils.make_index_unique gives the same.
        assert_eq!(names, ["A", "A-2", "B", "A-1", "A-3", "B-1"]);
    }

    fn folder(dir: &Path, genes: usize, cells: usize, matrix: &str) {
        let lines = |n: usize, line: fn(usize) -> String| (0..n).map(line).collect::<String>();
        std::fs::write(dir.join("genes.tsv"), lines(genes, |i| format!("E{i}\tG{i}\n"))).unwrap();
        std::fs::write(dir.join("barcodes.tsv"), lines(cells, |i| format!("C{i}-1\n"))).unwrap();
        std::fs::write(dir.join("matrix.mtx"), matrix).unwrap();
    }

    #[test]
    fn damaged() {
        const HEAD: &str = "%%MatrixMarket matrix coordinate integer general\n% comment\n";
        let dir = tempfile::tempdir().unwrap();
        for (body, says) in [
            ("3 2 2\n1 1 5\n", "1 entries"),
            ("3 2 1\n1 1 5\n2 1 5\n", "more than 1 entries"),
            ("3 2 1\n4 1 5\n", "gene (1..=3)"),
            ("3 2 1\n0 1 5\n", "gene (1..=3)"),
            ("3 2 1\n1 3 5\n", "cell (1..=2)"),
            ("3 2 1\n1 1 x\n", "'1 1 x'"),
            ("3 2 1\n1 1\n", "'1 1'"),
            ("3 2 1\n1 -1 3\n", "'1 -1 3'"),
            ("2 3 1\n1 1 5\n", "transpose it"),
            ("3 5 1\n1 1 5\n", "3 genes and 2 barcodes"),
            ("3 2 999999999999\n1 1 5\n", "999999999999 entries"),
            ("3 2\n", "'3 2'"),
            ("", "Matrix Market"),
        ] {
            folder(dir.path(), 3, 2, &format!("{HEAD}{body}"));
            let result = Mtx::open(dir.path(), &MtxOptions::default()).and_then(|m| m.to_rows(1 << 20, dir.path(), &()));
            let error = result.err().unwrap_or_else(|| panic!("{body}")).to_string();
            assert!(error.contains(says) && error.contains("matrix.mtx"), "{body}: {error}");
        }
        folder(dir.path(), 3, 2, "%%MatrixMarket matrix array real general\n3 2\n");
        assert!(Mtx::open(dir.path(), &MtxOptions::default()).is_err());
        std::fs::remove_file(dir.path().join("barcodes.tsv")).unwrap();
        let error = Mtx::open(dir.path(), &MtxOptions::default()).unwrap_err().to_string();
        assert!(error.contains("there is no 'barcodes.tsv'"), "{error}");
    }

    #[test]
    fn a_watch_stops_it() {
        struct Stop;
        impl Watch for Stop {
            fn tick(&self, _: u64, _: u64, _: &str) -> Result<()> {
                Err(cellmill_matrix::ErrorKind::Interrupted.into())
            }
        }
        let mtx = Mtx::open(&data("10x_small/int-ids"), &MtxOptions::default()).unwrap();
        let error = mtx.to_rows(1 << 20, Path::new("."), &Stop).unwrap_err();
        assert_eq!(error.kind(), &cellmill_matrix::ErrorKind::Interrupted);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Any order of entries, in memory or not, gives the sums of a map.
        #[test]
        fn rows_are_those_of_a_map(
            entries in prop::collection::vec((0u32..9, 0u32..14, -3i32..1000, any::<bool>()), 0..400),
            sorted: bool,
            memory in prop_oneof![Just(0u64), Just(1 << 30)],
        ) {
            let mut entries = entries;
            if sorted {
                entries.sort_by_key(|e| e.1);
            }
            let mut expected: BTreeMap<(u32, u32), f64> = BTreeMap::new();
            let mut text = format!("%%MatrixMarket matrix coordinate real general\n9 14 {}\n", entries.len());
            for &(gene, cell, value, plain) in &entries {
                let value = if plain { f64::from(value) } else { f64::from(value) / 4.0 };
                *expected.entry((cell, gene)).or_default() += f64::from(value as f32);
                text += &format!("{} {} {value}\n", gene + 1, cell + 1);
            }
            let dir = tempfile::tempdir().unwrap();
            folder(dir.path(), 9, 14, &text);
            let mtx = Mtx::open(dir.path(), &MtxOptions::default()).unwrap();
            let source = mtx.to_rows(memory, dir.path(), &()).unwrap();
            let csr = all(&source);
            prop_assert_eq!(source.shape(), Shape { n_obs: 14, n_vars: 9 });
            let mut found = BTreeMap::new();
            for cell in 0..14 {
                let (columns, values) = csr.row(cell);
                columns.iter().zip(values).for_each(|(&c, &v)| { found.insert((cell as u32, c), f64::from(v)); });
            }
            prop_assert_eq!(found, expected);
            let mut part = Csr::default();
            source.read(SourceRow(5)..SourceRow(9), &mut part).unwrap();
            prop_assert_eq!(part.row(2), csr.row(7));
            prop_assert_eq!(source.entries_before(SourceRow(14)), csr.nnz() as u64);
        }
    }
}

//! Several matrices as one: rows end to end, columns brought to one numbering.

use std::ops::Range;
use std::sync::Arc;

use cellmill_engine::Chunk;
use cellmill_engine::recipe::{Rows, Step, apply_all};
use cellmill_matrix::{Csr, Result, Shape, Source, SourceRow};

/// One of them.
pub struct Part {
    /// Where its rows come from.
    pub source: Arc<dyn Source>,
    /// What happens to columns and values.
    pub steps: Vec<Step>,
    /// Rows of the source that are left; all without.
    pub rows: Option<Vec<u64>>,
    /// Column of the whole for each column after the steps; none where it has none.
    pub columns: Vec<Option<u32>>,
}

impl Part {
    fn n_obs(&self) -> u64 {
        self.rows.as_ref().map_or(self.source.shape().n_obs, |rows| rows.len() as u64)
    }

    /// Row of the source for a row that is left (or the end).
    fn source_row(&self, row: u64) -> u64 {
        match &self.rows {
            None => row,
            Some(rows) => rows.get(row as usize).copied().unwrap_or(self.source.shape().n_obs),
        }
    }

    /// Appends rows that are left to `into`.
    fn read(&self, rows: Range<u64>, into: &mut Csr) -> Result<()> {
        let span = match &self.rows {
            None => rows.clone(),
            Some(kept) => kept[rows.start as usize]..kept[rows.end as usize - 1] + 1,
        };
        let mut x = Csr::default();
        self.source.read(SourceRow(span.start)..SourceRow(span.end), &mut x)?;
        let mut chunk = Chunk::new(span.clone(), x, None);
        if let Some(kept) = &self.rows {
            let mut keep = vec![false; (span.end - span.start) as usize];
            kept[rows.start as usize..rows.end as usize].iter().for_each(|&row| keep[(row - span.start) as usize] = true);
            apply_all(&[Step::KeepObs { rows: Rows::Mask { keep, first: span.start } }], &mut chunk)?;
        }
        apply_all(&self.steps, &mut chunk)?;
        let mut row: Vec<(u32, f32)> = Vec::new();
        for i in 0..chunk.x.n_rows() {
            let (columns, values) = chunk.x.row(i);
            row.clear();
            row.extend(columns.iter().zip(values).filter_map(|(&j, &v)| Some((self.columns[j as usize]?, v))));
            row.sort_unstable_by_key(|e| e.0);
            into.indices.extend(row.iter().map(|e| e.0));
            into.data.extend(row.iter().map(|e| e.1));
            into.indptr.push(into.indices.len() as u64);
        }
        Ok(())
    }
}

/// All of them.
pub struct Many {
    parts: Vec<Part>,
    /// First row of each part, and the number of rows at the end.
    starts: Vec<u64>,
    /// Entries before each part.
    entries: Vec<u64>,
    n_vars: usize,
}

impl Many {
    /// Parts in this order.
    pub fn new(parts: Vec<Part>, n_vars: usize) -> Self {
        let (mut starts, mut entries) = (vec![0], vec![0]);
        for part in &parts {
            starts.push(starts.last().copied().unwrap_or(0) + part.n_obs());
            let all = part.source.entries_before(SourceRow(part.source.shape().n_obs));
            entries.push(entries.last().copied().unwrap_or(0) + all);
        }
        Many { parts, starts, entries, n_vars }
    }

    fn sum(&self, of: impl Fn(&dyn Source) -> u64) -> u64 {
        self.parts.iter().map(|p| of(&*p.source)).sum()
    }
}

impl Source for Many {
    fn shape(&self) -> Shape {
        Shape { n_obs: self.starts.last().copied().unwrap_or(0), n_vars: self.n_vars }
    }
    fn entries_before(&self, row: SourceRow) -> u64 {
        let i = self.starts.partition_point(|&s| s <= row.0).saturating_sub(1);
        match self.parts.get(i) {
            None => self.entries.last().copied().unwrap_or(0),
            Some(part) => self.entries[i] + part.source.entries_before(SourceRow(part.source_row(row.0 - self.starts[i]))),
        }
    }
    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        into.clear(self.n_vars);
        for (i, part) in self.parts.iter().enumerate() {
            let (first, end) = (self.starts[i].max(rows.start.0), self.starts[i + 1].min(rows.end.0));
            if first < end {
                part.read(first - self.starts[i]..end - self.starts[i], into)?;
            }
        }
        Ok(())
    }
    fn bytes_read(&self) -> u64 {
        self.sum(|s| s.bytes_read())
    }
    fn bytes_decoded(&self) -> u64 {
        self.sum(|s| s.bytes_decoded())
    }
    fn overhead_bytes(&self, n_threads: usize) -> u64 {
        self.sum(|s| s.overhead_bytes(n_threads))
    }
    fn location(&self) -> &str {
        self.parts.first().map_or("", |p| p.source.location())
    }
    fn locations(&self) -> Vec<&str> {
        self.parts.iter().flat_map(|p| p.source.locations()).collect()
    }
}

/// Rows that are held.
pub struct Held {
    x: Csr,
    location: String,
}

impl Held {
    /// All rows of a source, brought into memory.
    pub fn of(source: &dyn Source) -> Result<Self> {
        let mut x = Csr::default();
        source.read(SourceRow(0)..SourceRow(source.shape().n_obs), &mut x)?;
        Ok(Held { x, location: source.location().to_string() })
    }
}

impl Source for Held {
    fn shape(&self) -> Shape {
        Shape { n_obs: self.x.n_rows() as u64, n_vars: self.x.n_cols }
    }
    fn entries_before(&self, row: SourceRow) -> u64 {
        self.x.indptr[row.index()]
    }
    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        into.clear(self.x.n_cols);
        (rows.start.index()..rows.end.index()).for_each(|i| {
            let (columns, values) = self.x.row(i);
            into.push_row(columns, values);
        });
        Ok(())
    }
    fn bytes_read(&self) -> u64 {
        0
    }
    fn bytes_decoded(&self) -> u64 {
        0
    }
    fn overhead_bytes(&self, _: usize) -> u64 {
        0
    }
    fn location(&self) -> &str {
        &self.location
    }
}

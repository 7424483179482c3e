//! One task on its way through a GPU.

use std::ops::Range;
use std::sync::Arc;

use cellmill_cuda::{Buffer, Device, Stream, Tray};
use cellmill_kernels::decode::cuda::{Chunk, Decode, ReadRows, SLACK, Spans, Vector};
use cellmill_kernels::decode::zstd::Frames;
use cellmill_kernels::moments::cuda::{Input, Moments, Sums};
use cellmill_kernels::pack::cuda::{Batch, Rows};
use cellmill_kernels::totals::RowTotals;
use cellmill_matrix::{Compression, Error, Part, Result, SourceRow, Stretch};

use super::shared::{Claim, Decoded, Promise, Theirs};
use super::{Desk, First, Read, Reader};
use crate::exec::{TASK_ROWS, chunk_end, task_of};
use crate::fold::{Counted, GeneMoments};
use crate::recipe::{Step, kept};
use crate::stage::{Resident, There};

/// Where decoded chunks begin.
const ALIGNED: usize = 256;

/// A stream, and memory that goes from task to task.
pub(super) struct Lane {
    stream: Stream,
    tray: Tray,
    decode: Decode,
    /// For the moments of a first read.
    sums: Option<(Moments, Sums)>,
    /// One stored chunk.
    stored: Vec<u8>,
    /// Stored chunks on the device.
    up: Buffer<u8>,
    /// The zstd frames among them.
    frames: Frames,
    /// Bytes that decoding them may take beside theirs.
    scratch: u64,
    /// Others' chunks that this stream may still read.
    held: Vec<Arc<Decoded>>,
}

/// A chunk of a task.
struct Wanted {
    part: Part,
    chunk: u64,
    /// Where it goes, if it is decoded here.
    at: Range<usize>,
    /// Somebody waits for it.
    promise: Option<Promise>,
    /// Another decodes it.
    theirs: Option<Theirs>,
    /// Entries of a block, and whether they are shuffled.
    shape: (u64, bool),
}

/// What the rows of a task are, and what the card found out about each.
struct Known {
    spans: Spans,
    read: ReadRows,
    counted: Counted,
}

impl Lane {
    /// For rows of `n_vars` genes, stored chunks of up to about `tray` bytes and tasks of up to about `up` bytes; `bound`: of values whose
    /// moments are taken, if they are. `scratch`: bytes that zstd frames may take at a time, beside what is stored and what is decoded.
    pub fn new(device: &Arc<Device>, n_vars: usize, bound: Option<f64>, tray: usize, up: usize, scratch: u64) -> Result<Self> {
        let stream = device.stream()?;
        Ok(Lane {
            tray: Tray::new(&stream, tray)?,
            decode: Decode::new(device)?,
            sums: match bound {
                Some(bound) => Some((Moments::new(device)?, Sums::new(&stream, n_vars, TASK_ROWS as usize, bound)?)),
                None => None,
            },
            stored: Vec::new(),
            up: stream.alloc(up)?,
            frames: Frames::default(),
            scratch,
            held: Vec::new(),
            stream,
        })
    }

    /// Waits for all that was queued, and lets go what it needed.
    pub fn rest(&mut self) -> Result<()> {
        let done = self.tray.clear();
        self.held.clear();
        done
    }

    /// Queues the decoding of the entries of a task: columns and values. `None` if a chunk can't be decoded here.
    fn entries(&mut self, reader: &Reader<'_>, desk: &Desk, entries: &Range<u64>, found: &Arc<Buffer<u32>>) -> Result<Option<[Vector; 2]>> {
        let all = reader.source.entries_before(SourceRow(reader.source.shape().n_obs));
        let mut wanted = Vec::new();
        let mut bytes = 0;
        for part in [Part::Columns, Part::Values] {
            let (dtype, len) = reader.stored.vector(part);
            let chunk_bytes = len as usize * dtype.size().unwrap_or(1);
            for chunk in entries.start / len..entries.end.div_ceil(len) {
                let span = chunk * len..((chunk + 1) * len).min(all);
                let here = span.start.max(entries.start)..span.end.min(entries.end);
                // Others want the rest of it.
                let claim = (here != span).then(|| desk.shared.claim((part, chunk), here.end - here.start, span.end - span.start));
                let (promise, theirs) = match claim {
                    None => (None, None),
                    Some(Claim::Mine(promise)) => (Some(promise), None),
                    Some(Claim::Theirs(theirs)) => (None, Some(theirs)),
                };
                let at = bytes..bytes + chunk_bytes;
                bytes = if theirs.is_none() { at.end.next_multiple_of(ALIGNED) } else { bytes };
                wanted.push(Wanted { part, chunk, at, promise, theirs, shape: (1, false) });
            }
        }
        let mut out = self.stream.alloc::<u8>(bytes)?;
        if !self.own(reader, &mut wanted, &mut out, found)? {
            return Ok(None);
        }
        // What others wait for gets memory of its own; they must hear of it before anything of theirs is waited for here.
        let mut promised = Vec::new();
        for w in &mut wanted {
            if let Some(promise) = w.promise.take() {
                let memory = Arc::new(self.stream.part(&out, w.at.clone())?);
                promised.push((promise, Chunk { memory, at: 0, block: w.shape.0, shuffled: w.shape.1 }));
            }
        }
        let done = Arc::new(self.stream.record()?);
        for (promise, chunk) in promised {
            promise.keep(Decoded { chunk, found: found.clone(), done: done.clone() });
        }
        let memory = Arc::new(out);
        let mut vectors = [Part::Columns, Part::Values].map(|part| {
            let (dtype, chunk) = reader.stored.vector(part);
            Vector { chunks: Vec::new(), chunk, first: entries.start % chunk, dtype }
        });
        for w in wanted {
            let chunk = match w.theirs {
                None => Chunk { memory: memory.clone(), at: w.at.start, block: w.shape.0, shuffled: w.shape.1 },
                Some(theirs) => {
                    let Some(decoded) = theirs.get() else { return Ok(None) };
                    self.stream.wait(&decoded.done)?;
                    let chunk = decoded.chunk.clone();
                    self.held.push(decoded);
                    chunk
                }
            };
            vectors[w.part as usize].chunks.push(chunk);
        }
        Ok(Some(vectors))
    }

    /// Queues the decoding of the chunks that nobody else decodes; false if one can't be decoded here.
    fn own(&mut self, reader: &Reader<'_>, wanted: &mut [Wanted], out: &mut Buffer<u8>, found: &Buffer<u32>) -> Result<bool> {
        let mut streams: Vec<Stretch> = Vec::new();
        let mut used = 0;
        self.frames.clear();
        for w in wanted.iter_mut().filter(|w| w.theirs.is_none()) {
            let Some(stored) = reader.stored.read_stored(w.part, w.chunk, &mut self.stored) else { return Ok(false) };
            let len = self.stored.len();
            let at = w.at.start as u64;
            let before = self.frames.mark();
            let mut known = self.frames.add(&self.stored, &stored, used as u64, at);
            if used > 0 && (used + len + SLACK > self.up.len() || self.frames.bytes() > self.scratch) {
                self.frames.back(before);
                self.undo(&streams, out, found)?;
                // What comes after on this stream may be written over it.
                streams.clear();
                used = 0;
                known = self.frames.add(&self.stored, &stored, 0, at);
            }
            if known.is_none() || self.frames.bytes() > self.scratch {
                return Ok(false);
            }
            if len + SLACK > self.up.len() {
                self.up = self.stream.alloc(2 * len + SLACK)?;
            }
            self.tray.copy(&self.stored, &mut self.up, used)?;
            let rest = stored.streams.iter().filter(|s| stored.compression == Compression::Lz4 || s.stored == s.len);
            streams.extend(rest.map(|s| Stretch { from: s.from + used as u64, to: s.to + at, ..*s }));
            w.shape = (stored.block, stored.shuffled);
            used += len;
        }
        self.undo(&streams, out, found)?;
        Ok(true)
    }

    /// Queues the decoding of streams and of the frames that were gathered, which are forgotten.
    fn undo(&mut self, streams: &[Stretch], out: &mut Buffer<u8>, found: &Buffer<u32>) -> Result<()> {
        self.decode.streams(&mut self.tray, &self.up, streams, out, found)?;
        self.decode.frames(&mut self.tray, &self.up, &self.frames, out, found)?;
        self.frames.clear();
        Ok(())
    }

    /// Decodes the rows of a task and looks at them. `None` if they are not as they should be.
    fn rows(&mut self, reader: &Reader<'_>, desk: &Desk, rows: &Range<u64>) -> Result<Option<Known>> {
        let before = |row| reader.source.entries_before(SourceRow(row));
        let entries = before(rows.start)..before(rows.end);
        if entries.is_empty() {
            return Ok(None);
        }
        let spans = Spans { offsets: (rows.start..=rows.end).map(|row| (before(row) - entries.start) as u32).collect() };
        let damage = Arc::new(self.stream.zeros::<u32>(1)?);
        let Some([columns, values]) = self.entries(reader, desk, &entries, &damage)? else { return Ok(None) };
        let n_vars = reader.source.shape().n_vars;
        let n_sets = reader.sets.len();
        let read = self.decode.rows(&mut self.tray, &columns, &values, &spans, n_vars, &desk.member, n_sets)?;
        let facts = self.stream.download(&read.facts, read.facts.len())?;
        let mut flags = self.stream.download(&read.rows.found, 2)?;
        for damage in self.held.iter().map(|decoded| &decoded.found).chain([&damage]) {
            flags[0] |= self.stream.download(damage, 1)?[0];
        }
        if flags[0] != 0 {
            return Ok(None);
        }
        let mut facts = facts.chunks_exact(read.rows.n_rows).map(<[f64]>::to_vec);
        let n_genes = facts.next().unwrap_or_default().into_iter().map(|n| n as u32).collect();
        let totals = RowTotals { n_genes, total: facts.next().unwrap_or_default() };
        let sets = reader.sets.iter().map(|(name, _)| name.clone()).zip(facts).collect();
        let counted = Counted { totals, sets, genes: Vec::new(), largest: f32::from_bits(flags[1]) };
        Ok(Some(Known { spans, read, counted }))
    }

    /// Decodes the rows of a task, and has `then` do something with them.
    pub fn only_rows<T>(
        &mut self,
        reader: &Reader<'_>,
        desk: &Desk,
        rows: &Range<u64>,
        then: impl FnOnce(usize, &mut Tray, &mut Rows) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(Known { mut read, .. }) = self.rows(reader, desk, rows)? else { return Ok(None) };
        then(desk.number, &mut self.tray, &mut read.rows).map(Some)
    }

    fn genes(&self, read: &ReadRows, keep: Option<&Buffer<u8>>) -> Result<Buffer<u64>> {
        let mut words = self.stream.zeros(read.rows.n_cols)?;
        self.decode.gene_counts(&self.stream, &read.rows, keep, &mut words)?;
        Ok(words)
    }
}

impl Reader<'_> {
    pub(super) fn read_on(
        &self,
        first: &First<'_>,
        desk: &Desk,
        lane: &mut Lane,
        rows: &Range<u64>,
        filters: &[Step],
        wants_kept: bool,
    ) -> Result<Option<Read>> {
        let Some(Known { spans, mut read, mut counted }) = lane.rows(self, desk, rows)? else { return Ok(None) };
        let Some(keep) = kept(filters, rows.start, &counted)? else { return Ok(None) };
        let stream = lane.stream.clone();
        let entries = u64::from(spans.offsets.last().copied().unwrap_or(0));
        let flags = lane.tray.upload(&keep.iter().map(|&k| u8::from(k)).collect::<Vec<_>>())?;
        let words = lane.genes(&read, None)?;
        let kept_words = if wants_kept { Some(lane.genes(&read, Some(&flags))?) } else { None };
        let Some((kernels, open)) = &mut lane.sums else { return Err(Error::bug("a first read without moments")) };
        let input = Input { total: None, how: first.how, keep: Some(&flags) };
        kernels.accumulate(&stream, &mut read.rows, &input, None, open)?;
        let mut sums = stream.alloc::<f64>(2 * read.rows.n_cols)?;
        kernels.take(&stream, open, &mut sums)?;

        // The chunks that a thread would have cut, each without the rows that leave.
        let stays: Vec<u32> = (0..keep.len() as u32).filter(|&row| keep[row as usize]).collect();
        let mut cuts = vec![rows.start];
        let mut bounds = vec![0u32];
        while let Some(&start) = cuts.last().filter(|&&start| start < rows.end) {
            let end = chunk_end(self.source, start, rows.end);
            cuts.push(end);
            bounds.push(stays.partition_point(|&row| u64::from(row) < end - rows.start) as u32);
        }
        let mut measured = lane.decode.measure(&mut lane.tray, &read.rows, &spans, &stays, &bounds)?;
        let places = Batch::places(measured.lens(&stream)?.iter().map(|&len| len as usize));
        let len = places.last().map_or(0, |place| place.end);
        let at: Vec<u32> = places.iter().map(|place| place.start as u32).collect();
        let mut packed = lane.decode.pack(&mut lane.tray, &read.rows, &measured, &at, len)?;
        let shapes: Vec<(usize, usize)> = bounds
            .windows(2)
            .map(|here| {
                let entries = |row: &u32| (spans.offsets[*row as usize + 1] - spans.offsets[*row as usize]) as usize;
                ((here[1] - here[0]) as usize, stays[here[0] as usize..here[1] as usize].iter().map(entries).sum())
            })
            .collect();
        let (batch, table) = Batch::made_here(&shapes, read.rows.n_cols, &places)?;
        let table = lane.tray.upload(&table)?;
        stream.copy(&table, &mut packed, 0)?;
        counted.genes = stream.download(&words, words.len())?;
        let sums = stream.download(&sums, 2 * read.rows.n_cols)?;
        let found = stream.download(&read.rows.found, 1)?[0];
        if found != 0 {
            return Err(Error::bug(format!("flags {found} of rows that had none")));
        }
        let kept = match kept_words {
            Some(words) => Some(Counted { genes: stream.download(&words, words.len())?, ..only(&counted, &stays) }),
            None => None,
        };
        let moments = match stays.len() {
            0 => GeneMoments::none(read.rows.n_cols),
            n => GeneMoments::from_sums(n as u64, sums.as_chunks::<2>().0),
        };
        let pieces = shapes.iter().zip(&places).enumerate().map(|(i, (&(_, nnz), place))| {
            let source = cuts[i]..cuts[i + 1];
            let here = &stays[bounds[i] as usize..bounds[i + 1] as usize];
            let offsets = here.iter().map(|&row| row - (source.start - rows.start) as u32).collect();
            There { source, rows: offsets, entries: nnz as u64, place: place.clone() }
        });
        let resident = Resident { bytes: packed, batch, device: desk.device.clone() };
        first.finish(&self.cards, desk, task_of(rows.start), moments, pieces.collect(), resident);
        Ok(Some(Read { all: counted, kept, entries }))
    }
}

/// What is known of some of the rows, but for the sums of genes. The largest value is that of all rows.
fn only(all: &Counted, rows: &[u32]) -> Counted {
    let of = |values: &[f64]| rows.iter().map(|&row| values[row as usize]).collect::<Vec<_>>();
    Counted {
        totals: RowTotals { n_genes: rows.iter().map(|&row| all.totals.n_genes[row as usize]).collect(), total: of(&all.totals.total) },
        sets: all.sets.iter().map(|(name, sums)| (name.clone(), of(sums))).collect(),
        genes: Vec::new(),
        largest: all.largest,
    }
}

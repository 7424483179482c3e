//! A reader beside the threads, on a matrix in memory whose columns lie in zstd frames and whose values lie as they are.

use cellmill_cuda::Options;
use cellmill_matrix::{Column, Compression, Csr, Shape, SourceRow, Streams, Stretch, Values};

use super::*;
use crate::exec::{Feed, Scratch, Task, TaskOutput};
use crate::fold::{At, GeneTotals, Qc};
use crate::pca::held::Held;
use crate::recipe::{Expression, Rows};
use crate::stage::{Allowance, Piece};

/// Entries of a chunk: some thirty a task, none at a task's end.
const CHUNK: usize = 7_001;
pub(crate) const N_VARS: usize = 300;
pub(crate) const HOW: Logged = Logged { target_sum: Some(1e4), log1p: true, base: None };

/// Held rows whose chunks can be had.
pub(crate) struct Chunked(pub(crate) Held);

impl Source for Chunked {
    fn shape(&self) -> Shape {
        self.0.shape()
    }
    fn entries_before(&self, row: SourceRow) -> u64 {
        self.0.entries_before(row)
    }
    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        self.0.read(rows, into)
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
        "chunked"
    }
    fn stored(&self) -> Option<&dyn Stored> {
        Some(self)
    }
}

impl Stored for Chunked {
    fn vector(&self, part: Part) -> (DType, u64) {
        (if part == Part::Columns { DType::I64 } else { DType::F32 }, CHUNK as u64)
    }
    fn read_stored(&self, part: Part, chunk: u64, bytes: &mut Vec<u8>) -> Option<Streams> {
        let x = &self.0.0;
        let span = chunk as usize * CHUNK..((chunk as usize + 1) * CHUNK).min(x.nnz());
        bytes.clear();
        match part {
            Part::Columns => bytes.extend(x.indices[span].iter().flat_map(|&j| i64::from(j).to_le_bytes())),
            Part::Values => bytes.extend(x.data[span].iter().flat_map(|v| v.to_le_bytes())),
        }
        let size = self.vector(part).0.size().unwrap_or(1);
        bytes.resize(CHUNK * size, 0);
        let len = bytes.len() as u32;
        let mut compression = Compression::Lz4;
        if part == Part::Columns {
            *bytes = zstd::bulk::compress(bytes, 3).unwrap();
            compression = Compression::Zstd;
        }
        let stretch = Stretch { from: 0, stored: bytes.len() as u32, to: 0, len };
        Some(Streams { block: CHUNK as u64, shuffled: false, compression, streams: vec![stretch] })
    }
}

/// 9,000 cells, three tasks; a row without counts, and one whose columns the last gene ends.
pub(crate) fn counts() -> Csr {
    let mut x = Csr::empty(N_VARS);
    for i in 0..9000u32 {
        let columns: Vec<u32> = (0..300).filter(|j| i != 4100 && (i * 31 + j * j * 17) % 13 < 3 || (i == 77 && *j == 299)).collect();
        let values: Vec<f32> = columns.iter().map(|j| ((i % 7 + 1) * (j % 5 + 1)) as f32).collect();
        x.push_row(&columns, &values);
    }
    x
}

fn qc() -> RowQc {
    RowQc { qc_vars: vec![("mt".into(), (0..N_VARS).map(|j| j % 10 == 0).collect())], percent_top: vec![], log1p: true }
}

/// Cells with enough genes, enough of them mitochondrial, and not of a kind that obs names.
fn filter() -> Vec<Step> {
    let rule = Expression::parse("n_genes_by_counts >= 65 & pct_counts_mt > 1 & kind != 3").unwrap();
    let kind = Column::Plain(Values::I32((0..9000).map(|i| i % 11).collect()));
    vec![Step::KeepObs { rows: Rows::Where { rule, qc: RowQc { log1p: false, ..qc() }, obs: vec![("kind".into(), kind)], first: 0 } }]
}

type Totals = (At<Qc>, Option<At<Qc>>);
type Found = TaskOutput<(GeneTotals, Option<GeneTotals>)>;

/// All tasks, and the packed rows that they leave. `kept`: whether the rows that stay are summed, too.
fn run(feed: Feed<'_>, filters: &[Step], kept: bool) -> (Vec<Found>, Vec<Vec<u8>>) {
    let one = |step, rows: RowQc| At { step, fold: Qc { n_vars: N_VARS, rows, counts: true } };
    let fold: Totals = (one(0, qc()), kept.then(|| one(filters.len(), RowQc::default())));
    let tasks = cut(9000).into_iter().map(|rows| {
        let recipe = &crate::exec::sliced(filters, &rows);
        Task { recipe, fold: &fold, rows, batch: None }.run(feed, &mut Scratch::default()).unwrap()
    });
    let tasks = tasks.collect();
    let bytes = |piece: &Piece| {
        let mut bytes = vec![0; piece.bytes()];
        piece.read(&mut bytes).unwrap();
        bytes
    };
    let stage = feed.stage.unwrap();
    (tasks, (0..3).flat_map(|task| stage.task(task).unwrap().iter().map(bytes).collect::<Vec<_>>()).collect())
}

fn stage() -> Stage {
    Stage::new(3, &Allowance::new(1 << 30), None)
}

#[test]
fn a_reader_without_a_gpu_reads_nothing() {
    let (source, stage, qc) = (Chunked(Held(counts())), stage(), qc());
    let reader = Reader::first(&source, &stage, &qc, HOW).unwrap();
    let feed = Feed { reader: Some(&reader), ..Feed::new(&source, Some(&stage)) };
    assert!(reader.read(&(0..4096), &[], false).unwrap().is_none());
    run(feed, &filter(), true);
    assert_eq!((reader.moments(0), reader.reserved(0)), (None, 0));
    let top = RowQc { percent_top: vec![50], ..qc.clone() };
    assert!(Reader::first(&source, &stage, &top, HOW).is_none(), "the largest values of a row are not known there");
    assert!(Reader::first(&source.0, &stage, &qc, HOW).is_none(), "no chunks");
}

#[test]
fn a_reader_finds_what_the_threads_find() {
    let Ok(device) = Device::open(&Options::default()) else { return };
    let source = Chunked(Held(counts()));
    for (filters, kept) in [(Vec::new(), false), (filter(), false), (filter(), true)] {
        let (by_threads, by_reader, qc) = (stage(), stage(), qc());
        let reader = Reader::first(&source, &by_reader, &qc, HOW).unwrap();
        reader.open(std::slice::from_ref(&device), 4).unwrap();
        let (expected, packed) = run(Feed::new(&source, Some(&by_threads)), &filters, kept);
        let (found, bytes) = run(Feed { reader: Some(&reader), ..Feed::new(&source, Some(&by_reader)) }, &filters, kept);
        for (a, b) in found.iter().zip(&expected) {
            assert_eq!((&a.state, a.entries, a.decoded), (&b.state, b.entries, b.decoded));
            // With two folds that make columns, the threads' alternate chunk by chunk.
            assert!(kept || postcard::to_stdvec(&a.rows).unwrap() == postcard::to_stdvec(&b.rows).unwrap());
        }
        assert_eq!(bytes, packed);
        let n_obs: u64 = (0..3).map(|task| reader.moments(task).unwrap().n_obs).sum();
        assert!(n_obs > 5000 && reader.moments(1).is_none(), "{n_obs}");
        // What a GPU alone has comes home.
        by_reader.leave_devices();
        let mut x = Csr::default();
        cellmill_kernels::pack::unpack(&packed[0], &mut x).unwrap();
        assert_eq!(by_reader.task(0).unwrap()[0].chunk(Csr::default()).unwrap().x, x);
    }
}

/// As on a worker, whose orders have readers of their own: what one has opened, the other reads with, and finds the moments.
#[test]
fn readers_share_their_cards() {
    let Ok(device) = Device::open(&Options::default()) else { return };
    let (source, stage, qc, cards) = (Chunked(Held(counts())), stage(), qc(), Arc::<Cards>::default());
    let reader = || Reader::first(&source, &stage, &qc, HOW).unwrap().with(cards.clone());
    reader().open(&[device], 2).unwrap();
    assert!(reader().read(&(0..4096), &[], false).unwrap().is_some());
    assert_eq!(reader().moments(0).unwrap().n_obs, 4096);
    assert!(reader().with(Arc::default()).read(&(0..4096), &[], false).unwrap().is_none(), "cards that nobody has opened");
}

#[test]
fn rows_that_are_no_counts_are_left_to_the_threads() {
    let Ok(device) = Device::open(&Options::default()) else { return };
    let mut x = counts();
    let at = x.indptr[5000] as usize;
    x.data[at] = 0.5;
    let (source, stage, qc) = (Chunked(Held(x)), stage(), qc());
    let reader = Reader::first(&source, &stage, &qc, HOW).unwrap();
    reader.open(&[device], 1).unwrap();
    let (found, _) = run(Feed { reader: Some(&reader), ..Feed::new(&source, Some(&stage)) }, &[], false);
    assert_eq!([0, 1, 2].map(|task| reader.moments(task).is_some()), [true, false, true]);
    assert!(!found[1].state.0.whole && found[0].state.0.whole);
}

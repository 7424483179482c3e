//! Stored chunks on a GPU against what the CPU makes of them.

use std::sync::Arc;

use cellmill_cuda::{Buffer, Device, Tray};
use cellmill_kernels::decode::cuda::{Chunk, Decode, ReadRows, SLACK, Spans, Vector};
use cellmill_kernels::pack::{cuda::Batch, pack, seal};
use cellmill_kernels::totals::{column_counts, largest, row_totals, subset_totals};
use cellmill_matrix::{Csr, DType, Error, Result, Stretch};

use super::check::must;
use super::frames;

/// Entries of a chunk, and of a block of it.
const CHUNK: usize = 50_000;
const BLOCK: usize = 7_000;

/// Bytes as they are stored, and the streams in them.
#[derive(Default)]
struct Stored {
    bytes: Vec<u8>,
    streams: Vec<Stretch>,
    len: usize,
}

impl Stored {
    /// Appends a stream: compressed, or as it is where that does not shorten it.
    fn push(&mut self, plain: &[u8], compress: bool) -> Result<()> {
        let packed = lz4::block::compress(plain, None, false).map_err(|e| Error::bug(e.to_string()))?;
        let body = if compress && packed.len() < plain.len() { &packed } else { plain };
        let (from, to) = (self.bytes.len() as u64, self.len as u64);
        self.streams.push(Stretch { from, stored: body.len() as u32, to, len: plain.len() as u32 });
        self.bytes.extend_from_slice(body);
        self.len += plain.len();
        Ok(())
    }

    /// The streams decoded on the device, and whether they were found sound.
    fn decode(&self, tray: &mut Tray, decode: &Decode) -> Result<(Buffer<u8>, bool)> {
        let bytes: Vec<u8> = self.bytes.iter().copied().chain([0; SLACK]).collect();
        let stored = tray.upload(&bytes)?;
        let mut out = tray.stream().alloc(self.len)?;
        let found = tray.stream().zeros::<u32>(1)?;
        decode.streams(tray, &stored, &self.streams, &mut out, &found)?;
        let sound = tray.stream().download(&found, 1)?[0] == 0;
        Ok((out, sound))
    }
}

/// Checks streams, rows and packed chunks.
pub fn all(device: &Arc<Device>, counts: &Csr) -> Result<bool> {
    let decode = Decode::new(device)?;
    let mut tray = Tray::new(&device.stream()?, 1 << 20)?;
    let mut fine = streams(&mut tray, &decode)?;
    fine &= frames::check(&mut tray, &decode, counts)?;
    let mut unordered = counts.clone();
    unordered.indices.swap(100, 101);
    let mut fraction = counts.clone();
    fraction.data[1000] = 0.5;
    for shuffled in [true, false] {
        fine &= rows(&mut tray, &decode, counts, shuffled)?;
        for (what, csr) in [("disorder", &unordered), ("a fraction", &fraction)] {
            let read = read(&mut tray, &decode, csr, shuffled, &vec![0; csr.n_cols], 0)?;
            let flags = tray.stream().download(&read.rows.found, 1)?[0];
            fine &= must(&format!("{what} is seen"), flags != 0, format!("flags {flags}"));
        }
    }
    Ok(fine)
}

/// Numbers that look random, the same each time.
pub fn numbers() -> impl FnMut() -> usize {
    let mut state = 1u64;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    }
}

/// `len` bytes: runs, copies of what came before at any distance up to `far`, and noise of few or many symbols.
pub fn bytes(len: usize, kind: usize, far: usize, random: &mut impl FnMut() -> usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    while bytes.len() < len {
        let n = 1 + random() % [4, 20, 300, 5000][kind % 4];
        match random() % 3 {
            0 => bytes.resize(bytes.len() + n, (random() % 256) as u8),
            1 if !bytes.is_empty() => {
                let back = 1 + random() % bytes.len().min(if kind.is_multiple_of(5) { 9 } else { far });
                (0..n).for_each(|_| bytes.push(bytes[bytes.len() - back]));
            }
            _ => bytes.extend((0..n).map(|_| (random() % (1 + random() % (2 + 3 * kind))) as u8)),
        }
    }
    bytes.truncate(len);
    bytes
}

/// Bytes of many kinds, and damaged ones.
fn streams(tray: &mut Tray, decode: &Decode) -> Result<bool> {
    let mut random = numbers();
    let (mut stored, mut plain) = (Stored::default(), Vec::new());
    for kind in 0..600 {
        let bytes = bytes([0, 1, 13, 300, 5_000, 65_536][kind % 6], kind, 70_000, &mut random);
        stored.push(&bytes, true)?;
        plain.extend_from_slice(&bytes);
    }
    let (out, sound) = stored.decode(tray, decode)?;
    let same = sound && tray.stream().download(&out, plain.len())? == plain;
    let mut fine = must("lz4", same, format!("{} bytes from {}", plain.len(), stored.bytes.len()));
    // Whatever the bytes are, the kernel ends and stays inside; most damage shows.
    let mut seen = 0;
    for trial in 0..50 {
        let mut damaged = Stored { bytes: stored.bytes.clone(), streams: stored.streams.clone(), len: stored.len };
        for _ in 0..=trial {
            let at = random() % damaged.bytes.len();
            damaged.bytes[at] = (random() % 256) as u8;
        }
        let (out, sound) = damaged.decode(tray, decode)?;
        seen += u32::from(!sound || tray.stream().download(&out, plain.len())? != plain);
    }
    fine &= must("damaged lz4", seen > 25, format!("{seen} of 50 differ"));
    Ok(fine)
}

/// A vector of four-byte entries in chunks.
fn vector(tray: &mut Tray, decode: &Decode, entries: &[u8], shuffled: bool, dtype: DType) -> Result<Vector> {
    let mut chunks = Vec::new();
    for chunk in entries.chunks(4 * CHUNK) {
        let mut whole = chunk.to_vec();
        whole.resize(4 * CHUNK, 0);
        let mut stored = Stored::default();
        for block in whole.chunks(4 * BLOCK) {
            let n = block.len() / 4;
            let planes: Vec<u8> = (0..4).flat_map(|byte| (0..n).map(move |i| block[4 * i + byte])).collect();
            for plane in if shuffled { planes.chunks(n) } else { block.chunks(block.len()) } {
                stored.push(plane, shuffled)?;
            }
        }
        let memory = Arc::new(stored.decode(tray, decode)?.0);
        chunks.push(Chunk { memory, at: 0, block: BLOCK as u64, shuffled });
    }
    Ok(Vector { chunks, chunk: CHUNK as u64, first: 0, dtype })
}

fn spans(csr: &Csr) -> Spans {
    Spans { offsets: csr.indptr.iter().map(|&at| at as u32).collect() }
}

fn read(tray: &mut Tray, decode: &Decode, csr: &Csr, shuffled: bool, member: &[u8], n_sets: usize) -> Result<ReadRows> {
    let columns: Vec<u8> = csr.indices.iter().flat_map(|column| column.to_le_bytes()).collect();
    let values: Vec<u8> = csr.data.iter().flat_map(|value| value.to_le_bytes()).collect();
    let columns = vector(tray, decode, &columns, shuffled, DType::I32)?;
    let values = vector(tray, decode, &values, shuffled, DType::F32)?;
    let member = tray.upload(member)?;
    decode.rows(tray, &columns, &values, &spans(csr), csr.n_cols, &member, n_sets)
}

fn rows(tray: &mut Tray, decode: &Decode, csr: &Csr, shuffled: bool) -> Result<bool> {
    let n = csr.n_rows();
    let masks: Vec<Vec<bool>> = (0..3).map(|s| (0..csr.n_cols).map(|j| j % (s + 2) == 0).collect()).collect();
    let member: Vec<u8> = (0..csr.n_cols).map(|j| (0..3).map(|s| u8::from(masks[s][j]) << s).sum()).collect();
    let read = read(tray, decode, csr, shuffled, &member, 3)?;
    let stream = tray.stream().clone();
    let back = read.rows.to_csr(&stream)?;
    let kind = if shuffled { "shuffled" } else { "plain" };
    let mut fine = must(&format!("{kind} rows"), back == *csr, format!("{} entries", csr.nnz()));
    let facts = stream.download(&read.facts, read.facts.len())?;
    let totals = row_totals(csr);
    let expected: Vec<f64> =
        totals.n_genes.iter().map(|&n| f64::from(n)).chain(totals.total).chain(subset_totals(csr, &masks).into_iter().flatten()).collect();
    let most = f32::from_bits(stream.download(&read.rows.found, 2)?[1]);
    fine &= must("facts of rows", facts == expected && most == largest(&csr.data), format!("{n} rows, largest {most}"));

    // Every third row leaves.
    let keep: Vec<u8> = (0..n).map(|row| u8::from(row % 3 != 1)).collect();
    let kept: Vec<u32> = (0..n as u32).filter(|&row| keep[row as usize] == 1).collect();
    let (mut all, mut some) = (vec![0u64; csr.n_cols], vec![0u64; csr.n_cols]);
    column_counts(csr, &mut all);
    let part = |rows: &[u32]| {
        let mut part = Csr::empty(csr.n_cols);
        rows.iter().for_each(|&row| part.push_row(csr.row(row as usize).0, csr.row(row as usize).1));
        part
    };
    column_counts(&part(&kept), &mut some);
    let flags = tray.upload(&keep)?;
    for (words, keep) in [(all, None), (some, Some(&flags))] {
        let mut found = stream.zeros(csr.n_cols)?;
        decode.gene_counts(&stream, &read.rows, keep, &mut found)?;
        fine &= must("counts of genes", stream.download(&found, csr.n_cols)? == words, format!("all: {}", keep.is_none()));
    }

    // Chunks of some rows, of none, and of all that are left.
    let bounds: Vec<u32> = [0, 0, 17, 18, 18, 500.min(kept.len()), kept.len()].map(|at| at.min(kept.len()) as u32).to_vec();
    let mut measured = decode.measure(tray, &read.rows, &spans(csr), &kept, &bounds)?;
    let places = Batch::places(measured.lens(&stream)?.iter().map(|&len| len as usize));
    let at: Vec<u32> = places.iter().map(|place| place.start as u32).collect();
    let len = places.last().map_or(0, |place| place.end);
    let out = decode.pack(tray, &read.rows, &measured, &at, len)?;
    let mut bytes = stream.download(&out, len)?;
    let mut same = 0;
    for (place, rows) in places.iter().zip(bounds.windows(2)) {
        let part = part(&kept[rows[0] as usize..rows[1] as usize]);
        let mut expected = Vec::new();
        pack(&part, &mut expected);
        let found = &mut bytes[place.clone()];
        seal(part.n_rows(), part.n_cols, part.nnz(), found)?;
        same += usize::from(found == expected);
    }
    fine &= must("packed chunks", same == places.len(), format!("{same} of {}, {len} bytes", places.len()));
    Ok(fine)
}

//! zstd frames on a GPU against what was put into them, and how long they take.

use std::sync::Arc;
use std::time::Instant;

use cellmill_cuda::{Buffer, Device, Tray};
use cellmill_kernels::decode::cuda::{Decode, SLACK};
use cellmill_kernels::decode::zstd::Frames;
use cellmill_matrix::{Compression, Csr, Error, Result, Source, SourceRow, Streams, Stretch};
use cellmill_simulate::{Options as Simulate, Simulation};
use rayon::prelude::*;

use super::check::must;
use super::decode::{bytes, numbers};

/// Entries of a chunk as anndata writes them, and rows of a task.
const CHUNK: usize = 261_582;
const ROWS: u64 = 4096;
/// Tasks at a time, and how often all of them are decoded.
const TASKS: usize = 16;
const TURNS: usize = 10;

/// Frames one after the other, and what was put into them.
#[derive(Default)]
struct Stored {
    bytes: Vec<u8>,
    streams: Vec<Stretch>,
    plain: Vec<u8>,
}

fn compressed(plain: &[u8], level: i32) -> Result<Vec<u8>> {
    zstd::bulk::compress(plain, level).map_err(|e| Error::bug(e.to_string()))
}

impl Stored {
    fn push(&mut self, plain: &[u8], frame: &[u8]) {
        let (from, to) = (self.bytes.len() as u64, self.plain.len() as u64);
        self.streams.push(Stretch { from, stored: frame.len() as u32, to, len: plain.len() as u32 });
        self.bytes.extend_from_slice(frame);
        self.plain.extend_from_slice(plain);
    }

    fn frames(&self) -> Option<Frames> {
        let mut frames = Frames::default();
        let streams = Streams { block: 1, shuffled: false, compression: Compression::Zstd, streams: self.streams.clone() };
        frames.add(&self.bytes, &streams, 0, 0)?;
        Some(frames)
    }

    fn upload(&self, tray: &mut Tray) -> Result<Buffer<u8>> {
        tray.upload(&self.bytes.iter().copied().chain([0; SLACK]).collect::<Vec<u8>>())
    }

    /// What the card makes of it, and whether it finds it sound. `None` if the host does not.
    fn decode(&self, tray: &mut Tray, decode: &Decode) -> Result<Option<(Vec<u8>, bool)>> {
        let Some(frames) = self.frames() else { return Ok(None) };
        let stored = self.upload(tray)?;
        let mut out = tray.stream().zeros(self.plain.len())?;
        let found = tray.stream().zeros::<u32>(1)?;
        decode.frames(tray, &stored, &frames, &mut out, &found)?;
        let sound = tray.stream().download(&found, 1)?[0] == 0;
        Ok(Some((tray.stream().download(&out, self.plain.len())?, sound)))
    }
}

/// Bytes of a matrix, and of many other kinds; then damaged ones.
pub fn check(tray: &mut Tray, decode: &Decode, counts: &Csr) -> Result<bool> {
    let mut random = numbers();
    let mut all = Stored::default();
    for level in [-5, 1, 3, 9, 19] {
        for bytes in matrix(counts, 300_000) {
            all.push(&bytes, &compressed(&bytes, level)?);
        }
        for kind in 0..80 {
            let bytes = bytes([1, 13, 300, 5_000, 65_536, 400_000][kind % 6], kind, 300_000, &mut random);
            let frame = compressed(&bytes, level)?;
            if frame.len() != bytes.len() {
                all.push(&bytes, &frame);
            }
        }
    }
    let decoded = all.decode(tray, decode)?;
    let same = decoded.is_some_and(|(bytes, sound)| sound && bytes == all.plain);
    let mut fine = must("zstd", same, format!("{} bytes from {} in {} frames", all.plain.len(), all.bytes.len(), all.streams.len()));
    // Whatever the bytes are, the kernels end and stay inside; what they take for sound is what zstd makes of it.
    let (mut refused, mut flagged, mut sound, mut wrong) = (0, 0, 0, 0);
    for trial in 0..600 {
        let s = all.streams[random() % all.streams.len()];
        let plain = &all.plain[s.to as usize..][..s.len as usize];
        let mut frame = all.bytes[s.from as usize..][..s.stored as usize].to_vec();
        for _ in 0..=trial % 3 {
            let at = random() % if trial % 2 == 0 { frame.len() } else { frame.len().min(200) };
            frame[at] = (random() % 256) as u8;
        }
        let mut one = Stored::default();
        one.push(plain, &frame);
        match one.decode(tray, decode)? {
            None => refused += 1,
            Some((_, false)) => flagged += 1,
            Some((bytes, true)) => {
                let expected = zstd::bulk::decompress(&frame, plain.len()).unwrap_or_default();
                sound += 1;
                wrong += usize::from(bytes != expected);
            }
        }
    }
    let report = format!("{refused} refused, {flagged} flagged, {sound} sound, {wrong} of them wrong");
    fine &= must("damaged zstd", wrong == 0 && refused > 0 && flagged > 0, report);
    Ok(fine)
}

/// Columns and values of four bytes, columns of eight bytes.
fn matrix(counts: &Csr, entries: usize) -> [Vec<u8>; 3] {
    let columns = || counts.indices.iter().take(entries);
    [
        columns().flat_map(|column| column.to_le_bytes()).collect(),
        counts.data.iter().take(entries).flat_map(|value| value.to_le_bytes()).collect(),
        columns().flat_map(|&column| u64::from(column).to_le_bytes()).collect(),
    ]
}

/// Chunks of a task's columns and values, as many tasks at once as a reader has lanes.
pub fn time(device: &Arc<Device>) -> Result<()> {
    let decode = Decode::new(device)?;
    let simulation = Simulation::new(Simulate { n_obs: ROWS, ..Simulate::default() })?;
    let parts: Vec<Csr> = (0..ROWS / 256)
        .into_par_iter()
        .map(|part| {
            let mut csr = Csr::default();
            simulation.read(SourceRow(part * 256)..SourceRow((part + 1) * 256), &mut csr).map(|()| csr)
        })
        .collect::<Result<_>>()?;
    let columns: Vec<u8> = parts.iter().flat_map(|csr| &csr.indices).flat_map(|column| column.to_le_bytes()).collect();
    let values: Vec<u8> = parts.iter().flat_map(|csr| &csr.data).flat_map(|value| value.to_le_bytes()).collect();
    for level in [1, 3] {
        for (name, both) in [("columns", vec![&columns]), ("values", vec![&values]), ("both", vec![&columns, &values])] {
            let chunks: Vec<&[u8]> = both.iter().flat_map(|bytes| bytes.chunks_exact(4 * CHUNK)).collect();
            let frames: Vec<Vec<u8>> = chunks.par_iter().map(|chunk| compressed(chunk, level)).collect::<Result<_>>()?;
            let mut stored = Stored::default();
            chunks.iter().zip(&frames).for_each(|(chunk, frame)| stored.push(chunk, frame));
            one(device, &decode, &stored, &format!("{name}, level {level}"))?;
        }
    }
    Ok(())
}

fn one(device: &Arc<Device>, decode: &Decode, stored: &Stored, name: &str) -> Result<()> {
    let from = Instant::now();
    let frames = stored.frames().ok_or_else(|| Error::bug("frames that can't be decoded"))?;
    let host = from.elapsed().as_secs_f64() / stored.streams.len() as f64;
    let from = Instant::now();
    let first = stored.streams[0];
    let bytes =
        zstd::bulk::decompress(&stored.bytes[..first.stored as usize], first.len as usize).map_err(|e| Error::bug(e.to_string()))?;
    let thread = bytes.len() as f64 / from.elapsed().as_secs_f64();
    let mut lanes = Vec::new();
    for _ in 0..TASKS {
        let mut tray = Tray::new(&device.stream()?, 4 << 20)?;
        let up = stored.upload(&mut tray)?;
        let out = tray.stream().zeros::<u8>(stored.plain.len())?;
        let found = tray.stream().zeros::<u32>(1)?;
        lanes.push((tray, up, out, found));
    }
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (tray, up, out, found) = &mut lanes[0];
        let from = tray.stream().record()?;
        decode.frames(tray, up, &frames, out, found)?;
        let to = tray.stream().record()?;
        tray.clear()?;
        alone.push(from.seconds_to(&to)?.unwrap_or(f64::NAN));
        let from = Instant::now();
        for (tray, up, out, found) in &mut lanes {
            decode.frames(tray, up, &frames, out, found)?;
        }
        for (tray, ..) in &mut lanes {
            tray.clear()?;
        }
        together.push(from.elapsed().as_secs_f64());
    }
    let (tray, _, out, found) = &lanes[TASKS - 1];
    let sound = tray.stream().download(found, 1)?[0] == 0 && tray.stream().download(out, stored.plain.len())? == stored.plain;
    let [alone, together] = [alone, together].map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[TURNS / 2]
    });
    let len = stored.plain.len() as f64;
    println!(
        "{{\"zstd\": \"{name}\", \"frames\": {}, \"bytes\": {len}, \"stored_bytes\": {}, \"same\": {sound}, \"host_us_a_frame\": {:.1}, \"scratch_bytes\": {}, \"one_task_ms\": {:.3}, \"one_task_gbps\": {:.1}, \"{TASKS}_tasks_ms\": {:.3}, \"{TASKS}_tasks_gbps\": {:.1}, \"a_cpu_thread_gbps\": {:.2}}}",
        stored.streams.len(),
        stored.bytes.len(),
        host * 1e6,
        frames.bytes(),
        alone * 1e3,
        len / alone / 1e9,
        together * 1e3,
        TASKS as f64 * len / together / 1e9,
        thread / 1e9,
    );
    Ok(())
}

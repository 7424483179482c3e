//! How long kernels take, one by one and in two pipelined reads, beside what the card can do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use cellmill_cuda::{Blas, Buffer, Device, Lent, Operand, Pending, Pinned, Stream};
use cellmill_kernels::gram::cuda::Gram;
use cellmill_kernels::moments::cuda::{Input, Moments, Sums};
use cellmill_kernels::pack::cuda::{Batch, Found, Rows, Unpack};
use cellmill_kernels::pack::{header, pack};
use cellmill_kernels::project::cuda::Projection;
use cellmill_kernels::select::renumbering;
use cellmill_kernels::transform::cuda::{Logged, Transform};
use cellmill_matrix::{Csr, Error, Result, Source, SourceRow};
use cellmill_simulate::{Options as Simulate, Simulation};
use rayon::prelude::*;

/// Rows of a chunk, as in the engine's tasks.
const ROWS: u64 = 4096;
const HVG: usize = 5000;
const COMPONENTS: usize = 100;
const STREAMS: usize = 3;
const HOW: Logged = Logged { target_sum: Some(1e4), log1p: true, base: None };

struct Kernels {
    unpack: Unpack,
    transform: Transform,
    moments: Moments,
}

/// Packed chunks in pinned memory: where each lies behind its table, and its entries.
struct Data {
    pinned: Arc<Pinned<u8>>,
    chunks: Vec<(std::ops::Range<usize>, Batch, u64)>,
    n_vars: usize,
    nnz: u64,
}

pub fn all(device: &Arc<Device>, n_obs: u64) -> Result<()> {
    let stream = device.stream()?;
    let from = Instant::now();
    let kernels = Kernels { unpack: Unpack::new(device)?, transform: Transform::new(device)?, moments: Moments::new(device)? };
    println!("{{\"compile_s\": {:.3}}}", from.elapsed().as_secs_f64());
    ceilings(device, &stream)?;
    let data = simulate(device, n_obs)?;
    let map = one_by_one(&stream, &kernels, &data)?;
    for _ in 0..2 {
        run(device, &kernels, &data, &map)?;
    }
    let usage = device.usage();
    println!("{{\"pool_peak_gib\": {:.2}, \"held_peak_gib\": {:.2}}}", gib(usage.used_peak), gib(usage.reserved_peak));
    Ok(())
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Seconds of queued work by events.
fn seconds(stream: &Stream, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let from = stream.record()?;
    work()?;
    let to = stream.record()?;
    to.synchronize()?;
    Ok(from.seconds_to(&to)?.unwrap_or(f64::NAN))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ceilings(device: &Arc<Device>, stream: &Stream) -> Result<()> {
    let n = 512usize << 20;
    let mut host = device.pinned::<u8>(n)?;
    host.par_chunks_mut(1 << 16)
        .enumerate()
        .for_each(|(c, part)| part.iter_mut().enumerate().for_each(|(i, b)| *b = (i * 31 + c * 7) as u8));
    let host = Arc::new(host);
    let (a, _) = stream.upload_later(host.clone(), 0..n)?;
    let mut b = stream.alloc::<u8>(n)?;
    let up = (0..5).map(|_| seconds(stream, || stream.upload_later(host.clone(), 0..n).map(drop)));
    let up = median(up.collect::<Result<_>>()?);
    let copy = (0..9).map(|_| seconds(stream, || stream.copy(&a, &mut b, 0)));
    let copy = median(copy.collect::<Result<_>>()?);
    // Random digits: 8192 cubed.
    let m = 8192usize;
    let digits: Vec<i8> = (0..m * m).into_par_iter().map(|i| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as i8).collect();
    let x = stream.upload(&digits)?;
    let c = stream.alloc::<i32>(m * m)?;
    let mut blas = Blas::new(stream)?;
    let view = |buffer| Operand { buffer, at: 0, stride: m };
    let mut product = || blas.products(m, m, m, view(&x), view(&x), Operand { buffer: &c, at: 0, stride: m }, false);
    product()?;
    let int8 = (0..9).map(|_| seconds(stream, &mut product));
    let int8 = median(int8.collect::<Result<_>>()?);
    println!(
        "{{\"ceiling\": {{\"pinned_to_device_gbps\": {:.1}, \"device_copy_gbps\": {:.0}, \"int8_product_tops\": {:.0}}}}}",
        n as f64 / up / 1e9,
        2.0 * n as f64 / copy / 1e9,
        2.0 * (m as f64).powi(3) / int8 / 1e12
    );
    Ok(())
}

fn simulate(device: &Arc<Device>, n_obs: u64) -> Result<Data> {
    let from = Instant::now();
    let source = Simulation::new(Simulate { n_obs, ..Simulate::default() })?;
    let n_vars = source.shape().n_vars;
    let packed: Vec<Vec<u8>> = (0..n_obs.div_ceil(ROWS))
        .into_par_iter()
        .map(|task| {
            let (mut csr, mut bytes) = (Csr::default(), Vec::new());
            source.read(SourceRow(task * ROWS)..SourceRow(((task + 1) * ROWS).min(n_obs)), &mut csr)?;
            pack(&csr, &mut bytes);
            bytes.shrink_to_fit();
            Ok(bytes)
        })
        .collect::<Result<_>>()?;
    let simulated = from.elapsed().as_secs_f64();
    let from = Instant::now();
    let places: Vec<_> = packed.iter().map(|bytes| Batch::places([bytes.len()].into_iter()).remove(0)).collect();
    let len: usize = places.iter().map(|place| place.end.next_multiple_of(256)).sum();
    let mut pinned = device.pinned::<u8>(len)?;
    let (mut at, mut nnz) = (0, 0);
    let mut chunks = Vec::new();
    for (bytes, place) in packed.iter().zip(places) {
        let entries = header(bytes)?.nnz;
        nnz += entries;
        let span = at..at + place.end;
        pinned[span.clone()][place.clone()].copy_from_slice(bytes);
        let batch = Batch::new(&mut pinned[span.clone()], &[place])?;
        at += span.len().next_multiple_of(256);
        chunks.push((span, batch, entries));
    }
    println!(
        "{{\"data\": {{\"cells\": {n_obs}, \"genes\": {n_vars}, \"nnz\": {nnz}, \"packed_bytes_per_nnz\": {:.3}, \"simulate_and_pack_s\": {simulated:.1}, \"pin_s\": {:.1}}}}}",
        len as f64 / nnz as f64,
        from.elapsed().as_secs_f64()
    );
    Ok(Data { pinned: Arc::new(pinned), chunks, n_vars, nnz })
}

/// Each kernel alone on a stream, a different chunk every time. Returns the map of chosen columns.
fn one_by_one(stream: &Stream, kernels: &Kernels, data: &Data) -> Result<Vec<u32>> {
    let n = data.n_vars;
    let turns = data.chunks.len().min(24);
    let mut times: [Vec<f64>; 9] = Default::default();
    let mut sums = Sums::new(stream, n, ROWS as usize, HOW.bound().unwrap_or(1.0))?;
    let mut raw = Sums::new(stream, n, ROWS as usize, f64::from(1 << 24))?;
    let mut out = stream.alloc::<f64>(2 * n)?;
    let mut moments = vec![[0.0; 2]; n];
    let (mut nnz, mut bytes) = (0u64, 0usize);
    let mut uploaded = Vec::new();
    for turn in 0..turns {
        let (span, batch, entries) = &data.chunks[turn];
        let mut packed = None;
        times[0].push(seconds(stream, || {
            packed = Some(stream.upload_later(data.pinned.clone(), span.clone())?);
            Ok(())
        })?);
        let Some((packed, lent)) = packed else { continue };
        lent.wait()?;
        let mut rows = None;
        times[1].push(seconds(stream, || {
            rows = Some(kernels.unpack.rows(stream, &packed, batch)?);
            Ok(())
        })?);
        let Some(mut rows) = rows else { continue };
        rows.found(stream)?;
        times[2].push(seconds(stream, || kernels.moments.column_totals(stream, &mut rows, &mut raw))?);
        kernels.moments.take(stream, &mut raw, &mut out)?;
        let input = Input { total: None, how: HOW, keep: None };
        times[3].push(seconds(stream, || kernels.moments.accumulate(stream, &mut rows, &input, None, &mut sums))?);
        kernels.moments.take(stream, &mut sums, &mut out)?;
        for (sum, more) in moments.iter_mut().zip(stream.download(&out, 2 * n)?.as_chunks::<2>().0) {
            *sum = [sum[0] + more[0], sum[1] + more[1]];
        }
        times[4].push(seconds(stream, || kernels.transform.apply_own(stream, &mut rows, &HOW))?);
        nnz += entries;
        bytes += span.len();
        uploaded.push((packed, batch.clone()));
    }
    let cells = (turns as u64 * ROWS) as f64;
    let map = choose(&moments, cells);
    let device_map = stream.upload(&map)?;
    let mut gram = Gram::new(stream, &vec![HOW.bound().unwrap_or(1.0) as f32; HVG])?;
    let projection = projection(stream)?;
    let mut kept = 0u64;
    for (packed, batch) in &uploaded {
        let mut rows = None;
        times[5].push(seconds(stream, || {
            rows = Some(kernels.unpack.columns(stream, packed, batch, &device_map, HVG)?);
            Ok(())
        })?);
        let Some(mut rows) = rows else { continue };
        kept += rows.to_csr(stream)?.nnz() as u64;
        times[6].push(seconds(stream, || kernels.transform.apply_own(stream, &mut rows, &HOW))?);
        times[7].push(seconds(stream, || gram.add(&rows))?);
        times[8].push(seconds(stream, || projection.scores(stream, &rows).map(drop))?);
    }
    // A full block of digits is multiplied by the next chunk that comes: the largest times of `add` show it.
    let mut adds = times[7].clone();
    adds.sort_by(f64::total_cmp);
    let per = |k: usize| median(times[k].clone());
    let (nnz, kept) = (nnz as f64 / turns as f64, kept as f64 / turns as f64);
    let bytes = bytes as f64 / turns as f64;
    let gbps = |b: f64, k: usize| b / per(k) / 1e9;
    println!("{{\"chunk\": {{\"nnz\": {nnz:.0}, \"packed_bytes\": {bytes:.0}, \"chosen_nnz\": {kept:.0}}}}}");
    for (k, name, moved) in [
        (0, "upload", bytes),
        (1, "unpack with checksum and totals", 2.0 * bytes + 8.0 * nnz),
        (2, "column_totals", 8.0 * nnz),
        (3, "normalize, log1p and moments", 8.0 * nnz),
        (4, "transform", 8.0 * nnz),
        (5, "unpack_columns", 2.0 * bytes + 8.0 * kept),
        (6, "transform of chosen", 8.0 * kept),
        (7, "digits", 11.0 * kept),
        (8, "project", kept * 4.0 * 128.0),
    ] {
        println!(
            "{{\"kernel\": \"{name}\", \"us_a_chunk\": {:.0}, \"gbps\": {:.0}, \"nnz_per_ns\": {:.1}}}",
            per(k) * 1e6,
            gbps(moved, k),
            if k < 6 { nnz } else { kept } / per(k) / 1e9
        );
    }
    // Five products of (n, n, k): full for two different digits, the upper panels otherwise.
    let operations = operations(16_384.0);
    let slowest = adds.iter().rev().take(3).copied().collect::<Vec<_>>();
    println!(
        "{{\"kernel\": \"gram of 16384 rows\", \"ms\": {:.2}, \"int8_tops\": {:.0}, \"slowest_ms\": {:?}}}",
        median(slowest.clone()) * 1e3,
        operations / median(slowest.clone()) / 1e12,
        slowest.iter().map(|s| (s * 1e5).round() / 100.0).collect::<Vec<_>>()
    );
    Ok(map)
}

/// Integer operations of the Gram matrix over so many rows.
fn operations(rows: f64) -> f64 {
    let n = (HVG + 1).next_multiple_of(64) as f64;
    let panels: f64 = (0..).map(|i| 1280.0 * f64::from(i)).take_while(|f| *f < n).map(|f| (f + 1280.0).min(n) * (n - f).min(1280.0)).sum();
    2.0 * rows * (3.0 * n * n + 2.0 * panels)
}

/// The columns of largest variance over mean.
fn choose(moments: &[[f64; 2]], cells: f64) -> Vec<u32> {
    let dispersion = |m: &[f64; 2]| if m[0] > 0.0 { (m[1] - m[0] * m[0] / cells) / m[0] } else { 0.0 };
    let mut order: Vec<usize> = (0..moments.len()).collect();
    order.sort_by(|&a, &b| dispersion(&moments[b]).total_cmp(&dispersion(&moments[a])));
    let mut keep = vec![false; moments.len()];
    order[..HVG].iter().for_each(|&j| keep[j] = true);
    renumbering(&keep).0
}

fn projection(stream: &Stream) -> Result<Projection> {
    let weights: Vec<f64> = (0..HVG * COMPONENTS).map(|i| ((i * 7919 % 1009) as f64 - 504.0) / 35_000.0).collect();
    Projection::new(stream, &weights, HVG, &[0.0; COMPONENTS])
}

/// Both reads, pipelined.
fn run(device: &Arc<Device>, kernels: &Kernels, data: &Data, map: &[u32]) -> Result<()> {
    let n = data.n_vars;
    let streams: Vec<Stream> = (0..STREAMS).map(|_| device.stream()).collect::<Result<_>>()?;
    let whole = Instant::now();

    // Read 1: upload, unpack, totals of rows and columns, moments of each chunk to the host. Packed chunks stay on the device.
    let from = Instant::now();
    let mut lanes = Vec::new();
    for stream in &streams {
        lanes.push((
            Sums::new(stream, n, ROWS as usize, f64::from(1 << 24))?,
            Sums::new(stream, n, ROWS as usize, HOW.bound().unwrap_or(1.0))?,
        ));
    }
    let mut stage: Vec<Buffer<u8>> = Vec::new();
    let mut lent: Vec<Lent<Arc<Pinned<u8>>>> = Vec::new();
    let mut waiting: VecDeque<Chunk> = VecDeque::new();
    let mut free: Vec<(Pinned<f64>, Pinned<u32>)> = Vec::new();
    let mut result = (vec![0.0f64; 4 * n], true);
    for (i, (span, batch, _)) in data.chunks.iter().enumerate() {
        let stream = &streams[i % STREAMS];
        let (raw, logged) = &mut lanes[i % STREAMS];
        let (packed, loan) = stream.upload_later(data.pinned.clone(), span.clone())?;
        lent.push(loan);
        let mut rows = kernels.unpack.rows(stream, &packed, batch)?;
        kernels.moments.column_totals(stream, &mut rows, raw)?;
        kernels.moments.accumulate(stream, &mut rows, &Input { total: None, how: HOW, keep: None }, None, logged)?;
        let mut both = stream.alloc::<f64>(4 * n)?;
        let mut out = stream.alloc::<f64>(2 * n)?;
        kernels.moments.take(stream, raw, &mut out)?;
        stream.copy(&out, &mut both, 0)?;
        kernels.moments.take(stream, logged, &mut out)?;
        stream.copy(&out, &mut both, 2 * n)?;
        let oldest = if waiting.len() >= 4 * STREAMS { waiting.pop_front() } else { None };
        if let Some(chunk) = oldest {
            free.push(chunk.merge(&mut result)?);
        }
        let (sums, found) = match free.pop() {
            Some(pair) => pair,
            None => (device.pinned(4 * n)?, device.pinned(2)?),
        };
        waiting.push_back(Chunk { sums: stream.download_later(&both, sums)?, found: stream.download_later(&rows.found, found)? });
        stage.push(packed);
    }
    for chunk in waiting {
        chunk.merge(&mut result)?;
    }
    drop(lent);
    let read_1 = from.elapsed().as_secs_f64();
    if !result.1 {
        return Err(Error::bug("simulated counts that are no counts"));
    }

    // Read 2: chosen columns of the packed chunks on the device to the Gram matrix, on a stream of its own.
    let from = Instant::now();
    let products = device.stream()?;
    let mut gram = Gram::new(&products, &vec![HOW.bound().unwrap_or(1.0) as f32; HVG])?;
    let device_map = streams[0].upload(map)?;
    let opened = from.elapsed().as_secs_f64();
    let mut alive: VecDeque<(Rows, usize)> = VecDeque::new();
    for (i, (packed, (_, batch, _))) in stage.iter().zip(&data.chunks).enumerate() {
        let stream = &streams[i % STREAMS];
        let mut rows = kernels.unpack.columns(stream, packed, batch, &device_map, HVG)?;
        kernels.transform.apply_own(stream, &mut rows, &HOW)?;
        products.wait(&stream.record()?)?;
        gram.add(&rows)?;
        // The rows are freed in the order of their own stream, after the products' stream has read them.
        stream.wait(&products.record()?)?;
        alive.push_back((rows, i));
        if alive.len() > 2 * STREAMS {
            alive.pop_front();
        }
    }
    let (covariance, _) = gram.covariance()?;
    gram.check()?;
    let gram_s = from.elapsed().as_secs_f64();
    let mut host = device.pinned::<f64>(HVG * HVG)?;
    host = products.download_later(&covariance, host)?.wait()?;
    let trace: f64 = (0..HVG).map(|j| host[j * HVG + j]).sum();
    drop((alive, gram, covariance));
    let read_2 = from.elapsed().as_secs_f64();

    // Projection: the same rows once more, scores to the host.
    let from = Instant::now();
    let projection = projection(&streams[0])?;
    let mut arriving: VecDeque<Pending<f32>> = VecDeque::new();
    let mut spare: Vec<Pinned<f32>> = Vec::new();
    let mut checksum = 0.0f64;
    for (i, (packed, (_, batch, _))) in stage.iter().zip(&data.chunks).enumerate() {
        let stream = &streams[i % STREAMS];
        let mut rows = kernels.unpack.columns(stream, packed, batch, &device_map, HVG)?;
        kernels.transform.apply_own(stream, &mut rows, &HOW)?;
        let scores = projection.scores(stream, &rows)?;
        let oldest = if arriving.len() >= 2 * STREAMS { arriving.pop_front() } else { None };
        if let Some(pending) = oldest {
            let scores = pending.wait()?;
            checksum += f64::from(scores[0]);
            spare.push(scores);
        }
        let fits = spare.pop().filter(|p| p.len() == scores.len());
        let target = match fits {
            Some(pinned) => pinned,
            None => device.pinned(scores.len())?,
        };
        arriving.push_back(stream.download_later(&scores, target)?);
    }
    for pending in arriving {
        checksum += f64::from(pending.wait()?[0]);
    }
    let projected = from.elapsed().as_secs_f64();
    let bytes: usize = data.chunks.iter().map(|(span, ..)| span.len()).sum();
    let cells: u64 = data.chunks.iter().map(|(_, batch, _)| batch.n_rows() as u64).sum();
    println!(
        "{{\"pipeline\": {{\"cells\": {cells}, \"read_1_s\": {read_1:.3}, \"read_1_pcie_gbps\": {:.1}, \"read_1_nnz_per_ns\": {:.1}, \"read_2_gram_s\": {gram_s:.3}, \"of_it_opening_s\": {opened:.3}, \"gram_int8_tops\": {:.0}, \"read_2_with_covariance_on_host_s\": {read_2:.3}, \"projection_s\": {projected:.3}, \"all_s\": {:.3}, \"sum_of_counts\": {}, \"trace\": {trace:.6}, \"scores\": {checksum:.4}}}}}",
        bytes as f64 / read_1 / 1e9,
        data.nnz as f64 / read_1 / 1e9,
        operations(cells as f64) / (gram_s - opened) / 1e12,
        whole.elapsed().as_secs_f64(),
        result.0.iter().step_by(2).take(n).sum::<f64>(),
    );
    Ok(())
}

/// Sums of one chunk on their way to the host.
struct Chunk {
    sums: Pending<f64>,
    found: Pending<u32>,
}

impl Chunk {
    /// Adds them in the order of chunks; gives the memory back.
    fn merge(self, into: &mut (Vec<f64>, bool)) -> Result<(Pinned<f64>, Pinned<u32>)> {
        let (sums, found) = (self.sums.wait()?, self.found.wait()?);
        into.0.iter_mut().zip(&sums[..]).for_each(|(a, b)| *a += b);
        into.1 &= Found::new([found[0], found[1]])?.counts;
        Ok((sums, found))
    }
}

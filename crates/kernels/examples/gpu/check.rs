//! Each kernel against its CPU oracle.

use std::sync::Arc;

use cellmill_cuda::{Device, Memory, Options, Stream};
use cellmill_kernels::gram::{self, cuda::Gram};
use cellmill_kernels::moments::{self, cuda::Input, cuda::Moments, cuda::Sums};
use cellmill_kernels::pack::{self, compact::Compact, cuda::ABSENT, cuda::Batch, cuda::Rows, cuda::Unpack, pack};
use cellmill_kernels::project::{self, cuda::Projection};
use cellmill_kernels::select::{keep_columns, renumbering};
use cellmill_kernels::totals::{column_totals, look, row_totals};
use cellmill_kernels::transform::{cuda::Logged, cuda::Transform, log1p, normalize_log1p, normalize_total};
use cellmill_matrix::{Csr, Result, Source, SourceRow};
use cellmill_simulate::{Options as Simulate, Simulation};

/// Says one thing that must hold; returns whether it does.
pub fn must(what: &str, holds: bool, detail: impl std::fmt::Display) -> bool {
    println!("{{\"check\": \"{what}\", \"holds\": {holds}, \"detail\": \"{detail}\"}}");
    holds
}

pub fn all(device: &Arc<Device>) -> Result<bool> {
    let stream = device.stream()?;
    let from = std::time::Instant::now();
    let unpack = Unpack::new(device)?;
    let transform = Transform::new(device)?;
    let moments = Moments::new(device)?;
    device.program(&gram::cuda::SOURCE)?;
    device.program(&project::cuda::SOURCE)?;
    println!("{{\"compile_s\": {:.3}}}", from.elapsed().as_secs_f64());
    let mut fine = true;
    for (name, csr) in chunks()? {
        fine &= unpacked(&stream, &unpack, name, &csr)?;
        fine &= columns(&stream, &unpack, name, &csr)?;
        fine &= damage(&stream, &unpack, name, &csr)?;
        fine &= transformed(&stream, &unpack, &transform, name, &csr)?;
        fine &= summed(&stream, &unpack, &moments, name, &csr)?;
    }
    fine &= super::decode::all(device, &simulated(28_000, 1500)?)?;
    let counts = simulated(3000, 6000)?;
    fine &= multiplied(&stream, &unpack, &transform, &counts)?;
    fine &= pool()?;
    Ok(fine)
}

/// Rows of many kinds.
fn chunks() -> Result<Vec<(&'static str, Csr)>> {
    let counts = simulated(28_000, 4096)?;
    let mut fractions = simulated(5000, 700)?;
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32
    };
    for (i, v) in fractions.data.iter_mut().enumerate() {
        if i % 5000 > 700 {
            *v *= 0.37 + (random() % 1000) as f32 * 1e-3;
        }
    }
    let mut odd = Csr::empty(1 << 20);
    for i in 0..3000u32 {
        let n = [0, 1, 2, 3, 130, 700, 0, 9][i as usize % 8];
        let mut columns: Vec<u32> = (0..n).map(|_| random() % if i % 3 == 0 { 2000 } else { 1 << 20 }).collect();
        columns.sort_unstable();
        columns.dedup();
        let values: Vec<f32> = columns
            .iter()
            .map(|_| match random() % 40 {
                0 => 0.0,
                1 => 16_777_216.0,
                2 => (random() % 70_000) as f32,
                _ => (random() % 5) as f32,
            })
            .collect();
        odd.push_row(&columns, &values);
    }
    let mut few = Csr::empty(28_000);
    few.push_row(&[], &[]);
    few.push_row(&[27_999], &[3.0]);
    Ok(vec![("counts", counts), ("fractions", fractions), ("odd", odd), ("few", few), ("none", Csr::empty(10))])
}

fn simulated(n_vars: usize, n_obs: u64) -> Result<Csr> {
    let source = Simulation::new(Simulate { n_obs, n_vars, seed: 3, ..Simulate::default() })?;
    let mut csr = Csr::default();
    source.read(SourceRow(0)..SourceRow(n_obs), &mut csr)?;
    Ok(csr)
}

/// Rows in chunks of 700, packed and laid side by side.
fn batch(csr: &Csr) -> Result<(Vec<u8>, Batch)> {
    let cuts = (0..csr.n_rows().max(1)).step_by(700).map(|first| first..(first + 700).min(csr.n_rows()));
    let chunks: Vec<Vec<u8>> = cuts
        .map(|rows| {
            let mut bytes = Vec::new();
            pack(&part(csr, rows), &mut bytes);
            bytes
        })
        .collect();
    let places = Batch::places(chunks.iter().map(Vec::len));
    let mut bytes = vec![0; places.last().map_or(0, |place| place.end)];
    places.iter().zip(&chunks).for_each(|(place, chunk)| bytes[place.clone()].copy_from_slice(chunk));
    let batch = Batch::new(&mut bytes, &places)?;
    Ok((bytes, batch))
}

fn upload(stream: &Stream, unpack: &Unpack, csr: &Csr) -> Result<Rows> {
    let (bytes, batch) = batch(csr)?;
    unpack.rows(stream, &stream.upload(&bytes)?, &batch)
}

fn unpacked(stream: &Stream, unpack: &Unpack, name: &str, csr: &Csr) -> Result<bool> {
    let rows = upload(stream, unpack, csr)?;
    let back = rows.to_csr(stream)?;
    let same = back.indptr == csr.indptr && back.indices == csr.indices && bits(&back.data) == bits(&csr.data);
    let fine = must(&format!("unpack {name}"), same, format!("{} entries", csr.nnz()));
    let entries = Compact::new(stream.device())?.entries(stream, &rows)?;
    let (columns, values) = (stream.download(&entries.columns, csr.nnz())?, stream.download(&entries.values, csr.nnz())?);
    let lens: Vec<u32> = csr.indptr.windows(2).map(|w| (w[1] - w[0]) as u32).collect();
    let same = entries.columns.len() == csr.nnz() && entries.lens == lens && columns == csr.indices && bits(&values) == bits(&csr.data);
    let fine = fine & must(&format!("compact {name}"), same, format!("{} entries", csr.nnz()));
    let (found, expected) = (rows.totals(stream)?, row_totals(csr));
    let same = found.n_genes == expected.n_genes && found.total == expected.total;
    Ok(fine & must(&format!("totals {name}"), same, format!("{} rows", csr.n_rows())))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn columns(stream: &Stream, unpack: &Unpack, name: &str, csr: &Csr) -> Result<bool> {
    let keep: Vec<bool> = (0..csr.n_cols).map(|j| j % 7 == 3 || j > csr.n_cols - 5).collect();
    let (map, n_kept) = renumbering(&keep);
    let mut whole = Vec::new();
    pack(csr, &mut whole);
    let mut expected = Csr::default();
    let totals = pack::unpack_columns(&whole, &map, n_kept, &mut expected)?;
    let (bytes, batch) = batch(csr)?;
    let rows = unpack.columns(stream, &stream.upload(&bytes)?, &batch, &stream.upload(&map)?, n_kept)?;
    let same = rows.to_csr(stream)? == expected && rows.totals(stream)?.total == totals.total;
    let fine = must(&format!("unpack_columns {name}"), same, format!("{} entries", expected.nnz()));
    // Every fifth column was never there.
    let there: Vec<bool> = (0..csr.n_cols).map(|j| j % 5 != 0).collect();
    let absent: Vec<u32> = map.iter().zip(&there).map(|(&to, &there)| if there || to < ABSENT { to } else { ABSENT }).collect();
    let (counted, n_counted) = renumbering(&there.iter().zip(&map).map(|(there, &to)| *there || to < ABSENT).collect::<Vec<_>>());
    let mut rest = csr.clone();
    keep_columns(&mut rest, &counted, n_counted);
    let sums = row_totals(&rest);
    let rows = unpack.columns(stream, &stream.upload(&bytes)?, &batch, &stream.upload(&absent)?, n_kept)?;
    let found = rows.totals(stream)?;
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * b.abs();
    let same = rows.to_csr(stream)? == expected && found.n_genes == sums.n_genes && found.total.iter().zip(&sums.total).all(close);
    Ok(fine & must(&format!("unpack_columns without some {name}"), same, format!("{n_counted} columns counted")))
}

/// Every tenth or so flipped byte must be found, none may do harm.
fn damage(stream: &Stream, unpack: &Unpack, name: &str, csr: &Csr) -> Result<bool> {
    let mut whole = Vec::new();
    pack(csr, &mut whole);
    let place = Batch::places([whole.len()].into_iter()).remove(0);
    let from = place.start + 64;
    let mut bytes = [vec![0; place.start], whole].concat();
    let batch = Batch::new(&mut bytes, &[place])?;
    let step = ((bytes.len() - from) / 50).max(1);
    let (mut tried, mut caught) = (0, 0);
    for at in (from..bytes.len()).step_by(step) {
        bytes[at] ^= 0x41;
        let rows = unpack.rows(stream, &stream.upload(&bytes)?, &batch)?;
        tried += 1;
        caught += u32::from(rows.found(stream).is_err());
        bytes[at] ^= 0x41;
    }
    Ok(must(&format!("damage {name}"), tried == caught, format!("{caught} of {tried} found")))
}

fn transformed(stream: &Stream, unpack: &Unpack, transform: &Transform, name: &str, csr: &Csr) -> Result<bool> {
    let mut fine = true;
    for (what, how) in [
        ("normalize", Logged { target_sum: Some(1e4), log1p: false, base: None }),
        ("log1p", Logged { target_sum: None, log1p: true, base: Some(2.0) }),
        ("both", Logged { target_sum: Some(1e4), log1p: true, base: None }),
    ] {
        let mut expected = csr.clone();
        let totals = row_totals(csr);
        match what {
            "normalize" => normalize_total(&mut expected, &totals.total, 1e4),
            "log1p" => log1p(&mut expected, Some(2.0)),
            _ => normalize_log1p(&mut expected, is_whole(csr), &totals.total, 1e4, None),
        }
        let mut rows = upload(stream, unpack, csr)?;
        transform.apply_own(stream, &mut rows, &how)?;
        let found = rows.to_csr(stream)?;
        let apart = |(a, b): (&f32, &f32)| (i64::from(a.to_bits()) - i64::from(b.to_bits())).unsigned_abs();
        let worst = found.data.iter().zip(&expected.data).map(apart).max().unwrap_or(0);
        let differ = found.data.iter().zip(&expected.data).filter(|(a, b)| a != b).count();
        fine &= must(&format!("transform {what} {name}"), worst <= 1, format!("{differ} of {} differ, by {worst} units", csr.nnz()));
    }
    Ok(fine)
}

fn summed(stream: &Stream, unpack: &Unpack, kernels: &Moments, name: &str, csr: &Csr) -> Result<bool> {
    let n = csr.n_cols;
    let mut rows = upload(stream, unpack, csr)?;
    let mut out = stream.alloc::<f64>(2 * n)?;
    let bound = csr.data.iter().fold(0f32, |m, v| m.max(v.abs()));
    let mut sums = Sums::new(stream, n, csr.n_rows(), f64::from(bound))?;
    kernels.column_totals(stream, &mut rows, &mut sums)?;
    kernels.take(stream, &mut sums, &mut out)?;
    rows.found(stream)?;
    let found = stream.download(&out, 2 * n)?;
    let mut expected = vec![[0.0; 2]; n];
    column_totals(csr, &mut expected);
    let apart = |found: &[f64], expected: &[[f64; 2]]| {
        let each = found.iter().zip(expected.as_flattened());
        each.map(|(a, b)| (a - b).abs() / b.abs().max(1e-300)).fold(0.0, f64::max)
    };
    let worst = apart(&found, &expected);
    let mut fine = must(&format!("column_totals {name}"), worst < 1e-12, format!("{worst:.1e} apart"));

    let how = Logged { target_sum: Some(1e4), log1p: true, base: None };
    let mut logged = csr.clone();
    normalize_log1p(&mut logged, is_whole(csr), &row_totals(csr).total, 1e4, None);
    let mut expected = vec![[0.0; 2]; n];
    moments::accumulate(&logged, &mut expected);
    let mut sums = Sums::new(stream, n, csr.n_rows(), how.bound().unwrap_or(1.0))?;
    let mut maxima = stream.zeros::<u32>(n)?;
    let input = Input { total: None, how, keep: None };
    let mut first = Vec::new();
    for turn in 0..3 {
        kernels.accumulate(stream, &mut rows, &input, Some(&mut maxima), &mut sums)?;
        kernels.take(stream, &mut sums, &mut out)?;
        let found = stream.download(&out, 2 * n)?;
        if turn == 0 {
            first = found;
        } else {
            fine &= must(&format!("moments again {name}"), found == first, "same bits");
        }
    }
    rows.found(stream)?;
    // The contract: each addend is rounded to bound² 2^-(62 - log2 rows), and logarithms may differ by a unit of f32.
    let (bound, n_rows) = (how.bound().unwrap_or(1.0).log2().ceil().exp2(), csr.n_rows() as f64);
    let unit = bound * bound * (2.0 * n_rows) / (2.0f64).powi(62);
    let excess = first.iter().zip(expected.as_flattened()).map(|(a, b)| (a - b).abs() / (1e-7 * b.abs() + n_rows * unit));
    let excess = excess.fold(0.0, f64::max);
    fine &= must(&format!("moments {name}"), excess <= 1.0, format!("{excess:.1e} of the tolerance"));
    let maxima = stream.download(&maxima, n)?;
    let mut largest = vec![0f32; n];
    logged.indices.iter().zip(&logged.data).for_each(|(&j, &v)| largest[j as usize] = largest[j as usize].max(v));
    let near = maxima.iter().zip(&largest).all(|(a, b)| (f32::from_bits(*a) - b).abs() <= 1e-6 * b);
    Ok(fine & must(&format!("maxima {name}"), near, "of each column"))
}

fn is_whole(x: &Csr) -> bool {
    let seen = look(&x.data);
    seen.whole && seen.counts
}

/// Gram matrix and projection of 6,000 cells by 3,000 genes.
fn multiplied(stream: &Stream, unpack: &Unpack, transform: &Transform, counts: &Csr) -> Result<bool> {
    let p = counts.n_cols;
    let how = Logged { target_sum: Some(1e4), log1p: true, base: None };
    let mut csr = counts.clone();
    normalize_log1p(&mut csr, is_whole(counts), &row_totals(counts).total, 1e4, None);
    // The CPU's matrix, and the same in f64.
    let mut detection = vec![0f32; p];
    let mut squares = vec![0f64; p];
    let mut largest = vec![0f32; p];
    for (&j, &v) in csr.indices.iter().zip(&csr.data) {
        detection[j as usize] += 1.0 / csr.n_rows() as f32;
        squares[j as usize] += f64::from(v) * f64::from(v);
        largest[j as usize] = largest[j as usize].max(v);
    }
    let mut cpu = gram::Gram::new(&detection, squares.iter().copied().fold(0.0, f64::max))?;
    cpu.add(&[&csr], &mut gram::Work::default())?;
    let expected = cpu.covariance()?;
    let exact = covariance(&csr);
    let deviation: Vec<f64> = (0..p).map(|j| exact[j * p + j].sqrt().max(1e-9)).collect();
    let apart = |a: &[f64], b: &[f64]| {
        let each = a.iter().zip(b).enumerate();
        each.map(|(at, (a, b))| (a - b).abs() / (deviation[at / p] * deviation[at % p])).fold(0.0, f64::max)
    };
    let pieces: Vec<Csr> = [0..2500, 2500..2600, 2600..6000].map(|rows| part(counts, rows)).into();
    let mut fine = true;
    let mut first = Vec::new();
    for (what, bounds, order) in
        [("bounds of columns", largest.clone(), [0, 1, 2]), ("another order", largest, [2, 0, 1]), ("one bound", vec![9.22; p], [0, 1, 2])]
    {
        // In another order, in two parts.
        let mut grams = [Gram::new(stream, &bounds)?, Gram::new(stream, &bounds)?];
        for (turn, i) in order.into_iter().enumerate() {
            let mut rows = upload(stream, unpack, &pieces[i])?;
            transform.apply_own(stream, &mut rows, &how)?;
            grams[usize::from(turn == 2 && what == "another order")].add(&rows)?;
        }
        let [mut gram, mut other] = grams;
        gram.merge(&mut other)?;
        let (found, sums) = gram.covariance()?;
        let found = stream.download(&found, p * p)?;
        gram.check()?;
        let elsewhere = gram.on_host()?;
        let same = elsewhere.covariance()?.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits());
        fine &= must(&format!("gram on the host, {what}"), same, format!("{} rows", elsewhere.n_rows()));
        let (to_cpu, to_exact, cpu_to_exact) = (apart(&found, &expected), apart(&found, &exact), apart(&expected, &exact));
        let detail = format!("{to_cpu:.1e} from the CPU's, {to_exact:.1e} from f64; CPU {cpu_to_exact:.1e}");
        fine &= must(&format!("gram, {what}"), to_exact < 1e-5, detail);
        let sums = stream.download(&sums, p)?;
        let worst = sums.iter().zip(cpu.sums()).map(|(a, b)| (a - b).abs() / b.abs().max(1e-9)).fold(0.0, f64::max);
        fine &= must(&format!("gram sums, {what}"), worst < 1e-5, format!("{worst:.1e} apart"));
        match what {
            "bounds of columns" => first = found,
            "another order" => fine &= must("gram in another order", first == found, "same bits"),
            _ => {}
        }
    }
    for k in [1, 50, 100, 130] {
        let weights: Vec<f64> = (0..p * k).map(|i| ((i * 7919 % 1009) as f64 - 504.0) / 1009.0).collect();
        let offset: Vec<f64> = (0..k).map(|c| c as f64 * 0.01).collect();
        let mut scores = vec![0f32; csr.n_rows() * k];
        project::Projection::new(&weights, p, &offset)?.scores(&csr, &mut scores)?;
        let rows = upload(stream, unpack, &csr)?;
        let found = Projection::new(stream, &weights, p, &offset)?.scores(stream, &rows)?;
        let same = bits(&stream.download(&found, scores.len())?) == bits(&scores);
        fine &= must(&format!("project {k}"), same, "same bits");
    }
    Ok(fine)
}

fn part(csr: &Csr, rows: std::ops::Range<usize>) -> Csr {
    let mut out = Csr::empty(csr.n_cols);
    rows.for_each(|i| out.push_row(csr.row(i).0, csr.row(i).1));
    out
}

/// Covariance in f64, by the definition's sums.
fn covariance(csr: &Csr) -> Vec<f64> {
    use rayon::prelude::*;
    let (p, n) = (csr.n_cols, csr.n_rows() as f64);
    let mut sums = vec![0f64; p];
    csr.indices.iter().zip(&csr.data).for_each(|(&j, &v)| sums[j as usize] += f64::from(v));
    let mut by_column = vec![Vec::new(); p];
    for i in 0..csr.n_rows() {
        csr.row(i).0.iter().zip(csr.row(i).1).for_each(|(&j, &v)| by_column[j as usize].push((i, f64::from(v))));
    }
    let mut out = vec![0f64; p * p];
    out.par_chunks_mut(p).enumerate().for_each(|(j, out)| {
        for &(i, v) in &by_column[j] {
            csr.row(i).0.iter().zip(csr.row(i).1).for_each(|(&c, &w)| out[c as usize] += v * f64::from(w));
        }
        out.iter_mut().zip(&sums).for_each(|(x, s)| *x = (*x - sums[j] * s / n) / (n - 1.0));
    });
    out
}

/// A pool's ceiling holds, and says so.
fn pool() -> Result<bool> {
    let memory = Memory { initial: 16 << 20, max: Some(64 << 20) };
    let device = Device::open(&Options { memory, ..Options::default() })?;
    let stream = device.stream()?;
    let kept = stream.zeros::<u8>(32 << 20)?;
    let refused = stream.alloc::<u8>(48 << 20);
    let said = refused.err().map_or_else(|| "nothing".to_owned(), |e| e.to_string());
    drop(kept);
    let after = stream.alloc::<u8>(48 << 20).is_ok();
    let usage = device.usage();
    Ok(must("pool", said.starts_with("gpu-memory-max: 64.0 MiB, but") && after, format!("{said}; {usage:?}")))
}

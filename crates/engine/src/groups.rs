//! Statistics of every gene in each group of cells, by GPUs: what the fold [`crate::fold::Grouped`] finds, in one read.

use std::sync::{Arc, Mutex, PoisonError};

use cellmill_cuda::{Device, Event, Pinned, Stream, Tray};
use cellmill_kernels::grouped::cuda::{Grouped, Kept, Sums, Totals};
use cellmill_kernels::pack::cuda::{Batch, Rows, Unpack};
use cellmill_kernels::transform::cuda::Logged;
use cellmill_matrix::{Error, Result, Source, Watch};

use crate::exec::{Feed, cut, in_order};
use crate::fold::{GroupStats, GroupedStats};
use crate::pca::{Laid, MOST_ENTRIES, again, lay, most_entries, turn};
use crate::reader::Reader;
use crate::stage::Piece;

/// The code of a row that is no cell of the question.
const LEFT_OUT: u32 = u32::MAX;
/// Streams of a GPU at most: tasks that are unpacked at a time.
const LANES: u64 = 8;
/// Bytes of an entry that is no count, packed.
const PACKED: u64 = 6;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Group of each source row; those from `n_groups` on are the rest: `(n_obs,)`.
    pub codes: &'a [u32],
    /// Number of groups.
    pub n_groups: usize,
    /// Source rows that count, `(n_obs,)`; `None`: all.
    pub rows: Option<&'a [bool]>,
    /// Genes that are asked for, `(n_vars,)`; `None`: all.
    pub genes: Option<&'a [bool]>,
    /// Whether cells are normalised by their sums over these genes, instead of all.
    pub totals_of_genes: bool,
    /// What is done to values first.
    pub how: Logged,
}

/// What is found.
#[derive(Debug)]
pub struct Found {
    /// Of the genes that were asked for; `None` if values were not whole, or too large for sums of fixed point.
    pub stats: Option<GroupedStats>,
    /// Whether rows were decoded.
    pub decoded: bool,
}

/// A GPU, the sums on it, and streams that are free.
struct Desk<'a> {
    device: &'a Arc<Device>,
    kernels: Grouped,
    kept: Kept,
    sums: Sums,
    /// Sums and genes are there.
    ready: Event,
    /// Tasks take them in turn.
    lanes: Vec<Mutex<Lane>>,
}

struct Lane {
    stream: Stream,
    unpack: Unpack,
    memory: Option<Pinned<u8>>,
}

/// Bytes of the machine's memory that an answer takes at most, beside what the rows come from: packed tasks of threads and of streams, and
/// the sums as they come home.
pub fn host_bytes(source: &dyn Source, n_groups: usize, n_kept: usize, n_devices: usize) -> u64 {
    let tasks = rayon::current_num_threads() as u64 + LANES * n_devices as u64;
    PACKED * tasks * most_entries(source, &cut(source.shape().n_obs)) + 48 * (n_groups as u64 + 1) * n_kept as u64
}

/// Answers on `devices`, to the same bits however many there are; `None` where they are not fit for it: rows that are staged behind filters,
/// values that lie too far apart for fixed point, no room. Tolerance: see [`cellmill_kernels::grouped::cuda`].
pub fn grouped(devices: &[Arc<Device>], feed: Feed<'_>, ask: &Question<'_>, watch: &dyn Watch) -> Result<Option<Found>> {
    let shape = feed.source.shape();
    let n_kept = ask.genes.map_or(shape.n_vars, |genes| genes.iter().filter(|keep| **keep).count());
    let tasks = cut(shape.n_obs);
    let most = most_entries(feed.source, &tasks);
    if devices.is_empty() || most > MOST_ENTRIES || feed.stage.is_some_and(|stage| !stage.is_unfiltered()) {
        return Ok(None);
    }
    let n_sums = ask.n_groups + 1;
    let a_lane = Batch::device_bytes(most);
    for device in devices {
        if !device.has_room(Sums::bytes(n_sums, n_kept) + a_lane, "statistics of groups")? {
            return Ok(None);
        }
    }
    let mut desks = Vec::with_capacity(devices.len());
    for device in devices {
        let stream = device.stream()?;
        let Some(sums) = Sums::new(&stream, n_sums, n_kept, shape.n_obs, &ask.how)? else { return Ok(None) };
        let kept = match ask.genes {
            Some(genes) => Kept::some(&stream, genes, ask.totals_of_genes)?,
            None => Kept::all(shape.n_vars),
        };
        desks.push(Desk { device, kernels: Grouped::new(device)?, kept, sums, ready: stream.record()?, lanes: Vec::new() });
    }
    let reader = Reader::new(feed.source);
    if let Some(reader) = &reader {
        reader.open(devices, rayon::current_num_threads())?;
    }
    for (i, desk) in desks.iter_mut().enumerate() {
        let taken = reader.as_ref().map_or(0, |reader| reader.reserved(i));
        let n_lanes = (desk.device.room()?.saturating_sub(taken) / a_lane).clamp(1, LANES);
        for _ in 0..n_lanes {
            let stream = desk.device.stream()?;
            stream.wait(&desk.ready)?;
            desk.lanes.push(Mutex::new(Lane { stream, unpack: Unpack::new(desk.device)?, memory: None }));
        }
    }
    let mut decoded = false;
    in_order(
        tasks.len(),
        1,
        |i| {
            let rows = tasks[i].clone();
            let span = rows.start as usize..rows.end as usize;
            let code = |row: usize| match ask.rows.is_none_or(|rows| rows[row]) {
                true => ask.codes[row].min(ask.n_groups as u32),
                false => LEFT_OUT,
            };
            let codes: Vec<u32> = span.map(code).collect();
            if codes.iter().all(|&code| code == LEFT_OUT) {
                return Ok(false);
            }
            let staged = feed.stage.and_then(|stage| stage.task(i));
            if let (None, Some(reader)) = (&staged, &reader) {
                let add = |number: usize, tray: &mut Tray, rows: &mut Rows| {
                    let desk: &Desk<'_> = &desks[number];
                    let codes = tray.upload(&codes)?;
                    let stream = tray.stream();
                    stream.wait(&desk.ready)?;
                    desk.kernels.add(stream, rows, &ask.how, &desk.kept, &codes, &desk.sums)
                };
                if reader.rows(&rows, add)?.is_some() {
                    return Ok(true);
                }
            }
            let decoded = staged.is_none();
            let pieces = match staged {
                Some(pieces) => pieces,
                None => again(feed.source, &[], &rows)?,
            };
            desks[turn(i, desks.len())].add(i, &pieces, &codes, &ask.how)?;
            Ok(decoded)
        },
        |i, was_decoded| {
            decoded |= was_decoded;
            watch.tick(tasks[i].end, shape.n_obs, "")
        },
    )?;
    // All lanes have waited for what they queued.
    let mut totals: Option<Totals> = None;
    for desk in &desks {
        let Some(more) = desk.sums.totals(&desk.device.stream()?)? else {
            desk.device.leave("values are not whole, or too large for sums of fixed point".into());
            return Ok(Some(Found { stats: None, decoded }));
        };
        match &mut totals {
            None => totals = Some(more),
            Some(totals) => totals.merge(&more),
        }
    }
    let totals = totals.ok_or_else(|| Error::bug("no GPU has sums"))?;
    Ok(Some(Found { stats: Some(stats(ask, &totals, n_kept)), decoded }))
}

/// Each group's.
fn stats(ask: &Question<'_>, totals: &Totals, n_kept: usize) -> GroupedStats {
    let mut n_obs = vec![0; ask.n_groups + 1];
    let counts = ask.codes.iter().enumerate().filter(|(row, _)| ask.rows.is_none_or(|rows| rows[*row]));
    counts.for_each(|(_, &code)| n_obs[(code as usize).min(ask.n_groups)] += 1);
    let of = |(group, n_obs): (usize, u64)| GroupStats::from_totals(n_obs, totals, group * n_kept..(group + 1) * n_kept);
    let mut groups: Vec<GroupStats> = n_obs.into_iter().enumerate().map(of).collect();
    let rest = groups.pop().unwrap_or_else(|| GroupStats::none(n_kept));
    GroupedStats { groups, rest }
}

impl Desk<'_> {
    /// Adds the packed rows of a task, each with its group.
    fn add(&self, task: usize, pieces: &[Piece], codes: &[u32], how: &Logged) -> Result<()> {
        let mut lane = self.lanes[task % self.lanes.len()].lock().unwrap_or_else(PoisonError::into_inner);
        let Laid { memory, batch } = lay(self.device, lane.memory.take(), pieces, Piece::bytes, Piece::read)?;
        if batch.n_rows() != codes.len() {
            return Err(Error::bug(format!("{} rows with {} groups", batch.n_rows(), codes.len())));
        }
        let stream = &lane.stream;
        let (bytes, lent) = stream.upload_later(memory, 0..batch.bytes())?;
        let mut rows = lane.unpack.rows(stream, &bytes, &batch)?;
        let codes = stream.upload(codes)?;
        self.kernels.add(stream, &mut rows, how, &self.kept, &codes, &self.sums)?;
        // Waits for all of it.
        rows.found(stream)?;
        lane.memory = Some(lent.wait()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cellmill_cuda::Options;

    use super::*;
    use crate::exec::{self, Aside, Scratch, Task};
    use crate::fold::{At, Collect, Grouped as Fold, NO_GROUP};
    use crate::pca::held::Held;
    use crate::reader::tests::{Chunked, HOW, N_VARS, counts};
    use crate::recipe::{Rows, Step};
    use crate::stage::{Allowance, Stage};

    /// Five groups, cells of none, and a group without cells.
    fn codes() -> Vec<u32> {
        (0..9000u32).map(|i| if i % 11 == 0 { NO_GROUP } else { i / 7 % 5 }).collect()
    }

    /// What the fold finds.
    fn folded(source: &dyn Source, steps: &[Step], n_vars: usize) -> GroupedStats {
        let fold = At { step: steps.len(), fold: Fold { n_vars, n_groups: 6 } };
        exec::run(Feed::source(source), steps, &fold, &Aside { batch: Some(&codes()) }, None, &()).unwrap().output
    }

    fn alike(found: &GroupedStats, wanted: &GroupedStats, exact: bool) {
        for (a, b) in found.groups.iter().chain([&found.rest]).zip(wanted.groups.iter().chain([&wanted.rest])) {
            assert_eq!((a.n_obs, &a.n_cells), (b.n_obs, &b.n_cells));
            let near = |x: &[f64], y: &[f64], by: f64| x.iter().zip(y).all(|(x, y)| (x - y).abs() <= by * y.abs());
            assert!(if exact { a.sum == b.sum } else { near(&a.sum, &b.sum, 1e-7) });
            assert!(near(&a.squares, &b.squares, 1e-6));
        }
    }

    #[test]
    fn without_a_gpu_there_is_no_answer() {
        let source = Held(counts());
        let ask = Question { codes: &codes(), n_groups: 6, rows: None, genes: None, totals_of_genes: false, how: HOW };
        assert!(grouped(&[], Feed::source(&source), &ask, &()).unwrap().is_none());
    }

    #[test]
    fn answers_are_those_of_the_fold() {
        let Ok(device) = Device::open(&Options::default()) else { return };
        let devices = [device];
        let (held, chunked) = (Held(counts()), Chunked(Held(counts())));
        let codes = codes();
        let rows: Vec<bool> = (0..9000).map(|i| i % 5 != 2 && i / 4096 != 1).collect();
        let genes: Vec<bool> = (0..N_VARS).map(|j| j % 3 != 0).collect();
        let values = [Step::NormalizeTotal { target_sum: 1e4 }, Step::Log1p { base: None }];
        let keep_rows = Step::KeepObs { rows: Rows::Mask { keep: rows.clone(), first: 0 } };
        let keep_genes = Step::KeepVar { mask: genes.clone() };
        let all = Question { codes: &codes, n_groups: 6, rows: None, genes: None, totals_of_genes: false, how: HOW };
        let some = Question { rows: Some(&rows), genes: Some(&genes), ..all };
        let n_kept = genes.iter().filter(|keep| **keep).count();
        for (ask, select, n_vars) in [
            (all, vec![], N_VARS),
            (some, vec![keep_rows.clone(), Step::TakeTotals, keep_genes.clone()], n_kept),
            (Question { totals_of_genes: true, ..some }, vec![keep_rows, keep_genes], n_kept),
        ] {
            for how in [HOW, Logged::IDENTITY] {
                let steps: Vec<Step> = select.iter().chain(if how == HOW { &values[..] } else { &[] }).cloned().collect();
                let wanted = folded(&held, &steps, n_vars);
                let by_reader = grouped(&devices, Feed::source(&chunked), &Question { how, ..ask }, &()).unwrap().unwrap();
                alike(by_reader.stats.as_ref().unwrap(), &wanted, how == Logged::IDENTITY);
                assert!(by_reader.decoded);
                let by_threads = grouped(&devices, Feed::source(&held), &Question { how, ..ask }, &()).unwrap().unwrap();
                assert_eq!(by_threads.stats, by_reader.stats);
                // Rows that are staged are not decoded.
                let stage = Stage::new(3, &Allowance::new(1 << 30), None).unfiltered();
                let feed = Feed::new(&held, Some(&stage));
                for rows in cut(9000) {
                    let task = Task { recipe: &[], fold: &Collect::new(usize::MAX, 0), rows, batch: None };
                    task.run(feed, &mut Scratch::default()).unwrap();
                }
                let staged = grouped(&devices, feed, &Question { how, ..ask }, &()).unwrap().unwrap();
                assert!(!staged.decoded && staged.stats == by_reader.stats);
            }
        }
    }

    #[test]
    fn fractions_are_left_to_the_cpu() {
        let Ok(device) = Device::open(&Options::default()) else { return };
        let mut x = counts();
        x.data[1000] = 0.5;
        let codes = codes();
        let ask = Question { codes: &codes, n_groups: 6, rows: None, genes: None, totals_of_genes: false, how: Logged::IDENTITY };
        let found = grouped(std::slice::from_ref(&device), Feed::source(&Held(x.clone())), &ask, &()).unwrap().unwrap();
        assert!(found.stats.is_none() && found.decoded);
        assert!(device.left().iter().any(|why| why.contains("not whole")));
        // After normalisation they are as good as any.
        let steps = [Step::NormalizeTotal { target_sum: 1e4 }, Step::Log1p { base: None }];
        let found = grouped(&[device], Feed::source(&Held(x.clone())), &Question { how: HOW, ..ask }, &()).unwrap().unwrap();
        alike(&found.stats.unwrap(), &folded(&Held(x), &steps, N_VARS), false);
    }
}

//! Statistics of every gene in each group of cells, by GPUs: what the fold [`crate::fold::Grouped`] finds, in one read.

use std::sync::{Arc, Mutex, PoisonError};

use cellmill_cuda::{Buffer, Device, Event, Pinned, Stream, Tray};
use cellmill_kernels::grouped::cuda::{Grouped, Kept, Sums, Totals};
use cellmill_kernels::pack::cuda::{Batch, Rows, Unpack};
use cellmill_kernels::ranked::{self, cuda::Part, cuda::RankSums, cuda::Ranked};
use cellmill_kernels::transform::cuda::Logged;
use cellmill_matrix::{Error, Result, Source, SourceRow, Watch};

use crate::exec::{Feed, cut, in_order};
use crate::fold::{GroupStats, GroupedStats};
use crate::host::rank::GeneRanks;
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
    /// Whether ranks are asked for, too.
    pub ranked: bool,
}

/// What is found.
#[derive(Debug)]
pub struct Found {
    /// Of the genes that were asked for; `None` if values were not whole, or too large for sums of fixed point.
    pub stats: Option<GroupedStats>,
    /// Rank sums of each gene over the groups and the rest, among all of these, if they were asked for.
    pub ranks: Vec<GeneRanks>,
    /// Whether rows were decoded.
    pub decoded: bool,
}

/// A GPU, the sums on it, and streams that are free.
struct Desk<'a> {
    device: &'a Arc<Device>,
    kernels: Grouped,
    kept: Kept,
    sums: Sums,
    ranks: Option<Ranks>,
    /// Sums and genes are there.
    ready: Event,
    /// Tasks take them in turn.
    lanes: Vec<Mutex<Lane>>,
}

/// What ranks are made of.
struct Ranks {
    kernels: Ranked,
    parts: Mutex<Vec<Part>>,
    /// Whether a value was seen that has no place among them.
    negative: Buffer<u32>,
}

struct Lane {
    stream: Stream,
    unpack: Unpack,
    memory: Option<Pinned<u8>>,
}

/// Bytes of the machine's memory that an answer takes at most, beside what the rows come from: packed tasks of threads and of streams, and
/// the sums (`ranked`: and ranks, and where each gene of each task begins) as they come home.
pub fn host_bytes(source: &dyn Source, n_groups: usize, n_kept: usize, n_devices: usize, ranked: bool) -> u64 {
    let on_way = rayon::current_num_threads() as u64 + LANES * n_devices as u64;
    let tasks = cut(source.shape().n_obs);
    let (a_sum, of_tasks) = if ranked { (64, 8 * tasks.len() as u64 * (n_kept as u64 + 1)) } else { (48, 0) };
    PACKED * on_way * most_entries(source, &tasks) + a_sum * (n_groups as u64 + 1) * n_kept as u64 + of_tasks
}

/// Answers on `devices`, to the same bits however many there are; `None` where they are not fit for it: values that lie too far apart for
/// fixed point, no room. Tolerance: see [`cellmill_kernels::grouped::cuda`]. Ranks are the first's alone.
pub fn grouped(devices: &[Arc<Device>], feed: Feed<'_>, ask: &Question<'_>, watch: &dyn Watch) -> Result<Option<Found>> {
    let shape = feed.source.shape();
    let n_kept = ask.genes.map_or(shape.n_vars, |genes| genes.iter().filter(|keep| **keep).count());
    let tasks = cut(shape.n_obs);
    let most = most_entries(feed.source, &tasks);
    if devices.is_empty() || most > MOST_ENTRIES {
        return Ok(None);
    }
    let n_sums = ask.n_groups + 1;
    let a_lane = Batch::device_bytes(most);
    let devices = if ask.ranked { &devices[..1] } else { devices };
    let waiting = if ask.ranked { rank_bytes(feed.source, n_kept, n_sums, tasks.len()) } else { 0 };
    if waiting > 0 && !ranks_fit(&devices[0], shape.n_obs, n_sums, waiting + Sums::bytes(n_sums, n_kept) + 2 * LANES * a_lane)? {
        return Ok(None);
    }
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
        let ranks =
            || -> Result<Ranks> { Ok(Ranks { kernels: Ranked::new(device)?, parts: Mutex::default(), negative: stream.zeros(1)? }) };
        let ranks = ask.ranked.then(ranks).transpose()?;
        desks.push(Desk { device, kernels: Grouped::new(device)?, kept, sums, ranks, ready: stream.record()?, lanes: Vec::new() });
    }
    let reader = Reader::new(feed.source);
    if let Some(reader) = &reader {
        reader.open(devices, rayon::current_num_threads())?;
    }
    for (i, desk) in desks.iter_mut().enumerate() {
        let taken = waiting + reader.as_ref().map_or(0, |reader| reader.reserved(i));
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
            // Rows that were staged behind filters are not those that are asked for.
            let staged = feed.stage.filter(|stage| stage.is_unfiltered()).and_then(|stage| stage.task(i));
            if let (None, Some(reader)) = (&staged, &reader) {
                let add = |number: usize, tray: &mut Tray, rows: &mut Rows| {
                    let desk: &Desk<'_> = &desks[number];
                    let codes = tray.upload(&codes)?;
                    let stream = tray.stream();
                    stream.wait(&desk.ready)?;
                    desk.rows(stream, rows, &ask.how, &codes, n_sums)
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
            desks[turn(i, desks.len())].add(i, &pieces, &codes, ask)?;
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
            return Ok(Some(Found { stats: None, ranks: Vec::new(), decoded }));
        };
        match &mut totals {
            None => totals = Some(more),
            Some(totals) => totals.merge(&more),
        }
    }
    let totals = totals.ok_or_else(|| Error::bug("no GPU has sums"))?;
    let stats = stats(ask, &totals, n_kept);
    let Some(desk) = desks.pop().filter(|_| ask.ranked) else { return Ok(Some(Found { stats: Some(stats), ranks: Vec::new(), decoded })) };
    let Some(ranks) = desk.into_ranks(&stats, n_kept)? else { return Ok(Some(Found { stats: None, ranks: Vec::new(), decoded })) };
    Ok(Some(Found { stats: Some(stats), ranks, decoded }))
}

/// Bytes of device memory for ranks.
fn rank_bytes(source: &dyn Source, n_kept: usize, n_sums: usize, n_tasks: usize) -> u64 {
    let n_obs = source.shape().n_obs;
    // Blocks of entries are filled up.
    let entries = source.entries_before(SourceRow(n_obs)) / 16 * 17;
    entries * ranked::cuda::ENTRY_BYTES + Ranked::bytes(n_obs, n_kept, n_sums, n_tasks)
}

/// Whether a device can rank so many cells in so many groups. If not, that is no error: the CPU does it.
fn ranks_fit(device: &Device, n_obs: u64, n_sums: usize, bytes: u64) -> Result<bool> {
    // A reader takes a quarter, and whoever unpacks some.
    let room = device.room()? / 2;
    let fit = n_obs <= ranked::cuda::MOST_ROWS && n_sums <= ranked::cuda::MOST_GROUPS && bytes <= room;
    if !fit {
        let most = (ranked::cuda::MOST_ROWS, ranked::cuda::MOST_GROUPS);
        device.leave(format!(
            "ranks of {n_obs} cells in {n_sums} groups (up to {} in {}) need {} MiB, and {} are left",
            most.0,
            most.1,
            bytes >> 20,
            room >> 20
        ));
    }
    Ok(fit)
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
    /// Adds rows, each with its group.
    fn rows(&self, stream: &Stream, rows: &mut Rows, how: &Logged, codes: &Buffer<u32>, n_sums: usize) -> Result<()> {
        self.kernels.add(stream, rows, how, &self.kept, codes, &self.sums)?;
        if let Some(Ranks { kernels, parts, negative }) = &self.ranks {
            let part = kernels.part(stream, rows, how, &self.kept, codes, n_sums, negative)?;
            parts.lock().unwrap_or_else(PoisonError::into_inner).push(part);
        }
        Ok(())
    }

    /// The ranks of all rows that were added; `None` if a value has no place among them.
    fn into_ranks(self, stats: &GroupedStats, n_kept: usize) -> Result<Option<Vec<GeneRanks>>> {
        let Some(Ranks { kernels, parts, negative }) = self.ranks else { return Ok(None) };
        let stream = self.device.stream()?;
        if stream.download(&negative, 1)?[0] != 0 {
            self.device.leave("values below zero have ranks there".into());
            return Ok(None);
        }
        let sizes: Vec<u64> = stats.groups.iter().chain([&stats.rest]).map(|group| group.n_obs).collect();
        let (n_sums, n_rows) = (sizes.len(), sizes.iter().sum());
        let parts = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
        let RankSums { twice, ties, lens } = kernels.sums(&stream, &parts, n_kept, n_sums, n_rows)?;
        let gene = |j: usize| {
            let mut twice = twice[j * n_sums..(j + 1) * n_sums].to_vec();
            let zeros = stats.groups.iter().chain([&stats.rest]).map(|group| group.n_obs - group.n_cells[j]);
            let of_zeros = ranked::add_zeros(&mut twice, zeros, n_rows - u64::from(lens[j]));
            GeneRanks { twice, ties: of_zeros + ties[j] as f64 }
        };
        Ok(Some((0..n_kept).map(gene).collect()))
    }

    /// Adds the packed rows of a task, each with its group.
    fn add(&self, task: usize, pieces: &[Piece], codes: &[u32], ask: &Question<'_>) -> Result<()> {
        let mut lane = self.lanes[task % self.lanes.len()].lock().unwrap_or_else(PoisonError::into_inner);
        let Laid { memory, batch } = lay(self.device, lane.memory.take(), pieces, Piece::bytes, Piece::read)?;
        if batch.n_rows() != codes.len() {
            return Err(Error::bug(format!("{} rows with {} groups", batch.n_rows(), codes.len())));
        }
        let stream = &lane.stream;
        let (bytes, lent) = stream.upload_later(memory, 0..batch.bytes())?;
        let mut rows = lane.unpack.rows(stream, &bytes, &batch)?;
        let codes = stream.upload(codes)?;
        let done = self.rows(stream, &mut rows, &ask.how, &codes, ask.n_groups + 1).and_then(|()| rows.found(stream));
        // What was queued ends before what it works on is gone, also after an error.
        stream.synchronize().and(done)?;
        lane.memory = Some(lent.wait()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cellmill_cuda::Options;

    use super::*;
    use crate::exec::{self, Aside, Scratch, Task};
    use crate::fold::{At, ByGene, Collect, Grouped as Fold, NO_GROUP};
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
        let ask = Question { codes: &codes(), n_groups: 6, rows: None, genes: None, totals_of_genes: false, how: HOW, ranked: false };
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
        let all = Question { codes: &codes, n_groups: 6, rows: None, genes: None, totals_of_genes: false, how: HOW, ranked: false };
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
    fn ranks_are_those_of_the_cpu() {
        let Ok(device) = Device::open(&Options::default()) else { return };
        let devices = [device];
        let (held, chunked, codes) = (Held(counts()), Chunked(Held(counts())), codes());
        let rows: Vec<bool> = (0..9000).map(|i| i % 5 != 2 && i / 4096 != 1).collect();
        // The last of these genes is sorted by itself.
        let genes: Vec<bool> = (0..N_VARS).map(|j| j % 7 != 0).collect();
        let n_kept = genes.iter().filter(|keep| **keep).count();
        assert_eq!(n_kept % 256, 1);
        let select =
            [Step::KeepObs { rows: Rows::Mask { keep: rows.clone(), first: 0 } }, Step::TakeTotals, Step::KeepVar { mask: genes.clone() }];
        let all = Question { codes: &codes, n_groups: 6, rows: None, genes: None, totals_of_genes: false, how: HOW, ranked: true };
        for how in [HOW, Logged::IDENTITY] {
            for (ask, select, n_vars) in
                [(all, &[][..], N_VARS), (Question { rows: Some(&rows), genes: Some(&genes), ..all }, &select[..], n_kept)]
            {
                let values = [Step::NormalizeTotal { target_sum: 1e4 }, Step::Log1p { base: None }];
                let steps: Vec<Step> = select.iter().chain(if how == HOW { &values[..] } else { &[] }).cloned().collect();
                let fold = At { step: steps.len(), fold: (Fold { n_vars, n_groups: 6 }, ByGene { n_vars }) };
                let (stats, parts) =
                    exec::run(Feed::source(&held), &steps, &fold, &Aside { batch: Some(&codes) }, None, &()).unwrap().output;
                let sizes: Vec<u64> = stats.groups.iter().chain([&stats.rest]).map(|group| group.n_obs).collect();
                let mut ranks = crate::host::rank::Ranks::new(&sizes);
                for source in [&chunked as &dyn Source, &held] {
                    let found = grouped(&devices, Feed::source(source), &Question { how, ..ask }, &()).unwrap().unwrap();
                    alike(found.stats.as_ref().unwrap(), &stats, how == Logged::IDENTITY);
                    assert_eq!(found.ranks.len(), n_vars);
                    for (j, found) in found.ranks.iter().enumerate() {
                        ranks.clear();
                        parts.iter().map(|part| part.gene(j)).for_each(|(values, groups)| ranks.add(values, groups));
                        assert_eq!(found, ranks.all(), "gene {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn fractions_are_left_to_the_cpu() {
        let Ok(device) = Device::open(&Options::default()) else { return };
        let mut x = counts();
        x.data[1000] = 0.5;
        let codes = codes();
        let ask =
            Question { codes: &codes, n_groups: 6, rows: None, genes: None, totals_of_genes: false, how: Logged::IDENTITY, ranked: false };
        let found = grouped(std::slice::from_ref(&device), Feed::source(&Held(x.clone())), &ask, &()).unwrap().unwrap();
        assert!(found.stats.is_none() && found.decoded);
        assert!(device.left().iter().any(|why| why.contains("not whole")));
        // After normalisation they are as good as any.
        let steps = [Step::NormalizeTotal { target_sum: 1e4 }, Step::Log1p { base: None }];
        let found = grouped(&[device], Feed::source(&Held(x.clone())), &Question { how: HOW, ..ask }, &()).unwrap().unwrap();
        alike(&found.stats.unwrap(), &folded(&Held(x), &steps, N_VARS), false);
    }
}

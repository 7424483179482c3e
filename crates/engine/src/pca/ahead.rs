//! What GPUs do while the CPU reads the rows: they take the moments of all genes from what is staged, and keep the packed rows, as far as
//! their memory has room, for the covariance and the projection.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use cellmill_cuda::{Buffer, Device, Lent, Pending, Pinned, Stream};
use cellmill_kernels::moments::cuda::{Input, Moments, Sums};
use cellmill_kernels::pack::cuda::{Batch, Found, Unpack};
use cellmill_kernels::transform::cuda::Logged;
use cellmill_matrix::{Error, Result};

use super::gpu::{LANES, Laid, MOST_ENTRIES, again, lay, most_entries, turn};
use crate::exec::{Feed, Scratch, TASK_ROWS, Task, Tree, cut, in_order, sliced};
use crate::fold::{Collect, GeneMoments};
use crate::recipe::Step;
use crate::stage::{Piece, Resident};

/// How far a read is that stages rows.
#[derive(Debug, Default)]
pub struct Reading(AtomicU8);

const ENDED: u8 = 1;
const FAILED: u8 = 2;

impl Reading {
    /// Reads; whoever waits for rows learns of its end, also if it panics.
    pub fn during<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        struct Failing<'a>(&'a Reading);
        impl Drop for Failing<'_> {
            fn drop(&mut self) {
                let _ = self.0.0.compare_exchange(0, FAILED, Ordering::Release, Ordering::Relaxed);
            }
        }
        let failing = Failing(self);
        let result = read()?;
        self.0.store(ENDED, Ordering::Release);
        drop(failing);
        Ok(result)
    }
}

/// Stages what a read has left out because a journal knew it; whether rows were decoded for that.
pub fn fill(feed: Feed<'_>, filters: &[Step]) -> Result<bool> {
    let Some(stage) = feed.stage else { return Ok(false) };
    let tasks = cut(feed.source.shape().n_obs);
    let lacking: Vec<usize> = (0..tasks.len()).filter(|&task| stage.task(task).is_none()).collect();
    let nothing = Collect::new(usize::MAX, 0);
    let one = |i: usize| {
        let rows = tasks[lacking[i]].clone();
        let task = Task { recipe: &sliced(filters, &rows), fold: &nothing, rows, batch: None };
        task.run(feed, &mut Scratch::default()).map(drop)
    };
    in_order(lacking.len(), 2, one, |_, ()| Ok(()))?;
    Ok(!lacking.is_empty())
}

/// What [`moments`] finds.
#[derive(Debug)]
pub struct Ahead {
    /// Of all rows that passed the filters.
    pub moments: GeneMoments,
    /// Whether rows were decoded for it because the stage had no room for them.
    pub decoded: bool,
}

/// Moments of every gene of the rows that a read stages meanwhile, behind `filters`, after normalisation and logarithm. `None` if these
/// GPUs are not fit for it, or if the read failed. Tolerance: what is added is rounded to 2^-49 of the largest possible value (or of its square),
/// so that sums have the same bits in any order; merged task by task as the CPU's are.
///
/// `part`: of these tasks alone; parts of 2^h tasks each, cut from the first task on, merge to the bits of all. Tasks that `feed`'s reader
/// has read are not looked at again.
pub fn moments(
    devices: &[Arc<Device>],
    feed: Feed<'_>,
    filters: &[Step],
    how: Logged,
    part: Range<usize>,
    reading: &Reading,
) -> Result<Option<Ahead>> {
    let (Some(stage), Some(bound)) = (feed.stage, how.bound()) else { return Ok(None) };
    let (shape, tasks) = (feed.source.shape(), cut(feed.source.shape().n_obs));
    let most = most_entries(feed.source, &tasks);
    let a_lane = Batch::device_bytes(most) + 64 * shape.n_vars as u64;
    let reserved = |i| feed.reader.map_or(0, |reader| reader.reserved(i));
    let room = devices.iter().enumerate().map(|(i, device)| Ok(device.room()?.saturating_sub(reserved(i))));
    let mut room = room.collect::<Result<Vec<_>>>()?;
    if devices.is_empty() || most > MOST_ENTRIES || room.iter().any(|&room| room < 2 * LANES * a_lane) {
        return Ok(None);
    }
    // Half of it is left to what comes later.
    room.iter_mut().for_each(|room| *room = (*room - LANES * a_lane) / 2);
    let lane = |i| Lane::new(&devices[i / LANES as usize], shape.n_vars, bound);
    // Made when a task comes that nobody knows the moments of.
    let mut lanes: Vec<Lane> = Vec::new();
    // The lanes of each device in turn.
    let mut next = vec![0; devices.len()];
    let mut queued: VecDeque<Work> = VecDeque::new();
    let mut free: Vec<Pinned<u8>> = Vec::new();
    let mut tree = Tree::default();
    let mut decoded = false;
    let mut take = |work: Work, free: &mut Vec<Pinned<u8>>, lanes: &mut [Lane]| -> Result<()> {
        tree.push(work.finish(free, lanes)?, |a: &mut GeneMoments, b| a.merge(&b));
        Ok(())
    };
    for (i, rows) in tasks.iter().enumerate().take(part.end).skip(part.start) {
        let come = loop {
            // Asked first, so that what was staged last is seen.
            let state = reading.0.load(Ordering::Acquire);
            if let Some(known) = feed.reader.and_then(|reader| reader.moments(i)) {
                break Come::Known(known);
            }
            match stage.task(i) {
                // A reader tells of a task before it is staged, but perhaps since it was asked.
                Some(pieces) => break feed.reader.and_then(|reader| reader.moments(i)).map_or(Come::Staged(pieces), Come::Known),
                None if state == FAILED => return Ok(None),
                None if state == ENDED => {
                    decoded = true;
                    break Come::Staged(again(feed.source, filters, rows)?);
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let pieces = match come {
            Come::Staged(pieces) => pieces,
            Come::Known(known) => {
                queued.push_back(Work::Done(known));
                while matches!(queued.front(), Some(Work::Done(_)))
                    && let Some(work) = queued.pop_front()
                {
                    take(work, &mut free, &mut lanes)?;
                }
                continue;
            }
        };
        if lanes.is_empty() {
            lanes = (0..LANES as usize * devices.len()).map(lane).collect::<Result<_>>()?;
        }
        let turn = turn(i, devices.len());
        let lane = turn * LANES as usize + next[turn] % LANES as usize;
        while lanes[lane].arrive.is_none() {
            let Some(work) = queued.pop_front() else { return Err(Error::bug("a lane without work that is busy")) };
            take(work, &mut free, &mut lanes)?;
        }
        let device = &devices[turn];
        let Laid { memory, batch } = lay(device, free.pop(), &pieces, Piece::bytes, Piece::read)?;
        if batch.n_rows() == 0 {
            free.push(memory);
            queued.push_back(Work::Done(GeneMoments::none(shape.n_vars)));
            continue;
        }
        next[turn] += 1;
        let (work, bytes) = lanes[lane].queue(lane, memory, &batch, how)?;
        queued.push_back(work);
        if room[turn] >= batch.bytes() as u64 {
            room[turn] -= batch.bytes() as u64;
            stage.settle(i, Arc::new(Resident { bytes, batch, device: device.clone() }));
        }
    }
    while let Some(work) = queued.pop_front() {
        take(work, &mut free, &mut lanes)?;
    }
    let moments = tree.finish(|a, b| a.merge(&b)).unwrap_or_else(|| GeneMoments::none(shape.n_vars));
    Ok(Some(Ahead { moments, decoded }))
}

/// A stream, and what it needs for one task after the other.
struct Lane {
    stream: Stream,
    unpack: Unpack,
    moments: Moments,
    sums: Sums,
    out: Buffer<f64>,
    /// Where the sums arrive.
    arrive: Option<Pinned<f64>>,
}

/// A task that has come.
enum Come {
    /// Its rows are staged.
    Staged(Arc<[Piece]>),
    /// Its moments are known.
    Known(GeneMoments),
}

/// A task on its way.
enum Work {
    Done(GeneMoments),
    Sent(Sent),
}

struct Sent {
    lane: usize,
    n_rows: u64,
    sums: Pending<f64>,
    /// What the kernels noticed.
    found: Buffer<u32>,
    rows: Lent<Pinned<u8>>,
}

impl Lane {
    fn new(device: &Arc<Device>, n_vars: usize, bound: f64) -> Result<Self> {
        let stream = device.stream()?;
        Ok(Lane {
            unpack: Unpack::new(device)?,
            moments: Moments::new(device)?,
            sums: Sums::new(&stream, n_vars, TASK_ROWS as usize, bound)?,
            out: stream.alloc(2 * n_vars)?,
            arrive: Some(device.pinned(2 * n_vars)?),
            stream,
        })
    }

    /// Queues the upload of a task and its sums; gives its place on the device, too.
    fn queue(&mut self, lane: usize, memory: Pinned<u8>, batch: &Batch, how: Logged) -> Result<(Work, Buffer<u8>)> {
        let stream = &self.stream;
        let (bytes, lent) = stream.upload_later(memory, 0..batch.bytes())?;
        let mut rows = self.unpack.rows(stream, &bytes, batch)?;
        self.moments.accumulate(stream, &mut rows, &Input { total: None, how, keep: None }, None, &mut self.sums)?;
        self.moments.take(stream, &mut self.sums, &mut self.out)?;
        let arrive = self.arrive.take().ok_or_else(|| Error::bug("a lane with two tasks"))?;
        let sums = stream.download_later(&self.out, arrive)?;
        Ok((Work::Sent(Sent { lane, n_rows: batch.n_rows() as u64, sums, found: rows.found, rows: lent }), bytes))
    }
}

impl Work {
    /// Waits for the sums.
    fn finish(self, free: &mut Vec<Pinned<u8>>, lanes: &mut [Lane]) -> Result<GeneMoments> {
        let Sent { lane, n_rows, sums, found, rows } = match self {
            Work::Done(moments) => return Ok(moments),
            Work::Sent(sent) => sent,
        };
        let lane = &mut lanes[lane];
        let sums = sums.wait()?;
        free.push(rows.wait()?);
        let found = lane.stream.download(&found, 2)?;
        Found::new([found[0], found[1]])?;
        let moments = GeneMoments::from_sums(n_rows, sums[..lane.out.len()].as_chunks::<2>().0);
        lane.arrive = Some(sums);
        Ok(moments)
    }
}

#[cfg(test)]
mod tests {
    use cellmill_cuda::Options;
    use cellmill_kernels::moments::accumulate;
    use cellmill_kernels::totals::row_totals;
    use cellmill_kernels::transform::normalize_log1p;
    use cellmill_matrix::Csr;

    use super::*;
    use crate::pca::held::Held;
    use crate::stage::{Allowance, Stage};

    const HOW: Logged = Logged { target_sum: Some(1e4), log1p: true, base: None };

    /// 9,000 cells, three tasks.
    fn counts() -> Csr {
        let mut x = Csr::empty(300);
        for i in 0..9000u32 {
            let columns: Vec<u32> = (0..300).filter(|j| (i * 31 + j * j * 17) % 13 < 3).collect();
            let values: Vec<f32> = columns.iter().map(|j| ((i % 7 + 1) * (j % 5 + 1)) as f32).collect();
            x.push_row(&columns, &values);
        }
        x
    }

    #[test]
    fn what_is_lacking_is_staged_once() {
        let source = Held(counts());
        let stage = Stage::new(3, &Allowance::new(1 << 30), None);
        let feed = Feed::new(&source, Some(&stage));
        assert!(fill(feed, &[]).unwrap());
        let staged: u64 =
            (0..3).filter_map(|task| stage.task(task)).flat_map(|pieces| pieces.iter().map(Piece::entries).collect::<Vec<_>>()).sum();
        assert_eq!(staged, source.0.nnz() as u64);
        assert!(!fill(feed, &[]).unwrap(), "nothing is lacking any more");
        assert!(!fill(Feed::source(&source), &[]).unwrap(), "no stage");
    }

    #[test]
    fn without_a_gpu_or_rows_nothing_is_found() {
        let source = Held(counts());
        let stage = Stage::new(3, &Allowance::new(1 << 30), None);
        let feed = Feed::new(&source, Some(&stage));
        let reading = Reading::default();
        assert!(reading.during(|| Err::<(), _>(Error::bug("no"))).is_err());
        assert!(moments(&[], feed, &[], HOW, 0..3, &reading).unwrap().is_none());
        if let Ok(device) = Device::open(&Options::default()) {
            assert!(moments(&[device], feed, &[], HOW, 0..3, &reading).unwrap().is_none());
        }
    }

    #[test]
    fn moments_are_the_cpus() {
        let Ok(device) = Device::open(&Options::default()) else { return };
        let source = Held(counts());
        let stage = Stage::new(3, &Allowance::new(1 << 30), None);
        let feed = Feed::new(&source, Some(&stage));
        let reading = Reading::default();
        // Two tasks are staged while it waits, the last is decoded by it.
        let found = std::thread::scope(|scope| {
            let found = scope.spawn(|| moments(&[device], feed, &[], HOW, 0..3, &reading));
            std::thread::sleep(Duration::from_millis(50));
            let read = || {
                fill(feed, &[])?;
                stage.forget(2);
                Ok(())
            };
            reading.during(read).unwrap();
            found.join().unwrap().unwrap().unwrap()
        });
        let mut logged = source.0.clone();
        normalize_log1p(&mut logged, true, &row_totals(&source.0).total, 1e4, None);
        let mut sums = vec![[0.0; 2]; 300];
        accumulate(&logged, &mut sums);
        let wanted = GeneMoments::from_sums(9000, &sums);
        assert_eq!(found.moments.n_obs, 9000);
        for j in 0..300 {
            assert!((found.moments.mean[j] - wanted.mean[j]).abs() <= 1e-9 * wanted.mean[j].abs());
            assert!((found.moments.squares[j] - wanted.squares[j]).abs() <= 1e-7 * wanted.squares[j].abs());
        }
        assert!((0..2).all(|task| stage.resident(task).is_some()));
        // In parts, as on workers: the same bits.
        let part =
            |tasks| moments(&[Device::open(&Options::default()).unwrap()], feed, &[], HOW, tasks, &reading).unwrap().unwrap().moments;
        let mut merged = part(0..2);
        merged.merge(&part(2..3));
        assert_eq!(merged, found.moments);
        stage.leave_devices();
        assert!(stage.resident(0).is_none());
    }
}

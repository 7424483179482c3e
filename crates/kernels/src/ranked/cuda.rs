//! Rank sums on a GPU: entries are laid column by column as rows pass, then runs of columns are sorted.
//!
//! Tolerance against the CPU: none for the same values; all sums are of whole numbers (the CPU adds up ties in f64: 1e-16 apart beyond 2^53).

use std::ops::Range;
use std::sync::Arc;

use cellmill_cuda::{Arg, Buffer, Device, Grid, Kernel, Source, Stream};
use cellmill_matrix::{Error, Result};

use crate::grouped::cuda::Kept;
use crate::pack::cuda::Rows;
use crate::transform::cuda::Logged;

/// The kernels.
pub const SOURCE: Source =
    Source { name: "ranked", parts: &[include_str!("../transform/logged.cuh"), include_str!("ranks.cu")], kernels: &KERNELS };
const KERNELS: [&str; 8] =
    ["count_columns", "scan_columns", "lay_columns", "gather", "count_digits", "scan_digits", "move_words", "sum_ranks"];

/// Most rows: t³ of as many ties fits in 64 bits.
pub const MOST_ROWS: u64 = 1 << 21;
/// Most groups, those of the rest among them: their sums fit in the memory of a block.
pub const MOST_GROUPS: usize = 2048;
/// Bytes of an entry that waits to be sorted.
pub const ENTRY_BYTES: u64 = 6;

/// Columns that are sorted at a time: one digit of a word.
const COLUMNS: usize = 256;
/// Entries that are sorted at a time, but for those of one column.
const ENTRIES: usize = 1 << 25;
/// Entries of a block that counts and moves words, and of one that sums ranks.
const TILE: usize = 4096;
const RANKED: usize = 2048;
/// Bits of a word where the digits begin: the value's, then the column's.
const SHIFTS: [u32; 5] = [16, 24, 32, 40, 48];

/// The kernels on one device.
#[derive(Clone, Debug)]
pub struct Ranked([Kernel; 8]);

/// Entries of some rows, column by column.
#[derive(Debug)]
pub struct Part {
    /// Where each column begins, and the end: `(n_kept + 1,)`, here and there.
    begins: Vec<u32>,
    starts: Buffer<u32>,
    values: Buffer<u32>,
    groups: Buffer<u16>,
}

/// What is found, but for zeros.
#[derive(Debug)]
pub struct RankSums {
    /// Twice the sum of ranks: `(n_kept, n_groups)`.
    pub twice: Vec<u64>,
    /// Σ t³ − t over runs of t equal values: `(n_kept,)`.
    pub ties: Vec<u64>,
    /// Entries above zero: `(n_kept,)`.
    pub lens: Vec<u32>,
}

impl Ranked {
    /// Compiles them, if that was not done before.
    pub fn new(device: &Arc<Device>) -> Result<Self> {
        let program = device.program(&SOURCE)?;
        let mut kernels = Vec::with_capacity(KERNELS.len());
        for name in KERNELS {
            kernels.push(program.kernel(name)?);
        }
        kernels.try_into().map(Ranked).map_err(|_| Error::bug("kernels of ranks"))
    }

    /// Bytes of device memory that sorting takes, beside the entries.
    pub fn bytes(n_rows: u64, n_kept: usize, n_groups: usize, n_parts: usize) -> u64 {
        let words = ENTRIES as u64 + n_rows;
        16 * words + words / 4 + 8 * (n_kept * n_groups) as u64 + 8 * (n_kept * n_parts) as u64 + (1 << 20)
    }

    /// Lays the entries of rows by column, transformed on the fly, and waits. `groups`: `(n_rows,)`, others than `0..n_groups` are left out.
    /// `negative` is set where a value is below zero or no number. After [`crate::grouped::cuda::Grouped::add`], which takes the totals.
    #[allow(clippy::too_many_arguments)] // as many as the rows have sides
    pub fn part(
        &self,
        stream: &Stream,
        rows: &Rows,
        how: &Logged,
        kept: &Kept,
        groups: &Buffer<u32>,
        n_groups: usize,
        negative: &Buffer<u32>,
    ) -> Result<Part> {
        if n_groups > MOST_GROUPS || groups.len() < rows.n_rows || !kept.fits(rows.n_cols) {
            return Err(Error::bug(format!("ranks of {n_groups} groups of {} rows", rows.n_rows)));
        }
        let n = kept.n_kept();
        let mut counts = stream.zeros::<u32>(n)?;
        let (mut starts, mut cursors) = (stream.alloc::<u32>(n + 1)?, stream.alloc::<u32>(n)?);
        let (mut values, mut to_groups) = (stream.alloc::<u32>(rows.values.len())?, stream.alloc::<u16>(rows.values.len())?);
        let [target, per, mode] = how.args();
        let [first, end] = rows.spans();
        let rows_args: [Arg; 14] = [
            first,
            end,
            (&rows.columns).into(),
            (&rows.values).into(),
            (rows.n_rows as u32).into(),
            (&rows.total).into(),
            target,
            per,
            mode,
            groups.into(),
            (n_groups as u32).into(),
            kept.map().into(),
            (&rows.found).into(),
            negative.into(),
        ];
        let grid = Grid::new(rows.n_rows.div_ceil(8), 256);
        let args = [&rows_args[..], &[(&mut counts).into()]].concat();
        // SAFETY: the arguments of `count_columns`; columns lie below `n_cols`, for which a map has places that lead below `n_kept`, or a
        // flag is set at which it returns.
        unsafe { stream.launch(&self.0[0], grid, &args)? };
        let args = [(&counts).into(), (n as u32).into(), (&mut starts).into(), (&mut cursors).into()];
        // SAFETY: the arguments of `scan_columns`.
        unsafe { stream.launch(&self.0[1], Grid::new(1, 1024), &args)? };
        let args = [&rows_args[..], &[(&mut cursors).into(), (&mut values).into(), (&mut to_groups).into()]].concat();
        // SAFETY: the arguments of `lay_columns`, which writes as many entries as were counted: no more than the rows have.
        unsafe { stream.launch(&self.0[2], grid, &args)? };
        let begins = stream.download(&starts, n + 1)?;
        Ok(Part { begins, starts, values, groups: to_groups })
    }

    /// The rank sums of all parts, of `n_rows` rows, and waits. What wrote the parts is done.
    pub fn sums(&self, stream: &Stream, parts: &[Part], n_kept: usize, n_groups: usize, n_rows: u64) -> Result<RankSums> {
        if n_rows > MOST_ROWS || n_groups > MOST_GROUPS || parts.iter().any(|part| part.begins.len() != n_kept + 1) {
            return Err(Error::bug(format!("ranks of {n_rows} rows in {n_groups} groups")));
        }
        let lens: Vec<u32> = (0..n_kept).map(|j| parts.iter().map(|part| part.begins[j + 1] - part.begins[j]).sum()).collect();
        let (runs, places) = runs(&lens);
        // Where each part's words of each column go in the column's run.
        let mut cursors = places.clone();
        let mut to = Vec::with_capacity(parts.len() * n_kept);
        for part in parts {
            for (cursor, ends) in cursors.iter_mut().zip(part.begins.windows(2)) {
                to.push(*cursor);
                *cursor += ends[1] - ends[0];
            }
        }
        let addresses = |of: &dyn Fn(&Part) -> u64| stream.upload(&parts.iter().map(of).collect::<Vec<u64>>());
        let starts_at = addresses(&|part| part.starts.address())?;
        let values_at = addresses(&|part| part.values.address())?;
        let groups_at = addresses(&|part| part.groups.address())?;
        let (to, there, there_lens) = (stream.upload(&to)?, stream.upload(&places)?, stream.upload(&lens)?);
        let of_run = |run: &Range<usize>| lens[run.clone()].iter().map(|&len| len as usize).sum::<usize>();
        let most = runs.iter().map(of_run).max().unwrap_or(0);
        let mut words = [stream.alloc::<u64>(most)?, stream.alloc::<u64>(most)?];
        let mut counts = stream.alloc::<u32>(256 * most.div_ceil(TILE))?;
        let mut totals = stream.alloc::<u32>(256)?;
        let mut twice = stream.zeros::<u64>(n_kept * n_groups)?;
        let mut ties = stream.zeros::<u64>(n_kept)?;
        for run in &runs {
            let n = of_run(run);
            if n == 0 {
                continue;
            }
            let args = [
                (&starts_at).into(),
                (&values_at).into(),
                (&groups_at).into(),
                (&to).into(),
                (parts.len() as u32).into(),
                (n_kept as u32).into(),
                (run.start as u32).into(),
                (run.len() as u32).into(),
                (&mut words[0]).into(),
            ];
            // SAFETY: the arguments of `gather`: addresses of arrays that `parts` holds, of which it reads what `begins` says, and places in
            // the run, which `words` has room for.
            unsafe { stream.launch(&self.0[3], Grid::over(32 * parts.len() * run.len(), 256), &args)? };
            let n_tiles = n.div_ceil(TILE);
            let (n_words, tiles) = ((n as u32).into(), (n_tiles as u32).into());
            for shift in &SHIFTS[..if run.len() > 1 { 5 } else { 4 }] {
                let [from, into] = &mut words;
                let args = [(&*from).into(), n_words, (*shift).into(), tiles, (&mut counts).into()];
                // SAFETY: the arguments of `count_digits`; `counts` has 256 places a tile.
                unsafe { stream.launch(&self.0[4], Grid::new(n_tiles, 256), &args)? };
                let args = [(&mut counts).into(), tiles, (&mut totals).into()];
                // SAFETY: the arguments of `scan_digits`, a block for each of 256 digits.
                unsafe { stream.launch(&self.0[5], Grid::new(256, 1024), &args)? };
                let args = [(&*from).into(), n_words, (*shift).into(), tiles, (&counts).into(), (&totals).into(), into.into()];
                // SAFETY: the arguments of `move_words`, which gives each of n words a place below n.
                unsafe { stream.launch(&self.0[6], Grid::new(n_tiles, 256), &args)? };
                words.swap(0, 1);
            }
            let args = [
                (&words[0]).into(),
                n_words,
                (run.start as u32).into(),
                (&there).into(),
                (&there_lens).into(),
                (n_groups as u32).into(),
                n_rows.into(),
                (&mut twice).into(),
                (&mut ties).into(),
            ];
            let grid = Grid { blocks: (n.div_ceil(RANKED) as u32, 1), threads: 256, shared: 8 * n_groups as u32 };
            // SAFETY: the arguments of `sum_ranks`: words of the run's columns, groups below `n_groups`.
            unsafe { stream.launch(&self.0[7], grid, &args)? };
        }
        Ok(RankSums { twice: stream.download(&twice, twice.len())?, ties: stream.download(&ties, n_kept)?, lens })
    }
}

/// Columns that are sorted together, and where each begins among them.
fn runs(lens: &[u32]) -> (Vec<Range<usize>>, Vec<u32>) {
    let (mut runs, mut places) = (Vec::new(), Vec::with_capacity(lens.len()));
    let (mut start, mut n) = (0, 0);
    for (j, &len) in lens.iter().enumerate() {
        if j > start && (j - start == COLUMNS || n + len as usize > ENTRIES) {
            runs.push(start..j);
            (start, n) = (j, 0);
        }
        places.push(n as u32);
        n += len as usize;
    }
    if start < lens.len() {
        runs.push(start..lens.len());
    }
    (runs, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_short_enough_to_sort() {
        let lens: Vec<u32> = (0..1000).map(|j| if j == 300 { 1 << 21 } else { 1000 * (j % 97) }).collect();
        let (found, places) = runs(&lens);
        assert_eq!(found.iter().map(|run| run.len()).sum::<usize>(), 1000);
        for run in found {
            let n: u64 = lens[run.clone()].iter().map(|&len| u64::from(len)).sum();
            assert!(run.len() <= COLUMNS && n <= ENTRIES as u64);
            let mut at = 0;
            for j in run {
                assert_eq!(places[j], at);
                at += lens[j];
            }
        }
        assert_eq!(runs(&[]), (vec![], vec![]));
        let (found, places) = runs(&[5, 0, 7]);
        assert_eq!((found.len(), found[0].clone(), places), (1, 0..3, vec![0, 5, 5]));
    }
}

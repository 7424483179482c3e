//! Frames on a GPU: literals and sequences, then bytes.

use std::cmp::Reverse;
use std::sync::Arc;

use cellmill_cuda::{Buffer, Device, Grid, Kernel, Source, Tray};
use cellmill_matrix::{Error, Result};

use super::tables::TABLE;
use super::{Frames, Literals};
use crate::decode::cuda::SLACK;

/// Frames to bytes.
pub const SOURCE: Source = Source { name: "zstd", parts: &[include_str!("zstd.cu")], kernels: &["zstd_entropy", "zstd_copy"] };

/// Bytes of what is told of each frame, block, block of literals, chain and table.
pub(super) const RECORDS: [usize; 5] = [24, 24, 88, 40, TABLE];
/// Blocks that share a warp (`TEAM` of zstd.cu).
const TEAM: usize = 4;

/// The kernels on one device.
#[derive(Clone, Debug)]
pub struct Zstd {
    entropy: Kernel,
    copy: Kernel,
}

/// Threads of a frame (`THREADS` of zstd.cu).
const THREADS: u32 = 512;

/// Two numbers as one word.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

impl Zstd {
    /// Compiles them, if that was not done before.
    pub fn new(device: &Arc<Device>) -> Result<Self> {
        let program = device.program(&SOURCE)?;
        Ok(Zstd { entropy: program.kernel("zstd_entropy")?, copy: program.kernel("zstd_copy")? })
    }

    /// Undoes the compression of frames, from `bytes` to `out`. `found[0]` is raised to 1 by a damaged one.
    pub fn decode(&self, tray: &mut Tray, bytes: &Buffer<u8>, frames: &Frames, out: &mut Buffer<u8>, found: &Buffer<u32>) -> Result<()> {
        if frames.frames.is_empty() {
            return Ok(());
        }
        let [read, written] = frames.ends;
        if read + SLACK as u64 > bytes.len() as u64 || written > out.len() as u64 || found.is_empty() {
            return Err(Error::bug(format!("frames up to byte {read} of {}, and to byte {written} of {}", bytes.len(), out.len())));
        }
        let (n_chains, n_coded) = (frames.chains.len(), frames.coded.len());
        // Those that take longest first, and beside others that take as long.
        let mut chains = frames.chains.clone();
        chains.sort_by_key(|chain| Reverse(chain.n));
        let mut coded = frames.coded.clone();
        coded.sort_by_key(|coded| Reverse(coded.len));
        let chains = chains.iter().flat_map(|c| {
            let [literals, offsets, matches] = c.tables;
            [c.bits.from, c.bits.len.into(), pair(c.n, c.to), pair(c.literals, literals), pair(offsets, matches)]
        });
        let coded = coded.iter().flat_map(|c| {
            let streams = c.streams.iter().flat_map(|bits| [bits.from, bits.len.into()]);
            streams.chain([c.to, pair(c.n_streams, c.len), pair(c.table, c.bits)])
        });
        let blocks = frames.blocks.iter().flat_map(|b| {
            let (kind, at) = match b.literals {
                Literals::Stored(at) => (0, at),
                Literals::Same(at) => (1, at),
                Literals::Decoded(at) => (2, at),
            };
            [at, pair(kind, b.len), pair(b.sequence, b.n)]
        });
        let places = frames.frames.iter().flat_map(|f| [f.to, pair(f.len, f.block), f.blocks.into()]);
        let chains = tray.upload(&chains.collect::<Vec<u64>>())?;
        let coded = tray.upload(&coded.collect::<Vec<u64>>())?;
        let blocks = tray.upload(&blocks.collect::<Vec<u64>>())?;
        let places = tray.upload(&places.collect::<Vec<u64>>())?;
        let tables = tray.upload(frames.tables.as_flattened())?;
        let stream = tray.stream();
        let mut sequences = stream.alloc::<u64>(frames.sequences as usize)?;
        let mut literals = stream.alloc::<u8>(frames.literals as usize)?;
        let grid = Grid::new(n_chains.div_ceil(TEAM) + n_coded.div_ceil(TEAM), 32);
        if grid.blocks.0 > 0 {
            let (n_chains, n_coded) = ((n_chains as u32).into(), (n_coded as u32).into());
            let (chains, coded) = ((&chains).into(), (&coded).into());
            let args = [
                bytes.into(),
                (&tables).into(),
                chains,
                n_chains,
                coded,
                n_coded,
                (&mut sequences).into(),
                (&mut literals).into(),
                found.into(),
            ];
            // SAFETY: the arguments of `zstd_entropy`. What `Frames` says lies in `bytes`, whose length was seen above, and in memory for
            // as many literals and sequences as it counted; the kernel checks what the coded bits say.
            unsafe { stream.launch(&self.entropy, grid, &args)? };
        }
        let (sequences, literals) = ((&sequences).into(), (&literals).into());
        let args = [bytes.into(), (&places).into(), (&blocks).into(), sequences, literals, out.into(), found.into()];
        // SAFETY: the arguments of `zstd_copy`, which stays inside the bytes of each frame; these lie in `out`, as was seen above.
        unsafe { stream.launch(&self.copy, Grid::new(frames.frames.len(), THREADS), &args) }
    }
}

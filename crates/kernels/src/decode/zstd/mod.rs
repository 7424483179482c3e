//! What zstd frames say of themselves (RFC 8878): where their literals and sequences lie, and by which tables these are coded.
//!
//! Blocks, headers and descriptions of tables are read here, no literal and no sequence. What is rare is left to others: dictionaries,
//! checksums, frames of unknown length, several frames in one, codes of more than eleven bits. So is what is damaged, as far as it shows.

pub mod cuda;
mod front;
mod tables;
#[cfg(test)]
mod tests;

use cellmill_matrix::{Compression, Streams};

use self::front::{Bits, Front};
use self::tables::{KINDS, Table, counted, counts, weights};

/// Most bytes of a block once decoded.
const BLOCK: u32 = 128 << 10;
/// Bytes of a frame once decoded, less than.
const MOST: u32 = 1 << 27;
/// Blocks that a frame may have, and one more for each so many bytes.
const FEW_BLOCKS: u64 = 64;
const SMALL_BLOCK: u64 = 1 << 10;
/// Shortest match.
const LEAST_MATCH: u64 = 3;
/// Words behind the sequences of a block: where it ends, and the offsets that it leaves.
const BEHIND: u32 = 3;

/// A frame: where it goes, its bytes, its first block and its blocks.
#[derive(Clone, Copy, Debug)]
struct Frame {
    to: u64,
    len: u32,
    block: u32,
    blocks: u32,
}

/// Where the literals of a block are.
#[derive(Clone, Copy, Debug)]
enum Literals {
    /// From this stored byte on.
    Stored(u64),
    /// This stored byte, again and again.
    Same(u64),
    /// From this byte of all decoded literals on.
    Decoded(u64),
}

/// A block: its literals, and its sequences among all of them.
#[derive(Clone, Copy, Debug)]
struct Block {
    literals: Literals,
    len: u32,
    sequence: u32,
    n: u32,
}

/// Huffman codes of the literals of a block, in one stream or four.
#[derive(Clone, Copy, Debug)]
struct Coded {
    streams: [Bits; 4],
    n_streams: u32,
    /// First of all decoded literals.
    to: u64,
    len: u32,
    table: u32,
    /// Longest code.
    bits: u32,
}

/// Codes of the sequences of a block.
#[derive(Clone, Copy, Debug)]
struct Chain {
    bits: Bits,
    n: u32,
    /// First of all sequences.
    to: u32,
    /// Literals of the block.
    literals: u32,
    /// Of literal lengths, offsets and match lengths.
    tables: [u32; 3],
}

/// Frames that are decoded together.
#[derive(Clone, Debug)]
pub struct Frames {
    frames: Vec<Frame>,
    blocks: Vec<Block>,
    coded: Vec<Coded>,
    chains: Vec<Chain>,
    tables: Vec<Table>,
    /// Literals that are decoded.
    literals: u64,
    /// Words of sequences.
    sequences: u32,
    /// Behind the last byte that is read, and behind the last that is written.
    ends: [u64; 2],
}

/// How far [`Frames`] had come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    lens: [usize; 5],
    literals: u64,
    sequences: u32,
    ends: [u64; 2],
}

/// What later blocks of a frame may use again.
#[derive(Default)]
struct Before {
    literals: Option<(u32, u32)>,
    sequences: [Option<u32>; 3],
}

impl Default for Frames {
    fn default() -> Self {
        let tables = KINDS.iter().map(|kind| counted(kind.usual.0, kind.usual.1)).collect();
        Frames { frames: vec![], blocks: vec![], coded: vec![], chains: vec![], tables, literals: 0, sequences: 0, ends: [0; 2] }
    }
}

impl Frames {
    /// Adds the frames of a stored chunk, which will lie at byte `from` on, and whose bytes go to byte `to` on. `None`, and nothing added,
    /// if one of them can't be decoded. Streams that are no frames are left out.
    pub fn add(&mut self, stored: &[u8], streams: &Streams, from: u64, to: u64) -> Option<()> {
        if streams.compression != Compression::Zstd {
            return Some(());
        }
        let before = self.mark();
        let added = streams.streams.iter().filter(|s| s.stored != s.len).try_for_each(|s| {
            let bytes = stored.get(usize::try_from(s.from).ok()?..)?.get(..s.stored as usize)?;
            self.frame(Front { bytes, at: from + s.from }, to + s.to, s.len)
        });
        if added.is_none() {
            self.back(before);
        }
        added
    }

    /// How many there are now.
    pub fn mark(&self) -> Mark {
        let lens = [self.frames.len(), self.blocks.len(), self.coded.len(), self.chains.len(), self.tables.len()];
        Mark { lens, literals: self.literals, sequences: self.sequences, ends: self.ends }
    }

    /// Forgets what was added since.
    pub fn back(&mut self, to: Mark) {
        let [frames, blocks, coded, chains, tables] = to.lens;
        self.frames.truncate(frames);
        self.blocks.truncate(blocks);
        self.coded.truncate(coded);
        self.chains.truncate(chains);
        self.tables.truncate(tables);
        (self.literals, self.sequences, self.ends) = (to.literals, to.sequences, to.ends);
    }

    /// Bytes of device memory that decoding takes, beside the stored and the decoded ones.
    pub fn bytes(&self) -> u64 {
        let records: usize = self.mark().lens.iter().zip(cuda::RECORDS).map(|(len, bytes)| len * bytes).sum();
        self.literals + 8 * u64::from(self.sequences) + records as u64
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.back(Mark { lens: [0, 0, 0, 0, KINDS.len()], ..Mark::default() });
    }

    fn frame(&mut self, mut front: Front<'_>, to: u64, len: u32) -> Option<()> {
        let end = front.at + front.bytes.len() as u64;
        if front.number(4)? != 0xFD2F_B528 || len >= MOST {
            return None;
        }
        let descriptor = front.number(1)?;
        let (single, size) = (descriptor >> 5 & 1 == 1, descriptor >> 6);
        // A checksum, a dictionary, a bit that must be zero.
        if descriptor & 0b1111 != 0 {
            return None;
        }
        let window = if single { None } else { Some(front.number(1)?) };
        let known = match size {
            0 if single => front.number(1)?,
            0 => return None,
            1 => front.number(2)? + 256,
            2 => front.number(4)?,
            _ => front.number(8)?,
        };
        let window = window.map_or(known, |w| {
            let base = 1u64 << (10 + (w >> 3));
            base + base / 8 * (w & 7)
        });
        if known != u64::from(len) || window > 1 << 31 {
            return None;
        }
        let most = window.min(u64::from(BLOCK));
        let first = self.blocks.len();
        let mut before = Before::default();
        // Bytes that blocks make at least.
        let mut made = 0u64;
        loop {
            let header = front.number(3)?;
            let size = header >> 3;
            if size > most {
                return None;
            }
            let plain = |literals| Block { literals, len: size as u32, sequence: 0, n: 0 };
            let block = match header >> 1 & 3 {
                0 => plain(Literals::Stored(front.take(size as usize)?.at)),
                1 => plain(Literals::Same(front.take(1)?.at)),
                2 => self.block(front.take(size as usize)?, &mut before)?,
                _ => return None,
            };
            made += u64::from(block.len) + LEAST_MATCH * u64::from(block.n);
            // Blocks are large; many small ones would take more memory here than what they make.
            if made > u64::from(len) || (self.blocks.len() - first) as u64 > FEW_BLOCKS + u64::from(len) / SMALL_BLOCK {
                return None;
            }
            self.blocks.push(block);
            if header & 1 == 1 {
                break;
            }
        }
        let blocks = (self.blocks.len() - first) as u32;
        self.frames.push(Frame { to, len, block: first as u32, blocks });
        self.ends = [self.ends[0].max(end), self.ends[1].max(to + u64::from(len))];
        front.bytes.is_empty().then_some(())
    }

    fn block(&mut self, mut front: Front<'_>, before: &mut Before) -> Option<Block> {
        let (literals, len) = self.block_literals(&mut front, before)?;
        let n = match front.number(1)? {
            n @ 0..128 => n,
            n @ 128..255 => ((n - 128) << 8) + front.number(1)?,
            _ => front.number(2)? + 0x7F00,
        } as u32;
        if n == 0 {
            return front.bytes.is_empty().then_some(Block { literals, len, sequence: 0, n });
        }
        if u64::from(len) + LEAST_MATCH * u64::from(n) > u64::from(BLOCK) {
            return None;
        }
        let modes = front.number(1)?;
        if modes & 3 != 0 {
            return None;
        }
        let mut tables = [0; 3];
        for (k, kind) in KINDS.iter().enumerate() {
            tables[k] = match modes >> (6 - 2 * k) & 3 {
                0 => k as u32,
                1 => {
                    let symbol = front.number(1)? as usize;
                    let mut counts = vec![0; symbol + 1];
                    counts[symbol] = 1;
                    (symbol <= kind.symbols).then(|| self.table(counted(0, &counts)))?
                }
                2 => {
                    let (log, counts) = counts(&mut front, kind.symbols, kind.log)?;
                    self.table(counted(log, &counts))
                }
                _ => before.sequences[k]?,
            };
            before.sequences[k] = Some(tables[k]);
        }
        let sequence = self.sequences;
        self.chains.push(Chain { bits: front.bits()?, n, to: sequence, literals: len, tables });
        self.sequences = sequence.checked_add(n + BEHIND)?;
        Some(Block { literals, len, sequence, n })
    }

    fn block_literals(&mut self, front: &mut Front<'_>, before: &mut Before) -> Option<(Literals, u32)> {
        let first = u64::from(*front.bytes.first()?);
        let (kind, format) = (first & 3, first >> 2 & 3);
        if kind < 2 {
            let len = match format {
                0 | 2 => front.number(1)? >> 3,
                1 => front.number(2)? >> 4,
                _ => front.number(3)? >> 4,
            };
            let literals = match kind {
                0 => Literals::Stored(front.take(len as usize)?.at),
                _ => Literals::Same(front.take(1)?.at),
            };
            return (len <= u64::from(BLOCK)).then_some((literals, len as u32));
        }
        let (header, width) = [(3, 10), (3, 10), (4, 14), (5, 18)][format as usize];
        let sizes = front.number(header)? >> 4;
        let (len, stored) = ((sizes & ((1 << width) - 1)) as u32, (sizes >> width) as usize);
        let n_streams = if format == 0 { 1 } else { 4 };
        let mut coded = front.take(stored)?;
        if len == 0 || len > BLOCK || (n_streams == 4 && len < 6) {
            return None;
        }
        if kind == 2 {
            let (table, bits) = weights(&mut coded)?;
            before.literals = Some((self.table(table), bits));
        }
        let (table, bits) = before.literals?;
        let mut streams = [Bits::default(); 4];
        if n_streams == 1 {
            streams[0] = coded.bits()?;
        } else {
            let mut jumps = coded.take(6)?;
            for stream in &mut streams[..3] {
                *stream = coded.take(jumps.number(2)? as usize)?.bits()?;
            }
            streams[3] = coded.bits()?;
        }
        let to = self.literals;
        self.literals += u64::from(len);
        self.coded.push(Coded { streams, n_streams, to, len, table, bits });
        Some((Literals::Decoded(to), len))
    }

    fn table(&mut self, table: Table) -> u32 {
        self.tables.push(table);
        self.tables.len() as u32 - 1
    }
}

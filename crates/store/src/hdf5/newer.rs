//! What `libver="latest"` writes, told in the words of older versions, which `hdf5-pure` reads.
//!
//! HDF5 2.0 gives data layout messages version 5. Their bytes are those of version 4; what differs is the width of a chunk's
//! length in the chunk list, which each list states itself. Datasets with several unlimited axes list their chunks in a version 2
//! B-tree, which is made into one of version 1 here and answered from memory, at addresses beyond the end of the file.
//! Object headers are changed as they are read; one whose checksum is wrong stays as it is, and is refused. Soft links in symbol
//! tables are left out: `links` follows them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cellmill_matrix::{ErrorKind, Place};
use hdf5_pure::{FormatError, Source};

use super::heap::le;
use super::links::without_soft;
use super::message::{ChunkAt, checksum, chunk_tree, kind};
use super::raw::RawFile;

/// Chunk lists of more entries than this are refused: they would take more than a gigabyte as they are turned into another.
const MOST_CHUNKS: u64 = 1 << 22;

/// A file whose newer parts read as older ones.
pub(super) struct Older {
    file: Arc<RawFile>,
    made: Mutex<Made>,
}

/// Version 1 B-trees that stand for version 2 ones.
#[derive(Default)]
struct Made {
    /// Bytes that lie beyond the end of the file.
    bytes: Vec<u8>,
    /// Where the tree that replaces the one at an address begins.
    trees: HashMap<u64, u64>,
}

impl Older {
    pub fn new(file: Arc<RawFile>) -> Self {
        Older { file, made: Mutex::default() }
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the messages of a whole, sound object header chunk (IV.A.1.b, version 2).
    fn translate(&self, chunk: &mut [u8]) {
        let Some((flags, first)) = messages_at(chunk) else { return };
        let end = chunk.len() - 4;
        if checksum(&chunk[..end]).to_le_bytes() != chunk[end..] {
            return;
        }
        let head = if flags & 4 != 0 { 6 } else { 4 };
        let (mut axes, mut layout) = (None, None);
        let mut at = first;
        while at + head <= end {
            let length = usize::from(u16::from_le_bytes([chunk[at + 1], chunk[at + 2]]));
            let Some(body) = chunk.get(at + head..at + head + length).filter(|_| at + head + length <= end) else { return };
            match chunk[at] {
                kind::DATASPACE => axes = lengths(body),
                kind::LAYOUT => layout = Some(at + head..at + head + length),
                _ => {}
            }
            at += head + length;
        }
        let Some(layout) = layout else { return };
        if self.older(&mut chunk[layout], axes.as_deref()) {
            let sum = checksum(&chunk[..end]);
            chunk[end..].copy_from_slice(&sum.to_le_bytes());
        }
    }

    /// Makes an older data layout message of a newer one, in place; whether anything changed.
    fn older(&self, layout: &mut [u8], axes: Option<&[u64]>) -> bool {
        let [version @ (4 | 5), class, ..] = *layout else { return false };
        let changed = version == 5;
        layout[0] = 4;
        // Chunks: flags, number of lengths, bytes of a length, lengths, kind of list, what it needs, its address (IV.A.2.i).
        let (CHUNKED, Some(&[_, _, _, n, width, ..])) = (class, layout.first_chunk::<5>()) else { return changed };
        let (n, width) = (usize::from(n), usize::from(width));
        let list = 5 + n * width;
        if layout.get(list) != Some(&BTREE2) || layout.len() != list + 1 + 6 + 8 || layout.len() < 11 + 4 * n || n < 2 {
            return changed;
        }
        let chunk: Vec<u64> = layout[5..list].chunks_exact(width).map(le).collect();
        let address = le(&layout[list + 7..]);
        let Some(tree) = axes.filter(|a| a.len() == n - 1).and_then(|axes| self.tree(address, axes, &chunk)) else { return changed };
        let mut old = vec![3, CHUNKED, n as u8];
        old.extend(tree.to_le_bytes());
        chunk.iter().for_each(|&length| old.extend((length as u32).to_le_bytes()));
        old.resize(layout.len(), 0);
        layout.copy_from_slice(&old);
        true
    }

    /// The version 1 tree with the chunks of the version 2 tree at `address`; `None` if that is damaged.
    fn tree(&self, address: u64, axes: &[u64], chunk: &[u64]) -> Option<u64> {
        if address == u64::MAX {
            return Some(address);
        }
        if let Some(&made) = self.made().trees.get(&address) {
            return Some(made);
        }
        let (_, lengths) = chunk.split_last()?;
        if chunk.iter().any(|&c| c == 0 || c > u64::from(u32::MAX)) {
            return None;
        }
        let grid: Vec<u64> = axes.iter().zip(lengths).map(|(n, c)| n.div_ceil(*c)).collect();
        let whole = chunk.iter().try_fold(1u64, |all, &c| all.checked_mul(c)).and_then(|b| u32::try_from(b).ok())?;
        let mut chunks = Tree::chunked(&self.file, address, axes.len())?.chunks(&grid, whole)?;
        chunks.sort_unstable_by_key(|c| c.number);
        let mut made = self.made();
        let base = self.file.len - self.file.base;
        let bytes = &mut made.bytes;
        let put = |more: &[u8]| {
            let at = base + bytes.len() as u64;
            bytes.extend_from_slice(more);
            Ok::<u64, std::convert::Infallible>(at)
        };
        let Ok(root) = chunk_tree(&chunks, &grid, lengths, put);
        made.trees.insert(address, root);
        Some(root)
    }
}

/// Class of a layout in chunks, and the kind of list that is a version 2 B-tree.
const CHUNKED: u8 = 2;
const BTREE2: u8 = 5;
/// Classes of a version 2 B-tree: links by name, chunks, and chunks that filters have changed.
const NAMES: u8 = 5;
const CHUNKS: u8 = 10;
const FILTERED: u8 = 11;

/// Flags of an object header, and where its messages begin; `None` unless `chunk` is one whole chunk of it.
fn messages_at(chunk: &[u8]) -> Option<(u8, usize)> {
    match chunk.first_chunk::<6>()? {
        [b'O', b'H', b'D', b'R', 2, flags] => {
            let times = if flags & 0x20 != 0 { 16 } else { 0 };
            let phases = if flags & 0x10 != 0 { 4 } else { 0 };
            let (at, width) = (6 + times + phases, 1usize << (flags & 3));
            let size = usize::try_from(le(chunk.get(at..at + width)?)).ok()?;
            (at + width).checked_add(size)?.checked_add(4).filter(|&end| end == chunk.len())?;
            Some((*flags, at + width))
        }
        // A continuation does not say whether messages have a number; nobody writes a layout there.
        _ => None,
    }
}

/// Lengths of the axes by a dataspace message (IV.A.2.b).
fn lengths(body: &[u8]) -> Option<Vec<u64>> {
    let (&[version, rank], rest) = body.split_first_chunk::<2>()?;
    let at = if version == 1 { 6 } else { 2 };
    let list = rest.get(at..at + 8 * usize::from(rank))?;
    Some(list.chunks_exact(8).map(le).collect())
}

/// A version 2 B-tree (III.A.2).
pub(super) struct Tree<'a> {
    file: &'a RawFile,
    /// What is in it, as a number.
    class: u8,
    /// Axes of the array whose chunks are in it.
    rank: usize,
    node: usize,
    record: usize,
    depth: u16,
    root: u64,
    in_root: usize,
    total: u64,
    /// For each height: the most records of a node, and the bytes of a number of records below it.
    levels: Vec<(u64, usize)>,
}

/// Bytes that hold numbers up to `most`.
fn width(most: u64) -> usize {
    most.max(1).ilog2() as usize / 8 + 1
}

impl<'a> Tree<'a> {
    /// A list of chunks, of as many axes as `rank`.
    fn chunked(file: &'a RawFile, address: u64, rank: usize) -> Option<Self> {
        let tree = Tree { rank, ..Tree::open(file, address)? };
        let least = match tree.class {
            CHUNKS => 8 + 8 * rank,
            FILTERED => 8 + 8 * rank + 5,
            _ => return None,
        };
        (least..=least + 7).contains(&tree.record).then_some(tree)
    }

    /// A list of the links of a group, by name: a hash (4 bytes), and where each lies in a heap.
    pub fn names(file: &'a RawFile, address: u64) -> Option<Self> {
        Tree::open(file, address).filter(|tree| tree.class == NAMES && tree.record > 4)
    }

    fn open(file: &'a RawFile, address: u64) -> Option<Self> {
        let head = file.part(address, 38)?;
        let word = |at: usize, len: usize| le(&head[at..at + len]);
        if !head.starts_with(b"BTHD\0") {
            return None;
        }
        if checksum(&head[..34]).to_le_bytes() != head[34..] {
            return None;
        }
        let (node, record, depth) = (word(6, 4) as usize, word(10, 2) as usize, word(12, 2) as u16);
        if record == 0 || node > 1 << 24 || node < 64 + record || depth > 16 {
            return None;
        }
        let mut levels = vec![((node - 10) as u64 / record as u64, 0)];
        let mut all = levels[0].0;
        for _ in 0..depth {
            let pointer = 8 + width(levels[0].0) + levels.last()?.1;
            let most = (node - 10).checked_sub(pointer)? as u64 / (record + pointer) as u64;
            all = (most + 1).checked_mul(all)?.checked_add(most)?;
            levels.push((most, width(all)));
        }
        let (root, in_root, total) = (word(16, 8), word(24, 2) as usize, word(26, 8));
        Some(Tree { file, class: head[5], rank: 0, node, record, depth, root, in_root, total, levels })
    }

    /// All chunks that lie inside the grid; `whole` is the length of one that no filter has changed.
    fn chunks(&self, grid: &[u64], whole: u32) -> Option<Vec<ChunkAt>> {
        if self.total > MOST_CHUNKS {
            return None;
        }
        let mut out = Vec::new();
        if self.total > 0 {
            self.visit_all(&mut |record| {
                let (address, rest) = record.split_at(8);
                let (size, rest) = rest.split_at(rest.len() - 8 * self.rank);
                let (size, mask) =
                    if self.class == FILTERED { (le(&size[..size.len() - 4]), le(&size[size.len() - 4..])) } else { (whole.into(), 0) };
                let mut number = Some(0u64);
                for (corner, n) in rest.chunks_exact(8).map(le).zip(grid) {
                    number = number.filter(|_| corner < *n).and_then(|all| all.checked_mul(*n)?.checked_add(corner));
                }
                // Chunks outside the shape are what is left of a larger array.
                if let Some(number) = number {
                    out.push(ChunkAt { size: u32::try_from(size).ok()?, mask: mask as u32, address: le(address), number });
                }
                (out.len() as u64 <= self.total).then_some(())
            })?;
        }
        Some(out)
    }

    /// Hands on all records.
    pub fn visit_all(&self, take: &mut dyn FnMut(&[u8]) -> Option<()>) -> Option<()> {
        if self.total == 0 { Some(()) } else { self.visit(self.root, self.in_root, usize::from(self.depth), take) }
    }

    /// Hands on the records of a node and of those below it.
    fn visit(&self, at: u64, n: usize, height: usize, take: &mut dyn FnMut(&[u8]) -> Option<()>) -> Option<()> {
        let bytes = self.file.part(at, self.node as u64)?;
        let sign: &[u8] = if height == 0 { b"BTLF" } else { b"BTIN" };
        if !bytes.starts_with(sign) || n as u64 > self.levels[height].0 {
            return None;
        }
        // A leaf has no pointers; after the last one stands the checksum.
        let count = width(self.levels[0].0);
        let pointer = if height > 0 { 8 + count + self.levels[height - 1].1 } else { 0 };
        let middle = 6 + n * self.record;
        let end = middle + pointer * if height > 0 { n + 1 } else { 0 };
        let stored = bytes.get(end..end + 4)?;
        if checksum(&bytes[..end]).to_le_bytes() != stored {
            return None;
        }
        bytes[6..middle].chunks_exact(self.record).try_for_each(&mut *take)?;
        for pointer in bytes[middle..end].chunks_exact(pointer.max(1)) {
            self.visit(le(&pointer[..8]), le(&pointer[8..8 + count]) as usize, height - 1, take)?;
        }
        Some(())
    }
}

/// The operating system's or the server's own words: whoever asked adds the place.
fn message(error: &cellmill_matrix::Error) -> String {
    match error.kind() {
        ErrorKind::Io { message, .. } => message.clone(),
        _ => error.to_string(),
    }
}

impl Source for Older {
    fn len(&self) -> u64 {
        self.file.len + self.made().bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        let cut = |available: u64| FormatError::UnexpectedEof { expected: buf.len(), available: available as usize };
        if offset >= self.file.len {
            let made = self.made();
            let at = (offset - self.file.len) as usize;
            let part = at.checked_add(buf.len()).and_then(|end| made.bytes.get(at..end));
            buf.copy_from_slice(part.ok_or_else(|| cut(0))?);
            return Ok(());
        }
        if self.file.check(offset, buf.len() as u64, Place::default).is_err() {
            return Err(cut(self.file.len - offset));
        }
        self.file.fill(offset, buf, Place::default).map_err(|e| FormatError::Source(message(&e)))?;
        self.translate(buf);
        without_soft(buf);
        Ok(())
    }
}

//! Where the names in a group lead (HDF5 file format 3.0, III.A to III.G, IV.A.2.c, g, r).
//!
//! `hdf5-pure` follows hard links alone. Soft ones are followed here, and it is asked for the path without them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::heap::le;
use super::message::kind;
use super::newer::Tree;
use super::raw::RawFile;
use crate::tree::LostLink;

/// Soft links that are followed on the way to one object; HDF5 itself follows 16.
const MOST_FOLLOWED: usize = 64;
/// Bytes of a group that are looked at, and what each part of it counts besides: a damaged one may go round in circles.
const MOST_BYTES: u64 = 1 << 26;
const PART: u64 = 256;

/// Where a name leads.
enum Link {
    /// To the object at an address.
    Hard(u64),
    /// To a path, from the root or from the group of the link.
    Soft(String),
    /// Into another file.
    External(String),
}

type Names = Arc<HashMap<String, Link>>;

/// The links of a file, each group's read once.
pub(super) struct Links {
    file: Arc<RawFile>,
    root: u64,
    groups: Mutex<HashMap<u64, Names>>,
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = String> + '_ {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_string)
}

impl Links {
    /// The links of a file whose root group lies at `root`.
    pub fn new(file: Arc<RawFile>, root: u64) -> Self {
        Links { file, root, groups: Mutex::default() }
    }

    /// The path without soft links of what lies at a path that has some, or why nothing does; `None` where no link is on the way.
    pub fn follow(&self, path: &str) -> Option<Result<String, LostLink>> {
        let mut rest: Vec<String> = parts(path).rev().collect();
        let (mut group, mut at, mut followed) = (self.root, Vec::new(), 0);
        // The link that is being followed, and how many names of the path come after it.
        let mut link: Option<(String, usize)> = None;
        let lost = |link: &Option<(String, usize)>, found: Option<String>, expected: String| {
            let found = found.or_else(|| link.as_ref().map(|(target, _)| format!("a link to {target}")));
            found.map(|found| Err(LostLink { name: parts(path).next_back().unwrap_or_default(), found, expected }))
        };
        while let Some(name) = rest.pop() {
            match self.names(group).get(&name) {
                Some(Link::Hard(address)) => {
                    group = *address;
                    at.push(name);
                }
                Some(Link::Soft(target)) => {
                    if link.as_ref().is_none_or(|(_, after)| rest.len() < *after) {
                        link = Some((target.clone(), rest.len()));
                    }
                    followed += 1;
                    if followed > MOST_FOLLOWED {
                        return lost(&link, None, "links lead on from there, in a circle".into());
                    }
                    if target.starts_with('/') {
                        group = self.root;
                        at.clear();
                    }
                    rest.extend(parts(target).rev());
                }
                Some(Link::External(file)) => {
                    return lost(&link, Some(format!("an external link to {file}")), format!("one file is read: open {file}"));
                }
                // What is absent below the object that a link leads to is no fault of the link.
                None => {
                    let dangling = link.as_ref().is_some_and(|(_, after)| rest.len() >= *after);
                    return if dangling { lost(&link, None, "nothing is there".into()) } else { None };
                }
            }
        }
        (followed > 0).then(|| Ok(at.join("/")))
    }

    /// The links of a group that are not hard: where each leads, or why it does not. A link to a group that it lies in leads nowhere.
    pub fn soft(&self, path: &str) -> Vec<(String, Result<String, LostLink>)> {
        let plain = |path: &str| self.follow(path).map_or_else(|| Some(parts(path).collect::<Vec<_>>().join("/")), Result::ok);
        let Some(own) = plain(path) else { return Vec::new() };
        let mut group = self.root;
        for name in parts(&own) {
            let names = self.names(group);
            let Some(Link::Hard(address)) = names.get(&name) else { return Vec::new() };
            group = *address;
        }
        let way: Vec<String> = parts(path).collect();
        let above: Vec<String> = (0..=way.len()).filter_map(|n| plain(&way[..n].join("/"))).collect();
        let names = self.names(group);
        let mut soft = Vec::new();
        for (name, link) in names.iter() {
            let target = match link {
                Link::Hard(_) => continue,
                Link::Soft(target) => target.as_str(),
                Link::External(_) => "",
            };
            let Some(mut end) = self.follow(&format!("{path}/{name}")) else { continue };
            if end.as_ref().is_ok_and(|end| above.iter().any(|a| a == end)) {
                let (found, expected) = (format!("a link to {target}"), "it lies inside that group".into());
                end = Err(LostLink { name: name.clone(), found, expected });
            }
            soft.push((name.clone(), end));
        }
        soft.sort_by(|a, b| a.0.cmp(&b.0));
        soft
    }

    /// The links of the group at an address; none where no group lies there, or a damaged one.
    fn names(&self, address: u64) -> Names {
        let lock = || self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = lock().get(&address) {
            return names.clone();
        }
        let mut reader = Reader { file: &self.file, links: HashMap::new(), left: MOST_BYTES };
        let names = Arc::new(reader.group(address).map(|()| reader.links).unwrap_or_default());
        lock().insert(address, names.clone());
        names
    }
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, n: usize) -> Option<u64> {
        self.take(n).map(le)
    }

    fn text(&mut self, n: usize) -> Option<String> {
        self.take(n).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Text that ends with a zero byte.
fn until_zero(bytes: &[u8], at: u64) -> Option<String> {
    let bytes = bytes.get(usize::try_from(at).ok()?..)?;
    let end = bytes.iter().position(|b| *b == 0)?;
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// Reads the links of one group.
struct Reader<'a> {
    file: &'a RawFile,
    links: HashMap<String, Link>,
    /// Bytes that may still be looked at.
    left: u64,
}

impl Reader<'_> {
    fn part(&mut self, at: u64, len: u64) -> Option<Vec<u8>> {
        self.left = self.left.checked_sub(PART)?.checked_sub(len)?;
        self.file.part(at, len)
    }

    /// The messages of the object header at `address`, versions 1 and 2.
    fn group(&mut self, address: u64) -> Option<()> {
        let head = self.part(address, 16)?;
        let mut blocks = Vec::new();
        // Bytes in front of a message's own: its type, its length, flags and, in version 2, maybe a number.
        let (newer, before) = if head.starts_with(b"OHDR\x02") {
            let flags = head[5];
            let at = 6 + if flags & 0x20 != 0 { 16 } else { 0 } + if flags & 0x10 != 0 { 4 } else { 0 };
            let width = 1 << (flags & 3);
            let len = le(&self.part(address.checked_add(at)?, width)?);
            blocks.push((address.checked_add(at + width)?, len));
            (true, if flags & 4 != 0 { 6 } else { 4 })
        } else if head[0] == 1 {
            blocks.push((address.checked_add(16)?, le(&head[8..12])));
            (false, 8)
        } else {
            return None;
        };
        while let Some((at, len)) = blocks.pop() {
            let block = self.part(at, len)?;
            let mut rest = Bytes(&block);
            while let Some(mut head) = rest.take(before).map(Bytes) {
                let kind = head.number(if newer { 1 } else { 2 })?;
                let len = head.number(2)?;
                let Some(body) = rest.take(len as usize) else { break };
                let mut body = Bytes(body);
                match u8::try_from(kind).ok()? {
                    kind::CONTINUATION => {
                        let (at, len) = (body.number(8)?, body.number(8)?);
                        // A signature in front and a checksum behind.
                        blocks.push(if newer { (at.checked_add(4)?, len.checked_sub(8)?) } else { (at, len) });
                    }
                    kind::SYMBOL_TABLE => self.table(body.number(8)?, body.number(8)?)?,
                    kind::LINK => self.link(body)?,
                    kind::LINK_INFO => {
                        let flags = body.take(2)?[1];
                        body.take(if flags & 1 != 0 { 8 } else { 0 })?;
                        let (heap, names) = (body.number(8)?, body.number(8)?);
                        if heap != u64::MAX && names != u64::MAX {
                            self.heap(heap, names)?;
                        }
                    }
                    _ => {}
                }
            }
        }
        Some(())
    }

    /// A link message.
    fn link(&mut self, mut body: Bytes<'_>) -> Option<()> {
        let flags = body.take(2)?[1];
        let class = if flags & 8 != 0 { body.number(1)? } else { 0 };
        body.take(if flags & 4 != 0 { 8 } else { 0 } + if flags & 16 != 0 { 1 } else { 0 })?;
        let len = body.number(1 << (flags & 3))?;
        let name = body.text(usize::try_from(len).ok()?)?;
        let link = match class {
            0 => Link::Hard(body.number(8)?),
            1 => {
                let len = body.number(2)?;
                Link::Soft(body.text(len as usize)?)
            }
            64 => {
                body.take(3)?;
                Link::External(until_zero(body.0, 0)?)
            }
            // Links of a kind that a program has made for itself.
            _ => return Some(()),
        };
        self.links.insert(name, link);
        Some(())
    }

    /// A symbol table: a B-tree of nodes with entries, and the heap of their names.
    fn table(&mut self, tree: u64, heap: u64) -> Option<()> {
        let head = self.part(heap, 32)?;
        if !head.starts_with(b"HEAP") {
            return None;
        }
        let texts = self.part(le(&head[24..]), le(&head[8..16]))?;
        let mut nodes = vec![tree];
        while let Some(at) = nodes.pop() {
            let head = self.part(at, 8)?;
            let n = le(&head[6..8]);
            if head.starts_with(b"TREE\0") {
                // Keys stand before, between and behind the addresses.
                let body = self.part(at.checked_add(24)?, n * 16)?;
                nodes.extend(body.chunks_exact(16).map(|pair| le(&pair[8..])));
                continue;
            }
            if !head.starts_with(b"SNOD\x01") {
                return None;
            }
            for entry in self.part(at.checked_add(8)?, n * ENTRY as u64)?.chunks_exact(ENTRY) {
                let link = match le(&entry[16..20]) {
                    SOFT => Link::Soft(until_zero(&texts, le(&entry[24..28]))?),
                    _ => Link::Hard(le(&entry[8..16])),
                };
                self.links.insert(until_zero(&texts, le(&entry[..8]))?, link);
            }
        }
        Some(())
    }

    /// A fractal heap of link messages, and the B-tree that lists them by name.
    fn heap(&mut self, heap: u64, names: u64) -> Option<()> {
        let head = self.part(heap, 142)?;
        // A heap whose blocks are compressed is none of h5py's.
        if !head.starts_with(b"FRHP\0") || le(&head[7..9]) != 0 {
            return None;
        }
        let (width, start, direct) = (le(&head[110..112]), le(&head[112..120]), le(&head[120..128]));
        let offset = le(&head[128..130]).div_ceil(8);
        if width == 0 || !start.is_power_of_two() || !direct.is_power_of_two() || direct < start || offset > 8 {
            return None;
        }
        let blocks =
            Blocks { width, line: start.checked_mul(width)?, start, direct, offset, root: le(&head[132..140]), rows: le(&head[140..142]) };
        let mut ids = Vec::new();
        Tree::names(self.file, names)?.visit_all(&mut |record| {
            ids.push(record[4..].to_vec());
            (ids.len() as u64 <= MOST_BYTES / PART).then_some(())
        })?;
        for id in ids {
            let mut id = Bytes(&id);
            // Kinds 1 and 2 are objects too large or small for the blocks; a link is neither.
            if id.number(1)? & 0x30 != 0 {
                continue;
            }
            let (at, len) = (id.number(offset as usize)?, le(id.0.get(..8).unwrap_or(id.0)));
            let at = self.find(&blocks, at)?;
            let message = self.part(at, len)?;
            self.link(Bytes(&message))?;
        }
        Some(())
    }

    /// The address of what lies at an offset of a heap.
    fn find(&mut self, blocks: &Blocks, mut offset: u64) -> Option<u64> {
        let (mut at, mut rows) = (blocks.root, blocks.rows);
        while rows > 0 {
            // Rows of `width` blocks each: two of the first size, then each of twice the size of the one before.
            let row = (offset / blocks.line).checked_ilog2().map_or(0, |row| u64::from(row) + 1);
            let size = blocks.start.checked_shl(u32::try_from(row.saturating_sub(1)).ok()?)?;
            let first = if row == 0 { 0 } else { size.checked_mul(blocks.width)? };
            let column = (offset - first) / size;
            if row >= rows || column >= blocks.width {
                return None;
            }
            let entries = at.checked_add(13 + blocks.offset)?;
            at = le(&self.part(entries.checked_add((row * blocks.width + column) * 8)?, 8)?);
            offset = (offset - first) % size;
            // A block larger than the largest that holds objects is a list of blocks itself.
            rows = if size > blocks.direct { u64::from((size / blocks.line).checked_ilog2()?) + 1 } else { 0 };
        }
        at.checked_add(offset)
    }
}

/// How a fractal heap is laid out: blocks in a row, bytes of the first row, of a block in it and of the largest that holds objects,
/// bytes of an offset, and its root: a block (no rows) or a list of blocks.
struct Blocks {
    width: u64,
    line: u64,
    start: u64,
    direct: u64,
    offset: u64,
    root: u64,
    rows: u64,
}

/// Bytes of an entry of a symbol table, and its mark of a soft link.
const ENTRY: usize = 40;
const SOFT: u64 = 2;

/// Takes the soft links out of a whole node of a symbol table: they have no address, and would be taken for damage.
pub(super) fn without_soft(node: &mut [u8]) {
    let Some((head, entries)) = node.split_at_mut_checked(8) else { return };
    if !head.starts_with(b"SNOD\x01") || le(&head[6..8]) * ENTRY as u64 != entries.len() as u64 {
        return;
    }
    let mut kept = 0u16;
    let all = entries.len() / ENTRY;
    for i in 0..all {
        if le(&entries[i * ENTRY + 16..i * ENTRY + 20]) != SOFT {
            entries.copy_within(i * ENTRY..(i + 1) * ENTRY, usize::from(kept) * ENTRY);
            kept += 1;
        }
    }
    head[6..8].copy_from_slice(&kept.to_le_bytes());
}

//! HDF5's bytes: object header messages, object headers and the superblock (HDF5 File Format Specification 3.0).

use cellmill_matrix::DType;

/// An address that points nowhere.
pub(super) const NOWHERE: u64 = u64::MAX;

/// Header messages that we write.
pub(super) mod kind {
    pub const DATASPACE: u8 = 0x01;
    pub const LINK_INFO: u8 = 0x02;
    pub const DATATYPE: u8 = 0x03;
    pub const FILL: u8 = 0x05;
    pub const LINK: u8 = 0x06;
    pub const LAYOUT: u8 = 0x08;
    pub const GROUP_INFO: u8 = 0x0a;
    pub const FILTERS: u8 = 0x0b;
    pub const ATTRIBUTE: u8 = 0x0c;
    pub const CONTINUATION: u8 = 0x10;
    pub const SYMBOL_TABLE: u8 = 0x11;
}

/// One header message: its type and its body.
pub(super) type Message = (u8, Vec<u8>);

/// The shape of a dataset or an attribute (IV.A.2.b, version 2).
#[derive(Clone, Debug)]
pub(super) enum Space<'a> {
    /// No entry.
    Null,
    /// One entry, no axis.
    Scalar,
    /// Lengths of the axes; the first can grow without end.
    Axes(&'a [u64], bool),
}

pub(super) fn dataspace(space: &Space) -> Vec<u8> {
    match space {
        Space::Null => vec![2, 0, 0, 2],
        Space::Scalar => vec![2, 0, 0, 0],
        Space::Axes(shape, grows) => {
            let mut out = vec![2, shape.len() as u8, u8::from(*grows), 1];
            shape.iter().for_each(|n| out.extend(n.to_le_bytes()));
            if *grows {
                for (axis, n) in shape.iter().enumerate() {
                    out.extend(if axis == 0 { u64::MAX } else { *n }.to_le_bytes());
                }
            }
            out
        }
    }
}

/// The type of entries (IV.A.2.d, version 1): booleans are h5py's enumeration of FALSE and TRUE over int8, strings have
/// variable length and are UTF-8.
pub(super) fn datatype(dtype: DType) -> Vec<u8> {
    let integer = |size: u32, signed: bool| {
        let mut out = vec![0x10, if signed { 8 } else { 0 }, 0, 0];
        out.extend(size.to_le_bytes());
        out.extend(0u16.to_le_bytes());
        out.extend((size as u16 * 8).to_le_bytes());
        out
    };
    // (sign bit, exponent at, exponent bits, mantissa bits, bias), least significant byte first.
    let float = |size: u32, sign: u8, at: u8, exponent: u8, mantissa: u8, bias: u32| {
        let mut out = vec![0x11, 0x20, sign, 0];
        out.extend(size.to_le_bytes());
        out.extend(0u16.to_le_bytes());
        out.extend((size as u16 * 8).to_le_bytes());
        out.extend([at, exponent, 0, mantissa]);
        out.extend(bias.to_le_bytes());
        out
    };
    match dtype {
        DType::I8 => integer(1, true),
        DType::I16 => integer(2, true),
        DType::I32 => integer(4, true),
        DType::I64 => integer(8, true),
        DType::U8 => integer(1, false),
        DType::U16 => integer(2, false),
        DType::U32 => integer(4, false),
        DType::U64 => integer(8, false),
        DType::F32 => float(4, 31, 23, 8, 23, 127),
        DType::F64 => float(8, 63, 52, 11, 52, 1023),
        DType::Bool => {
            let mut out = vec![0x18, 2, 0, 0, 1, 0, 0, 0];
            out.extend(integer(1, true));
            out.extend(b"FALSE\0\0\0TRUE\0\0\0\0\0\x01");
            // The names above are padded to 8 bytes; the values are the last two bytes.
            out
        }
        DType::Str => {
            let mut out = vec![0x19, 1, 1, 0, 16, 0, 0, 0];
            out.extend(integer(1, false));
            out
        }
    }
}

/// The type of records of these fields, packed (IV.A.2.d, class 6, version 3), and their size. `None` if it is too long for a header.
pub(super) fn compound(fields: &[(&str, DType)]) -> Option<(Vec<u8>, usize)> {
    let size: usize = fields.iter().map(|(_, dtype)| entry_size(*dtype)).sum();
    let count = u16::try_from(fields.len()).ok()?.to_le_bytes();
    let mut out = vec![0x36, count[0], count[1], 0];
    out.extend(u32::try_from(size).ok()?.to_le_bytes());
    // Offsets take as many bytes as the size needs.
    let width = (8 - (size as u64).leading_zeros() as usize / 8).max(1);
    let mut at = 0usize;
    for (name, dtype) in fields {
        out.extend(name.as_bytes());
        out.push(0);
        out.extend(&(at as u64).to_le_bytes()[..width]);
        let mut kind = datatype(*dtype);
        // Parts of a version 3 type are of version 3 too; but an enumeration, whose names are padded as in version 1, stays of it.
        if *dtype != DType::Bool {
            kind[0] = (kind[0] & 0x0f) | 0x30;
        }
        out.extend(kind);
        at += entry_size(*dtype);
    }
    (out.len() <= usize::from(u16::MAX)).then_some((out, size))
}

/// Bytes of an entry on disk.
pub(super) fn entry_size(dtype: DType) -> usize {
    dtype.size().unwrap_or(super::heap::REFERENCE)
}

/// An attribute (IV.A.2.m, version 3). `None` if it is too long for an object header.
pub(super) fn attribute(name: &str, dtype: DType, space: &Space, data: &[u8]) -> Option<Message> {
    let (datatype, space) = (datatype(dtype), dataspace(space));
    let mut out = vec![3, 0];
    out.extend(u16::try_from(name.len() + 1).ok()?.to_le_bytes());
    out.extend((datatype.len() as u16).to_le_bytes());
    out.extend((space.len() as u16).to_le_bytes());
    out.push(1);
    out.extend(name.as_bytes());
    out.push(0);
    out.extend(datatype);
    out.extend(space);
    out.extend(data);
    (out.len() <= usize::from(u16::MAX)).then_some((kind::ATTRIBUTE, out))
}

/// A link to the object at `address` (IV.A.2.g). `None` if the name is too long.
pub(super) fn link(name: &str, address: u64) -> Option<Message> {
    let length = u16::try_from(name.len()).ok().filter(|&n| n < 60_000)?;
    let mut out = vec![1, 0x11, 1];
    out.extend(length.to_le_bytes());
    out.extend(name.as_bytes());
    out.extend(address.to_le_bytes());
    Some((kind::LINK, out))
}

/// What makes an object a group whose links are in its header (IV.A.2.c, IV.A.2.k).
pub(super) fn group() -> [Message; 2] {
    let mut info = vec![0, 0];
    info.extend(NOWHERE.to_le_bytes());
    info.extend(NOWHERE.to_le_bytes());
    [(kind::LINK_INFO, info), (kind::GROUP_INFO, vec![0, 0])]
}

/// The default fill value (IV.A.2.f, version 3): storage is taken late, or step by step for chunks.
pub(super) fn fill(chunked: bool) -> Message {
    (kind::FILL, vec![3, if chunked { 0x0b } else { 0x0a }])
}

/// Storage in one run (IV.A.2.i, version 3).
pub(super) fn run(address: u64, size: u64) -> Message {
    let mut out = vec![3, 1];
    out.extend(address.to_le_bytes());
    out.extend(size.to_le_bytes());
    (kind::LAYOUT, out)
}

/// Storage in chunks listed by a version 1 B-tree (IV.A.2.i, version 3).
pub(super) fn chunked(tree: u64, chunk: &[u64], size: usize) -> Message {
    let mut out = vec![3, 2, chunk.len() as u8 + 1];
    out.extend(tree.to_le_bytes());
    chunk.iter().for_each(|&n| out.extend((n as u32).to_le_bytes()));
    out.extend((size as u32).to_le_bytes());
    (kind::LAYOUT, out)
}

/// A pipeline of deflate alone (IV.A.2.l, version 2).
pub(super) fn deflate(level: u32) -> Message {
    let mut out = vec![2, 1, 1, 0, 1, 0, 1, 0];
    out.extend(level.to_le_bytes());
    (kind::FILTERS, out)
}

/// An object header of these messages (IV.A.1.b, version 2).
pub(super) fn header(messages: &[Message]) -> Vec<u8> {
    let size: usize = messages.iter().map(|(_, body)| 4 + body.len()).sum();
    let mut out = b"OHDR\x02\x02".to_vec();
    out.extend((size as u32).to_le_bytes());
    for (kind, body) in messages {
        out.push(*kind);
        out.extend((body.len() as u16).to_le_bytes());
        out.push(0);
        out.extend(body);
    }
    sealed(out)
}

/// Bytes of the superblock.
pub(super) const SUPERBLOCK: u64 = 48;

/// The superblock (II.A, version 2).
pub(super) fn superblock(end: u64, root: u64) -> Vec<u8> {
    let mut out = b"\x89HDF\r\n\x1a\n\x02\x08\x08\x00".to_vec();
    out.extend(0u64.to_le_bytes());
    out.extend(NOWHERE.to_le_bytes());
    out.extend(end.to_le_bytes());
    out.extend(root.to_le_bytes());
    sealed(out)
}

/// The bytes with their checksum after them.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

/// Bob Jenkins' hash of 2006 (`lookup3.c`, `hashlittle`), the checksum of HDF5's metadata.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32);
    let (mut a, mut b, mut c) = (start, start, start);
    let word = |block: &[u8], i: usize| (0..4).fold(0u32, |w, k| w | u32::from(block.get(4 * i + k).copied().unwrap_or(0)) << (8 * k));
    let mut rest = bytes;
    while rest.len() > 12 {
        a = a.wrapping_add(word(rest, 0));
        b = b.wrapping_add(word(rest, 1));
        c = c.wrapping_add(word(rest, 2));
        a = a.wrapping_sub(c) ^ c.rotate_left(4);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(6);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(8);
        b = b.wrapping_add(a);
        a = a.wrapping_sub(c) ^ c.rotate_left(16);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(19);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(4);
        b = b.wrapping_add(a);
        rest = &rest[12..];
    }
    if rest.is_empty() {
        return c;
    }
    a = a.wrapping_add(word(rest, 0));
    b = b.wrapping_add(word(rest, 1));
    c = c.wrapping_add(word(rest, 2));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// One chunk of a dataset: bytes stored, where, and its first entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkAt {
    pub size: u32,
    /// Filters that were left out, a bit each.
    pub mask: u32,
    pub address: u64,
    /// Number of the chunk in C order over the grid.
    pub number: u64,
}

/// Children of a B-tree node of chunks: twice the file's `K`, by default 32.
const WIDTH: usize = 64;

/// Writes the version 1 B-tree of a dataset's chunks (III.A.1, type 1) through `put`, which gives the address of what it
/// wrote, and returns the address of its root. `grid` counts the chunks of each axis, `chunk` their lengths.
pub(super) fn chunk_tree<E>(
    chunks: &[ChunkAt],
    grid: &[u64],
    chunk: &[u64],
    mut put: impl FnMut(&[u8]) -> Result<u64, E>,
) -> Result<u64, E> {
    if chunks.is_empty() {
        return Ok(NOWHERE);
    }
    let corner = |mut number: u64| {
        let mut at = vec![0u64; grid.len()];
        for axis in (0..grid.len()).rev() {
            let n = grid[axis].max(1);
            at[axis] = if axis == 0 { number } else { number % n } * chunk[axis];
            number /= n;
        }
        at
    };
    let key = |size: u32, mask: u32, at: &[u64]| {
        let mut out = size.to_le_bytes().to_vec();
        out.extend(mask.to_le_bytes());
        at.iter().for_each(|n| out.extend(n.to_le_bytes()));
        out.extend(0u64.to_le_bytes());
        out
    };
    // Each child: its first key and its address. The last key is one chunk beyond the last.
    let mut level: Vec<(Vec<u8>, u64)> = chunks.iter().map(|c| (key(c.size, c.mask, &corner(c.number)), c.address)).collect();
    let end = chunks.last().map(|c| {
        let mut at = corner(c.number);
        at.iter_mut().zip(chunk).for_each(|(a, c)| *a += c);
        key(0, 0, &at)
    });
    let end = end.unwrap_or_default();
    let node_bytes = 24 + WIDTH * (8 + end.len()) + end.len();
    for height in 0u8.. {
        let nodes = level.len().div_ceil(WIDTH);
        let mut above = Vec::with_capacity(nodes);
        // All nodes of a level lie side by side, so neighbours are known before they are written.
        let mut bytes = Vec::with_capacity(nodes * node_bytes);
        let base = put(&[])?;
        for (i, children) in level.chunks(WIDTH).enumerate() {
            let start = bytes.len();
            bytes.extend(b"TREE\x01");
            bytes.push(height);
            bytes.extend((children.len() as u16).to_le_bytes());
            let at = |j: usize| base + (j * node_bytes) as u64;
            bytes.extend(if i == 0 { NOWHERE } else { at(i - 1) }.to_le_bytes());
            bytes.extend(if i + 1 == nodes { NOWHERE } else { at(i + 1) }.to_le_bytes());
            for (key, address) in children {
                bytes.extend(key);
                bytes.extend(address.to_le_bytes());
            }
            let next = level.get((i + 1) * WIDTH).map_or(&end, |(key, _)| key);
            bytes.extend(next);
            bytes.resize(start + node_bytes, 0);
            above.push((children[0].0.clone(), at(i)));
        }
        put(&bytes)?;
        if nodes == 1 {
            return Ok(base);
        }
        level = above;
    }
    Ok(NOWHERE)
}

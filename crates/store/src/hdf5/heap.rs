//! Strings: of variable length (in global heaps) and of fixed length.

use std::collections::HashMap;

use cellmill_matrix::{Error, Place, Result};
use hdf5_pure::StringPadding;

use super::raw::RawFile;

/// Bytes of a reference to a string: length (4), address of its heap (8), number in that heap (4).
pub(super) const REFERENCE: usize = 16;
/// Heaps that are kept; strings that were written together lie in few.
const KEPT: usize = 256;
const HEADER: usize = 16;

/// One heap: its bytes, and where each of its objects lies in them.
struct Heap {
    bytes: Vec<u8>,
    objects: HashMap<u16, (usize, usize)>,
}

/// Follows references to strings (HDF5 file format 3.0, III.E).
pub(super) struct Heaps<'a> {
    file: &'a RawFile,
    kept: HashMap<u64, Heap>,
}

impl<'a> Heaps<'a> {
    pub fn new(file: &'a RawFile) -> Self {
        Heaps { file, kept: HashMap::new() }
    }

    /// The strings of `references`, 16 bytes each. References to nothing are empty strings.
    pub fn strings(&mut self, references: &[u8], place: impl Fn() -> Place) -> Result<Vec<String>> {
        references.as_chunks::<REFERENCE>().0.iter().map(|reference| self.string(reference, &place)).collect()
    }

    /// The string of one reference.
    pub fn string(&mut self, reference: &[u8; REFERENCE], place: impl Fn() -> Place) -> Result<String> {
        let (len, rest) = reference.split_at(4);
        let len = le(len) as usize;
        let (address, index) = (le(&rest[..8]), le(&rest[8..]));
        if len == 0 || address == 0 || address == u64::MAX {
            return Ok(String::new());
        }
        let damaged = || {
            Error::invalid(
                place(),
                format!("a string of {len} bytes that is not in the heap at byte {address}"),
                "the heap holds each string; the file is damaged, fetch it again",
            )
        };
        if !self.kept.contains_key(&address) {
            let heap = self.load(address, &place)?.ok_or_else(damaged)?;
            if self.kept.len() >= KEPT {
                self.kept.clear();
            }
            self.kept.insert(address, heap);
        }
        let heap = self.kept.get(&address).ok_or_else(damaged)?;
        let object = u16::try_from(index).ok().and_then(|i| heap.objects.get(&i));
        let bytes = object.filter(|o| len <= o.1).and_then(|o| heap.bytes.get(o.0..o.0 + len)).ok_or_else(damaged)?;
        // A string may end before its length says.
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn load(&self, address: u64, place: impl Fn() -> Place) -> Result<Option<Heap>> {
        let at = self.file.base.saturating_add(address);
        let mut bytes = Vec::new();
        self.file.read(at, HEADER as u64, &mut bytes, &place)?;
        if &bytes[..5] != b"GCOL\x01" {
            return Ok(None);
        }
        let size = le(&bytes[8..16]);
        self.file.read(at, size.max(HEADER as u64), &mut bytes, &place)?;
        let mut objects = HashMap::new();
        let mut from = HEADER;
        while let Some(header) = bytes.get(from..from + HEADER) {
            let (index, size) = (le(&header[..2]) as u16, le(&header[8..16]));
            let Some(size) = usize::try_from(size).ok().filter(|&s| s <= bytes.len()) else { break };
            if index == 0 {
                break;
            }
            objects.insert(index, (from + HEADER, size));
            from += HEADER + size.next_multiple_of(8);
        }
        Ok(Some(Heap { bytes, objects }))
    }
}

/// A little-endian number of up to 8 bytes.
pub(super) fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
}

/// A string of fixed length without its padding.
pub(super) fn fixed(bytes: &[u8], padding: &StringPadding) -> String {
    let end = match padding {
        StringPadding::NullTerminate => bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len()),
        StringPadding::NullPad => bytes.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1),
        StringPadding::SpacePad => bytes.iter().rposition(|&b| b != b' ').map_or(0, |i| i + 1),
    };
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

//! Strings: `vlen-utf8` chunks, and numpy's fixed lengths.

use super::metadata::Entry;

/// A chunk of strings: their number, then each as its length and its UTF-8 bytes (numcodecs `VLenUTF8`).
pub(crate) fn decode(bytes: &[u8], expected: usize) -> Result<Vec<String>, String> {
    let cut = || "a chunk of strings that is cut off".to_string();
    let (count, mut rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
    let count = u32::from_le_bytes(*count) as usize;
    if count != expected || rest.len() < 4 * count {
        return Err(format!("{count} strings where {expected} are due"));
    }
    let mut strings = Vec::with_capacity(count);
    for _ in 0..count {
        let (len, tail) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let (text, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(cut)?;
        strings.push(std::str::from_utf8(text).map_err(|_| "a string that is not UTF-8")?.to_string());
        rest = tail;
    }
    Ok(strings)
}

/// The opposite of [`decode`].
pub(crate) fn encode<'a>(strings: impl ExactSizeIterator<Item = &'a str>) -> Vec<u8> {
    let mut bytes = (strings.len() as u32).to_le_bytes().to_vec();
    for text in strings {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// Strings of fixed length, the zeros at their ends taken off.
pub(crate) fn fixed(entry: Entry, bytes: &[u8]) -> Vec<String> {
    match entry {
        Entry::Utf32(0) | Entry::Bytes(0) => Vec::new(),
        Entry::Utf32(n) => bytes
            .chunks_exact(4 * n)
            .map(|one| {
                let codes = one.as_chunks::<4>().0.iter().map(|c| u32::from_le_bytes(*c));
                let text: String = codes.map(|c| char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
                text.trim_end_matches('\0').to_string()
            })
            .collect(),
        Entry::Bytes(n) => bytes.chunks_exact(n).map(|one| String::from_utf8_lossy(one).trim_end_matches('\0').to_string()).collect(),
        _ => Vec::new(),
    }
}

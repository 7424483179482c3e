//! The text of a Matrix Market file, by whole lines, and the numbers in it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use cellmill_matrix::{Error, Result};

use super::{place, text_of};

/// Bytes of text that are read at once.
pub(super) const BUFFER: usize = 1 << 20;

/// The text behind all that is `what`.
pub(super) fn skip<'a>(text: &'a [u8], what: &[u8]) -> &'a [u8] {
    &text[text.iter().position(|b| !what.contains(b)).unwrap_or(text.len())..]
}

/// An integer and what follows it.
pub(super) fn integer(text: &[u8]) -> Option<(u64, &[u8])> {
    let n = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    if n == 0 || n > 18 {
        return None;
    }
    Some((text[..n].iter().fold(0, |x, &b| x * 10 + u64::from(b - b'0')), &text[n..]))
}

/// A number and what follows it. Small integers, nearly all of a count matrix, need no general parser.
pub(super) fn number(text: &[u8]) -> Option<(f32, &[u8])> {
    if let Some((x, rest)) = integer(text)
        && matches!(rest.first(), None | Some(b'\n' | b'\r' | b' ' | b'\t'))
    {
        return Some((x as f32, rest));
    }
    let n = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let value: f64 = std::str::from_utf8(&text[..n]).ok()?.parse().ok()?;
    Some((value as f32, &text[n..]))
}

/// What the first lines say.
pub(super) struct Head {
    pub shape: [u64; 2],
    pub entries: u64,
    pub pattern: bool,
}

/// Text by blocks of whole lines.
pub(super) struct Lines {
    path: PathBuf,
    from: BufReader<Box<dyn Read>>,
    pub buffer: Vec<u8>,
    /// Bytes of the buffer that hold text.
    len: usize,
    /// Bytes of it that are whole lines.
    pub whole: usize,
    ended: bool,
}

impl Lines {
    pub fn open(path: &Path) -> Result<Lines> {
        let from = BufReader::new(text_of(path)?);
        Ok(Lines { path: path.to_path_buf(), from, buffer: vec![0; BUFFER], len: 0, whole: 0, ended: false })
    }

    /// Reads the head: the banner, comments, and the line of sizes.
    pub fn head(&mut self) -> Result<Head> {
        const EXPECTED: &str =
            "a Matrix Market file begins with '%%MatrixMarket matrix coordinate integer general', then rows, columns and entries";
        let at = place(&self.path);
        let bad = |line: &str| Error::invalid(at.clone(), format!("'{}'", line.chars().take(80).collect::<String>().trim()), EXPECTED);
        let banner = self.line()?;
        let words: Vec<String> = banner.split_whitespace().map(str::to_lowercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let pattern = match words.as_slice() {
            ["%%matrixmarket", "matrix", "coordinate", "integer" | "real", "general"] => false,
            ["%%matrixmarket", "matrix", "coordinate", "pattern", "general"] => true,
            _ => return Err(bad(&banner)),
        };
        loop {
            let line = self.line()?;
            if line.starts_with('%') || (line.trim().is_empty() && !line.is_empty()) {
                continue;
            }
            let sizes: Option<Vec<u64>> = line.split_whitespace().map(|w| w.parse().ok()).collect();
            return match sizes.as_deref() {
                Some(&[rows, columns, entries]) if rows < u64::from(u32::MAX) && columns < u64::from(u32::MAX) => {
                    Ok(Head { shape: [rows, columns], entries, pattern })
                }
                _ => Err(bad(&line)),
            };
        }
    }

    /// One line of the head.
    fn line(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(BUFFER as u64).read_until(b'\n', &mut bytes);
        read.map_err(|e| Error::io(place(&self.path), &e))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Gets the next whole lines. False at the end.
    pub fn fill(&mut self) -> Result<bool> {
        self.buffer.copy_within(self.whole..self.len, 0);
        self.len -= self.whole;
        while !self.ended && self.len < self.buffer.len() {
            let n = self.from.read(&mut self.buffer[self.len..]).map_err(|e| Error::io(place(&self.path), &e))?;
            self.ended = n == 0;
            self.len += n;
        }
        let last = self.buffer[..self.len].iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
        self.whole = if self.ended { self.len } else { last };
        if self.whole == 0 && self.len > 0 {
            return Err(Error::invalid(
                place(&self.path),
                format!("a line of more than {BUFFER} bytes"),
                "a line is an entry; the file is damaged",
            ));
        }
        Ok(self.whole > 0)
    }
}

//! Bytes and bits of a header, one after the other.

/// Bits that are read from their end: the first byte, and how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    pub from: u64,
    pub len: u32,
}

/// Bytes that are taken from the front.
#[derive(Clone, Copy)]
pub struct Front<'a> {
    pub bytes: &'a [u8],
    /// Where the first of them lies.
    pub at: u64,
}

impl<'a> Front<'a> {
    pub fn take(&mut self, n: usize) -> Option<Front<'a>> {
        let (head, rest) = self.bytes.split_at_checked(n)?;
        let taken = Front { bytes: head, at: self.at };
        *self = Front { bytes: rest, at: self.at + n as u64 };
        Some(taken)
    }

    /// A number of `n` bytes, the lowest first.
    pub fn number(&mut self, n: usize) -> Option<u64> {
        Some(self.take(n)?.bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// All bytes as bits: the highest that is set in the last byte ends them.
    pub fn bits(self) -> Option<Bits> {
        let last = self.bytes.last().filter(|&&last| last != 0)?;
        Some(Bits { from: self.at, len: (8 * self.bytes.len()) as u32 - 1 - last.leading_zeros() })
    }
}

/// Bits that are read from the front, zeros behind the last.
pub struct Forward<'a> {
    pub bytes: &'a [u8],
    /// Bits that were taken.
    pub at: usize,
}

impl Forward<'_> {
    pub fn peek(&self, n: u32) -> u32 {
        let byte = |k: usize| u64::from(self.bytes.get(self.at / 8 + k).copied().unwrap_or(0)) << (8 * k);
        let word: u64 = (0..4).map(byte).sum();
        (word >> (self.at % 8)) as u32 & ((1 << n) - 1)
    }

    pub fn take(&mut self, n: u32) -> u32 {
        let bits = self.peek(n);
        self.at += n as usize;
        bits
    }
}

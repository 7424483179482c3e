//! Descriptions of tables: counts of symbols (finite state entropy) and weights of literals (Huffman).

use super::front::{Forward, Front};

/// Bytes of a [`Table`].
pub const TABLE: usize = 128;
/// Longest code of a literal.
const MOST_BITS: u32 = 11;

/// Weights of literals, four bits each; or counts of symbols: their sum as a power of two, how many there are, and each in two bytes.
pub type Table = [u8; TABLE];

/// A kind of number in a sequence.
pub struct Kind {
    /// Largest symbol.
    pub symbols: usize,
    /// Largest sum of counts, as a power of two.
    pub log: u32,
    /// Counts that need not be described.
    pub usual: (u32, &'static [i16]),
}

// RFC 8878, 3.1.1.3.2.2.
pub const KINDS: [Kind; 3] = [
    Kind {
        symbols: 35,
        log: 9,
        usual: (6, &[4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1]),
    },
    Kind { symbols: 31, log: 8, usual: (5, &[1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1]) },
    Kind {
        symbols: 52,
        log: 9,
        usual: (
            6,
            &[
                1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
            ],
        ),
    },
];

/// The table of counts; -1: less than one.
pub fn counted(log: u32, counts: &[i16]) -> Table {
    let mut table = [0; TABLE];
    table[0] = log as u8;
    table[1] = counts.len() as u8;
    for (bytes, count) in table[2..].as_chunks_mut::<2>().0.iter_mut().zip(counts) {
        *bytes = count.to_le_bytes();
    }
    table
}

/// Counts of symbols up to `most` that add up to at most 2^`most_log` (RFC 8878, 4.1.1); -1 counts as one.
pub fn counts(front: &mut Front<'_>, most: usize, most_log: u32) -> Option<(u32, Vec<i16>)> {
    let mut bits = Forward { bytes: front.bytes, at: 0 };
    let log = bits.take(4) + 5;
    if log > most_log {
        return None;
    }
    let mut left = 1i32 << log;
    let mut counts = Vec::new();
    while left > 0 {
        // One of left + 2 values; the lower ones take a bit less.
        let width = (left + 1).ilog2() + 1;
        let short = (1 << width) - 1 - (left as u32 + 1);
        let low = bits.peek(width - 1);
        let value = if low < short {
            bits.take(width - 1)
        } else {
            let value = bits.take(width);
            if value >= 1 << (width - 1) { value - short } else { value }
        };
        let count = value as i32 - 1;
        counts.push(count as i16);
        left -= count.abs();
        let mut zeros = if count == 0 { 3 } else { 0 };
        while zeros == 3 && counts.len() <= most {
            zeros = bits.take(2);
            counts.resize(counts.len() + zeros as usize, 0);
        }
        if counts.len() > most + 1 {
            return None;
        }
    }
    let used = bits.at.div_ceil(8);
    (left == 0).then_some(())?;
    front.take(used)?;
    Some((log, counts))
}

/// Weights of literals as a table, and the longest code (RFC 8878, 4.2.1).
pub fn weights(front: &mut Front<'_>) -> Option<(Table, u32)> {
    let header = front.number(1)? as usize;
    let mut weights: Vec<u8> = if header >= 128 {
        let n = header - 127;
        let packed = front.take(n.div_ceil(2))?.bytes;
        packed.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(n).collect()
    } else {
        coded_weights(front.take(header)?)?
    };
    let sum: u32 = weights.iter().map(|&w| 1u32 << w >> 1).sum();
    if sum == 0 || weights.len() > 255 || weights.iter().any(|&w| u32::from(w) > MOST_BITS) {
        return None;
    }
    // The last weight fills up to a power of two.
    let bits = sum.ilog2() + 1;
    let rest = (1 << bits) - sum;
    if bits > MOST_BITS || !rest.is_power_of_two() {
        return None;
    }
    weights.push(rest.ilog2() as u8 + 1);
    let longest = weights.iter().filter(|&&w| w == 1).count();
    if longest < 2 || longest % 2 == 1 {
        return None;
    }
    let mut table = [0; TABLE];
    weights.iter().enumerate().for_each(|(symbol, weight)| table[symbol / 2] |= weight << (4 * (symbol % 2)));
    Some((table, bits))
}

/// Weights by two chains of states that take turns, to the last bit.
fn coded_weights(mut front: Front<'_>) -> Option<Vec<u8>> {
    const LOG: u32 = 6;
    let (log, counts) = counts(&mut front, MOST_BITS as usize + 1, LOG)?;
    let states = states(log, &counts);
    let bits = front.bits()?;
    let mut left = i64::from(bits.len);
    // Bits before the first are zeros.
    let mut take = |n: u32| {
        left -= i64::from(n);
        let bit = |k: i64| if k < 0 { 0 } else { u32::from(front.bytes[k as usize / 8] >> (k % 8) & 1) };
        ((0..i64::from(n)).map(|k| bit(left + k) << k).sum::<u32>(), left >= 0)
    };
    let mut weights = Vec::new();
    let (mut one, mut two) = (take(log), take(log));
    if !two.1 {
        return None;
    }
    loop {
        let (symbol, width, base) = states[one.0 as usize];
        weights.push(symbol);
        let (more, inside) = take(width);
        if !inside {
            weights.push(states[two.0 as usize].0);
            return (weights.len() < 256).then_some(weights);
        }
        if weights.len() > 255 {
            return None;
        }
        one = two;
        two = (base + more, true);
    }
}

/// Symbol, bits and base of each state (RFC 8878, 4.1.1).
pub fn states(log: u32, counts: &[i16]) -> Vec<(u8, u32, u32)> {
    let size = 1usize << log;
    let (mut symbols, mut high) = (vec![0u8; size], size);
    for (symbol, _) in counts.iter().enumerate().filter(|(_, count)| **count == -1) {
        high -= 1;
        symbols[high] = symbol as u8;
    }
    let mut at = 0;
    for (symbol, &count) in counts.iter().enumerate() {
        for _ in 0..count.max(0) {
            symbols[at] = symbol as u8;
            loop {
                at = (at + (size >> 1) + (size >> 3) + 3) & (size - 1);
                if at < high {
                    break;
                }
            }
        }
    }
    let mut next: Vec<u32> = counts.iter().map(|count| u32::from(count.unsigned_abs())).collect();
    let state = |symbol: u8| {
        let x = next[usize::from(symbol)];
        next[usize::from(symbol)] += 1;
        let width = log - x.ilog2();
        (symbol, width, (x << width) - size as u32)
    };
    symbols.into_iter().map(state).collect()
}

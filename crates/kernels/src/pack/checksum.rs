//! A 64-bit checksum that is faster than the decoder that it guards.
//!
//! The accumulation is XXH3's (Collet 2019, xxhash.h): eight 64-bit lanes, each adds the product of the two halves of its keyed
//! word and its neighbour's word as it is. A change confined to one word changes a lane for certain; keys move on with every
//! stripe of 64 bytes, so that an exchange of stripes shows.

use super::block::Lanes;

/// Bytes taken in at a time.
pub(super) const STRIPE: usize = 64;
/// 2^64 / golden ratio, odd.
pub(super) const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
/// First hexadecimal digits of pi's fraction.
pub(super) const KEYS: [u64; 8] = [
    0x243F_6A88_85A3_08D3,
    0x1319_8A2E_0370_7344,
    0xA409_3822_299F_31D0,
    0x082E_FA98_EC4E_6C89,
    0x4528_21E6_38D0_1377,
    0xBE54_66CF_34E9_0C6C,
    0xC0AC_29B7_C97C_50DD,
    0x3F84_D5B5_B547_0917,
];

/// The checksum of bytes that come in pieces.
pub(super) struct Running {
    acc: [u64; 8],
    salt: u64,
    lanes: Lanes,
}

impl Running {
    pub(super) fn new(lanes: Lanes) -> Self {
        Running { acc: KEYS, salt: 0, lanes }
    }

    /// Takes in whole stripes; what is left over at the end of `bytes` is not touched. Returns the bytes taken.
    pub(super) fn stripes(&mut self, bytes: &[u8]) -> usize {
        let (stripes, _) = bytes.as_chunks::<STRIPE>();
        self.lanes.stripes(&mut self.acc, self.salt, stripes);
        self.salt = self.salt.wrapping_add(STEP.wrapping_mul(stripes.len() as u64));
        stripes.len() * STRIPE
    }

    /// Takes in the last bytes, filled up with zeros, and mixes the lanes. `len`: bytes in all.
    pub(super) fn finish(mut self, rest: &[u8], len: usize) -> u64 {
        let taken = self.stripes(rest);
        let mut last = [0; STRIPE];
        last[..rest.len() - taken].copy_from_slice(&rest[taken..]);
        self.stripes(&last);
        // Each step is a bijection of its lane.
        let mut hash = (len as u64).wrapping_mul(STEP);
        for lane in self.acc {
            hash = (hash ^ lane ^ (lane >> 29)).wrapping_mul(STEP).rotate_left(27);
        }
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        hash ^ (hash >> 32)
    }
}

/// Adds stripes to the lanes, with the key of the first.
pub(super) fn stripes(acc: &mut [u64; 8], mut salt: u64, stripes: &[[u8; STRIPE]]) {
    for stripe in stripes {
        let (words, _) = stripe.as_chunks::<8>();
        for l in 0..8 {
            let word = u64::from_le_bytes(words[l]);
            let keyed = word ^ KEYS[l].wrapping_add(salt);
            acc[l] = acc[l].wrapping_add((keyed & 0xFFFF_FFFF) * (keyed >> 32));
            acc[l ^ 1] = acc[l ^ 1].wrapping_add(word);
        }
        salt = salt.wrapping_add(STEP);
    }
}

/// The checksum of a few bytes.
pub(super) fn of(bytes: &[u8]) -> u64 {
    Running::new(Lanes::best()).finish(bytes, bytes.len())
}

//! What is done to one block of 128 numbers, and by which instructions.

use super::{BLOCK, PAD, checksum, columns, encode};

/// The instructions that work on blocks. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lanes {
    /// Plain Rust.
    Portable,
    /// AVX2: eight lanes of 32 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

/// Calls the AVX2 function or the plain one.
macro_rules! either {
    ($lanes:expr, $wide:path, $plain:path, ($($argument:expr),*)) => {
        match $lanes {
            Lanes::Portable => $plain($($argument),*),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Lanes::best` alone makes this variant, after it has seen that the processor has AVX2,
            // BMI2, LZCNT and POPCNT.
            Lanes::Avx2 => unsafe { $wide($($argument),*) },
        }
    };
}

impl Lanes {
    /// The fastest that this processor has.
    pub(super) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt")
        {
            return Lanes::Avx2;
        }
        Lanes::Portable
    }

    /// Adds stripes to a checksum's lanes.
    pub(super) fn stripes(self, acc: &mut [u64; 8], salt: u64, stripes: &[[u8; checksum::STRIPE]]) {
        either!(self, super::avx2::stripes, checksum::stripes, (acc, salt, stripes));
    }

    /// Low parts, `width` bits each. `bytes`: `16 * width + PAD` or more.
    pub(super) fn numbers(self, bytes: &[u8], width: u32, out: &mut [u32; BLOCK]) {
        either!(self, super::avx2::numbers, numbers, (bytes, width, out));
    }

    /// Low parts plus `base`, as floats. `bytes`: `16 * width + PAD` or more.
    pub(super) fn values(self, bytes: &[u8], width: u32, base: u32, out: &mut [f32; BLOCK]) {
        either!(self, super::avx2::values, values, (bytes, width, base, out));
    }

    /// `out[k] = carry + Σ_{i <= k} (out[i] + 1)`, wrapping.
    pub(super) fn sums(self, out: &mut [u32; BLOCK], carry: u32) {
        either!(self, super::avx2::sums, sums, (out, carry));
    }

    /// Values as whole numbers, if they are; see [`encode::whole`].
    pub(super) fn whole(self, values: &[f32; BLOCK], out: &mut [u32; BLOCK]) -> Option<u32> {
        either!(self, super::avx2::whole, encode::whole, (values, out))
    }

    /// Packs a block at `at`; see [`encode::pack_block`].
    pub(super) fn pack(self, numbers: &[u32; BLOCK], out: &mut [u8], at: &mut usize) -> [u8; 2] {
        either!(self, super::avx2::pack, encode::pack_block, (numbers, out, at))
    }

    /// Adds a block's values to eight sums; see [`columns::add`].
    pub(super) fn add(self, values: &[f32; BLOCK], sums: &mut [f64; 8]) {
        either!(self, super::avx2::add, columns::add, (values, sums));
    }
}

/// Number `k` of a block: bits `k * width ..` of the bytes.
#[inline(always)]
fn number(bytes: &[u8], width: usize, k: usize) -> u32 {
    let bit = k * width;
    let word = bytes[bit / 8..].first_chunk::<4>().copied().unwrap_or_default();
    (u32::from_le_bytes(word) >> (bit % 8)) & ((1 << width) - 1)
}

fn numbers(bytes: &[u8], width: u32, out: &mut [u32; BLOCK]) {
    let bytes = &bytes[..16 * width as usize + PAD];
    for (k, out) in out.iter_mut().enumerate() {
        *out = number(bytes, width as usize, k);
    }
}

fn values(bytes: &[u8], width: u32, base: u32, out: &mut [f32; BLOCK]) {
    let bytes = &bytes[..16 * width as usize + PAD];
    for (k, out) in out.iter_mut().enumerate() {
        *out = (number(bytes, width as usize, k) + base) as f32;
    }
}

fn sums(out: &mut [u32; BLOCK], mut carry: u32) {
    for out in out {
        carry = carry.wrapping_add(*out).wrapping_add(1);
        *out = carry;
    }
}

//! The byte and bit shuffles of blosc: byte `k` (bit `b`) of every entry side by side.

/// Gathers byte `k` of all entries for each `k`. Bytes after the last whole entry stay where they are.
pub(crate) fn bytes(from: &[u8], to: &mut [u8], size: usize) {
    let n = from.len() / size;
    for k in 0..size {
        for i in 0..n {
            to[k * n + i] = from[i * size + k];
        }
    }
    to[n * size..].copy_from_slice(&from[n * size..]);
}

/// Undoes [`bytes`].
pub(crate) fn bytes_back(from: &[u8], to: &mut [u8], size: usize) {
    let n = from.len() / size;
    to[n * size..].copy_from_slice(&from[n * size..]);
    match size {
        2 => interleave::<2>(from, to, n),
        4 => four(from, to, n),
        8 => interleave::<8>(from, to, n),
        _ => {
            for k in 0..size {
                for i in 0..n {
                    to[i * size + k] = from[k * n + i];
                }
            }
        }
    }
}

fn interleave<const SIZE: usize>(from: &[u8], to: &mut [u8], n: usize) {
    let planes: [&[u8]; SIZE] = std::array::from_fn(|k| &from[k * n..(k + 1) * n]);
    for (i, entry) in to.as_chunks_mut::<SIZE>().0.iter_mut().take(n).enumerate() {
        *entry = std::array::from_fn(|k| planes[k][i]);
    }
}

/// Entries of four bytes, the common case.
fn four(from: &[u8], to: &mut [u8], n: usize) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2.
        unsafe { four_avx2(from, to, n) };
        return;
    }
    interleave::<4>(from, to, n);
}

/// As [`interleave`] with 32 entries at a time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn four_avx2(from: &[u8], to: &mut [u8], n: usize) {
    use std::arch::x86_64::*;
    let (a, b, c, d) = (&from[..n], &from[n..2 * n], &from[2 * n..3 * n], &from[3 * n..4 * n]);
    let whole = n / 32;
    for i in 0..whole {
        let load = |plane: &[u8]| {
            let part: &[u8] = &plane[32 * i..32 * i + 32];
            // SAFETY: 32 bytes are there, and the load needs no alignment.
            unsafe { _mm256_loadu_si256(part.as_ptr().cast()) }
        };
        let (a, b, c, d) = (load(a), load(b), load(c), load(d));
        let (ab0, ab1) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
        let (cd0, cd1) = (_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d));
        // Each 128-bit lane holds its own entries: 0..4 | 16..20, 4..8 | 20..24, 8..12 | 24..28, 12..16 | 28..32.
        let e0 = _mm256_unpacklo_epi16(ab0, cd0);
        let e1 = _mm256_unpackhi_epi16(ab0, cd0);
        let e2 = _mm256_unpacklo_epi16(ab1, cd1);
        let e3 = _mm256_unpackhi_epi16(ab1, cd1);
        let out: &mut [u8] = &mut to[128 * i..128 * i + 128];
        let parts = [
            _mm256_permute2x128_si256::<0x20>(e0, e1),
            _mm256_permute2x128_si256::<0x20>(e2, e3),
            _mm256_permute2x128_si256::<0x31>(e0, e1),
            _mm256_permute2x128_si256::<0x31>(e2, e3),
        ];
        for (place, part) in out.chunks_exact_mut(32).zip(parts) {
            // SAFETY: 32 bytes are there, and the store needs no alignment.
            unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), part) };
        }
    }
    for i in 32 * whole..n {
        to[4 * i..4 * i + 4].copy_from_slice(&[a[i], b[i], c[i], d[i]]);
    }
}

/// Undoes bitshuffle: bit `b` of byte `k` of entry `i` lies at bit `i % 8` of byte `(8 k + b) n / 8 + i / 8`. Blocks whose
/// number of entries is no multiple of 8 were left alone.
pub(crate) fn bits_back(from: &[u8], to: &mut [u8], size: usize) {
    let n = from.len() / size;
    if !n.is_multiple_of(8) {
        to.copy_from_slice(from);
        return;
    }
    let row = n / 8;
    to[n * size..].copy_from_slice(&from[n * size..]);
    for k in 0..size {
        let rows: [&[u8]; 8] = std::array::from_fn(|b| &from[(8 * k + b) * row..(8 * k + b + 1) * row]);
        for (g, group) in to.chunks_exact_mut(8 * size).take(row).enumerate() {
            let square = u64::from_le_bytes(std::array::from_fn(|b| rows[b][g]));
            for (i, byte) in transpose(square).to_le_bytes().into_iter().enumerate() {
                group[i * size + k] = byte;
            }
        }
    }
}

/// Transposes a square of 8 x 8 bits (Warren, Hacker's Delight, section 7-3).
fn transpose(mut x: u64) -> u64 {
    let mut t = (x ^ (x >> 7)) & 0x00aa_00aa_00aa_00aa;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000_cccc_0000_cccc;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x0000_0000_f0f0_f0f0;
    x ^ t ^ (t << 28)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_shuffle_is_undone(data in prop::collection::vec(any::<u8>(), 0..3000), size in 1usize..10) {
            let mut there = vec![0; data.len()];
            bytes(&data, &mut there, size);
            let mut back = vec![0; data.len()];
            bytes_back(&there, &mut back, size);
            prop_assert_eq!(&back, &data);
            if size == 4 {
                let n = data.len() / 4;
                let mut plain = back.clone();
                interleave::<4>(&there, &mut plain, n);
                prop_assert_eq!(&plain, &data);
            }
        }

        #[test]
        fn bits_follow_their_definition(data in prop::collection::vec(any::<u8>(), 0..60), size in 1usize..9) {
            let n = data.len() / size / 8 * 8;
            let data = &data[..n * size];
            let mut there = vec![0u8; data.len()];
            for i in 0..n {
                for k in 0..size {
                    for b in 0..8 {
                        there[(8 * k + b) * n / 8 + i / 8] |= (data[i * size + k] >> b & 1) << (i % 8);
                    }
                }
            }
            let mut back = vec![0; data.len()];
            bits_back(&there, &mut back, size);
            prop_assert_eq!(&back[..], data);
        }
    }
}

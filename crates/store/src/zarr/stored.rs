//! How the bytes of a stored chunk become its entries, for those who decode them elsewhere.

use cellmill_matrix::{Compression, Streams, Stretch};

use super::blosc;
use super::codec::Codec;

/// Bytes of a stream of bytes that are stored as they are.
const PLAIN: usize = 64 << 10;

/// Whether streams can tell how these codecs are undone.
pub(crate) fn fit(codecs: &[Codec]) -> bool {
    matches!(codecs, [] | [Codec::Blosc | Codec::Zstd])
}

/// How a chunk that must hold `bytes` bytes, entries of `size`, becomes them. `None` if it is damaged or compressed by other means.
pub(crate) fn streams(codecs: &[Codec], stored: &[u8], bytes: usize, size: usize) -> Option<Streams> {
    match codecs {
        [] => (stored.len() == bytes).then(|| plain(0, bytes, size)),
        [Codec::Blosc] => blosc::streams(stored, bytes, size),
        [Codec::Zstd] => frame(stored.len(), bytes, size),
        _ => None,
    }
}

/// Bytes that are stored as they are, from `first` on.
pub(crate) fn plain(first: usize, bytes: usize, size: usize) -> Streams {
    let parts = (0..bytes).step_by(PLAIN).map(|to| {
        let len = PLAIN.min(bytes - to) as u32;
        Stretch { from: (first + to) as u64, stored: len, to: to as u64, len }
    });
    whole(bytes, size, Compression::Lz4, parts.collect())
}

/// One zstd frame. `None` for one as long as what is in it: it would be taken for bytes as they are.
fn frame(stored: usize, bytes: usize, size: usize) -> Option<Streams> {
    let (stored, len) = (u32::try_from(stored).ok()?, u32::try_from(bytes).ok()?);
    (stored != len).then(|| whole(bytes, size, Compression::Zstd, vec![Stretch { from: 0, stored, to: 0, len }]))
}

/// A chunk without blocks.
fn whole(bytes: usize, size: usize, compression: Compression, streams: Vec<Stretch>) -> Streams {
    Streams { block: (bytes / size.max(1)).max(1) as u64, shuffled: false, compression, streams }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_stream() {
        let bytes: Vec<u8> = (0..3000u32).flat_map(u32::to_le_bytes).collect();
        let frame = zstd::bulk::compress(&bytes, 3).unwrap();
        let streams = |stored: &[u8], len| streams(&[Codec::Zstd], stored, len, 4);
        let stretch = Stretch { from: 0, stored: frame.len() as u32, to: 0, len: 12_000 };
        let expected = Streams { block: 3000, shuffled: false, compression: Compression::Zstd, streams: vec![stretch] };
        assert_eq!(streams(&frame, bytes.len()), Some(expected));
        assert_eq!(streams(&frame, frame.len()), None, "it would be taken for bytes as they are");
        assert!(fit(&[Codec::Zstd]) && fit(&[]) && !fit(&[Codec::Zstd, Codec::Crc32c]) && !fit(&[Codec::Gzip]));
    }
}

#![no_main]

use cellmill_kernels::decode::zstd::Frames;
use cellmill_matrix::{Compression, Streams, Stretch};

// A frame, before which its length once decoded.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((len, frame)) = bytes.split_first_chunk::<4>() else { return };
    let stretch = Stretch { from: 0, stored: frame.len() as u32, to: 0, len: u32::from_le_bytes(*len) };
    let streams = Streams { block: 1, shuffled: false, compression: Compression::Zstd, streams: vec![stretch] };
    let mut frames = Frames::default();
    let before = frames.bytes();
    if frames.add(frame, &streams, 0, 0).is_none() {
        assert_eq!(frames.bytes(), before);
    }
    // Memory stays within what is promised and what is stored.
    assert!(frames.bytes() <= 4 * u64::from(stretch.len) + 1000 * bytes.len() as u64 + before);
});

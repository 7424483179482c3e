//! Frames of zstd's own encoder, decoded bit by bit from what [`Frames`] tells of them.

use cellmill_matrix::Stretch;
use proptest::prelude::*;

use super::tables::states;
use super::*;

/// Bits of stored bytes, the last first.
struct Backward<'a> {
    bytes: &'a [u8],
    left: i64,
}

impl<'a> Backward<'a> {
    fn new(stored: &'a [u8], bits: Bits) -> Self {
        Backward { bytes: &stored[bits.from as usize..], left: bits.len.into() }
    }

    fn take(&mut self, n: u32) -> u32 {
        self.left -= i64::from(n);
        assert!(self.left >= 0, "bits before the first");
        (0..i64::from(n)).map(|k| u32::from(self.bytes[(self.left + k) as usize / 8] >> ((self.left + k) % 8) & 1) << k).sum()
    }
}

/// RFC 8878, 4.2.1: the codes of a weight follow each other, the longest codes first.
fn literals(stored: &[u8], coded: &Coded, table: &Table) -> Vec<u8> {
    let weight = |symbol: usize| u32::from(table[symbol / 2] >> (4 * (symbol % 2)) & 15);
    let mut codes = Vec::new();
    for w in 1..=coded.bits {
        for symbol in (0..256).filter(|&symbol| weight(symbol) == w) {
            codes.resize(codes.len() + (1 << (w - 1)), (symbol as u8, coded.bits + 1 - w));
        }
    }
    assert_eq!(codes.len(), 1 << coded.bits);
    let each = if coded.n_streams == 1 { coded.len } else { coded.len.div_ceil(4) } as usize;
    let mut out = Vec::new();
    for (s, &bits) in coded.streams[..coded.n_streams as usize].iter().enumerate() {
        let mut reader = Backward::new(stored, bits);
        for _ in 0..each.min(coded.len as usize - s * each) {
            // As many bits as decide.
            let (mut code, mut n) = (0, 0);
            let symbol = loop {
                code = code << 1 | reader.take(1);
                n += 1;
                let (symbol, width) = codes[(code << (coded.bits - n)) as usize];
                if width == n {
                    break symbol;
                }
            };
            out.push(symbol);
        }
        assert_eq!(reader.left, 0);
    }
    out
}

/// Literal lengths, match lengths, and numbers of offsets.
fn sequences(stored: &[u8], chain: &Chain, tables: &[Table]) -> Vec<[u32; 3]> {
    // RFC 8878, 3.1.1.3.2.1.1.
    const FIRST: u32 = 64;
    let literal = |code: u32| match code {
        0..16 => (code, 0),
        16..20 => (16 + 2 * (code - 16), 1),
        20..22 => (24 + 4 * (code - 20), 2),
        22..24 => (32 + 8 * (code - 22), 3),
        24 => (48, 4),
        _ => (FIRST << (code - 25), code - 19),
    };
    let matched = |code: u32| match code {
        0..32 => (code + 3, 0),
        32..36 => (35 + 2 * (code - 32), 1),
        36..38 => (43 + 4 * (code - 36), 2),
        38..40 => (51 + 8 * (code - 38), 3),
        40..42 => (67 + 16 * (code - 40), 4),
        42 => (99, 5),
        _ => ((128 << (code - 43)) + 3, code - 36),
    };
    let [of_literals, of_offsets, of_matches] = chain.tables.map(|t| {
        let table = &tables[t as usize];
        let counts = table[2..].as_chunks::<2>().0.iter().map(|&count| i16::from_le_bytes(count));
        (u32::from(table[0]), states(table[0].into(), &counts.take(table[1].into()).collect::<Vec<_>>()))
    });
    let mut reader = Backward::new(stored, chain.bits);
    let [mut l, mut o, mut m] = [&of_literals, &of_offsets, &of_matches].map(|(log, _)| reader.take(*log) as usize);
    let mut out = Vec::new();
    for k in 0..chain.n {
        let (now_l, now_o, now_m) = (of_literals.1[l], of_offsets.1[o], of_matches.1[m]);
        let number = (1 << now_o.0) + reader.take(now_o.0.into());
        let (base, bits) = matched(now_m.0.into());
        let matched = base + reader.take(bits);
        let (base, bits) = literal(now_l.0.into());
        out.push([base + reader.take(bits), matched, number]);
        if k + 1 < chain.n {
            l = (now_l.2 + reader.take(now_l.1)) as usize;
            m = (now_m.2 + reader.take(now_m.1)) as usize;
            o = (now_o.2 + reader.take(now_o.1)) as usize;
        }
    }
    assert_eq!(reader.left, 0);
    out
}

/// The bytes of all frames.
fn decode(stored: &[u8], all: &Frames) -> Vec<u8> {
    let mut decoded = Vec::new();
    for coded in &all.coded {
        assert_eq!(coded.to, decoded.len() as u64);
        decoded.extend(literals(stored, coded, &all.tables[coded.table as usize]));
    }
    let mut chains = all.chains.iter();
    let mut out = Vec::new();
    for frame in &all.frames {
        let (first, mut last) = (out.len(), [1, 4, 8]);
        assert_eq!(frame.to, first as u64);
        for block in &all.blocks[frame.block as usize..][..frame.blocks as usize] {
            let literals = match block.literals {
                Literals::Stored(at) => stored[at as usize..][..block.len as usize].to_vec(),
                Literals::Same(at) => vec![stored[at as usize]; block.len as usize],
                Literals::Decoded(at) => decoded[at as usize..][..block.len as usize].to_vec(),
            };
            let mut literals = literals.into_iter();
            let chain = (block.n > 0).then(|| chains.next().unwrap());
            for [before, matched, number] in chain.map(|chain| sequences(stored, chain, &all.tables)).unwrap_or_default() {
                out.extend(literals.by_ref().take(before as usize));
                // RFC 8878, 3.1.1.5.
                let which = if number > 3 { 3 } else { number - u32::from(before > 0) };
                let offset = match which {
                    3 if number > 3 => number - 3,
                    3 => last[0] - 1,
                    which => last[which as usize],
                };
                last = match which {
                    0 => last,
                    1 => [offset, last[0], last[2]],
                    _ => [offset, last[0], last[1]],
                };
                assert!(offset > 0 && offset as usize <= out.len() - first);
                (0..matched).for_each(|_| out.push(out[out.len() - offset as usize]));
            }
            out.extend(literals);
        }
        assert_eq!(out.len() - first, frame.len as usize);
    }
    out
}

fn one(frame: &[u8], len: usize) -> Streams {
    let stretch = Stretch { from: 0, stored: frame.len() as u32, to: 0, len: len as u32 };
    Streams { block: 1, shuffled: false, compression: Compression::Zstd, streams: vec![stretch] }
}

/// What numbers of a matrix look like: a few bytes that vary, among others that do not; runs, copies and noise.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        (1usize..3000, any::<u8>()).prop_map(|(n, byte)| vec![byte; n]),
        prop::collection::vec(0u16..700, 0..3000).prop_map(|numbers| numbers.iter().flat_map(|n| u32::from(*n).to_le_bytes()).collect()),
        prop::collection::vec(any::<u8>(), 0..1000),
        prop::collection::vec(prop_oneof![9 => Just(1.0f32), 3 => Just(2.0), 1 => Just(7.0)], 0..20_000)
            .prop_map(|numbers| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>()),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn frames_are_read_as_they_were_written(parts in prop::collection::vec((bytes(), -3i32..12), 1..4)) {
        let (mut all, mut stored, mut plain) = (Frames::default(), Vec::<u8>::new(), Vec::<u8>::new());
        for (bytes, level) in &parts {
            let frame = zstd::bulk::compress(bytes, *level).unwrap();
            if frame.len() == bytes.len() {
                continue;
            }
            let mark = all.mark();
            for _ in 0..2 {
                all.back(mark);
                all.add(&frame, &one(&frame, bytes.len()), stored.len() as u64, plain.len() as u64).unwrap();
            }
            stored.extend(frame);
            plain.extend(bytes);
        }
        prop_assert!(decode(&stored, &all) == plain);
        prop_assert!(all.frames.is_empty() || all.ends == [stored.len() as u64, plain.len() as u64]);
        all.clear();
        prop_assert_eq!(all.bytes(), Frames::default().bytes());
    }

    #[test]
    fn damage_stays_inside(bytes in bytes(), level in -3i32..12, changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..5), cut in any::<u16>()) {
        let mut frame = zstd::bulk::compress(&bytes, level).unwrap();
        let n = frame.len();
        changes.iter().for_each(|&(at, byte)| frame[usize::from(at) % n] = byte);
        if cut % 4 == 0 {
            frame.truncate(usize::from(cut) % n);
        }
        let mut all = Frames::default();
        let added = frame.len() == bytes.len() || all.add(&frame, &one(&frame, bytes.len()), 100, 1000).is_some();
        prop_assert_eq!(all.frames.len(), usize::from(added && frame.len() != bytes.len()));
        let end = 100 + frame.len() as u64;
        let bits = all.chains.iter().map(|chain| chain.bits).chain(all.coded.iter().flat_map(|coded| coded.streams));
        prop_assert!(bits.into_iter().all(|bits| bits.from + u64::from(bits.len.div_ceil(8)) <= end));
        let (mut literals, mut sequences) = (0, 0);
        for block in &all.blocks {
            match block.literals {
                Literals::Stored(at) => prop_assert!(at >= 100 && at + u64::from(block.len) <= end),
                Literals::Same(at) => prop_assert!(at >= 100 && at < end),
                Literals::Decoded(at) => literals = literals.max(at + u64::from(block.len)),
            }
            sequences = sequences.max(block.sequence + if block.n > 0 { block.n + BEHIND } else { 0 });
        }
        prop_assert!(literals == all.literals && sequences == all.sequences && literals <= bytes.len() as u64);
        let tables = all.chains.iter().flat_map(|chain| chain.tables).chain(all.coded.iter().map(|coded| coded.table));
        prop_assert!(tables.into_iter().all(|table| (table as usize) < all.tables.len()));
    }
}

#[test]
fn what_is_rare_is_left_to_others() {
    let bytes: Vec<u8> = (0..100_000u32).flat_map(|i| (i % 613 * (i % 7)).to_le_bytes()).collect();
    let add = |frame: &[u8], len| Frames::default().add(frame, &one(frame, len), 0, 0);
    let plain = zstd::bulk::compress(&bytes, 3).unwrap();
    assert_eq!(add(&plain, bytes.len()), Some(()));
    assert_eq!(add(&plain, bytes.len() - 4), None, "another length");
    assert_eq!(add(&[&plain[..], &plain[..]].concat(), bytes.len()), None, "two frames");
    assert_eq!(add(&plain[..plain.len() - 1], bytes.len()), None, "half a frame");
    let mut tool = zstd::bulk::Compressor::new(3).unwrap();
    tool.include_checksum(true).unwrap();
    assert_eq!(add(&tool.compress(&bytes).unwrap(), bytes.len()), None, "a checksum");
    let unknown = zstd::stream::encode_all(&bytes[..], 3).unwrap();
    assert_eq!(add(&unknown, bytes.len()), None, "an unknown length");
    assert_eq!(add(&[0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0], 4), None, "a frame to skip");
}

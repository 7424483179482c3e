//! Bytes of anybody's making: what fuzzing has found, and seeds with random damage. See docs/fuzzing.md.

mod damage;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::test_runner::{RngAlgorithm, TestRng};
use rand_of::Dice;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 3] = [("zarr", damage::zarr), ("hdf5", damage::hdf5), ("mtx", damage::mtx)];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/fuzz").join(name)
}

/// Files of a folder, sorted, with their names.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Runs a target; the bytes on which it panics are left where a message says.
fn survive(name: &str, target: Target, bytes: &[u8], what: &str) {
    if let Err(panic) = std::panic::catch_unwind(|| target(bytes)) {
        let path = std::env::var_os("CELLMILL_CRASHES").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = path.join(format!("{name}-{:016x}", bytes.iter().fold(0u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))));
        fs::write(&path, bytes).unwrap();
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let said = format!("{what} panics ({}); its bytes are in {}", text.unwrap_or_default(), path.display());
        if std::env::var_os("CELLMILL_CRASHES").is_none() {
            panic!("{said}");
        }
        eprintln!("{said}");
    }
}

#[test]
fn what_was_found_is_survived() {
    for (name, target) in TARGETS {
        let found = files(&folder(name));
        assert!(!found.is_empty(), "tests/data/fuzz/{name} is empty");
        for (file, bytes) in found {
            survive(name, target, &bytes, &format!("tests/data/fuzz/{name}/{file}"));
        }
    }
}

/// Random damage to every seed. `CELLMILL_FUZZ=SECONDS` goes on for so long, `CELLMILL_FUZZ_SEED` begins elsewhere.
#[test]
fn random_damage_is_survived() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let limit = number("CELLMILL_FUZZ").map(Duration::from_secs);
    let mut dice = Dice(TestRng::from_seed(RngAlgorithm::ChaCha, &[number("CELLMILL_FUZZ_SEED").unwrap_or(0) as u8; 32]));
    let seeds: Vec<(&str, Target, Vec<Vec<u8>>)> =
        TARGETS.iter().map(|(name, target)| (*name, *target, files(&folder(name)).into_iter().map(|f| f.1).collect())).collect();
    let start = Instant::now();
    let mut rounds = 0u64;
    while limit.map_or(rounds < 40, |limit| start.elapsed() < limit) {
        for (name, target, seeds) in &seeds {
            let bytes = dice.damage(seeds);
            survive(name, *target, &bytes, &format!("damaged {name}"));
        }
        rounds += 1;
    }
    if limit.is_some() {
        eprintln!("{rounds} rounds");
    }
}

/// Where damage comes from.
mod rand_of {
    use proptest::prelude::Rng;
    use proptest::test_runner::TestRng;

    pub struct Dice(pub TestRng);

    /// Numbers that readers stumble over.
    const EDGES: [u64; 12] = [0, 1, 2, 7, 127, 255, 32767, 65535, i32::MAX as u64, u32::MAX as u64, i64::MAX as u64, u64::MAX];

    impl Dice {
        fn below(&mut self, n: usize) -> usize {
            (self.0.next_u64() % n.max(1) as u64) as usize
        }

        /// One of the seeds with up to eight places changed.
        pub fn damage(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
            let mut bytes = seeds[self.below(seeds.len())].clone();
            for _ in 0..1 + self.below(8) {
                let at = self.below(bytes.len());
                let width = 1 << self.below(4);
                match self.below(10) {
                    0 | 1 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << (at % 8)),
                    2 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = at as u8),
                    // A number of 1, 2, 4 or 8 bytes, either end first.
                    3..=5 => {
                        let edge = EDGES[self.below(EDGES.len())];
                        let edge = if self.below(4) == 0 { (edge as usize ^ at) as u64 } else { edge };
                        let little = edge.to_le_bytes();
                        let from: Vec<u8> =
                            if self.below(4) == 0 { little[..width].iter().rev().copied().collect() } else { little[..width].to_vec() };
                        bytes.iter_mut().skip(at).zip(from).for_each(|(b, new)| *b = new);
                    }
                    // Text: a digit becomes another, or many.
                    6 => {
                        if let Some(digit) = (at..bytes.len()).find(|&i| bytes[i].is_ascii_digit()) {
                            let more = [&b"9"[..], b"0", b"-1", b"99999999999", b"18446744073709551615", b"1e9", b"0.5", b"null", b"[]"];
                            let more = more[self.below(9)];
                            bytes.splice(digit..digit + 1, more.iter().copied());
                        }
                    }
                    7 => {
                        let end = (at + self.below(64)).min(bytes.len());
                        bytes.drain(at..end);
                    }
                    8 => {
                        let end = (at + self.below(64)).min(bytes.len());
                        let copy = bytes[at..end].to_vec();
                        let to = self.below(bytes.len() + 1);
                        bytes.splice(to..to, copy);
                    }
                    _ => {
                        let other = &seeds[self.0.next_u64() as usize % seeds.len()];
                        let from = self.0.next_u64() as usize % other.len().max(1);
                        let part = &other[from..(from + 32).min(other.len())];
                        let end = (at + part.len()).min(bytes.len());
                        bytes.splice(at..end, part.iter().copied());
                    }
                }
            }
            if self.below(8) == 0 {
                let cut = self.below(bytes.len() + 1);
                bytes.truncate(cut);
            }
            bytes
        }
    }
}

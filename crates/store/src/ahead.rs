//! Telling the operating system which bytes will be read soon, so that the disk works while threads decode.

use std::fs::File;

/// Asks for `len` bytes at `at` to be read into the page cache. A wish: nothing waits for it, and nothing fails.
#[cfg(target_os = "linux")]
pub(crate) fn will_read(file: &File, at: u64, len: u64) {
    if let Some(len) = std::num::NonZeroU64::new(len) {
        let _ = rustix::fs::fadvise(file, at, Some(len), rustix::fs::Advice::WillNeed);
    }
}

/// Other systems read ahead by themselves or not at all.
#[cfg(not(target_os = "linux"))]
pub(crate) fn will_read(_: &File, _: u64, _: u64) {}

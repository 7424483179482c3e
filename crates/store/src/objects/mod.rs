//! Where the bytes of a store lie: in the files of a folder, or in the objects below a URL.

mod ahead;
mod client;
mod folder;
mod remote;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::path::Path;

pub(crate) use self::folder::Folder;
pub(crate) use self::remote::Remote;

/// Part of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Span {
    /// All of it, at most so many bytes.
    All {
        /// An object of more bytes is not read.
        most: u64,
    },
    /// These bytes.
    Part {
        /// The first.
        at: u64,
        /// How many.
        len: u64,
    },
    /// So many bytes at its end.
    Last(u64),
}

impl Span {
    /// Any object whole.
    pub const WHOLE: Span = Span::All { most: u64::MAX };

    /// First and past-the-last byte in an object of `size` bytes, if it has them.
    fn within(self, size: u64) -> Option<(u64, u64)> {
        match self {
            Span::All { most } => (size <= most).then_some((0, size)),
            Span::Part { at, len } => at.checked_add(len).filter(|end| *end <= size).map(|end| (at, end)),
            Span::Last(len) => size.checked_sub(len).map(|at| (at, size)),
        }
    }
}

/// What was found where part of an object was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The part.
    Whole,
    /// There is no such object.
    Absent,
    /// The object has so many bytes, and so no such part.
    Other(u64),
}

/// How soon bytes will be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Next, by this thread.
    Now,
    /// In a while.
    Soon,
}

/// Named runs of bytes, read from any thread. Names are relative, with `/` between their parts.
pub(crate) trait Objects: Debug + Send + Sync {
    /// Replaces `into` by part of an object.
    fn read(&self, name: &str, span: Span, into: &mut Vec<u8>) -> io::Result<Found>;
    /// These parts of an object will be read: they may be fetched meanwhile. Nothing waits for it, and nothing fails.
    fn will_read(&self, name: &str, spans: &[Span], when: When);
    /// Bytes of each object; `None` where there is none.
    fn sizes(&self, names: &[String]) -> io::Result<Vec<Option<u64>>>;
    /// Names of the folders in a folder.
    fn folders(&self, name: &str) -> io::Result<Vec<String>>;
    /// Whether each request takes its time, so that few should be made, and many at once.
    fn is_far(&self) -> bool;
    /// Bytes that are held at most of what was fetched ahead.
    fn held_bytes(&self) -> u64;
}

/// Whether a path is an address: `s3://…`, `https://…`.
pub fn is_url(path: &Path) -> bool {
    let scheme = path.to_str().and_then(|text| text.split_once("://")).map(|(scheme, _)| scheme);
    scheme.is_some_and(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)))
}

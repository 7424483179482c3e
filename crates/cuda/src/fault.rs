//! What the driver and its libraries complain of, in one sentence.

use std::fmt::Display;

use cellmill_matrix::{Error, ErrorKind, Place};

/// The option that chooses where to compute, as users write it.
pub(crate) const OPTION: &str = "device";

/// There is no GPU to be had: the option asks for what this machine can't give.
pub(crate) fn absent(found: impl Display, expected: impl Into<String>) -> Error {
    Error::option(OPTION, found, expected)
}

/// A GPU refused. `place`: `cuda:0`; `what`: what was being done.
pub(crate) fn refused(place: &str, what: &str, why: impl Display) -> Error {
    let place = Place { store: Some(place.to_owned()), element: Some(what.to_owned()), rows: None };
    ErrorKind::Io { place, message: format!("the GPU reported {why}") }.into()
}

/// Bytes as people say them.
pub(crate) fn mib(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 { format!("{:.1} GiB", mib / 1024.0) } else { format!("{mib:.1} MiB") }
}

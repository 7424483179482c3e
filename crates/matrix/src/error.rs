//! One error type for every library crate: it says where, what was found and what was expected.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The result of anything in cellmill that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where something went wrong. Fields are added from the inside out as the error travels up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The store's path or address.
    pub store: Option<String>,
    /// The element inside it, for example `X/indices`.
    pub element: Option<String>,
    /// Rows of the store (0-based, half-open).
    pub rows: Option<Range<u64>>,
}

impl Place {
    /// An element of a store.
    pub fn element(store: impl Into<String>, element: impl Into<String>) -> Self {
        Place { store: Some(store.into()), element: Some(element.into()), rows: None }
    }

    /// A store as a whole.
    pub fn store(store: impl Into<String>) -> Self {
        Place { store: Some(store.into()), ..Place::default() }
    }

    /// The same place, at these rows.
    pub fn rows(mut self, rows: Range<u64>) -> Self {
        self.rows = Some(rows);
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(element) = &self.element {
            parts.push(element.clone());
        }
        if let Some(rows) = &self.rows {
            parts.push(format!("rows {}..{}", rows.start, rows.end));
        }
        match (&self.store, parts.is_empty()) {
            (Some(store), true) => write!(f, "{store}"),
            (Some(store), false) => write!(f, "{store}: {}", parts.join(", ")),
            (None, _) => write!(f, "{}", parts.join(", ")),
        }
    }
}

/// What went wrong. Each kind maps to one Python exception and one exit status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The data break a rule: a shape, a range, an encoding. Python: `ValueError`.
    Invalid {
        /// Where.
        place: Place,
        /// What was found.
        found: String,
        /// What was expected, and what to do when that is known.
        expected: String,
    },
    /// A column, element or key is not there. Python: `KeyError`.
    Missing {
        /// Where it was looked for.
        place: Place,
        /// The key.
        key: String,
        /// The keys that are there (the nearest few are shown).
        known: Vec<String>,
    },
    /// An option's value can't be used. Python: `ValueError`.
    Option {
        /// The option as the user writes it.
        name: String,
        /// The value given.
        found: String,
        /// The values that work.
        expected: String,
    },
    /// The operating system refused. Python: `OSError`.
    Io {
        /// Where.
        place: Place,
        /// Its own words.
        message: String,
    },
    /// The plan doesn't fit under the memory ceiling. Python: `MemoryError`.
    Budget {
        /// What needs the memory.
        what: String,
        /// Bytes that it needs.
        needs: u64,
        /// Bytes that the ceiling allows.
        ceiling: u64,
    },
    /// The user stopped the run. Python: `KeyboardInterrupt`.
    Interrupted,
    /// A mistake of ours. Exit status 2.
    Bug {
        /// What we thought could not happen.
        message: String,
    },
}

/// An error that knows its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error(Box<ErrorKind>);

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// Data that break a rule.
    pub fn invalid(place: Place, found: impl Into<String>, expected: impl Into<String>) -> Self {
        ErrorKind::Invalid { place, found: found.into(), expected: expected.into() }.into()
    }

    /// A key that is not there; `known` lists those that are.
    pub fn missing<S: Into<String>>(place: Place, key: impl Into<String>, known: impl IntoIterator<Item = S>) -> Self {
        ErrorKind::Missing { place, key: key.into(), known: known.into_iter().map(Into::into).collect() }.into()
    }

    /// An option whose value can't be used.
    pub fn option(name: impl Into<String>, found: impl fmt::Display, expected: impl Into<String>) -> Self {
        ErrorKind::Option { name: name.into(), found: found.to_string(), expected: expected.into() }.into()
    }

    /// The operating system's refusal.
    pub fn io(place: Place, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::Interrupted {
            return ErrorKind::Interrupted.into();
        }
        ErrorKind::Io { place, message: error.to_string() }.into()
    }

    /// A mistake of ours.
    pub fn bug(message: impl Into<String>) -> Self {
        ErrorKind::Bug { message: message.into() }.into()
    }

    /// Fills in what this error's place does not say yet.
    pub fn at(mut self, outer: &Place) -> Self {
        if let ErrorKind::Invalid { place, .. } | ErrorKind::Missing { place, .. } | ErrorKind::Io { place, .. } = &mut *self.0 {
            if place.store.is_none() {
                place.store.clone_from(&outer.store);
            }
            if place.element.is_none() {
                place.element.clone_from(&outer.element);
            }
            if place.rows.is_none() {
                place.rows.clone_from(&outer.rows);
            }
        }
        self
    }

    /// Whether the fault is ours (exit status 2) rather than the input's or the machine's (1).
    pub fn is_ours(&self) -> bool {
        matches!(*self.0, ErrorKind::Bug { .. })
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Error(Box::new(kind))
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            ErrorKind::Invalid { place, found, expected } => match place.to_string().as_str() {
                "" => write!(f, "{found}, but {expected}"),
                place => write!(f, "{place}: {found}, but {expected}"),
            },
            ErrorKind::Missing { place, key, known } => {
                match place.to_string().as_str() {
                    "" => write!(f, "there is no '{key}'")?,
                    place => write!(f, "{place}: there is no '{key}'")?,
                }
                let near = nearest(key, known);
                match (near, known.is_empty()) {
                    (Some(near), _) => write!(f, "; did you mean '{near}'?"),
                    (None, true) => Ok(()),
                    (None, false) => {
                        let shown = known.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(", ");
                        let more = if known.len() > 12 { ", …" } else { "" };
                        write!(f, "; there are: {shown}{more}")
                    }
                }
            }
            ErrorKind::Option { name, found, expected } => write!(f, "{name}: {found}, but {expected}"),
            ErrorKind::Io { place, message } => write!(f, "{place}: {message}"),
            ErrorKind::Budget { what, needs, ceiling } => write!(
                f,
                "{what} needs {needs} of memory, but the ceiling is {}; raise --memory to at least {needs}",
                gib(*ceiling),
                needs = gib(*needs)
            ),
            ErrorKind::Interrupted => write!(f, "stopped by the user"),
            ErrorKind::Bug { message } => write!(f, "this is a mistake in cellmill, please report it: {message}"),
        }
    }
}

/// Bytes as people say them, rounded up: `1.51 GiB`, `640 MiB`.
fn gib(bytes: u64) -> String {
    let mib = bytes as f64 / (1u64 << 20) as f64;
    if mib >= 1024.0 { format!("{:.2} GiB", (mib / 10.24).ceil() / 100.0) } else { format!("{:.0} MiB", mib.ceil()) }
}

/// The known key nearest to what was typed, if one is near: at most a third of its letters differ.
fn nearest<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    let fold = |s: &str| s.to_lowercase().replace('-', "_");
    let typed = fold(key);
    known
        .iter()
        .map(|name| (edit_distance(&typed, &fold(name)), name.as_str()))
        .min()
        .filter(|(distance, name)| *distance * 3 <= name.chars().count().max(typed.chars().count()))
        .map(|(_, name)| name)
}

/// Levenshtein distance by the two-row recurrence.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_what_and_what_was_expected() {
        let place = Place::element("pbmc.zarr", "X/indices").rows(81920..90112);
        let error = Error::invalid(place, "column 36601", "the store has 36601 genes (0..36601)");
        assert_eq!(error.to_string(), "pbmc.zarr: X/indices, rows 81920..90112: column 36601, but the store has 36601 genes (0..36601)");
    }

    #[test]
    fn a_missing_key_suggests_the_nearest() {
        let known = ["n_genes_by_counts", "total_counts"];
        let error = Error::missing(Place::element("a.h5ad", "obs"), "n_gene_by_counts", known);
        assert_eq!(error.to_string(), "a.h5ad: obs: there is no 'n_gene_by_counts'; did you mean 'n_genes_by_counts'?");
        let error = Error::missing(Place::default(), "louvain", known);
        assert_eq!(error.to_string(), "there is no 'louvain'; there are: n_genes_by_counts, total_counts");
    }

    #[test]
    fn a_place_is_filled_from_the_outside() {
        let error = Error::invalid(Place::default(), "NaN", "counts are finite").at(&Place::store("a.zarr").rows(0..3));
        assert_eq!(error.to_string(), "a.zarr: rows 0..3: NaN, but counts are finite");
    }
}

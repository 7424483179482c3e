//! Two kinds of row number that must never be mixed.

use serde::{Deserialize, Serialize};

macro_rules! row {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number as an index into memory.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

row! {
    /// A cell's row in the store as it lies on disk, 0-based.
    SourceRow
}
row! {
    /// A cell's row among the cells that are kept, 0-based.
    Row
}

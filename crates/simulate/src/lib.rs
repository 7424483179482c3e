//! Realistic counts as a source.

//! A store as the `zarrs` crate sees it, for codecs that are not ours.

use std::sync::Arc;

use zarrs::storage::byte_range::{ByteRange, ByteRangeIterator};
use zarrs::storage::{Bytes, MaybeBytes, MaybeBytesIterator, ReadableStorageTraits, StorageError, StoreKey};

use crate::objects::{Found, Objects, Span};

/// An array that `zarrs` decodes.
pub(super) type Foreign = zarrs::array::Array<Keyed>;

/// Objects, read by `zarrs`.
pub(super) struct Keyed(pub Arc<dyn Objects>);

impl Keyed {
    fn part(&self, key: &StoreKey, range: ByteRange) -> Result<MaybeBytes, StorageError> {
        let span = match range {
            ByteRange::FromStart(0, None) => Span::WHOLE,
            ByteRange::FromStart(at, Some(len)) => Span::Part { at, len },
            ByteRange::Suffix(len) => Span::Last(len),
            ByteRange::FromStart(at, None) => match self.size_key(key)? {
                Some(size) => Span::Part { at, len: size.saturating_sub(at) },
                None => return Ok(None),
            },
        };
        let mut bytes = Vec::new();
        match self.0.read(key.as_str(), span, &mut bytes)? {
            Found::Whole => Ok(Some(Bytes::from(bytes))),
            Found::Absent => Ok(None),
            Found::Other(size) => Err(StorageError::Other(format!("{key}: {range} of {size} bytes"))),
        }
    }
}

impl ReadableStorageTraits for Keyed {
    fn get_partial_many<'a>(&'a self, key: &StoreKey, ranges: ByteRangeIterator<'a>) -> Result<MaybeBytesIterator<'a>, StorageError> {
        let mut parts = Vec::new();
        for range in ranges {
            match self.part(key, range)? {
                Some(bytes) => parts.push(Ok(bytes)),
                None => return Ok(None),
            }
        }
        Ok(Some(Box::new(parts.into_iter())))
    }

    fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        Ok(self.0.sizes(&[key.as_str().to_string()])?.pop().flatten())
    }

    fn supports_get_partial(&self) -> bool {
        true
    }
}

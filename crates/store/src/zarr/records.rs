//! Arrays of records: `rec-array` in zarr. Fields lie one after the other without gaps; text has a fixed number of UTF-32 characters.

use cellmill_matrix::{Array, Error, Result, Values};
use serde_json::{Value, json};

use super::chunks::ZarrChunks;
use super::metadata::{Entry, Field};
use super::text;
use crate::numbers;
use crate::tree::Chunks;

/// Bytes of records that are read at most.
const MOST: u64 = 2 << 30;

/// The fields of an array of records, in order, `(n,)` each.
pub(super) fn read(chunks: &ZarrChunks, fields: &[Field]) -> Result<Vec<(String, Array)>> {
    let info = chunks.info();
    let (n, rows) = (info.shape[0], info.chunk[0]);
    let size: usize = fields.iter().map(Field::size).sum();
    if n.checked_mul(size as u64).is_none_or(|b| b > MOST) {
        return Err(Error::invalid(Default::default(), format!("{n} records of {size} bytes"), "at most 2 GiB of records can be read"));
    }
    let mut own: Vec<Vec<u8>> = fields.iter().map(|f| Vec::with_capacity(f.size() * n as usize)).collect();
    let (mut scratch, mut bytes) = (Vec::new(), Vec::new());
    for i in 0..chunks.n_chunks() {
        chunks.decode(i, &mut scratch, &mut bytes)?;
        let left = (n - i * rows).min(rows) as usize;
        for record in bytes.chunks_exact(size).take(left) {
            let mut at = 0;
            for (field, own) in fields.iter().zip(&mut own) {
                own.extend_from_slice(&record[at..at + field.size()]);
                at += field.size();
            }
        }
    }
    let column = |(field, mut bytes): (&Field, Vec<u8>)| {
        if field.swap > 1 {
            bytes.chunks_exact_mut(field.swap).for_each(<[u8]>::reverse);
        }
        let values = match field.entry {
            Entry::Number(dtype) => numbers::from_le(dtype, &bytes),
            Entry::Half => numbers::from_half(&bytes),
            entry => {
                let mut strings = text::fixed(entry, &bytes);
                strings.resize(n as usize, String::new());
                Values::Str(strings)
            }
        };
        (field.name.clone(), Array::vector(values))
    };
    Ok(fields.iter().zip(own).map(column).collect())
}

/// Characters of the longest string, at least 1.
fn width(strings: &[String]) -> usize {
    strings.iter().map(|s| s.chars().count()).max().unwrap_or(0).max(1)
}

/// Bytes that a field takes in a record.
fn field_size(values: &Values) -> usize {
    match values {
        Values::Str(strings) => 4 * width(strings),
        other => other.dtype().size().unwrap_or(1),
    }
}

/// Records `(n, size)` of these fields, little-endian, and the size of one.
pub(super) fn encode(fields: &[(String, Values)]) -> (Vec<u8>, usize) {
    let sizes: Vec<usize> = fields.iter().map(|(_, v)| field_size(v)).collect();
    let size: usize = sizes.iter().sum();
    let n = fields.first().map_or(0, |(_, v)| v.len());
    let mut bytes = vec![0; n * size];
    let mut at = 0;
    for ((_, values), width) in fields.iter().zip(sizes) {
        let own: Vec<u8> = match values {
            Values::Str(strings) => strings
                .iter()
                .flat_map(|s| {
                    let mut codes: Vec<u8> = s.chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
                    codes.resize(width, 0);
                    codes
                })
                .collect(),
            other => numbers::to_le(other).into_owned(),
        };
        for (record, entry) in bytes.chunks_exact_mut(size).zip(own.chunks_exact(width)) {
            record[at..at + width].copy_from_slice(entry);
        }
        at += width;
    }
    (bytes, size)
}

/// The data type of these fields as version 3 spells it.
pub(super) fn dtype_v3(fields: &[(String, Values)]) -> Value {
    let kind = |values: &Values| match values {
        Values::Str(strings) => json!({"name": "fixed_length_utf32", "configuration": {"length_bytes": 4 * width(strings)}}),
        other => other.dtype().name().into(),
    };
    let fields: Vec<Value> = fields.iter().map(|(name, values)| json!([name, kind(values)])).collect();
    json!({"name": "structured", "configuration": {"fields": fields}})
}

/// The data type of these fields as version 2 spells it.
pub(super) fn dtype_v2(fields: &[(String, Values)], number: impl Fn(&Values) -> &'static str) -> Value {
    let kind = |values: &Values| match values {
        Values::Str(strings) => format!("<U{}", width(strings)),
        other => number(other).to_string(),
    };
    fields.iter().map(|(name, values)| json!([name, kind(values)])).collect()
}

/// A record of zeros in base 64, as a fill value is spelled.
pub(super) fn zero_record(size: usize) -> String {
    let mut text = "A".repeat(size.div_ceil(3) * 4);
    let pad = (3 - size % 3) % 3;
    text.truncate(text.len() - pad);
    text + &"=".repeat(pad)
}

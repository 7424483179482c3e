//! The documents that describe arrays which are written.

use cellmill_matrix::DType;
use serde_json::{Value, json};

use crate::tree::Attrs;

/// zstd's level for version 3.
pub(super) const LEVEL: i32 = 3;

fn zero(dtype: DType) -> Value {
    match dtype {
        DType::Bool => false.into(),
        DType::F32 | DType::F64 => 0.0.into(),
        DType::Str => "".into(),
        _ => 0.into(),
    }
}

/// Describes an array of version 3.
pub(super) fn array_v3(dtype: DType, shape: &[u64], chunk: &[u64], attrs: Attrs) -> Value {
    let zstd = json!({"name": "zstd", "configuration": {"level": LEVEL, "checksum": false}});
    let entries = match dtype.size() {
        None => json!({"name": "vlen-utf8", "configuration": {}}),
        Some(1) => json!({"name": "bytes"}),
        Some(_) => json!({"name": "bytes", "configuration": {"endian": "little"}}),
    };
    json!({
        "shape": shape,
        "data_type": if dtype == DType::Str { "string" } else { dtype.name() },
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": zero(dtype),
        "codecs": [entries, zstd],
        "attributes": attrs,
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    })
}

/// numpy's name of a type.
pub(super) fn name_v2(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "|b1",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::Str => "|O",
    }
}

/// Describes an array of version 2.
pub(super) fn array_v2(dtype: DType, shape: &[u64], chunk: &[u64]) -> Value {
    json!({
        "shape": shape,
        "chunks": chunk,
        "dtype": name_v2(dtype),
        "fill_value": zero(dtype),
        "order": "C",
        "filters": if dtype == DType::Str { json!([{"id": "vlen-utf8"}]) } else { Value::Null },
        "dimension_separator": ".",
        "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
        "zarr_format": 2,
    })
}

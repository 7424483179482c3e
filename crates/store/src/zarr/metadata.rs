//! What `.zarray` and `zarr.json` say about an array (zarr specifications, versions 2 and 3.0).

use cellmill_matrix::DType;
use serde_json::Value;

use super::codec::{Chain, Codec};
use crate::tree::{ArrayInfo, Attrs};

/// The largest chunk that we decode, in bytes of entries.
pub(crate) const LARGEST_CHUNK: u64 = 1 << 36;

/// One entry of an array as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A number or a boolean.
    Number(DType),
    /// A float16, which readers get as f32.
    Half,
    /// numpy `<U`: so many UTF-32 characters, padded with zeros.
    Utf32(usize),
    /// numpy `|S`: so many bytes, padded with zeros.
    Bytes(usize),
    /// Strings of any length (`vlen-utf8`).
    Text,
    /// A record of so many bytes; its fields are the layout's.
    Record(usize),
    /// Something that we can't hold.
    Other,
}

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub name: String,
    /// A number or text of fixed length.
    pub entry: Entry,
    /// Bytes of the unit whose bytes stand in reverse.
    pub swap: usize,
}

impl Field {
    /// Bytes in a record.
    pub fn size(&self) -> usize {
        self.entry.size().unwrap_or(0)
    }
}

impl Entry {
    /// Bytes of one entry inside a decoded chunk, if they are all alike.
    pub fn size(self) -> Option<usize> {
        match self {
            Entry::Number(dtype) => dtype.size(),
            Entry::Half => Some(2),
            Entry::Utf32(n) => Some(4 * n),
            Entry::Bytes(n) | Entry::Record(n) => Some(n),
            Entry::Text | Entry::Other => None,
        }
    }

    /// The type that readers get.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Entry::Number(dtype) => Some(dtype),
            Entry::Half => Some(DType::F32),
            Entry::Utf32(_) | Entry::Bytes(_) | Entry::Text => Some(DType::Str),
            Entry::Record(_) | Entry::Other => None,
        }
    }
}

/// How the name of a chunk's file is made of its place in the grid.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    /// `c` in front (version 3) or not.
    pub prefix: bool,
    /// Between the numbers.
    pub separator: char,
}

impl Keys {
    /// The file of the chunk at these grid coordinates, below the array's folder.
    pub fn key(&self, at: &[u64]) -> String {
        let mut key = String::new();
        if self.prefix {
            key.push('c');
        }
        for (axis, n) in at.iter().enumerate() {
            if axis > 0 || self.prefix {
                key.push(self.separator);
            }
            key.push_str(&n.to_string());
        }
        if at.is_empty() && !self.prefix {
            key.push('0');
        }
        key
    }
}

/// How chunks are packed into a shard.
#[derive(Clone, Debug)]
pub(crate) struct Sharding {
    /// Whether the index carries a checksum.
    pub index_crc: bool,
    /// Whether the index stands at the end (the usual place) or at the start.
    pub index_at_end: bool,
}

/// An array's metadata, checked.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub info: ArrayInfo,
    pub entry: Entry,
    /// The fields of a record.
    pub fields: Vec<Field>,
    /// One missing entry as decoded bytes, or its text.
    pub fill: Vec<u8>,
    pub keys: Keys,
    /// Our own way to decode a chunk; without it zarrs does it.
    pub chain: Option<Chain>,
    pub sharding: Option<Sharding>,
}

impl Layout {
    /// Chunks along each axis.
    pub fn grid(&self) -> Vec<u64> {
        self.info.shape.iter().zip(&self.info.chunk).map(|(n, c)| n.div_ceil(*c)).collect()
    }

    /// Entries of a chunk.
    pub fn chunk_len(&self) -> u64 {
        self.info.chunk.iter().product()
    }

    fn check(self) -> Result<Self, String> {
        let info = &self.info;
        if info.shape.len() != info.chunk.len() {
            return Err(format!("{} axes and chunks of {} axes", info.shape.len(), info.chunk.len()));
        }
        if info.chunk.contains(&0) {
            return Err(format!("chunks of shape {:?}", info.chunk));
        }
        let product = |lengths: &[u64]| lengths.iter().try_fold(1u64, |n, l| n.checked_mul(*l)).filter(|n| *n < 1 << 56);
        let size = self.entry.size().unwrap_or(1).max(1) as u64;
        product(&info.shape).ok_or_else(|| format!("shape {:?}", info.shape))?;
        let chunk = product(&info.chunk).and_then(|n| n.checked_mul(size)).ok_or_else(|| format!("chunks of shape {:?}", info.chunk))?;
        if chunk > LARGEST_CHUNK {
            return Err(format!("chunks of {chunk} bytes (shape {:?})", info.chunk));
        }
        if let Some(shard) = &info.shard {
            let whole = shard.len() == info.chunk.len() && shard.iter().zip(&info.chunk).all(|(s, c)| *s > 0 && s % c == 0);
            let inner = product(shard).map(|n| n / product(&info.chunk).unwrap_or(1));
            if !whole || inner.is_none_or(|n| n > 1 << 28) {
                return Err(format!("shards of shape {shard:?} of chunks of shape {:?}", info.chunk));
            }
        }
        Ok(self)
    }
}

fn lengths(value: Option<&Value>, what: &str) -> Result<Vec<u64>, String> {
    let list = value.and_then(Value::as_array).ok_or_else(|| format!("no {what}"))?;
    list.iter().map(|v| v.as_u64().ok_or_else(|| format!("{what} {v}"))).collect()
}

/// numpy's `kind + size` without byte order: `f4`, `i8`, `b1`.
fn number(kind: &str) -> Option<DType> {
    Some(match kind {
        "b1" => DType::Bool,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "f4" => DType::F32,
        "f8" => DType::F64,
        _ => return None,
    })
}

/// The fill value as bytes of one entry. Unknown spellings are an error, `null` is zero.
fn fill(entry: Entry, value: Option<&Value>) -> Result<Vec<u8>, String> {
    let value = value.unwrap_or(&Value::Null);
    let bad = || format!("fill value {value}");
    let zero = matches!(value, Value::Null) || value == &Value::from(0);
    match entry {
        Entry::Text => Ok(value.as_str().unwrap_or("").as_bytes().to_vec()),
        Entry::Utf32(n) => {
            let text = value.as_str().unwrap_or("");
            let mut bytes: Vec<u8> = text.chars().take(n).flat_map(|c| (c as u32).to_le_bytes()).collect();
            bytes.resize(4 * n, 0);
            Ok(bytes)
        }
        Entry::Bytes(n) | Entry::Record(n) => Ok(vec![0; n]),
        Entry::Other => Ok(Vec::new()),
        Entry::Number(_) | Entry::Half => {
            let size = entry.size().unwrap_or(1);
            if zero {
                return Ok(vec![0; size]);
            }
            let float = || match value {
                Value::String(s) if s == "NaN" => Some(f64::NAN),
                Value::String(s) if s == "Infinity" => Some(f64::INFINITY),
                Value::String(s) if s == "-Infinity" => Some(f64::NEG_INFINITY),
                other => other.as_f64(),
            };
            if let Some(hex) = value.as_str().and_then(|s| s.strip_prefix("0x")) {
                let bits = u64::from_str_radix(hex, 16).map_err(|_| bad())?;
                return Ok(bits.to_le_bytes()[..size].to_vec());
            }
            let Entry::Number(dtype) = entry else {
                return Ok(half::f16::from_f64(float().ok_or_else(bad)?).to_le_bytes().to_vec());
            };
            Ok(match dtype {
                DType::F32 => (float().ok_or_else(bad)? as f32).to_le_bytes().to_vec(),
                DType::F64 => float().ok_or_else(bad)?.to_le_bytes().to_vec(),
                DType::Bool => {
                    vec![u8::from(value.as_bool().or_else(|| value.as_u64().map(|n| n != 0)).ok_or_else(bad)?)]
                }
                _ => {
                    let whole = value.as_f64().filter(|x| x.fract() == 0.0).map(|x| x as i64);
                    let n = value.as_i64().or(value.as_u64().map(|n| n as i64)).or(whole).ok_or_else(bad)?;
                    n.to_le_bytes()[..size].to_vec()
                }
            })
        }
    }
}

/// Reads `.zarray` (version 2).
pub(crate) fn v2(meta: &Value, attrs: Attrs) -> Result<Layout, String> {
    let shape = lengths(meta.get("shape"), "shape")?;
    let mut chunk = lengths(meta.get("chunks"), "chunks")?;
    for (c, n) in chunk.iter_mut().zip(&shape) {
        if *n == 0 {
            *c = (*c).max(1);
        }
    }
    let dtype = meta.get("dtype").ok_or("no dtype")?;
    let filters = meta.get("filters").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_text = filters.len() == 1 && filters[0].get("id").and_then(Value::as_str) == Some("vlen-utf8");
    let (mut entry, mut big, mut dtype_name) = (Entry::Other, false, dtype.to_string());
    if let Some(name) = dtype.as_str() {
        dtype_name = name.to_string();
        (entry, big) = entry_v2(name, is_text);
    }
    let fields = fields(dtype.as_array(), |kind| kind.as_str().map_or((Entry::Other, false), |name| entry_v2(name, false)));
    if !fields.is_empty() {
        entry = Entry::Record(fields.iter().map(Field::size).sum());
    }
    let compressor = meta.get("compressor").unwrap_or(&Value::Null);
    let (codec, name) = if compressor.is_null() { (Some(None), "none".into()) } else { codec_v2(compressor) };
    let f_order = meta.get("order").and_then(Value::as_str) == Some("F") && shape.len() > 1;
    let plain = filters.is_empty() || (is_text && entry == Entry::Text);
    let chain = codec.filter(|_| plain && !f_order).map(|codec| Chain { codecs: codec.into_iter().collect(), swap: swap(entry, big) });
    let separator = meta.get("dimension_separator").and_then(Value::as_str).and_then(|s| s.chars().next()).unwrap_or('.');
    let fill = fill(entry, meta.get("fill_value"))?;
    let info = ArrayInfo { attrs, shape, dtype: entry.dtype(), dtype_name, chunk, shard: None, codec: name, stored_bytes: None };
    Layout { info, entry, fields, fill, keys: Keys { prefix: false, separator }, chain, sharding: None }.check()
}

/// numpy's name of a type (`<f4`, `|O`), and whether it is big-endian.
fn entry_v2(name: &str, is_text: bool) -> (Entry, bool) {
    let (order, kind) = if name.is_char_boundary(1) { name.split_at(name.len().min(1)) } else { ("", name) };
    let entry = match kind.chars().next() {
        Some('O') if is_text => Entry::Text,
        Some('U') => kind[1..].parse().map_or(Entry::Other, Entry::Utf32),
        Some('S') => kind[1..].parse().map_or(Entry::Other, Entry::Bytes),
        _ if kind == "f2" => Entry::Half,
        _ => number(kind).map_or(Entry::Other, Entry::Number),
    };
    (entry, order == ">")
}

/// The fields of a record, `[name, type]` each; none where one can't be held.
fn fields(list: Option<&Vec<Value>>, entry: impl Fn(&Value) -> (Entry, bool)) -> Vec<Field> {
    let field = |value: &Value| {
        let (name, kind) = match value {
            Value::Array(pair) if pair.len() == 2 => (pair[0].as_str()?, &pair[1]),
            Value::Object(map) => (map.get("name")?.as_str()?, map.get("data_type")?),
            _ => return None,
        };
        let (entry, big) = entry(kind);
        // A field without a size is none of ours.
        entry.size().filter(|n| (1..1 << 24).contains(n))?;
        Some(Field { name: name.to_string(), entry, swap: swap(entry, big) })
    };
    list.and_then(|list| list.iter().map(field).collect::<Option<Vec<Field>>>()).unwrap_or_default()
}

/// Bytes of the unit whose bytes stand in reverse.
fn swap(entry: Entry, big: bool) -> usize {
    match entry {
        Entry::Number(_) | Entry::Half if big => entry.size().unwrap_or(1),
        Entry::Utf32(_) if big => 4,
        _ => 1,
    }
}

/// A numcodecs compressor: our codec (or none of ours) and its spoken name.
fn codec_v2(value: &Value) -> (Option<Option<Codec>>, String) {
    let id = value.get("id").and_then(Value::as_str).unwrap_or("?");
    let level = |key: &str| value.get(key).and_then(Value::as_i64).map(|l| format!("-{l}")).unwrap_or_default();
    match id {
        "blosc" => {
            let shuffle = match value.get("shuffle").and_then(Value::as_i64) {
                Some(0) => "",
                Some(2) => " bitshuffle",
                _ => " shuffle",
            };
            (Some(Some(Codec::Blosc)), format!("blosc-{}{shuffle}", value.get("cname").and_then(Value::as_str).unwrap_or("?")))
        }
        "zstd" => (Some(Some(Codec::Zstd)), format!("zstd{}", level("level"))),
        "gzip" => (Some(Some(Codec::Gzip)), format!("gzip{}", level("level"))),
        "zlib" => (Some(Some(Codec::Zlib)), format!("zlib{}", level("level"))),
        "lz4" => (Some(Some(Codec::Lz4)), "lz4".into()),
        other => (None, other.into()),
    }
}

/// `{"name": …, "configuration": {…}}`, or the name alone.
fn named(value: &Value) -> (&str, &Value) {
    match value {
        Value::String(name) => (name, &Value::Null),
        other => (other.get("name").and_then(Value::as_str).unwrap_or("?"), other.get("configuration").unwrap_or(&Value::Null)),
    }
}

/// A codec chain of version 3. `None` when a codec is not one of ours; the name is always given.
fn chain_v3(codecs: &[Value], entry: Entry) -> (Option<Chain>, String) {
    let mut ours = Some(Chain { codecs: Vec::new(), swap: 1 });
    let mut names = Vec::new();
    for (i, codec) in codecs.iter().enumerate() {
        let (name, conf) = named(codec);
        let short = name.strip_prefix("numcodecs.").unwrap_or(name);
        let level = |key: &str| conf.get(key).and_then(Value::as_i64).map(|l| format!("-{l}")).unwrap_or_default();
        let found = match short {
            "bytes" if i == 0 && entry != Entry::Text => {
                let big = conf.get("endian").and_then(Value::as_str) == Some("big");
                if let Some(chain) = &mut ours {
                    chain.swap = swap(entry, big);
                }
                continue;
            }
            "vlen-utf8" if i == 0 && entry == Entry::Text => continue,
            "blosc" => {
                let shuffle = match conf.get("shuffle") {
                    Some(Value::String(s)) if s == "shuffle" => " shuffle",
                    Some(Value::String(s)) if s == "bitshuffle" => " bitshuffle",
                    Some(Value::Number(n)) if n.as_i64() == Some(1) => " shuffle",
                    Some(Value::Number(n)) if n.as_i64() == Some(2) => " bitshuffle",
                    _ => "",
                };
                names.push(format!("blosc-{}{shuffle}", conf.get("cname").and_then(Value::as_str).unwrap_or("?")));
                Some(Codec::Blosc)
            }
            "zstd" => {
                names.push(format!("zstd{}", level("level")));
                Some(Codec::Zstd)
            }
            "gzip" => {
                names.push(format!("gzip{}", level("level")));
                Some(Codec::Gzip)
            }
            "zlib" => {
                names.push(format!("zlib{}", level("level")));
                Some(Codec::Zlib)
            }
            "lz4" => {
                names.push("lz4".into());
                Some(Codec::Lz4)
            }
            "crc32c" => {
                names.push("crc32c".into());
                Some(Codec::Crc32c)
            }
            other => {
                names.push(other.into());
                None
            }
        };
        match (&mut ours, found) {
            (Some(chain), Some(codec)) if i > 0 => chain.codecs.push(codec),
            _ => ours = None,
        }
    }
    (ours, if names.is_empty() { "none".into() } else { names.join(" ") })
}

/// The data type of version 3: a name, or a name with a configuration.
fn entry_v3(value: Option<&Value>) -> (Entry, String) {
    let Some(value) = value else { return (Entry::Other, "?".into()) };
    let (name, conf) = named(value);
    let bytes = conf.get("length_bytes").and_then(Value::as_u64).unwrap_or(0) as usize;
    let entry = match name {
        "bool" => Entry::Number(DType::Bool),
        "int8" => Entry::Number(DType::I8),
        "int16" => Entry::Number(DType::I16),
        "int32" => Entry::Number(DType::I32),
        "int64" => Entry::Number(DType::I64),
        "uint8" => Entry::Number(DType::U8),
        "uint16" => Entry::Number(DType::U16),
        "uint32" => Entry::Number(DType::U32),
        "uint64" => Entry::Number(DType::U64),
        "float16" => Entry::Half,
        "float32" => Entry::Number(DType::F32),
        "float64" => Entry::Number(DType::F64),
        "string" => Entry::Text,
        "fixed_length_utf32" => Entry::Utf32(bytes / 4),
        "null_terminated_bytes" => Entry::Bytes(bytes),
        _ => Entry::Other,
    };
    (entry, name.to_string())
}

/// Reads the array kind of `zarr.json` (version 3).
pub(crate) fn v3(meta: &Value, attrs: Attrs) -> Result<Layout, String> {
    let shape = lengths(meta.get("shape"), "shape")?;
    let (grid, conf) = named(meta.get("chunk_grid").unwrap_or(&Value::Null));
    if grid != "regular" {
        return Err(format!("chunk grid '{grid}'"));
    }
    let mut chunk = lengths(conf.get("chunk_shape"), "chunk_shape")?;
    let (mut entry, dtype_name) = entry_v3(meta.get("data_type"));
    let records = named(meta.get("data_type").unwrap_or(&Value::Null));
    let list = records.1.get("fields").and_then(Value::as_array).filter(|_| matches!(records.0, "structured" | "struct"));
    let fields = fields(list, |kind| (entry_v3(Some(kind)).0, false));
    if !fields.is_empty() {
        entry = Entry::Record(fields.iter().map(Field::size).sum());
    }
    let empty = Vec::new();
    let codecs = meta.get("codecs").and_then(Value::as_array).unwrap_or(&empty);
    let (mut shard, mut sharding) = (None, None);
    let (chain, name) = match codecs.first().map(named) {
        Some(("sharding_indexed", conf)) => {
            let inner = conf.get("codecs").and_then(Value::as_array).unwrap_or(&empty);
            let (chain, name) = chain_v3(inner, entry);
            let index = conf.get("index_codecs").and_then(Value::as_array).unwrap_or(&empty);
            let index: Vec<(&str, &Value)> = index.iter().map(named).collect();
            let little = index.first().is_some_and(|(n, c)| *n == "bytes" && c.get("endian").and_then(Value::as_str) != Some("big"));
            let index_crc = index.len() == 2 && index[1].0 == "crc32c";
            let known = codecs.len() == 1 && little && (index.len() == 1 || index_crc) && chain.is_some();
            if known {
                let index_at_end = conf.get("index_location").and_then(Value::as_str) != Some("start");
                sharding = Some(Sharding { index_crc, index_at_end });
                shard = Some(std::mem::replace(&mut chunk, lengths(conf.get("chunk_shape"), "inner chunk_shape")?));
            }
            (chain.filter(|_| known), name)
        }
        _ => chain_v3(codecs, entry),
    };
    let (keys, conf) = named(meta.get("chunk_key_encoding").unwrap_or(&Value::Null));
    let prefix = keys != "v2";
    let separator = conf.get("separator").and_then(Value::as_str).and_then(|s| s.chars().next());
    let keys = Keys { prefix, separator: separator.unwrap_or(if prefix { '/' } else { '.' }) };
    let fill = fill(entry, meta.get("fill_value"))?;
    let info = ArrayInfo { attrs, shape, dtype: entry.dtype(), dtype_name, chunk, shard, codec: name, stored_bytes: None };
    Layout { info, entry, fields, fill, keys, chain, sharding }.check()
}

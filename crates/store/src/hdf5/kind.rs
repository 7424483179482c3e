//! What the entries of a dataset are: HDF5's datatypes as ours.

use cellmill_matrix::DType;
use hdf5_pure::{Datatype, DatatypeByteOrder, StringPadding};

/// What an entry's bytes mean.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// A number or a boolean.
    Number {
        /// Its type.
        dtype: DType,
        /// Whether its bytes are big-endian on disk.
        big: bool,
    },
    /// A float16, which readers get as f32.
    Half {
        /// Whether its bytes are big-endian on disk.
        big: bool,
    },
    /// A string of a fixed number of bytes.
    Fixed(StringPadding),
    /// A reference to a string in a global heap.
    Vlen,
    /// Anything else.
    Other,
}

impl Kind {
    /// The type of the entries, if we can hold it.
    pub fn dtype(&self) -> Option<DType> {
        match self {
            Kind::Number { dtype, .. } => Some(*dtype),
            Kind::Half { .. } => Some(DType::F32),
            Kind::Fixed(_) | Kind::Vlen => Some(DType::Str),
            Kind::Other => None,
        }
    }
}

/// What a datatype means, and its name for messages.
pub(super) fn kind_of(datatype: &Datatype) -> (Kind, String) {
    match datatype {
        Datatype::FixedPoint { size, byte_order, layout } => {
            let dtype = match (size, layout.signed) {
                (1, true) => DType::I8,
                (2, true) => DType::I16,
                (4, true) => DType::I32,
                (8, true) => DType::I64,
                (1, false) => DType::U8,
                (2, false) => DType::U16,
                (4, false) => DType::U32,
                (8, false) => DType::U64,
                _ => return (Kind::Other, format!("integer of {size} bytes")),
            };
            number(dtype, byte_order, u32::from(layout.bit_precision) == size * 8)
        }
        Datatype::FloatingPoint { size, byte_order, layout } => match (size, layout.exponent_size) {
            // bfloat16 has 8 bits of exponent.
            (2, 5) => match byte_order {
                DatatypeByteOrder::LittleEndian => (Kind::Half { big: false }, "float16".into()),
                DatatypeByteOrder::BigEndian => (Kind::Half { big: true }, "big-endian float16".into()),
                _ => (Kind::Other, "unusual float16".into()),
            },
            (4, 8) => number(DType::F32, byte_order, true),
            (8, 11) => number(DType::F64, byte_order, true),
            _ => (Kind::Other, format!("float{}", u64::from(*size) * 8)),
        },
        Datatype::Enumeration { base_type, members, .. } => {
            let named = |name: &str, value: u8| members.iter().any(|m| m.name == name && m.value == [value]);
            if members.len() == 2 && named("FALSE", 0) && named("TRUE", 1) {
                (Kind::Number { dtype: DType::Bool, big: false }, "bool".into())
            } else {
                kind_of(base_type)
            }
        }
        Datatype::BitField { size: 1, .. } => (Kind::Number { dtype: DType::U8, big: false }, "uint8".into()),
        Datatype::String { size, padding, .. } => (Kind::Fixed(padding.clone()), format!("string of {size} bytes")),
        Datatype::VariableLength { is_string: true, .. } => (Kind::Vlen, "str".into()),
        Datatype::VariableLength { .. } => (Kind::Other, "sequence".into()),
        Datatype::Compound { members, .. } => {
            (Kind::Other, format!("compound ({})", members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ")))
        }
        Datatype::Reference { .. } => (Kind::Other, "reference".into()),
        Datatype::Array { base_type, dimensions } => (Kind::Other, format!("array {dimensions:?} of {}", kind_of(base_type).1)),
        Datatype::Opaque { .. } => (Kind::Other, "opaque".into()),
        _ => (Kind::Other, "unknown".into()),
    }
}

fn number(dtype: DType, order: &DatatypeByteOrder, full: bool) -> (Kind, String) {
    match order {
        DatatypeByteOrder::LittleEndian if full => (Kind::Number { dtype, big: false }, dtype.name().into()),
        DatatypeByteOrder::BigEndian if full => (Kind::Number { dtype, big: dtype.size() != Some(1) }, format!("big-endian {dtype}")),
        _ => (Kind::Other, format!("unusual {dtype}")),
    }
}

/// Turns big-endian entries of `size` bytes into little-endian ones.
pub(super) fn swap_bytes(bytes: &mut [u8], size: usize) {
    for entry in bytes.chunks_exact_mut(size.max(1)) {
        entry.reverse();
    }
}

//! Between little-endian bytes and typed values.

use std::borrow::Cow;

use cellmill_matrix::{DType, Values};

macro_rules! from_bytes {
    ($bytes:expr, $type:ty) => {
        $bytes.as_chunks::<{ size_of::<$type>() }>().0.iter().map(|b| <$type>::from_le_bytes(*b)).collect()
    };
}

/// Entries of `dtype` from their little-endian bytes. Strings give none.
pub fn from_le(dtype: DType, bytes: &[u8]) -> Values {
    match dtype {
        DType::Bool => Values::Bool(bytes.iter().map(|b| *b != 0).collect()),
        DType::I8 => Values::I8(bytes.iter().map(|b| *b as i8).collect()),
        DType::U8 => Values::U8(bytes.to_vec()),
        DType::I16 => Values::I16(from_bytes!(bytes, i16)),
        DType::I32 => Values::I32(from_bytes!(bytes, i32)),
        DType::I64 => Values::I64(from_bytes!(bytes, i64)),
        DType::U16 => Values::U16(from_bytes!(bytes, u16)),
        DType::U32 => Values::U32(from_bytes!(bytes, u32)),
        DType::U64 => Values::U64(from_bytes!(bytes, u64)),
        DType::F32 => Values::F32(from_bytes!(bytes, f32)),
        DType::F64 => Values::F64(from_bytes!(bytes, f64)),
        DType::Str => Values::Str(Vec::new()),
    }
}

/// The little-endian bytes of numbers, without a copy where memory already lies so. Strings give none.
pub fn to_le(values: &Values) -> Cow<'_, [u8]> {
    macro_rules! bytes {
        ($v:expr) => {
            if cfg!(target_endian = "little") {
                Cow::Borrowed(bytemuck::cast_slice($v))
            } else {
                Cow::Owned($v.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
        };
    }
    match values {
        Values::Bool(v) => Cow::Owned(v.iter().map(|b| u8::from(*b)).collect()),
        Values::I8(v) => Cow::Borrowed(bytemuck::cast_slice(v)),
        Values::U8(v) => Cow::Borrowed(v),
        Values::I16(v) => bytes!(v),
        Values::I32(v) => bytes!(v),
        Values::I64(v) => bytes!(v),
        Values::U16(v) => bytes!(v),
        Values::U32(v) => bytes!(v),
        Values::U64(v) => bytes!(v),
        Values::F32(v) => bytes!(v),
        Values::F64(v) => bytes!(v),
        Values::Str(_) => Cow::Borrowed(&[]),
    }
}

macro_rules! each_number {
    ($dtype:expr, $bytes:expr, $x:ident => $body:expr, $otherwise:expr) => {
        match $dtype {
            DType::Bool | DType::U8 => $bytes.iter().for_each(|b| {
                let $x = *b;
                $body
            }),
            DType::I8 => $bytes.iter().for_each(|b| {
                let $x = *b as i8;
                $body
            }),
            DType::I16 => $bytes.as_chunks::<2>().0.iter().for_each(|b| {
                let $x = i16::from_le_bytes(*b);
                $body
            }),
            DType::U16 => $bytes.as_chunks::<2>().0.iter().for_each(|b| {
                let $x = u16::from_le_bytes(*b);
                $body
            }),
            DType::I32 => $bytes.as_chunks::<4>().0.iter().for_each(|b| {
                let $x = i32::from_le_bytes(*b);
                $body
            }),
            DType::U32 => $bytes.as_chunks::<4>().0.iter().for_each(|b| {
                let $x = u32::from_le_bytes(*b);
                $body
            }),
            DType::F32 => $bytes.as_chunks::<4>().0.iter().for_each(|b| {
                let $x = f32::from_le_bytes(*b);
                $body
            }),
            DType::I64 => $bytes.as_chunks::<8>().0.iter().for_each(|b| {
                let $x = i64::from_le_bytes(*b);
                $body
            }),
            DType::U64 => $bytes.as_chunks::<8>().0.iter().for_each(|b| {
                let $x = u64::from_le_bytes(*b);
                $body
            }),
            DType::F64 => $bytes.as_chunks::<8>().0.iter().for_each(|b| {
                let $x = f64::from_le_bytes(*b);
                $body
            }),
            DType::Str => $otherwise,
        }
    };
}

/// Writes numbers of any type as f32 into `out` (as many as it holds).
pub(crate) fn to_f32(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    if dtype == DType::F32 {
        out.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(o, b)| *o = f32::from_le_bytes(*b));
        return;
    }
    let mut places = out.iter_mut();
    each_number!(dtype, bytes, x => if let Some(place) = places.next() { *place = x as f32 }, {});
}

/// Writes whole numbers of any type as u32 into `out`. What does not fit (negative, too large, a fraction) becomes `u32::MAX`.
pub(crate) fn to_u32(dtype: DType, bytes: &[u8], out: &mut [u32]) {
    if matches!(dtype, DType::I32 | DType::U32) {
        // A negative i32 becomes 2^31 or more, which no column is.
        out.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(o, b)| *o = u32::from_le_bytes(*b));
        return;
    }
    let mut places = out.iter_mut();
    each_number!(dtype, bytes, x => if let Some(place) = places.next() {
        let wide = x as f64;
        *place = if wide >= 0.0 && wide <= f64::from(u32::MAX) && wide.fract() == 0.0 { wide as u32 } else { u32::MAX };
    }, {});
}

/// Appends whole numbers of any type as u64. `None` if one is negative or no whole number.
pub(crate) fn to_u64(dtype: DType, bytes: &[u8], out: &mut Vec<u64>) -> Option<()> {
    let mut good = true;
    match dtype {
        DType::U64 => out.extend(bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b))),
        DType::F32 | DType::F64 | DType::Str | DType::Bool => return None,
        _ => each_number!(dtype, bytes, x => { let wide = x as i64; good &= wide >= 0; out.push(wide as u64) }, {}),
    }
    good.then_some(())
}

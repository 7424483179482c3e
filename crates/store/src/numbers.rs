//! Between little-endian bytes and typed values.

use std::borrow::Cow;

use cellmill_matrix::{DType, Values};
use half::f16;

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

/// Makes f32 of the float16 entries in the first half of `bytes`, little-endian both; they take all of it.
pub(crate) fn widen(bytes: &mut [u8]) {
    for i in (0..bytes.len() / 4).rev() {
        let x = f32::from(f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]));
        bytes[4 * i..4 * i + 4].copy_from_slice(&x.to_le_bytes());
    }
}

/// Makes f32 of float16 entries, little-endian both.
pub(crate) fn widen_all(bytes: &mut Vec<u8>) {
    bytes.resize(2 * bytes.len(), 0);
    widen(bytes);
}

/// Values of float16 entries from their little-endian bytes, as f32, which holds them all.
pub(crate) fn from_half(bytes: &[u8]) -> Values {
    Values::F32(bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).into()).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_keeps_its_value() {
        // IEEE 754: 2^-24 steps below 2^-14, then 1.m x 2^(e - 15).
        let value = |bits: u16| {
            let (sign, e, m) = (if bits >> 15 == 0 { 1.0 } else { -1.0 }, i32::from(bits >> 10 & 31), f64::from(bits & 1023));
            sign * match e {
                0 => m * 2f64.powi(-24),
                31 if m == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1.0 + m / 1024.0) * 2f64.powi(e - 15),
            }
        };
        let stored: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut wide = stored.clone();
        widen_all(&mut wide);
        let (Values::F32(a), Values::F32(b)) = (from_le(DType::F32, &wide), from_half(&stored)) else { panic!() };
        assert_eq!((a.len(), b.len()), (1 << 16, 1 << 16));
        for ((a, b), bits) in a.into_iter().zip(b).zip(0..=u16::MAX) {
            let expected = value(bits);
            assert_eq!(a.to_bits(), b.to_bits());
            assert!(f64::from(a).to_bits() == expected.to_bits() || (a.is_nan() && expected.is_nan()), "{bits:#x}: {a} {expected}");
        }
    }
}

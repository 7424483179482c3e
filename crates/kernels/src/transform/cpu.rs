//! Transforms on the CPU.

use cellmill_matrix::Csr;

use crate::totals::{largest, whole_number};

/// Small counts are so common that their logarithms are taken once a row: entries below this come from a table.
const TABLE: usize = 32;

/// x · target / total for each row; a row whose total is 0 stays as it is. `total`: `(n_rows,)`.
pub fn normalize_total(x: &mut Csr, total: &[f64], target_sum: f64) {
    for (i, &total) in total.iter().enumerate() {
        if total == 0.0 {
            continue;
        }
        let factor = target_sum / total;
        let span = x.span(i);
        for v in &mut x.data[span] {
            *v = (f64::from(*v) * factor) as f32;
        }
    }
}

/// ln(1 + x) / ln(base) of every entry; natural logarithm without a base.
pub fn log1p(x: &mut Csr, base: Option<f64>) {
    let per = base.map_or(1.0, |b| 1.0 / libm::log(b));
    for v in &mut x.data {
        *v = (libm::log1p(f64::from(*v)) * per) as f32;
    }
}

/// e^(x · ln(base)) − 1 of every entry: what [`log1p`] came from.
pub fn expm1(x: &mut Csr, base: Option<f64>) {
    let per = base.map_or(1.0, libm::log);
    for v in &mut x.data {
        *v = libm::expm1(f64::from(*v) * per) as f32;
    }
}

/// √x of every entry.
pub fn sqrt(x: &mut Csr) {
    x.data.iter_mut().for_each(|v| *v = v.sqrt());
}

/// [`normalize_total`] and [`log1p`] in one go, with a table for counts below 32 where all values are known to be whole numbers from 0 on.
pub fn normalize_log1p(x: &mut Csr, whole: bool, total: &[f64], target_sum: f64, base: Option<f64>) {
    let per = base.map_or(1.0, |b| 1.0 / libm::log(b));
    let mut table = [0f32; TABLE];
    for (i, &total) in total.iter().enumerate() {
        let factor = if total == 0.0 { 1.0 } else { target_sum / total };
        let of = |v: f32| (libm::log1p(f64::from((f64::from(v) * factor) as f32)) * per) as f32;
        let span = x.span(i);
        let values = &mut x.data[span];
        if values.len() < TABLE || !whole {
            values.iter_mut().for_each(|v| *v = of(*v));
            continue;
        }
        let known = TABLE.min(largest(values) as usize + 1);
        for (k, entry) in table.iter_mut().enumerate().take(known) {
            *entry = of(k as f32);
        }
        look_up(values, &table, of);
    }
}

/// Replaces whole numbers, none below 0, by their entry of the table or by what `of` makes of them.
fn look_up(values: &mut [f32], table: &[f32; TABLE], of: impl Fn(f32) -> f32) {
    let each = |v: f32| if v < TABLE as f32 { table[whole_number(v) as usize % TABLE] } else { of(v) };
    let (eights, rest) = values.as_chunks_mut::<8>();
    rest.iter_mut().for_each(|v| *v = each(*v));
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: this processor has AVX2, as has just been seen.
        return unsafe { look_up_avx2(eights, table, each) };
    }
    eights.as_flattened_mut().iter_mut().for_each(|v| *v = each(*v));
}

/// The first 16 entries lie in two registers; `each` is asked for what is larger.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn look_up_avx2(values: &mut [[f32; 8]], table: &[f32; TABLE], each: impl Fn(f32) -> f32) {
    use std::arch::x86_64::{
        _mm256_blendv_ps, _mm256_castsi256_ps, _mm256_cmpeq_epi32, _mm256_cmpgt_epi32, _mm256_cvttps_epi32, _mm256_loadu_ps,
        _mm256_movemask_ps, _mm256_permutevar8x32_ps, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_srli_epi32, _mm256_storeu_ps,
    };
    // SAFETY: the table has 32 entries.
    let (low, high) = unsafe { (_mm256_loadu_ps(table.as_ptr()), _mm256_loadu_ps(table.as_ptr().add(8))) };
    let seven = _mm256_set1_epi32(7);
    for eight in values {
        // SAFETY: these are eight floats.
        let number = _mm256_cvttps_epi32(unsafe { _mm256_loadu_ps(eight.as_ptr()) });
        let (from_low, from_high) = (_mm256_permutevar8x32_ps(low, number), _mm256_permutevar8x32_ps(high, number));
        let found = _mm256_blendv_ps(from_low, from_high, _mm256_castsi256_ps(_mm256_cmpgt_epi32(number, seven)));
        // Numbers that have no i32 are the least i32: they too have bits above the fourth.
        let small = _mm256_cmpeq_epi32(_mm256_srli_epi32::<4>(number), _mm256_setzero_si256());
        let mut larger = !_mm256_movemask_ps(_mm256_castsi256_ps(small)) as u32 & 0xff;
        let before = *eight;
        // SAFETY: these are eight floats.
        unsafe { _mm256_storeu_ps(eight.as_mut_ptr(), found) };
        while larger != 0 {
            let lane = larger.trailing_zeros() as usize % 8;
            larger &= larger - 1;
            eight[lane] = each(before[lane]);
        }
    }
}

/// x / std of its column, the upper side clipped at `max_value`. `inverse_std`: `(n_cols,)`, 1 / std.
pub fn scale_columns(x: &mut Csr, inverse_std: &[f64], max_value: Option<f64>) {
    let clip = max_value.unwrap_or(f64::INFINITY);
    for (&column, v) in x.indices.iter().zip(&mut x.data) {
        *v = (f64::from(*v) * inverse_std[column as usize]).min(clip) as f32;
    }
}

/// What a zero becomes when a column is centred, scaled and clipped: `(n_cols,)`.
pub fn base_row(mean: &[f64], inverse_std: &[f64], max_value: Option<f64>) -> Vec<f64> {
    let clip = max_value.unwrap_or(f64::INFINITY);
    mean.iter().zip(inverse_std).map(|(m, s)| (-m * s).clamp(-clip, clip)).collect()
}

/// (x − mean) / std clipped to ±`max_value`, minus the base row, so that zeros stay zeros: entry (i, j) of the centred matrix is
/// what is left here plus [`base_row`]`[j]`.
pub fn center_columns(x: &mut Csr, mean: &[f64], inverse_std: &[f64], max_value: Option<f64>) {
    let clip = max_value.unwrap_or(f64::INFINITY);
    let base = base_row(mean, inverse_std, max_value);
    for (&column, v) in x.indices.iter().zip(&mut x.data) {
        let j = column as usize;
        *v = (((f64::from(*v) - mean[j]) * inverse_std[j]).clamp(-clip, clip) - base[j]) as f32;
    }
}

//! The twins in plain Rust.

use super::{CANDIDATES, Form, LANES, QUERIES, Scores};

pub(super) fn tile(
    form: Form,
    queries: &[f32],
    panel: &[f32],
    start: &[f32; CANDIDATES],
    below: &[f32; QUERIES],
    scores: &mut Scores,
) -> [u32; QUERIES] {
    let d = panel.len() / CANDIDATES;
    let mut masks = [0; QUERIES];
    for (i, row) in scores.iter_mut().enumerate() {
        *row = *start;
        for (&x, ys) in queries[i * d..(i + 1) * d].iter().zip(panel.chunks_exact(CANDIDATES)) {
            for (score, &y) in row.iter_mut().zip(ys) {
                *score = match form {
                    Form::Dot => x.mul_add(y, *score),
                    Form::Difference => (y - x).mul_add(y - x, *score),
                };
            }
        }
        for (j, &score) in row.iter().enumerate() {
            masks[i] |= u32::from(score < below[i]) << j;
        }
    }
    masks
}

pub(super) fn moved(row: &[f32], centre: &[f32], scale: f32, out: &mut [f32]) -> f32 {
    let mut sums = [0f32; LANES];
    for ((out, row), centre) in out.chunks_mut(LANES).zip(row.chunks(LANES)).zip(centre.chunks(LANES)) {
        for (((out, x), c), sum) in out.iter_mut().zip(row).zip(centre).zip(&mut sums) {
            *out = scale * (x - c);
            *sum += *out * *out;
        }
    }
    sums.iter().sum()
}

pub(super) fn turn(rows: &[&[f32]; CANDIDATES], centre: &[f32], panel: &mut [f32], norms: &mut [f32; CANDIDATES]) {
    for (t, (place, &c)) in panel.chunks_exact_mut(CANDIDATES).zip(centre).enumerate() {
        column(rows, c, t, place, norms);
    }
}

/// Coordinate `t` of all rows.
pub(super) fn column(rows: &[&[f32]; CANDIDATES], c: f32, t: usize, place: &mut [f32], norms: &mut [f32; CANDIDATES]) {
    for ((place, row), norm) in place.iter_mut().zip(rows).zip(norms) {
        *place = row[t] - c;
        *norm += *place * *place;
    }
}

pub(super) fn insert(row: &mut [u64], key: u64) {
    let last = row.len() - 1;
    let mut at = last;
    if last >= 64 {
        at = row.partition_point(|&other| other < key);
        row.copy_within(at..last, at + 1);
    } else {
        while at > 0 && row[at - 1] > key {
            row[at] = row[at - 1];
            at -= 1;
        }
    }
    row[at] = key;
}

pub(super) fn squared(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    for (t, (&x, &y)) in x.iter().zip(y).enumerate() {
        let difference = x - y;
        sums[t % LANES] = difference.mul_add(difference, sums[t % LANES]);
    }
    let pairs = [sums[0] + sums[4], sums[1] + sums[5], sums[2] + sums[6], sums[3] + sums[7]];
    (pairs[0] + pairs[2]) + (pairs[1] + pairs[3])
}

//! The product of a slab's sparse columns with a panel of its columns made dense.
//!
//! For panel columns c and a column j: `acc[j, c] += sum over rows r of x[r, j] * dense[r, c]`. The rows that have j are taken in order,
//! one fused multiply-add each, in chains of `CHAIN` from zero; the chains are added up from zero, and their sum is added to `acc`.
//! Three short levels keep the rounding error of a block near 1e-7. Each element of the result has its own sum, so neither the number
//! of threads nor the cut into tasks nor the width of the machine's registers can change a bit.

use std::ops::Range;

use super::slab::{SLAB, Slab};

/// Columns of a panel: eight 256-bit registers of f32.
pub(super) const WIDTH: usize = 64;

/// Rows of a chain.
const CHAIN: usize = 64;

/// One row of a panel.
pub(super) type Lane = [f32; WIDTH];

/// Working memory of one task.
#[derive(Debug)]
pub(super) struct Scratch {
    /// The panel's columns, dense: `(SLAB, WIDTH)`. All zero between tasks.
    dense: Vec<Lane>,
    /// Sums of the task's columns with the panel's: `(columns, WIDTH)`.
    pub acc: Vec<Lane>,
}

impl Scratch {
    /// Zeros.
    pub fn new() -> Self {
        Scratch { dense: vec![[0.0; WIDTH]; SLAB], acc: Vec::new() }
    }

    /// Bytes of heap memory in use.
    pub fn heap_bytes(&self) -> usize {
        (self.dense.capacity() + self.acc.capacity()) * WIDTH * 4
    }

    /// Makes `acc` the product of `columns` with the panel that starts at column `start`, over all slabs.
    pub fn product(&mut self, slabs: &[Slab], start: usize, columns: Range<usize>, instructions: Instructions) {
        self.acc.clear();
        self.acc.resize(columns.len(), [0.0; WIDTH]);
        for slab in slabs {
            let panel = start..(start + WIDTH).min(slab.starts.len() - 1);
            if slab.entries(panel.clone()) == 0 || slab.entries(columns.clone()) == 0 {
                continue;
            }
            for (c, rank) in panel.clone().enumerate() {
                let (rows, values) = slab.column(rank);
                for (&row, &value) in rows.iter().zip(values) {
                    self.dense[row as usize][c] = value;
                }
            }
            add_product(&self.dense, slab, columns.clone(), &mut self.acc, instructions);
            // Clearing an entry costs about what clearing sixteen neighbours does.
            if slab.entries(panel.clone()) > SLAB * WIDTH / 16 {
                self.dense.fill([0.0; WIDTH]);
            } else {
                for (c, rank) in panel.enumerate() {
                    for &row in slab.column(rank).0 {
                        self.dense[row as usize][c] = 0.0;
                    }
                }
            }
        }
    }
}

/// Which machine instructions the products use. The bits are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instructions {
    /// What every machine has.
    Portable,
    /// 256-bit registers with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Instructions {
    /// The best that this machine has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Instructions::Avx2;
        }
        Instructions::Portable
    }
}

/// `acc[j] += x[:, j]' dense` for each of the columns.
fn add_product(dense: &[Lane], slab: &Slab, columns: Range<usize>, acc: &mut [Lane], instructions: Instructions) {
    match instructions {
        Instructions::Portable => add_product_portable(dense, slab, columns, acc),
        // SAFETY: `Avx2` is only made by `detect`, after it has seen that this machine has AVX2 and FMA.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { add_product_avx2(dense, slab, columns, acc) },
    }
}

fn add_product_portable(dense: &[Lane], slab: &Slab, columns: Range<usize>, acc: &mut [Lane]) {
    for (column, out) in columns.zip(acc) {
        let (rows, values) = slab.column(column);
        let mut total = [0.0f32; WIDTH];
        for (rows, values) in rows.chunks(CHAIN).zip(values.chunks(CHAIN)) {
            let mut sum = [0.0f32; WIDTH];
            for (&row, &value) in rows.iter().zip(values) {
                for (sum, x) in sum.iter_mut().zip(&dense[row as usize]) {
                    *sum = value.mul_add(*x, *sum);
                }
            }
            add(&mut total, &sum);
        }
        add(out, &total);
    }
}

#[inline(always)]
fn add(to: &mut Lane, from: &Lane) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn add_product_avx2(dense: &[Lane], slab: &Slab, columns: Range<usize>, acc: &mut [Lane]) {
    use std::arch::x86_64::{_mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    const REGISTERS: usize = WIDTH / 8;
    let add_chain = |rows: &[u16], values: &[f32], to: &mut Lane| {
        let mut registers = [_mm256_setzero_ps(); REGISTERS];
        for (&row, &value) in rows.iter().zip(values) {
            let row = &dense[row as usize];
            let value = _mm256_set1_ps(value);
            for (k, sum) in registers.iter_mut().enumerate() {
                // SAFETY: `row` has WIDTH = 8 * REGISTERS floats and k < REGISTERS.
                *sum = _mm256_fmadd_ps(value, unsafe { _mm256_loadu_ps(row.as_ptr().add(8 * k)) }, *sum);
            }
        }
        for (k, sum) in registers.iter().enumerate() {
            // SAFETY: `to` has WIDTH = 8 * REGISTERS floats and k < REGISTERS.
            unsafe {
                let at = to.as_mut_ptr().add(8 * k);
                _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), *sum));
            }
        }
    };
    for (column, out) in columns.zip(acc) {
        let (rows, values) = slab.column(column);
        if rows.is_empty() {
            continue;
        }
        if rows.len() <= CHAIN {
            add_chain(rows, values, out);
        } else {
            let mut total = [0.0; WIDTH];
            for (rows, values) in rows.chunks(CHAIN).zip(values.chunks(CHAIN)) {
                add_chain(rows, values, &mut total);
            }
            add(out, &total);
        }
    }
}

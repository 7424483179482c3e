//! What is done to one chunk of whole rows, one folder a kernel: contract and formula in `mod.rs`, the plain CPU version in
//! `cpu.rs`, which is the oracle for any other.
//!
//! Kernels know rows and columns; they know no recipe, no store and no thread count.

/// Defines a function that is its plain twin (marked `#[inline(always)]`), compiled a second time for AVX2 and taken where the processor
/// has it. Nothing is fused, so both give the same bits.
macro_rules! wide {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $plain:path;) => {
        $(#[$meta])*
        $vis fn $name($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    $plain($($argument),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: this processor has AVX2, as has just been seen.
                    return unsafe { avx2($($argument),*) };
                }
            }
            $plain($($argument),*)
        }
    };
}

pub mod cuda;
pub mod decode;
pub mod gram;
pub mod grouped;
pub mod moments;
pub mod pack;
pub mod product;
pub mod project;
pub mod ranked;
pub mod residual;
pub mod select;
pub mod totals;
pub mod transform;

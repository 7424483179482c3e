#![no_main]

#[path = "../../crates/store/tests/damage/mod.rs"]
mod damage;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| damage::zarr(bytes));

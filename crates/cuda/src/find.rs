//! Whether there is a driver, whether it is new enough, and how many GPUs it shows.

use cellmill_matrix::Result;
use cudarc::driver::{result, sys};

use crate::fault::absent;

/// Oldest version of CUDA that the driver must support: 12.2, whose memory pools have a maximum.
pub const LEAST_DRIVER: (i32, i32) = (12, 2);

/// GPUs that the driver shows (`CUDA_VISIBLE_DEVICES` is respected); at least one.
pub fn count() -> Result<usize> {
    driver()?;
    let n = result::device::get_count().map_err(|e| absent("cuda", format!("the NVIDIA driver does not answer: {}", words(e))))?;
    if n <= 0 {
        return Err(absent("cuda", "the NVIDIA driver shows no GPU (is CUDA_VISIBLE_DEVICES empty?)"));
    }
    Ok(n as usize)
}

/// Loads the driver and checks its version. Returns it as CUDA counts: 13000 for 13.0.
pub(crate) fn driver() -> Result<i32> {
    // SAFETY: opens the driver's library, whose initialisers are the vendor's.
    if !unsafe { sys::is_culib_present() } {
        return Err(absent("cuda", "no NVIDIA driver was found (libcuda.so.1): install it, or compute with cpu"));
    }
    let mut version = 0;
    // SAFETY: writes one int; allowed before cuInit.
    let asked = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    let (major, minor) = (version / 1000, version % 1000 / 10);
    if asked.is_err() || (major, minor) < LEAST_DRIVER {
        let (least, point) = LEAST_DRIVER;
        return Err(absent(
            "cuda",
            format!("the NVIDIA driver supports CUDA {major}.{minor}, and {least}.{point} is needed: update it, or compute with cpu"),
        ));
    }
    result::init().map_err(|e| absent("cuda", format!("the NVIDIA driver does not start: {}", words(e))))?;
    Ok(version)
}

/// The driver's own words for an error.
pub(crate) fn words(error: cudarc::driver::DriverError) -> String {
    match (error.error_name(), error.error_string()) {
        (Ok(name), Ok(text)) => format!("{} ({})", text.to_string_lossy(), name.to_string_lossy()),
        _ => format!("{:?}", error.0),
    }
}

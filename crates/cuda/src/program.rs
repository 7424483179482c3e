//! Compiled kernels on a device.

use std::path::Path;
use std::sync::Arc;

use cellmill_matrix::{Error, Result};
use cudarc::driver::{CudaContext, sys};

use crate::compile::{Compiled, cached};
use crate::fault::refused;
use crate::find::words;

/// CUDA C++ to be compiled at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Name for messages and caches: unique in the program.
    pub name: &'static str,
    /// Files laid end to end.
    pub parts: &'static [&'static str],
    /// Names of its `extern "C" __global__` functions.
    pub kernels: &'static [&'static str],
}

/// A loaded module.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    raw: sys::CUmodule,
    context: Arc<CudaContext>,
}

// SAFETY: a module's handle may be used from any thread.
unsafe impl Send for Program {}
// SAFETY: the driver's calls on a module are thread-safe.
unsafe impl Sync for Program {}

impl Program {
    /// Compiles and loads on the current context. A cached image that the driver refuses is compiled anew.
    pub(crate) fn new(context: &Arc<CudaContext>, capability: u32, cache: Option<&Path>, source: &Source) -> Result<Self> {
        let image = cached(source, capability, cache)?;
        let raw = match (load(&image), cache) {
            (Err(_), Some(_)) => load(&crate::compile::compile(source, capability)?),
            (done, _) => done,
        };
        let raw = raw.map_err(|e| refused(&format!("cuda:{}", context.ordinal()), source.name, words(e)))?;
        Ok(Program { name: source.name, raw, context: context.clone() })
    }

    /// One of its kernels.
    pub fn kernel(self: &Arc<Self>, name: &'static str) -> Result<Kernel> {
        let Ok(c_name) = std::ffi::CString::new(name) else {
            return Err(Error::bug(format!("a kernel of the name {name:?}")));
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes a handle; the module lives as long as `self`.
        unsafe { sys::cuModuleGetFunction(&mut raw, self.raw, c_name.as_ptr()) }
            .result()
            .map_err(|e| Error::bug(format!("no kernel {name} in {}: {}", self.name, words(e))))?;
        Ok(Kernel { name, raw, program: self.clone() })
    }
}

fn load(image: &Compiled) -> Result<sys::CUmodule, cudarc::driver::DriverError> {
    let mut raw = std::ptr::null_mut();
    // SAFETY: the image is a cubin, or PTX that ends with a zero byte.
    unsafe { sys::cuModuleLoadData(&mut raw, image.bytes().as_ptr().cast()) }.result()?;
    Ok(raw)
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: loaded once, unloaded once, after the last kernel handle.
            let _ = unsafe { sys::cuModuleUnload(self.raw) };
        }
    }
}

/// A kernel of a program.
#[derive(Clone, Debug)]
pub struct Kernel {
    name: &'static str,
    raw: sys::CUfunction,
    program: Arc<Program>,
}

// SAFETY: a function's handle may be used from any thread.
unsafe impl Send for Kernel {}
// SAFETY: the driver's calls on a function are thread-safe.
unsafe impl Sync for Kernel {}

impl Kernel {
    /// Its name in the source.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Name of the source.
    pub fn source(&self) -> &'static str {
        self.program.name
    }

    pub(crate) fn raw(&self) -> sys::CUfunction {
        self.raw
    }
}

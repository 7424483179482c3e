//! CUDA C++ to machine code with NVRTC, once a machine: compiled images are kept in a folder.

use std::ffi::CString;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use cellmill_matrix::{Error, Result};
use cudarc::nvrtc::sys;

use crate::fault::absent;
use crate::program::Source;

/// An image that the driver can load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    bytes: Vec<u8>,
}

impl Compiled {
    /// Machine code (an ELF file), or PTX with a zero byte at its end.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it is machine code for one architecture rather than PTX.
    pub fn is_machine_code(&self) -> bool {
        self.bytes.starts_with(b"\x7fELF")
    }
}

/// Options of every compilation. No fast mathematics: division, roots and logarithms are those of IEEE 754 and of CUDA's tables.
const OPTIONS: [&str; 3] = ["--std=c++17", "-lineinfo", "--device-as-default-execution-space"];

/// Compiles for a compute capability (times ten). A card that is newer than NVRTC gets PTX, which its driver finishes.
pub fn compile(source: &Source, capability: u32) -> Result<Compiled> {
    let text = source.parts.concat();
    let known = architectures()?;
    let Some(&best) = known.iter().rev().find(|&&a| a <= capability) else {
        let least = known.first().copied().unwrap_or_default();
        return Err(absent(
            format!("compute capability {}.{}", capability / 10, capability % 10),
            format!("the installed NVRTC compiles for {}.{} and newer: install NVRTC 12", least / 10, least % 10),
        ));
    };
    let kind = if best == capability { "sm" } else { "compute" };
    let mut options = OPTIONS.map(str::to_owned).to_vec();
    options.push(format!("--gpu-architecture={kind}_{best}"));
    let bug = |what: &str| Error::bug(format!("{} of {}", what, source.name));
    let c_strings = |list: &[String]| list.iter().map(|o| CString::new(o.as_str())).collect::<Result<Vec<_>, _>>();
    let (Ok(text), Ok(name), Ok(options)) = (CString::new(text), CString::new(format!("{}.cu", source.name)), c_strings(&options)) else {
        return Err(bug("a zero byte in the source"));
    };
    let program = Compilation::new(&text, &name).ok_or_else(|| bug("NVRTC refuses the source"))?;
    let pointers: Vec<_> = options.iter().map(|o| o.as_ptr()).collect();
    // SAFETY: the program lives; the options outlive the call.
    let done = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as i32, pointers.as_ptr()) };
    if done != sys::nvrtcResult::NVRTC_SUCCESS {
        return Err(Error::bug(format!("{} does not compile for {kind}_{best}: {}", source.name, program.log())));
    }
    program.image(kind == "sm").map(|bytes| Compiled { bytes }).ok_or_else(|| bug("NVRTC gives no image"))
}

/// [`compile`], or what an earlier run left in `folder`. A folder that can't be written is no error.
pub(crate) fn cached(source: &Source, capability: u32, folder: Option<&Path>) -> Result<Compiled> {
    let Some(folder) = folder else { return compile(source, capability) };
    let (major, minor) = version()?;
    let file = folder.join(format!("{}-{:016x}-{capability}-{major}.{minor}.bin", source.name, key(source)));
    if let Some(bytes) = std::fs::read(&file).ok().filter(|bytes| intact(bytes)) {
        return Ok(Compiled { bytes });
    }
    let image = compile(source, capability)?;
    // Built beside its name and renamed: nobody ever sees half of it.
    static PARTS: AtomicU32 = AtomicU32::new(0);
    let part = file.with_extension(format!("{}-{}.part", std::process::id(), PARTS.fetch_add(1, Ordering::Relaxed)));
    if std::fs::create_dir_all(folder).is_ok() && std::fs::write(&part, &image.bytes).is_ok() {
        let _ = std::fs::rename(&part, &file);
    }
    Ok(image)
}

/// Machine code, or PTX that ends as it must.
fn intact(bytes: &[u8]) -> bool {
    bytes.len() > 64 && (bytes.starts_with(b"\x7fELF") || bytes.last() == Some(&0))
}

/// FNV-1a of the source and of the options.
fn key(source: &Source) -> u64 {
    let bytes = source.parts.iter().chain(&OPTIONS).flat_map(|part| part.bytes());
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Version of NVRTC, which is loaded by this.
fn version() -> Result<(i32, i32)> {
    // SAFETY: opens the library, whose initialisers are the vendor's.
    if !unsafe { sys::is_culib_present() } {
        return Err(absent(
            "cuda",
            "NVRTC, the run-time compiler of CUDA, was not found (libnvrtc.so): install the CUDA toolkit or `pip install nvidia-cuda-nvrtc`",
        ));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two ints.
    let _ = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    Ok((major, minor))
}

/// Compute capabilities (times ten) that NVRTC knows, ascending.
fn architectures() -> Result<Vec<u32>> {
    version()?;
    let mut n = 0;
    // SAFETY: writes one int.
    let _ = unsafe { sys::nvrtcGetNumSupportedArchs(&mut n) };
    let mut list = vec![0i32; n.max(0) as usize];
    if !list.is_empty() {
        // SAFETY: the list has as many elements as NVRTC said.
        let _ = unsafe { sys::nvrtcGetSupportedArchs(list.as_mut_ptr()) };
    }
    let mut list: Vec<u32> = list.into_iter().map(|a| a as u32).collect();
    list.sort_unstable();
    Ok(list)
}

/// A program of NVRTC.
struct Compilation(sys::nvrtcProgram);

impl Compilation {
    fn new(text: &CString, name: &CString) -> Option<Self> {
        let mut raw = std::ptr::null_mut();
        let none = std::ptr::null_mut();
        // SAFETY: both strings end with a zero; there are no headers.
        let done = unsafe { sys::nvrtcCreateProgram(&mut raw, text.as_ptr(), name.as_ptr(), 0, none, none) };
        (done == sys::nvrtcResult::NVRTC_SUCCESS).then_some(Compilation(raw))
    }

    fn log(&self) -> String {
        let mut len = 0;
        // SAFETY: the program lives; the buffer is as long as NVRTC said.
        let bytes = unsafe {
            let _ = sys::nvrtcGetProgramLogSize(self.0, &mut len);
            let mut bytes = vec![0u8; len.max(1)];
            let _ = sys::nvrtcGetProgramLog(self.0, bytes.as_mut_ptr().cast());
            bytes
        };
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    }

    fn image(&self, machine_code: bool) -> Option<Vec<u8>> {
        let mut len = 0;
        // SAFETY: the program was compiled; the buffer is as long as NVRTC said.
        unsafe {
            let size = if machine_code { sys::nvrtcGetCUBINSize(self.0, &mut len) } else { sys::nvrtcGetPTXSize(self.0, &mut len) };
            let mut bytes = vec![0u8; len];
            let at = bytes.as_mut_ptr().cast();
            let done = if machine_code { sys::nvrtcGetCUBIN(self.0, at) } else { sys::nvrtcGetPTX(self.0, at) };
            let fine = [size, done] == [sys::nvrtcResult::NVRTC_SUCCESS; 2] && !bytes.is_empty();
            fine.then_some(bytes)
        }
    }
}

impl Drop for Compilation {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

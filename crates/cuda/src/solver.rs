//! Eigenvalues of dense symmetric matrices by cuSOLVER.

use cellmill_matrix::{Error, Result};
use cudarc::cusolver::sys;

use crate::buffer::Buffer;
use crate::fault::{absent, refused};
use crate::stream::Stream;

/// cuSOLVER on one stream.
#[derive(Debug)]
pub struct Solver {
    handle: sys::cusolverDnHandle_t,
    stream: Stream,
}

// SAFETY: a handle may be used from any thread, by one at a time: it is used through `&mut` alone.
unsafe impl Send for Solver {}

/// All eigenvectors are wanted, and the lower part of the matrix is read.
const VECTORS: sys::cusolverEigMode_t = sys::cusolverEigMode_t::CUSOLVER_EIG_MODE_VECTOR;
const LOWER: sys::cublasFillMode_t = sys::cublasFillMode_t::CUBLAS_FILL_MODE_LOWER;

impl Solver {
    /// Opens cuSOLVER (0.1 to 0.5 s at the first time).
    pub fn new(stream: &Stream) -> Result<Self> {
        // SAFETY: opens the library, whose initialisers are the vendor's.
        if !unsafe { sys::is_culib_present() } {
            return Err(absent(
                "cuda",
                "cuSOLVER was not found (libcusolver.so): install the CUDA toolkit or `pip install nvidia-cusolver`",
            ));
        }
        stream.device().bind()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes a handle.
        let opened = unsafe { sys::cusolverDnCreate(&mut handle) };
        if opened != sys::cusolverStatus_t::CUSOLVER_STATUS_SUCCESS {
            return Err(refused(&stream.device().place(), "cuSOLVER", format!("{opened:?}")));
        }
        let solver = Solver { handle, stream: stream.clone() };
        // SAFETY: handle and stream live.
        solver.check(unsafe { sys::cusolverDnSetStream(handle, stream.0.raw.cast()) })?;
        Ok(solver)
    }

    fn check(&self, status: sys::cusolverStatus_t) -> Result<()> {
        if status == sys::cusolverStatus_t::CUSOLVER_STATUS_SUCCESS {
            return Ok(());
        }
        Err(refused(&self.stream.device().place(), "cuSOLVER", format!("{status:?}")))
    }

    /// Bytes of device memory that `eigenpairs` of `n` rows takes beside the matrix, about.
    pub fn bytes(n: usize) -> u64 {
        8 * (3 * n as u64 * n as u64 + (1 << 20))
    }

    /// Waits for the eigenvalues of a symmetric matrix, ascending: `(n,)`. The matrix, `(n, n)`, becomes its eigenvectors, one after the
    /// other. The same bits each time on the same card.
    pub fn eigenpairs(&mut self, matrix: &mut Buffer<f64>, n: usize) -> Result<Vec<f64>> {
        if n == 0 || n > i32::MAX as usize || matrix.len() != n * n {
            return Err(Error::bug(format!("{} numbers for a matrix of {n} x {n}", matrix.len())));
        }
        let values = self.stream.alloc::<f64>(n)?;
        let info = self.stream.zeros::<i32>(1)?;
        let size = n as i32;
        let (a, w) = (matrix.address() as *mut f64, values.address() as *mut f64);
        let mut len = 0;
        // SAFETY: asks for a size; matrix and values are as large as it is told.
        self.check(unsafe { sys::cusolverDnDsyevd_bufferSize(self.handle, VECTORS, LOWER, size, a, size, w, &mut len) })?;
        let work = self.stream.alloc::<f64>(len.max(1) as usize)?;
        // SAFETY: matrix, values and workspace are as large as cuSOLVER wants them, on this handle's stream.
        let done = unsafe {
            let work = work.address() as *mut f64;
            sys::cusolverDnDsyevd(self.handle, VECTORS, LOWER, size, a, size, w, work, len, info.address() as *mut i32)
        };
        self.check(done)?;
        match self.stream.download(&info, 1)?[0] {
            0 => self.stream.download(&values, n),
            info => Err(Error::bug(format!("the eigendecomposition on the device did not converge ({info})"))),
        }
    }
}

impl Drop for Solver {
    fn drop(&mut self) {
        if self.stream.device().bind().is_ok() {
            // SAFETY: created once, destroyed once.
            let _ = unsafe { sys::cusolverDnDestroy(self.handle) };
        }
    }
}

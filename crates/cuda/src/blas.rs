//! Dense matrix products by cuBLAS.

use cellmill_matrix::{Error, Result};
use cudarc::cublas::{result, sys};

use crate::buffer::Buffer;
use crate::fault::{absent, refused};
use crate::stream::Stream;

/// cuBLAS on one stream. Its workspace is its own, so that products have the same bits in every run.
#[derive(Debug)]
pub struct Blas {
    handle: sys::cublasHandle_t,
    stream: Stream,
    _workspace: Buffer<u8>,
}

// SAFETY: a handle may be used from any thread, by one at a time: it is used through `&mut` alone.
unsafe impl Send for Blas {}

/// Bytes of workspace: what NVIDIA's documentation recommends for Hopper, and enough for older cards.
const WORKSPACE: usize = 32 << 20;

/// Part of a matrix in device memory, column by column.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a, T: crate::Plain> {
    /// Where it lies.
    pub buffer: &'a Buffer<T>,
    /// Element at which it begins.
    pub at: usize,
    /// Elements from one column to the next.
    pub stride: usize,
}

impl<T: crate::Plain> Operand<'_, T> {
    fn check(&self, rows: usize, columns: usize) -> Result<()> {
        let end = if columns == 0 { 0 } else { self.at + (columns - 1) * self.stride + rows };
        if end > self.buffer.len() || rows > self.stride || [rows, columns, self.stride].iter().any(|&n| n > i32::MAX as usize) {
            return Err(Error::bug(format!("a matrix of {rows} x {columns} beyond its {} elements", self.buffer.len())));
        }
        Ok(())
    }

    fn address(&self) -> *mut std::ffi::c_void {
        (self.buffer.address() + (self.at * size_of::<T>()) as u64) as *mut _
    }
}

impl Blas {
    /// Opens cuBLAS (0.1 to 0.3 s at the first time).
    pub fn new(stream: &Stream) -> Result<Self> {
        // SAFETY: opens the library, whose initialisers are the vendor's.
        if !unsafe { sys::is_culib_present() } {
            return Err(absent("cuda", "cuBLAS was not found (libcublas.so): install the CUDA toolkit or `pip install nvidia-cublas`"));
        }
        stream.device().bind()?;
        let workspace = stream.alloc(WORKSPACE)?;
        let place = stream.device().place();
        let handle = result::create_handle().map_err(|e| refused(&place, "cuBLAS", format!("{:?}", e.0)))?;
        let blas = Blas { handle, stream: stream.clone(), _workspace: workspace };
        // SAFETY: handle and stream live; the workspace lives as long as the handle.
        unsafe {
            let queue = blas.stream.0.raw.cast();
            blas.check(sys::cublasSetStream_v2(handle, queue))?;
            blas.check(sys::cublasSetWorkspace_v2(handle, blas._workspace.address() as *mut _, WORKSPACE))?;
        }
        Ok(blas)
    }

    fn check(&self, status: sys::cublasStatus_t) -> Result<()> {
        if status == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
            return Ok(());
        }
        Err(refused(&self.stream.device().place(), "cuBLAS", format!("{status:?}")))
    }

    /// `c = a' b`, or `c + a' b` with `add`, exact in 32-bit integers: a `(k, m)`, b `(k, n)`, c `(m, n)`; `k` and the strides of a
    /// and b multiples of 4.
    #[allow(clippy::too_many_arguments)] // the arguments of a matrix product
    pub fn products(
        &mut self,
        m: usize,
        n: usize,
        k: usize,
        a: Operand<'_, i8>,
        b: Operand<'_, i8>,
        c: Operand<'_, i32>,
        add: bool,
    ) -> Result<()> {
        use sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
        use sys::cudaDataType_t::{CUDA_R_8I, CUDA_R_32I};
        a.check(k, m)?;
        b.check(k, n)?;
        c.check(m, n)?;
        self.stream.device().bind()?;
        let (alpha, beta) = (1i32, i32::from(add));
        // SAFETY: shapes and strides were checked against the buffers; alpha and beta are read before the call returns.
        let status = unsafe {
            sys::cublasGemmEx(
                self.handle,
                CUBLAS_OP_T,
                CUBLAS_OP_N,
                m as i32,
                n as i32,
                k as i32,
                (&raw const alpha).cast(),
                a.address(),
                CUDA_R_8I,
                a.stride as i32,
                b.address(),
                CUDA_R_8I,
                b.stride as i32,
                (&raw const beta).cast(),
                c.address(),
                CUDA_R_32I,
                c.stride as i32,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32I,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        self.check(status)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        if self.stream.device().bind().is_ok() {
            // The workspace goes back to the pool in the order of the stream, which the handle shares.
            // SAFETY: created once, destroyed once.
            let _ = unsafe { result::destroy_handle(self.handle) };
        }
    }
}

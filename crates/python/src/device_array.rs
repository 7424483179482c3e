//! Arrays that stay in the memory of a GPU, for other libraries of the process: `__cuda_array_interface__`, version 3.

use std::sync::Arc;

use cellmill_cuda::{Buffer, Device};
use cellmill_engine::pca::Rows;
use cellmill_engine::pca::csr::{Csr, csr_on};
use cellmill_matrix::Error;
use numpy::{IntoPyArray, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::device::processor;
use crate::error::raised;
use crate::matrix::Matrix;
use crate::{pool, rows};

/// Numbers of one type.
enum Numbers {
    Floats(Buffer<f32>),
    /// All below 2^31: other libraries take them for i32.
    Whole(Buffer<u32>),
}

/// An array in the memory of a GPU, in C order. Whoever makes an array of it without a copy keeps it alive. What wrote it is done.
#[pyclass(frozen, module = "cellmill._cellmill")]
pub struct DeviceArray {
    /// None only while it is dropped.
    numbers: Option<Numbers>,
    shape: Vec<usize>,
}

/// Works on a thread of its own: which GPU is the caller's current one (CuPy's, PyTorch's) stays as it is. The interpreter is released.
fn aside<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(|| {
        let done = std::thread::scope(|scope| scope.spawn(work).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl DeviceArray {
    /// An array of f32.
    pub fn floats(buffer: Buffer<f32>, shape: Vec<usize>) -> Self {
        DeviceArray { numbers: Some(Numbers::Floats(buffer)), shape }
    }

    /// An array of i32.
    fn whole(buffer: Buffer<u32>) -> Self {
        DeviceArray { shape: vec![buffer.len()], numbers: Some(Numbers::Whole(buffer)) }
    }

    fn numbers(&self) -> PyResult<&Numbers> {
        self.numbers.as_ref().ok_or_else(|| raised(Error::bug("an array that is gone")))
    }
}

impl Numbers {
    fn device(&self) -> &Arc<Device> {
        match self {
            Numbers::Floats(buffer) => buffer.device(),
            Numbers::Whole(buffer) => buffer.device(),
        }
    }

    fn dtype(&self) -> &'static str {
        match self {
            Numbers::Floats(_) => "<f4",
            Numbers::Whole(_) => "<i4",
        }
    }
}

/// Others may still read it on streams of their own.
impl Drop for DeviceArray {
    fn drop(&mut self) {
        let Some(numbers) = self.numbers.take() else { return };
        Python::attach(|py| {
            aside(py, move || {
                // A device that is lost has nobody who reads.
                let _ = numbers.device().synchronize();
                drop(numbers);
            });
        });
    }
}

#[pymethods]
impl DeviceArray {
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    /// Number of the GPU.
    #[getter]
    fn device_id(&self) -> PyResult<usize> {
        Ok(self.numbers()?.device().ordinal())
    }

    #[getter]
    fn __cuda_array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let address = match self.numbers()? {
            Numbers::Floats(buffer) => buffer.address(),
            Numbers::Whole(buffer) => buffer.address(),
        };
        let out = PyDict::new(py);
        out.set_item("shape", self.shape(py)?)?;
        out.set_item("typestr", self.numbers()?.dtype())?;
        // It may be written to: nobody here looks at it again.
        out.set_item("data", (address, false))?;
        out.set_item("strides", py.None())?;
        out.set_item("stream", py.None())?;
        out.set_item("version", 3)?;
        Ok(out)
    }

    /// A copy in main memory.
    fn get<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.numbers()? {
            Numbers::Floats(buffer) => {
                let floats = aside(py, || buffer.device().stream()?.download(buffer, buffer.len())).map_err(raised)?;
                Ok(floats.into_pyarray(py).reshape(self.shape.clone())?.into_any())
            }
            Numbers::Whole(buffer) => {
                let whole = aside(py, || buffer.device().stream()?.download(buffer, buffer.len())).map_err(raised)?;
                // The same bits.
                let whole: Vec<i32> = whole.into_iter().map(u32::cast_signed).collect();
                Ok(whole.into_pyarray(py).reshape(self.shape.clone())?.into_any())
            }
        }
    }

    fn __len__(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    fn __repr__(&self) -> PyResult<String> {
        let shape: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        Ok(format!("DeviceArray of {} {} on cuda:{}", shape.join(" × "), self.numbers()?.dtype(), self.device_id()?))
    }
}

/// The rows of a matrix after its steps on the GPU that was chosen: `indptr`, `indices`, `data` of a CSR matrix.
#[pyfunction]
pub fn on_device(py: Python<'_>, matrix: &Matrix) -> PyResult<(DeviceArray, DeviceArray, DeviceArray)> {
    let recipe = matrix.whole_recipe();
    let (select, transform) = rows::selecting(&recipe);
    let found = matrix.feed(py, |feed| {
        let rows = Rows { feed, select, n_genes: matrix.n_vars(), transform, last: false, crew: None, stay: None };
        pool::run(py, "to the GPU", |call| {
            let processor = processor(call)?;
            let device =
                processor.device().ok_or_else(|| Error::option("device", "cpu", "arrays stay on a GPU if settings.device names one"))?;
            let short = || Error::option("device", device.to_string(), "it has no room for rows that are unpacked");
            csr_on(device, rows, call)?.ok_or_else(short)
        })
    })?;
    let Csr { indptr, columns, values, .. } = found;
    let n = values.len();
    Ok((DeviceArray::whole(indptr), DeviceArray::whole(columns), DeviceArray::floats(values, vec![n])))
}

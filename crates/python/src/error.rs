//! The engine's errors as Python's exceptions, with the command line's text.

use cellmill_matrix::{Error, ErrorKind};
use pyo3::PyErr;
use pyo3::exceptions::{PyKeyError, PyKeyboardInterrupt, PyMemoryError, PyOSError, PyRuntimeError, PyValueError};

/// Shapes and options become `ValueError`, missing names `KeyError`, files `OSError`.
pub fn raised(error: Error) -> PyErr {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Invalid { .. } | ErrorKind::Option { .. } => PyValueError::new_err(text),
        ErrorKind::Missing { .. } => PyKeyError::new_err(text),
        ErrorKind::Io { .. } => PyOSError::new_err(text),
        ErrorKind::Budget { .. } => PyMemoryError::new_err(text),
        ErrorKind::Interrupted => PyKeyboardInterrupt::new_err(text),
        ErrorKind::Bug { .. } => PyRuntimeError::new_err(text),
    }
}

//! Matrices that lie in memory, borrowed from numpy: nothing is copied but the rows that a task asks for.

use std::ops::Range;

use cellmill_matrix::{Csr, Error, Place, Result, Shape, Source, SourceRow};
use cellmill_run::wide::Wide;
use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// A borrowed numpy vector of one of several types.
pub enum Held<'py> {
    F32(PyReadonlyArray1<'py, f32>),
    F64(PyReadonlyArray1<'py, f64>),
    I32(PyReadonlyArray1<'py, i32>),
    I64(PyReadonlyArray1<'py, i64>),
}

/// Its entries.
#[derive(Clone, Copy)]
pub enum Numbers<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl<'py> Held<'py> {
    /// Borrows an array; the package brings other types into one of these first.
    pub fn of(array: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(a) = array.extract() {
            return Ok(Held::F32(a));
        }
        if let Ok(a) = array.extract() {
            return Ok(Held::F64(a));
        }
        if let Ok(a) = array.extract() {
            return Ok(Held::I32(a));
        }
        if let Ok(a) = array.extract() {
            return Ok(Held::I64(a));
        }
        Err(PyTypeError::new_err("a contiguous numpy vector of float32, float64, int32 or int64 is expected"))
    }

    /// Its entries.
    pub fn numbers(&self) -> PyResult<Numbers<'_>> {
        let wrong = |e| PyTypeError::new_err(format!("{e}"));
        Ok(match self {
            Held::F32(a) => Numbers::F32(a.as_slice().map_err(wrong)?),
            Held::F64(a) => Numbers::F64(a.as_slice().map_err(wrong)?),
            Held::I32(a) => Numbers::I32(a.as_slice().map_err(wrong)?),
            Held::I64(a) => Numbers::I64(a.as_slice().map_err(wrong)?),
        })
    }
}

impl Numbers<'_> {
    fn len(&self) -> usize {
        match self {
            Numbers::F32(v) => v.len(),
            Numbers::F64(v) => v.len(),
            Numbers::I32(v) => v.len(),
            Numbers::I64(v) => v.len(),
        }
    }

    /// Entry `i` as a position; none if it is negative or no whole number.
    fn position(&self, i: usize) -> Option<u64> {
        match self {
            Numbers::I32(v) => u64::try_from(v[i]).ok(),
            Numbers::I64(v) => u64::try_from(v[i]).ok(),
            Numbers::F32(_) | Numbers::F64(_) => None,
        }
    }

    fn append_f64(&self, span: Range<usize>, out: &mut Vec<f64>) {
        match self {
            Numbers::F32(v) => out.extend(v[span].iter().map(|&x| f64::from(x))),
            Numbers::F64(v) => out.extend_from_slice(&v[span]),
            Numbers::I32(v) => out.extend(v[span].iter().map(|&x| f64::from(x))),
            Numbers::I64(v) => out.extend(v[span].iter().map(|&x| x as f64)),
        }
    }

    fn append_f32(&self, span: Range<usize>, out: &mut Vec<f32>) {
        match self {
            Numbers::F32(v) => out.extend_from_slice(&v[span]),
            Numbers::F64(v) => out.extend(v[span].iter().map(|&x| x as f32)),
            Numbers::I32(v) => out.extend(v[span].iter().map(|&x| x as f32)),
            Numbers::I64(v) => out.extend(v[span].iter().map(|&x| x as f32)),
        }
    }

    /// Columns; what is none becomes `u32::MAX`, which canonicalising refuses.
    fn append_u32(&self, span: Range<usize>, out: &mut Vec<u32>) {
        let wide = |x: i64| u32::try_from(x).unwrap_or(u32::MAX);
        match self {
            Numbers::I32(v) => out.extend(v[span].iter().map(|&x| u32::try_from(x).unwrap_or(u32::MAX))),
            Numbers::I64(v) => out.extend(v[span].iter().map(|&x| wide(x))),
            Numbers::F32(_) | Numbers::F64(_) => out.extend(span.map(|_| u32::MAX)),
        }
    }
}

/// Compressed rows in memory.
pub struct Sparse<'a> {
    shape: Shape,
    indptr: Numbers<'a>,
    indices: Numbers<'a>,
    data: Numbers<'a>,
}

impl<'a> Sparse<'a> {
    /// Checks that the three arrays fit the shape and each other.
    pub fn new(shape: Shape, indptr: Numbers<'a>, indices: Numbers<'a>, data: Numbers<'a>) -> Result<Self> {
        let place = || Place { element: Some("X/indptr".into()), ..Place::default() };
        if indptr.len() as u64 != shape.n_obs + 1 {
            let expected = format!("there are {} rows", shape.n_obs);
            return Err(Error::invalid(place(), format!("{} row ends", indptr.len().saturating_sub(1)), expected));
        }
        let mut before = 0;
        for i in 0..indptr.len() {
            match indptr.position(i) {
                Some(end) if end >= before && (i > 0 || end == 0) => before = end,
                _ => {
                    return Err(Error::invalid(
                        place().rows(i as u64..i as u64 + 1),
                        "a row that ends before its start",
                        "indptr rises from 0",
                    ));
                }
            }
        }
        if before != indices.len() as u64 || before != data.len() as u64 {
            let found = format!("{} indices and {} values", indices.len(), data.len());
            return Err(Error::invalid(place(), found, format!("indptr ends at {before}")));
        }
        Ok(Sparse { shape, indptr, indices, data })
    }

    fn start(&self, row: u64) -> u64 {
        self.indptr.position(row as usize).unwrap_or(0)
    }
}

impl Source for Sparse<'_> {
    fn shape(&self) -> Shape {
        self.shape
    }
    fn entries_before(&self, row: SourceRow) -> u64 {
        self.start(row.0)
    }
    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        into.clear(self.shape.n_vars);
        let first = self.start(rows.start.0);
        into.indptr.extend((rows.start.0 + 1..=rows.end.0).map(|row| self.start(row) - first));
        let span = first as usize..self.start(rows.end.0) as usize;
        self.indices.append_u32(span.clone(), &mut into.indices);
        self.data.append_f32(span, &mut into.data);
        into.canonicalise(rows.start.0)?;
        Ok(())
    }
    fn bytes_read(&self) -> u64 {
        0
    }
    fn bytes_decoded(&self) -> u64 {
        0
    }
    fn overhead_bytes(&self, _: usize) -> u64 {
        0
    }
    fn location(&self) -> &str {
        "AnnData in memory"
    }
}

impl Wide for Sparse<'_> {
    fn row(&self, row: u64, columns: &mut Vec<u32>, values: &mut Vec<f64>) -> Result<()> {
        let span = self.start(row) as usize..self.start(row + 1) as usize;
        columns.clear();
        values.clear();
        self.indices.append_u32(span.clone(), columns);
        self.data.append_f64(span, values);
        if let Some(column) = columns.iter().find(|&&c| c as usize >= self.shape.n_vars) {
            let place = Place { element: Some("X/indices".into()), rows: Some(row..row + 1), store: None };
            return Err(Error::invalid(place, format!("column {column}"), format!("there are {} genes", self.shape.n_vars)));
        }
        if columns.windows(2).any(|w| w[0] >= w[1]) {
            let mut entries: Vec<(u32, f64)> = columns.drain(..).zip(values.drain(..)).collect();
            entries.sort_by_key(|entry| entry.0);
            for part in entries.chunk_by(|a, b| a.0 == b.0) {
                columns.push(part[0].0);
                values.push(part.iter().map(|entry| entry.1).sum());
            }
        }
        Ok(())
    }
}

/// A borrowed numpy matrix, C order.
pub enum HeldDense<'py> {
    F32(PyReadonlyArray2<'py, f32>),
    F64(PyReadonlyArray2<'py, f64>),
}

impl<'py> HeldDense<'py> {
    /// Borrows an array.
    pub fn of(array: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(a) = array.extract() {
            return Ok(HeldDense::F32(a));
        }
        match array.extract() {
            Ok(a) => Ok(HeldDense::F64(a)),
            Err(_) => Err(PyTypeError::new_err("a numpy matrix of float32 or float64 in C order is expected")),
        }
    }

    /// The matrix as a source.
    pub fn source(&self, shape: Shape) -> PyResult<Dense<'_>> {
        let wrong = |e| PyTypeError::new_err(format!("{e}"));
        let data = match self {
            HeldDense::F32(a) => Numbers::F32(a.as_slice().map_err(wrong)?),
            HeldDense::F64(a) => Numbers::F64(a.as_slice().map_err(wrong)?),
        };
        Ok(Dense { shape, data })
    }
}

/// A dense matrix in memory; zeros are dropped.
pub struct Dense<'a> {
    shape: Shape,
    data: Numbers<'a>,
}

impl Source for Dense<'_> {
    fn shape(&self) -> Shape {
        self.shape
    }
    fn entries_before(&self, row: SourceRow) -> u64 {
        row.0 * self.shape.n_vars as u64
    }
    fn read(&self, rows: Range<SourceRow>, into: &mut Csr) -> Result<()> {
        into.clear(self.shape.n_vars);
        let p = self.shape.n_vars;
        let mut line = Vec::with_capacity(p);
        for row in rows.start.0..rows.end.0 {
            line.clear();
            self.data.append_f32(row as usize * p..(row as usize + 1) * p, &mut line);
            for (j, &x) in line.iter().enumerate().filter(|(_, x)| **x != 0.0) {
                into.indices.push(j as u32);
                into.data.push(x);
            }
            into.indptr.push(into.indices.len() as u64);
        }
        Ok(())
    }
    fn bytes_read(&self) -> u64 {
        0
    }
    fn bytes_decoded(&self) -> u64 {
        0
    }
    fn overhead_bytes(&self, n_threads: usize) -> u64 {
        (n_threads * self.shape.n_vars * 4) as u64
    }
    fn location(&self) -> &str {
        "AnnData in memory"
    }
}

impl Wide for Dense<'_> {
    fn row(&self, row: u64, columns: &mut Vec<u32>, values: &mut Vec<f64>) -> Result<()> {
        let p = self.shape.n_vars;
        columns.clear();
        columns.extend(0..p as u32);
        values.clear();
        self.data.append_f64(row as usize * p..(row as usize + 1) * p, values);
        Ok(())
    }
}

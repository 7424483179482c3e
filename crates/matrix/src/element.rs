//! AnnData elements as plain values: what a group or an array of a store means once it has been read.

use serde::{Deserialize, Serialize};

/// The type of an array's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum DType {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
    Str,
}

impl DType {
    /// Bytes an entry; strings have none.
    pub fn size(self) -> Option<usize> {
        Some(match self {
            DType::Bool | DType::I8 | DType::U8 => 1,
            DType::I16 | DType::U16 => 2,
            DType::I32 | DType::U32 | DType::F32 => 4,
            DType::I64 | DType::U64 | DType::F64 => 8,
            DType::Str => return None,
        })
    }

    /// numpy's name: `int32`, `float64`, `bool`, `str`.
    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::I8 => "int8",
            DType::I16 => "int16",
            DType::I32 => "int32",
            DType::I64 => "int64",
            DType::U8 => "uint8",
            DType::U16 => "uint16",
            DType::U32 => "uint32",
            DType::U64 => "uint64",
            DType::F32 => "float32",
            DType::F64 => "float64",
            DType::Str => "str",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A flat run of entries of one type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Values {
    Bool(Vec<bool>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Str(Vec<String>),
}

/// Runs `$body` with `$v` bound to the vector inside, whatever its type.
macro_rules! each {
    ($values:expr, $v:ident => $body:expr) => {
        match $values {
            Values::Bool($v) => $body,
            Values::I8($v) => $body,
            Values::I16($v) => $body,
            Values::I32($v) => $body,
            Values::I64($v) => $body,
            Values::U8($v) => $body,
            Values::U16($v) => $body,
            Values::U32($v) => $body,
            Values::U64($v) => $body,
            Values::F32($v) => $body,
            Values::F64($v) => $body,
            Values::Str($v) => $body,
        }
    };
}

impl Values {
    /// Number of entries.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Type of the entries.
    pub fn dtype(&self) -> DType {
        match self {
            Values::Bool(_) => DType::Bool,
            Values::I8(_) => DType::I8,
            Values::I16(_) => DType::I16,
            Values::I32(_) => DType::I32,
            Values::I64(_) => DType::I64,
            Values::U8(_) => DType::U8,
            Values::U16(_) => DType::U16,
            Values::U32(_) => DType::U32,
            Values::U64(_) => DType::U64,
            Values::F32(_) => DType::F32,
            Values::F64(_) => DType::F64,
            Values::Str(_) => DType::Str,
        }
    }

    /// The entries whose `keep` is true, in order. `keep` has one flag an entry.
    pub fn select(&self, keep: &[bool]) -> Values {
        fn pick<T: Clone>(v: &[T], keep: &[bool]) -> Vec<T> {
            v.iter().zip(keep).filter(|(_, k)| **k).map(|(x, _)| x.clone()).collect()
        }
        match self {
            Values::Bool(v) => Values::Bool(pick(v, keep)),
            Values::I8(v) => Values::I8(pick(v, keep)),
            Values::I16(v) => Values::I16(pick(v, keep)),
            Values::I32(v) => Values::I32(pick(v, keep)),
            Values::I64(v) => Values::I64(pick(v, keep)),
            Values::U8(v) => Values::U8(pick(v, keep)),
            Values::U16(v) => Values::U16(pick(v, keep)),
            Values::U32(v) => Values::U32(pick(v, keep)),
            Values::U64(v) => Values::U64(pick(v, keep)),
            Values::F32(v) => Values::F32(pick(v, keep)),
            Values::F64(v) => Values::F64(pick(v, keep)),
            Values::Str(v) => Values::Str(pick(v, keep)),
        }
    }

    /// The entries of a range of positions.
    pub fn slice(&self, at: std::ops::Range<usize>) -> Values {
        match self {
            Values::Bool(v) => Values::Bool(v[at].to_vec()),
            Values::I8(v) => Values::I8(v[at].to_vec()),
            Values::I16(v) => Values::I16(v[at].to_vec()),
            Values::I32(v) => Values::I32(v[at].to_vec()),
            Values::I64(v) => Values::I64(v[at].to_vec()),
            Values::U8(v) => Values::U8(v[at].to_vec()),
            Values::U16(v) => Values::U16(v[at].to_vec()),
            Values::U32(v) => Values::U32(v[at].to_vec()),
            Values::U64(v) => Values::U64(v[at].to_vec()),
            Values::F32(v) => Values::F32(v[at].to_vec()),
            Values::F64(v) => Values::F64(v[at].to_vec()),
            Values::Str(v) => Values::Str(v[at].to_vec()),
        }
    }

    /// Entry `i` as f64 (booleans as 0 and 1); strings have none.
    pub fn number(&self, i: usize) -> Option<f64> {
        Some(match self {
            Values::Bool(v) => f64::from(u8::from(v[i])),
            Values::I8(v) => f64::from(v[i]),
            Values::I16(v) => f64::from(v[i]),
            Values::I32(v) => f64::from(v[i]),
            Values::I64(v) => v[i] as f64,
            Values::U8(v) => f64::from(v[i]),
            Values::U16(v) => f64::from(v[i]),
            Values::U32(v) => f64::from(v[i]),
            Values::U64(v) => v[i] as f64,
            Values::F32(v) => f64::from(v[i]),
            Values::F64(v) => v[i],
            Values::Str(_) => return None,
        })
    }

    /// Entry `i` as text, as Python's `str` would print it.
    pub fn text(&self, i: usize) -> String {
        match self {
            Values::Bool(v) => if v[i] { "True" } else { "False" }.to_string(),
            Values::F32(v) => float_text(f64::from(v[i]), v[i].to_string()),
            Values::F64(v) => float_text(v[i], v[i].to_string()),
            Values::Str(v) => v[i].clone(),
            Values::I8(v) => v[i].to_string(),
            Values::I16(v) => v[i].to_string(),
            Values::I32(v) => v[i].to_string(),
            Values::I64(v) => v[i].to_string(),
            Values::U8(v) => v[i].to_string(),
            Values::U16(v) => v[i].to_string(),
            Values::U32(v) => v[i].to_string(),
            Values::U64(v) => v[i].to_string(),
        }
    }
}

/// Python shows a whole float with `.0`, and `nan`, `inf` in lower case.
fn float_text(x: f64, shown: String) -> String {
    if x.is_nan() {
        "nan".into()
    } else if x.is_infinite() {
        if x > 0.0 { "inf" } else { "-inf" }.into()
    } else if shown.contains(['.', 'e']) {
        shown
    } else {
        shown + ".0"
    }
}

/// An n-dimensional array, C order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Array {
    /// Lengths of the axes; empty for a scalar.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` entries.
    pub values: Values,
}

impl Array {
    /// A one-dimensional array.
    pub fn vector(values: Values) -> Self {
        Array { shape: vec![values.len()], values }
    }
}

/// One column of a data frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Column {
    /// Plain values (`array`, `string-array`).
    Plain(Values),
    /// Codes into categories; −1 is missing (`categorical`).
    Categorical {
        /// `(n,)`, −1 or an index into `categories`.
        codes: Vec<i32>,
        /// The distinct values, in their order.
        categories: Values,
        /// Whether that order means something.
        ordered: bool,
    },
    /// Values of which some are missing (`nullable-integer`, `nullable-boolean`, `nullable-string-array`).
    Nullable {
        /// `(n,)`; the entry of a missing value is arbitrary.
        values: Values,
        /// `(n,)`, true where missing.
        mask: Vec<bool>,
    },
}

impl Column {
    /// Number of entries.
    pub fn len(&self) -> usize {
        match self {
            Column::Plain(values) | Column::Nullable { values, .. } => values.len(),
            Column::Categorical { codes, .. } => codes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries whose `keep` is true, in order. Categories stay as they are, used or not.
    pub fn select(&self, keep: &[bool]) -> Column {
        match self {
            Column::Plain(values) => Column::Plain(values.select(keep)),
            Column::Categorical { codes, categories, ordered } => Column::Categorical {
                codes: codes.iter().zip(keep).filter(|(_, k)| **k).map(|(c, _)| *c).collect(),
                categories: categories.clone(),
                ordered: *ordered,
            },
            Column::Nullable { values, mask } => Column::Nullable {
                values: values.select(keep),
                mask: mask.iter().zip(keep).filter(|(_, k)| **k).map(|(m, _)| *m).collect(),
            },
        }
    }

    /// The entries of a range of rows.
    pub fn slice(&self, at: std::ops::Range<usize>) -> Column {
        match self {
            Column::Plain(values) => Column::Plain(values.slice(at)),
            Column::Categorical { codes, categories, ordered } => {
                Column::Categorical { codes: codes[at].to_vec(), categories: categories.clone(), ordered: *ordered }
            }
            Column::Nullable { values, mask } => Column::Nullable { values: values.slice(at.clone()), mask: mask[at].to_vec() },
        }
    }

    /// Entry `i` as a number, if it is one and not missing.
    pub fn number(&self, i: usize) -> Option<f64> {
        match self {
            Column::Plain(values) => values.number(i),
            Column::Categorical { codes, categories, .. } => usize::try_from(codes[i]).ok().and_then(|c| categories.number(c)),
            Column::Nullable { values, mask } => {
                if mask[i] {
                    None
                } else {
                    values.number(i)
                }
            }
        }
    }

    /// Entry `i` as text, if it is not missing.
    pub fn text(&self, i: usize) -> Option<String> {
        match self {
            Column::Plain(values) => Some(values.text(i)),
            Column::Categorical { codes, categories, .. } => usize::try_from(codes[i]).ok().map(|c| categories.text(c)),
            Column::Nullable { values, mask } => {
                if mask[i] {
                    None
                } else {
                    Some(values.text(i))
                }
            }
        }
    }
}

/// A data frame: obs or var.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Name of the index column; `_index` when it has none.
    pub index_name: String,
    /// Row names; duplicates are legal.
    pub index: Vec<String>,
    /// Columns in order, each with `index.len()` entries.
    pub columns: Vec<(String, Column)>,
}

impl Table {
    /// A frame of row names alone.
    pub fn of_index(index: Vec<String>) -> Self {
        Table { index_name: "_index".into(), index, columns: Vec::new() }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.index.len()
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(n, _)| n == name).map(|(_, c)| c)
    }

    /// Names of the columns, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(n, _)| n.as_str())
    }

    /// Sets a column: in place if the name exists, else at the end.
    pub fn set(&mut self, name: &str, column: Column) {
        debug_assert_eq!(column.len(), self.n_rows(), "column {name}");
        match self.columns.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = column,
            None => self.columns.push((name.to_string(), column)),
        }
    }

    /// The rows whose `keep` is true, in order.
    pub fn select(&self, keep: &[bool]) -> Table {
        Table {
            index_name: self.index_name.clone(),
            index: self.index.iter().zip(keep).filter(|(_, k)| **k).map(|(s, _)| s.clone()).collect(),
            columns: self.columns.iter().map(|(n, c)| (n.clone(), c.select(keep))).collect(),
        }
    }
}

/// A data frame other than obs and var: its index may be numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Rows and columns.
    pub table: Table,
    /// The index where it is not text: `(n_rows,)`. `table.index` has it as text.
    pub numbers: Option<Values>,
}

impl From<Table> for Frame {
    fn from(table: Table) -> Self {
        Frame { table, numbers: None }
    }
}

impl Frame {
    /// The rows whose `keep` is true, in order.
    pub fn select(&self, keep: &[bool]) -> Frame {
        Frame { table: self.table.select(keep), numbers: self.numbers.as_ref().map(|numbers| numbers.select(keep)) }
    }
}

/// Which way a compressed sparse matrix lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SparseFormat {
    /// Compressed rows.
    Csr,
    /// Compressed columns.
    Csc,
}

/// A sparse matrix held whole: `obsp`, or a small `X`. The streamed path is [`crate::Csr`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sparse {
    /// Rows or columns compressed.
    pub format: SparseFormat,
    /// (rows, columns).
    pub shape: [usize; 2],
    /// `(major + 1,)`.
    pub indptr: Vec<u64>,
    /// `(nnz,)`.
    pub indices: Vec<u32>,
    /// `(nnz,)`.
    pub values: Values,
}

/// Any element of an AnnData store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Element {
    /// `dict`: names in their order.
    Dict(Vec<(String, Element)>),
    /// `array`, `string-array`.
    Array(Array),
    /// `numeric-scalar`, `string`: exactly one entry.
    Scalar(Values),
    /// `dataframe`.
    Table(Frame),
    /// `csr_matrix`, `csc_matrix`.
    Sparse(Sparse),
    /// `categorical` or `nullable-*` outside a data frame.
    Column(Column),
    /// `rec-array`: fields of records by name, each with one entry a record.
    Records(Vec<(String, Values)>),
    /// `null`.
    Null,
}

impl Element {
    /// A string.
    pub fn string(s: impl Into<String>) -> Self {
        Element::Scalar(Values::Str(vec![s.into()]))
    }

    /// An integer.
    pub fn int(i: i64) -> Self {
        Element::Scalar(Values::I64(vec![i]))
    }

    /// A float.
    pub fn float(x: f64) -> Self {
        Element::Scalar(Values::F64(vec![x]))
    }

    /// A boolean.
    pub fn bool(b: bool) -> Self {
        Element::Scalar(Values::Bool(vec![b]))
    }

    /// The entry of that name, if this is a dict that has it.
    pub fn get(&self, key: &str) -> Option<&Element> {
        match self {
            Element::Dict(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, e)| e),
            _ => None,
        }
    }
}

//! Rows in device memory side by side, as a CSR matrix has them.

use std::sync::Arc;

use cellmill_cuda::{Buffer, Device, Grid, Kernel, Source, Stream};
use cellmill_matrix::Result;

use super::cuda::Rows;

/// The kernel. Its twin is [`Rows::to_csr`]. Tolerance: none, entries are copied.
pub const SOURCE: Source = Source { name: "compact", parts: &[include_str!("compact.cu")], kernels: &["compact"] };

/// Entries of rows side by side, in device memory.
#[derive(Debug)]
pub struct Entries {
    /// Entries of each row: `(n_rows,)`, on the host.
    pub lens: Vec<u32>,
    /// Column of each entry.
    pub columns: Buffer<u32>,
    /// Value of each entry.
    pub values: Buffer<f32>,
}

/// The kernel on one device.
#[derive(Clone, Debug)]
pub struct Compact(Kernel);

impl Compact {
    /// Compiles it, if that was not done before.
    pub fn new(device: &Arc<Device>) -> Result<Self> {
        Ok(Compact(device.program(&SOURCE)?.kernel("compact")?))
    }

    /// Waits for the rows; the copy is queued.
    pub fn entries(&self, stream: &Stream, rows: &Rows) -> Result<Entries> {
        rows.found(stream)?;
        let (starts, ends) = (stream.download(&rows.starts, rows.n_rows)?, stream.download(&rows.ends, rows.n_rows)?);
        let lens: Vec<u32> = starts.iter().zip(&ends).map(|(start, end)| end - start).collect();
        // Entries of one batch are fewer than 2^31.
        let mut n = 0;
        let places: Vec<u32> = lens
            .iter()
            .map(|len| {
                n += len;
                n - len
            })
            .collect();
        let places = stream.upload(&places)?;
        let (mut columns, mut values) = (stream.alloc::<u32>(n as usize)?, stream.alloc::<f32>(n as usize)?);
        let [starts, ends] = rows.spans();
        let args = [
            starts,
            ends,
            (&rows.columns).into(),
            (&rows.values).into(),
            (&places).into(),
            (rows.n_rows as u32).into(),
            (&mut columns).into(),
            (&mut values).into(),
        ];
        // SAFETY: the arguments of `compact`; `found` has shown that rows lie in their entries, and places leave each row its length.
        unsafe { stream.launch(&self.0, Grid::over(32 * rows.n_rows, 256), &args)? };
        Ok(Entries { lens, columns, values })
    }
}

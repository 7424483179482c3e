//! A matrix of f32 whose chunks are made one by one, wherever their rows are: the bytes of [`super::ZarrWriter`]'s own chunks.

use std::ops::Range;
use std::path::Path;

use cellmill_matrix::{DType, Error, Place, Result, Values};
use serde::{Deserialize, Serialize};

use super::super::codec::{Chain, Codec};
use super::{ZarrVersion, chunk_rows, encode};
use crate::numbers;

/// How such a matrix is cut into chunks of whole rows, and how these are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChunks {
    version: ZarrVersion,
    n: u64,
    wide: u64,
    rows: u64,
}

impl RowChunks {
    /// Cuts a matrix of `n` rows of `wide` numbers.
    pub fn new(version: ZarrVersion, n: u64, wide: u64) -> Self {
        RowChunks { version, n, wide, rows: Self::rows_of(n, wide) }
    }

    /// Rows of a chunk.
    pub fn rows_of(n: u64, wide: u64) -> u64 {
        chunk_rows(DType::F32, wide).min(n.max(1))
    }

    /// Rows and columns.
    pub fn shape(&self) -> [u64; 2] {
        [self.n, self.wide]
    }

    /// Rows and columns of a chunk.
    pub fn chunk(&self) -> [u64; 2] {
        [self.rows, self.wide]
    }

    /// Number of chunks.
    pub fn n_chunks(&self) -> u64 {
        self.n.div_ceil(self.rows)
    }

    /// The rows of some chunks.
    pub fn span(&self, chunks: Range<u64>) -> Range<u64> {
        let row = |chunk: u64| (chunk * self.rows).min(self.n);
        row(chunks.start)..row(chunks.end)
    }

    /// What is stored of a chunk with these rows: the last one is padded.
    pub fn encode(&self, rows: &[f32]) -> Result<Vec<u8>> {
        let mut rows = rows.to_vec();
        rows.resize((self.rows * self.wide) as usize, 0.0);
        let fail = |what: String| Error::invalid(Place::default(), what, "a chunk that can be compressed");
        encode(self.version, &numbers::to_le(&Values::F32(rows)), size_of::<f32>()).map_err(fail)
    }

    /// Reads a chunk into `rows`, all of it.
    pub fn read(&self, file: &Path, rows: &mut Vec<f32>) -> Result<()> {
        let place = || Place::store(file.display().to_string());
        let stored = std::fs::read(file).map_err(|e| Error::io(place(), &e))?;
        let codec = match self.version {
            ZarrVersion::V2 => Codec::Blosc,
            ZarrVersion::V3 => Codec::Zstd,
        };
        let chain = Chain { codecs: vec![codec], swap: if cfg!(target_endian = "little") { 1 } else { size_of::<f32>() } };
        rows.resize((self.rows * self.wide) as usize, 0.0);
        let fail = |what: String| Error::invalid(place(), what, "a chunk that was written whole");
        chain.decode_exact(&stored, bytemuck::cast_slice_mut(rows)).map_err(fail)
    }
}

#[cfg(test)]
mod tests {
    use cellmill_matrix::Array;

    use super::*;
    use crate::tree::{Attrs, TreeWriter};
    use crate::zarr::ZarrWriter;

    /// Every file below a folder, by name.
    fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(at) = folders.pop() {
            for path in std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()) {
                match path.is_dir() {
                    true => folders.push(path),
                    false => all.push((path.strip_prefix(folder).unwrap().display().to_string(), std::fs::read(&path).unwrap())),
                }
            }
        }
        all.sort();
        all
    }

    #[test]
    fn chunks_made_elsewhere_are_those_of_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        // Three chunks of 2,048 rows, and a rest.
        let (n, wide) = (2048 * 3 + 77, 256);
        let values: Vec<f32> = (0..n * wide).map(|at| ((at * 7919 % 10_007) as f32).sin()).collect();
        for version in [ZarrVersion::V2, ZarrVersion::V3] {
            let chunks = RowChunks::new(version, n as u64, wide as u64);
            assert_eq!((chunks.n_chunks(), chunks.span(3..4)), (4, 6144..6221));
            let made = dir.path().join(format!("{version:?}"));
            std::fs::create_dir(&made).unwrap();
            let file = |chunk: u64| made.join(chunk.to_string());
            let rows = |span: Range<u64>| &values[span.start as usize * wide..span.end as usize * wide];
            for chunk in 0..4 {
                std::fs::write(file(chunk), chunks.encode(rows(chunks.span(chunk..chunk + 1))).unwrap()).unwrap();
            }
            let mut back = Vec::new();
            chunks.read(&file(3), &mut back).unwrap();
            assert_eq!(&back[..77 * wide], rows(6144..6221));
            let write = |name: &str, array: &dyn Fn(&ZarrWriter)| {
                let path = dir.path().join(name);
                let writer = ZarrWriter::create(&path, version, true).unwrap();
                writer.group("", Attrs::new()).unwrap();
                array(&writer);
                Box::new(writer).finish().unwrap();
                files(&path)
            };
            let whole = Array { shape: vec![n, wide], values: Values::F32(values.clone()) };
            let own = write("own", &|writer| writer.array("x", &whole, Attrs::new()).unwrap());
            let taken = write("taken", &|writer| writer.chunks("x", &chunks, &file, Attrs::new()).unwrap());
            assert!(own == taken && own.len() > 4, "{version:?}");
            assert!(file(0).exists(), "they stay where they were");
            std::fs::remove_file(file(2)).unwrap();
            let writer = ZarrWriter::create(&dir.path().join("short"), version, true).unwrap();
            assert!(writer.chunks("x", &chunks, &file, Attrs::new()).is_err(), "one is missing");
        }
    }
}

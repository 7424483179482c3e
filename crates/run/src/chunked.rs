//! Scores of all cells that lie in a run's journal as the chunks of a zarr output, each a file: made by workers, and taken over from there.

use std::path::{Path, PathBuf};

use cellmill_engine::journal::{Journal, Sum};
use cellmill_graph::knn::RowFile;
use cellmill_matrix::Result;
use cellmill_store::tree::{Attrs, TreeWriter};
use cellmill_store::zarr::RowChunks;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The chunks that a journal has.
pub struct Chunked {
    /// The journal's.
    folder: PathBuf,
    left: Left,
}

#[derive(Serialize, Deserialize)]
struct Left {
    /// The pass that has made them.
    pass: String,
    chunks: RowChunks,
    sums: Vec<Sum>,
}

/// Name of the note in a journal.
const CHUNKED: &str = "scores-in-chunks";

/// The file of a chunk, in the journal's folder.
pub(crate) fn chunk_name(pass: &str, chunk: u64) -> String {
    format!("{pass}-chunks/{chunk}")
}

impl Chunked {
    /// All chunks of a pass; the journal knows of them from now on.
    pub(crate) fn new(journal: &Journal, pass: String, chunks: RowChunks, sums: Vec<Sum>) -> Self {
        let left = Left { pass, chunks, sums };
        journal.save(CHUNKED, &left);
        Chunked { folder: journal.folder().to_path_buf(), left }
    }

    /// The chunks that an earlier run has had made, if all are there and whole.
    pub(crate) fn of(journal: &Journal) -> Option<Self> {
        let left: Left = journal.load(CHUNKED)?;
        let whole = (0..left.sums.len()).into_par_iter().all(|at| journal.has_file(&chunk_name(&left.pass, at as u64), &left.sums[at]));
        whole.then(|| Chunked { folder: journal.folder().to_path_buf(), left })
    }

    /// Cells and components.
    pub(crate) fn shape(&self) -> [usize; 2] {
        self.left.chunks.shape().map(|n| n as usize)
    }

    fn file(&self, chunk: usize) -> PathBuf {
        self.folder.join(chunk_name(&self.left.pass, chunk as u64))
    }

    /// Rows of a chunk, but of the last.
    fn rows(&self) -> usize {
        self.left.chunks.chunk()[0] as usize
    }

    /// The first `d` columns of all rows; by all threads.
    pub(crate) fn read(&self, d: usize) -> Result<Vec<f32>> {
        let [n, _] = self.shape();
        let mut all = vec![0f32; n * d];
        let places = all.par_chunks_mut(self.rows() * d).enumerate();
        places.try_for_each_init(Vec::new, |rows, (chunk, place)| self.copy(chunk, rows, d, place))?;
        Ok(all)
    }

    /// The same, into a temporary file.
    pub(crate) fn set_aside(&self, d: usize, folder: &Path) -> Result<RowFile> {
        let [n, _] = self.shape();
        let file = RowFile::create(folder, n, d)?;
        let each = (0..n.div_ceil(self.rows())).into_par_iter();
        each.try_for_each_init(Default::default, |(rows, place): &mut (Vec<f32>, Vec<f32>), chunk| {
            let first = chunk * self.rows();
            place.resize(self.rows().min(n - first) * d, 0.0);
            self.copy(chunk, rows, d, place)?;
            file.write(first, place)
        })?;
        Ok(file)
    }

    /// The first `d` columns of a chunk; `rows` keeps all of it.
    fn copy(&self, chunk: usize, rows: &mut Vec<f32>, d: usize, place: &mut [f32]) -> Result<()> {
        self.left.chunks.read(&self.file(chunk), rows)?;
        let [_, wide] = self.shape();
        place.chunks_exact_mut(d).zip(rows.chunks_exact(wide)).for_each(|(place, row)| place.copy_from_slice(&row[..d]));
        Ok(())
    }

    /// Puts them into an output.
    pub(crate) fn write(&self, w: &dyn TreeWriter, path: &str, attrs: Attrs) -> Result<()> {
        w.chunks(path, &self.left.chunks, &|chunk| self.file(chunk as usize), attrs)
    }
}

//! A search whose lists are dealt out: to worker processes that see the rows, in order of position, in a file.

use std::ops::Range;
use std::sync::Arc;

use cellmill_cuda::Device;
use cellmill_matrix::{Result, Watch};
use serde::{Deserialize, Serialize};

use super::cuda::Visits;
use super::kernel::Simd;
use super::lists::{Lists, around};
use super::metric::Scale;
use super::rows::{RowFile, Rows, Shelf};
use super::{cuda, join};

/// What is searched for: everything that the rows don't say. Mostly the means of lists of about 512 cells: 0.4 bytes a cell of 50 dimensions.
#[derive(Serialize, Deserialize)]
pub struct Order {
    pub(super) lists: Lists,
    /// Neighbours a cell.
    pub(super) k: usize,
    /// Lists looked at around a list, and how near they must be.
    pub(super) width: usize,
    pub(super) reach: f32,
    /// Lists around a list that a GPU compares it with: all of them if the cells are few.
    pub(super) wide: usize,
    pub(super) scale: Scale,
}

/// The neighbours of the cells of some lists, one list after the other.
#[derive(Serialize, Deserialize)]
pub struct Found {
    /// `(rows, k)`, positions; ascending by distance.
    pub(super) indices: Vec<u32>,
    /// `(rows, k)`.
    pub(super) distances: Vec<f32>,
    /// Which of the lists around its own each cell searched.
    pub(super) searched: Vec<u64>,
}

/// Others who search.
pub trait Crew: Sync {
    /// Has all lists searched; `rows` are in order of position. `take` gets the parts, in any order, each with its first list. Whether GPUs
    /// did it ([`Order::carry_out_on`]).
    fn search(&self, order: &Order, rows: &dyn Rows, watch: &dyn Watch, take: &mut dyn FnMut(usize, Found) -> Result<()>) -> Result<bool>;
}

impl Order {
    /// Number of lists.
    pub fn n_lists(&self) -> usize {
        self.lists.len()
    }

    /// Cells in the first `n` lists.
    pub fn cells_before(&self, n: usize) -> u64 {
        u64::from(self.lists.offsets[n])
    }

    /// Columns of the rows.
    pub fn d(&self) -> usize {
        self.lists.d
    }

    /// Searches for the cells of some lists, on the threads of the installed pool; the same bits whoever does it.
    pub fn carry_out(&self, rows: &RowFile, lists: Range<usize>) -> Result<Found> {
        join::part(Simd::detect(), Shelf::File(rows), self, lists)
    }

    /// Searches for them on a GPU, the same bits on each, in all of the lists that are near enough. `None` if that is beyond its kernels or
    /// its memory.
    pub fn carry_out_on(&self, device: &Arc<Device>, rows: &RowFile, lists: Range<usize>) -> Result<Option<Found>> {
        let d = rows.d();
        let mut x = vec![0f32; rows.n() * d];
        rows.copy(0, &mut x)?;
        let asked = self.cells_before(lists.start) as usize..self.cells_before(lists.end) as usize;
        // Every list near by was searched.
        let searched = vec![u64::MAX; asked.len() * join::WORDS];
        let all = [0, rows.n() as u32];
        let near;
        let visits = if self.wide == self.n_lists() {
            Visits::all_pairs(&all)
        } else {
            near = around(Simd::detect(), &self.lists.centres, d, self.wide, lists.clone());
            Visits { starts: &self.lists.offsets, near: &near, lists, width: self.wide }
        };
        let found = cuda::neighbours_of(asked, device, (&x, d), &visits, self.k, self.scale)?;
        Ok(found.map(|(indices, distances)| Found { indices, distances, searched }))
    }
}

//! Scores that come home from GPUs.

use std::collections::VecDeque;

use cellmill_cuda::{Pending, Pinned};
use cellmill_matrix::{Error, Result};
use rayon::prelude::*;

/// Zeros, whose pages all threads make.
pub(super) fn pages(len: usize) -> Vec<f32> {
    let mut numbers = vec![0f32; len];
    numbers.par_chunks_mut(1 << 18).for_each(|pages| pages.fill(0.0));
    numbers
}

/// Scores on their way to the host, in row order.
pub(super) struct Arriving<'a> {
    /// Where the next ones go.
    pub rest: &'a mut [f32],
    pub waiting: VecDeque<(usize, Pending<f32>)>,
    pub free: Vec<Pinned<f32>>,
}

impl<'a> Arriving<'a> {
    /// On their way to `rest`.
    pub fn new(rest: &'a mut [f32]) -> Self {
        Arriving { rest, waiting: VecDeque::new(), free: Vec::new() }
    }

    /// Waits for the first.
    pub fn take(&mut self) -> Result<()> {
        let Some((len, pending)) = self.waiting.pop_front() else { return Ok(()) };
        let block = pending.wait()?;
        let Some((mine, later)) = std::mem::take(&mut self.rest).split_at_mut_checked(len) else {
            return Err(Error::bug("more rows in the projection than in the covariance"));
        };
        mine.copy_from_slice(&block[..len]);
        self.rest = later;
        self.free.push(block);
        Ok(())
    }
}

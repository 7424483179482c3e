//! Rank sums of one gene from its non-zero values: the zeros, which are most cells, are one block of ties whose rank is known
//! without listing them.

use super::normal_two_sided;

/// A value in an unsigned integer of the same order; zeros of either sign are [`ZERO`].
fn key(value: f32) -> u32 {
    let bits = value.to_bits();
    if value == 0.0 {
        ZERO
    } else if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    }
}

/// The key of zero.
const ZERO: u32 = 1 << 31;

/// A value and its group in one word that sorts by value.
const GROUP_BITS: u32 = 16;

/// Rank sums of one gene.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GeneRanks {
    /// Twice the sum of ranks of each group's cells; ranks count from 1, ties share their mean. Whole numbers.
    pub twice: Vec<u64>,
    /// Σ t³ − t over blocks of t equal values.
    pub ties: f64,
}

/// Ranks genes, one after the other, in the same memory.
#[derive(Clone, Debug)]
pub struct Ranks {
    /// Cells of each group, those of no group last.
    sizes: Vec<u64>,
    entries: Vec<u64>,
    zeros: Vec<u64>,
    out: GeneRanks,
}

impl Ranks {
    /// `sizes`: cells of each group, those of no group last: `(n_groups + 1,)`.
    pub fn new(sizes: &[u64]) -> Self {
        Ranks { sizes: sizes.to_vec(), entries: Vec::new(), zeros: Vec::new(), out: GeneRanks::default() }
    }

    /// Forgets the gene before.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Adds non-zero values and the groups of their cells. Groups above the last are cells of no group.
    pub fn add(&mut self, values: &[f32], groups: &[u16]) {
        let last = (self.sizes.len() - 1) as u16;
        let entries = values.iter().zip(groups).filter(|(v, _)| **v != 0.0);
        self.entries.extend(entries.map(|(&v, &g)| u64::from(key(v)) << GROUP_BITS | u64::from(g.min(last))));
    }

    /// Ranks of all cells.
    pub fn all(&mut self) -> &GeneRanks {
        self.entries.sort_unstable();
        self.zeros.clone_from(&self.sizes);
        self.entries.iter().for_each(|e| self.zeros[(e & 0xffff) as usize] -= 1);
        self.out.twice.clear();
        self.out.twice.resize(self.sizes.len(), 0);
        let mut ties = Ties::default();
        let zero = u64::from(ZERO) << GROUP_BITS;
        let below = self.entries.partition_point(|&e| e < zero);
        let (negative, positive) = self.entries.split_at(below);
        blocks(negative, &mut ties, &mut self.out.twice);
        let rank = ties.block(self.zeros.iter().sum());
        self.out.twice.iter_mut().zip(&self.zeros).for_each(|(sum, n)| *sum += n * rank);
        blocks(positive, &mut ties, &mut self.out.twice);
        self.out.ties = ties.cubes;
        &self.out
    }

    /// The sorted values (as keys) of each group: `(n_groups + 1,)`, without zeros.
    pub fn by_group(&mut self, lists: &mut Vec<Vec<u32>>) {
        self.entries.sort_unstable();
        lists.resize(self.sizes.len(), Vec::new());
        lists.iter_mut().for_each(Vec::clear);
        self.entries.iter().for_each(|e| lists[(e & 0xffff) as usize].push((e >> GROUP_BITS) as u32));
    }
}

/// Counts ranks off, block of ties by block of ties.
#[derive(Default)]
struct Ties {
    before: u64,
    cubes: f64,
}

impl Ties {
    /// Twice the rank that the next `n` equal values share.
    fn block(&mut self, n: u64) -> u64 {
        let rank = 2 * self.before + n + 1;
        self.before += n;
        let t = n as f64;
        self.cubes += t * t * t - t;
        rank
    }
}

/// Adds the ranks of sorted entries.
fn blocks(entries: &[u64], ties: &mut Ties, twice: &mut [u64]) {
    for block in entries.chunk_by(|a, b| a >> GROUP_BITS == b >> GROUP_BITS) {
        let rank = ties.block(block.len() as u64);
        block.iter().for_each(|e| twice[(e & 0xffff) as usize] += rank);
    }
}

/// Twice the rank sum of group a among a and b alone, and Σ t³ − t. Lists from [`Ranks::by_group`]; sizes count the zeros too.
pub fn pair((a, n_a): (&[u32], u64), (b, n_b): (&[u32], u64)) -> (u64, f64) {
    let zeros = [n_a - a.len() as u64, n_b - b.len() as u64];
    let (mut i, mut j, mut twice, mut ties) = (0, 0, 0, Ties::default());
    let mut zeros_done = false;
    loop {
        let next = match (a.get(i), b.get(j)) {
            (None, None) if zeros_done => return (twice, ties.cubes),
            (None, None) => ZERO,
            (x, y) => x.into_iter().chain(y).copied().min().unwrap_or(ZERO),
        };
        if !zeros_done && next >= ZERO {
            zeros_done = true;
            twice += zeros[0] * ties.block(zeros[0] + zeros[1]);
            continue;
        }
        let run = |list: &[u32], from: usize| list[from..].iter().take_while(|k| **k == next).count();
        let (in_a, in_b) = (run(a, i), run(b, j));
        twice += in_a as u64 * ties.block((in_a + in_b) as u64);
        (i, j) = (i + in_a, j + in_b);
    }
}

impl GeneRanks {
    /// z-score and two-sided p-value of a group of `n_active` cells against the others of `n_all`, from twice its rank sum: the normal
    /// approximation of Mann & Whitney 1947. `continuous`: half a rank less from what is expected, since ranks are whole numbers and the
    /// normal distribution is not. A score that is no number is 0.
    pub fn test(twice: u64, ties: Option<f64>, continuous: bool, n_active: u64, n_all: u64) -> (f64, f64) {
        let (n, m, all) = (n_active as f64, (n_all - n_active) as f64, n_all as f64);
        let coefficient = match ties {
            Some(cubes) if n_all >= 2 => 1.0 - cubes / (all * all * all - all),
            _ => 1.0,
        };
        let deviation = (coefficient * n * m * (all + 1.0) / 12.0).sqrt();
        let off = twice as f64 / 2.0 - n * ((all + 1.0) / 2.0);
        let off = if continuous { (off.abs() - 0.5).max(0.0).copysign(off) } else { off };
        let score = off / deviation;
        let score = if score.is_nan() { 0.0 } else { score };
        (score, normal_two_sided(score))
    }
}

//! The forces on a cell, sixteen cells at a time, and the moves of a cell through one epoch.

use super::lanes::{Lanes, Point, WIDTH};

/// Weyl step of the draws: 2³² over the golden ratio.
const WEYL: u32 = 0x9e37_79b9;

/// What the forces of one epoch share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forces {
    /// The curve `1 / (1 + a d^{2b})`.
    pub a: f32,
    pub b: f32,
    /// Weight of repulsion.
    pub gamma: f32,
    /// Part of a gradient that a cell moves.
    pub alpha: f32,
    /// Cells that push a cell away for each neighbour that attracts it.
    pub negative_sample_rate: usize,
}

/// One cell's epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    /// The cell, in the numbering of the coordinates.
    pub cell: u32,
    /// The neighbours that attract it: `targets[start..end]`, not empty.
    pub start: u32,
    pub end: u32,
    /// Key of its random draws.
    pub key: u32,
    /// Its place among the results.
    pub slot: u32,
}

/// Everything that a task needs: the frozen coordinates, those that push, and the cells to move.
pub(super) struct Task<'a, const S: usize> {
    pub forces: Forces,
    /// Coordinates before this block moves: `(n,)`.
    pub frozen: &'a [[f32; S]],
    /// Coordinates from which those that push are drawn.
    pub pool: &'a [[f32; S]],
    /// Whether entry i of `pool` is cell i, which does not push itself.
    pub pool_is_all: bool,
    pub jobs: &'a [Job],
    pub targets: &'a [u32],
}

/// Moves each job's cell and writes where it ends to `moved[slot]`.
pub(super) fn run<const S: usize>(task: &Task<S>, moved: &mut [[f32; S]])
where
    [f32; S]: Point<S>,
{
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: AVX-512F is there.
        unsafe { run_avx512(task, moved) };
        return;
    } else if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: AVX2 and FMA are there.
        unsafe { run_avx2(task, moved) };
        return;
    }
    run_lanes::<super::lanes::Portable, S, 1>(task, moved);
}

/// One group of sixteen cells fills two registers: one computes while the other waits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<const S: usize>(task: &Task<S>, moved: &mut [[f32; S]])
where
    [f32; S]: Point<S>,
{
    run_lanes::<super::lanes::Avx2, S, 1>(task, moved);
}

/// Two groups of sixteen cells go side by side, for the same reason.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn run_avx512<const S: usize>(task: &Task<S>, moved: &mut [[f32; S]])
where
    [f32; S]: Point<S>,
{
    run_lanes::<super::lanes::Avx512, S, 2>(task, moved);
}

/// The cells under way, by register and lane.
struct UnderWay<const S: usize, const GROUPS: usize> {
    x: [[[f32; WIDTH]; S]; GROUPS],
    keys: [[u32; WIDTH]; GROUPS],
    /// Entry of the pool that does not push.
    own: [[u32; WIDTH]; GROUPS],
    start: [[u32; WIDTH]; GROUPS],
    end: [[u32; WIDTH]; GROUPS],
    /// The next target.
    at: [[u32; WIDTH]; GROUPS],
    /// Place among the results; `u32::MAX` for a lane without a cell.
    slot: [[u32; WIDTH]; GROUPS],
}

impl<const S: usize, const GROUPS: usize> UnderWay<S, GROUPS> {
    #[inline(always)]
    fn enter(&mut self, task: &Task<S>, job: &Job, g: usize, l: usize) {
        for c in 0..S {
            self.x[g][c][l] = task.frozen[job.cell as usize][c];
        }
        self.keys[g][l] = job.key;
        self.own[g][l] = if task.pool_is_all { job.cell } else { u32::MAX };
        (self.start[g][l], self.end[g][l], self.at[g][l], self.slot[g][l]) = (job.start, job.end, job.start, job.slot);
    }
}

/// The cells go in lock-step: one neighbour attracts, `negative_sample_rate` others push, and the neighbour half-way round the list
/// attracts (umap-learn moves both ends of an edge and meets each edge from both ends: every neighbour attracts twice an epoch). A cell
/// that is through leaves its lane to the next, so lanes stay full; lanes don't see each other.
#[inline(always)]
// Registers and lanes are walked by number, in several arrays at once.
#[allow(clippy::needless_range_loop)]
pub(super) fn run_lanes<L: Lanes, const S: usize, const GROUPS: usize>(task: &Task<S>, moved: &mut [[f32; S]])
where
    [f32; S]: Point<S>,
{
    let forces = task.forces;
    // A lane without a cell circles over target 0; nobody reads where it ends.
    let mut way = UnderWay {
        x: [[[0.0f32; WIDTH]; S]; GROUPS],
        keys: [[0; WIDTH]; GROUPS],
        own: [[u32::MAX; WIDTH]; GROUPS],
        start: [[0; WIDTH]; GROUPS],
        end: [[1; WIDTH]; GROUPS],
        at: [[0; WIDTH]; GROUPS],
        slot: [[u32::MAX; WIDTH]; GROUPS],
    };
    let mut busy = 0;
    let mut jobs = task.jobs.iter();
    for lane in 0..GROUPS * WIDTH {
        if let Some(job) = jobs.next() {
            way.enter(task, job, lane / WIDTH, lane % WIDTH);
            busy += 1;
        }
    }
    let range = L::u(task.pool.len() as u32);
    while busy > 0 {
        let mut here = [[L::f(0.0); S]; GROUPS];
        let mut there = [[L::f(0.0); S]; GROUPS];
        let mut key = [L::u(0); GROUPS];
        for g in 0..GROUPS {
            let (mut first, mut second) = ([0u32; WIDTH], [0u32; WIDTH]);
            for l in 0..WIDTH {
                let (start, end, at) = (way.start[g][l], way.end[g][l], way.at[g][l]);
                let count = end - start;
                let round = at + count / 2;
                first[l] = task.targets[at as usize];
                second[l] = task.targets[if round < end { round } else { round - count } as usize];
            }
            for c in 0..S {
                here[g][c] = L::load(&way.x[g][c]);
            }
            key[g] = L::load_u(&way.keys[g]);
            attract::<L, S>(&forces, &mut here[g], &<[f32; S]>::gather::<L>(task.frozen, &first));
            there[g] = <[f32; S]>::gather::<L>(task.frozen, &second);
        }
        for _ in 0..forces.negative_sample_rate {
            for g in 0..GROUPS {
                key[g] = L::add_u(key[g], L::u(WEYL));
                let id = L::high(scramble::<L>(key[g]), range);
                let mut ids = [0u32; WIDTH];
                L::store_u(id, &mut ids);
                let other = <[f32; S]>::gather::<L>(task.pool, &ids);
                repel::<L, S>(&forces, &mut here[g], &other, id, L::load_u(&way.own[g]));
            }
        }
        for g in 0..GROUPS {
            attract::<L, S>(&forces, &mut here[g], &there[g]);
            for c in 0..S {
                L::store(here[g][c], &mut way.x[g][c]);
            }
            L::store_u(key[g], &mut way.keys[g]);
            for l in 0..WIDTH {
                if way.slot[g][l] == u32::MAX {
                    continue;
                }
                way.at[g][l] += 1;
                if way.at[g][l] == way.end[g][l] {
                    for c in 0..S {
                        moved[way.slot[g][l] as usize][c] = way.x[g][c][l];
                    }
                    match jobs.next() {
                        Some(job) => way.enter(task, job, g, l),
                        None => {
                            (way.start[g][l], way.end[g][l], way.at[g][l], way.slot[g][l]) = (0, 1, 0, u32::MAX);
                            busy -= 1;
                        }
                    }
                }
            }
        }
    }
}

/// Bits of a counter made to look random: Wellons' lowbias32 without its last step, which does not reach the high bits.
#[inline(always)]
fn scramble<L: Lanes>(x: L::U) -> L::U {
    let x = L::mul_u(L::xor(x, L::shr::<16>(x)), L::u(0x7feb_352d));
    L::mul_u(L::xor(x, L::shr::<15>(x)), L::u(0x846c_a68b))
}

/// `d²`, not below 1e-30, and the differences.
#[inline(always)]
fn difference<L: Lanes, const S: usize>(here: &[L::F; S], there: &[L::F; S]) -> ([L::F; S], L::F) {
    let mut by = [L::f(0.0); S];
    let mut squared = L::f(1e-30);
    for c in 0..S {
        by[c] = L::sub(here[c], there[c]);
        squared = L::fma(by[c], by[c], squared);
    }
    (by, squared)
}

/// Moves by `alpha` times the gradient `factor · by`, each component clipped to ±4.
#[inline(always)]
fn go<L: Lanes, const S: usize>(forces: &Forces, here: &mut [L::F; S], by: &[L::F; S], factor: L::F) {
    for c in 0..S {
        let step = L::min(L::max(L::mul(factor, by[c]), L::f(-4.0)), L::f(4.0));
        here[c] = L::fma(L::f(forces.alpha), step, here[c]);
    }
}

/// McInnes et al. 2018: `−2ab d^{2(b−1)} / (1 + a d^{2b}) · (x − y)`.
#[inline(always)]
fn attract<L: Lanes, const S: usize>(forces: &Forces, here: &mut [L::F; S], there: &[L::F; S]) {
    let (by, squared) = difference::<L, S>(here, there);
    let power = power::<L>(squared, forces.b);
    let below = L::mul(squared, L::fma(L::f(forces.a), power, L::f(1.0)));
    let factor = L::div(L::mul(L::f(-2.0 * forces.a * forces.b), power), below);
    go::<L, S>(forces, here, &by, factor);
}

/// McInnes et al. 2018: `2 gamma b / ((0.001 + d²)(1 + a d^{2b})) · (x − y)`; a cell does not push itself.
#[inline(always)]
fn repel<L: Lanes, const S: usize>(forces: &Forces, here: &mut [L::F; S], there: &[L::F; S], id: L::U, own: L::U) {
    let (by, squared) = difference::<L, S>(here, there);
    let power = power::<L>(squared, forces.b);
    let below = L::mul(L::add(squared, L::f(0.001)), L::fma(L::f(forces.a), power, L::f(1.0)));
    let factor = L::div(L::f(2.0 * forces.gamma * forces.b), below);
    go::<L, S>(forces, here, &by, L::where_differ(id, own, factor));
}

/// `x^b = 2^{b log₂ x}` for normal x > 0, to 2e-5 relative where b ≤ 1.4. Minimax polynomials (Lawson's method), of degree 4 in the
/// mantissa over `[√½, √2)` and of degree 4 in the fraction over `[−½, ½]`.
#[inline(always)]
fn power<L: Lanes>(x: L::F, b: f32) -> L::F {
    let bits = L::bits(x);
    // Bits of √½: the exponent is that of x / √½.
    let exponent = L::sar::<23>(L::sub_u(bits, L::u(0x3f35_04f3)));
    let t = L::sub(L::from_bits(L::sub_u(bits, L::shl::<23>(exponent))), L::f(1.0));
    let q = L::fma(L::f(0.252_660_1), t, L::f(-0.394_575_36));
    let q = L::fma(q, t, L::f(0.486_686_18));
    let q = L::fma(q, t, L::f(-0.720_241_8));
    let q = L::fma(q, t, L::f(1.442_578));
    let log = L::fma(q, t, L::to_f(exponent));
    let y = L::min(L::max(L::mul(L::f(b), log), L::f(-126.0)), L::f(126.0));
    let whole = L::round(y);
    let f = L::sub(y, whole);
    let p = L::fma(L::f(0.009_570_101), f, L::f(0.055_917_86));
    let p = L::fma(p, f, L::f(0.240_247_4));
    let p = L::fma(p, f, L::f(0.693_121_8));
    let p = L::fma(p, f, L::f(0.999_999_3));
    L::from_bits(L::add_u(L::bits(p), L::shl::<23>(L::to_i(whole))))
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Portable;
    use super::super::random::{self, Use};
    use super::*;

    #[test]
    fn powers_are_near() {
        for b in [0.7f32, 1.0, 1.334_167, 1.9] {
            for i in -60..60 {
                let x = [(f64::from(i) * 0.37).exp2() as f32 * 1.01; WIDTH];
                let got = power::<Portable>(x, b)[0];
                let want = f64::from(x[0]).powf(f64::from(b));
                assert!((f64::from(got) / want - 1.0).abs() < 4e-5, "{} {b}: {got} {want}", x[0]);
            }
        }
    }

    /// Points and jobs with 1, 2, … neighbours, some of them at the cell itself.
    fn example<const S: usize>() -> (Vec<[f32; S]>, Vec<Job>, Vec<u32>) {
        let draw = |a: u64, b: u64| random::bits(5, Use::Start, a, b);
        let n = 300;
        let points = (0..n).map(|i| std::array::from_fn(|c| (random::uniform(draw(i, c as u64)) * 10.0) as f32)).collect();
        let (mut jobs, mut targets) = (Vec::new(), Vec::new());
        for i in 0..n as u32 {
            let start = targets.len() as u32;
            targets.extend((0..=i % 7).map(|e| if e == 6 { i } else { (draw(u64::from(i), 99 + u64::from(e)) % n) as u32 }));
            jobs.push(Job { cell: i, start, end: targets.len() as u32, key: draw(u64::from(i), 50) as u32, slot: i });
        }
        (points, jobs, targets)
    }

    fn both<const S: usize>()
    where
        [f32; S]: Point<S>,
    {
        let (points, jobs, targets) = example::<S>();
        let forces = Forces { a: 0.583, b: 1.334, gamma: 1.0, alpha: 0.7, negative_sample_rate: 5 };
        for pool_is_all in [true, false] {
            let task = Task { forces, frozen: &points, pool: &points, pool_is_all, jobs: &jobs, targets: &targets };
            let (mut detected, mut plain) = (points.clone(), points.clone());
            run(&task, &mut detected);
            run_lanes::<Portable, S, 1>(&task, &mut plain);
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                let mut narrow = points.clone();
                // SAFETY: AVX2 and FMA are there.
                unsafe { run_avx2(&task, &mut narrow) };
                assert_eq!(narrow, plain);
            }
            assert!(detected.iter().zip(&points).all(|(x, y)| x != y && x.iter().all(|c| c.is_finite())));
            assert_eq!(detected, plain);
            // A cell's way does not depend on who goes beside it.
            for job in &jobs {
                let mut alone = points.clone();
                run(
                    &Task { jobs: &[*job], ..Task { forces, frozen: &points, pool: &points, pool_is_all, jobs: &[], targets: &targets } },
                    &mut alone,
                );
                assert_eq!(alone[job.slot as usize], detected[job.slot as usize]);
            }
        }
    }

    #[test]
    fn detected_and_portable_lanes_give_the_same_bits() {
        both::<2>();
        both::<4>();
        both::<8>();
        both::<16>();
        both::<32>();
    }
}

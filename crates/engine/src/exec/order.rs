//! A loop over tasks on all threads whose results are taken in task order.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cellmill_matrix::{Error, Result};

/// Runs `work(i)` for `i` in `0..n` on the threads of the installed rayon pool and hands each result to `take(i, result)` in order of
/// `i`, one at a time. At most `ahead` results per thread wait for their turn, so memory stays bounded; threads that wait help with
/// whatever `take` runs in parallel. The first error stops all.
pub fn in_order<T: Send>(
    n: usize,
    ahead: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
    take: impl FnMut(usize, T) -> Result<()> + Send,
) -> Result<()> {
    let window = rayon::current_num_threads() * ahead.max(1);
    let next = AtomicUsize::new(0);
    let taken = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let desk = Mutex::new(Desk { waiting: BTreeMap::new(), taker: Some(take), next: 0, error: None });
    // One loop a thread, never two on one stack: a loop that waits must not sit on top of the one that it waits for.
    rayon::broadcast(|_| {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                return;
            }
            // The task that the desk waits for is never held up here.
            while i >= taken.load(Ordering::Acquire) + window && !stop.load(Ordering::Relaxed) {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    std::thread::sleep(std::time::Duration::from_micros(100));
                }
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
            put(&desk, i, work(i), &taken, &stop);
        }
    });
    match desk.into_inner() {
        Ok(Desk { error: Some((_, error)), .. }) => Err(error),
        Ok(_) => Ok(()),
        Err(_) => Err(Error::bug("a task panicked")),
    }
}

/// Results that wait for their turn. Whoever finds the next one there and nobody at it takes it, outside the lock.
struct Desk<T, F> {
    waiting: BTreeMap<usize, T>,
    taker: Option<F>,
    next: usize,
    error: Option<(usize, Error)>,
}

fn put<T, F: FnMut(usize, T) -> Result<()>>(desk: &Mutex<Desk<T, F>>, i: usize, result: Result<T>, taken: &AtomicUsize, stop: &AtomicBool) {
    let Ok(mut held) = desk.lock() else { return };
    let fail = |held: &mut Desk<T, F>, at: usize, error: Error| {
        // The error of the earliest task wins, whatever the threads' timing.
        if held.error.as_ref().is_none_or(|(earlier, _)| at < *earlier) {
            held.error = Some((at, error));
        }
        stop.store(true, Ordering::Relaxed);
    };
    match result {
        Ok(result) => held.waiting.insert(i, result),
        Err(error) => return fail(&mut held, i, error),
    };
    while let Some(mut take) = held.taker.take() {
        let at = held.next;
        let Some(result) = held.waiting.remove(&at) else {
            held.taker = Some(take);
            return;
        };
        drop(held);
        let done = take(at, result);
        let Ok(again) = desk.lock() else { return };
        held = again;
        held.taker = Some(take);
        held.next = at + 1;
        if let Err(error) = done {
            return fail(&mut held, at, error);
        }
        taken.store(at + 1, Ordering::Release);
    }
}

/// Merges states in a binary tree over their numbers: the shape depends on how many there are and on nothing else. Holds log₂(n) states of
/// those that come in order, and as many for each run of numbers where they come in several.
pub struct Tree<S> {
    /// Finished subtrees by the number of their first state, each with its height.
    finished: BTreeMap<usize, (u32, S)>,
    /// States that came by [`Tree::push`].
    pushed: usize,
}

impl<S> Default for Tree<S> {
    fn default() -> Self {
        Tree { finished: BTreeMap::new(), pushed: 0 }
    }
}

impl<S> Tree<S> {
    /// Adds the next state.
    pub fn push(&mut self, state: S, merge: impl FnMut(&mut S, S)) {
        self.put(self.pushed, state, merge);
        self.pushed += 1;
    }

    /// Adds the state of a number, each once and in any order.
    pub fn put(&mut self, number: usize, state: S, mut merge: impl FnMut(&mut S, S)) {
        let (mut first, mut height, mut state) = (number, 0, state);
        loop {
            let other = first ^ (1 << height);
            if self.finished.get(&other).is_none_or(|(h, _)| *h != height) {
                break;
            }
            let Some((_, mut sibling)) = self.finished.remove(&other) else { break };
            if first < other {
                std::mem::swap(&mut state, &mut sibling);
            }
            merge(&mut sibling, state);
            (first, height, state) = (first.min(other), height + 1, sibling);
        }
        self.finished.insert(first, (height, state));
    }

    /// Merges what is left, later subtrees into earlier ones.
    pub fn finish(self, mut merge: impl FnMut(&mut S, S)) -> Option<S> {
        let mut subtrees = self.finished.into_values().rev().map(|(_, state)| state);
        let last = subtrees.next()?;
        Some(subtrees.fold(last, |later, mut earlier| {
            merge(&mut earlier, later);
            earlier
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn results_come_in_order_and_few_wait() {
        for threads in [1, 2, 3, 8] {
            let mut seen = Vec::new();
            let running = AtomicUsize::new(0);
            pool(threads).install(|| {
                in_order(
                    100,
                    2,
                    |i| {
                        running.fetch_add(1, Ordering::SeqCst);
                        Ok(i * i)
                    },
                    |i, x| {
                        assert_eq!(x, i * i);
                        seen.push(i);
                        Ok(())
                    },
                )
                .unwrap();
            });
            assert_eq!(seen, (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn work_inside_take_may_be_parallel() {
        use rayon::prelude::*;
        let mut total = 0usize;
        pool(3)
            .install(|| {
                in_order(50, 1, Ok, |_, x| {
                    total += (0..x).into_par_iter().sum::<usize>();
                    Ok(())
                })
            })
            .unwrap();
        assert_eq!(total, (0..50).map(|x: usize| x * x.saturating_sub(1) / 2).sum::<usize>());
    }

    #[test]
    fn the_first_error_stops_everything() {
        let error = pool(4)
            .install(|| {
                in_order(
                    1000,
                    1,
                    |i| if i == 37 { Err(Error::bug("no")) } else { Ok(i) },
                    |i, _| {
                        assert!(i < 37);
                        Ok(())
                    },
                )
            })
            .unwrap_err();
        assert!(error.to_string().contains("no"));
    }

    #[test]
    fn the_tree_has_one_shape() {
        let mut tree = Tree::default();
        let merge = |a: &mut String, b: String| *a = format!("({a}{b})");
        for c in "abcdefg".chars() {
            tree.push(c.to_string(), merge);
        }
        assert_eq!(tree.finish(merge).unwrap(), "(((ab)(cd))((ef)g))");
    }

    #[test]
    fn the_tree_has_one_shape_in_any_order() {
        let merge = |a: &mut String, b: String| *a = format!("({a}{b})");
        for n in 1..40 {
            let half = n / 2;
            let merged = |order: Vec<usize>| {
                let mut tree = Tree::default();
                order.into_iter().for_each(|i| tree.put(i, format!("{i} "), merge));
                tree.finish(merge).unwrap()
            };
            let in_order = merged((0..n).collect());
            assert_eq!(merged((0..n).rev().collect()), in_order);
            assert_eq!(merged((half..n).chain(0..half).collect()), in_order);
            assert_eq!(merged((0..n).step_by(2).chain((1..n).step_by(2)).collect()), in_order);
        }
    }

    #[test]
    fn trees_of_parts_of_a_power_of_two_make_the_same_tree() {
        let merge = |a: &mut String, b: String| *a = format!("({a}{b})");
        let merged = |leaves: &[String]| {
            let mut tree = Tree::default();
            leaves.iter().for_each(|leaf| tree.push(leaf.clone(), merge));
            tree.finish(merge).unwrap()
        };
        for n in 1..70 {
            let leaves: Vec<String> = (0..n).map(|i| format!("{i} ")).collect();
            for size in [1, 2, 4, 8, 16] {
                let parts: Vec<String> = leaves.chunks(size).map(merged).collect();
                assert_eq!(merged(&parts), merged(&leaves), "{n} leaves in parts of {size}");
            }
        }
    }
}

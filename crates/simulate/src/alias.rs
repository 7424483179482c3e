//! One draw from a discrete distribution in constant time (Walker 1977, built as Vose 1991).

/// An alias table over `0..n`.
#[derive(Clone, Debug)]
pub(crate) struct Alias {
    /// For each place, the threshold (in 2⁻³²) under which it is itself, and what it is otherwise.
    places: Vec<(u32, u32)>,
}

impl Alias {
    /// The table of these weights (not negative). All zero: every draw gives the place it falls on.
    pub(crate) fn new(weights: &[f64]) -> Self {
        let n = weights.len();
        let total: f64 = weights.iter().sum();
        let mut places: Vec<(u32, u32)> = (0..n as u32).map(|i| (u32::MAX, i)).collect();
        if total <= 0.0 {
            return Alias { places };
        }
        let mut share: Vec<f64> = weights.iter().map(|w| w * (n as f64 / total)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| share[i] < 1.0);
        while let (Some(&s), Some(&l)) = (small.last(), large.last()) {
            small.pop();
            // Rust's float-to-integer conversion saturates.
            places[s] = ((share[s] * 4_294_967_296.0) as u32, l as u32);
            share[l] -= 1.0 - share[s];
            if share[l] < 1.0 {
                large.pop();
                small.push(l);
            }
        }
        // What is left has share 1 up to rounding; a weight of 0 among it must not be drawn as itself.
        if let Some(heaviest) = (0..n).reduce(|a, b| if weights[b] > weights[a] { b } else { a }) {
            for s in small.into_iter().filter(|&s| weights[s] == 0.0) {
                places[s] = (0, heaviest as u32);
            }
        }
        Alias { places }
    }

    /// The place that 64 random bits fall on.
    #[inline(always)]
    pub(crate) fn draw(&self, bits: u64) -> u32 {
        let i = ((bits >> 32) * self.places.len() as u64) >> 32;
        let (threshold, other) = self.places[i as usize];
        if (bits as u32) < threshold { i as u32 } else { other }
    }

    /// Bytes of heap memory.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.places.capacity() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_table_holds_the_weights(weights in prop::collection::vec(prop_oneof![Just(0.0), 0.001f64..10.0], 1..40)) {
            let total: f64 = weights.iter().sum();
            prop_assume!(total > 0.0);
            let table = Alias::new(&weights);
            // Exact probability of each place, from the table itself.
            let mut mass = vec![0.0; weights.len()];
            for (i, &(threshold, other)) in table.places.iter().enumerate() {
                let own = f64::from(threshold) / 4_294_967_296.0;
                mass[i] += own;
                mass[other as usize] += 1.0 - own;
            }
            for (m, w) in mass.iter().zip(&weights) {
                prop_assert!((m / weights.len() as f64 - w / total).abs() < 1e-8);
                prop_assert!(*w > 0.0 || *m == 0.0);
            }
        }
    }
}

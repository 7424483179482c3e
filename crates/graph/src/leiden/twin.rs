//! The phases of `leiden.cu` in plain words, and what a GPU must agree with to the bit.

use cellmill_cuda::{Device, Options, Processor};

use super::aggregate::aggregate;
use super::cuda::{DeviceNetwork, deal, scale, settled};
use super::local_move::NOISE;
use super::network::{Network, strengths};
use super::tests::{graph, n_parts, planted};
use super::visit::Pace;
use super::{labels, leiden, leiden_on, level_0, quality, refine};
use crate::Connectivities;

/// A level in whole numbers.
struct Twin<'a> {
    network: Network<'a, f32>,
    strengths: Vec<i64>,
    scale: f64,
    null: f64,
}

impl<'a> Twin<'a> {
    fn new(network: Network<'a, f32>, resolution: f64) -> Self {
        let scale = scale(network.total);
        let strengths = network.strength.iter().map(|s| (s * scale).round() as i64).collect();
        Twin { network, strengths, scale, null: resolution / (network.total * scale) }
    }

    fn product(&self, a: i64, b: i64) -> f64 {
        self.null * a as f64 * b as f64
    }

    /// Sums by key in the order of first touch; neighbours without a key do not count.
    fn sums(&self, v: u32, key: impl Fn(u32) -> Option<u32>) -> Vec<(u32, i64)> {
        let mut sums: Vec<(u32, i64)> = Vec::new();
        for (u, weight) in self.network.edges(v) {
            let Some(key) = key(u) else { continue };
            let whole = (weight * self.scale).round_ties_even() as i64;
            match sums.iter_mut().find(|sum| sum.0 == key) {
                Some(sum) => sum.1 += whole,
                None => sums.push((key, whole)),
            }
        }
        sums
    }

    /// Slices until few change: `plan` of the pending vertices of each, then `commit` of those that need not wait.
    fn rounds<S, P: Copy>(
        &self,
        state: &mut S,
        pending: &mut [bool],
        pace: &Pace<'_>,
        plan: impl Fn(&S, u32) -> Option<P>,
        claims: impl Fn(&[(u32, P)], usize) -> bool,
        commit: impl Fn(&mut S, u32, P, &mut [bool]),
    ) {
        let n = self.network.n();
        let (slices, starts) = deal(&vec![false; n], pace.key);
        loop {
            let mut changes = 0;
            for span in starts.windows(3).step_by(2) {
                let asked: Vec<u32> = slices[span[0]..span[2]].iter().copied().filter(|&v| pending[v as usize]).collect();
                asked.iter().for_each(|&v| pending[v as usize] = false);
                let wanting: Vec<(u32, P)> = asked.iter().filter_map(|&v| Some((v, plan(state, v)?))).collect();
                let wants = |u: u32| wanting.binary_search_by_key(&u, |want| want.0).is_ok();
                for (at, &(v, plan)) in wanting.iter().enumerate() {
                    if self.network.row(v).0.iter().any(|&u| u < v && wants(u)) || !claims(&wanting, at) {
                        pending[v as usize] = true;
                    } else {
                        commit(state, v, plan, pending);
                        changes += 1;
                    }
                }
            }
            if settled(changes, n, pace.enough) {
                break;
            }
        }
    }

    fn local_move(&self, membership: &mut [u32], pace: &Pace<'_>) {
        struct State<'m> {
            membership: &'m mut [u32],
            totals: Vec<i64>,
            sizes: Vec<u32>,
        }
        let n = membership.len();
        let mut state = State { membership, totals: vec![0; n], sizes: vec![0; n] };
        for v in 0..n {
            state.totals[state.membership[v] as usize] += self.strengths[v];
            state.sizes[state.membership[v] as usize] += 1;
        }
        let plan = |s: &State<'_>, v: u32| {
            let (own, strength) = (s.membership[v as usize], self.strengths[v as usize]);
            let sums = self.sums(v, |u| Some(s.membership[u as usize]));
            let here = sums.iter().find(|sum| sum.0 == own).map_or(0, |sum| sum.1);
            let stay = here as f64 - self.product(strength, s.totals[own as usize] - strength);
            let (mut target, mut value) = (own, stay + NOISE * strength as f64);
            for &(community, sum) in sums.iter().filter(|sum| sum.0 != own) {
                let other = sum as f64 - self.product(strength, s.totals[community as usize]);
                if other > value {
                    (target, value) = (community, other);
                }
            }
            if value < 0.0 && s.sizes[own as usize] > 1 && s.sizes[v as usize] == 0 {
                target = v;
            }
            (target != own).then_some(target)
        };
        let commit = |s: &mut State<'_>, v: u32, target: u32, pending: &mut [bool]| {
            let own = std::mem::replace(&mut s.membership[v as usize], target);
            s.totals[own as usize] -= self.strengths[v as usize];
            s.totals[target as usize] += self.strengths[v as usize];
            s.sizes[own as usize] -= 1;
            s.sizes[target as usize] += 1;
            self.network.row(v).0.iter().filter(|&&u| s.membership[u as usize] != target).for_each(|&u| pending[u as usize] = true);
        };
        self.rounds(&mut state, &mut vec![true; n], pace, plan, |_, _| true, commit);
    }

    fn refine(&self, membership: &[u32], pace: &Pace<'_>) -> Vec<(u32, u32)> {
        struct State {
            cluster: Vec<u32>,
            sizes: Vec<u32>,
            totals: Vec<i64>,
            outside: Vec<i64>,
        }
        let n = membership.len();
        let mut all = vec![0i64; n];
        membership.iter().zip(&self.strengths).for_each(|(&community, strength)| all[community as usize] += strength);
        let alike = |v: u32, u: u32| membership[u as usize] == membership[v as usize];
        let inside: Vec<i64> = (0..n as u32).map(|v| self.sums(v, |u| alike(v, u).then_some(0)).first().map_or(0, |sum| sum.1)).collect();
        let mut pending: Vec<bool> = (0..n)
            .map(|v| {
                let strength = self.strengths[v];
                inside[v] > 0 && inside[v] as f64 >= self.product(strength, all[membership[v] as usize] - strength)
            })
            .collect();
        let mut state =
            State { cluster: (0..n as u32).collect(), sizes: vec![1; n], totals: self.strengths.clone(), outside: inside.clone() };
        let plan = |s: &State, v: u32| {
            if s.cluster[v as usize] != v || s.sizes[v as usize] != 1 {
                return None;
            }
            let mut best: Option<(u32, i64, f64)> = None;
            for (cluster, sum) in self.sums(v, |u| alike(v, u).then(|| s.cluster[u as usize])) {
                let total = s.totals[cluster as usize];
                let open = s.outside[cluster as usize] as f64 >= self.product(total, all[membership[v as usize] as usize] - total);
                let gain = sum as f64 - self.product(self.strengths[v as usize], total);
                if open && gain >= 0.0 && best.is_none_or(|best| gain > best.2) {
                    best = Some((cluster, sum, gain));
                }
            }
            best.map(|(cluster, sum, _)| (cluster, sum))
        };
        let claims = |wanting: &[(u32, (u32, i64))], at: usize| wanting[..at].iter().all(|before| before.1.0 != wanting[at].1.0);
        let commit = |s: &mut State, v: u32, (to, there): (u32, i64), _: &mut [bool]| {
            s.sizes[v as usize] = 0;
            s.sizes[to as usize] += 1;
            s.totals[to as usize] += self.strengths[v as usize];
            s.outside[to as usize] += inside[v as usize] - 2 * there;
            s.cluster[v as usize] = to;
        };
        self.rounds(&mut state, &mut pending, pace, plan, claims, commit);
        membership.iter().copied().zip(state.cluster).collect()
    }
}

fn pace(enough: f64) -> Pace<'static> {
    Pace { key: 5, size: 1, enough, tick: &|| Ok(()) }
}

/// 40,000 vertices in 50 groups, with 12 neighbours in their own and 4 in others; some have up to 2,000.
fn large() -> Connectivities {
    let n = 40_000u32;
    let plain = planted(n, 50, 12, 4, 9);
    let edges = (0..n).flat_map(|v| {
        let (others, weights) = plain.row(v as usize);
        others.iter().zip(weights).map(move |(&u, &w)| (v, u, w)).collect::<Vec<_>>()
    });
    let hubs = (0..60u32).flat_map(|hub| (1..=hub * 33).map(move |t| (hub, (hub + t * 50 * (1 + hub % 3)) % n, 0.3)));
    graph(n as usize, edges.chain(hubs))
}

#[test]
fn slices_move_and_join_as_well_as_batches() {
    let graph = planted(6_000, 20, 10, 4, 9);
    let strength = strengths(&graph).unwrap();
    let network = level_0(&graph, &strength);
    let n = network.n();
    let quality = |membership: &[u32]| quality::modularity(&network, membership, n, 1.0);
    let twin = Twin::new(network, 1.0);
    let (mut slices, mut batches): (Vec<u32>, Vec<u32>) = ((0..n as u32).collect(), (0..n as u32).collect());
    twin.local_move(&mut slices, &pace(0.0));
    super::local_move::local_move(&network, &mut batches, 1.0, &pace(0.0)).unwrap();
    assert!(quality(&slices) > quality(&batches) - 0.01, "{} {}", quality(&slices), quality(&batches));
    let n_communities = labels::compact(&mut slices);
    let place = twin.refine(&slices, &pace(0.0));
    let other = refine::refine(&network, &slices, n_communities, refine::Rule { resolution: 1.0, beta: None }, &pace(0.0)).unwrap();
    let clusters = |place: &[(u32, u32)]| place.iter().map(|place| place.1).collect::<Vec<_>>();
    assert!(place.iter().all(|&(community, cluster)| slices[cluster as usize] == community));
    let distinct = |clusters: &[u32]| clusters.iter().collect::<std::collections::BTreeSet<_>>().len();
    let (mine, theirs) = (clusters(&place), clusters(&other));
    assert_eq!(n_parts(&graph, &mine), distinct(&mine));
    assert!(quality(&mine) > quality(&theirs) - 0.02, "{} {}", quality(&mine), quality(&theirs));
    assert!((0.8..1.25).contains(&(distinct(&mine) as f64 / distinct(&theirs) as f64)), "{} {}", distinct(&mine), distinct(&theirs));
}

/// On a machine with a GPU: the bits of the twin, and clusters as good as the CPU's.
#[test]
fn a_gpu_has_the_bits_of_the_twin() {
    let Ok(device) = Device::open(&Options::default()) else { return };
    let graph = large();
    let strength = strengths(&graph).unwrap();
    let network = level_0(&graph, &strength);
    let n = network.n();
    for resolution in [0.5, 1.0, 20.0] {
        let on_gpu = DeviceNetwork::new(&device, &network).unwrap().unwrap();
        let twin = Twin::new(network, resolution);
        // From single vertices, and from communities that are no good.
        for start in [(0..n as u32).collect::<Vec<_>>(), (0..n as u32).map(|v| v % 7).collect()] {
            for enough in [0.1, 0.0] {
                let (mut found, mut want) = (start.clone(), start.clone());
                on_gpu.local_move(&mut found, resolution, &pace(enough)).unwrap();
                twin.local_move(&mut want, &pace(enough));
                assert_eq!(found, want);
                labels::compact(&mut found);
                assert_eq!(on_gpu.refine(&found, resolution, &pace(0.0)).unwrap(), twin.refine(&found, &pace(0.0)));
            }
        }
    }
    // Levels made there, and levels made of these.
    let on_gpu = DeviceNetwork::new(&device, &network).unwrap().unwrap();
    let groups: Vec<u32> = (0..n as u32).map(|v| v % 50 + v % 300 / 50 * 50 + v / 1000 * 300).collect();
    let n_groups = *groups.iter().max().unwrap() as usize + 1;
    let (coarse, on_gpu) = on_gpu.aggregate(&groups, n_groups, network.strength).unwrap().unwrap();
    let want = aggregate(&network, &groups, n_groups);
    let (indptr, indices, weights) = on_gpu.as_ref().unwrap().edges().unwrap();
    assert_eq!((coarse.strength, &indptr, &indices), (want.strength.clone(), &want.indptr, &want.indices));
    assert!(weights.iter().zip(&want.weights).all(|(a, b)| (a - b).abs() <= 1e-9 * b));
    let halves: Vec<u32> = (0..n_groups as u32).map(|v| v / 4).collect();
    let (coarse, none) = on_gpu.unwrap().aggregate(&halves, n_groups.div_ceil(4), &want.strength).unwrap().unwrap();
    let want = aggregate(&want.network(), &halves, n_groups.div_ceil(4));
    assert!(none.is_none() && coarse.indices == want.indices && coarse.indptr == want.indptr);
    assert!(coarse.weights.iter().zip(&want.weights).all(|(a, b)| (a - b).abs() <= 1e-9 * b));

    let gpu = Processor::Cuda(vec![device]);
    let options = super::Options::default();
    let found = leiden_on(&graph, &[1.0, 5.0], &options, &gpu, &()).unwrap();
    assert_eq!(found, leiden_on(&graph, &[1.0, 5.0], &options, &gpu, &()).unwrap());
    let here = leiden(&graph, &options, &()).unwrap();
    assert!(found[0].modularity > here.modularity - 0.002, "{} {}", found[0].modularity, here.modularity);
    assert_eq!(n_parts(&graph, &found[0].labels), found[0].n_clusters);
}

//! Against scipy 1.17, statsmodels 0.14 and the plain way.

use proptest::prelude::*;

use super::*;

fn near(a: f64, b: f64, limit: f64) -> bool {
    a == b || (a - b).abs() <= limit * b.abs()
}

/// Two-sided p-values of Student's distribution.
#[test]
fn students_tails() {
    for (t, df, p) in STUDENT {
        let found = student_two_sided(t, df);
        // The continued fraction begins with a difference of about 1/df, which loses digits as df grows.
        let limit = 1e-11 + df * 1e-16;
        assert!(near(found, p, limit), "t {t}, df {df}: {found:e}, expected {p:e}");
        assert_eq!(student_two_sided(-t, df), found);
    }
    assert_eq!(student_two_sided(f64::INFINITY, 3.0), 0.0);
    assert_eq!(student_two_sided(0.0, 3.0), 1.0);
    assert!(student_two_sided(f64::NAN, 3.0).is_nan());
}

include!("student_table.rs");

/// `2 * scipy.stats.norm.sf(z)`.
#[test]
fn normal_tails() {
    for (z, p) in [(0.0, 1.0), (1.0, 0.31731050786291415), (5.0, 5.733031437583869e-07), (37.5, 9.210706019163908e-308)] {
        assert!(near(normal_two_sided(z), p, 1e-12), "{z}: {:e}", normal_two_sided(z));
    }
}

/// `scipy.stats.ttest_ind_from_stats(1.5, 2**.5, 20, 1.0, 3**.5, 55, equal_var=False)`.
#[test]
fn welch_is_scipys() {
    let (score, p) = welch(Sample { n: 20.0, mean: 1.5, variance: 2.0 }, Sample { n: 55.0, mean: 1.0, variance: 3.0 });
    assert!(near(score, 1.271_867_547_672_920_9, 1e-13), "{score}");
    assert!(near(p, WELCH_P, 1e-11), "{p}");
    let constant = Sample { n: 5.0, mean: 0.0, variance: 0.0 };
    assert_eq!(welch(constant, constant), (0.0, 1.0));
    assert_eq!(welch(Sample { mean: 1.0, ..constant }, constant), (f64::INFINITY, 0.0));
}

#[test]
fn adjusted_p_values_are_statsmodels() {
    let p = [0.01, 0.04, 0.03, 0.5, 0.9, 0.001];
    let bh = benjamini_hochberg(&p);
    for (found, expected) in bh.iter().zip([0.03, 0.06, 0.06, 0.6, 0.9, 0.006]) {
        assert!(near(*found, expected, 1e-14), "{bh:?}");
    }
    assert_eq!(bonferroni(&[0.1, 0.5]), [0.2, 1.0]);
    assert_eq!(benjamini_hochberg(&[f64::NAN, 0.2]), [1.0, 0.4]);
}

#[test]
fn genes_come_best_first() {
    let scores = [1.0, -5.0, 3.0, 1.0, 0.0];
    assert_eq!(best_first(&scores, false, 5), [2, 0, 3, 4, 1]);
    assert_eq!(best_first(&scores, true, 2), [1, 2]);
    assert_eq!(best_first(&scores, true, 0), [0u32; 0]);
}

/// Ranks by definition: 1 + smaller ones + half of the equal others.
fn plain(values: &[f32], of: impl Fn(usize) -> bool, among: impl Fn(usize) -> bool) -> (u64, f64) {
    let cells: Vec<usize> = (0..values.len()).filter(|&i| among(i)).collect();
    let count = |test: &dyn Fn(f32) -> bool| cells.iter().filter(|&&k| test(values[k])).count() as u64;
    let mut twice = 0;
    let mut ties = 0.0;
    for &i in &cells {
        let (less, equal) = (count(&|v| v < values[i]), count(&|v| v == values[i]));
        if of(i) {
            twice += 2 * less + equal + 1;
        }
        // t³ − t shared among its t cells.
        ties += (equal * equal) as f64 - 1.0;
    }
    (twice, ties)
}

proptest! {
    #[test]
    fn rank_sums_are_those_of_the_definition(cells in prop::collection::vec((-3i8..6, 0u16..4), 1..80)) {
        let values: Vec<f32> = cells.iter().map(|c| f32::from(c.0) / 2.0).collect();
        let groups: Vec<u16> = cells.iter().map(|c| c.1).collect();
        let sizes: Vec<u64> = (0..4).map(|g| groups.iter().filter(|x| **x == g).count() as u64).collect();
        let mut ranks = Ranks::new(&sizes);
        ranks.clear();
        ranks.add(&values, &groups);
        let found = ranks.all().clone();
        for g in 0..4u16 {
            let (twice, ties) = plain(&values, |i| groups[i] == g, |_| true);
            prop_assert_eq!(found.twice[g as usize], twice);
            prop_assert!((found.ties - ties).abs() < 1e-6);
        }
        let mut lists = Vec::new();
        ranks.by_group(&mut lists);
        for (a, b) in [(0, 1), (2, 0), (3, 2)] {
            let (twice, ties) = plain(&values, |i| groups[i] == a, |i| groups[i] == a || groups[i] == b);
            let of = |g: u16| (&lists[g as usize][..], sizes[g as usize]);
            let (found, cubes) = pair(of(a), of(b));
            prop_assert_eq!(found, twice);
            prop_assert!((cubes - ties).abs() < 1e-6);
        }
    }
}

/// `scipy.stats.ranksums([0, 1.5, 2, 0], [0, 0, 3, 1.5, 0, 0.5])` (no tie correction, no continuity correction).
#[test]
fn the_rank_sum_test_is_scipys() {
    let mut ranks = Ranks::new(&[4, 6, 0]);
    ranks.add(&[1.5, 2.0, 3.0, 1.5, 0.5], &[0, 0, 1, 1, 1]);
    let found = ranks.all().clone();
    let (score, p) = GeneRanks::test(found.twice[0], None, false, 4, 10);
    assert!(near(score, RANKSUM.0, 1e-12) && near(p, RANKSUM.1, 1e-12), "{score} {p}");
    let (score, _) = GeneRanks::test(found.twice[0], Some(found.ties), false, 4, 10);
    assert!(near(score, RANKSUM.0 / RANKSUM.2.sqrt(), 1e-12), "{score}");
    // scipy.stats.mannwhitneyu([1.5, 2, 4, 0], [0, 0, 3, 1, 0, 0.5], method="asymptotic")
    let mut ranks = Ranks::new(&[4, 6, 0]);
    ranks.add(&[1.5, 2.0, 4.0, 3.0, 1.0, 0.5], &[0, 0, 0, 1, 1, 1]);
    let found = ranks.all().clone();
    let (_, p) = GeneRanks::test(found.twice[0], Some(found.ties), true, 4, 10);
    assert!(near(p, 0.27139601757306, 1e-12), "{p}");
    assert_eq!(GeneRanks::test(10 * 11 / 2 * 2, Some(990.0), false, 10, 10), (0.0, 1.0));
}

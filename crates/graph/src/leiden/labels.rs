//! Numbers for communities.

use std::cmp::Reverse;

/// Renumbers communities (`< n`) by first appearance, that is, by their smallest member, and returns how many there are.
pub(super) fn compact(membership: &mut [u32]) -> usize {
    let mut numbers = vec![u32::MAX; membership.len()];
    let mut next = 0u32;
    for community in membership {
        let number = &mut numbers[*community as usize];
        if *number == u32::MAX {
            *number = next;
            next += 1;
        }
        *community = *number;
    }
    next as usize
}

/// Renumbers communities by size, largest first, ties by smallest member.
pub(super) fn by_size(membership: &mut [u32]) -> usize {
    let n_communities = compact(membership);
    let mut sizes = vec![0u32; n_communities];
    for &community in &*membership {
        sizes[community as usize] += 1;
    }
    let mut order: Vec<u32> = (0..n_communities as u32).collect();
    order.sort_by_key(|&community| Reverse(sizes[community as usize]));
    let mut numbers = vec![0u32; n_communities];
    for (number, &community) in order.iter().enumerate() {
        numbers[community as usize] = number as u32;
    }
    for community in membership {
        *community = numbers[*community as usize];
    }
    n_communities
}

/// Numbers the clusters of `place` (community, cluster named after a vertex) so that those of one community lie together. Returns the
/// number of each vertex's cluster, and the community of each cluster.
pub(super) fn by_community(place: &[(u32, u32)], n_communities: usize) -> (Vec<u32>, Vec<u32>) {
    let mut used = vec![false; place.len()];
    for &(_, cluster) in place {
        used[cluster as usize] = true;
    }
    let mut next = vec![0u32; n_communities + 1];
    for ((community, _), _) in place.iter().zip(&used).filter(|(_, used)| **used) {
        next[*community as usize + 1] += 1;
    }
    for community in 0..n_communities {
        next[community + 1] += next[community];
    }
    let n_clusters = next[n_communities] as usize;
    let mut numbers = vec![0u32; place.len()];
    let mut communities = vec![0u32; n_clusters];
    for (v, &(community, _)) in place.iter().enumerate().filter(|&(v, _)| used[v]) {
        let number = &mut next[community as usize];
        numbers[v] = *number;
        communities[*number as usize] = community;
        *number += 1;
    }
    (place.iter().map(|&(_, cluster)| numbers[cluster as usize]).collect(), communities)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_comes_first_and_ties_go_to_the_smallest_member() {
        let mut membership = [6, 2, 2, 4, 6, 4, 0, 2];
        assert_eq!(by_size(&mut membership), 4);
        assert_eq!(membership, [1, 0, 0, 2, 1, 2, 3, 0]);
        assert_eq!(by_size(&mut []), 0);
    }

    #[test]
    fn clusters_of_one_community_lie_together() {
        let place = [(1, 0), (0, 1), (1, 0), (1, 3), (0, 4), (0, 1)];
        let (groups, communities) = by_community(&place, 2);
        assert_eq!(groups, [2, 0, 2, 3, 1, 0]);
        assert_eq!(communities, [0, 0, 1, 1]);
    }
}

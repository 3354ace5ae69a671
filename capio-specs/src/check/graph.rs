//! Cycles in small directed graphs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

/// Edges from a node to nodes, in a fixed order.
pub(super) type Graph<N> = Vec<(N, Vec<N>)>;

/// Shortest cycles, one for each node that is on any and on none found
/// before. A cycle lists each of its nodes once.
pub(super) fn cycles<N: Copy + Eq + Hash>(graph: &Graph<N>) -> Vec<Vec<N>> {
    let edges: HashMap<N, &[N]> = graph
        .iter()
        .map(|(from, to)| (*from, to.as_slice()))
        .collect();
    let mut found: Vec<Vec<N>> = Vec::new();
    let mut covered = HashSet::new();
    for (start, _) in graph {
        if covered.contains(start) {
            continue;
        }
        if let Some(cycle) = shortest_through(*start, &edges) {
            covered.extend(cycle.iter().copied());
            found.push(cycle);
        }
    }
    found
}

fn shortest_through<N: Copy + Eq + Hash>(start: N, edges: &HashMap<N, &[N]>) -> Option<Vec<N>> {
    let mut came_from = HashMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(node) = open.pop_front() {
        for next in edges.get(&node).copied().unwrap_or_default() {
            if *next == start {
                return Some(path_to(node, start, &came_from));
            }
            came_from.entry(*next).or_insert_with(|| {
                open.push_back(*next);
                node
            });
        }
    }
    None
}

fn path_to<N: Copy + Eq + Hash>(end: N, start: N, came_from: &HashMap<N, N>) -> Vec<N> {
    let mut path = vec![end];
    let mut node = end;
    while node != start {
        match came_from.get(&node) {
            Some(before) => node = *before,
            None => break,
        }
        path.push(node);
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cycle_is_found_and_no_other_path_is_taken_for_one() {
        let graph = vec![
            (1, vec![2]),
            (2, vec![3, 4]),
            (3, vec![1]),
            (4, vec![5]),
            (5, vec![5]),
            (6, vec![1]),
        ];
        assert_eq!(cycles(&graph), [vec![1, 2, 3], vec![5]]);
    }
}

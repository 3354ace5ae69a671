//! In which order steps may start.

use std::fmt;

use super::workflow::Step;

/// Steps that wait for one another.
#[derive(Debug, PartialEq, Eq)]
pub struct Cycle(Vec<String>);

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`after` goes in a circle: {}; remove one of them",
            self.0.join(" after ")
        )
    }
}

/// Whether every step can start some time.
///
/// # Errors
/// One circle of steps, its first named again at the end.
pub fn check(steps: &[Step]) -> Result<(), Cycle> {
    let sorted = sequence(steps);
    let Some(stuck) = (0..steps.len()).find(|index| !sorted.contains(index)) else {
        return Ok(());
    };
    // Every stuck step waits for a stuck one: following them must come back.
    let mut path = vec![stuck];
    loop {
        let last = path[path.len() - 1];
        let next = steps[last]
            .after
            .iter()
            .copied()
            .find(|index| !sorted.contains(index));
        let Some(next) = next else { return Ok(()) };
        if let Some(start) = path.iter().position(|&index| index == next) {
            let mut names: Vec<_> = path[start..]
                .iter()
                .map(|&i| steps[i].name.clone())
                .collect();
            names.push(steps[next].name.clone());
            return Err(Cycle(names));
        }
        path.push(next);
    }
}

/// Indices in the order of a sequential run: always the first step of the
/// file whose `after` are all done. Steps of a circle are left out.
fn sequence(steps: &[Step]) -> Vec<usize> {
    let mut sorted = Vec::with_capacity(steps.len());
    while let Some(next) = (0..steps.len()).find(|index| {
        !sorted.contains(index)
            && steps[*index]
                .after
                .iter()
                .all(|before| sorted.contains(before))
    }) {
        sorted.push(next);
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::workflow::Workflow;

    fn steps(text: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        for (name, after) in text.split(' ').map(|word| word.split_once(':').unwrap()) {
            let mut step = Workflow::from_arguments(&[format!("{name}=true")])
                .unwrap()
                .steps;
            let after = after.bytes().map(|letter| usize::from(letter - b'a'));
            step[0].after = after.collect();
            steps.append(&mut step);
        }
        steps
    }

    #[test]
    fn a_sequential_run_keeps_the_order_of_the_file_where_after_allows() {
        assert_eq!(sequence(&steps("a: b: c:")), [0, 1, 2]);
        assert_eq!(sequence(&steps("a:c b: c:")), [1, 2, 0]);
        assert_eq!(sequence(&steps("a:d b:a c: d:c")), [2, 3, 0, 1]);
    }

    #[test]
    fn a_circle_is_named_without_the_steps_that_merely_wait_for_it() {
        assert_eq!(check(&steps("a: b:a")), Ok(()));
        let cycle = check(&steps("a:b b:c c:d d:b")).unwrap_err();
        assert_eq!(cycle.0, ["b", "c", "d", "b"]);
        assert_eq!(check(&steps("a:a")).unwrap_err().0, ["a", "a"]);
    }
}

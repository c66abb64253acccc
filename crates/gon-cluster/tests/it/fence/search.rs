//! Breadth-first search of everything that can happen.

use std::collections::HashSet;

use super::model::State;

/// What was seen on the way: that the model can do what it should.
#[derive(Debug, Default)]
pub struct Goals {
    /// The instance ran where it was placed first.
    pub ran_first: bool,
    /// It ran where it was moved to.
    pub ran_moved: bool,
    /// And that under a later epoch than it was placed under first.
    pub ran_moved_by_another: bool,
}

impl Goals {
    fn see(&mut self, state: &State) {
        let running = state.nodes.iter().find_map(|n| n.running);
        self.ran_first |= running == Some(1);
        self.ran_moved |= running == Some(2);
        self.ran_moved_by_another |= running == Some(2) && state.epoch > 1;
    }
}

/// How a search ended.
#[derive(Debug)]
pub enum Outcome {
    /// What was looked for can happen, this way; no way is shorter.
    Found {
        /// The steps.
        trace: Vec<String>,
        /// How many states were seen before.
        states: usize,
    },
    /// It cannot happen.
    Exhausted {
        /// How many states there are.
        states: usize,
        /// What can happen.
        goals: Goals,
    },
}

/// Looks at every state that `next` leads to from `start`, nearest first, until `is_found`.
pub fn search(
    start: State,
    next: impl Fn(&State) -> Vec<(String, State)>,
    is_found: impl Fn(&State) -> bool,
) -> Outcome {
    // States in the order in which they were found; each with the one it came from and the step.
    let mut found: Vec<(State, usize, String)> = vec![(start, 0, String::new())];
    let mut known: HashSet<State> = HashSet::from([start.canonical()]);
    let mut goals = Goals::default();
    let mut at = 0;
    while at < found.len() {
        let state = found[at].0;
        goals.see(&state);
        for (step, after) in next(&state) {
            let is_wanted = is_found(&after);
            if known.insert(after.canonical()) {
                found.push((after, at, step));
            }
            if is_wanted {
                return Outcome::Found { trace: trace(&found), states: found.len() };
            }
        }
        at += 1;
    }
    Outcome::Exhausted { states: found.len(), goals }
}

/// The way to the last state.
fn trace(found: &[(State, usize, String)]) -> Vec<String> {
    let mut steps = Vec::new();
    let mut at = found.len() - 1;
    while at != 0 {
        let (_, from, step) = &found[at];
        steps.push(step.clone());
        at = *from;
    }
    steps.reverse();
    steps
}

//! Breadth-first search of everything that can happen: exhaustive within its bounds, and the first way it finds to
//! something is a shortest one.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use super::model::{State, Step};

/// Quick, and good enough for states that nobody chooses with malice. Which states are the same is decided by comparing
/// them.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }
    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }
    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

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
        trace: Vec<Step>,
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
    next: impl Fn(&State) -> Vec<(Step, State)>,
    is_found: impl Fn(&State) -> bool,
) -> Outcome {
    // States in the order in which they were found; each with the one it came from and the step.
    let mut found: Vec<(State, usize, Option<Step>)> = vec![(start, 0, None)];
    let mut known: HashSet<State, BuildHasherDefault<Mix>> = HashSet::default();
    known.insert(start.canonical());
    let mut goals = Goals::default();
    let mut at = 0;
    while at < found.len() {
        let state = found[at].0;
        goals.see(&state);
        for (step, after) in next(&state) {
            let is_wanted = is_found(&after);
            if known.insert(after.canonical()) {
                found.push((after, at, Some(step)));
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
fn trace(found: &[(State, usize, Option<Step>)]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = found.len() - 1;
    while let (_, from, Some(step)) = found[at] {
        steps.push(step);
        at = from;
    }
    steps.reverse();
    steps
}

//! The model: what PostgreSQL, the controllers, the nodes and the network know, and every step that each may take.
//!
//! ```text
//!   controller: take over ─▶ read ─▶ write (place, ask to leave)   ─▶ read ─▶ publish to a node ─▶ …
//!                                 └▶ take a report (it has left)
//!   node:       accept a document ─▶ plan ─▶ effect (start, stop) ─▶ report;  or lose everything that runs (reboot)
//! ```
//!
//! A paused process is one that takes no step for a while, which any path through the model may do. A message stays in
//! the network when it is delivered and need not be: lost, repeated and reordered are all in there.

use std::fmt;

use gon_types::DocumentVersion;

/// The most epochs and the most generations of each that fit into a state.
const EPOCHS: u8 = 3;
const GENERATIONS: u8 = 3;
const VERSIONS: usize = EPOCHS as usize * GENERATIONS as usize;

/// How far the search goes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How often somebody takes over; 3 at most.
    pub epochs: u8,
    /// How often the instance is placed.
    pub placements: u8,
    /// How many documents a controller makes under one epoch; 3 at most.
    pub generations: u8,
}

/// [`DocumentVersion`] in little room: there are millions of states. Compared as the real one is
/// ([`Version::agrees_with_the_real_one`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Version {
    epoch: u8,
    generation: u8,
}

impl Version {
    fn real(self) -> DocumentVersion {
        DocumentVersion { epoch: self.epoch.into(), generation: self.generation.into() }
    }
    /// Whether every two of them compare as those they stand for.
    pub fn agrees_with_the_real_one() -> bool {
        let all: Vec<Self> = (0..VERSIONS).map(Self::of).collect();
        all.iter().all(|one| all.iter().all(|other| one.cmp(other) == one.real().cmp(&other.real())))
    }
    /// From 0 on, for a version of a document.
    fn index(self) -> usize {
        usize::from((self.epoch - 1) * GENERATIONS + self.generation - 1)
    }
    fn of(index: usize) -> Self {
        let (epoch, generation) =
            (index / usize::from(GENERATIONS) + 1, index % usize::from(GENERATIONS) + 1);
        Self { epoch: epoch as u8, generation: generation as u8 }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Version {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.epoch, self.generation).cmp(&(other.epoch, other.generation))
    }
}
impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.real().fmt(f)
    }
}

/// Which fences are there. The protocol has all; to leave one out is a planted bug.
#[derive(Debug, Clone, Copy)]
pub struct Fences {
    /// PostgreSQL compares the leader's epoch in the transaction of every write.
    pub epoch_at_the_write: bool,
    /// A node refuses documents that are not newer than what it has seen.
    pub version_at_the_fetch: bool,
    /// A node compares again at the moment of the effect.
    pub version_at_the_effect: bool,
    /// A report frees an instance only if it speaks of a document that no longer has it.
    pub version_in_the_report: bool,
    /// A controller publishes what it read before it reads again.
    pub one_reader_at_a_time: bool,
}

impl Fences {
    /// The protocol.
    pub const ALL: Self = Self {
        epoch_at_the_write: true,
        version_at_the_fetch: true,
        version_at_the_effect: true,
        version_in_the_report: true,
        one_reader_at_a_time: true,
    };
}

/// What must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wrong {
    /// Two nodes run the instance: two writers of one disk.
    RunsTwice,
    /// A controller wrote to PostgreSQL after another had taken over.
    StaleWrite,
}

/// What somebody did. Controllers and nodes have numbers.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "read in a trace, as `Debug` shows it")]
pub enum Step {
    /// Raises the epoch, by whatever right: the election is not trusted.
    TakesOver { controller: usize, epoch: u8 },
    /// Reads the rows.
    Reads { controller: usize },
    /// Lays what it has read aside and reads again.
    IsSlow { controller: usize },
    /// Places the instance.
    Places { controller: usize, node: u8 },
    /// Asks the instance to leave.
    AsksToLeave { controller: usize, node: u8 },
    /// Publishes what it has read.
    Publishes { controller: usize, node: u8, placed: Placed },
    /// Takes a report: the instance has left.
    Frees { controller: usize, node: u8, observed: Version },
    /// Takes a document.
    Accepts { node: usize, version: Version, wanted: Wanted },
    /// Begins to bring about what the document says.
    Plans { node: usize, version: Version },
    /// Brings it about.
    CarriesOut { node: usize, version: Version, wanted: Wanted },
    /// Refuses to: the document is not the last any more.
    DropsPlan { node: usize, version: Version },
    /// Loses everything that runs, and keeps its document.
    Reboots { node: usize },
}

/// Where the instance is, as PostgreSQL has it. The number counts placements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Placed {
    Nowhere,
    On {
        node: u8,
        placement: u8,
    },
    /// It is to leave, and nobody else may have it before it has.
    Leaves {
        node: u8,
        placement: u8,
    },
}

/// Rows as a controller read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rows {
    placed: Placed,
    placements: u8,
}

impl Rows {
    fn with_nodes_swapped(self) -> Self {
        let placed = match self.placed {
            Placed::Nowhere => Placed::Nowhere,
            Placed::On { node, placement } => Placed::On { node: 1 - node, placement },
            Placed::Leaves { node, placement } => Placed::Leaves { node: 1 - node, placement },
        };
        Self { placed, ..self }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Controller {
    /// Since when it believes to lead; 0: it does not.
    epoch: u8,
    /// Documents it has made under this epoch.
    generation: u8,
    /// What it has read and not used yet.
    rows: Option<Rows>,
    /// A second reading that is under way, where nothing forbids it.
    older: Option<Rows>,
    /// The first of its documents in which a placement is to leave: placement and generation. Lost with it.
    without: Option<(u8, u8)>,
}

/// What a document says of the instance: the placement that is to run here.
type Wanted = Option<u8>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// The document it has kept.
    seen: Version,
    wanted: Wanted,
    /// What it is about to bring about, and by which document.
    plan: Option<(Version, Wanted)>,
    /// The placement that runs.
    pub running: Option<u8>,
    /// Reports in the network, by version: the instance does not run here, and this document was acted on.
    idle: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    /// PostgreSQL: the highest epoch of the role.
    pub epoch: u8,
    /// PostgreSQL: the instance.
    rows: Rows,
    controllers: [Controller; 2],
    pub nodes: [Node; 2],
    /// Documents in the network, by version: for whom, and what they say.
    documents: [Option<(u8, Wanted)>; VERSIONS],
    /// What went wrong on the way here.
    pub wrong: Option<Wrong>,
}

impl State {
    pub fn start() -> Self {
        Self {
            epoch: 0,
            rows: Rows { placed: Placed::Nowhere, placements: 0 },
            controllers: Default::default(),
            nodes: Default::default(),
            documents: Default::default(),
            wrong: None,
        }
    }

    /// The same for all states that differ by names only: controllers are alike, and so are nodes.
    pub fn canonical(mut self) -> Self {
        self.controllers.sort_unstable();
        let mut other = self.with_nodes_swapped();
        other.controllers.sort_unstable();
        self.min(other)
    }

    fn with_nodes_swapped(mut self) -> Self {
        self.nodes.swap(0, 1);
        self.rows = self.rows.with_nodes_swapped();
        for controller in &mut self.controllers {
            controller.rows = controller.rows.map(Rows::with_nodes_swapped);
            controller.older = controller.older.map(Rows::with_nodes_swapped);
        }
        for (node, _) in self.documents.iter_mut().flatten() {
            *node = 1 - *node;
        }
        self
    }

    /// Every step that anybody may take.
    pub fn next(&self, fences: &Fences, limits: &Limits) -> Vec<(Step, Self)> {
        let mut after = Vec::new();
        for c in 0..2 {
            self.controller_steps(c, fences, limits, &mut after);
        }
        for n in 0..2 {
            self.node_steps(n, fences, &mut after);
        }
        for (_, state) in &mut after {
            state.forget(fences);
            if state.nodes.iter().all(|n| n.running.is_some()) {
                state.wrong = Some(Wrong::RunsTwice);
            }
        }
        after
    }

    /// Messages that every receiver would refuse are as good as lost. Fewer states, the same behaviour.
    fn forget(&mut self, fences: &Fences) {
        for (index, document) in self.documents.iter_mut().enumerate() {
            if fences.version_at_the_fetch
                && document.is_some_and(|(node, _)| Version::of(index) <= self.nodes[usize::from(node)].seen)
            {
                *document = None;
            }
        }
        if fences.version_in_the_report && fences.epoch_at_the_write {
            let present = (0..VERSIONS).filter(|index| Version::of(*index).epoch == self.epoch);
            let present: u16 = present.map(|index| 1 << index).sum();
            for node in &mut self.nodes {
                node.idle &= present;
            }
        }
    }

    fn controller_steps(&self, c: usize, fences: &Fences, limits: &Limits, after: &mut Vec<(Step, Self)>) {
        let mut step = |step: Step, change: &dyn Fn(&mut Self)| {
            let mut state = *self;
            change(&mut state);
            after.push((step, state));
        };
        let me = &self.controllers[c];
        if self.epoch < limits.epochs {
            step(Step::TakesOver { controller: c, epoch: self.epoch + 1 }, &|s| {
                s.epoch += 1;
                s.controllers[c] = Controller { epoch: s.epoch, ..Controller::default() };
            });
        }
        if me.epoch == 0 {
            return;
        }
        step(Step::Reads { controller: c }, &|s| s.controllers[c].rows = Some(s.rows));
        if !fences.one_reader_at_a_time && me.older.is_none() && me.rows.is_some() {
            step(Step::IsSlow { controller: c }, &|s| {
                s.controllers[c].older = s.controllers[c].rows.take();
            });
        }
        if let Some(rows) = me.rows {
            match rows.placed {
                Placed::Nowhere if rows.placements < limits.placements => {
                    for node in 0..2 {
                        let placement = rows.placements + 1;
                        step(Step::Places { controller: c, node }, &|s| {
                            let placed = Placed::On { node, placement };
                            s.write(c, fences, Rows { placed, placements: placement });
                        });
                    }
                }
                Placed::On { node, placement } if placement < limits.placements => {
                    step(Step::AsksToLeave { controller: c, node }, &|s| {
                        s.write(c, fences, Rows { placed: Placed::Leaves { node, placement }, ..rows });
                    });
                }
                _ => {}
            }
        }
        for (rows, is_older) in [(me.rows, false), (me.older, true)] {
            if let Some(rows) = rows
                && me.generation < limits.generations
            {
                for node in 0..2 {
                    step(Step::Publishes { controller: c, node, placed: rows.placed }, &|s| {
                        s.publish(c, node, rows);
                        if is_older {
                            s.controllers[c].older = None;
                        }
                    });
                }
            }
        }
        for node in 0..2 {
            for index in (0..VERSIONS).filter(|index| self.nodes[usize::from(node)].idle & 1 << index != 0) {
                let observed = Version::of(index);
                if self.frees(c, fences, node, observed) {
                    step(Step::Frees { controller: c, node, observed }, &|s| {
                        s.write(c, fences, Rows { placed: Placed::Nowhere, ..s.rows });
                    });
                }
            }
        }
    }

    /// Whether a report says that what is to leave has left. The row is compared in the transaction.
    fn frees(&self, c: usize, fences: &Fences, node: u8, observed: Version) -> bool {
        let Placed::Leaves { node: on, placement } = self.rows.placed else { return false };
        let me = &self.controllers[c];
        let since = me.without.filter(|(left, _)| *left == placement);
        let is_late_enough =
            since.is_some_and(|(_, generation)| observed >= Version { epoch: me.epoch, generation });
        on == node && (is_late_enough || !fences.version_in_the_report)
    }

    /// A transaction of a controller: what it had read is used up.
    fn write(&mut self, c: usize, fences: &Fences, rows: Rows) {
        self.controllers[c].rows = None;
        if self.controllers[c].epoch == self.epoch {
            self.rows = rows;
        } else if fences.epoch_at_the_write {
            // Refused, and so it knows.
            self.controllers[c] = Controller::default();
        } else {
            self.rows = rows;
            self.wrong = Some(Wrong::StaleWrite);
        }
    }

    fn publish(&mut self, c: usize, node: u8, rows: Rows) {
        let me = &mut self.controllers[c];
        me.generation += 1;
        let wanted = match rows.placed {
            Placed::On { node: on, placement } if on == node => Some(placement),
            _ => None,
        };
        if let Placed::Leaves { node: on, placement } = rows.placed
            && on == node
            && me.without.is_none_or(|(left, _)| left != placement)
        {
            me.without = Some((placement, me.generation));
        }
        let version = Version { epoch: me.epoch, generation: me.generation };
        self.documents[version.index()] = Some((node, wanted));
    }

    fn node_steps(&self, n: usize, fences: &Fences, after: &mut Vec<(Step, Self)>) {
        let mut step = |step: Step, change: &dyn Fn(&mut Node)| {
            let mut state = *self;
            change(&mut state.nodes[n]);
            state.report(n);
            after.push((step, state));
        };
        let me = &self.nodes[n];
        for (index, document) in self.documents.iter().enumerate() {
            let version = Version::of(index);
            if let Some((node, wanted)) = *document
                && usize::from(node) == n
                && (version > me.seen || !fences.version_at_the_fetch)
            {
                step(Step::Accepts { node: n, version, wanted }, &|node| {
                    (node.seen, node.wanted) = (version, wanted);
                });
            }
        }
        if me.plan.is_none() && me.running != me.wanted {
            step(Step::Plans { node: n, version: me.seen }, &|node| {
                node.plan = Some((node.seen, node.wanted))
            });
        }
        if let Some((version, wanted)) = me.plan {
            let is_refused = fences.version_at_the_effect && version != me.seen;
            let done = match is_refused {
                true => Step::DropsPlan { node: n, version },
                false => Step::CarriesOut { node: n, version, wanted },
            };
            step(done, &|node| {
                node.plan = None;
                if !is_refused {
                    node.running = wanted;
                }
            });
        }
        if me.running.is_some() || me.plan.is_some() {
            // It will start again what its document wants.
            step(Step::Reboots { node: n }, &|node| (node.running, node.plan) = (None, None));
        }
    }

    /// A node reports whenever something changed, if there is something to free by it. Reports arrive or do not.
    fn report(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.running.is_none() && node.wanted.is_none() && node.seen != Version::default() {
            node.idle |= 1 << node.seen.index();
        }
    }
}

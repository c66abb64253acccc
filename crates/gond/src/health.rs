//! How a service is: alive, ready, and on what that depends.
//!
//! Whoever looks after a dependency keeps a [`Probe`] and says what it saw; everybody else only reads. Promises that
//! `/readyz` names every dependency with its condition, since when and why; that it answers 503 exactly when the
//! service cannot do its job (something it cannot do without is not there) and 200 with `degraded` when it only does it
//! slower; and that neither page needs a certificate nor says a secret.

pub mod metrics;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use routes::{Ops, router};

/// What a service is without a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It cannot do its job.
    Must,
    /// It does its job, slower or with less.
    Helps,
}

/// How a dependency is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nobody has looked yet.
    Unknown,
    /// As it should be.
    Up,
    /// Not: why.
    Down(String),
}

#[derive(Debug, Clone)]
struct Dependency {
    need: Need,
    condition: Condition,
    /// What else is known of it, for people.
    note: String,
    since: SystemTime,
}

#[derive(Debug)]
struct State {
    dependencies: BTreeMap<&'static str, Dependency>,
    facts: BTreeMap<String, Value>,
    /// The service takes no more work: it ends.
    stopping: bool,
}

/// What a service is, taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Ready,
    /// It does its job, but something that helps is missing.
    Degraded,
    /// It cannot do its job.
    Unready,
}

impl Verdict {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Unready => "unready",
        }
    }
}

/// The health of one service. Clones are the same.
#[derive(Debug, Clone)]
pub struct Health {
    service: Arc<str>,
    node: Arc<str>,
    started: SystemTime,
    begun: Instant,
    state: Arc<Mutex<State>>,
}

/// The one who looks after a dependency.
#[derive(Debug, Clone)]
pub struct Probe {
    health: Health,
    name: &'static str,
}

impl Health {
    /// A service that depends on nothing yet.
    #[must_use]
    pub fn new(service: &str, node: &str) -> Self {
        Self {
            service: service.into(),
            node: node.into(),
            started: SystemTime::now(),
            begun: Instant::now(),
            state: Arc::new(Mutex::new(State {
                dependencies: BTreeMap::new(),
                facts: BTreeMap::new(),
                stopping: false,
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the service depends on this; until the first look its condition is not known.
    #[must_use]
    pub fn depends(&self, name: &'static str, need: Need) -> Probe {
        let dependency =
            Dependency { need, condition: Condition::Unknown, note: String::new(), since: SystemTime::now() };
        self.lock().dependencies.insert(name, dependency);
        Probe { health: self.clone(), name }
    }

    /// Something worth knowing of the service.
    pub fn fact(&self, name: &str, value: Value) {
        self.lock().facts.insert(name.to_owned(), value);
    }

    /// From now on it ends, and is not ready.
    pub fn stopping(&self) {
        self.lock().stopping = true;
    }

    /// What it is, taken together.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        verdict(&self.lock())
    }

    /// In a line, for the service manager.
    #[must_use]
    pub fn summary(&self) -> String {
        let state = self.lock();
        let missing: Vec<String> = state
            .dependencies
            .iter()
            .filter_map(|(name, d)| match &d.condition {
                Condition::Up => None,
                Condition::Unknown => Some(format!("{name}: not known yet")),
                Condition::Down(why) => Some(format!("{name}: {why}")),
            })
            .collect();
        let verdict = verdict(&state);
        if missing.is_empty() {
            verdict.as_str().to_owned()
        } else {
            format!("{}; {}", verdict.as_str(), missing.join("; "))
        }
    }

    /// All of it.
    #[must_use]
    pub fn document(&self) -> Value {
        let state = self.lock();
        let dependencies: serde_json::Map<String, Value> = state
            .dependencies
            .iter()
            .map(|(name, d)| {
                let (status, why) = match &d.condition {
                    Condition::Unknown => ("unknown", Some("nobody has looked yet")),
                    Condition::Up => ("up", None),
                    Condition::Down(why) => ("down", Some(why.as_str())),
                };
                let required = d.need == Need::Must;
                let mut entry =
                    json!({ "status": status, "since": written(d.since), "required": required, "why": why });
                if !d.note.is_empty() {
                    entry["note"] = d.note.clone().into();
                }
                ((*name).to_owned(), entry)
            })
            .collect();
        let mut document = json!({
            "status": verdict(&state).as_str(),
            "service": *self.service,
            "node": *self.node,
            "version": env!("CARGO_PKG_VERSION"),
            "started": written(self.started),
            "uptime_seconds": self.begun.elapsed().as_secs(),
            "dependencies": dependencies,
            "facts": state.facts,
        });
        if state.stopping {
            document["stopping"] = true.into();
        }
        document
    }

    /// How a dependency is; `None` if there is none of that name.
    #[must_use]
    pub fn condition(&self, name: &str) -> Option<Condition> {
        self.lock().dependencies.get(name).map(|d| d.condition.clone())
    }

    /// Each dependency and whether it is as it should be.
    #[must_use]
    pub fn conditions(&self) -> Vec<(&'static str, bool)> {
        self.lock().dependencies.iter().map(|(name, d)| (*name, d.condition == Condition::Up)).collect()
    }
}

fn verdict(state: &State) -> Verdict {
    if state.stopping {
        return Verdict::Unready;
    }
    let lacks = |need| state.dependencies.values().any(|d| d.need == need && d.condition != Condition::Up);
    if lacks(Need::Must) {
        Verdict::Unready
    } else if lacks(Need::Helps) {
        Verdict::Degraded
    } else {
        Verdict::Ready
    }
}

fn written(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

impl Probe {
    fn set(&self, condition: Condition, note: Option<String>) {
        let mut state = self.health.lock();
        let Some(dependency) = state.dependencies.get_mut(self.name) else { return };
        if let Some(note) = note {
            dependency.note = note;
        }
        let same = match (&dependency.condition, &condition) {
            (Condition::Down(_), Condition::Down(_)) => true,
            (old, new) => old == new,
        };
        let why = match &condition {
            Condition::Down(why) => why.clone(),
            _ => String::new(),
        };
        dependency.condition = condition;
        if same {
            return;
        }
        let required = dependency.need == Need::Must;
        dependency.since = SystemTime::now();
        drop(state);
        let dependency = self.name;
        if why.is_empty() {
            tracing::info!(dependency, "there");
        } else {
            tracing::warn!(dependency, required, why, "not there");
        }
    }

    /// It is as it should be.
    pub fn up(&self) {
        self.set(Condition::Up, None);
    }
    /// It is as it should be, and more is known.
    pub fn up_with(&self, note: impl Into<String>) {
        self.set(Condition::Up, Some(note.into()));
    }
    /// It is not: why, in a line.
    pub fn down(&self, why: impl Into<String>) {
        self.set(Condition::Down(why.into()), None);
    }
}

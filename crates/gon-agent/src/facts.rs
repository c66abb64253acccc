//! What the agents of a node find out for each other: a small file per agent in a directory that all of them see.
//!
//! The hypervisor agent speaks for the node; the others leave here what it should say of them. Promises that a file is
//! whole, and that what an agent left that does not run any more is not taken for true: it carries the machine's boot
//! id and its time, and counts for [`FRESH`].

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How often an agent repeats what it says.
pub const REPEAT: Duration = Duration::from_secs(10);
/// How long it counts.
const FRESH: Duration = Duration::from_secs(45);

#[derive(Serialize, Deserialize)]
struct File<T> {
    boot: String,
    written: u64,
    facts: T,
}

/// What the container agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFacts {
    /// Docker, if it is there.
    pub docker: Option<gon_driver::docker::DockerFacts>,
}

/// What the storage agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageFacts {
    /// Images of which a file is not what it was when it was made: nothing is started from them.
    pub damaged: Vec<String>,
}

/// What the network agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// Which datapath the switch has: `system` or `netdev`.
    pub datapath: String,
    /// The switch's version, if it says.
    pub version: Option<String>,
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Says `facts` as `agent`.
pub fn tell<T: Serialize>(dir: &Path, agent: &str, facts: &T) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let text = serde_json::to_vec(&File { boot: boot_id(), written: now(), facts })?;
    let beside = dir.join(format!(".{agent}.new"));
    // A power loss may take it: it is said again.
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, dir.join(format!("{agent}.json")))
}

/// Takes back what `agent` said.
pub fn untell(dir: &Path, agent: &str) {
    let _ = std::fs::remove_file(dir.join(format!("{agent}.json")));
}

/// What `agent` says, if it said it lately.
#[must_use]
pub fn told<T: DeserializeOwned>(dir: &Path, agent: &str) -> Option<T> {
    let file = read::<T>(dir, agent)?;
    let fresh = file.boot == boot_id() && now().abs_diff(file.written) <= FRESH.as_secs();
    fresh.then_some(file.facts)
}

/// What `agent` said last, however long ago: for what does not change by itself.
#[must_use]
pub fn told_ever<T: DeserializeOwned>(dir: &Path, agent: &str) -> Option<T> {
    read(dir, agent).map(|file| file.facts)
}

fn read<T: DeserializeOwned>(dir: &Path, agent: &str) -> Option<File<T>> {
    serde_json::from_slice(&std::fs::read(dir.join(format!("{agent}.json"))).ok()?).ok()
}

/// Name of the network agent here.
pub const NETWORK: &str = "network-agent";
/// Name of the container agent here.
pub const CONTAINER: &str = "container-agent";
/// Name of the storage agent here.
pub const STORAGE: &str = "storage-agent";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_lately_counts() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("facts");
        assert_eq!(told::<StorageFacts>(&dir, STORAGE), None);
        let facts = StorageFacts { damaged: vec!["debian-12".to_owned()] };
        tell(&dir, STORAGE, &facts).unwrap();
        assert_eq!(told(&dir, STORAGE), Some(facts.clone()));
        let path = dir.join("storage-agent.json");
        for (boot, written) in [(boot_id(), now() - 60), ("another".to_owned(), now())] {
            std::fs::write(&path, serde_json::to_vec(&File { boot, written, facts: &facts }).unwrap())
                .unwrap();
            assert_eq!(told::<StorageFacts>(&dir, STORAGE), None);
        }
        std::fs::write(&path, "{").unwrap();
        assert_eq!(told::<StorageFacts>(&dir, STORAGE), None);
        tell(&dir, STORAGE, &facts).unwrap();
        untell(&dir, STORAGE);
        assert_eq!(told::<StorageFacts>(&dir, STORAGE), None);
    }
}
